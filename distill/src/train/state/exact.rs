//! Floats as text. Reading JSON numbers may lose the last bit, and a resumed run shall report what
//! the uncut one does.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::train::EpochReport;

fn parse<E: serde::de::Error>(text: &str) -> Result<f64, E> {
    text.parse().map_err(E::custom)
}

/// `Option<f64>`.
pub(super) mod optional {
    use super::*;

    pub(in crate::train::state) fn serialize<S: Serializer>(
        value: &Option<f64>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        value.map(|v| v.to_string()).serialize(serializer)
    }

    pub(in crate::train::state) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<f64>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| parse(&text)).transpose()
    }
}

/// Names and values.
pub(super) mod named {
    use super::*;

    pub(in crate::train::state) fn serialize<S: Serializer>(
        values: &[(String, f64)],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq((values.iter()).map(|(name, value)| (name, value.to_string())))
    }

    pub(in crate::train::state) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<(String, f64)>, D::Error> {
        let values = Vec::<(String, String)>::deserialize(deserializer)?;
        (values.into_iter())
            .map(|(name, text)| Ok((name, parse(&text)?)))
            .collect()
    }
}

/// [`EpochReport`]s, their numbers under the names of its fields.
pub(super) mod history {
    use super::*;

    #[derive(Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Epoch {
        epoch: usize,
        step: u64,
        losses: Vec<(String, String)>,
        metric: Option<String>,
        best: bool,
        train_seconds: String,
        validation_seconds: String,
    }

    pub(in crate::train::state) fn serialize<S: Serializer>(
        epochs: &[EpochReport],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(epochs.iter().map(|report| {
            Epoch {
                epoch: report.epoch,
                step: report.step,
                losses: (report.losses.iter())
                    .map(|(name, value)| (name.clone(), value.to_string()))
                    .collect(),
                metric: report.metric.map(|metric| metric.to_string()),
                best: report.best,
                train_seconds: report.train_seconds.to_string(),
                validation_seconds: report.validation_seconds.to_string(),
            }
        }))
    }

    pub(in crate::train::state) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<EpochReport>, D::Error> {
        let report = |epoch: Epoch| {
            let losses = epoch.losses.into_iter();
            Ok(EpochReport {
                epoch: epoch.epoch,
                step: epoch.step,
                losses: losses
                    .map(|(name, text)| Ok((name, parse(&text)?)))
                    .collect::<Result<_, D::Error>>()?,
                metric: (epoch.metric.as_deref()).map(parse).transpose()?,
                best: epoch.best,
                train_seconds: parse(&epoch.train_seconds)?,
                validation_seconds: parse(&epoch.validation_seconds)?,
            })
        };
        let epochs = Vec::<Epoch>::deserialize(deserializer)?;
        epochs.into_iter().map(report).collect()
    }
}
