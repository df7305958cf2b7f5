//! `pipeline.toml`: one table for all stages. Every field has a default, unknown ones are refused.

use std::path::{Path, PathBuf};

use candle_core::Device;
use serde::{Deserialize, Serialize};
use slmrec_core::manifest::Precision;
use slmrec_core::prior::PriorSettings;

use super::PipelineError;
use super::work_dir::DEFAULT_WORK_DIR;
use crate::data::PrepareSettings;
use crate::model::sasrec::SasRecSettings;
use crate::model::{LayerSelection, LlmSettings, PromptText};
use crate::plan::PlanSettings;
use crate::train::{DistillSettings, TrainSettings};
use slmrec_core::manifest::Readout;

/// All settings of all stages.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PipelineSettings {
    /// Where stages read and write.
    pub work_dir: PathBuf,
    /// Seed of everything random: initial weights, order of examples, dropout.
    pub seed: u64,
    /// Where tensors live.
    pub device: DeviceChoice,
    /// Devices of that kind which share every batch of a training. Several GPUs need a build with
    /// `--features nccl`; on the CPU it is for tests and no faster.
    pub devices: usize,
    /// Files to a dataset.
    pub prepare: PrepareStage,
    /// The transition prior.
    pub prior: PriorStage,
    /// SASRec.
    pub pretrain: PretrainStage,
    /// Shape of teacher and student around the pretrained layers.
    pub model: LlmSettings,
    /// The constant text around the items. When absent: none for the `item` readout, the paper's
    /// for `response`.
    pub prompt: Option<PromptText>,
    /// The teacher.
    pub teach: TeachStage,
    /// Several models as one teacher.
    pub blend: BlendStage,
    /// The student.
    pub distill: DistillStage,
    /// The comparison.
    pub evaluate: EvaluateStage,
    /// The bundle.
    pub export: ExportStage,
    /// What is said before a training stage.
    pub plan: PlanSettings,
}

impl Default for PipelineSettings {
    fn default() -> Self {
        Self {
            work_dir: PathBuf::from(DEFAULT_WORK_DIR),
            seed: 42,
            device: DeviceChoice::Cpu,
            devices: 1,
            prepare: PrepareStage::default(),
            prior: PriorStage::default(),
            pretrain: PretrainStage::default(),
            model: LlmSettings::default(),
            prompt: None,
            teach: TeachStage::default(),
            blend: BlendStage::default(),
            distill: DistillStage::default(),
            evaluate: EvaluateStage::default(),
            export: ExportStage::default(),
            plan: PlanSettings::default(),
        }
    }
}

/// Where tensors live.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum DeviceChoice {
    /// The processor.
    #[default]
    Cpu,
    /// The first NVIDIA GPU; needs a build with `--features cuda`.
    Cuda,
    /// The Apple GPU; needs a build with `--features metal`.
    Metal,
}

impl DeviceChoice {
    /// Opens the first `count` devices.
    ///
    /// # Errors
    /// A count of 0, devices that this build or this machine does not have, or several that cannot
    /// share a training; nothing else is used instead.
    pub fn open(self, count: usize) -> Result<Vec<Device>, PipelineError> {
        let can_share = match self {
            Self::Cpu => true,
            Self::Cuda => cfg!(feature = "nccl"),
            Self::Metal => false,
        };
        if count == 0 || (count > 1 && !can_share) {
            return Err(PipelineError::Settings(format!(
                "setting devices: expected 1, found {count}\n\
                 hint: several GPUs share a training with --device cuda in a build with \
                 `--features nccl`"
            )));
        }
        (0..count).map(|number| self.open_one(number)).collect()
    }

    fn open_one(self, number: usize) -> Result<Device, PipelineError> {
        let missing = |name: &str, e: candle_core::Error| {
            PipelineError::Settings(format!(
                "--device {name} was asked for and number {number} of them cannot be used: {e}\n\
                 hint: build with `--features {name}` on a machine that has one, or use --device cpu"
            ))
        };
        match self {
            Self::Cpu => Ok(Device::Cpu),
            Self::Cuda => Device::new_cuda(number).map_err(|e| missing("cuda", e)),
            Self::Metal => Device::new_metal(number).map_err(|e| missing("metal", e)),
        }
    }
}

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
}

