//! `study`: one question about the student, answered by training it several times. Variants share the
//! dataset, SASRec and the teacher of the work directory, and each is a stage of its own under
//! `studies/`, so a study that was cut goes on where it stood.

mod variants;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;
use slmrec_core::evaluation::Protocol;
use slmrec_core::{Dataset, Evaluation, Split};

use super::super::settings::Online;
use super::super::stage::StageRecord;
use super::super::{PipelineError, PipelineSettings, WorkDir};
use super::{Context, distill};
use crate::evaluate::{Comparison, ModelScorer, evaluate};
use crate::model::{LlmRecommender, ReadAfter, SequentialModel};
use crate::train::BlockMap;
use variants::variants;

/// The question.
#[derive(Clone, Debug, PartialEq)]
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
}

impl Study {
    /// As typed, and its folder.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Depth(_) | Self::Readout => "depth",
            Self::Losses => "losses",
            Self::Blocks(..) => "blocks",
            Self::Teacher => "teacher",
            Self::Online => "online",
            Self::DataSize(_) => "data-size",
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
    /// Every system; one of them is what the others are compared with.
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
    let (dataset, _) = context.dataset()?;
    let measure = Measure {
        context,
        dataset: &dataset,
        split,
    };
    if *study == Study::Readout {
        return measure.readout();
    }
    let variants = variants(&context.settings, study)?;
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
        evaluations.push(measure.checkpoint(&variant.name, &dir)?);
        if variant.taught && own.settings.distill.online != Online::Off {
            let name = format!("{}: its teacher", variant.name);
            evaluations.push(measure.checkpoint(&name, &own.work.online_teacher())?);
        }
    }
    let reference = variants[0].name.as_str();
    Ok(StudyReport {
        comparison: Comparison::new(&evaluations, &[reference])?,
        trainings,
    })
}

/// Users and targets that are the same for all systems of a study.
struct Measure<'a> {
    context: &'a Context<'a>,
    dataset: &'a Dataset,
    split: Split,
}

impl Measure<'_> {
    fn checkpoint(&self, name: &str, dir: &Path) -> Result<Evaluation, PipelineError> {
        self.model(name, &LlmRecommender::load(dir, &self.context.device)?)
    }

    fn model(&self, name: &str, model: &dyn SequentialModel) -> Result<Evaluation, PipelineError> {
        let mut scorer = ModelScorer::new(name, model)?;
        let (split, protocol) = (self.split, Protocol::default());
        Ok(evaluate(
            &mut scorer,
            self.dataset,
            split,
            protocol,
            &mut |_, _| {},
        )?)
    }

    /// The teacher after each of its layers, compared with its end.
    fn readout(&self) -> Result<StudyReport, PipelineError> {
        let dir = WorkDir::finished(self.context.work.teacher(), "teach")?;
        let teacher = LlmRecommender::load(&dir, &self.context.device)?;
        let name = |layer: usize| format!("teacher, read after layer {layer}");
        let mut evaluations = Vec::new();
        for layer in 1..=teacher.num_layers() {
            self.context
                .reporter
                .say(&format!("study depth: {}", name(layer)));
            evaluations.push(self.model(&name(layer), &ReadAfter::new(&teacher, layer))?);
        }
        let reference = name(teacher.num_layers());
        Ok(StudyReport {
            comparison: Comparison::new(&evaluations, &[&reference])?,
            trainings: BTreeMap::new(),
        })
    }
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
    let words = name
        .split([' ', ',', ':', '%'])
        .filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

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
