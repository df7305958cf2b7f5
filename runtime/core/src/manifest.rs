//! The manifest of a bundle: what is inside, what made it, and what a reader must understand.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::certificate::Certificate;
use crate::container::ContainerManifest;
use crate::dataset::Split;
use crate::item_table::RowType;
use crate::prior::{PriorSettings, PriorWeights};

/// The bundle format that this library writes and reads.
pub const FORMAT_VERSION: u32 = 1;

/// Features that this reader understands. A bundle that *requires* another one is refused; what a
/// manifest says beyond that may be ignored by older readers.
pub const KNOWN_FEATURES: &[&str] = &[PRIOR_FEATURE, ITEM_PACK_FEATURE];

/// The feature of a transition prior: scores without it are others.
pub const PRIOR_FEATURE: &str = "transition-prior";

/// The feature of a pack with new or retired items: lists without them are others.
pub const ITEM_PACK_FEATURE: &str = "item-pack";

/// Numeric precision of the weights in a bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32-bit floats throughout.
    Fp32,
    /// Weights stored as 16-bit floats, arithmetic in 32 bits.
    Fp16,
    /// Dynamic 8-bit matrix products.
    Int8,
}

impl std::fmt::Display for Precision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Fp32 => "fp32",
            Self::Fp16 => "fp16",
            Self::Int8 => "int8",
        })
    }
}

/// Where the user vector is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Readout {
    /// At the position of the newest item: prompt, items. Every position is a training target.
    Item,
    /// At the last suffix token: prompt, items, suffix (the paper's form).
    Response,
}

impl std::fmt::Display for Readout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Item => "item",
            Self::Response => "response",
        })
    }
}

/// The engine that an encoder graph is written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GraphTarget {
    /// Basic operators only: any engine.
    Any,
    /// Integer operators that only ONNX Runtime runs fast.
    OnnxRuntime,
}

/// `manifest.json` of a bundle.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Container version, [`FORMAT_VERSION`].
    pub format_version: u32,
    /// Features that a reader must understand to read this bundle rightly.
    #[serde(default)]
    pub required_features: Vec<String>,
    /// Program and version that wrote it.
    pub created_by: String,
    /// Precision that was asked for at export.
    pub precision: Precision,
    /// The encoder graphs; a reader takes the first whose target it runs.
    pub encoders: Vec<EncoderEntry>,
    /// The model behind the graphs.
    pub model: ModelEntry,
    /// The item table.
    pub items: ItemsEntry,
    /// Member with the vocabulary JSON.
    pub vocabulary: String,
    /// Member with the ids of popular items, most popular first, as a JSON list.
    pub popularity: String,
    /// Member with the sample histories, a JSON [`Samples`].
    pub samples: String,
    /// The transition prior that is added to the scores, with the feature [`PRIOR_FEATURE`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prior: Option<PriorEntry>,
    /// What quantization cost in ranking quality; `None` where it was not measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<Certificate>,
    /// The data it was trained on.
    pub data: DataEntry,
    /// Figures measured before export, by name.
    #[serde(default)]
    pub metrics: BTreeMap<String, serde_json::Value>,
    /// Size and SHA-256 of every member but the manifest.
    pub members: BTreeMap<String, MemberEntry>,
}

impl ContainerManifest for Manifest {
    const KIND: &'static str = "bundle";

    fn required_features(&self) -> &[String] {
        &self.required_features
    }

    fn members(&self) -> &BTreeMap<String, MemberEntry> {
        &self.members
    }

    fn members_mut(&mut self) -> &mut BTreeMap<String, MemberEntry> {
        &mut self.members
    }
}

/// A transition prior ([`crate::prior`]) and how it is read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PriorEntry {
    /// Name of the member.
    pub member: String,
    /// How it was counted and how a history adds it up.
    pub settings: PriorSettings,
    /// How it stands beside the model's scores.
    pub weights: PriorWeights,
    /// Number of interactions that were counted.
    pub interactions: usize,
    /// The first targets of the training data that were not counted. Older ones would be found by
    /// looking them up.
    #[serde(default = "before_validation")]
    pub counted_before: Split,
}

impl PriorEntry {
    /// Whether the prior may help to rank the targets of a split: it has not counted them.
    #[must_use]
    pub fn may_rank(&self, split: Split) -> bool {
        self.counted_before == Split::Validation || split == Split::Test
    }
}