impl Default for PriorStage {
    fn default() -> Self {
        Self {
            settings: None,
            neighbours: 256,
            validation_users: 10_000,
        }
    }
}

/// `[pretrain]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PretrainStage {
    /// Shape of SASRec; its embedding size is the items' D everywhere.
    pub model: SasRecSettings,
    /// The loop.
    pub train: TrainSettings,
}

/// Which layers of the pretrained model are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LayerChoice {
    /// The first ones ("trune").
    #[default]
    First,
    /// Every k-th, the last included ("interval").
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
            layers: 8,
            layer_choice: LayerChoice::First,
            train: language_model_training(),
        }
    }
}

/// `[blend]`: members beside the SASRec of `pretrain`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BlendStage {
    /// Whether the teacher of `teach` is a member; its hidden states are then the blend's.
    pub decoder: bool,
    /// How many more SASRecs, each with a seed of its own.
    pub more_sasrecs: usize,
}

impl Default for BlendStage {
    fn default() -> Self {
        Self {
            decoder: true,
            more_sasrecs: 2,
        }
    }
}

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
    /// The terms and their weights.
    pub objective: DistillSettings,
    /// Whether the same student is also trained without the teacher, for the comparison.
    pub ce_only: bool,
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
            objective: DistillSettings::default(),
            ce_only: true,
            teacher_states: TeacherStatesChoice::Auto,
            cache_max_gib: 8.0,
            cache_shard_mib: 64.0,
            cache_dir: None,
            train: language_model_training(),
        }
    }
}

