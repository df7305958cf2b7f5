//! The command: a checkpoint and its dataset in, one bundle file out.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;
use slmrec_core::certificate::{Certificate, Quantization};
use slmrec_core::dataset::{DESCRIPTION_FILE, DatasetDescription, VOCABULARY_FILE};
use slmrec_core::manifest::{
    DataEntry, EncoderEntry, FORMAT_VERSION, GraphTarget, ItemsEntry, Manifest, ModelEntry,
    PRIOR_FEATURE, Precision, PriorEntry, PromptEntry,
};
use slmrec_core::pack::PRIOR_MEMBER;
use slmrec_core::prior::{PriorWeights, TransitionPrior};
use slmrec_core::ranking::top_k;
use slmrec_core::{
    Bundle, BundleWriter, Dataset, ItemMask, ItemTable, PriorError, RowType, Split, atomic, hash,
};

use crate::error::{ExportError, content, io_error};
use crate::graph::{Form, OPSET, encoder_onnx};
use crate::model::Model;
use crate::samples::{id, samples};
use crate::tensors::read_file;

const ITEMS_MEMBER: &str = "items.bin";
const VOCABULARY_MEMBER: &str = "vocabulary.json";
const POPULARITY_MEMBER: &str = "popularity.json";
const SAMPLES_MEMBER: &str = "samples.json";
const MAX_DESCRIPTION_BYTES: u64 = 16 << 20;

/// What to export.
#[derive(Clone, Debug)]
pub struct ExportOptions {
    /// Precision of the encoder, and of the item rows where those are not given.
    pub precision: Precision,
    /// How an int8 encoder is quantized.
    pub quantization: Quantization,
    /// How the item rows are stored; as the precision says where absent.
    pub item_rows: Option<RowType>,
    /// What quantization cost in ranking quality, for the manifest.
    pub certificate: Option<Certificate>,
    /// Adds an fp16 graph that any engine runs to an int8 bundle, whose own graph only ONNX
    /// Runtime runs fast. Nothing to add in the other precisions.
    pub portable: bool,
    /// Number of sample histories; fewer than [`crate::MIN_SAMPLES`] are rounded up.
    pub samples: usize,
    /// Length of the popularity list.
    pub popularity: usize,
    /// The transition prior that is added to the model's scores, over the dataset's catalog.
    pub prior: Option<ExportedPrior>,
    /// The first targets of the dataset that the checkpoint was not trained on.
    pub trained_before: Split,
}

/// A prior as it goes into a bundle.
#[derive(Clone, Debug)]
pub struct ExportedPrior {
    /// The counts, as their file holds them ([`TransitionPrior::rounded`]).
    pub counts: TransitionPrior,
    /// How they stand beside the model's scores.
    pub weights: PriorWeights,
    /// The first targets that were not counted.
    pub counted_before: Split,
}

impl Default for ExportOptions {
    fn default() -> Self {
        Self {
            precision: Precision::Int8,
            quantization: Quantization::Dynamic,
            item_rows: None,
            certificate: None,
            portable: false,
            samples: 16,
            popularity: 1000,
            prior: None,
            trained_before: Split::Validation,
        }
    }
}

/// What an export made.
#[derive(Clone, Debug, Serialize)]
pub struct ExportReport {
    /// The bundle.
    pub path: PathBuf,
    /// Size of the file.
    pub bytes: u64,
    /// Uncompressed size of each member.
    pub members: BTreeMap<String, u64>,
    /// Precision of the encoder.
    pub precision: Precision,
    /// Weights of the encoder, without item and prompt embeddings.
    pub parameters: usize,
    /// SHA-256 over the checkpoint's files.
    pub checkpoint_sha256: String,
    /// SHA-256 of the bundle's manifest, which names the whole content.
    pub bundle_sha256: String,
}

