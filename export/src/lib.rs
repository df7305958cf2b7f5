//! Checkpoint directory → ONNX graph → quantized bundle.
//!
//! [`export`] reads what training left ([`checkpoint`], [`model`]), writes the encoder's graph
//! ([`graph`]) in the precision asked for, computes the expected results of some histories with a
//! plain forward pass ([`mod@reference`]), and puts everything into one bundle file.
//! Nothing here trains, runs a graph, or touches the network.

pub mod checkpoint;
mod error;
pub mod graph;
pub mod model;
#[rustfmt::skip]
#[expect(unreachable_pub, clippy::enum_variant_names, reason = "generated from proto/onnx.proto")]
mod onnx;
mod bundle;
mod operators;
pub mod reference;
mod samples;
mod tensors;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use bundle::{ExportOptions, ExportReport, ExportedPrior, export, export_plain_onnx};
pub use error::ExportError;
pub use model::Model;
pub use operators::required_operators;
pub use samples::{MIN_SAMPLES, TOP_ITEMS};