impl DistillStage {
    /// Most bytes of a shard of teacher states.
    #[must_use]
    pub fn cache_shard_bytes(&self) -> u64 {
        (self.cache_shard_mib * f64::from(1 << 20)) as u64
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

/// Few epochs at a small batch: the pretrained layers start far ahead of a random body.
fn language_model_training() -> TrainSettings {
    TrainSettings {
        epochs: 4,
        batch_size: 16,
        learning_rate: 1e-3,
        patience: 2,
        save_every_steps: 100,
        ..TrainSettings::default()
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

/// `[export]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ExportStage {
    /// Precision of the weights.
    pub precision: Precision,
    /// Whether an int8 bundle also carries a graph that every engine runs.
    pub portable: bool,
    /// Whether the bundle gets the transition prior, where it helps on the validation targets.
    pub prior: bool,
    /// The bundle file.
    pub output: PathBuf,
}

impl Default for ExportStage {
    fn default() -> Self {
        Self {
            precision: Precision::Int8,
            portable: false,
            prior: true,
            output: PathBuf::from("student.slmrec"),
        }
    }
}

impl PipelineSettings {
    /// The prompt, with the default of the readout.
    #[must_use]
    pub fn prompt_text(&self) -> PromptText {
        match (&self.prompt, self.model.readout) {
            (Some(prompt), _) => prompt.clone(),
            (None, Readout::Item) => PromptText::default(),
            (None, Readout::Response) => PromptText::paper(),
        }
    }

    /// Reads a settings file (or starts from nothing), then applies `changes`, each a dotted path
    /// and a value: what was typed on the command line wins.
    ///
    /// # Errors
    /// A file that cannot be read, an unknown field, or a value of the wrong kind.
    pub fn load(
        file: Option<&Path>,
        changes: &[(String, toml::Value)],
    ) -> Result<Self, PipelineError> {
        // Over the defaults of the whole, since sections differ in the defaults of equal parts.
        let mut table = toml::Table::try_from(Self::default())
            .map_err(|e| PipelineError::Settings(format!("default settings: {e}")))?;
        if let Some(path) = file {
            merge(&mut table, read_table(path)?);
        }
        for (path, value) in changes {
            set(&mut table, path, value.clone())?;
        }
        let origin = file.map_or_else(|| PathBuf::from("settings"), Path::to_path_buf);
        toml::Value::Table(table)
            .try_into()
            .map_err(|e| PipelineError::Content {
                path: origin,
                expected: "the settings of a pipeline".into(),
                found: e.to_string().trim().to_owned(),
                hint: "`slmrec-distill settings` prints every setting with its default".into(),
            })
    }
}

fn read_table(path: &Path) -> Result<toml::Table, PipelineError> {
    let text = std::fs::read_to_string(path).map_err(|source| PipelineError::Io {
        path: path.to_owned(),
        source,
    })?;
    text.parse()
        .map_err(|e: toml::de::Error| PipelineError::Content {
            path: path.to_owned(),
            expected: "TOML".into(),
            found: e.to_string().trim().to_owned(),
            hint: "`slmrec-distill settings > pipeline.toml` writes a file to begin with".into(),
        })
}

/// Lays `over` on `table`: tables are merged, everything else is replaced.
fn merge(table: &mut toml::Table, over: toml::Table) {
    for (key, value) in over {
        match (table.get_mut(&key), value) {
            (Some(toml::Value::Table(below)), toml::Value::Table(value)) => merge(below, value),
            (_, value) => {
                table.insert(key, value);
            }
        }
    }
}

fn set(table: &mut toml::Table, path: &str, value: toml::Value) -> Result<(), PipelineError> {
    match path.split_once('.') {
        None => {
            table.insert(path.to_owned(), value);
            Ok(())
        }
        Some((first, rest)) => {
            let inner = table
                .entry(first)
                .or_insert_with(|| toml::Value::Table(toml::Table::new()));
            match inner {
                toml::Value::Table(inner) => set(inner, rest, value),
                other => Err(PipelineError::Settings(format!(
                    "{path}: expected a table at {first:?}, found {other}"
                ))),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_wins_and_unknown_fields_are_refused() {
        let change = |path: &str, value: toml::Value| (path.to_owned(), value);
        let settings = PipelineSettings::load(
            None,
            &[
                change("distill.layers", 2.into()),
                change("teach.train.epochs", 1.into()),
            ],
        )
        .expect("loads");
        assert_eq!(settings.distill.layers, 2);
        assert_eq!(settings.teach.train.epochs, 1);
        assert_eq!(
            settings.teach.train.batch_size, 16,
            "other defaults of the section stay"
        );
        let error = PipelineSettings::load(None, &[change("distill.layer", 2.into())])
            .expect_err("unknown")
            .to_string();
        assert!(
            error.contains("layer") && error.contains("hint:"),
            "{error}"
        );
        assert!(PipelineSettings::load(None, &[change("seed.x", 2.into())]).is_err());
    }

    #[test]
    fn devices_that_cannot_share_are_refused() {
        assert_eq!(DeviceChoice::Cpu.open(2).expect("for tests").len(), 2);
        for (choice, count) in [(DeviceChoice::Cpu, 0), (DeviceChoice::Metal, 2)] {
            let error = choice.open(count).expect_err("refused").to_string();
            assert!(error.contains("setting devices"), "{error}");
        }
        if !cfg!(feature = "nccl") {
            assert!(DeviceChoice::Cuda.open(2).is_err());
        }
    }

    #[test]
    fn sizes_of_stored_states_have_a_range() {
        let check = |change: fn(&mut DistillStage)| {
            let mut stage = DistillStage::default();
            change(&mut stage);
            stage.check_cache().map_err(|e| e.to_string())
        };
        assert_eq!(check(|_| {}), Ok(()));
        assert_eq!(check(|s| s.cache_max_gib = 0.0), Ok(()));
        let wrong: [fn(&mut DistillStage); 5] = [
            |s| s.cache_max_gib = -1.0,
            |s| s.cache_max_gib = f64::INFINITY,
            |s| s.cache_shard_mib = 0.0,
            |s| s.cache_shard_mib = f64::NAN,
            |s| s.cache_shard_mib = 1025.0,
        ];
        for change in wrong {
            let error = check(change).expect_err("refused");
            assert!(error.contains("setting distill.cache_"), "{error}");
        }
    }

    #[test]
    fn defaults_survive_a_round_trip_through_toml() {
        let text = toml::to_string(&PipelineSettings::default()).expect("writes");
        let table: toml::Table = text.parse().expect("parses");
        let back: PipelineSettings = toml::Value::Table(table).try_into().expect("reads");
        assert_eq!(back, PipelineSettings::default());
    }
}
