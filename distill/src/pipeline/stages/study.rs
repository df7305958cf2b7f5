//! `study`: one question about the student, answered by training it several times. Variants share the
//! dataset, SASRec and the teacher of the work directory, and each is a stage of its own under
//! `studies/`, so a study that was cut goes on where it stood.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;
use slmrec_core::evaluation::Protocol;
use slmrec_core::{Evaluation, Split};

use super::super::settings::TeacherChoice;
use super::super::stage::StageRecord;
use super::super::{PipelineError, PipelineSettings, WorkDir};
use super::{Context, distill};
use crate::evaluate::{Comparison, ModelScorer, evaluate};
use crate::model::LlmRecommender;
use crate::train::DistillSettings;

/// The question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Study {
    /// How deep must the student be? Each depth with the teacher and without.
    Depth(Vec<usize>),
    /// What does each term of the objective add?
    Losses,
    /// How many blocks should be aligned?
    Blocks(Vec<usize>),
    /// Who should teach by logits: nobody, the decoder, or the blend?
    Teacher,
}

impl Study {
    /// As typed, and its folder.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Depth(_) => "depth",
            Self::Losses => "losses",
            Self::Blocks(_) => "blocks",
            Self::Teacher => "teacher",
        }
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
}

/// What a study found.
#[derive(Clone, Debug, Serialize)]
pub struct StudyReport {
    /// Every variant; the first is what the others are compared with.
    pub comparison: Comparison,
    /// Seconds and best validation NDCG@10 of the training of each.
    pub trainings: BTreeMap<String, TrainingFigures>,
}

/// Of one training.
#[derive(Clone, Debug, Serialize)]
pub struct TrainingFigures {
    /// Wall time in seconds.
    pub seconds: f64,
    /// The metric that chose its epoch.
    pub validation_ndcg_10: f64,
}

