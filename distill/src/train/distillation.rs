//! The student's objective: cross-entropy, alignment with the teacher block by block, multiple
//! supervision and logit distillation.
//!
//! ```text
//! L_ce + lambda_cos D_cos + lambda_norm D_norm + lambda_ms L_ms + lambda_kd D_kd
//! D_cos  = 1/b     sum_{k=1..b}   1 - cos(t_k, P_k s_k)
//! D_norm = 1/b     sum_{k=1..b}   || t_k - P_k s_k ||^2
//! L_ms   = 1/(b-1) sum_{k=1..b-1} CE(y, softmax(E . W_k s_k))
//! D_kd   = T^2 KL(softmax(teacher scores / T) || softmax(student scores / T))
//! ```
//! With `top_k` both distributions of `D_kd` are over the teacher's best K items only.
//! `t_k` is the teacher's state after layer `k M/b`, `s_k` the student's after layer `k L/b`; the
//! last pair is taken after the final norm. `P_k` is there only where the hidden sizes differ. Each
//! term is a mean over positions, and one whose weight is 0 is not computed.

use candle_core::{DType, Device, Tensor};
use serde::{Deserialize, Serialize};
use slmrec_core::prior::PriorWeights;

use super::losses::sampled::Candidates;
use super::losses::{alignment, catalog};
use super::objective::{Losses, Objective, rows_at, score_offsets};
use super::settings::{check, not_negative, positive};
use super::teacher::{TeacherOutput, TeacherStates, hidden_size};
use super::top_scores::TopScores;
use super::{TrainError, TrainingBatch};
use crate::model::parameters::normal;
use crate::model::{ItemTable, MaskRng, Mode, ModelOutput, Parameters, SequentialModel};

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
    /// Temperature of `D_kd`.
    pub temperature: f64,
    /// `D_kd` over the teacher's best so many items only; 0 for the whole catalog.
    pub top_k: usize,
    /// Number of blocks b.
    pub blocks: usize,
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
            temperature: 1.0,
            top_k: 0,
            blocks: 4,
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
        positive("temperature", self.temperature)?;
        // Multiple supervision is for inner blocks only, and one block has none.
        let fewest = if self.lambda_ms > 0.0 { 2 } else { 1 };
        let expected = format!("at least {fewest}");
        check("blocks", self.blocks >= fewest, &expected, self.blocks)
    }

    /// Whether states of the teacher are compared.
    fn aligns(&self) -> bool {
        self.lambda_cos > 0.0 || self.lambda_norm > 0.0
    }

    /// Whether any term asks the teacher.
    #[must_use]
    pub fn needs_teacher(&self) -> bool {
        self.aligns() || self.lambda_kd > 0.0
    }

    /// Layers (`1..=layers`) of a teacher of `layers` layers whose states are compared.
    ///
    /// # Errors
    /// [`TrainError::Blocks`] for layers that do not divide.
    pub fn teacher_layers(&self, layers: usize) -> Result<Vec<usize>, TrainError> {
        if self.aligns() {
            block_ends("teacher", layers, self.blocks)
        } else {
            Ok(Vec::new())
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

/// Whose scores the transition prior is added to, and how, while the student learns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Priors {
    /// The student's: it learns what counting cannot.
    pub student: Option<PriorWeights>,
    /// The teacher's, in `D_kd`: it knows what counting does.
    pub teacher: Option<PriorWeights>,
}

/// The student's objective. Without a teacher only `L_ce` and `L_ms` may have a weight.
pub struct Distillation<'a> {
    settings: DistillSettings,
    teacher: Option<&'a dyn TeacherStates>,
    priors: Priors,
    student_layers: Vec<usize>,
    teacher_layers: Vec<usize>,
    parameters: Parameters,
    /// `W_k` `[D, H]` of the inner blocks; empty without multiple supervision.
    heads: Vec<Tensor>,
    /// `P_k` `[H_teacher, H_student]` of all blocks; empty where the sizes are equal.
    projectors: Vec<Tensor>,
}

