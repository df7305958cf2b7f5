//! What a caller may choose: engine, provider, threads, library, filters.

use std::ffi::OsString;
use std::fmt;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::provider_choice::ProviderCache;

/// How a bundle is opened.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// Which engine runs the encoder.
    pub engine: EngineChoice,
    /// Which execution provider the engine uses.
    pub provider: Provider,
    /// Threads inside one inference.
    pub threads: NonZeroUsize,
    /// Where ONNX Runtime is looked for.
    pub libraries: LibrarySearch,
    /// Whether the bundle's transition prior is added to the model's scores.
    pub prior: bool,
    /// Where [`Provider::Auto`] remembers which provider is right and fastest; without it, it is the
    /// CPU.
    pub provider_cache: Option<ProviderCache>,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self {
            engine: EngineChoice::Auto,
            provider: Provider::Auto,
            threads: NonZeroUsize::MIN,
            libraries: LibrarySearch::default(),
            prior: true,
            provider_cache: None,
        }
    }
}

/// Which engine runs the encoder graph.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EngineChoice {
    /// ONNX Runtime where it is found, else tract; which one it was, and why, is in
    /// [`EngineInfo`](crate::EngineInfo).
    #[default]
    Auto,
    /// ONNX Runtime or an error.
    OnnxRuntime,
    /// tract or an error.
    Tract,
}

/// An execution provider of ONNX Runtime.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    /// The one that gives the bundle's samples rightly and fastest on this machine, found out once
    /// ([`crate::provider_choice`]); the CPU where [`OpenOptions::provider_cache`] is not given.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// NVIDIA GPUs.
    Cuda,
    /// Apple's CoreML.
    CoreMl,
    /// XNNPACK on ARM and x86 CPUs.
    Xnnpack,
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
            Self::CoreMl => "coreml",
            Self::Xnnpack => "xnnpack",
        })
    }
}

/// Which items may be recommended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FilterOptions {
    /// Recommend items of the history again.
    pub include_seen: bool,
    /// Ids that are never recommended.
    pub block: Vec<String>,
    /// When given, only these ids are recommended.
    pub allow: Option<Vec<String>>,
    /// When given, only items of at least one of these categories are recommended. Names are
    /// compared exactly, without the white space around them.
    pub categories: Option<Vec<String>>,
    /// Items of one of these categories are never recommended.
    pub block_categories: Vec<String>,
}

/// Where ONNX Runtime is looked for: a library that was named, or else candidate places.
///
/// The default is the system's own search path, by the library's usual names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LibrarySearch {
    /// A library that was asked for: it is this one or an error.
    pub named: Option<PathBuf>,
    /// Folders to look in, in order.
    pub folders: Vec<PathBuf>,
    /// Bare names for the system's loader, tried last.
    pub system_names: Vec<String>,
}

impl Default for LibrarySearch {
    fn default() -> Self {
        Self {
            named: None,
            folders: Vec::new(),
            system_names: SYSTEM_NAMES.map(str::to_owned).to_vec(),
        }
    }
}

/// Folder, relative to a checkout, in which `cargo xtask setup` puts the library.
pub const SETUP_FOLDER: &str = ".slmrec/onnxruntime";

#[cfg(windows)]
const SYSTEM_NAMES: [&str; 1] = ["onnxruntime.dll"];
#[cfg(target_vendor = "apple")]
const SYSTEM_NAMES: [&str; 1] = ["libonnxruntime.dylib"];
#[cfg(not(any(windows, target_vendor = "apple")))]
const SYSTEM_NAMES: [&str; 2] = ["libonnxruntime.so", "libonnxruntime.so.1"];

impl LibrarySearch {
    /// The search order of a desktop program: `option` (a library named on the command line), then
    /// `variable` (the value of `ORT_DYLIB_PATH`), then beside the `executable`, then
    /// [`SETUP_FOLDER`] in the folders above it, then the system's names.
    ///
    /// Either of the first two is taken at its word: when it does not work there is no next place.
    #[must_use]
    pub fn new(
        option: Option<PathBuf>,
        variable: Option<OsString>,
        executable: Option<&Path>,
    ) -> Self {
        let variable = variable.filter(|v| !v.is_empty()).map(PathBuf::from);
        let beside = executable.and_then(Path::parent);
        let above = beside.into_iter().flat_map(Path::ancestors);
        Self {
            named: option.or(variable),
            folders: beside
                .map(Path::to_owned)
                .into_iter()
                .chain(above.map(|folder| folder.join(SETUP_FOLDER)))
                .collect(),
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn search_order() {
        let executable = Path::new("/home/me/slmrec/target/release/slmrec-run");
        let search = LibrarySearch::new(None, Some("".into()), Some(executable));
        assert_eq!(search.named, None);
        let folders: Vec<&str> = search.folders.iter().filter_map(|f| f.to_str()).collect();
        assert_eq!(
            folders,
            [
                "/home/me/slmrec/target/release",
                "/home/me/slmrec/target/release/.slmrec/onnxruntime",
                "/home/me/slmrec/target/.slmrec/onnxruntime",
                "/home/me/slmrec/.slmrec/onnxruntime",
                "/home/me/.slmrec/onnxruntime",
                "/home/.slmrec/onnxruntime",
                "/.slmrec/onnxruntime",
            ]
        );
        let variable = LibrarySearch::new(None, Some("/v.so".into()), None);
        assert_eq!(variable.named.as_deref(), Some(Path::new("/v.so")));
        let option = LibrarySearch::new(Some("/o.so".into()), Some("/v.so".into()), None);
        assert_eq!(option.named.as_deref(), Some(Path::new("/o.so")));
    }
}
