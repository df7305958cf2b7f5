//! What eight bits cost in ranking quality, measured before a bundle was written.

use serde::{Deserialize, Serialize};

use crate::bootstrap::Interval;
use crate::dataset::Split;
use crate::item_table::RowType;

/// How an encoder's weights are brought to eight bits, or four.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Quantization {
    /// Unsigned weights and activations, whose scale is found at every run. Inputs whose rows differ
    /// in size by orders of magnitude (attention output, inner MLP) have a scale of each row.
    #[default]
    Dynamic,
    /// The same with signed weights: faster on ARM, but its 16-bit sums saturate on x86 processors
    /// without VNNI.
    DynamicSigned,
    /// As `Dynamic`, with the MLP's second matrix in 16-bit floats.
    DynamicHalfDown,
    /// As `Dynamic`, with a scale of each row for every input.
    DynamicRows,
    /// Weights in eight bits, arithmetic in 32-bit floats: basic operators, small and slow.
    WeightsOnly,
    /// Weights in four bits with a scale and a zero point for every 32 inputs of a column, in an
    /// operator of ONNX Runtime's own: the smallest.
    #[serde(rename = "blocks-4")]
    Blocks4,
}

impl Quantization {
    /// Whether the graph has integer products, which only ONNX Runtime runs fast.
    #[must_use]
    pub fn has_integer_products(self) -> bool {
        self != Self::WeightsOnly
    }
}

impl std::fmt::Display for Quantization {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Dynamic => "dynamic",
            Self::DynamicSigned => "dynamic-signed",
            Self::DynamicHalfDown => "dynamic-half-down",
            Self::DynamicRows => "dynamic-rows",
            Self::WeightsOnly => "weights-only",
            Self::Blocks4 => "blocks-4",
        })
    }
}

/// How a quantized bundle ranks beside the same model in 32-bit floats, on the same users, full
/// ranking, seen items removed, without the transition prior, which would hide what is lost.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Certificate {
    /// Which targets were ranked.
    pub split: Split,
    /// How many users were asked.
    pub users: usize,
    /// NDCG@10 in 32-bit floats.
    pub reference_ndcg_10: f64,
    /// Milliseconds of one recommendation in 32-bit floats, median.
    pub reference_ms: f64,
    /// Largest share of it that may be lost.
    pub max_ndcg_drop: f64,
    /// What is in the bundle.
    pub chosen: Measured,
    /// What was measured and not taken, in the order of measurement.
    #[serde(default)]
    pub others: Vec<Measured>,
}

/// One way to quantize, measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// The encoder.
    pub quantization: Quantization,
    /// The item table.
    pub item_rows: RowType,
    /// NDCG@10.
    pub ndcg_10: f64,
    /// Its difference to the reference, paired over users, with its 95 % interval.
    pub difference: Interval,
    /// Mean share of the reference's ten best items that are among the ten best.
    pub overlap_10: f64,
    /// Mean difference in NDCG@10 of the tenth of the users who lose most.
    pub worst_tenth: f64,
    /// Bytes of the bundle that was measured.
    pub bytes: u64,
    /// Milliseconds of one recommendation on the machine of the export, median.
    pub ms: f64,
}

impl Measured {
    /// The share of the reference's NDCG@10 that is lost; negative where it is more.
    #[must_use]
    pub fn drop(&self, reference_ndcg_10: f64) -> f64 {
        if reference_ndcg_10 > 0.0 {
            1.0 - self.ndcg_10 / reference_ndcg_10
        } else {
            0.0
        }
    }
}
