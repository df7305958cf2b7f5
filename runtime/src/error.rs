//! Everything that can go wrong between a bundle's path and a list of recommendations.

use std::path::PathBuf;

use slmrec_core::{BundleError, HistoryError, RankingError};

use crate::options::Provider;

/// Why there are no recommendations. Where something can be done about it, the message ends in
/// `; hint: ..`.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The bundle cannot be read.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The history cannot be used: empty, or nothing in it is known.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// The scores cannot be ranked.
    #[error(transparent)]
    Ranking(#[from] RankingError),
    /// ONNX Runtime was asked for and is in none of the places searched.
    #[error(
        "ONNX Runtime was not found{}; tried {}; hint: run `cargo xtask setup`, or name the library with --onnxruntime or ORT_DYLIB_PATH",
        in_unusable_form(.unusable),
        list(.tried)
    )]
    LibraryNotFound {
        /// The places, in order.
        tried: Vec<String>,
        /// Libraries that are there but do not work, each with the reason.
        unusable: Vec<String>,
    },
    /// The library that was named cannot be used.
    #[error(
        "{path}: not a usable ONNX Runtime library: {reason}; hint: ONNX Runtime {minimum} or newer is needed"
    )]
    Library {
        /// The file.
        path: PathBuf,
        /// What the loader said.
        reason: String,
        /// Oldest version that works.
        minimum: String,
    },
    /// A process can load one ONNX Runtime only, and another one is loaded.
    #[error("{asked}: this process has already loaded ONNX Runtime from {loaded}")]
    LibraryConflict {
        /// The library asked for.
        asked: PathBuf,
        /// The library in use.
        loaded: PathBuf,
    },
    /// A provider asked for by name is not in the engine.
    #[error(
        "execution provider {provider} is not in {engine}: expected one of {}; hint: use --provider auto, or an ONNX Runtime built with it",
        list(.available)
    )]
    ProviderAbsent {
        /// The provider asked for.
        provider: Provider,
        /// The engine, with the library's path.
        engine: String,
        /// The providers that are there.
        available: Vec<String>,
    },
    /// A provider asked for by name is there but does not start.
    #[error("execution provider {provider} does not start: {reason}; hint: use --provider cpu")]
    ProviderFailed {
        /// The provider asked for.
        provider: Provider,
        /// What it said.
        reason: String,
    },
    /// The choice of a provider cannot be remembered.
    #[error("{path}: {source}; hint: name a provider, as in --provider cpu")]
    ProviderCache {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The engine was left out of this build.
    #[error(
        "this program was built without the engine {engine}; hint: build with the cargo feature {engine:?}"
    )]
    EngineNotBuilt {
        /// The engine.
        engine: &'static str,
    },
    /// The bundle has no graph for the engine.
    #[error(
        "the bundle has no encoder for the engine tract: expected a graph for any engine, found only graphs for onnxruntime ({found}){}; hint: install ONNX Runtime (`cargo xtask setup`), or export with --fp16 or --portable",
        after_semicolon(.why)
    )]
    NoGraph {
        /// The graphs that are there.
        found: String,
        /// Why the better engine was not taken, if it was looked for.
        why: Option<String>,
    },
    /// The engine refuses the graph.
    #[error("{engine} refuses the encoder {member:?}: {reason}")]
    Graph {
        /// The engine.
        engine: &'static str,
        /// The member of the bundle.
        member: String,
        /// What it said.
        reason: String,
    },
    /// The graph does not fit the manifest.
    #[error("encoder {member:?}: expected {expected}, found {found}")]
    GraphShape {
        /// The member of the bundle.
        member: String,
        /// What the manifest says.
        expected: String,
        /// What the graph has.
        found: String,
    },
    /// Running the graph failed.
    #[error("{engine} failed: {reason}")]
    Inference {
        /// The engine.
        engine: &'static str,
        /// What it said.
        reason: String,
    },
    /// The engine gave a user vector that is none.
    #[error("the engine {engine} gave no usable user vector: expected {expected}, found {found}")]
    UserVector {
        /// The engine.
        engine: String,
        /// What was expected.
        expected: String,
        /// What came.
        found: String,
    },
    /// A history state that cannot be used.
    #[error(
        "history state: expected {expected}, found {found}; hint: start a new one from the history"
    )]
    HistoryState {
        /// What would have been right.
        expected: String,
        /// What was found.
        found: String,
    },
    /// The bundle's samples cannot check anything.
    #[error("the bundle's samples cannot be replayed: {reason}")]
    Samples {
        /// What is wrong with them.
        reason: String,
    },
    /// The flag of [`Recommender::stop_when`](crate::Recommender::stop_when) was set.
    #[error("cancelled")]
    Cancelled,
}

impl RuntimeError {
    /// Whether the fault lies with the engine and not with what the user gave.
    #[must_use]
    pub fn is_internal(&self) -> bool {
        matches!(self, Self::Inference { .. } | Self::UserVector { .. })
    }
}

fn list(parts: &[String]) -> String {
    if parts.is_empty() {
        return "nothing".into();
    }
    parts.join(", ")
}

/// Libraries that were found and did not work, as a part of a sentence.
pub(crate) fn in_unusable_form(libraries: &[String]) -> String {
    if libraries.is_empty() {
        return String::new();
    }
    format!(" in a usable form ({})", libraries.join("; "))
}

fn after_semicolon(why: &Option<String>) -> String {
    why.as_ref().map(|w| format!("; {w}")).unwrap_or_default()
}
