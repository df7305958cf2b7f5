//! Engines: what runs an encoder graph.
//!
//! An [`Encoder`] is one graph made ready. [`open`] chooses engine and graph by the options and
//! the manifest, and never changes a choice that was made by name.

mod key_values;
pub(crate) mod library;
mod onnxruntime;
mod static_lengths;
#[cfg(feature = "tract")]
mod tract;

use ndarray::ArrayView3;
use slmrec_core::Bundle;
use slmrec_core::manifest::{EncoderEntry, GraphTarget, Precision};

pub use key_values::KeyValues;
pub use library::use_linked_library;
use static_lengths::StaticLengths;

use crate::error::RuntimeError;
use crate::options::{EngineChoice, OpenOptions, Provider};

/// Name of the graph's input, f32 `[1, S, D]`.
pub const INPUT: &str = "history_embeddings";
/// Name of the graph's output, f32 `[1, D]`.
pub const OUTPUT: &str = "user_vector";

/// A graph that makes a user vector of the embeddings of a history.
pub trait Encoder: Send {
    /// Runs the graph on `embeddings` `[1, S, D]`, oldest item first, S at least 1; the user vector
    /// has D values.
    ///
    /// # Errors
    /// What the engine reports.
    fn encode(&mut self, embeddings: ArrayView3<'_, f32>) -> Result<Vec<f32>, RuntimeError>;

    /// What really runs.
    fn info(&self) -> &EngineInfo;

    /// The same graph behind positions that were run before, where engine and graph can.
    fn incremental(&mut self) -> Option<&mut dyn IncrementalEncoder> {
        None
    }
}

/// An encoder that runs new items only.
pub trait IncrementalEncoder {
    /// Runs the graph on the `embeddings` `[1, T, D]` of items that come after those of `past`,
    /// oldest first, T at least 1. Gives the user vector of all items and what the next run needs.
    ///
    /// # Errors
    /// What the engine reports.
    fn extend(
        &mut self,
        past: Option<&KeyValues>,
        embeddings: ArrayView3<'_, f32>,
    ) -> Result<(Vec<f32>, KeyValues), RuntimeError>;
}

/// The engine and the provider that run, and what a person should know about the choice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineInfo {
    /// `onnxruntime` or `tract`.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The execution provider in use.
    pub provider: Provider,
    /// Threads inside one inference.
    pub threads: usize,
    /// Member of the bundle that it runs.
    pub encoder: String,
    /// Precision of that graph.
    pub precision: Precision,
    /// Whether an appended item runs alone ([`IncrementalEncoder`]); else the history runs whole.
    pub incremental: bool,
    /// Why it is not the engine that one would expect.
    pub notice: Option<String>,
}

/// Makes an encoder of `bundle` ready as `options` ask.
///
/// # Errors
/// An engine or a provider that was asked for and is not there, a bundle without a graph for the
/// engine, a graph that the engine refuses.
pub fn open(bundle: &mut Bundle, options: &OpenOptions) -> Result<Box<dyn Encoder>, RuntimeError> {
    if options.engine == EngineChoice::Tract {
        return open_tract(bundle, options, None);
    }
    match library::load(&options.libraries) {
        Ok(library) => {
            let entry = choose(bundle, &[GraphTarget::OnnxRuntime, GraphTarget::Any])
                .ok_or_else(|| no_graph(bundle, None))?;
            let graph = bundle.member(&entry.member)?;
            let shape = onnxruntime::Shape::of(bundle.manifest());
            let opened = onnxruntime::Opened {
                library,
                entry,
                shape,
                options: options.clone(),
                bundle_sha256: bundle.sha256().to_owned(),
            };
            if options.provider != Provider::CoreMl {
                return Ok(Box::new(opened.session(&graph, None)?));
            }
            let longest = bundle.manifest().model.max_history;
            let make = move |length| opened.session(&graph, Some(length));
            Ok(Box::new(StaticLengths::new(longest, Box::new(make))?))
        }
        Err(RuntimeError::LibraryNotFound { tried, unusable })
            if options.engine == EngineChoice::Auto && may_use_tract(options) =>
        {
            instead_of_onnxruntime(bundle, options, tried, unusable)
        }
        Err(error) => Err(error),
    }
}

/// The providers of ours that the loaded ONNX Runtime was built with, the CPU first.
pub(crate) fn available_providers() -> Vec<Provider> {
    onnxruntime::available()
}

/// A provider other than the CPU was asked for by name: tract would be a silent change of it.
fn may_use_tract(options: &OpenOptions) -> bool {
    matches!(options.provider, Provider::Auto | Provider::Cpu)
}

/// The first graph with one of these targets.
fn choose(bundle: &Bundle, targets: &[GraphTarget]) -> Option<EncoderEntry> {
    let encoders = &bundle.manifest().encoders;
    encoders
        .iter()
        .find(|e| targets.contains(&e.target))
        .cloned()
}

fn no_graph(bundle: &Bundle, why: Option<String>) -> RuntimeError {
    let encoders = bundle.manifest().encoders.iter();
    RuntimeError::NoGraph {
        found: encoders
            .map(|e| e.member.as_str())
            .collect::<Vec<_>>()
            .join(", "),
        why,
    }
}

#[cfg(feature = "tract")]
fn instead_of_onnxruntime(
    bundle: &mut Bundle,
    options: &OpenOptions,
    _tried: Vec<String>,
    unusable: Vec<String>,
) -> Result<Box<dyn Encoder>, RuntimeError> {
    let unusable = crate::error::in_unusable_form(&unusable);
    let why = format!("ONNX Runtime was not found{unusable}");
    open_tract(bundle, options, Some(why))
}

#[cfg(not(feature = "tract"))]
fn instead_of_onnxruntime(
    _bundle: &mut Bundle,
    _options: &OpenOptions,
    tried: Vec<String>,
    unusable: Vec<String>,
) -> Result<Box<dyn Encoder>, RuntimeError> {
    Err(RuntimeError::LibraryNotFound { tried, unusable })
}

/// `why` says why it is not ONNX Runtime, when that was looked for.
#[cfg(feature = "tract")]
fn open_tract(
    bundle: &mut Bundle,
    options: &OpenOptions,
    why: Option<String>,
) -> Result<Box<dyn Encoder>, RuntimeError> {
    if !may_use_tract(options) {
        return Err(RuntimeError::ProviderAbsent {
            provider: options.provider,
            engine: "tract".into(),
            available: vec!["cpu".into()],
        });
    }
    let Some(entry) = choose(bundle, &[GraphTarget::Any]) else {
        return Err(no_graph(bundle, why));
    };
    let graph = bundle.member(&entry.member)?;
    let dim = bundle.manifest().items.dim;
    let notice = why.map(|why| format!("the engine is tract, because {why}"));
    Ok(Box::new(tract::TractEncoder::new(
        &graph, &entry, dim, notice,
    )?))
}

#[cfg(not(feature = "tract"))]
fn open_tract(
    _bundle: &mut Bundle,
    _options: &OpenOptions,
    _why: Option<String>,
) -> Result<Box<dyn Encoder>, RuntimeError> {
    Err(RuntimeError::EngineNotBuilt { engine: "tract" })
}
