//! Settings of a training run.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::TrainError;

/// Which positions of a window are training targets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Targets {
    /// Every position predicts the next item, and every interaction but a user's first is a target.
    All,
    /// One target a user, the newest training item (the paper's form).
    Last,
}

/// What a target is compared with.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CatalogLoss {
    /// Every item of the catalog: `catalog_loss = "full"`.
    #[default]
    Full,
    /// Items drawn anew for each step: `catalog_loss = { sampled = { negatives = 1024 } }`. For
    /// catalogs of hundreds of thousands of items. A trained item table changes in the rows that a
    /// step reads and nowhere else (PyTorch's `SparseAdam`); where several devices share a batch, it
    /// changes everywhere, as with plain AdamW.
    Sampled(SampledSoftmax),
}

/// How items are drawn for a sampled softmax.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SampledSoftmax {
    /// Draws of a step, with replacement, shared by all of its rows.
    pub negatives: usize,
    /// An item is drawn with probability proportional to its number of training interactions (at
    /// least one) to this power: 0 draws all alike, 1 by popularity.
    pub popularity_exponent: f64,
}

impl Default for SampledSoftmax {
    fn default() -> Self {
        Self {
            negatives: 1024,
            popularity_exponent: 0.5,
        }
    }
}

impl SampledSoftmax {
    /// Checks every field's range.
    ///
    /// # Errors
    /// [`TrainError::Setting`] for the first field outside its range.
    pub fn check(&self) -> Result<(), TrainError> {
        at_least_one("catalog_loss.sampled.negatives", self.negatives)?;
        let exponent = self.popularity_exponent;
        check(
            "catalog_loss.sampled.popularity_exponent",
            (0.0..=1.0).contains(&exponent),
            "a number from 0 to 1",
            exponent,
        )
    }
}

/// Settings of the loop. The defaults are those of SASRec on small data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainSettings {
    /// Most passes over the data.
    pub epochs: usize,
    /// Windows of one step.
    pub batch_size: usize,
    /// Parts of a batch that the processor computes side by side, each with its share of the cores:
    /// most of a step is too small for many threads. The order of sums and the dropout masks depend on
    /// it, but not on the number of cores. A batch stays whole on a GPU, where several devices share
    /// it, and where the softmax is sampled.
    pub parts: usize,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Factors on the learning rate for parameters whose name begins so; the longest prefix wins.
    /// Names begin with `model.` or `objective.`. A factor of 0 freezes.
    pub learning_rate_scales: BTreeMap<String, f64>,
    /// The cosine ends at this fraction of the peak.
    pub min_learning_rate_fraction: f64,
    /// Steps of linear warm-up.
    pub warmup_steps: u64,
    /// Decoupled weight decay. Norms and biases never decay.
    pub weight_decay: f64,
    /// Whether embeddings decay too.
    pub decay_embeddings: bool,
    /// Largest global norm of the gradients.
    pub clip_norm: f64,
    /// Which positions are targets.
    pub targets: Targets,
    /// Most windows of a user, the newest ones; 0 takes all.
    pub newest_windows: usize,
    /// What the cross-entropies compare a target with.
    pub catalog_loss: CatalogLoss,
    /// Whether items that the user had before a target do not compete with it, as they do not where
    /// seen items are removed from the recommendations. Ranks suffer where they are not removed.
    /// Holds for the cross-entropy of the model's own scores and for logit distillation over the
    /// whole catalog at all positions; not for inner heads, the teacher's best K items, last
    /// positions of the distillation, or BERT4Rec.
    pub mask_seen: bool,
    /// Share of a target's probability that all candidates get alike, in the cross-entropy of the
    /// model's own scores; not with a sampled softmax, nor in BERT4Rec.
    pub label_smoothing: f64,
    /// Chance of each item of a history to be hidden from the model in a training step (its embedding
    /// is that of the padding), so that it cannot rely on any one; not in BERT4Rec, which hides
    /// items anyway.
    pub item_dropout: f64,
    /// Whether windows of a batch with the same history run through the model as one. What is
    /// minimised stays the same; they share their dropout.
    pub share_histories: bool,
    /// Most users of the validation after each epoch; where there are more, a sample that stays the
    /// same for the run. 0 takes all.
    pub validation_users: usize,
    /// Epochs without a better validation metric before the run stops.
    pub patience: usize,
    /// Seed of the order of the windows and of the dropout masks. Not part of a settings file: the
    /// one seed of the pipeline goes here.
    #[serde(skip)]
    pub seed: u64,
    /// Steps between saved states within an epoch; 0 saves at the end of epochs only.
    pub save_every_steps: u64,
}

impl Default for TrainSettings {
    fn default() -> Self {
        Self {
            epochs: 30,
            batch_size: 128,
            parts: 2,
            learning_rate: 1e-3,
            learning_rate_scales: BTreeMap::new(),
            min_learning_rate_fraction: 0.1,
            warmup_steps: 20,
            weight_decay: 0.01,
            decay_embeddings: false,
            clip_norm: 1.0,
            targets: Targets::All,
            newest_windows: 0,
            catalog_loss: CatalogLoss::Full,
            mask_seen: true,
            label_smoothing: 0.0,
            item_dropout: 0.0,
            share_histories: true,
            validation_users: 10_000,
            patience: 5,
            seed: 42,
            save_every_steps: 0,
        }
    }
}

