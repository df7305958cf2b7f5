//! The section of the student.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::sections::{ItemSource, LayerChoice, language_model_training};
use crate::model::{BodyTraining, LlmSettings, LoraSettings, Widths};
use crate::pipeline::PipelineError;
use crate::train::{DistillSettings, TrainSettings};

/// Who teaches the student.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum TeacherChoice {
    /// The decoder of `teach`.
    #[default]
    Decoder,
    /// The models of `blend` together.
    Blend,
}

/// What the student's body begins as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum StudentStart {
    /// Layers of the pretrained model.
    #[default]
    Base,
    /// Layers of the trained teacher: the first ones or every k-th, as `layer_choice` says.
    Teacher,
    /// The shape of the pretrained layers with random weights; best with `tuning = "full"`.
    Random,
}

/// What of the student's layers is trained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Tuning {
    /// What `model.training` says, as for the teacher.
    #[default]
    Shared,
    /// Low-rank adapters: those of `model.training`, or the default ones where it has none.
    Lora,
    /// Every weight.
    Full,
}

/// Whether the decoder that teaches learns beside the student.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Online {
    /// The teacher is finished and does not change.
    #[default]
    Off,
    /// It learns by its own cross-entropy; no gradient of the student's terms reaches it.
    Detached,
    /// It learns by its own cross-entropy and by the student's terms.
    Joint,
}

/// What a teacher that learns beside the student begins as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum OnlineStart {
    /// The trained teacher of `teach`.
    #[default]
    Teacher,
    /// The pretrained layers that `teach` begins with.
    Base,
}

/// Where the transition prior stands while a student learns. Bundles have it beside the model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum PriorUse {
    /// Nowhere: the student learns to rank alone.
    #[default]
    Outside,
    /// Added to its scores, without the user's own counts: the student learns what counting cannot,
    /// and ranks with the prior only.
    Inside,
}

/// Where the teacher's states come from while the student learns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum TeacherStatesChoice {
    /// From the disk where they fit `cache_max_gib`, else from a teacher that runs at every step.
    #[default]
    Auto,
    /// From the disk.
    Cache,
    /// From a teacher that runs at every step.
    Live,
}

/// `[distill]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DistillStage {
    /// Who teaches it.
    pub teacher: TeacherChoice,
    /// Number of layers L.
    pub layers: usize,
    /// Which layers the student begins with.
    pub layer_choice: LayerChoice,
    /// Of which model.
    pub start: StudentStart,
    /// What of them is trained.
    pub tuning: Tuning,
    /// What item embeddings the student begins with; the teacher's when absent.
    pub item_embeddings: Option<ItemSource>,
    /// Hidden size of a student that is narrower than the layers it begins with.
    pub hidden_size: Option<usize>,
    /// Width of its MLP.
    pub intermediate_size: Option<usize>,
    /// Its key/value heads, each with the query heads that share it.
    pub key_value_heads: Option<usize>,
    /// Whether the teacher learns beside it.
    pub online: Online,
    /// What such a teacher begins as.
    pub online_start: OnlineStart,
    /// Where the transition prior stands while it learns.
    pub prior: PriorUse,
    /// The terms and their weights.
    pub objective: DistillSettings,
    /// Whether the same student is also trained without the teacher, for the comparison.
    pub ce_only: bool,
    /// Share of the users whose sequences the student learns from, drawn by the seed: a smaller share
    /// is part of a larger one. All are validated.
    pub user_share: f64,
    /// Where the teacher's states come from.
    pub teacher_states: TeacherStatesChoice,
    /// Most GiB of stored teacher states.
    pub cache_max_gib: f64,
    /// MiB of one file of them: the piece of work that one machine does at a time.
    pub cache_shard_mib: f64,
    /// Where they are stored; `teacher-states` in the work directory when absent.
    pub cache_dir: Option<PathBuf>,
    /// The loop, for both.
    pub train: TrainSettings,
}

impl Default for DistillStage {
    fn default() -> Self {
        Self {
            teacher: TeacherChoice::Decoder,
            layers: 4,
            layer_choice: LayerChoice::First,
            start: StudentStart::Base,
            tuning: Tuning::Shared,
            item_embeddings: None,
            hidden_size: None,
            intermediate_size: None,
            key_value_heads: None,
            online: Online::Off,
            online_start: OnlineStart::Teacher,
            prior: PriorUse::Outside,
            objective: DistillSettings::default(),
            ce_only: true,
            user_share: 1.0,
            teacher_states: TeacherStatesChoice::Auto,
            cache_max_gib: 8.0,
            cache_shard_mib: 64.0,
            cache_dir: None,
            train: language_model_training(),
        }
    }
}

impl DistillStage {
    /// Widths of the student.
    #[must_use]
    pub fn widths(&self) -> Widths {
        Widths {
            hidden_size: self.hidden_size,
            intermediate_size: self.intermediate_size,
            key_value_heads: self.key_value_heads,
        }
    }

    /// The student's side of `model`.
    #[must_use]
    pub fn student_model(&self, model: &LlmSettings) -> LlmSettings {
        let training = match (self.tuning, &model.training) {
            (Tuning::Shared, shared) => shared.clone(),
            (Tuning::Lora, lora @ BodyTraining::Lora(_)) => lora.clone(),
            (Tuning::Lora, _) => BodyTraining::Lora(LoraSettings::default()),
            (Tuning::Full, _) => BodyTraining::Full,
        };
        LlmSettings {
            training,
            ..model.clone()
        }
    }

    /// Most bytes of a shard of teacher states.
    #[must_use]
    pub fn cache_shard_bytes(&self) -> u64 {
        (self.cache_shard_mib * f64::from(1 << 20)) as u64
    }

    /// Checks the ranges of what neither the objective nor the loop checks.
    ///
    /// # Errors
    /// A setting outside its range.
    pub fn check(&self) -> Result<(), PipelineError> {
        let found = self.user_share;
        if !(found > 0.0 && found <= 1.0) {
            return Err(PipelineError::Settings(format!(
                "setting distill.user_share: expected a number above 0, at most 1, found {found}"
            )));
        }
        if self.start == StudentStart::Teacher && self.item_embeddings.is_some() {
            return Err(PipelineError::Settings(
                "setting distill.item_embeddings: expected none for a student that begins as its \
                 teacher, whose items it has, found one\n\
                 hint: leave it out, or --start base"
                    .to_owned(),
            ));
        }
        self.check_cache()
    }

    /// Checks the ranges of the settings of stored teacher states.
    ///
    /// # Errors
    /// A setting outside its range.
    pub fn check_cache(&self) -> Result<(), PipelineError> {
        let found = self.cache_max_gib;
        if !(found.is_finite() && found >= 0.0) {
            return Err(PipelineError::Settings(format!(
                "setting distill.cache_max_gib: expected a number of at least 0, found {found}"
            )));
        }
        let found = self.cache_shard_mib;
        if !(found > 0.0 && found <= 1024.0) {
            return Err(PipelineError::Settings(format!(
                "setting distill.cache_shard_mib: expected a number above 0, at most 1024, found {found}"
            )));
        }
        Ok(())
    }
}