impl<'a> Distillation<'a> {
    /// Makes the objective with heads and projectors drawn from `seed`.
    ///
    /// # Errors
    /// [`TrainError::Setting`] for values outside their range or a missing teacher,
    /// [`TrainError::Blocks`] for layers that do not divide, [`TrainError::Mismatch`] for a teacher
    /// of another catalog.
    pub fn new(
        settings: DistillSettings,
        student: &dyn SequentialModel,
        teacher: Option<&'a dyn TeacherStates>,
        seed: u64,
    ) -> Result<Self, TrainError> {
        settings.check()?;
        let teacher = if settings.needs_teacher() {
            let Some(teacher) = teacher else {
                return Err(TrainError::Setting {
                    name: "lambda_cos, lambda_norm, lambda_kd",
                    expected: "0 without a teacher".to_owned(),
                    found: format!(
                        "{}, {}, {}",
                        settings.lambda_cos, settings.lambda_norm, settings.lambda_kd
                    ),
                });
            };
            same_catalog(&settings, student, teacher)?;
            Some(teacher)
        } else {
            None
        };
        let student_layers = block_ends("student", student.num_layers(), settings.blocks)?;
        let teacher_layers = match teacher {
            Some(teacher) => settings.teacher_layers(teacher.num_layers())?,
            None => Vec::new(),
        };
        let mut objective = Self {
            settings,
            teacher,
            priors: Priors::default(),
            student_layers,
            teacher_layers,
            parameters: Parameters::default(),
            heads: Vec::new(),
            projectors: Vec::new(),
        };
        objective.add_parameters(student, seed)?;
        Ok(objective)
    }

    /// With the transition prior beside student or teacher. The data has to have a prior.
    ///
    /// # Errors
    /// [`TrainError::Setting`] for `D_kd` over the teacher's best items, which were chosen without
    /// it, or at last positions only.
    pub fn beside(mut self, priors: Priors) -> Result<Self, TrainError> {
        let settings = &self.settings;
        if priors != Priors::default() && settings.lambda_kd > 0.0 {
            check(
                "top_k",
                settings.top_k == 0,
                "0 beside a prior",
                settings.top_k,
            )?;
            let all = settings.positions == Positions::All;
            let found = format!("{:?}", settings.positions).to_lowercase();
            check("positions", all, "all beside a prior", found)?;
        }
        self.priors = priors;
        Ok(self)
    }

    fn add_parameters(
        &mut self,
        student: &dyn SequentialModel,
        seed: u64,
    ) -> Result<(), TrainError> {
        let table = student.item_table();
        let width = hidden_size(student)?;
        let blocks = self.settings.blocks;
        if self.settings.lambda_ms > 0.0 {
            let shape = (table.dims()?.1, width);
            self.heads = self.add("head", blocks - 1, shape, seed, table.device())?;
        }
        if let Some(teacher) = self.teacher.filter(|_| self.settings.aligns())
            && teacher.hidden_size() != width
        {
            let shape = (teacher.hidden_size(), width);
            let seed = seed.wrapping_add(1 << 32);
            self.projectors = self.add("projector", blocks, shape, seed, table.device())?;
        }
        Ok(())
    }

    fn add(
        &mut self,
        role: &str,
        count: usize,
        (rows, columns): (usize, usize),
        seed: u64,
        device: &Device,
    ) -> Result<Vec<Tensor>, TrainError> {
        let std = 1.0 / (columns as f64).sqrt();
        (0..count)
            .map(|block| {
                let seed = seed.wrapping_add(block as u64);
                let start = normal((rows, columns), std, seed, DType::F32, device)?;
                let name = format!("blocks.{block}.{role}.weight");
                let var = self.parameters.insert(name, &start)?;
                Ok(var.as_tensor().clone())
            })
            .collect()
    }

    fn positions(&self, batch: &TrainingBatch) -> (Vec<u32>, Vec<u32>) {
        match self.settings.positions {
            Positions::Last => batch.last_examples(),
            Positions::All => (batch.target_positions.clone(), batch.targets.clone()),
        }
    }

