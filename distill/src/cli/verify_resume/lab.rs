//! Where the runs of `verify-resume` take place: a scratch folder with the inputs of a stage.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Child;

use anyhow::{Context as _, bail};
use candle_core::Device;
use slmrec_export::checkpoint::LlamaConfig;

use super::this_program;
use crate::cli::args::TrainingStage;
use crate::model::{LlmSettings, PretrainedBase, SasRecSettings};
use crate::pipeline::{PipelineSettings, WorkDir};
use crate::train::TrainSettings;

/// Users and items of the generated data.
const USERS: usize = 40;
const ITEMS: usize = 24;

/// A stage, its settings, and its inputs.
pub(super) struct Lab {
    scratch: tempfile::TempDir,
    stage: TrainingStage,
    /// The work directory with the stages before.
    inputs: WorkDir,
}

impl Lab {
    /// A small data set, a random language model, and whatever stages come before `stage`. Of
    /// `settings` only the seed and the devices are kept.
    pub(super) fn generated(
        settings: PipelineSettings,
        stage: TrainingStage,
    ) -> anyhow::Result<Self> {
        let scratch = scratch()?;
        let log = scratch.path().join("interactions.csv");
        write(&log, interactions().as_bytes())?;
        let base = scratch.path().join("base");
        write_base(&base, settings.seed)?;
        let settings = small(settings, &log, &base);
        let lab = Self {
            inputs: WorkDir::new(scratch.path().join("inputs")),
            scratch,
            stage,
        };
        lab.write_settings(&settings)?;
        let before: &[&str] = match stage {
            TrainingStage::Pretrain => &["prepare"],
            TrainingStage::Teach => &["prepare", "pretrain"],
            TrainingStage::Distill => &["prepare", "pretrain", "teach"],
        };
        for stage in before {
            let mut child = lab.command(stage, lab.inputs.root())?;
            if !child.wait().context("waiting for a stage")?.success() {
                bail!("{stage} on generated data failed:\n{}", lab.said());
            }
        }
        Ok(lab)
    }

    /// The settings and the work directory at hand.
    pub(super) fn own(
        mut settings: PipelineSettings,
        stage: TrainingStage,
    ) -> anyhow::Result<Self> {
        let inputs = WorkDir::new(settings.work_dir.clone());
        WorkDir::finished(inputs.dataset(), "prepare")?;
        settings.distill.ce_only = false;
        settings.plan.calibrate = false;
        if stage == TrainingStage::Pretrain {
            settings.pretrain.titles = None; // one training is killed, not two
        }
        let lab = Self {
            scratch: scratch()?,
            stage,
            inputs,
        };
        lab.write_settings(&settings)?;
        Ok(lab)
    }

    pub(super) fn stage(&self) -> TrainingStage {
        self.stage
    }

    /// A work directory that holds the inputs and nothing of the stage, in place of one of the same
    /// name.
    pub(super) fn fresh(&self, name: &str) -> anyhow::Result<PathBuf> {
        let root = self.scratch.path().join(name);
        match fs::remove_dir_all(&root) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(e).with_context(|| root.display().to_string());
            }
            _ => {}
        }
        let work = WorkDir::new(&root);
        let pairs = [
            (self.inputs.dataset(), work.dataset()),
            (self.inputs.sasrec(), work.sasrec()),
            (self.inputs.sasrec_titles(), work.sasrec_titles()),
            (self.inputs.teacher(), work.teacher()),
        ];
        let needed = match self.stage {
            TrainingStage::Pretrain => 1,
            TrainingStage::Teach => 3,
            TrainingStage::Distill => 4,
        };
        for (from, to) in &pairs[..needed] {
            if from.is_dir() {
                copy_files(from, to)?;
            }
        }
        Ok(root)
    }

    /// Starts the stage in a work directory.
    pub(super) fn start(&self, work: &Path) -> anyhow::Result<Child> {
        self.command(self.stage.name(), work)
    }

    /// What the last process said.
    pub(super) fn said(&self) -> String {
        fs::read_to_string(self.said_file()).unwrap_or_default()
    }

    fn command(&self, stage: &str, work: &Path) -> anyhow::Result<Child> {
        let settings = self.settings_file();
        let settings = settings.to_str().context("a temporary folder in UTF-8")?;
        let arguments = [stage, "--quiet", "--config", settings];
        this_program(&arguments, work, &self.said_file())
    }

    fn write_settings(&self, settings: &PipelineSettings) -> anyhow::Result<()> {
        let text = toml::to_string(settings).context("settings as TOML")?;
        write(&self.settings_file(), text.as_bytes())
    }

    fn settings_file(&self) -> PathBuf {
        self.scratch.path().join("settings.toml")
    }

    fn said_file(&self) -> PathBuf {
        self.scratch.path().join("said.txt")
    }
}

