//! Checkpoint directory → ONNX graph → quantized bundle.

pub mod checkpoint;
