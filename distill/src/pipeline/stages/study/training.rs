//! The training of a study's student, at the rates that are tried for it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::super::super::PipelineError;
use super::super::super::settings::Online;
use super::super::super::stage::StageRecord;
use super::super::{Context, distill};
use super::{Study, Variant};

/// Of the training that a student of the comparison comes from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingFigures {
    /// Wall time in seconds.
    pub seconds: f64,
    /// The metric that chose its epoch, and its rate.
    pub validation_ndcg_10: Option<f64>,
    /// Peak learning rate; unknown in records of before rates were tried.
    pub learning_rate: Option<f64>,
    /// Every rate that was tried for it, where several were.
    #[serde(default)]
    pub tried: Vec<TriedRate>,
}

/// A learning rate and what came of it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TriedRate {
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Best of its epochs.
    pub validation_ndcg_10: Option<f64>,
}

/// A trained student.
pub(super) struct Trained {
    pub(super) record: StageRecord,
    pub(super) dir: PathBuf,
    /// The teacher that learned beside it.
    pub(super) online_teacher: Option<PathBuf>,
    pub(super) figures: TrainingFigures,
}

/// Trains a variant at each of the rates, or at that of its settings where there are none.
pub(super) fn best(
    context: &Context<'_>,
    study: &Study,
    variant: &Variant,
    rates: &[f64],
) -> Result<Trained, PipelineError> {
    let own_rate = [variant.settings.distill.train.learning_rate];
    let at = |rate: f64| {
        let (mut words, mut folder) = (variant.name.clone(), folder_of(&variant.name));
        if !rates.is_empty() {
            words.push_str(&format!(", rate {rate}"));
            folder.push_str(&format!("-rate-{rate}"));
        }
        (context.reporter).say(&format!("study {}: {words}", study.name()));
        let mut settings = variant.settings.clone();
        settings.distill.train.learning_rate = rate;
        let own = context.with(settings, context.work.study(study.folder(), &folder));
        let trained = train(&own, variant.taught)?;
        let tried = TriedRate {
            learning_rate: rate,
            validation_ndcg_10: trained.figures.validation_ndcg_10,
        };
        Ok::<_, PipelineError>((trained, tried))
    };
    let (first, others) = rates.split_first().unwrap_or((&own_rate[0], &[]));
    let (mut best, first) = at(*first)?;
    let mut tried = vec![first];
    for &rate in others {
        let (trained, next) = at(rate)?;
        tried.push(next);
        best = better(best, trained);
    }
    if !rates.is_empty() {
        best.figures.tried = tried;
    }
    Ok(best)
}

/// The earlier one where both are as good.
fn better(a: Trained, b: Trained) -> Trained {
    let metric = |trained: &Trained| trained.figures.validation_ndcg_10.unwrap_or(f64::MIN);
    if metric(&b) > metric(&a) { b } else { a }
}

fn train(context: &Context<'_>, taught: bool) -> Result<Trained, PipelineError> {
    let (record, dir) = if taught {
        (distill::run(context)?.record, context.work.student())
    } else {
        match distill::run_ce_only(context)? {
            Some(outcome) => (outcome.record, context.work.ce_only()),
            None => {
                return Err(PipelineError::Settings(
                    "setting distill.ce_only: expected true for a study, found false\n\
                     hint: leave --no-ce-only out"
                        .to_owned(),
                ));
            }
        }
    };
    let section = &context.settings.distill;
    let online = taught && section.online != Online::Off;
    Ok(Trained {
        dir,
        online_teacher: online.then(|| context.work.online_teacher()),
        figures: TrainingFigures {
            seconds: record.seconds,
            validation_ndcg_10: record.figures["best_metric"].as_f64(),
            learning_rate: Some(section.train.learning_rate),
            tried: Vec::new(),
        },
        record,
    })
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
