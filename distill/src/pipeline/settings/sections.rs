//! The section of each stage.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use slmrec_core::prior::PriorSettings;

use crate::data::PrepareSettings;
use crate::model::LayerSelection;
use crate::model::baseline::{Bert4RecSettings, Gru4RecSettings};
use crate::model::sasrec::SasRecSettings;
use crate::train::TrainSettings;

/// `[prepare]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PrepareStage {
    /// The interactions: a file, or the name of a fetched set such as `ml-100k`.
    pub source: Option<PathBuf>,
    /// How to read it.
    pub read: PrepareSettings,
}

/// `[prior]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PriorStage {
    /// How pairs are counted and read; when absent, what ranks the validation targets best.
    pub settings: Option<PriorSettings>,
    /// Most neighbours of an item that are kept.
    pub neighbours: usize,
    /// Most users that are asked while settings and weights are chosen; 0 takes all.
    pub validation_users: usize,
    /// Which counts stand beside a model while its weights for the test targets are chosen.
    pub weigh_with: WeighWith,
    /// The largest `alpha` in `alpha * ln(1 + p / beta)` that is tried beside a model.
    pub largest_alpha: f32,
}

/// Which counts stand beside a model while the validation targets choose its weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WeighWith {
    /// Those that the model was trained on, too.
    #[default]
    Training,
    /// With the validation targets of all other users: they are one item newer than the model, as on
    /// the test targets. For short histories, of which one item is a large part.
    OneNewer,
}

impl Default for PriorStage {
    fn default() -> Self {
        Self {
            settings: None,
            neighbours: 256,
            validation_users: 10_000,
            weigh_with: WeighWith::default(),
            largest_alpha: 13.0,
        }
    }
}

/// `[pretrain]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PretrainStage {
    /// The text encoder of a second SASRec, whose items are `E + W t` with vectors t of their titles:
    /// the folder of a BERT, or a fetched name such as `minilm`. When absent there is none.
    pub titles: Option<PathBuf>,
    /// Shape of SASRec; its embedding size is the items' D everywhere.
    pub model: SasRecSettings,
    /// The loop.
    pub train: TrainSettings,
}

/// A model that stands in the comparison and nowhere else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
#[value(rename_all = "lowercase")]
pub enum Baseline {
    /// A recurrent network.
    Gru4Rec,
    /// A transformer that fills in masked items.
    Bert4Rec,
    /// SASRec as `[pretrain]` says, trained with the transition prior added to its scores.
    #[serde(rename = "sasrec-prior")]
    #[value(name = "sasrec-prior")]
    SasRecPrior,
}

impl Baseline {
    /// As papers write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Gru4Rec => "GRU4Rec",
            Self::Bert4Rec => "BERT4Rec",
            Self::SasRecPrior => "SASRec, prior inside",
        }
    }

    /// Its folder in the work directory.
    #[must_use]
    pub fn folder(self) -> &'static str {
        match self {
            Self::Gru4Rec => "gru4rec",
            Self::Bert4Rec => "bert4rec",
            Self::SasRecPrior => "sasrec-prior",
        }
    }
}

/// `[baselines]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BaselinesStage {
    /// Which are trained; none for a quick run.
    pub models: Vec<Baseline>,
    /// GRU4Rec.
    pub gru4rec: Gru4RecStage,
    /// BERT4Rec.
    pub bert4rec: Bert4RecStage,
}

impl Default for BaselinesStage {
    fn default() -> Self {
        Self {
            models: vec![Baseline::Gru4Rec, Baseline::Bert4Rec],
            gru4rec: Gru4RecStage::default(),
            bert4rec: Bert4RecStage::default(),
        }
    }
}

/// `[baselines.gru4rec]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Gru4RecStage {
    /// Its shape.
    pub model: Gru4RecSettings,
    /// The loop. For some epochs it ranks by popularity only, and stops there with less patience.
    pub train: TrainSettings,
}

impl Default for Gru4RecStage {
    fn default() -> Self {
        Self {
            model: Gru4RecSettings::default(),
            train: TrainSettings {
                epochs: 60,
                patience: 10,
                learning_rate: 5e-3,
                ..TrainSettings::default()
            },
        }
    }
}

/// `[baselines.bert4rec]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Bert4RecStage {
    /// Its shape.
    pub model: Bert4RecSettings,
    /// Share of a sequence's items that are masked.
    pub masked: f64,
    /// Share of the sequences in which the last item alone is masked.
    pub last_only: f64,
    /// The loop. Few places of a sequence are targets, so it takes more epochs than the others.
    pub train: TrainSettings,
}

