//! What is stored, and the key that says whether stored values are the ones that are wanted.

use serde::{Deserialize, Serialize};
use slmrec_core::hash;
use slmrec_core::manifest::Readout;

use super::FORMAT_VERSION;
use crate::train::distillation::Positions;

/// Everything that the stored values depend on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CacheSpec {
    /// Hash of the teacher's checkpoint.
    pub teacher: String,
    /// Fingerprint of the training data, windows included.
    pub data: String,
    /// The teacher's number of layers M.
    pub num_layers: usize,
    /// Layers (`1..=M`) whose states are stored; none for logit distillation alone.
    pub layers: Vec<usize>,
    /// Which positions of a window are stored.
    pub positions: Positions,
    /// Where the teacher reads its user vector.
    pub readout: Readout,
    /// The teacher's longest history.
    pub max_history: usize,
    /// The teacher's hidden size H.
    pub hidden_size: usize,
    /// Number of items N.
    pub items: usize,
    /// Size D of the user vectors.
    pub item_dim: usize,
    /// Number of best items stored, 0 for none.
    pub top_k: usize,
    /// Most bytes of tensors in a shard, unless one window alone has more.
    pub shard_bytes: u64,
}

impl CacheSpec {
    /// SHA-256 over all of it, the format and the type of the stored values.
    #[must_use]
    pub fn key(&self) -> String {
        let all = serde_json::json!({
            "format_version": FORMAT_VERSION,
            "dtype": "f16",
            "spec": self,
        });
        hash::sha256_hex(all.to_string().as_bytes())
    }

    /// Widths of one stored position.
    #[must_use]
    pub fn shape(&self) -> RowShape {
        RowShape {
            layers: self.layers.len(),
            hidden_size: self.hidden_size,
            item_dim: self.item_dim,
            top_k: self.top_k,
        }
    }
}

/// Widths of what is stored at one position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowShape {
    /// Number of states b.
    pub layers: usize,
    /// Values H of a state.
    pub hidden_size: usize,
    /// Values D of the user vector.
    pub item_dim: usize,
    /// Number of best items K.
    pub top_k: usize,
}

impl RowShape {
    /// Bytes of one position.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.parts()
            .iter()
            .fold(0, |sum, part| u64::saturating_add(sum, part.row_bytes))
    }

    /// The tensors of a shard, in the order of the file.
    pub(super) fn parts(&self) -> Vec<Part> {
        let part = |kind, name, dtype, dims: &[usize], size: u64| Part {
            kind,
            name,
            dtype,
            dims: dims.to_vec(),
            row_bytes: (dims.iter()).fold(size, |n, &dim| n.saturating_mul(dim as u64)),
        };
        // The widest elements first, so that every tensor is aligned.
        let parts = [
            part(Kind::TopItems, "top_items", "U32", &[self.top_k], 4),
            part(
                Kind::States,
                "states",
                "F16",
                &[self.layers, self.hidden_size],
                2,
            ),
            part(
                Kind::UserVectors,
                "user_vectors",
                "F16",
                &[self.item_dim],
                2,
            ),
            part(Kind::TopScores, "top_scores", "F16", &[self.top_k], 2),
        ];
        parts.into_iter().filter(|p| p.row_bytes > 0).collect()
    }
}

/// One tensor of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    TopItems,
    States,
    UserVectors,
    TopScores,
}

#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) kind: Kind,
    pub(super) name: &'static str,
    /// As safetensors writes it.
    pub(super) dtype: &'static str,
    /// Dimensions after the first.
    pub(super) dims: Vec<usize>,
    pub(super) row_bytes: u64,
}