/// What bundles without the field were counted and trained before.
fn before_validation() -> Split {
    Split::Validation
}

/// One encoder graph: `history_embeddings` f32 `[1, S, D]`, oldest first, `S >= 1` free, to
/// `user_vector` f32 `[1, D]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EncoderEntry {
    /// Name of the member with the ONNX file.
    pub member: String,
    /// Which engines run it.
    pub target: GraphTarget,
    /// Precision of its weights.
    pub precision: Precision,
    /// ONNX operator set.
    pub opset: u32,
    /// Whether the graph also runs behind what an earlier run has left: for each layer it has the
    /// inputs [`past_name`], which need not be given, and the outputs [`present_name`], f32
    /// `[kv_heads, 1, positions, head_dim]`. Positions are those of the prompt prefix, then items,
    /// in the outputs then those of the suffix. Readers that do not know this run whole histories.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub incremental: bool,
}

/// Name of a graph's input for what an earlier run has left of a layer; `part` is `keys` or
/// `values`.
#[must_use]
pub fn past_name(layer: usize, part: &str) -> String {
    format!("past.{layer}.{part}")
}

/// Name of a graph's output of all positions of a layer.
#[must_use]
pub fn present_name(layer: usize, part: &str) -> String {
    format!("present.{layer}.{part}")
}

/// Shape and origin of the model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelEntry {
    /// `config.json`'s `model_type`, for example `llama`.
    pub model_type: String,
    /// Pretrained model it came from, for example `SmolLM2-135M-Instruct`.
    pub base: String,
    /// Where the user vector is read.
    pub readout: Readout,
    /// Longest history the encoder takes; older items are dropped.
    pub max_history: usize,
    /// Hidden size H.
    pub hidden_size: usize,
    /// Number of decoder layers.
    pub num_hidden_layers: usize,
    /// Number of query heads.
    pub num_attention_heads: usize,
    /// Number of key/value heads.
    pub num_key_value_heads: usize,
    /// Width of the MLP.
    pub intermediate_size: usize,
    /// The prompt around the items.
    pub prompt: PromptEntry,
    /// SHA-256 over the checkpoint's files.
    pub checkpoint_sha256: String,
    /// The first targets of the training data that it was not trained on. Older ones it knows by heart.
    #[serde(default = "before_validation")]
    pub trained_before: Split,
}

impl ModelEntry {
    /// Whether the model may be asked to rank the targets of a split: it was not trained on them.
    #[must_use]
    pub fn may_rank(&self, split: Split) -> bool {
        self.trained_before == Split::Validation || split == Split::Test
    }
}

/// The prompt as text and its length in tokens; both texts may be empty.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PromptEntry {
    /// Text before the items.
    pub prefix: String,
    /// Text after the items.
    pub suffix: String,
    /// Tokens of the prefix, P.
    pub prefix_tokens: usize,
    /// Tokens of the suffix, R.
    pub suffix_tokens: usize,
}

/// The item table's member and shape.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ItemsEntry {
    /// Name of the member.
    pub member: String,
    /// Number of items N.
    pub count: usize,
    /// Embedding dimension D.
    pub dim: usize,
    /// How rows are stored.
    pub row_type: RowType,
}

/// The data behind a bundle.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DataEntry {
    /// What a person calls it.
    pub name: String,
    /// Number of users.
    pub users: usize,
    /// Number of interactions.
    pub interactions: usize,
    /// SHA-256 of the dataset's description.
    pub sha256: String,
}

/// Size and hash of a member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberEntry {
    /// Uncompressed size in bytes.
    pub bytes: u64,
    /// SHA-256 of the uncompressed bytes.
    pub sha256: String,
}

/// Sample histories with the results of the full-precision reference, so that a device can check
/// itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Samples {
    /// What made the expected results.
    pub computed_by: String,
    /// Smallest cosine between an engine's user vector and the expected one.
    pub min_cosine: f32,
    /// Smallest mean share of the expected top items that an engine must find.
    pub min_overlap: f32,
    /// The samples.
    pub samples: Vec<Sample>,
}

/// One history and what the full-precision reference makes of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Item ids, oldest first.
    pub history: Vec<String>,
    /// The expected user vector, D values.
    pub user_vector: Vec<f32>,
    /// The expected best items with seen items removed, best first.
    pub top: Vec<SampleItem>,
}

/// An expected recommendation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SampleItem {
    /// Item id.
    pub item: String,
    /// Expected score.
    pub score: f32,
}
