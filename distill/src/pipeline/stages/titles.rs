//! `titles`: a vector of each item's title, by a text encoder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use candle_core::{DType, Device, Tensor};
use slmrec_core::{Dataset, atomic};

use super::super::stage::{Stage, StageRecord, io_error};
use super::super::{Outcome, PipelineError, WorkDir};
use super::teach::base_hash;
use super::{Context, input_hash, vocabulary_hash};
use crate::fetch;
use crate::model::TextEncoder;
use crate::model::weights_file::WeightsFile;

/// `vectors`, f32 `[N + 1, T]`; zero for the padding and for items without a title.
const VECTORS_FILE: &str = "titles.safetensors";
const VECTORS: &str = "vectors";
/// Titles that are encoded at once.
const BATCH: usize = 64;

/// Vectors of the titles of a dataset.
pub(super) struct TitleVectors {
    /// Where they lie.
    dir: PathBuf,
    /// Hash of the items whose titles they are.
    pub(super) vocabulary: String,
    /// N + 1, T.
    shape: [usize; 2],
    /// Hash over the stage's output.
    pub(super) sha256: String,
}

/// Runs the stage with an encoder: a fetched name or a directory.
///
/// # Errors
/// No dataset, no encoder, or no item with a title.
pub(super) fn run(
    context: &Context<'_>,
    encoder: &Path,
) -> Result<(TitleVectors, Outcome), PipelineError> {
    WorkDir::finished(context.work.dataset(), "prepare")?;
    let encoder_dir = encoder_dir(context, encoder)?;
    let stage = Stage {
        name: "titles",
        dir: context.work.titles(),
        settings: serde_json::json!({}),
        // Other sequences over the same items have the same titles.
        inputs: BTreeMap::from([
            ("vocabulary".to_owned(), vocabulary_hash(context)?),
            ("encoder".to_owned(), base_hash(&encoder_dir)?),
        ]),
    };
    let outcome = stage.run(context.force, context.reporter, |dir| {
        let (dataset, _) = context.dataset()?;
        encode_all(context, &dataset, &encoder_dir, dir)
    })?;
    let vectors = of_record(stage.dir, &outcome.record)?;
    Ok((vectors, outcome))
}

/// The vectors that are there already.
///
/// # Errors
/// None, or a record that cannot be read.
pub(super) fn finished(context: &Context<'_>) -> Result<TitleVectors, PipelineError> {
    let (dir, stage) = (context.work.titles(), "pretrain --titles minilm");
    match StageRecord::read(&dir)? {
        Some(record) => of_record(dir, &record),
        None => Err(PipelineError::MissingStage { path: dir, stage }),
    }
}

fn of_record(dir: PathBuf, record: &StageRecord) -> Result<TitleVectors, PipelineError> {
    let figure = |name: &str| record.figures[name].as_u64().unwrap_or(0) as usize;
    Ok(TitleVectors {
        sha256: input_hash(&dir)?,
        vocabulary: record.inputs.get("vocabulary").cloned().unwrap_or_default(),
        shape: [figure("items").saturating_add(1), figure("size")],
        dir,
    })
}

/// The directory that is asked for, or that of a fetched encoder.
pub(super) fn encoder_dir(context: &Context<'_>, asked: &Path) -> Result<PathBuf, PipelineError> {
    let artifact = (asked.to_str()).and_then(|name| name.parse::<fetch::Artifact>().ok());
    match artifact {
        Some(artifact) if !asked.exists() => {
            Ok(fetch::cached_folder(artifact, &context.cache_dir)?)
        }
        _ if asked.is_dir() => Ok(asked.to_owned()),
        _ => Err(PipelineError::Settings(format!(
            "setting pretrain.titles: expected the folder of a text encoder or a fetched name, found {}\n\
             hint: after `slmrec-distill fetch minilm`, --titles minilm",
            asked.display()
        ))),
    }
}

/// Size of the vectors that an encoder makes, read from its configuration alone.
///
/// # Errors
/// No such encoder.
pub(super) fn size(context: &Context<'_>, encoder: &Path) -> Result<usize, PipelineError> {
    let dir = encoder_dir(context, encoder)?;
    Ok(TextEncoder::config(&dir)?.hidden_size)
}

fn encode_all(
    context: &Context<'_>,
    dataset: &Dataset,
    encoder_dir: &Path,
    dir: &Path,
) -> Result<serde_json::Value, PipelineError> {
    let items = dataset.vocabulary.items();
    let titled: Vec<(usize, &str)> = (items.iter().enumerate())
        .filter_map(|(at, item)| Some((at + 1, item.title.as_deref()?.trim())))
        .filter(|(_, title)| !title.is_empty())
        .collect();
    let without = items.len() - titled.len();
    if titled.is_empty() {
        return Err(PipelineError::Settings(format!(
            "titles: none of the {} items has a title\n\
             hint: `slmrec-distill prepare --items FILE` reads them, or leave pretrain.titles out",
            items.len()
        )));
    }
    context.reporter.say(&format!(
        "titles: {} items have one, {without} have none and get a vector of zeros",
        titled.len()
    ));
    let encoder = TextEncoder::load(encoder_dir, &context.device)?;
    let size = encoder.size();
    let mut vectors = vec![0f32; (items.len() + 1) * size];
    let texts: Vec<&str> = titled.iter().map(|(_, title)| *title).collect();
    encode(context, &encoder, &texts, &mut |at, vector| {
        vectors[titled[at].0 * size..][..size].copy_from_slice(vector);
    })?;
    let vectors = Tensor::from_vec(vectors, (items.len() + 1, size), &Device::Cpu)?;
    write(dir, &vectors)?;
    Ok(serde_json::json!({
        "items": items.len(), "titled": titled.len(), "without_title": without, "size": size,
    }))
}

/// Gives each text's vector with its place among the texts.
pub(super) fn encode(
    context: &Context<'_>,
    encoder: &TextEncoder,
    texts: &[&str],
    on_vector: &mut dyn FnMut(usize, &[f32]),
) -> Result<(), PipelineError> {
    let counter = context.reporter.counter("titles", texts.len() as u64);
    for (done, batch) in texts.chunks(BATCH).enumerate() {
        if context.stop.load(Ordering::SeqCst) {
            return Err(PipelineError::Interrupted);
        }
        let found: Vec<Vec<f32>> = encoder.encode(batch)?.to_vec2()?;
        for (at, vector) in found.iter().enumerate() {
            on_vector(done * BATCH + at, vector);
        }
        counter.set((done * BATCH + batch.len()) as u64);
    }
    Ok(())
}

fn write(dir: &Path, vectors: &Tensor) -> Result<(), PipelineError> {
    let path = dir.join(VECTORS_FILE);
    let bytes = safetensors::serialize([(VECTORS, vectors)], None)
        .map_err(|e| io_error(&path, std::io::Error::other(e)))?;
    atomic::write(&path, &bytes).map_err(|e| io_error(&path, e))
}

impl TitleVectors {
    /// `[N + 1, T]`
    pub(super) fn load(&self, device: &Device) -> Result<Tensor, PipelineError> {
        let mut file = WeightsFile::open(&self.dir.join(VECTORS_FILE))?;
        let vectors = file.tensor(VECTORS, &self.shape, device)?;
        Ok(vectors.to_dtype(DType::F32)?)
    }

    /// Where they lie.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// T.
    pub(super) fn size(&self) -> usize {
        self.shape[1]
    }
}
