//! The encoder as an ONNX file: `history_embeddings` f32 `[1, S, D]` (oldest first, S of
//! `1..=max_history` free) to `user_vector` f32 `[1, D]`, in basic operators of opset 17.
//!
//! The folded form is its own incremental graph. The keys and values of the prompt prefix are
//! inputs with a default ([`slmrec_core::manifest::past_name`]): who gives nothing runs a whole
//! history, who gives those that an earlier run left ([`slmrec_core::manifest::present_name`]) runs
//! the new items only. So both share their weights, in the file and in memory.
//!
//! Read [`decoder`] first; [`linear`] holds the precisions, [`builder`] the file format.

mod blocks;
mod builder;
mod columns;
mod decoder;
mod linear;

pub(crate) use builder::OPSET;
pub(crate) use decoder::{Form, encoder_onnx};

/// Name of the graph's input.
pub const INPUT: &str = "history_embeddings";
/// Name of the graph's output.
pub const OUTPUT: &str = "user_vector";

#[cfg(test)]
mod tests;