impl Default for Bert4RecStage {
    fn default() -> Self {
        Self {
            model: Bert4RecSettings::default(),
            masked: 0.3,
            last_only: 0.1,
            train: TrainSettings {
                epochs: 200,
                patience: 20,
                ..TrainSettings::default()
            },
        }
    }
}

/// What item embeddings the language models begin with. They stay as they are, unless
/// `model.train_item_embeddings` has them trained on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
#[value(rename_all = "lower")]
pub enum ItemSource {
    /// SASRec's.
    #[default]
    SasRec,
    /// Those of the SASRec with titles: the sums `E + W t`.
    Titles,
    /// The text encoder's vectors of the titles: what an item is called, and nothing of who chose it.
    Encoder,
    /// The means of the pretrained model's own vectors of a title's tokens.
    Words,
    /// Random ones, which say nothing until they are trained.
    Random,
}

/// Which layers of the pretrained model are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LayerChoice {
    /// The first ones ("trune").
    #[default]
    First,
    /// Every k-th, the last included ("interval"); as evenly spaced as whole layers allow.
    Interval,
}

impl LayerChoice {
    /// `count` layers of a model.
    #[must_use]
    pub fn select(self, count: usize) -> LayerSelection {
        match self {
            Self::First => LayerSelection::First(count),
            Self::Interval => LayerSelection::Spread(count),
        }
    }
}

/// `[teach]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TeachStage {
    /// The pretrained model: a GGUF file, a Hugging Face directory, or a fetched name such as
    /// `smollm2-135m`.
    pub base: Option<PathBuf>,
    /// What item embeddings the teacher begins with, and the student, unless it has its own.
    pub item_embeddings: ItemSource,
    /// Number of layers M.
    pub layers: usize,
    /// Which layers.
    pub layer_choice: LayerChoice,
    /// The loop.
    pub train: TrainSettings,
}

impl Default for TeachStage {
    fn default() -> Self {
        Self {
            base: None,
            item_embeddings: ItemSource::SasRec,
            layers: 8,
            layer_choice: LayerChoice::First,
            train: language_model_training(),
        }
    }
}

/// `[blend]`: members beside the SASRecs of `pretrain`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BlendStage {
    /// Whether the teacher of `teach` is a member; its hidden states are then the blend's.
    pub decoder: bool,
    /// How many more decoders as that of `teach`, each with a seed of its own.
    pub more_decoders: usize,
    /// How many more SASRecs, each with a seed of its own.
    pub more_sasrecs: usize,
    /// How many more SASRecs with titles, each with a seed of its own; they take `pretrain.titles`.
    pub more_sasrecs_with_titles: usize,
    /// Whether the transition prior is a member, too. A student hears the counts of the others only.
    pub prior: bool,
}

impl Default for BlendStage {
    fn default() -> Self {
        Self {
            decoder: true,
            more_decoders: 0,
            more_sasrecs: 2,
            more_sasrecs_with_titles: 0,
            prior: false,
        }
    }
}

/// Few epochs at a small batch: the pretrained layers start far ahead of a random body.
pub(super) fn language_model_training() -> TrainSettings {
    TrainSettings {
        epochs: 4,
        batch_size: 16,
        learning_rate: 1e-3,
        patience: 2,
        save_every_steps: 100,
        ..TrainSettings::default()
    }
}

/// `[cold]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ColdStage {
    /// Share of the items with a title that are kept out of training; at least 20 items.
    pub held_out: f64,
    /// Whether `run` has this stage, too, where `pretrain.titles` names an encoder. It trains SASRec
    /// once more.
    pub in_run: bool,
}

impl Default for ColdStage {
    fn default() -> Self {
        Self {
            held_out: 0.05,
            in_run: true,
        }
    }
}

/// `[evaluate]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EvaluateStage {
    /// Which targets.
    pub split: slmrec_core::Split,
    /// Whether the exported bundle is measured too, through `slmrec-run`.
    pub bundle: bool,
    /// The `slmrec-run` to use; beside this program when absent.
    pub runner: Option<PathBuf>,
}

impl Default for EvaluateStage {
    fn default() -> Self {
        Self {
            split: slmrec_core::Split::Test,
            bundle: true,
            runner: None,
        }
    }
}

/// `[refit]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RefitStage {
    /// Whether SASRecs and student are trained once more with the validation items, for as many epochs
    /// as validation found best, and the student that is exported is that one. When absent, `run` does
    /// not, and what the command `refit` made is taken.
    pub models: Option<bool>,
}
