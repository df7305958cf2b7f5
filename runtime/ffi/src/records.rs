//! What goes in and out, as plain values. The same records are the JSON of the C interface.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

/// How a bundle is opened.
#[derive(Debug, Clone, Deserialize, uniffi::Record)]
#[serde(default, deny_unknown_fields)]
pub struct OpenOptions {
    /// File of the ONNX Runtime library. Without it, the system is asked for `libonnxruntime` by
    /// name, which is right on Android.
    pub onnxruntime: Option<String>,
    /// Which execution provider runs the model.
    pub provider: Provider,
    /// Threads of one run, 1 to 64. More than one costs battery and rarely pays for small models.
    pub threads: u32,
    /// Whether the bundle's transition prior, where it has one, is added to the model's scores.
    pub prior: bool,
}

/// An execution provider of ONNX Runtime.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, uniffi::Enum)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    /// The one that is right for the system; at present the CPU everywhere.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// Apple's CoreML.
    CoreMl,
    /// XNNPACK on ARM and x86 CPUs.
    Xnnpack,
}

/// Which items may be recommended.
#[derive(Debug, Clone, Default, Deserialize, uniffi::Record)]
#[serde(default, deny_unknown_fields)]
pub struct Filter {
    /// Recommend items of the history again.
    pub include_seen: bool,
    /// Ids that are never recommended.
    pub block: Vec<String>,
    /// When given, only these ids are recommended.
    pub allow: Option<Vec<String>>,
    /// When given, only items of at least one of these categories are recommended.
    pub categories: Option<Vec<String>>,
    /// Items of one of these categories are never recommended.
    pub block_categories: Vec<String>,
}

/// One recommended item.
#[derive(Debug, Clone, PartialEq, Serialize, uniffi::Record)]
pub struct Recommendation {
    /// Place in the list, beginning with 1.
    pub rank: u32,
    /// The catalog's id.
    pub id: String,
    /// What a person reads, where the catalog has it.
    pub title: Option<String>,
    /// Higher is better; comparable only within one list.
    pub score: f32,
}

/// The answer to one history.
#[derive(Debug, Clone, PartialEq, Serialize, uniffi::Record)]
pub struct Recommendations {
    /// The best items, best first.
    pub items: Vec<Recommendation>,
    /// By how many items the list is shorter than asked for, because the filter leaves no more.
    pub shortfall: u32,
    /// Ids of the history that the catalog does not have, each once.
    pub unknown_items: Vec<String>,
    /// Ids of the filter that the catalog does not have.
    pub unknown_filter_items: Vec<String>,
    /// Categories of the filter that no item has.
    pub unknown_categories: Vec<String>,
    /// Number of items of the history that the model has read: the newest known ones.
    pub used_items: u32,
    /// Milliseconds that the answer took, without waiting for other questions.
    pub milliseconds: f64,
}

/// Given items, ranked.
#[derive(Debug, Clone, PartialEq, Serialize, uniffi::Record)]
pub struct RankedCandidates {
    /// Every candidate that the catalog has, once, best first.
    pub items: Vec<Recommendation>,
    /// Candidates that the catalog does not have, each once.
    pub unknown_candidates: Vec<String>,
    /// Ids of the history that the catalog does not have, each once.
    pub unknown_items: Vec<String>,
}

/// An item of the popularity list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, uniffi::Record)]
pub struct PopularItem {
    /// Place in the list, beginning with 1.
    pub rank: u32,
    /// The catalog's id.
    pub id: String,
    /// What a person reads, where the catalog has it.
    pub title: Option<String>,
}

/// The answer to a person without a usable history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, uniffi::Record)]
pub struct PopularItems {
    /// The most popular items that the filter allows, most popular first.
    pub items: Vec<PopularItem>,
    /// By how many items the list is shorter than asked for.
    pub shortfall: u32,
    /// Ids of the filter that the catalog does not have.
    pub unknown_filter_items: Vec<String>,
    /// Categories of the filter that no item has.
    pub unknown_categories: Vec<String>,
}

/// An item of the history that speaks for a recommendation.
#[derive(Debug, Clone, PartialEq, Serialize, uniffi::Record)]
pub struct Reason {
    /// The catalog's id.
    pub id: String,
    /// What a person reads, where the catalog has it.
    pub title: Option<String>,
    /// Its place in the history, counted from the end: 1 for the newest item.
    pub age: u32,
    /// By how much the score is lower without it; above 0.
    pub drop: f32,
}

/// The reasons for one item.
#[derive(Debug, Clone, PartialEq, Serialize, uniffi::Record)]
pub struct Reasons {
    /// The item that was asked about.
    pub id: String,
    /// What speaks for it most, first. Empty for an id that the catalog does not have, and where
    /// nothing that was tried lowers its score.
    pub reasons: Vec<Reason>,
}

/// The reasons for some items.
#[derive(Debug, Clone, PartialEq, Serialize, uniffi::Record)]
pub struct Explanations {
    /// One entry for each item that was asked about, in that order.
    pub items: Vec<Reasons>,
    /// Number of history items that were left out in turn.
    pub examined: u32,
}

/// What is in a bundle and what runs it.
#[derive(Debug, Clone, PartialEq, Serialize, uniffi::Record)]
pub struct BundleInfo {
    /// SHA-256 of the bundle's manifest, which names those of all its parts: the bundle's identity.
    pub sha256: String,
    /// Program and version that wrote it.
    pub created_by: String,
    /// Number of items of the catalog.
    pub items: u32,
    /// Longest history that the model reads; older items count as seen only.
    pub max_history: u32,
    /// Pretrained model that it came from.
    pub base: String,
    /// Precision of the model: `fp32`, `fp16` or `int8`.
    pub precision: String,
    /// What the data is called.
    pub data: String,
    /// Figures measured before export, by name.
    pub metrics: HashMap<String, f64>,
    /// Whether a transition prior is added to the model's scores.
    pub prior: bool,
    /// What runs it.
    pub engine: Engine,
}

/// The engine and the provider that really run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, uniffi::Record)]
pub struct Engine {
    /// `onnxruntime` or `tract`.
    pub name: String,
    /// Its version or build.
    pub version: String,
    /// The execution provider in use.
    pub provider: String,
    /// Threads of one run.
    pub threads: u32,
    /// Whether an item that is appended to a history state runs alone.
    pub incremental: bool,
    /// Why it is not the engine that one would expect.
    pub notice: Option<String>,
}

/// The bundle's own samples, replayed on this device.
#[derive(Debug, Clone, PartialEq, Serialize, uniffi::Record)]
pub struct SelfTest {
    /// Whether every sample is as near to the reference as the bundle asks.
    pub passed: bool,
    /// Number of samples.
    pub samples: u32,
    /// Smallest cosine between a user vector and the expected one; `min_cosine` passes.
    pub worst_cosine: f32,
    /// Smallest cosine that passes.
    pub min_cosine: f32,
    /// Mean share of the expected items that were found; `min_overlap` passes.
    pub mean_overlap: f32,
    /// Smallest mean overlap that passes.
    pub min_overlap: f32,
    /// What made the expected results.
    pub computed_by: String,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self {
            onnxruntime: None,
            provider: Provider::Auto,
            threads: 1,
            prior: true,
        }
    }
}
