//! The engine tract: pure Rust, for graphs of basic operators, on the CPU with one thread.

use std::io::Cursor;
use std::sync::Arc;

use ndarray::ArrayView3;
use slmrec_core::manifest::EncoderEntry;
use tract_onnx::prelude::*;

use super::{Encoder, EngineInfo, INPUT, OUTPUT};
use crate::error::RuntimeError;
use crate::options::Provider;

const NAME: &str = "tract";
/// The version in `Cargo.lock`; the library does not tell its own.
const VERSION: &str = "0.23";

/// A runnable plan of the encoder graph with a free history length.
pub(crate) struct TractEncoder {
    plan: Arc<TypedRunnableModel>,
    info: EngineInfo,
}

impl TractEncoder {
    /// Makes `graph` ready; `dim` is the embedding dimension D of the manifest.
    ///
    /// # Errors
    /// A graph that tract refuses, or one with other inputs and outputs than an encoder has.
    pub(crate) fn new(
        graph: &[u8],
        entry: &EncoderEntry,
        dim: usize,
        notice: Option<String>,
    ) -> Result<Self, RuntimeError> {
        let refused = |e: TractError| RuntimeError::Graph {
            engine: NAME,
            member: entry.member.clone(),
            reason: format!("{e:#}"),
        };
        let mut model = tract_onnx::onnx()
            // Only the operators are trusted with shapes: notes on inner values can be stale.
            .with_ignore_value_info(true)
            .model_for_read(&mut Cursor::new(graph))
            .map_err(refused)?;
        let user_vector = check_outlets(&model, entry)?;
        // What a run leaves for a next one is not asked for: inputs with defaults are constants
        // here.
        model
            .select_output_outlets(&[user_vector])
            .map_err(refused)?;
        let plan = plan(model, dim).map_err(refused)?;
        let info = EngineInfo {
            name: NAME.into(),
            version: VERSION.into(),
            provider: Provider::Cpu,
            threads: 1,
            encoder: entry.member.clone(),
            precision: entry.precision,
            incremental: false,
            notice,
        };
        Ok(Self { plan, info })
    }
}

/// Fixes the input to f32 `[1, S, D]` with S symbolic, and optimises.
fn plan(mut model: InferenceModel, dim: usize) -> TractResult<Arc<TypedRunnableModel>> {
    let length = model.symbols.sym("history_length");
    let shape = [1.to_dim(), length.to_dim(), dim.to_dim()];
    model.set_input_fact(0, InferenceFact::dt_shape(f32::datum_type(), shape))?;
    model.into_optimized()?.into_runnable()
}

impl Encoder for TractEncoder {
    fn encode(&mut self, embeddings: ArrayView3<'_, f32>) -> Result<Vec<f32>, RuntimeError> {
        let failed = |e: TractError| RuntimeError::Inference {
            engine: NAME,
            reason: format!("{e:#}"),
        };
        let (batch, length, dim) = embeddings.dim();
        let values: Vec<f32> = embeddings.iter().copied().collect();
        let input = Tensor::from_shape(&[batch, length, dim], &values).map_err(failed)?;
        let outputs = self.plan.run(tvec!(input.into_tvalue())).map_err(failed)?;
        let output = outputs.first().ok_or_else(|| RuntimeError::Inference {
            engine: NAME,
            reason: "no output".into(),
        })?;
        let view = output.to_plain_array_view::<f32>().map_err(failed)?;
        Ok(view.iter().copied().collect())
    }

    fn info(&self) -> &EngineInfo {
        &self.info
    }
}

/// One input and, perhaps among others, one output, of the names that an encoder has.
fn check_outlets(model: &InferenceModel, entry: &EncoderEntry) -> Result<OutletId, RuntimeError> {
    let name = |outlet: &OutletId| match model.outlet_label(*outlet) {
        Some(label) => label.to_owned(),
        None => model.node(outlet.node).name.clone(),
    };
    let inputs: Vec<String> = model.inputs.iter().map(name).collect();
    let output = model.outputs.iter().find(|outlet| name(outlet) == OUTPUT);
    match output {
        Some(output) if inputs == [INPUT] => Ok(*output),
        _ => Err(RuntimeError::GraphShape {
            member: entry.member.clone(),
            expected: format!("the input {INPUT} and the output {OUTPUT}"),
            found: format!(
                "inputs {inputs:?}, outputs {:?}",
                model.outputs.iter().map(name).collect::<Vec<_>>()
            ),
        }),
    }
}
