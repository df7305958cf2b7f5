//! What is searched for each kind of model, and how a trial is drawn.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};
use toml::Value;

use super::super::super::PipelineSettings;
use super::super::super::settings::Baseline;
use super::super::super::work_dir::Output;
use super::Subject;

/// One setting and the values that are tried.
#[derive(Clone, Debug)]
pub(super) struct Dimension {
    /// Its dotted name.
    pub(super) setting: String,
    pub(super) values: Values,
}

/// Where a value comes from.
#[derive(Clone, Debug)]
pub(super) enum Values {
    /// Uniform in the logarithm, two significant digits.
    Logarithmic(f64, f64),
    /// One of these.
    OneOf(Vec<Value>),
}

impl Values {
    fn draw(&self, rng: &mut ChaCha8Rng) -> Value {
        // 53 random bits, as a double in [0, 1).
        let share = (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        match self {
            Self::Logarithmic(low, high) => {
                let value = low * (high / low).powf(share);
                let digit = 10f64.powf(value.log10().floor() - 1.0);
                Value::Float(((value / digit).round() * digit).clamp(*low, *high))
            }
            Self::OneOf(values) => {
                let at = (share * values.len() as f64) as usize;
                values[at.min(values.len() - 1)].clone()
            }
        }
    }
}

/// The section of a subject's training loop.
pub(super) fn section(subject: Subject) -> &'static str {
    match subject.output() {
        Output::SasRec => "pretrain",
        Output::Baseline(Baseline::Gru4Rec) => "baselines.gru4rec",
        Output::Baseline(Baseline::Bert4Rec) => "baselines.bert4rec",
        Output::Baseline(Baseline::SasRecPrior) => "pretrain",
        Output::Teacher => "teach",
        Output::Students => "distill",
    }
}

/// What is searched.
pub(super) fn space(subject: Subject, settings: &PipelineSettings) -> Vec<Dimension> {
    let own = |name: &str, values: Values| Dimension {
        setting: format!("{}.{name}", section(subject)),
        values,
    };
    let rate = |low, high| own("train.learning_rate", Values::Logarithmic(low, high));
    let numbers = |values: &[i64]| Values::OneOf(values.iter().map(|&v| v.into()).collect());
    let floats = |values: &[f64]| Values::OneOf(values.iter().map(|&v| v.into()).collect());
    let dropout = || own("model.dropout", floats(&[0.1, 0.2, 0.3, 0.4, 0.5]));
    let width = || own("model.hidden_size", numbers(&[64, 128, 192]));
    let decay = || own("train.weight_decay", floats(&[0.0, 0.01, 0.1]));
    match subject {
        Subject::Sasrec => vec![
            rate(3e-4, 5e-3),
            dropout(),
            decay(),
            own("model.num_hidden_layers", numbers(&[1, 2, 3])),
            own("train.batch_size", numbers(&[64, 128, 256])),
            width(),
            own("model.scores", texts(&["dot", "cosine"])),
        ],
        Subject::Gru4rec => vec![
            rate(1e-3, 1e-2),
            dropout(),
            decay(),
            own("model.num_hidden_layers", numbers(&[1, 2])),
            own("train.batch_size", numbers(&[64, 128, 256])),
            width(),
        ],
        Subject::Bert4rec => vec![
            rate(3e-4, 5e-3),
            dropout(),
            decay(),
            own("model.num_hidden_layers", numbers(&[1, 2, 3])),
            own("masked", floats(&[0.2, 0.3, 0.5])),
            width(),
        ],
        Subject::Teacher | Subject::CeOnly => {
            let mut found = vec![rate(2e-4, 5e-3), decay()];
            found.push(own("train.batch_size", numbers(&[8, 16, 32])));
            match subject {
                Subject::CeOnly => found.push(tuning()),
                // A student's would be another teacher's, too.
                _ => found.push(Dimension {
                    setting: "model.dropout".to_owned(),
                    values: floats(&[0.0, 0.1, 0.2, 0.3]),
                }),
            }
            found
        }
        Subject::Student => {
            let mut found = vec![rate(2e-4, 5e-3), decay(), tuning()];
            found.push(own("train.batch_size", numbers(&[8, 16, 32])));
            found.extend(weights(settings).into_iter().map(|(name, weight)| {
                let around = [0.3, 1.0, 3.0].map(|factor| factor * weight);
                own(&format!("objective.{name}"), floats(&around))
            }));
            if settings.distill.objective.lambda_kd > 0.0 {
                found.push(own("objective.temperature", floats(&[1.0, 2.0])));
            }
            found
        }
    }
}

fn tuning() -> Dimension {
    Dimension {
        setting: "distill.tuning".to_owned(),
        values: texts(&["shared", "full"]),
    }
}

fn texts(values: &[&str]) -> Values {
    Values::OneOf(values.iter().map(|&value| value.into()).collect())
}

/// The terms that the settings use: a search moves weights, it does not add terms.
fn weights(settings: &PipelineSettings) -> Vec<(&'static str, f64)> {
    let objective = &settings.distill.objective;
    let all = [
        ("lambda_cos", objective.lambda_cos),
        ("lambda_norm", objective.lambda_norm),
        ("lambda_ms", objective.lambda_ms),
        ("lambda_kd", objective.lambda_kd),
        ("lambda_block_kl", objective.lambda_block_kl),
    ];
    let used = all.into_iter().filter(|(_, weight)| *weight > 0.0);
    used.collect()
}

/// The changes of a trial; number 0 changes nothing. The same seed and number give the same trial.
pub(super) fn draw(space: &[Dimension], seed: u64, number: usize) -> Vec<(String, Value)> {
    if number == 0 {
        return Vec::new();
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(number as u64);
    let value = |d: &Dimension| (d.setting.clone(), d.values.draw(&mut rng));
    space.iter().map(value).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_trial_of_every_subject_is_valid_settings() {
        let mut settings = PipelineSettings::default();
        settings.distill.objective.lambda_kd = 1.0;
        for subject in Subject::ALL {
            let space = space(subject, &settings);
            for number in 0..30 {
                let changes = draw(&space, 1, number);
                let changed = settings.changed(&changes).expect("valid");
                assert_eq!(changed == settings, number == 0, "{changes:?}");
                assert_eq!(changes, draw(&space, 1, number));
            }
        }
    }

    #[test]
    fn logarithmic_values_have_two_digits_and_stay_within_their_range() {
        let values = Values::Logarithmic(3e-4, 5e-3);
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let mut small = 0;
        for _ in 0..500 {
            let value = values.draw(&mut rng).as_float().expect("a float");
            assert!((3e-4..=5e-3).contains(&value), "{value}");
            assert!(format!("{value:e}").len() <= 22);
            small += usize::from(value < 1.22e-3);
        }
        // Half of the logarithms lie below the geometric mean.
        assert!((200..300).contains(&small), "{small}");
    }
}
