//! What a training run will take, told before it begins: parameters, memory, disk, time.
//!
//! Memory comes from formulas ([`decoder`], [`sasrec`]) that count what the code keeps for the
//! backward pass; a test holds them against counted bytes. Time comes from a few steps at the real
//! widths ([`calibration`]). [`machine`] says what is free.

pub mod calibration;
pub mod decoder;
pub mod machine;
pub mod sasrec;

use candle_core::Device;
use serde::{Deserialize, Serialize};

use crate::train::state::TENSORS_PER_PARAMETER;
use crate::train::{Targets, TrainSettings, TrainingData, parts};
use machine::Free;

/// Bytes of an f32.
pub(crate) const F32: u64 = 4;
/// Most exponentials that the loss over a trained catalog keeps for the table's gradient (64 MiB).
const BLOCK_LOGITS: u64 = 1 << 24;
/// Logits of one tile of the loss over the catalog.
const TILE_LOGITS: u64 = 256 * 1024;
/// Generations of the state on disk: two, and the one that is being written.
const STATES_ON_DISK: u64 = 3;

/// `[plan]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PlanSettings {
    /// Whether a few steps are timed for the estimate.
    pub calibrate: bool,
}

impl Default for PlanSettings {
    fn default() -> Self {
        Self { calibrate: true }
    }
}

/// The plan of one training stage.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StagePlan {
    /// The stage, as in its record.
    pub stage: &'static str,
    /// Values of the model, and those of them (and of the objective) that are trained.
    pub parameters: ParameterCount,
    /// How much is trained on.
    pub work: Work,
    /// Bytes at the peak.
    pub memory: Memory,
    /// Bytes on disk.
    pub disk: Disk,
    /// Estimated time; absent without a calibration.
    pub time: Option<Time>,
}

/// Numbers of values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ParameterCount {
    /// In the model.
    pub total: u64,
    /// Trained, heads and projectors of the objective included.
    pub trainable: u64,
}

/// The amount of work of a run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Work {
    /// Windows of the data.
    pub windows: u64,
    /// Steps, if the run does not stop early.
    pub steps: u64,
    /// Epochs, if the run does not stop early.
    pub epochs: u64,
    /// Items of an average batch.
    pub mean_items: f64,
    /// Items of the largest batch.
    pub most_items: u64,
    /// Longest history of the data, without its target.
    pub longest: u64,
    /// Draws of a step where the softmax is sampled.
    pub draws: Option<u64>,
    /// Parts of a batch that are in memory at the same time.
    pub parts: u64,
}

impl Work {
    /// Counts the windows of a run on `device`.
    #[must_use]
    pub fn of(data: &TrainingData, train: &TrainSettings, device: &Device) -> Self {
        let (batch_size, epochs) = (train.batch_size, train.epochs);
        let mut lengths: Vec<u64> = data.windows().map(|w| w.len as u64 - 1).collect();
        lengths.sort_unstable_by(|a, b| b.cmp(a));
        let steps = data.len().div_ceil(batch_size.max(1));
        Self {
            windows: data.len() as u64,
            steps: (steps as u64).saturating_mul(epochs as u64),
            epochs: epochs as u64,
            mean_items: lengths.iter().sum::<u64>() as f64 / steps.max(1) as f64,
            most_items: lengths.iter().take(batch_size).sum(),
            longest: lengths.first().copied().unwrap_or(0),
            draws: data.draws().map(|draws| draws as u64),
            // A part has at least one window, however many are asked for.
            parts: parts::count(train.parts, device, data)
                .min(batch_size)
                .min(data.len())
                .max(1) as u64,
        }
    }

    /// Rows of a table of `items` items that a loss over so many targets reads.
    fn candidates(&self, items: u64, targets: u64) -> u64 {
        match self.draws {
            Some(draws) => draws + targets,
            None => items,
        }
    }
}

/// Bytes at the peak of a run, part by part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// Weights of the model.
    pub weights: u64,
    /// Gradients, both moments and the best values of what is trained.
    pub optimizer: u64,
    /// Weights of the teacher.
    pub teacher: u64,
    /// What the forward passes of a step keep for the backward pass, and its own gradients.
    pub activations: u64,
    /// Scores of the catalog in the losses.
    pub loss: u64,
    /// What the validation between epochs takes instead of `activations` and `loss`.
    pub validation: u64,
}

impl Memory {
    /// The peak of the whole run.
    #[must_use]
    pub fn peak(&self) -> u64 {
        let step = self.activations.saturating_add(self.loss);
        [self.optimizer, self.teacher, step.max(self.validation)]
            .iter()
            .fold(self.weights, |sum, part| sum.saturating_add(*part))
    }
}

