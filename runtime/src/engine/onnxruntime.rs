//! The engine ONNX Runtime.

use ndarray::{ArrayView3, ArrayView4, Axis, Slice};
use ort::ep::{self, ExecutionProvider, ExecutionProviderDispatch};
use ort::session::builder::SessionBuilder;
use ort::session::{
    HasSelectedOutputs, OutputSelector, RunOptions, Session, SessionInputValue, SessionOutputs,
};
use ort::value::{Outlet, TensorRef, ValueType};
use slmrec_core::Manifest;
use slmrec_core::manifest::{EncoderEntry, past_name, present_name};

use super::library::Library;
use super::{Encoder, EngineInfo, INPUT, IncrementalEncoder, KeyValues, OUTPUT};
use crate::error::RuntimeError;
use crate::options::{OpenOptions, Provider};

const NAME: &str = "onnxruntime";
/// The symbolic length of the input.
const LENGTH: &str = "history";

/// Whether the loaded library was built with a provider.
type IsAvailable = fn() -> ort::Result<bool>;

/// What the manifest says about the graph.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    /// Embedding dimension D.
    dim: usize,
    layers: usize,
    /// Positions behind the items, R; no run needs those of an earlier one.
    suffix: usize,
}

impl Shape {
    pub(crate) fn of(manifest: &Manifest) -> Self {
        Self {
            dim: manifest.items.dim,
            layers: manifest.model.num_hidden_layers,
            suffix: manifest.model.prompt.suffix_tokens,
        }
    }
}

/// A session of ONNX Runtime with the encoder graph.
pub(crate) struct OnnxRuntimeEncoder {
    session: Session,
    /// Only the user vector: what a whole run leaves behind is not copied out.
    user_vector_only: RunOptions<HasSelectedOutputs>,
    /// Past and present of each layer's keys and values; empty for a graph that is not incremental.
    kept: Vec<Kept>,
    suffix: usize,
    info: EngineInfo,
}

/// Names of an input and of the output that follows from it.
struct Kept {
    past: String,
    present: String,
}

/// All that a session is made of but the graph.
pub(crate) struct Opened {
    pub(crate) library: Library,
    pub(crate) entry: EncoderEntry,
    pub(crate) shape: Shape,
    pub(crate) options: OpenOptions,
    /// Names what a provider keeps on disk.
    pub(crate) bundle_sha256: String,
}

impl Opened {
    /// Makes `graph` ready, for histories of any length or of one.
    ///
    /// # Errors
    /// A provider that is absent or does not start, a graph that is refused or has other inputs
    /// and outputs than an encoder has.
    pub(crate) fn session(
        &self,
        graph: &[u8],
        length: Option<usize>,
    ) -> Result<OnnxRuntimeEncoder, RuntimeError> {
        let Self {
            library,
            entry,
            shape,
            options,
            ..
        } = self;
        let refused = |e: ort::Error| RuntimeError::Graph {
            engine: NAME,
            member: entry.member.clone(),
            reason: e.to_string(),
        };
        let mut builder = builder(library, options).map_err(refused)?;
        if let Some(length) = length {
            builder = (builder.with_dimension_override(LENGTH, length as i64))
                .map_err(|e| refused(e.into()))?;
        }
        let (mut builder, provider) = self.with_provider(builder)?;
        let session = builder.commit_from_memory(graph).map_err(refused)?;
        check_outlet(session.inputs(), INPUT, shape.dim, entry)?;
        check_outlet(session.outputs(), OUTPUT, shape.dim, entry)?;
        let kept = match entry.incremental {
            true => kept(&session, shape.layers, entry)?,
            false => Vec::new(),
        };
        let only = OutputSelector::no_default().with(OUTPUT);
        let user_vector_only = RunOptions::new().map_err(refused)?.with_outputs(only);
        let info = EngineInfo {
            name: NAME.into(),
            version: library.version(),
            provider,
            threads: options.threads.get(),
            encoder: entry.member.clone(),
            precision: entry.precision,
            incremental: entry.incremental,
            notice: None,
        };
        Ok(OnnxRuntimeEncoder {
            session,
            user_vector_only,
            kept,
            suffix: shape.suffix,
            info,
        })
    }

    /// Adds the provider and tells which one it is. The binding falls back to the CPU without a
    /// word unless it is told otherwise, so what was asked for by name is looked up first.
    fn with_provider(
        &self,
        builder: SessionBuilder,
    ) -> Result<(SessionBuilder, Provider), RuntimeError> {
        let provider = self.options.provider;
        let failed = |reason: String| RuntimeError::ProviderFailed { provider, reason };
        // The CPU needs no registration: it is what every session has.
        if matches!(provider, Provider::Auto | Provider::Cpu) {
            return Ok((builder, Provider::Cpu));
        }
        if !available().contains(&provider) {
            return Err(RuntimeError::ProviderAbsent {
                provider,
                engine: format!("ONNX Runtime {}", self.library.path.display()),
                available: available().iter().map(Provider::to_string).collect(),
            });
        }
        let dispatch = match provider {
            Provider::Cuda => ep::CUDA::default().build(),
            Provider::CoreMl => self.core_ml().map_err(failed)?,
            // It has threads of its own.
            _ => (ep::XNNPACK::default())
                .with_intra_op_num_threads(self.options.threads)
                .build(),
        };
        let builder = builder
            .with_execution_providers([dispatch.error_on_failure()])
            .map_err(|e| failed(e.to_string()))?;
        Ok((builder, provider))
    }

