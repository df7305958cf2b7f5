//! What a stage left, so that two runs can be compared bit by bit.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context as _;
use serde_json::Value;

use crate::pipeline::StageRecord;

/// Figures that differ from run to run, by the clock or by where the run was cut.
const NOT_COMPARED: [&str; 3] = ["train_seconds", "validation_seconds", "resumed_from"];

/// Weights and figures of a finished stage.
pub(super) struct Outputs {
    /// SHA-256 of every file of weights. The other files carry times.
    weights: BTreeMap<String, String>,
    figures: Value,
    resumed_from: Option<u64>,
}

impl Outputs {
    pub(super) fn read(dir: &Path) -> anyhow::Result<Self> {
        let record = StageRecord::read(dir)?
            .with_context(|| format!("{}: the stage left no record", dir.display()))?;
        let weights: BTreeMap<_, _> = (record.outputs.into_iter())
            .filter(|(name, _)| name.ends_with(".safetensors"))
            .collect();
        anyhow::ensure!(!weights.is_empty(), "{}: no weights", dir.display());
        let resumed_from = record.figures["resumed_from"].as_u64();
        Ok(Self {
            weights,
            figures: comparable(record.figures),
            resumed_from,
        })
    }

    /// Optimizer steps of the run.
    pub(super) fn steps(&self) -> u64 {
        self.figures["steps"].as_u64().unwrap_or_default()
    }

    /// The step from which the last process went on.
    pub(super) fn resumed_from(&self) -> Option<u64> {
        self.resumed_from
    }

    /// Names of what is not the same in `other`.
    pub(super) fn differences(&self, other: &Self) -> Vec<String> {
        let names = self.weights.keys().chain(other.weights.keys());
        let mut different: Vec<String> = names
            .filter(|name| self.weights.get(*name) != other.weights.get(*name))
            .cloned()
            .collect();
        // A number is written with as many digits as it takes, so equal text is equal bits.
        let (ours, theirs) = (self.figures.to_string(), other.figures.to_string());
        if ours != theirs {
            different.push("figures of stage.json".to_owned());
        }
        different.sort_unstable();
        different.dedup();
        different
    }
}

fn comparable(figures: Value) -> Value {
    match figures {
        Value::Object(fields) => Value::Object(
            (fields.into_iter())
                .filter(|(name, _)| !NOT_COMPARED.contains(&name.as_str()))
                .map(|(name, value)| (name, comparable(value)))
                .collect(),
        ),
        Value::Array(values) => Value::Array(values.into_iter().map(comparable).collect()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outputs(hash: &str, metric: f64, seconds: f64) -> Outputs {
        let weights = BTreeMap::from([("model.safetensors".to_owned(), hash.to_owned())]);
        let epochs = serde_json::json!([{ "metric": metric, "train_seconds": seconds }]);
        Outputs {
            weights,
            figures: comparable(serde_json::json!({ "epochs": epochs, "resumed_from": seconds })),
            resumed_from: None,
        }
    }

    #[test]
    fn one_bit_of_weights_or_figures_is_a_difference_and_time_is_none() {
        let whole = outputs("a", 0.1, 1.0);
        assert!(whole.differences(&outputs("a", 0.1, 2.0)).is_empty());
        let other = outputs("b", f64::from_bits(0.1f64.to_bits() + 1), 1.0);
        assert_eq!(
            whole.differences(&other),
            ["figures of stage.json", "model.safetensors"]
        );
    }
}