/// Writes a checkpoint as a bundle. `dataset` is the directory that the checkpoint was trained on;
/// vocabulary, popularity and sample histories come from it.
///
/// # Errors
/// A checkpoint or dataset that is damaged or does not fit the other, weights that the precision
/// cannot hold, and what writing gives; `output` is then untouched.
pub fn export(
    checkpoint: &Path,
    dataset: &Path,
    options: &ExportOptions,
    output: &Path,
) -> Result<ExportReport, ExportError> {
    let model = Model::read(checkpoint)?;
    let data = Dataset::read(dataset)?;
    let description = describe(dataset)?;
    check_vocabulary(checkpoint, dataset, &model, &description, &data)?;

    let mut writer = BundleWriter::new();
    let encoders = encoder_entries(options);
    for entry in &encoders {
        let onnx = encoder_onnx(&model, entry.precision, options.quantization, Form::Folded)?;
        writer.add(&entry.member, onnx);
    }
    let table = item_table(&model, options)?;
    let items = ItemsEntry {
        member: ITEMS_MEMBER.to_owned(),
        count: table.len(),
        dim: table.dim(),
        row_type: table.row_type(),
    };
    writer.add(ITEMS_MEMBER, table.to_bytes());
    writer.add(VOCABULARY_MEMBER, data.vocabulary.to_json()?);
    let popular = popularity(&data, options.popularity)?;
    writer.add(POPULARITY_MEMBER, json(output, &popular)?);
    let prior = match &options.prior {
        Some(prior) => Some(prior_entry(prior, &data, &mut writer)?),
        None => None,
    };
    let samples = samples(&model, &data, options, dataset)?;
    writer.add(SAMPLES_MEMBER, json(output, &samples)?);

    let manifest = Manifest {
        format_version: FORMAT_VERSION,
        required_features: prior.iter().map(|_| PRIOR_FEATURE.to_owned()).collect(),
        created_by: concat!("slmrec-export ", env!("CARGO_PKG_VERSION")).to_owned(),
        precision: options.precision,
        encoders,
        model: model_entry(&model, options.trained_before),
        items,
        vocabulary: VOCABULARY_MEMBER.to_owned(),
        popularity: POPULARITY_MEMBER.to_owned(),
        samples: SAMPLES_MEMBER.to_owned(),
        prior,
        certificate: options.certificate.clone(),
        data: DataEntry {
            name: description.description.name,
            users: description.description.users,
            interactions: description.description.interactions,
            sha256: description.sha256,
        },
        metrics: metrics(&model),
        members: BTreeMap::new(),
    };
    let manifest = writer.write(output, manifest)?;
    report(output, &model, &manifest)
}

/// Writes the encoder alone, plainly: fp32, prompt tokens in the sequence, all positions in all
/// layers. It takes and gives the same as a bundle's graph and is what the folded graph is
/// measured against.
///
/// # Errors
/// A damaged checkpoint, a graph beyond the format's limit, and what writing gives.
pub fn export_plain_onnx(checkpoint: &Path, output: &Path) -> Result<(), ExportError> {
    let model = Model::read(checkpoint)?;
    let onnx = encoder_onnx(&model, Precision::Fp32, Quantization::Dynamic, Form::Plain)?;
    atomic::write(output, &onnx).map_err(|e| io_error(output, e))
}

struct Description {
    description: DatasetDescription,
    sha256: String,
}

fn describe(dataset: &Path) -> Result<Description, ExportError> {
    let path = dataset.join(DESCRIPTION_FILE);
    let bytes = read_file(&path, MAX_DESCRIPTION_BYTES)?;
    let description =
        serde_json::from_slice(&bytes).map_err(|e| content(&path, "a dataset description", e))?;
    Ok(Description {
        description,
        sha256: hash::sha256_hex(&bytes),
    })
}

fn check_vocabulary(
    checkpoint: &Path,
    dataset: &Path,
    model: &Model,
    description: &Description,
    data: &Dataset,
) -> Result<(), ExportError> {
    let found = description.description.files.get(VOCABULARY_FILE);
    let expected = &model.recommender.vocabulary_sha256;
    let same = found == Some(expected) && model.recommender.items == data.num_items();
    if same {
        return Ok(());
    }
    let count = |hash: &str, items: usize| format!("{hash} ({items} items)");
    Err(ExportError::OtherDataset {
        checkpoint: checkpoint.to_owned(),
        dataset: dataset.to_owned(),
        expected: count(expected, model.recommender.items),
        found: count(found.map_or("none", String::as_str), data.num_items()),
    })
}

fn encoder_entries(options: &ExportOptions) -> Vec<EncoderEntry> {
    let entry = |precision: Precision| EncoderEntry {
        member: format!("encoder.{precision}.onnx"),
        target: match precision {
            Precision::Int8 if options.quantization.has_integer_products() => {
                GraphTarget::OnnxRuntime
            }
            Precision::Int8 | Precision::Fp32 | Precision::Fp16 => GraphTarget::Any,
        },
        precision,
        opset: OPSET,
        incremental: true,
    };
    let mut entries = vec![entry(options.precision)];
    if options.portable && entries[0].target != GraphTarget::Any {
        entries.push(entry(Precision::Fp16));
    }
    entries
}

