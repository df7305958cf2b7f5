//! `study`: one question about the student, answered by training it several times. Variants share the
//! dataset, SASRec and the teacher of the work directory, and each is a stage of its own under
//! `studies/`, so a study that was cut goes on where it stood. What was found is kept beside them, for
//! the report.

mod items;
mod measure;
mod question;
mod starts;
mod training;
mod variants;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use slmrec_core::{Evaluation, Split, atomic};

use super::super::stage::{StageRecord, io_error};
use super::super::{PipelineError, PipelineSettings, WorkDir};
use super::evaluate::write_ranks;
use super::{Context, input_hash, to_json};
use crate::evaluate::names::with_prior;
use crate::evaluate::rank_files::{COMPARISON_FILE, RANKS_DIR};
use crate::evaluate::{Comparison, paired_row};
use crate::model::{LlmRecommender, ReadAfter, SequentialModel};
use measure::Measure;
use variants::variants;

pub use question::{Question, Study};
pub use training::{TrainingFigures, TriedRate};

/// One student of a study.
#[derive(Clone, Debug)]
struct Variant {
    /// In the table.
    name: String,
    settings: PipelineSettings,
    /// Whether a teacher helps.
    taught: bool,
    /// The variant that it is compared with; the first one when absent.
    against: Option<String>,
    /// Its place on a line, where the study varies a number.
    place: Option<Place>,
}

/// A point of a line of [`Curves`].
#[derive(Clone, Debug, PartialEq)]
struct Place {
    line: &'static str,
    at: f64,
}

/// What a study found.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StudyReport {
    /// Every system, and each against the one that it is to be compared with; alone and, where there
    /// is one, with the prior.
    pub comparison: Comparison,
    /// The training of each.
    pub trainings: BTreeMap<String, TrainingFigures>,
    /// The systems over the number that the study varies, where it varies one.
    pub curves: Option<Curves>,
}

/// Systems along a number.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Curves {
    /// What the number is.
    pub axis: String,
    /// Name of a line, and its points: the number and the system.
    pub lines: BTreeMap<String, Vec<(f64, String)>>,
}

/// Trains what is missing, compares all on the targets of `split`, and keeps what was found. Each
/// student is trained at each of `rates`, where there are any, and stands in the comparison as the
/// validation targets like it best.
///
/// # Errors
/// Missing earlier stages, variants that the settings do not allow, or training that fails.
pub fn run(
    context: &Context<'_>,
    study: &Study,
    rates: &[f64],
    split: Split,
) -> Result<StudyReport, PipelineError> {
    let (dataset, dataset_hash) = context.dataset()?;
    let measure = Measure::new(context, &dataset, split)?;
    let mut record = StageRecord::begin(
        study.command(),
        serde_json::json!({
            "study": study,
            "rates": rates,
            "split": split,
            "seed": context.settings.seed,
            "distill": context.settings.distill,
        }),
    );
    record.inputs.insert("dataset".to_owned(), dataset_hash);
    let (report, evaluations) = match study {
        Study::Readout => readout(&measure, &mut record)?,
        _ => {
            record.inputs.extend(measure.prior_hash()?);
            students(&measure, study, rates, &mut record)?
        }
    };
    record.figures = to_json(&report)?;
    let dir = context.work.studies().join(study.folder());
    keep(&dir, &report.comparison, &evaluations)?;
    record.write(&dir)?;
    Ok(report)
}

/// Trains the variants of a study and compares them. `record` learns what they were made of.
fn students(
    measure: &Measure<'_>,
    study: &Study,
    rates: &[f64],
    record: &mut StageRecord,
) -> Result<(StudyReport, Vec<Evaluation>), PipelineError> {
    let context = measure.context;
    let variants = variants(&context.settings, study)?;
    if *study == Study::Items && context.settings.pretrain.titles.is_none() {
        (context.reporter).say(
            "study items: item embeddings of titles are left out, since pretrain.titles names no text encoder\n\
             hint: `slmrec-distill pretrain --titles minilm`, then --set pretrain.titles=minilm",
        );
    }
    let first = variants[0].name.as_str();
    let (mut evaluations, mut pairs) = (Vec::new(), Vec::new());
    let mut trainings = BTreeMap::new();
    for variant in &variants {
        let best = training::best(context, study, variant, rates)?;
        trainings.insert(variant.name.clone(), best.figures);
        made_of(record, &variant.name, &best.record);
        let mut models = vec![(variant.name.clone(), best.dir)];
        if let Some(teacher) = best.online_teacher {
            models.push((format!("{}: its teacher", variant.name), teacher));
        }
        let reference = variant.against.as_deref().unwrap_or(first);
        for (name, dir) in models {
            let model = LlmRecommender::load(&dir, &context.device)?;
            evaluations.extend(measure.with_prior(&name, &model)?);
            pairs.push((with_prior(&name), with_prior(reference)));
            pairs.push((name, reference.to_owned()));
        }
    }
    let report = StudyReport {
        comparison: compare(&evaluations, &pairs)?,
        trainings,
        curves: curves(study, &variants),
    };
    Ok((report, evaluations))
}

