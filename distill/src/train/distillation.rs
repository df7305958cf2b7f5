//! The student's objective: cross-entropy, alignment with the teacher block by block, multiple
//! supervision and distillation of what the teacher recommends, at its end and block by block.
//!
//! ```text
//! L_ce + lambda_cos D_cos + lambda_norm D_norm + lambda_ms L_ms + lambda_kd D_kd + lambda_block_kl D_bkl
//! D_cos  = 1/b     sum_{k=1..b}   1 - cos(t_k, P_k s_k)
//! D_norm = 1/b     sum_{k=1..b}   || t_k - P_k s_k ||^2
//! L_ms   = 1/(b-1) sum_{k=1..b-1} CE(y, softmax(E . W_k s_k))
//! D_kd   = T^2 KL(softmax(teacher scores / T) || softmax(student scores / T))
//! D_bkl  = 1/(b-1) sum_{k=1..b-1} T^2 KL(softmax(E' . U norm(t_k) / T) || softmax(E . W_k s_k / T))
//! ```
//! With `top_k` both distributions of `D_kd` and `D_bkl` are over the teacher's best K items only.
//! `t_k` and `s_k` are the states after the layers that end block k ([`BlockMap`]); the last pair is
//! taken after the final norm. `P_k` is there only where the hidden sizes differ. `E'`, `U` and `norm`
//! are the teacher's own item embeddings, user projection and final norm, read as if its layers ended
//! with the block; `W_k` are the heads of `L_ms`, and both terms train them. Each term is a mean over
//! positions, and one whose weight is 0 is not computed.
//!
//! A teacher that learns beside the student ([`OnlineTeacher`]) adds its own cross-entropy, `teacher_ce`.

mod block_map;
mod settings;

use candle_core::{DType, Device, Tensor};
use serde::Serialize;
use slmrec_core::prior::PriorWeights;

use super::losses::offsets::Offsets;
use super::losses::sampled::Candidates;
use super::losses::{alignment, catalog, mutual};
use super::objective::{Losses, Objective, rows_at, run_histories, score_offsets, target_loss};
use super::online::OnlineTeacher;
use super::settings::check;
use super::teacher::{TeacherOutput, TeacherStates, hidden_size};
use super::top_scores::TopScores;
use super::{TrainError, TrainingBatch};
use crate::model::parameters::normal;
use crate::model::{ItemTable, MaskRng, ModelOutput, Parameters, SequentialModel};

pub use block_map::BlockMap;
pub use settings::{DistillSettings, Norm, Positions};