    /// CoreML with programs of static shapes, kept by the bundle's hash: compiling one takes
    /// seconds, and CoreML itself does not notice that a model has changed.
    fn core_ml(&self) -> Result<ExecutionProviderDispatch, String> {
        let core_ml = ep::CoreML::default()
            .with_model_format(ep::coreml::ModelFormat::MLProgram)
            .with_static_input_shapes(true);
        let Some(cache) = &self.options.provider_cache else {
            return Ok(core_ml.build());
        };
        let folder = cache.folder.join("coreml").join(&self.bundle_sha256);
        std::fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        Ok(core_ml.with_model_cache_dir(folder.display()).build())
    }
}

impl Encoder for OnnxRuntimeEncoder {
    fn encode(&mut self, embeddings: ArrayView3<'_, f32>) -> Result<Vec<f32>, RuntimeError> {
        let input = TensorRef::from_array_view(embeddings).map_err(failed)?;
        let outputs = self
            .session
            .run_with_options(ort::inputs![INPUT => input], &self.user_vector_only)
            .map_err(failed)?;
        user_vector(&outputs)
    }

    fn info(&self) -> &EngineInfo {
        &self.info
    }

    fn incremental(&mut self) -> Option<&mut dyn IncrementalEncoder> {
        self.info.incremental.then_some(self as _)
    }
}

impl IncrementalEncoder for OnnxRuntimeEncoder {
    fn extend(
        &mut self,
        past: Option<&KeyValues>,
        embeddings: ArrayView3<'_, f32>,
    ) -> Result<(Vec<f32>, KeyValues), RuntimeError> {
        let items = past.map_or(0, KeyValues::items) + embeddings.len_of(Axis(1));
        let input = TensorRef::from_array_view(embeddings).map_err(failed)?;
        let mut inputs: Vec<(&str, SessionInputValue<'_>)> = vec![(INPUT, input.into())];
        for (kept, tensor) in (self.kept.iter()).zip(past.iter().flat_map(|past| past.tensors())) {
            let tensor = TensorRef::from_array_view(tensor.view()).map_err(failed)?;
            inputs.push((&kept.past, tensor.into()));
        }
        let outputs = self.session.run(inputs).map_err(failed)?;
        let tensors = self.kept.iter().map(|kept| {
            let tensor = &outputs[kept.present.as_str()];
            let (shape, values) = tensor.try_extract_tensor::<f32>().map_err(failed)?;
            let shape: Vec<usize> = shape.iter().map(|&n| n as usize).collect();
            let all = match shape[..] {
                [a, b, c, d] if c >= self.suffix => {
                    ArrayView4::from_shape((a, b, c, d), values).ok()
                }
                _ => None,
            };
            let all = all.ok_or_else(|| no_key_values(&kept.present))?;
            let positions = all.len_of(Axis(2)) - self.suffix;
            let without_suffix = all.slice_axis(Axis(2), Slice::from(..positions));
            Ok(without_suffix.as_standard_layout().into_owned())
        });
        let tensors = tensors.collect::<Result<Vec<_>, RuntimeError>>()?;
        let key_values = KeyValues::new(tensors, items);
        let key_values = key_values.ok_or_else(|| no_key_values("of the layers"))?;
        Ok((user_vector(&outputs)?, key_values))
    }
}

fn failed(e: ort::Error) -> RuntimeError {
    RuntimeError::Inference {
        engine: NAME,
        reason: e.to_string(),
    }
}

fn no_key_values(which: &str) -> RuntimeError {
    RuntimeError::Inference {
        engine: NAME,
        reason: format!("keys and values {which} have another shape than the inputs give"),
    }
}

/// The output was found by name when the graph was opened.
fn user_vector(outputs: &SessionOutputs<'_>) -> Result<Vec<f32>, RuntimeError> {
    let values = outputs[OUTPUT].try_extract_tensor::<f32>();
    let (_shape, values) = values.map_err(failed)?;
    Ok(values.to_vec())
}

/// The inputs and outputs that make a graph incremental, all of them.
fn kept(session: &Session, layers: usize, entry: &EncoderEntry) -> Result<Vec<Kept>, RuntimeError> {
    let optional = session.overridable_initializers();
    let tensor = |dtype: &ValueType| {
        matches!(dtype, ValueType::Tensor { ty, shape, .. }
            if *ty == ort::value::TensorElementType::Float32 && shape.len() == 4)
    };
    let parts = (0..layers).flat_map(|layer| ["keys", "values"].map(|part| (layer, part)));
    let kept = parts.map(|(layer, part)| {
        let (past, present) = (past_name(layer, part), present_name(layer, part));
        let input = (optional.iter()).any(|i| i.name() == past && tensor(i.dtype()));
        let output = (session.outputs().iter()).any(|o| o.name() == present && tensor(o.dtype()));
        match input && output {
            true => Ok(Kept { past, present }),
            false => Err(RuntimeError::GraphShape {
                member: entry.member.clone(),
                expected: format!(
                    "the optional input {past} and the output {present}, f32, four axes"
                ),
                found: "no such pair".into(),
            }),
        }
    });
    kept.collect()
}

fn builder(library: &Library, options: &OpenOptions) -> Result<SessionBuilder, ort::Error> {
    Ok(Session::builder(&library.environment)?
        .with_intra_threads(options.threads.get())?
        // Spinning threads cost two to three times the CPU time on a busy machine.
        .with_intra_op_spinning(false)?)
}

/// The providers of ours that the loaded library was built with.
pub(crate) fn available() -> Vec<Provider> {
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