/// The teacher after each of its layers, compared with its end.
fn readout(
    measure: &Measure<'_>,
    record: &mut StageRecord,
) -> Result<(StudyReport, Vec<Evaluation>), PipelineError> {
    let start = Instant::now();
    let context = measure.context;
    let dir = WorkDir::finished(context.work.teacher(), "teach")?;
    (record.inputs).insert("teacher".to_owned(), input_hash(&dir)?);
    let teacher = LlmRecommender::load(&dir, &context.device)?;
    let name = |layer: usize| format!("teacher, read after layer {layer}");
    let (mut evaluations, mut points) = (Vec::new(), Vec::new());
    for layer in 1..=teacher.num_layers() {
        (context.reporter).say(&format!("study depth: {}", name(layer)));
        evaluations.push(measure.alone(&name(layer), &ReadAfter::new(&teacher, layer))?);
        points.push((layer as f64, name(layer)));
    }
    record.seconds = start.elapsed().as_secs_f64();
    let reference = name(teacher.num_layers());
    let report = StudyReport {
        comparison: Comparison::new(&evaluations, &[&reference])?,
        trainings: BTreeMap::new(),
        curves: Some(Curves {
            axis: "layer read".to_owned(),
            lines: BTreeMap::from([("teacher".to_owned(), points)]),
        }),
    };
    Ok((report, evaluations))
}

/// What `compare` and `seeds` read.
fn keep(
    dir: &Path,
    comparison: &Comparison,
    evaluations: &[Evaluation],
) -> Result<(), PipelineError> {
    let path = dir.join(COMPARISON_FILE);
    write_ranks(&dir.join(RANKS_DIR), evaluations)?;
    let json = to_json(comparison)?.to_string();
    atomic::write(&path, json.as_bytes()).map_err(|e| io_error(&path, e))
}

/// All systems, and the pairs that answer the question.
fn compare(
    evaluations: &[Evaluation],
    pairs: &[(String, String)],
) -> Result<Comparison, PipelineError> {
    let mut comparison = Comparison::new(evaluations, &[])?;
    let find = |name: &str| evaluations.iter().find(|found| found.name == name);
    // Nothing is compared with itself, and there may be no prior.
    let pair = |(system, reference): &(String, String)| match system == reference {
        true => None,
        false => paired_row(find(system)?, find(reference)?),
    };
    comparison.paired = pairs.iter().filter_map(pair).collect();
    Ok(comparison)
}

/// Adds what a training was made of, and what came of it, to the record of the study.
fn made_of(record: &mut StageRecord, variant: &str, training: &StageRecord) {
    let by_blend = training.settings["teacher"] == "blend";
    for (name, hash) in &training.inputs {
        // Variants may differ in who teaches.
        let name = match name.as_str() {
            "teacher" if by_blend => "blend",
            other => other,
        };
        record.inputs.insert(name.to_owned(), hash.clone());
    }
    (record.outputs).insert(variant.to_owned(), training.output_hash());
    record.seconds += training.seconds;
    record.peak_memory = record.peak_memory.max(training.peak_memory);
}

/// The variants over the number in which they differ.
fn curves(study: &Study, variants: &[Variant]) -> Option<Curves> {
    let axis = match study {
        Study::Depth(_) => "layers",
        Study::DataSize(_) => "% of users",
        _ => return None,
    };
    let mut lines: BTreeMap<String, Vec<(f64, String)>> = BTreeMap::new();
    for variant in variants {
        if let Some(Place { line, at }) = variant.place {
            let points = lines.entry(line.to_owned()).or_default();
            points.push((at, variant.name.clone()));
        }
    }
    Some(Curves {
        axis: axis.to_owned(),
        lines,
    })
}