fn scratch() -> anyhow::Result<tempfile::TempDir> {
    let made = tempfile::Builder::new().prefix("slmrec-verify-").tempdir();
    made.context("a temporary folder")
}

fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    fs::write(path, bytes).with_context(|| format!("{}: cannot be written", path.display()))
}

fn copy_files(from: &Path, to: &Path) -> anyhow::Result<()> {
    let failed = || format!("copying {} to {}", from.display(), to.display());
    fs::create_dir_all(to).with_context(failed)?;
    for entry in fs::read_dir(from).with_context(failed)? {
        let path = entry.with_context(failed)?.path();
        if let (true, Some(name)) = (path.is_file(), path.file_name()) {
            fs::copy(&path, to.join(name)).with_context(failed)?;
        }
    }
    Ok(())
}

/// Users who walk through the catalog at different speeds.
fn interactions() -> String {
    let mut text = String::from("user,item,time\n");
    for user in 0..USERS {
        for step in 0..8 + user % 7 {
            let item = (user + step * (1 + user % 3)) % ITEMS;
            // Writing to a String cannot fail.
            let _ = writeln!(text, "u{user},i{item},{}", 1000 + step);
        }
    }
    text
}

fn base_config() -> LlamaConfig {
    LlamaConfig {
        architectures: vec!["LlamaForCausalLM".to_owned()],
        model_type: "llama".to_owned(),
        hidden_size: 16,
        intermediate_size: 32,
        num_hidden_layers: 4,
        num_attention_heads: 2,
        num_key_value_heads: Some(1),
        head_dim: None,
        rms_norm_eps: 1e-5,
        rope_theta: 10_000.0,
        vocab_size: 1,
        max_position_embeddings: 64,
        tie_word_embeddings: true,
        hidden_act: "silu".to_owned(),
    }
}

fn write_base(dir: &Path, seed: u64) -> anyhow::Result<()> {
    let config = base_config();
    let base = PretrainedBase::random(&config, seed, &Device::Cpu)?;
    fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
    let json = serde_json::to_vec_pretty(&config)?;
    write(&dir.join("config.json"), &json)?;
    let bytes = safetensors::serialize(&base.tensors, None).context("random weights")?;
    write(&dir.join("model.safetensors"), &bytes)
}

/// Small shapes, some dozen steps, a state after every step.
fn small(settings: PipelineSettings, log: &Path, base: &Path) -> PipelineSettings {
    let train = |train: TrainSettings| TrainSettings {
        epochs: 4,
        patience: 4,
        batch_size: 4,
        learning_rate: 0.005,
        warmup_steps: 4,
        save_every_steps: 1,
        ..train
    };
    let mut small = PipelineSettings {
        seed: settings.seed,
        device: settings.device,
        devices: settings.devices,
        model: LlmSettings {
            max_history: 8,
            ..LlmSettings::default()
        },
        ..PipelineSettings::default()
    };
    small.plan.calibrate = false;
    small.prepare.source = Some(log.to_owned());
    small.pretrain.model = SasRecSettings {
        hidden_size: 16,
        intermediate_size: 16,
        max_history: 8,
        ..SasRecSettings::default()
    };
    small.pretrain.train = train(small.pretrain.train);
    small.teach.base = Some(base.to_owned());
    small.teach.layers = 4;
    small.teach.train = train(small.teach.train);
    small.distill.layers = 2;
    small.distill.ce_only = false;
    small.distill.objective.blocks = 2;
    small.distill.train = train(small.distill.train);
    small
}