impl TrainSettings {
    /// Checks every field's range.
    ///
    /// # Errors
    /// [`TrainError::Setting`] for the first field outside its range.
    pub fn check(&self) -> Result<(), TrainError> {
        at_least_one("epochs", self.epochs)?;
        at_least_one("batch_size", self.batch_size)?;
        at_least_one("parts", self.parts)?;
        at_least_one("patience", self.patience)?;
        positive("learning_rate", self.learning_rate)?;
        positive("clip_norm", self.clip_norm)?;
        not_negative("weight_decay", self.weight_decay)?;
        for scale in self.learning_rate_scales.values() {
            not_negative("learning_rate_scales", *scale)?;
        }
        for (name, share) in [
            ("label_smoothing", self.label_smoothing),
            ("item_dropout", self.item_dropout),
        ] {
            let right = (0.0..1.0).contains(&share);
            check(name, right, "a number from 0 to below 1", share)?;
        }
        if let CatalogLoss::Sampled(sampled) = &self.catalog_loss {
            sampled.check()?;
            let none = self.label_smoothing == 0.0;
            let expected = "0 where the softmax is sampled (catalog_loss)";
            check("label_smoothing", none, expected, self.label_smoothing)?;
        }
        let fraction = self.min_learning_rate_fraction;
        check(
            "min_learning_rate_fraction",
            (0.0..=1.0).contains(&fraction),
            "a number from 0 to 1",
            fraction,
        )
    }
}

fn at_least_one(name: &'static str, value: usize) -> Result<(), TrainError> {
    check(name, value > 0, "at least 1", value)
}

pub(super) fn positive(name: &'static str, value: f64) -> Result<(), TrainError> {
    check(
        name,
        value.is_finite() && value > 0.0,
        "a number above 0",
        value,
    )
}

pub(super) fn not_negative(name: &'static str, value: f64) -> Result<(), TrainError> {
    check(
        name,
        value.is_finite() && value >= 0.0,
        "a number of at least 0",
        value,
    )
}

pub(super) fn check(
    name: &'static str,
    right: bool,
    expected: &str,
    found: impl ToString,
) -> Result<(), TrainError> {
    if right {
        return Ok(());
    }
    Err(TrainError::Setting {
        name,
        expected: expected.to_owned(),
        found: found.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_values_outside_their_range() {
        assert!(TrainSettings::default().check().is_ok());
        type Spoil = fn(&mut TrainSettings);
        let spoiled: [(&str, Spoil); 12] = [
            ("catalog_loss.sampled.negatives", |s| {
                s.catalog_loss = CatalogLoss::Sampled(SampledSoftmax {
                    negatives: 0,
                    ..SampledSoftmax::default()
                });
            }),
            ("label_smoothing", |s| s.label_smoothing = 1.0),
            ("label_smoothing", |s| {
                s.label_smoothing = 0.1;
                s.catalog_loss = CatalogLoss::Sampled(SampledSoftmax::default());
            }),
            ("item_dropout", |s| s.item_dropout = -0.1),
            ("epochs", |s| s.epochs = 0),
            ("batch_size", |s| s.batch_size = 0),
            ("parts", |s| s.parts = 0),
            ("patience", |s| s.patience = 0),
            ("learning_rate", |s| s.learning_rate = f64::NAN),
            ("clip_norm", |s| s.clip_norm = 0.0),
            ("weight_decay", |s| s.weight_decay = -0.1),
            ("min_learning_rate_fraction", |s| {
                s.min_learning_rate_fraction = 1.5;
            }),
        ];
        for (field, spoil) in spoiled {
            let mut settings = TrainSettings::default();
            spoil(&mut settings);
            match settings.check() {
                Err(TrainError::Setting { name, .. }) => assert_eq!(name, field),
                other => panic!("{field}: {other:?}"),
            }
        }
    }

    #[test]
    fn the_catalog_loss_has_two_forms() {
        let read = |text: &str| {
            let settings: Result<TrainSettings, _> = toml::from_str(text);
            settings.map(|settings| settings.catalog_loss)
        };
        assert_eq!(read(""), Ok(CatalogLoss::Full));
        assert_eq!(read("catalog_loss = \"full\""), Ok(CatalogLoss::Full));
        let sampled = SampledSoftmax {
            negatives: 7,
            ..SampledSoftmax::default()
        };
        let text = "catalog_loss = { sampled = { negatives = 7 } }";
        assert_eq!(read(text), Ok(CatalogLoss::Sampled(sampled)));
        for wrong in ["\"none\"", "{ sampled = { negative = 7 } }", "\"sampled\""] {
            assert!(read(&format!("catalog_loss = {wrong}")).is_err(), "{wrong}");
        }
    }

    #[test]
    fn unknown_fields_are_refused() {
        let unknown = serde_json::from_str::<TrainSettings>(r#"{"learning_rat": 1.0}"#);
        assert!(unknown.is_err());
    }
}