/// One term: its name, weight and value.
type Term = (&'static str, f64, Tensor);

/// Who teaches.
enum Teacher<'a> {
    /// Does not change.
    Frozen(&'a dyn TeacherStates),
    /// Learns, too.
    Online(OnlineTeacher<'a>),
}

impl Teacher<'_> {
    fn states(&self) -> &dyn TeacherStates {
        match self {
            Self::Frozen(teacher) => *teacher,
            Self::Online(teacher) => teacher,
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
    teacher: Option<Teacher<'a>>,
    priors: Priors,
    student_layers: Vec<usize>,
    teacher_layers: Vec<usize>,
    parameters: Parameters,
    /// `W_k` `[D, H]` of the inner blocks; empty where no term reads them.
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
    /// of another catalog, or one that does not read its inner states out where a term asks for it.
    pub fn new(
        settings: DistillSettings,
        student: &dyn SequentialModel,
        teacher: Option<&'a dyn TeacherStates>,
        seed: u64,
    ) -> Result<Self, TrainError> {
        settings.check()?;
        let teacher = match (settings.needs_teacher(), teacher) {
            (false, _) => None,
            (true, Some(teacher)) => Some(Teacher::Frozen(teacher)),
            (true, None) => {
                return Err(TrainError::Setting {
                    name: "lambda_cos, lambda_norm, lambda_kd, lambda_block_kl",
                    expected: "0 without a teacher".to_owned(),
                    found: format!(
                        "{}, {}, {}, {}",
                        settings.lambda_cos,
                        settings.lambda_norm,
                        settings.lambda_kd,
                        settings.lambda_block_kl
                    ),
                });
            }
        };
        Self::with(settings, student, teacher, seed)
    }

    /// The same with a teacher that learns beside the student: its parameters are the objective's,
    /// under `teacher.`.
    ///
    /// # Errors
    /// As [`Self::new`], and [`TrainError::Setting`] where no term asks the teacher.
    pub fn online(
        settings: DistillSettings,
        student: &dyn SequentialModel,
        teacher: OnlineTeacher<'a>,
        seed: u64,
    ) -> Result<Self, TrainError> {
        settings.check()?;
        if !settings.needs_teacher() {
            return Err(TrainError::Setting {
                name: "online",
                expected: "off where no term asks the teacher".to_owned(),
                found: teacher.describe().to_owned(),
            });
        }
        let parameters = teacher.parameters().clone();
        let mut objective = Self::with(settings, student, Some(Teacher::Online(teacher)), seed)?;
        objective.parameters.extend("teacher.", &parameters)?;
        Ok(objective)
    }

    fn with(
        settings: DistillSettings,
        student: &dyn SequentialModel,
        teacher: Option<Teacher<'a>>,
        seed: u64,
    ) -> Result<Self, TrainError> {
        let student_layers = settings.student_layers(student.num_layers())?;
        let teacher_layers = match &teacher {
            Some(teacher) => {
                let states = teacher.states();
                let layers = settings.teacher_layers(states.num_layers())?;
                fits(&settings, student, states)?;
                layers
            }
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
        let blocks = self.settings.num_blocks();
        if self.settings.reads_inner_blocks() {
            let shape = (table.dims()?.1, width);
            self.heads = self.add("head", blocks - 1, shape, seed, table.device())?;
        }
        let taught = self.teacher.as_ref().map(|t| t.states().hidden_size());
        if let Some(taught) = taught.filter(|taught| self.settings.aligns() && *taught != width) {
            let shape = (taught, width);
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

    /// `D_bkl` of the student's states after its blocks.
    fn block_divergence(
        &self,
        student: &[Tensor],
        items: ItemTable<'_>,
        teacher: &Teacher<'_>,
        taught: &TeacherOutput,
    ) -> Result<Tensor, TrainError> {
        let blocks = self.heads.iter().zip(student.iter().zip(&taught.states));
        let losses: Vec<Tensor> = blocks
            .map(|(head, (state, told))| {
                let users = state.matmul(&head.t()?)?;
                let told = teacher.states().read_out(told)?;
                self.divergence((&users, items), teacher, (&told, None), (None, None))
            })
            .collect::<Result<_, TrainError>>()?;
        Ok(mean(&losses)?)
    }

    /// Divergence of the student's user vectors `[R, D]` and item embeddings `[N + 1, D]` from the
    /// teacher's user vectors, whose best items may be known.
    fn divergence(
        &self,
        student: (&Tensor, ItemTable<'_>),
        teacher: &Teacher<'_>,
        (users, top): (&Tensor, Option<&TopScores>),
        (of_student, of_teacher): (Option<&Offsets>, Option<&Offsets>),
    ) -> Result<Tensor, TrainError> {
        let temperature = self.settings.temperature;
        let states = teacher.states();
        let kept = self.settings.top_k.min(states.num_items());
        if let Some(top) = top.filter(|_| kept > 0) {
            return Ok(top.divergence(student.0, student.1, temperature)?);
        }
        // A teacher on disk serves several devices.
        let table = states.item_embeddings()?.to_device(users.device())?;
        let joint = matches!(teacher, Teacher::Online(teacher) if teacher.is_joint());
        if kept > 0 {
            let mut top = TopScores::of(users, &table, kept)?;
            if joint {
                top = top.with_gradient(users, &table)?;
            }
            return Ok(top.divergence(student.0, student.1, temperature)?);
        }
        let items = student.1.all()?;
        let (student, teacher) = ((student.0, &items), (users, &table));
        let offsets = (of_student, of_teacher);
        let loss = catalog::divergence(student, teacher, temperature, offsets)?;
        if joint {
            let pull = mutual::teacher_gradient(student, teacher, temperature, offsets)?;
            return Ok((loss + pull)?);
        }
        Ok(loss)
    }

    /// What is added to the scores of student and teacher in `D_kd`.
    fn offsets(
        &self,
        batch: &TrainingBatch,
    ) -> Result<(Option<Offsets>, Option<Offsets>), TrainError> {
        match self.settings.positions {
            Positions::All => Ok((
                score_offsets(batch, self.priors.student)?,
                score_offsets(batch, self.priors.teacher)?,
            )),
            Positions::Last => Ok((None, None)),
        }
    }

    /// What the teacher says at `positions`, and the loss of one that learns.
    fn taught(
        &self,
        batch: &TrainingBatch,
        positions: &[u32],
        rng: &mut MaskRng,
    ) -> Result<(Option<TeacherOutput>, Option<Term>), TrainError> {
        let layers = &self.teacher_layers;
        Ok(match &self.teacher {
            None => (None, None),
            Some(Teacher::Frozen(teacher)) => (Some(teacher.at(batch, positions, layers)?), None),
            Some(Teacher::Online(teacher)) => {
                let (output, loss) = teacher.learn(batch, positions, layers, rng)?;
                (Some(output), Some(("teacher_ce", 1.0, loss)))
            }
        })
    }

    /// The terms beside the cross-entropy.
    fn terms(
        &self,
        items: ItemTable<'_>,
        batch: &TrainingBatch,
        output: &ModelOutput,
        candidates: &Candidates,
        rng: &mut MaskRng,
    ) -> Result<Vec<Term>, TrainError> {
        let settings = &self.settings;
        let (positions, targets) = self.positions(batch);
        let states = (output.states.iter())
            .map(|state| rows_at(state, batch, &positions))
            .collect::<Result<Vec<_>, _>>()?;
        let mut terms = Vec::new();
        let (taught, of_teacher) = self.taught(batch, &positions, rng)?;
        if let (Some(teacher), Some(taught)) = (&self.teacher, &taught) {
            if settings.aligns() {
                let (cosine, distance) = self.alignment(&states, taught)?;
                terms.push(("cos", settings.lambda_cos, cosine));
                terms.push(("norm", settings.lambda_norm, distance));
            }
            if settings.lambda_kd > 0.0 {
                let users = rows_at(&output.user_vectors, batch, &positions)?;
                let told = (&taught.user_vectors, taught.top.as_ref());
                let (of_student, of_teacher) = self.offsets(batch)?;
                let offsets = (of_student.as_ref(), of_teacher.as_ref());
                let loss = self.divergence((&users, items), teacher, told, offsets)?;
                terms.push(("kd", settings.lambda_kd, loss));
            }
            if settings.lambda_block_kl > 0.0 {
                let loss = self.block_divergence(&states, items, teacher, taught)?;
                terms.push(("block_kl", settings.lambda_block_kl, loss));
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
        let mut terms = (terms.into_iter())
            .map(|(name, weight, value)| Ok((name, weight, share(value)?)))
            .collect::<Result<Vec<_>, TrainError>>()?;
        terms.extend(of_teacher);
        Ok(terms)
    }
}

impl Objective for Distillation<'_> {
    fn loss(
        &self,
        model: &dyn SequentialModel,
        batch: &TrainingBatch,
        rng: &mut MaskRng,
    ) -> Result<Losses, TrainError> {
        let output = run_histories(model, batch, &self.student_layers, rng)?;
        let items = model.item_table().with(batch.lookups());
        let users = rows_at(&output.user_vectors, batch, &batch.target_positions)?;
        let candidates = Candidates::of_step(batch, rng);
        let loss = target_loss(batch, &candidates, &users, items, self.priors.student)?;
        let mut terms = vec![("ce", 1.0, loss)];
        terms.extend(self.terms(items, batch, &output, &candidates, rng)?);
        Losses::weighted(&terms)
    }

    fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    fn describe(&self) -> serde_json::Value {
        let mut all = serde_json::json!({
            "objective": "distillation",
            "settings": self.settings,
            "teacher": self.teacher.as_ref().map(|t| t.states().fingerprint()),
        });
        if let Some(Teacher::Online(teacher)) = &self.teacher {
            all["online"] = teacher.describe().into();
        }
        if self.priors != Priors::default() {
            all["priors"] = serde_json::json!(self.priors);
        }
        all
    }
}

/// Whether what the teacher says means something to the student.
fn fits(
    settings: &DistillSettings,
    student: &dyn SequentialModel,
    teacher: &dyn TeacherStates,
) -> Result<(), TrainError> {
    let expected = student.item_table().dims()?.0.saturating_sub(1);
    let found = teacher.num_items();
    let by_items = settings.lambda_kd > 0.0 || settings.lambda_block_kl > 0.0;
    if by_items && expected != found {
        return Err(TrainError::Mismatch {
            expected: format!("{expected} items"),
            found: format!("{found} items"),
        });
    }
    if settings.lambda_block_kl > 0.0 {
        let shape = (1, teacher.hidden_size());
        let state = Tensor::zeros(shape, DType::F32, student.item_table().device())?;
        (teacher.read_out(&state)).map_err(|error| TrainError::Mismatch {
            expected: "a teacher whose inner states can be read out (lambda_block_kl)".to_owned(),
            found: error.to_string(),
        })?;
    }
    Ok(())
}

fn mean(values: &[Tensor]) -> candle_core::Result<Tensor> {
    Tensor::stack(values, 0)?.mean_all()
}
