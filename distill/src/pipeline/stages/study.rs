//! `study`: one question about the student, answered by training it several times. Variants share the
//! dataset, SASRec and the teacher of the work directory, and each is a stage of its own under
//! `studies/`, so a study that was cut goes on where it stood. What was found is kept beside them, for
//! the report.

mod measure;
mod starts;
mod variants;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use slmrec_core::{Evaluation, Split};

use super::super::settings::Online;
use super::super::stage::StageRecord;
use super::super::{PipelineError, PipelineSettings, WorkDir};
use super::{Context, distill, input_hash, to_json};
use crate::evaluate::names::with_prior;
use crate::evaluate::{Comparison, paired_row};
use crate::model::{LlmRecommender, ReadAfter, SequentialModel};
use crate::train::BlockMap;
use measure::Measure;
use variants::variants;

/// The question.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Study {
    /// How deep must the student be? Each depth with the teacher and without.
    Depth(Vec<usize>),
    /// What do the layers of one deep model know? The teacher, read after each of them; nothing is
    /// trained.
    Readout,
    /// What does each term of the objective add?
    Losses,
    /// How many blocks should be aligned, or which layers?
    Blocks(Vec<usize>, Vec<BlockMap>),
    /// Who should teach by logits: nobody, the decoder, or the blend?
    Teacher,
    /// Should the teacher be finished, or learn beside the student?
    Online,
    /// How many users does the student need? Each share with the teacher and without.
    DataSize(Vec<f64>),
    /// What should the student begin as? Without a teacher.
    Start,
}

/// What a study asks, for who reads about it.
#[derive(Clone, Copy, Debug)]
pub struct Question {
    /// Where the record lies, within `studies`.
    pub folder: &'static str,
    /// What is typed after the program.
    pub command: &'static str,
    /// The question.
    pub words: &'static str,
}

impl Study {
    /// Every question that can be asked.
    pub const QUESTIONS: [Question; 8] = [
        Question {
            folder: "depth",
            command: "study depth",
            words: "How deep must the student be?",
        },
        Question {
            folder: "depth-readout",
            command: "study depth --readout",
            words: "What do the layers of the teacher know?",
        },
        Question {
            folder: "losses",
            command: "study losses",
            words: "What does each term of the objective add?",
        },
        Question {
            folder: "blocks",
            command: "study blocks",
            words: "Which layers should be aligned?",
        },
        Question {
            folder: "teacher",
            command: "study teacher",
            words: "Who should teach by logits?",
        },
        Question {
            folder: "online",
            command: "study online",
            words: "Should the teacher be finished, or learn beside the student?",
        },
        Question {
            folder: "data-size",
            command: "study data-size",
            words: "How many users does the student need?",
        },
        Question {
            folder: "start",
            command: "study start",
            words: "What should the student begin as?",
        },
    ];

    /// As typed.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Depth(_) | Self::Readout => "depth",
            Self::Losses => "losses",
            Self::Blocks(..) => "blocks",
            Self::Teacher => "teacher",
            Self::Online => "online",
            Self::DataSize(_) => "data-size",
            Self::Start => "start",
        }
    }

    /// Where its record lies.
    #[must_use]
    pub fn folder(&self) -> &'static str {
        match self {
            Self::Readout => "depth-readout",
            other => other.name(),
        }
    }

    fn command(&self) -> &'static str {
        let own = |question: &&Question| question.folder == self.folder();
        let found = Self::QUESTIONS.iter().find(own);
        found.map_or("study", |question| question.command)
    }
}

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
    /// Seconds and best validation NDCG@10 of the training of each.
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

/// Of one training.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingFigures {
    /// Wall time in seconds.
    pub seconds: f64,
    /// The metric that chose its epoch.
    pub validation_ndcg_10: Option<f64>,
}

/// Trains what is missing, compares all on the targets of `split`, and keeps what was found.
///
/// # Errors
/// Missing earlier stages, variants that the settings do not allow, or training that fails.
pub fn run(
    context: &Context<'_>,
    study: &Study,
    split: Split,
) -> Result<StudyReport, PipelineError> {
    let (dataset, dataset_hash) = context.dataset()?;
    let measure = Measure::new(context, &dataset, split)?;
    let mut record = StageRecord::begin(
        study.command(),
        serde_json::json!({
            "study": study,
            "split": split,
            "seed": context.settings.seed,
            "distill": context.settings.distill,
        }),
    );
    record.inputs.insert("dataset".to_owned(), dataset_hash);
    let report = match study {
        Study::Readout => readout(&measure, &mut record)?,
        _ => {
            record.inputs.extend(measure.prior_hash()?);
            students(&measure, study, &mut record)?
        }
    };
    record.figures = to_json(&report)?;
    record.write(&context.work.studies().join(study.folder()))?;
    Ok(report)
}