    fn alignment(
        &self,
        student: &[Tensor],
        teacher: &TeacherOutput,
    ) -> Result<(Tensor, Tensor), TrainError> {
        let (mut cosines, mut distances) = (Vec::new(), Vec::new());
        for (block, (student, teacher)) in student.iter().zip(&teacher.states).enumerate() {
            let student = match self.projectors.get(block) {
                Some(projector) => student.matmul(&projector.t()?)?,
                None => student.clone(),
            };
            cosines.push(alignment::cosine(teacher, &student)?);
            distances.push(match self.settings.norm {
                Norm::Squared => alignment::squared_distance(teacher, &student)?,
                Norm::Unsquared => alignment::distance(teacher, &student)?,
            });
        }
        Ok((mean(&cosines)?, mean(&distances)?))
    }

    fn supervision(
        &self,
        student: &[Tensor],
        items: ItemTable<'_>,
        targets: &[u32],
        candidates: &Candidates,
    ) -> Result<Tensor, TrainError> {
        let losses: Vec<Tensor> = (self.heads.iter().zip(student))
            .map(|(head, state)| {
                candidates.cross_entropy(&state.matmul(&head.t()?)?, items, targets, None)
            })
            .collect::<Result<_, _>>()?;
        Ok(mean(&losses)?)
    }

    /// `D_kd` of the student's user vectors `[R, D]` and item embeddings `[N + 1, D]`.
    fn divergence(
        &self,
        student: (&Tensor, ItemTable<'_>),
        (teacher, taught): (&dyn TeacherStates, &TeacherOutput),
        batch: &TrainingBatch,
    ) -> Result<Tensor, TrainError> {
        let temperature = self.settings.temperature;
        let kept = self.settings.top_items(teacher.num_items());
        match &taught.top {
            Some(top) if kept > 0 => Ok(top.divergence(student.0, student.1, temperature)?),
            _ => {
                let users = &taught.user_vectors;
                // A teacher on disk serves several devices.
                let table = teacher.item_embeddings()?.to_device(users.device())?;
                if kept == 0 {
                    let teacher = (users, &table);
                    let items = student.1.all()?;
                    let (of_student, of_teacher) = match self.settings.positions {
                        Positions::All => (
                            score_offsets(batch, self.priors.student)?,
                            score_offsets(batch, self.priors.teacher)?,
                        ),
                        Positions::Last => (None, None),
                    };
                    return Ok(catalog::divergence(
                        (student.0, &items),
                        teacher,
                        temperature,
                        (of_student.as_ref(), of_teacher.as_ref()),
                    )?);
                }
                let top = TopScores::of(users, &table, kept)?;
                Ok(top.divergence(student.0, student.1, temperature)?)
            }
        }
    }

    /// The terms beside the cross-entropy.
    fn terms(
        &self,
        items: ItemTable<'_>,
        batch: &TrainingBatch,
        output: &ModelOutput,
        candidates: &Candidates,
    ) -> Result<Vec<(&'static str, f64, Tensor)>, TrainError> {
        let settings = &self.settings;
        let (positions, targets) = self.positions(batch);
        let states = (output.states.iter())
            .map(|state| rows_at(state, batch, &positions))
            .collect::<Result<Vec<_>, _>>()?;
        let mut terms = Vec::new();
        if let Some(teacher) = self.teacher {
            let taught = teacher.at(batch, &positions, &self.teacher_layers)?;
            if settings.aligns() {
                let (cosine, distance) = self.alignment(&states, &taught)?;
                terms.push(("cos", settings.lambda_cos, cosine));
                terms.push(("norm", settings.lambda_norm, distance));
            }
            if settings.lambda_kd > 0.0 {
                let users = rows_at(&output.user_vectors, batch, &positions)?;
                let loss = self.divergence((&users, items), (teacher, &taught), batch)?;
                terms.push(("kd", settings.lambda_kd, loss));
            }
        }
        if settings.lambda_ms > 0.0 {
            let loss = self.supervision(&states, items, &targets, candidates)?;
            terms.push(("ms", settings.lambda_ms, loss));
        }
        terms.retain(|(_, weight, _)| *weight > 0.0);
        let share = |value| match settings.positions {
            Positions::All => batch.share.of_targets(value),
            Positions::Last => batch.share.of_last(value),
        };
        (terms.into_iter())
            .map(|(name, weight, value)| Ok((name, weight, share(value)?)))
            .collect()
    }
}

impl Objective for Distillation<'_> {
    fn loss(
        &self,
        model: &dyn SequentialModel,
        batch: &TrainingBatch,
        rng: &mut MaskRng,
    ) -> Result<Losses, TrainError> {
        let output = model.forward(&batch.histories, Mode::Train(rng), &self.student_layers)?;
        let items = model.item_table().with(batch.lookups());
        let users = rows_at(&output.user_vectors, batch, &batch.target_positions)?;
        let candidates = Candidates::of_step(batch, rng);
        let offsets = score_offsets(batch, self.priors.student)?;
        let loss = candidates.cross_entropy(&users, items, &batch.targets, offsets.as_ref())?;
        let loss = batch.share.of_targets(loss)?;
        let mut terms = vec![("ce", 1.0, loss)];
        terms.extend(self.terms(items, batch, &output, &candidates)?);
        Losses::weighted(&terms)
    }

    fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    fn describe(&self) -> serde_json::Value {
        let mut all = serde_json::json!({
            "objective": "distillation",
            "settings": self.settings,
            "teacher": self.teacher.map(TeacherStates::fingerprint),
        });
        if self.priors != Priors::default() {
            all["priors"] = serde_json::json!(self.priors);
        }
        all
    }
}

fn same_catalog(
    settings: &DistillSettings,
    student: &dyn SequentialModel,
    teacher: &dyn TeacherStates,
) -> Result<(), TrainError> {
    let expected = student.item_table().dims()?.0.saturating_sub(1);
    let found = teacher.num_items();
    if settings.lambda_kd > 0.0 && expected != found {
        return Err(TrainError::Mismatch {
            expected: format!("{expected} items"),
            found: format!("{found} items"),
        });
    }
    Ok(())
}

/// Numbers of the layers that end the blocks, the last layer last.
fn block_ends(who: &'static str, layers: usize, blocks: usize) -> Result<Vec<usize>, TrainError> {
    if layers == 0 || !layers.is_multiple_of(blocks) {
        return Err(TrainError::Blocks {
            who,
            layers,
            blocks,
        });
    }
    let size = layers / blocks;
    Ok((1..=blocks).map(|block| block * size).collect())
}

fn mean(values: &[Tensor]) -> candle_core::Result<Tensor> {
    Tensor::stack(values, 0)?.mean_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_end_at_equal_distances_and_with_the_last_layer() {
        assert_eq!(block_ends("teacher", 8, 4).expect("ends"), [2, 4, 6, 8]);
        assert_eq!(block_ends("student", 4, 4).expect("ends"), [1, 2, 3, 4]);
        assert_eq!(block_ends("student", 3, 1).expect("ends"), [3]);
        for (layers, blocks) in [(6, 4), (2, 4), (0, 1)] {
            let refused = block_ends("student", layers, blocks);
            assert!(matches!(refused, Err(TrainError::Blocks { .. })));
        }
    }

    #[test]
    fn refuses_settings_outside_their_range() {
        type Spoil = fn(&mut DistillSettings);
        let spoiled: [(&str, Spoil); 5] = [
            ("lambda_cos", |s| s.lambda_cos = -1.0),
            ("lambda_kd", |s| s.lambda_kd = f64::INFINITY),
            ("temperature", |s| s.temperature = 0.0),
            ("blocks", |s| s.blocks = 1),
            ("blocks", |s| {
                s.lambda_ms = 0.0;
                s.blocks = 0;
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
}
