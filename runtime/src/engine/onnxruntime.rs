//! The engine ONNX Runtime.

use ndarray::ArrayView3;
use ort::ep::{self, ExecutionProvider, ExecutionProviderDispatch};
use ort::session::Session;
use ort::session::builder::SessionBuilder;
use ort::value::{Outlet, TensorRef, ValueType};
use slmrec_core::manifest::EncoderEntry;

use super::library::Library;
use super::{Encoder, EngineInfo, INPUT, OUTPUT};
use crate::error::RuntimeError;
use crate::options::{OpenOptions, Provider};

const NAME: &str = "onnxruntime";

/// Whether the loaded library was built with a provider.
type IsAvailable = fn() -> ort::Result<bool>;

/// A session of ONNX Runtime with the encoder graph.
pub(crate) struct OnnxRuntimeEncoder {
    session: Session,
    info: EngineInfo,
}

impl OnnxRuntimeEncoder {
    /// Makes `graph` ready; `dim` is the embedding dimension D of the manifest.
    ///
    /// # Errors
    /// A provider that is absent or does not start, a graph that is refused or has other inputs
    /// and outputs than an encoder has.
    pub(crate) fn new(
        library: Library,
        graph: &[u8],
        entry: &EncoderEntry,
        dim: usize,
        options: &OpenOptions,
    ) -> Result<Self, RuntimeError> {
        let refused = |e: ort::Error| RuntimeError::Graph {
            engine: NAME,
            member: entry.member.clone(),
            reason: e.to_string(),
        };
        let builder = builder(&library, options).map_err(refused)?;
        let (mut builder, provider) = with_provider(builder, options.provider, &library)?;
        let session = builder.commit_from_memory(graph).map_err(refused)?;
        check_outlet(session.inputs(), INPUT, dim, entry)?;
        check_outlet(session.outputs(), OUTPUT, dim, entry)?;
        let info = EngineInfo {
            name: NAME.into(),
            version: library.version(),
            provider,
            threads: options.threads.get(),
            encoder: entry.member.clone(),
            precision: entry.precision,
            notice: None,
        };
        Ok(Self { session, info })
    }
}

impl Encoder for OnnxRuntimeEncoder {
    fn encode(&mut self, embeddings: ArrayView3<'_, f32>) -> Result<Vec<f32>, RuntimeError> {
        let failed = |e: ort::Error| RuntimeError::Inference {
            engine: NAME,
            reason: e.to_string(),
        };
        let input = TensorRef::from_array_view(embeddings).map_err(failed)?;
        let outputs = self
            .session
            .run(ort::inputs![INPUT => input])
            .map_err(failed)?;
        // The output was found by name when the graph was opened.
        let (_shape, values) = outputs[OUTPUT]
            .try_extract_tensor::<f32>()
            .map_err(failed)?;
        Ok(values.to_vec())
    }

    fn info(&self) -> &EngineInfo {
        &self.info
    }
}

fn builder(library: &Library, options: &OpenOptions) -> Result<SessionBuilder, ort::Error> {
    Ok(Session::builder(&library.environment)?
        .with_intra_threads(options.threads.get())?
        // Spinning threads cost two to three times the CPU time on a busy machine.
        .with_intra_op_spinning(false)?)
}

/// Adds the provider and tells which one it is. The binding falls back to the CPU without a word
/// unless it is told otherwise, so what was asked for by name is looked up first.
fn with_provider(
    builder: SessionBuilder,
    provider: Provider,
    library: &Library,
) -> Result<(SessionBuilder, Provider), RuntimeError> {
    let (there, dispatch): (IsAvailable, ExecutionProviderDispatch) = match provider {
        // The CPU needs no registration: it is what every session has.
        Provider::Auto | Provider::Cpu => return Ok((builder, Provider::Cpu)),
        Provider::Cuda => (ep::CUDA::is_available, ep::CUDA::default().build()),
        Provider::CoreMl => (ep::CoreML::is_available, ep::CoreML::default().build()),
        Provider::Xnnpack => (ep::XNNPACK::is_available, ep::XNNPACK::default().build()),
    };
    let failed = |reason: String| RuntimeError::ProviderFailed { provider, reason };
    if !there().map_err(|e| failed(e.to_string()))? {
        return Err(RuntimeError::ProviderAbsent {
            provider,
            engine: format!("ONNX Runtime {}", library.path.display()),
            available: available()
                .into_iter()
                .map(|provider| provider.to_string())
                .collect(),
        });
    }
    let builder = builder
        .with_execution_providers([dispatch.error_on_failure()])
        .map_err(|e| failed(e.to_string()))?;
    Ok((builder, provider))
}

/// The providers of ours that the loaded library was built with.
fn available() -> Vec<Provider> {
    let ours: [(Provider, IsAvailable); 3] = [
        (Provider::Cuda, ep::CUDA::is_available),
        (Provider::CoreMl, ep::CoreML::is_available),
        (Provider::Xnnpack, ep::XNNPACK::is_available),
    ];
    let built_in = ours
        .into_iter()
        .filter(|(_, there)| there().is_ok_and(|yes| yes))
        .map(|(provider, _)| provider);
    std::iter::once(Provider::Cpu).chain(built_in).collect()
}

/// An f32 tensor of this name whose last axis is D.
fn check_outlet(
    outlets: &[Outlet],
    name: &str,
    dim: usize,
    entry: &EncoderEntry,
) -> Result<(), RuntimeError> {
    let wrong = |found: String| RuntimeError::GraphShape {
        member: entry.member.clone(),
        expected: format!("{name}: f32, last axis {dim}"),
        found,
    };
    let Some(outlet) = outlets.iter().find(|o| o.name() == name) else {
        let names: Vec<&str> = outlets.iter().map(Outlet::name).collect();
        return Err(wrong(format!("only {names:?}")));
    };
    match outlet.dtype() {
        ValueType::Tensor { ty, shape, .. }
            if *ty == ort::value::TensorElementType::Float32
                && shape.last().is_none_or(|&d| d < 0 || d == dim as i64) =>
        {
            Ok(())
        }
        other => Err(wrong(other.to_string())),
    }
}
