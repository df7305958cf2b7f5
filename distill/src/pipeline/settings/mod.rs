//! `pipeline.toml`: one table for all stages. Every field has a default, unknown ones are refused.

mod device;
mod distill;
mod export;
mod sections;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use slmrec_core::manifest::Readout;

use super::PipelineError;
use super::work_dir::DEFAULT_WORK_DIR;
use crate::model::{LlmSettings, PromptText};
use crate::plan::PlanSettings;

pub use device::DeviceChoice;
pub use distill::{
    DistillStage, Online, OnlineStart, PriorUse, StudentStart, TeacherChoice, TeacherStatesChoice,
    Tuning,
};
pub use export::{ExportStage, Target};
pub use sections::{
    Baseline, BaselinesStage, Bert4RecStage, BlendStage, ColdStage, EvaluateStage, Gru4RecStage,
    ItemSource, LayerChoice, PrepareStage, PretrainStage, PriorStage, RefitStage, TeachStage,
    WeighWith,
};

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
    /// What stands in the comparison and nowhere else.
    pub baselines: BaselinesStage,
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
    /// Models once more, with the validation items.
    pub refit: RefitStage,
    /// Items that training never saw.
    pub cold: ColdStage,
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
            baselines: BaselinesStage::default(),
            model: LlmSettings::default(),
            prompt: None,
            teach: TeachStage::default(),
            blend: BlendStage::default(),
            distill: DistillStage::default(),
            refit: RefitStage::default(),
            cold: ColdStage::default(),
            evaluate: EvaluateStage::default(),
            export: ExportStage::default(),
            plan: PlanSettings::default(),
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

    /// The same with some settings changed, each a dotted path and a value.
    ///
    /// # Errors
    /// An unknown field, or a value of the wrong kind.
    pub fn changed(&self, changes: &[(String, toml::Value)]) -> Result<Self, PipelineError> {
        let wrong = |e: String| PipelineError::Settings(format!("changed settings: {e}"));
        let mut table = toml::Table::try_from(self).map_err(|e| wrong(e.to_string()))?;
        for (path, value) in changes {
            set(&mut table, path, value.clone())?;
        }
        toml::Value::Table(table)
            .try_into()
            .map_err(|e: toml::de::Error| wrong(e.to_string()))
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
        let over = file.map(read_table).transpose()?;
        let origin = file.unwrap_or(Path::new("settings"));
        Self::over_defaults(origin, over, changes)
    }

    /// Settings of several texts, each over those before it, then `changes`.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub(super) fn of_layers(
        layers: &[&str],
        changes: &[(String, toml::Value)],
    ) -> Result<Self, PipelineError> {
        let origin = Path::new("settings");
        let tables = layers.iter().map(|text| parse_table(origin, text));
        let tables = tables.collect::<Result<Vec<_>, _>>()?;
        Self::over_defaults(origin, tables, changes)
    }

    fn over_defaults(
        origin: &Path,
        layers: impl IntoIterator<Item = toml::Table>,
        changes: &[(String, toml::Value)],
    ) -> Result<Self, PipelineError> {
        let mut table = toml::Table::try_from(Self::default())
            .map_err(|e| PipelineError::Settings(format!("default settings: {e}")))?;
        for layer in layers {
            merge(&mut table, layer);
        }
        for (path, value) in changes {
            set(&mut table, path, value.clone())?;
        }
        let settings: Self =
            toml::Value::Table(table)
                .try_into()
                .map_err(|e: toml::de::Error| PipelineError::Content {
                    path: origin.to_owned(),
                    expected: "the settings of a pipeline".into(),
                    found: e.to_string().trim().to_owned(),
                    hint: "`slmrec-distill settings` prints every setting with its default".into(),
                })?;
        settings.check_ranges()?;
        Ok(settings)
    }

    /// Before SASRecs are trained for hours for a stage that then refuses its settings.
    fn check_ranges(&self) -> Result<(), PipelineError> {
        let (dropout, alpha) = (self.model.dropout, self.prior.largest_alpha);
        if !(0.0..1.0).contains(&dropout) {
            return Err(PipelineError::Settings(format!(
                "setting model.dropout: expected a probability of at least 0, below 1, found {dropout}\n\
                 hint: 0 drops nothing, 0.3 is what short histories were found to want"
            )));
        }
        if !(alpha >= 0.0 && alpha.is_finite()) {
            return Err(PipelineError::Settings(format!(
                "setting prior.largest_alpha: expected a number of at least 0, found {alpha}\n\
                 hint: 0 leaves the counts out of every model, 6 trusts them six times as much as the model"
            )));
        }
        Ok(())
    }
}

fn read_table(path: &Path) -> Result<toml::Table, PipelineError> {
    let text = std::fs::read_to_string(path).map_err(|source| PipelineError::Io {
        path: path.to_owned(),
        source,
    })?;
    parse_table(path, &text)
}

fn parse_table(path: &Path, text: &str) -> Result<toml::Table, PipelineError> {
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
    use crate::model::{BodyTraining, LoraSettings};

    #[test]
    fn numbers_that_make_no_sense_are_refused_at_once() {
        let wrong = [
            ("model.dropout", -0.1),
            ("model.dropout", 1.0),
            ("model.dropout", f64::NAN),
            ("prior.largest_alpha", -1.0),
            ("prior.largest_alpha", f64::INFINITY),
            ("prior.largest_alpha", f64::NAN),
        ];
        for (setting, found) in wrong {
            let change = (setting.to_owned(), found.into());
            let refused = PipelineSettings::load(None, &[change]).expect_err("refused");
            assert!(refused.to_string().contains(setting), "{refused}");
        }
    }

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
    fn the_share_of_users_has_a_range() {
        for (share, right) in [
            (0.0, false),
            (0.25, true),
            (1.0, true),
            (1.5, false),
            (f64::NAN, false),
        ] {
            let stage = DistillStage {
                user_share: share,
                ..DistillStage::default()
            };
            assert_eq!(stage.check().is_ok(), right, "{share}");
        }
    }

    #[test]
    fn the_student_is_tuned_as_its_section_says() {
        let training = |tuning, training| {
            let stage = DistillStage {
                tuning,
                ..DistillStage::default()
            };
            let model = LlmSettings {
                training,
                ..LlmSettings::default()
            };
            stage.student_model(&model).training
        };
        let lora = BodyTraining::Lora(LoraSettings {
            r: 3,
            ..LoraSettings::default()
        });
        assert_eq!(
            training(Tuning::Shared, BodyTraining::Frozen),
            BodyTraining::Frozen
        );
        assert_eq!(training(Tuning::Full, lora.clone()), BodyTraining::Full);
        assert_eq!(training(Tuning::Lora, lora.clone()), lora);
        let own = BodyTraining::Lora(LoraSettings::default());
        assert_eq!(training(Tuning::Lora, BodyTraining::Full), own);
    }

    #[test]
    fn defaults_survive_a_round_trip_through_toml() {
        let text = toml::to_string(&PipelineSettings::default()).expect("writes");
        let table: toml::Table = text.parse().expect("parses");
        let back: PipelineSettings = toml::Value::Table(table).try_into().expect("reads");
        assert_eq!(back, PipelineSettings::default());
    }
}
