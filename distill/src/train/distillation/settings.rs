//! The weights and forms of the objective's terms.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::block_map::{BlockMap, block_ends};
use crate::train::TrainError;
use crate::train::settings::{check, not_negative, positive};

/// How far two states are apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Norm {
    /// The squared distance, as the paper writes it.
    Squared,
    /// The distance itself, as the authors' code has it.
    Unsquared,
}

/// At which positions the terms beside the cross-entropy are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Positions {
    /// The last of each history (the paper's form).
    Last,
    /// Every position that has a target.
    All,
}

/// Settings of the distillation. The weights are the paper's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DistillSettings {
    /// Weight of `D_cos`.
    pub lambda_cos: f64,
    /// Weight of `D_norm`.
    pub lambda_norm: f64,
    /// Weight of `L_ms`.
    pub lambda_ms: f64,
    /// Weight of `D_kd`.
    pub lambda_kd: f64,
    /// Weight of `D_bkl`.
    pub lambda_block_kl: f64,
    /// Temperature of `D_kd` and `D_bkl`.
    pub temperature: f64,
    /// `D_kd` and `D_bkl` over the teacher's best so many items only; 0 for the whole catalog.
    pub top_k: usize,
    /// Number of blocks b, all of equal size; the layers of teacher and student divide by it.
    pub blocks: usize,
    /// Where the blocks end instead, as pairs `[layer of the teacher, layer of the student]`; when
    /// empty, `blocks` says it.
    pub block_map: BlockMap,
    /// Form of `D_norm`.
    pub norm: Norm,
    /// Where the terms are taken.
    pub positions: Positions,
}

impl Default for DistillSettings {
    fn default() -> Self {
        Self {
            lambda_cos: 1.0,
            lambda_norm: 0.1,
            lambda_ms: 0.1,
            lambda_kd: 0.0,
            lambda_block_kl: 0.0,
            temperature: 1.0,
            top_k: 0,
            blocks: 4,
            block_map: BlockMap::default(),
            norm: Norm::Squared,
            positions: Positions::All,
        }
    }
}

impl DistillSettings {
    /// Checks every field's range.
    ///
    /// # Errors
    /// [`TrainError::Setting`] for the first field outside its range.
    pub fn check(&self) -> Result<(), TrainError> {
        not_negative("lambda_cos", self.lambda_cos)?;
        not_negative("lambda_norm", self.lambda_norm)?;
        not_negative("lambda_ms", self.lambda_ms)?;
        not_negative("lambda_kd", self.lambda_kd)?;
        not_negative("lambda_block_kl", self.lambda_block_kl)?;
        positive("temperature", self.temperature)?;
        self.block_map.check()?;
        // Terms of inner blocks, and one block has none.
        let fewest = if self.reads_inner_blocks() { 2 } else { 1 };
        let expected = format!("at least {fewest}");
        let name = if self.block_map.is_empty() {
            "blocks"
        } else {
            "block_map"
        };
        let found = self.num_blocks();
        check(name, found >= fewest, &expected, found)
    }

    /// The terms that count by their weight of more than `times` the cross-entropy, with what they
    /// count; `losses` are the unweighted values by name. Gradients are clipped, so that such a term
    /// leaves little of all others.
    #[must_use]
    pub fn swamping(&self, losses: &BTreeMap<String, f64>, times: f64) -> Vec<(&'static str, f64)> {
        let weights = [
            ("cos", self.lambda_cos),
            ("norm", self.lambda_norm),
            ("ms", self.lambda_ms),
            ("kd", self.lambda_kd),
            ("block_kl", self.lambda_block_kl),
        ];
        let most = losses.get("ce").map_or(f64::INFINITY, |ce| times * ce);
        let counted = |(name, weight)| Some((name, weight * losses.get(name)?));
        let counted = weights.into_iter().filter_map(counted);
        counted.filter(|(_, value)| *value > most).collect()
    }

    /// Number of blocks b.
    #[must_use]
    pub fn num_blocks(&self) -> usize {
        match self.block_map.len() {
            0 => self.blocks,
            pairs => pairs,
        }
    }

    /// Whether states are compared as they are.
    #[must_use]
    pub fn aligns(&self) -> bool {
        self.lambda_cos > 0.0 || self.lambda_norm > 0.0
    }

    /// Whether the student's inner blocks get a head each.
    #[must_use]
    pub fn reads_inner_blocks(&self) -> bool {
        self.lambda_ms > 0.0 || self.lambda_block_kl > 0.0
    }

    /// Whether any term reads the teacher's hidden states.
    #[must_use]
    pub fn reads_states(&self) -> bool {
        self.aligns() || self.lambda_block_kl > 0.0
    }