/// Trains the variants of a study and compares them. `record` learns what they were made of.
fn students(
    measure: &Measure<'_>,
    study: &Study,
    record: &mut StageRecord,
) -> Result<StudyReport, PipelineError> {
    let context = measure.context;
    let variants = variants(&context.settings, study)?;
    let first = variants[0].name.as_str();
    let (mut evaluations, mut pairs) = (Vec::new(), Vec::new());
    let mut trainings = BTreeMap::new();
    for variant in &variants {
        let line = format!("study {}: {}", study.name(), variant.name);
        context.reporter.say(&line);
        let own = context.with(
            variant.settings.clone(),
            (context.work).study(study.folder(), &folder_of(&variant.name)),
        );
        let (training, dir) = train(&own, variant.taught)?;
        trainings.insert(variant.name.clone(), figures_of(&training));
        made_of(record, &variant.name, &training);
        let mut models = vec![(variant.name.clone(), dir)];
        if variant.taught && own.settings.distill.online != Online::Off {
            let name = format!("{}: its teacher", variant.name);
            models.push((name, own.work.online_teacher()));
        }
        let reference = variant.against.as_deref().unwrap_or(first);
        for (name, dir) in models {
            let model = LlmRecommender::load(&dir, &context.device)?;
            evaluations.extend(measure.with_prior(&name, &model)?);
            pairs.push((with_prior(&name), with_prior(reference)));
            pairs.push((name, reference.to_owned()));
        }
    }
    Ok(StudyReport {
        comparison: compare(&evaluations, &pairs)?,
        trainings,
        curves: curves(study, &variants),
    })
}

/// The teacher after each of its layers, compared with its end.
fn readout(measure: &Measure<'_>, record: &mut StageRecord) -> Result<StudyReport, PipelineError> {
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
    Ok(StudyReport {
        comparison: Comparison::new(&evaluations, &[&reference])?,
        trainings: BTreeMap::new(),
        curves: Some(Curves {
            axis: "layer read".to_owned(),
            lines: BTreeMap::from([("teacher".to_owned(), points)]),
        }),
    })
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

fn train(context: &Context<'_>, taught: bool) -> Result<(StageRecord, PathBuf), PipelineError> {
    if taught {
        let outcome = distill::run(context)?;
        return Ok((outcome.record, context.work.student()));
    }
    match distill::run_ce_only(context)? {
        Some(outcome) => Ok((outcome.record, context.work.ce_only())),
        None => Err(PipelineError::Settings(
            "setting distill.ce_only: expected true for a study, found false".to_owned(),
        )),
    }
}

fn figures_of(record: &StageRecord) -> TrainingFigures {
    TrainingFigures {
        seconds: record.seconds,
        validation_ndcg_10: record.figures["best_metric"].as_f64(),
    }
}

/// `depth 2, distilled` as a folder.
fn folder_of(name: &str) -> String {
    let words = name
        .split([' ', ',', ':', '%'])
        .filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_study_is_listed_once() {
        let studies = [
            Study::Depth(vec![1]),
            Study::Readout,
            Study::Losses,
            Study::Blocks(vec![1], Vec::new()),
            Study::Teacher,
            Study::Online,
            Study::DataSize(vec![1.0]),
            Study::Start,
        ];
        let folders: Vec<&str> = studies.iter().map(Study::folder).collect();
        assert_eq!(folders, Study::QUESTIONS.map(|question| question.folder));
        for study in &studies {
            let typed = format!("study {}", study.name());
            assert!(study.command().starts_with(&typed), "{study:?}");
        }
    }

    #[test]
    fn folders_have_no_blanks() {
        assert_eq!(folder_of("depth 2, CE only"), "depth-2-CE-only");
        assert_eq!(folder_of("+ cos, norm, ms"), "+-cos-norm-ms");
        assert_eq!(folder_of("blocks 2:1,8:4"), "blocks-2-1-8-4");
        assert_eq!(
            folder_of("25 % of users, distilled"),
            "25-of-users-distilled"
        );
    }
}