fn item_table(model: &Model, options: &ExportOptions) -> Result<ItemTable, ExportError> {
    let row_type = options.item_rows.unwrap_or(match options.precision {
        Precision::Fp32 => RowType::F32,
        Precision::Fp16 => RowType::F16,
        Precision::Int8 => RowType::Int8,
    });
    let values: Vec<f32> = model.item_embeddings.iter().copied().collect();
    Ok(ItemTable::from_f32(
        &values,
        model.recommender.item_dim,
        row_type,
    )?)
}

fn prior_entry(
    prior: &ExportedPrior,
    data: &Dataset,
    writer: &mut BundleWriter,
) -> Result<PriorEntry, ExportError> {
    let ExportedPrior {
        counts,
        weights,
        counted_before,
    } = prior;
    weights.check()?;
    if counts.num_items() != data.num_items() {
        return Err(ExportError::Prior(PriorError {
            what: "the prior's catalog".to_owned(),
            expected: format!("{} items", data.num_items()),
            found: counts.num_items().to_string(),
        }));
    }
    writer.add(PRIOR_MEMBER, counts.to_bytes()?);
    Ok(PriorEntry {
        member: PRIOR_MEMBER.to_owned(),
        settings: *counts.settings(),
        weights: *weights,
        interactions: counts.interactions(),
        counted_before: *counted_before,
    })
}

/// Ids by training count, most popular first; items that never occur are left out.
fn popularity(dataset: &Dataset, count: usize) -> Result<Vec<String>, ExportError> {
    let counts = dataset.training_counts();
    let mut never = ItemMask::none(dataset.num_items());
    for (row, _) in (0u32..).zip(&counts).filter(|(_, count)| **count == 0) {
        never.exclude(slmrec_core::ItemIndex(row));
    }
    let scores: Vec<f32> = counts.iter().skip(1).map(|&count| count as f32).collect();
    let best = top_k(&scores, count, &never)?;
    Ok(best.iter().map(|scored| id(dataset, scored.item)).collect())
}

fn model_entry(model: &Model, trained_before: Split) -> ModelEntry {
    let (config, recommender) = (&model.config, &model.recommender);
    ModelEntry {
        model_type: config.model_type.clone(),
        base: recommender.base.name.clone(),
        readout: recommender.readout,
        max_history: recommender.max_history,
        hidden_size: config.hidden_size,
        num_hidden_layers: config.num_hidden_layers,
        num_attention_heads: config.num_attention_heads,
        num_key_value_heads: config.kv_heads(),
        intermediate_size: config.intermediate_size,
        prompt: PromptEntry {
            prefix: recommender.prompt.prefix.clone(),
            suffix: recommender.prompt.suffix.clone(),
            prefix_tokens: model.prefix_len(),
            suffix_tokens: model.suffix_len(),
        },
        checkpoint_sha256: model.sha256.clone(),
        trained_before,
    }
}

/// The `metrics` object of the training run's provenance, where it has one.
fn metrics(model: &Model) -> BTreeMap<String, serde_json::Value> {
    let object = model.recommender.provenance.get("metrics");
    object
        .and_then(serde_json::Value::as_object)
        .map(|metrics| metrics.clone().into_iter().collect())
        .unwrap_or_default()
}

fn json(output: &Path, value: &impl Serialize) -> Result<Vec<u8>, ExportError> {
    serde_json::to_vec(value).map_err(|e| io_error(output, e.into()))
}

fn report(output: &Path, model: &Model, manifest: &Manifest) -> Result<ExportReport, ExportError> {
    let file = std::fs::metadata(output).map_err(|e| io_error(output, e))?;
    let sizes = manifest.members.iter();
    Ok(ExportReport {
        path: output.to_owned(),
        bytes: file.len(),
        members: sizes
            .map(|(name, entry)| (name.clone(), entry.bytes))
            .collect(),
        precision: manifest.precision,
        parameters: model.parameters(),
        checkpoint_sha256: model.sha256.clone(),
        bundle_sha256: Bundle::open(output)?.sha256().to_owned(),
    })
}