    /// Whether any term asks the teacher.
    #[must_use]
    pub fn needs_teacher(&self) -> bool {
        self.reads_states() || self.lambda_kd > 0.0
    }

    /// Whether all of the teacher's scores are needed, so that its item embeddings are.
    #[must_use]
    pub fn needs_teacher_items(&self) -> bool {
        self.lambda_block_kl > 0.0 || self.lambda_kd > 0.0 && self.top_k == 0
    }

    /// Layers (`1..=layers`) of a teacher of `layers` layers whose states are read.
    ///
    /// # Errors
    /// [`TrainError::Blocks`] for layers that do not divide, [`TrainError::Setting`] for a map that
    /// does not end with the last layer.
    pub fn teacher_layers(&self, layers: usize) -> Result<Vec<usize>, TrainError> {
        if !self.reads_states() {
            return Ok(Vec::new());
        }
        match self.block_map.is_empty() {
            true => block_ends("teacher", layers, self.blocks),
            false => self.block_map.of_teacher(layers),
        }
    }

    /// Layers (`1..=layers`) of a student of `layers` layers that end its blocks; the last one alone
    /// where no term reads blocks, so that any depth learns from logits.
    ///
    /// # Errors
    /// As [`Self::teacher_layers`].
    pub fn student_layers(&self, layers: usize) -> Result<Vec<usize>, TrainError> {
        if !self.aligns() && !self.reads_inner_blocks() {
            return block_ends("student", layers, 1);
        }
        match self.block_map.is_empty() {
            true => block_ends("student", layers, self.blocks),
            false => self.block_map.of_student(layers),
        }
    }

    /// Number of the teacher's best items that `D_kd` reads, of a catalog of `items`; 0 for all.
    #[must_use]
    pub fn top_items(&self, items: usize) -> usize {
        if self.lambda_kd > 0.0 {
            self.top_k.min(items)
        } else {
            0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_that_swamp_the_cross_entropy_are_named() {
        let settings = DistillSettings {
            lambda_norm: 0.1,
            lambda_kd: 1.0,
            ..DistillSettings::default()
        };
        let losses = |norm: f64| {
            let losses = [
                ("ce", 4.0),
                ("norm", norm),
                ("kd", 2.0),
                ("teacher_ce", 900.0),
            ];
            BTreeMap::from(losses.map(|(name, value)| (name.to_owned(), value)))
        };
        assert_eq!(settings.swamping(&losses(399.0), 10.0), []);
        assert_eq!(settings.swamping(&losses(2000.0), 10.0), [("norm", 200.0)]);
        assert_eq!(settings.swamping(&BTreeMap::new(), 10.0), []);
    }

    #[test]
    fn refuses_settings_outside_their_range() {
        type Spoil = fn(&mut DistillSettings);
        let spoiled: [(&str, Spoil); 8] = [
            ("lambda_cos", |s| s.lambda_cos = -1.0),
            ("lambda_kd", |s| s.lambda_kd = f64::INFINITY),
            ("lambda_block_kl", |s| s.lambda_block_kl = f64::NAN),
            ("temperature", |s| s.temperature = 0.0),
            ("blocks", |s| s.blocks = 1),
            ("blocks", |s| {
                s.lambda_ms = 0.0;
                s.blocks = 0;
            }),
            ("block_map", |s| s.block_map = BlockMap(vec![[8, 4]])),
            ("block_map", |s| {
                s.block_map = BlockMap(vec![[4, 2], [4, 4]])
            }),
        ];
        for (field, spoil) in spoiled {
            let mut settings = DistillSettings::default();
            spoil(&mut settings);
            match settings.check() {
                Err(TrainError::Setting { name, .. }) => assert_eq!(name, field),
                other => panic!("{field}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_map_replaces_the_even_blocks() {
        let text = "block_map = [[2, 1], [3, 2], [8, 4]]";
        let settings: DistillSettings = toml::from_str(text).expect("settings");
        settings.check().expect("in range");
        assert_eq!(settings.num_blocks(), 3);
        assert_eq!(settings.teacher_layers(8).expect("layers"), [2, 3, 8]);
        assert_eq!(settings.student_layers(4).expect("layers"), [1, 2, 4]);
        for refused in [settings.teacher_layers(9), settings.student_layers(5)] {
            assert!(matches!(refused, Err(TrainError::Setting { .. })));
        }
        let logits = DistillSettings {
            lambda_cos: 0.0,
            lambda_norm: 0.0,
            lambda_kd: 1.0,
            ..settings
        };
        assert_eq!(logits.teacher_layers(8).expect("none"), [0usize; 0]);
        let by_logits_alone = DistillSettings {
            lambda_ms: 0.0,
            block_map: BlockMap::default(),
            ..logits
        };
        assert_eq!(by_logits_alone.student_layers(3).expect("last"), [3]);
    }
}