/// Gradient, best value and two moments of what is trained, in bytes. Each further part of a batch has
/// a gradient of its own.
pub(crate) fn optimizer_bytes(trainable: u64, parts: u64) -> u64 {
    (TENSORS_PER_PARAMETER + parts - 1) * F32 * trainable
}

/// Losses of `parts` parts of a batch over `rows` user vectors of size `dim` and `items` items, in
/// bytes. The item table's own gradients are there when it is trained.
pub(crate) fn catalog_loss_bytes(
    (rows, parts): (u64, u64),
    items: u64,
    dim: u64,
    trained: bool,
) -> u64 {
    // A trained table has exponentials kept for its gradient, and the gradient twice.
    let most = if trained { BLOCK_LOGITS } else { TILE_LOGITS };
    let block = rows.saturating_mul(items).min(parts.saturating_mul(most));
    let vectors = 4 * rows.saturating_mul(dim);
    let table = if trained {
        (1 + parts) * items * dim
    } else {
        0
    };
    F32 * (block + vectors + table)
}

/// Bytes on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Disk {
    /// States while the run goes on.
    pub states: u64,
    /// The result.
    pub checkpoint: u64,
    /// States of the teacher, if they were all kept in a cache.
    pub teacher_cache: Option<u64>,
}

impl Disk {
    /// What a run writes whose model has `stored` values in its checkpoint.
    #[must_use]
    pub fn of(trainable: u64, stored: u64) -> Self {
        Self {
            states: STATES_ON_DISK * TENSORS_PER_PARAMETER * F32 * trainable,
            checkpoint: F32 * stored,
            teacher_cache: None,
        }
    }

    /// What has to be free. The cache does not count: it is filled only on request.
    #[must_use]
    pub fn needed(&self) -> u64 {
        self.states.saturating_add(self.checkpoint)
    }
}

/// Estimated time of a run that does not stop early.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Time {
    /// Seconds of an average step.
    pub step_seconds: f64,
    /// Seconds of the validation after an epoch.
    pub validation_seconds: f64,
    /// Seconds of all epochs.
    pub total_seconds: f64,
}

impl Time {
    /// From the times of one step and one validation.
    #[must_use]
    pub fn of(work: &Work, step_seconds: f64, validation_seconds: f64) -> Self {
        let total = work.steps as f64 * step_seconds + work.epochs as f64 * validation_seconds;
        Self {
            step_seconds,
            validation_seconds,
            total_seconds: total,
        }
    }
}

impl StagePlan {
    /// What the machine lacks for this stage, each with what is needed and what there is; empty when
    /// it fits or when the system does not tell.
    #[must_use]
    pub fn misfits(&self, free: &Free, batch_size: u64) -> Vec<String> {
        let mut lacking = Vec::new();
        if let Some(memory) = free.memory.filter(|free| self.memory.peak() > *free) {
            lacking.push(format!(
                "{} needs about {} of memory, {} are free\nhint: {}",
                self.stage,
                bytes(self.memory.peak()),
                bytes(memory),
                self.memory_hint(memory, batch_size),
            ));
        }
        if let Some(disk) = free.disk.filter(|free| self.disk.needed() > *free) {
            lacking.push(format!(
                "{} writes about {}, {} are free on the disk\nhint: make room, or choose another \
                 --work-dir",
                self.stage,
                bytes(self.disk.needed()),
                bytes(disk),
            ));
        }
        lacking
    }

    /// Which change would help, with a batch size that would fit where there is one.
    fn memory_hint(&self, free: u64, batch_size: u64) -> String {
        let memory = &self.memory;
        let fixed = memory.weights + memory.optimizer + memory.teacher;
        if fixed + memory.validation > free {
            return "fewer layers, a smaller base model or a shorter model.max_history".to_owned();
        }
        let step = (memory.activations + memory.loss).max(1) as f64;
        let fits = (batch_size as f64 * (free - fixed) as f64 / step) as u64;
        if fits == 0 {
            return "a shorter model.max_history or fewer layers".to_owned();
        }
        format!("train.batch_size = {fits} would fit (now {batch_size}), or fewer layers")
    }

    /// One line for a person.
    #[must_use]
    pub fn line(&self) -> String {
        let time = self.time.map_or_else(String::new, |time| {
            format!(", at most about {}", duration(time.total_seconds))
        });
        format!(
            "{}: plan: {} parameters, {} trained; {} steps of {:.0} items; memory about {} \
             (weights {}, optimizer {}, teacher {}, step {}, validation {}); disk {}{time}",
            self.stage,
            count(self.parameters.total),
            count(self.parameters.trainable),
            self.work.steps,
            self.work.mean_items,
            bytes(self.memory.peak()),
            bytes(self.memory.weights),
            bytes(self.memory.optimizer),
            bytes(self.memory.teacher),
            bytes(self.memory.activations + self.memory.loss),
            bytes(self.memory.validation),
            bytes(self.disk.needed()),
        )
    }
}