/// Trains what is missing and compares all on the targets of `split`.
///
/// # Errors
/// Missing earlier stages, variants that the settings do not allow, or training that fails.
pub fn run(
    context: &Context<'_>,
    study: &Study,
    split: Split,
) -> Result<StudyReport, PipelineError> {
    let variants = variants(&context.settings, study)?;
    let (dataset, _) = context.dataset()?;
    let (mut evaluations, mut trainings) = (Vec::new(), BTreeMap::new());
    for variant in &variants {
        let line = format!("study {}: {}", study.name(), variant.name);
        context.reporter.say(&line);
        let own = context.with(
            variant.settings.clone(),
            context.work.study(study.name(), &folder_of(&variant.name)),
        );
        let (record, dir) = train(&own, variant.taught)?;
        trainings.insert(variant.name.clone(), figures_of(&record));
        let model = LlmRecommender::load(&dir, &context.device)?;
        let mut scorer = ModelScorer::new(&variant.name, &model)?;
        let found: Evaluation = evaluate(
            &mut scorer,
            &dataset,
            split,
            Protocol::default(),
            &mut |_, _| {},
        )?;
        evaluations.push(found);
    }
    let reference = variants[0].name.as_str();
    Ok(StudyReport {
        comparison: Comparison::new(&evaluations, &[reference])?,
        trainings,
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
        validation_ndcg_10: record.figures["best_metric"].as_f64().unwrap_or(f64::NAN),
    }
}

/// `depth 2, distilled` as a folder.
fn folder_of(name: &str) -> String {
    name.replace([' ', ','], "-").replace("--", "-")
}

/// The students that answer the question. None of them fails for blocks that do not divide.
fn variants(settings: &PipelineSettings, study: &Study) -> Result<Vec<Variant>, PipelineError> {
    let alone = |name: String, settings: &PipelineSettings| Variant {
        name,
        settings: settings.clone(),
        taught: false,
    };
    let mut found = Vec::new();
    match study {
        Study::Depth(depths) => {
            for depth in depths {
                let mut own = settings.clone();
                own.distill.layers = *depth;
                let blocks = own.distill.objective.blocks;
                own.distill.objective.blocks = largest_divisor(blocks, *depth, own.teach.layers);
                if own.distill.objective.blocks < 2 {
                    // Multiple supervision is of inner blocks, and one block has none.
                    own.distill.objective.lambda_ms = 0.0;
                }
                found.push(alone(format!("depth {depth}, CE only"), &own));
                found.push(taught(format!("depth {depth}, distilled"), own)?);
            }
        }
        Study::Losses => {
            found.push(alone("CE only".to_owned(), settings));
            for (name, objective) in objectives(&settings.distill.objective) {
                let mut own = settings.clone();
                own.distill.objective = objective;
                found.push(taught(name.to_owned(), own)?);
            }
        }
        Study::Blocks(counts) => {
            found.push(alone("CE only".to_owned(), settings));
            for blocks in counts {
                let mut own = settings.clone();
                own.distill.objective.blocks = *blocks;
                if *blocks < 2 {
                    own.distill.objective.lambda_ms = 0.0;
                }
                found.push(taught(format!("blocks {blocks}"), own)?);
            }
        }
        Study::Teacher => {
            found.push(alone("no teacher".to_owned(), settings));
            for (name, teacher) in [
                ("decoder", TeacherChoice::Decoder),
                ("blend", TeacherChoice::Blend),
            ] {
                let mut own = settings.clone();
                own.distill.teacher = teacher;
                own.distill.objective = only_kd(&settings.distill.objective);
                found.push(taught(name.to_owned(), own)?);
            }
        }
    }
    if found.is_empty() {
        let what = format!(
            "study {}: expected at least one value, found none",
            study.name()
        );
        return Err(PipelineError::Settings(what));
    }
    Ok(found)
}

/// A student with a teacher. What it stores of the teacher gets a folder by what is stored, so that
/// variants which ask for the same share it.
fn taught(name: String, mut settings: PipelineSettings) -> Result<Variant, PipelineError> {
    let objective = &settings.distill.objective;
    if !objective.needs_teacher() && objective.lambda_ms == 0.0 {
        return Err(PipelineError::Settings(format!(
            "study, {name}: expected an objective with a term beside cross-entropy, found none\n\
             hint: give one a weight, for example --set distill.objective.lambda_kd=1"
        )));
    }
    if settings.distill.cache_dir.is_none() {
        let states = match (objective.reads_states(), objective.block_map.is_empty()) {
            (false, _) => "logits".to_owned(),
            (true, true) => format!("blocks-{}", objective.blocks),
            (true, false) => format!("map-{}", objective.block_map).replace([':', ','], "-"),
        };
        let teacher = match settings.distill.teacher {
            TeacherChoice::Decoder => "decoder",
            TeacherChoice::Blend => "blend",
        };
        let folder = WorkDir::new(settings.work_dir.clone()).studies();
        settings.distill.cache_dir = Some(folder.join(format!("states-{teacher}-{states}")));
    }
    Ok(Variant {
        name,
        settings,
        taught: true,
    })
}

/// The largest number up to `wanted` that divides both numbers of layers.
fn largest_divisor(wanted: usize, student: usize, teacher: usize) -> usize {
    let divides =
        |blocks: &usize| student.is_multiple_of(*blocks) && teacher.is_multiple_of(*blocks);
    (1..=wanted.max(1)).rev().find(divides).unwrap_or(1)
}

/// Each term alone and all together, with the weights of the settings, or the paper's where a term
/// has none.
fn objectives(chosen: &DistillSettings) -> Vec<(&'static str, DistillSettings)> {
    let paper = DistillSettings::default();
    let weight = |chosen: f64, default: f64| if chosen > 0.0 { chosen } else { default };
    let all = DistillSettings {
        lambda_cos: weight(chosen.lambda_cos, paper.lambda_cos),
        lambda_norm: weight(chosen.lambda_norm, paper.lambda_norm),
        lambda_ms: weight(chosen.lambda_ms, paper.lambda_ms),
        lambda_kd: weight(chosen.lambda_kd, 1.0),
        ..chosen.clone()
    };
    let none = DistillSettings {
        lambda_cos: 0.0,
        lambda_norm: 0.0,
        lambda_ms: 0.0,
        lambda_kd: 0.0,
        ..chosen.clone()
    };
    vec![
        (
            "+ cos",
            DistillSettings {
                lambda_cos: all.lambda_cos,
                ..none.clone()
            },
        ),
        (
            "+ norm",
            DistillSettings {
                lambda_norm: all.lambda_norm,
                ..none.clone()
            },
        ),
        (
            "+ ms",
            DistillSettings {
                lambda_ms: all.lambda_ms,
                ..none.clone()
            },
        ),
        (
            "+ kd",
            DistillSettings {
                lambda_kd: all.lambda_kd,
                ..none
            },
        ),
        (
            "+ cos, norm, ms",
            DistillSettings {
                lambda_kd: 0.0,
                ..all.clone()
            },
        ),
        ("+ cos, norm, ms, kd", all),
    ]
}

fn only_kd(chosen: &DistillSettings) -> DistillSettings {
    DistillSettings {
        lambda_cos: 0.0,
        lambda_norm: 0.0,
        lambda_ms: 0.0,
        lambda_kd: if chosen.lambda_kd > 0.0 {
            chosen.lambda_kd
        } else {
            1.0
        },
        ..chosen.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(variants: &[Variant]) -> Vec<&str> {
        variants.iter().map(|v| v.name.as_str()).collect()
    }

    #[test]
    fn depths_get_blocks_that_divide_them() {
        let settings = PipelineSettings::default();
        let found = variants(&settings, &Study::Depth(vec![1, 3, 4])).expect("variants");
        assert_eq!(
            names(&found),
            [
                "depth 1, CE only",
                "depth 1, distilled",
                "depth 3, CE only",
                "depth 3, distilled",
                "depth 4, CE only",
                "depth 4, distilled"
            ]
        );
        let blocks: Vec<usize> = found
            .iter()
            .map(|v| v.settings.distill.objective.blocks)
            .collect();
        // The teacher has 8 layers: 3 has no divisor in common with it but 1.
        assert_eq!(blocks, [1, 1, 1, 1, 4, 4]);
        for variant in &found {
            let objective = &variant.settings.distill.objective;
            assert!(objective.blocks > 1 || objective.lambda_ms == 0.0);
            objective.check().expect("settings that work");
        }
    }

    #[test]
    fn each_term_stands_alone_once() {
        let settings = PipelineSettings::default();
        let found = variants(&settings, &Study::Losses).expect("variants");
        let weights: Vec<[bool; 4]> = (found.iter().skip(1))
            .map(|v| {
                let o = &v.settings.distill.objective;
                [o.lambda_cos, o.lambda_norm, o.lambda_ms, o.lambda_kd].map(|w| w > 0.0)
            })
            .collect();
        assert_eq!(
            weights,
            [
                [true, false, false, false],
                [false, true, false, false],
                [false, false, true, false],
                [false, false, false, true],
                [true, true, true, false],
                [true, true, true, true]
            ]
        );
        assert!(!found[0].taught && found[1..].iter().all(|v| v.taught));
    }

    #[test]
    fn states_are_shared_where_they_are_the_same() {
        let settings = PipelineSettings::default();
        let found = variants(&settings, &Study::Losses).expect("variants");
        let folder = |at: usize| found[at].settings.distill.cache_dir.clone();
        assert_eq!(folder(1), folder(2), "both read states of four blocks");
        assert_ne!(folder(1), folder(4), "logits alone");
        let blocks = variants(&settings, &Study::Blocks(vec![2, 4])).expect("variants");
        let folder = |at: usize| blocks[at].settings.distill.cache_dir.clone();
        assert_ne!(folder(1), folder(2));
    }

    #[test]
    fn a_study_of_nothing_is_refused() {
        let mut settings = PipelineSettings::default();
        assert!(variants(&settings, &Study::Depth(Vec::new())).is_err());
        settings.distill.objective = only_kd(&settings.distill.objective);
        settings.distill.objective.lambda_kd = 0.0;
        let error = variants(&settings, &Study::Blocks(vec![2])).expect_err("no term");
        assert!(error.to_string().contains("hint:"), "{error}");
    }

    #[test]
    fn folders_have_no_blanks() {
        assert_eq!(folder_of("depth 2, CE only"), "depth-2-CE-only");
        assert_eq!(folder_of("+ cos, norm, ms"), "+-cos-norm-ms");
    }
}
