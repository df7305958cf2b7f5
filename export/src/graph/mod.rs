//! The encoder as an ONNX file: `history_embeddings` f32 `[1, S, D]` (oldest first, S of
//! `1..=max_history` free) to `user_vector` f32 `[1, D]`, in basic operators of opset 17.
//!
//! Read [`decoder`] first; [`linear`] holds the precisions, [`builder`] the file format.

mod builder;
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