/// `1.2 GB`, `34 MB`.
#[must_use]
pub fn bytes(bytes: u64) -> String {
    match bytes {
        0 => "0".to_owned(),
        1..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.0} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}

/// `1.2 M`, `34 k`.
#[must_use]
pub fn count(values: u64) -> String {
    match values {
        0..10_000 => values.to_string(),
        10_000..1_000_000 => format!("{:.0} k", values as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} M", values as f64 / 1e6),
        _ => format!("{:.2} G", values as f64 / 1e9),
    }
}

/// `45 s`, `12 min`, `3.4 h`.
#[must_use]
pub fn duration(seconds: f64) -> String {
    if seconds < 120.0 {
        format!("{seconds:.0} s")
    } else if seconds < 7200.0 {
        format!("{:.0} min", seconds / 60.0)
    } else {
        format!("{:.1} h", seconds / 3600.0)
    }
}

/// Positions with a target, in a batch with so many items.
pub(crate) fn target_positions(targets: Targets, items: u64, rows: u64) -> u64 {
    match targets {
        Targets::All => items,
        Targets::Last => rows,
    }
}

#[cfg(test)]
mod tests {
    use slmrec_core::ItemIndex;

    use super::*;

    fn plan() -> StagePlan {
        StagePlan {
            stage: "teach",
            parameters: ParameterCount {
                total: 1000,
                trainable: 100,
            },
            work: Work {
                windows: 10,
                steps: 5,
                epochs: 1,
                mean_items: 20.0,
                most_items: 30,
                longest: 9,
                draws: None,
                parts: 1,
            },
            memory: Memory {
                weights: 4000,
                optimizer: 1600,
                teacher: 0,
                activations: 10_000,
                loss: 6000,
                validation: 3000,
            },
            disk: Disk::of(100, 1000),
            time: None,
        }
    }

    fn free(memory: u64, disk: u64) -> Free {
        Free {
            memory: Some(memory),
            disk: Some(disk),
        }
    }

    #[test]
    fn the_peak_has_either_a_step_or_a_validation() {
        assert_eq!(plan().memory.peak(), 4000 + 1600 + 16_000);
        let mut other = plan();
        other.memory.validation = 20_000;
        assert_eq!(other.memory.peak(), 4000 + 1600 + 20_000);
    }

    #[test]
    fn what_does_not_fit_comes_with_what_to_change() {
        let plan = plan();
        assert!(plan.misfits(&free(21_600, 8800), 16).is_empty());
        assert!(plan.misfits(&Free::default(), 16).is_empty(), "not told");
        let half = plan.misfits(&free(13_600, 1 << 20), 16);
        assert!(
            half[0].contains("train.batch_size = 8 would fit (now 16)"),
            "{half:?}"
        );
        let little = plan.misfits(&free(6000, 100), 16);
        assert_eq!(little.len(), 2);
        assert!(little[0].contains("hint: fewer layers"), "{little:?}");
        assert!(little[1].contains("--work-dir"), "{little:?}");
    }

    #[test]
    fn work_counts_the_largest_batch() {
        let sequence = |len: u32| (1..=len).map(ItemIndex).collect::<Vec<_>>();
        let sequences = vec![sequence(3), sequence(9), sequence(2)];
        let data = TrainingData::from_sequences(sequences, 10, 5, Targets::All).expect("data");
        // Windows of histories 5 + 3, 2 and 1.
        let train = TrainSettings {
            batch_size: 2,
            epochs: 3,
            ..TrainSettings::default()
        };
        let work = Work::of(&data, &train, &Device::Cpu);
        assert_eq!((work.windows, work.steps, work.most_items), (4, 6, 8));
        let most = TrainSettings {
            parts: usize::MAX,
            ..train
        };
        assert_eq!(Work::of(&data, &most, &Device::Cpu).parts, 2);
        assert!((work.mean_items - 5.5).abs() < 1e-9);
    }

    #[test]
    fn numbers_for_people() {
        assert_eq!(bytes(1_234_000_000), "1.2 GB");
        assert_eq!(bytes(34_000_000), "34 MB");
        assert_eq!(count(1_234_567), "1.2 M");
        assert_eq!(duration(90.0), "90 s");
        assert_eq!(duration(600.0), "10 min");
    }
}
