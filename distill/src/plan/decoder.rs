//! Memory and parameters of a language-model recommender in training.
//!
//! The formulas follow `model::llama` operation by operation: candle keeps the result of every
//! operation for as long as the loss lives. Who changes what an operation keeps changes
//! [`kept_by_layer`] or [`working_of_layer`]; the test `memory` holds them against counted bytes.

use slmrec_export::checkpoint::LlamaConfig;

use super::{
    Disk, F32, Memory, ParameterCount, Work, catalog_loss_bytes, optimizer_bytes, target_positions,
};
use crate::model::{BodyTraining, LlmSettings, TargetModule};
use crate::train::{DistillSettings, Targets};
use slmrec_core::manifest::Readout;

/// Histories of one forward pass of the evaluation, as `evaluate::model_scorer` has it.
const EVALUATED_AT_ONCE: u64 = 64;

/// Widths and depth of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecoderShape {
    /// Hidden size H.
    pub hidden: u64,
    /// Width of all query heads.
    pub query: u64,
    /// Width of all key (or value) heads.
    pub key_value: u64,
    /// Width of the MLP.
    pub mlp: u64,
    /// Layers that are used.
    pub layers: u64,
}

impl DecoderShape {
    /// `layers` layers of the widths of a configuration.
    #[must_use]
    pub fn new(config: &LlamaConfig, layers: usize) -> Self {
        let width = |heads: usize| (heads as u64).saturating_mul(config.head_size() as u64);
        Self {
            hidden: config.hidden_size as u64,
            query: width(config.num_attention_heads),
            key_value: width(config.kv_heads()),
            mlp: config.intermediate_size as u64,
            layers: layers as u64,
        }
    }

    /// Inputs and outputs of a linear layer.
    fn linear(&self, module: TargetModule) -> (u64, u64) {
        match module {
            TargetModule::QProj => (self.hidden, self.query),
            TargetModule::KProj | TargetModule::VProj => (self.hidden, self.key_value),
            TargetModule::OProj => (self.query, self.hidden),
            TargetModule::GateProj | TargetModule::UpProj => (self.hidden, self.mlp),
            TargetModule::DownProj => (self.mlp, self.hidden),
        }
    }

    /// Values of the body, the final norm included.
    #[must_use]
    pub fn parameters(&self) -> u64 {
        let linears = TargetModule::ALL.map(|module| {
            let (inputs, outputs) = self.linear(module);
            inputs * outputs
        });
        self.layers * (linears.iter().sum::<u64>() + 2 * self.hidden) + self.hidden
    }

    fn trained(&self, training: &BodyTraining) -> u64 {
        match training {
            BodyTraining::Frozen => 0,
            BodyTraining::Full => self.parameters(),
            BodyTraining::Lora(lora) => {
                let sizes = lora.target_modules.iter().map(|module| {
                    let (inputs, outputs) = self.linear(*module);
                    lora.r as u64 * (inputs + outputs)
                });
                self.layers * sizes.sum::<u64>()
            }
        }
    }
}

/// Values per token that a fused layer keeps for its backward pass: its output, rotated queries and
/// keys, values, attention's result, the residual stream after attention, gate and up, and what the
/// adapters' first matrices gave.
fn kept_by_layer(shape: &DecoderShape, training: &BodyTraining) -> u64 {
    let ranks = match training {
        BodyTraining::Lora(lora) => (lora.r * lora.target_modules.len()) as u64,
        BodyTraining::Full | BodyTraining::Frozen => 0,
    };
    2 * shape.hidden + 2 * shape.query + 2 * shape.key_value + 2 * shape.mlp + ranks
}

/// Values per token that one layer holds besides while it runs, forward or backward.
fn working_of_layer(shape: &DecoderShape) -> u64 {
    3 * shape.mlp + 4 * shape.hidden
}

/// Values that all layers keep of `tokens` tokens. With `checkpointing` only the input of each layer
/// is kept, and one layer at a time is run again for its backward pass.
fn kept_by_layers(shape: &DecoderShape, kept: u64, tokens: u64, checkpointing: bool) -> u64 {
    if checkpointing {
        tokens * (shape.layers * shape.hidden + kept)
    } else {
        tokens * shape.layers * kept
    }
}

/// Values that an evaluating forward pass holds of `tokens` tokens: one layer's at a time.
fn held_in_evaluation(shape: &DecoderShape, training: &BodyTraining, tokens: u64) -> u64 {
    tokens * (kept_by_layer(shape, training) + shape.mlp + shape.hidden)
}

/// A language-model recommender and its training.
#[derive(Clone, Debug)]
pub struct DecoderRun<'a> {
    /// The stage, as in its record.
    pub stage: &'static str,
    /// The body.
    pub shape: DecoderShape,
    /// What stands around it, and what is trained.
    pub settings: &'a LlmSettings,
    /// Whether layers are run again in the backward pass instead of kept.
    pub checkpointing: bool,
    /// Items N and size D of their embeddings.
    pub items: (u64, u64),
    /// Tokens of the prompt before and after the items.
    pub prompt: (u64, u64),
    /// Windows of a batch.
    pub batch_size: u64,
    /// Which positions are targets.
    pub targets: Targets,
    /// The work.
    pub work: Work,
    /// The teacher's body and the objective, for a student.
    pub distillation: Option<(DecoderShape, &'a DistillSettings)>,
    /// How many decoders of that shape teach.
    pub teachers: u64,
    /// What is trained of the teacher, for one that learns beside the student.
    pub online: Option<&'a LlmSettings>,
}

impl DecoderRun<'_> {
    /// Numbers of values.
    #[must_use]
    pub fn parameters(&self) -> ParameterCount {
        let (projections, table) = (self.projections(), self.table());
        let trained_table = if self.settings.train_item_embeddings {
            table
        } else {
            0
        };
        let body = self.shape.trained(&self.settings.training);
        let adapters = match self.settings.training {
            BodyTraining::Lora(_) => body,
            BodyTraining::Full | BodyTraining::Frozen => 0,
        };
        ParameterCount {
            total: self.shape.parameters() + adapters + projections + table,
            trainable: body
                + projections
                + trained_table
                + self.objective_parameters()
                + self.trained_of_teacher(),
        }
    }

    /// Values of both projections.
    fn projections(&self) -> u64 {
        self.projections_of(&self.shape)
    }

    fn projections_of(&self, shape: &DecoderShape) -> u64 {
        let (hidden, dim) = (shape.hidden, self.items.1);
        2 * hidden * dim + hidden
    }

    /// Values that are trained of a teacher that learns.
    fn trained_of_teacher(&self) -> u64 {
        let Some(((teacher, _), settings)) = self.distillation.zip(self.online) else {
            return 0;
        };
        let table = match settings.train_item_embeddings {
            true => self.table(),
            false => 0,
        };
        teacher.trained(&settings.training) + self.projections_of(&teacher) + table
    }

    fn table(&self) -> u64 {
        let (items, dim) = self.items;
        (items + 1).saturating_mul(dim)
    }

    fn objective_parameters(&self) -> u64 {
        let Some((teacher, objective)) = &self.distillation else {
            return 0;
        };
        let blocks = objective.num_blocks() as u64;
        let heads = if objective.reads_inner_blocks() {
            blocks.saturating_sub(1) * self.items.1 * self.shape.hidden
        } else {
            0
        };
        let projectors = if objective.aligns() && teacher.hidden != self.shape.hidden {
            blocks * teacher.hidden * self.shape.hidden
        } else {
            0
        };
        heads + projectors
    }

    /// Packed tokens of a batch with so many items.
    fn tokens(&self, items: u64, rows: u64) -> u64 {
        let (prefix, suffix) = self.prompt;
        self.work.parts * prefix + items + rows * suffix
    }

    /// Positions at which states and user vectors are read, padding included.
    fn read_positions(&self, rows: u64) -> u64 {
        match self.settings.readout {
            Readout::Item => rows * self.work.longest,
            Readout::Response => rows,
        }
    }

    /// Bytes at the peak.
    #[must_use]
    pub fn memory(&self) -> Memory {
        let count = self.parameters();
        let (items, dim) = self.items;
        let tokens = self.tokens(self.work.most_items, self.batch_size);
        let targets = target_positions(self.targets, self.work.most_items, self.batch_size);
        let trained_table = self.settings.train_item_embeddings;
        let (teacher, run, states) = self.distilled(tokens, targets);
        let heads = self.distillation.map_or(0, |(_, objective)| {
            let inner = (objective.num_blocks() as u64).saturating_sub(1);
            let terms = [objective.lambda_ms, objective.lambda_block_kl];
            inner * terms.iter().filter(|weight| **weight > 0.0).count() as u64
        });
        let candidates = self.work.candidates(items, targets);
        let one_loss =
            catalog_loss_bytes((targets, self.work.parts), candidates, dim, trained_table);
        let losses = 1 + u64::from(self.online.is_some());
        let kept_of_head = F32 * targets * (3 * dim);
        Memory {
            weights: self.weights(count.total),
            optimizer: optimizer_bytes(count.trainable, self.work.parts),
            teacher,
            // The teacher's own values are gone when the backward pass begins.
            activations: F32
                * (self.kept(tokens, targets) + states + run.max(self.backward(tokens))),
            loss: losses * one_loss + heads * kept_of_head,
            validation: self.validation(),
        }
    }

    /// Bytes of the weights, those of the body in its number format.
    fn weights(&self, total: u64) -> u64 {
        let body = self.shape.parameters();
        let format = self.settings.body_dtype.dtype().size_in_bytes() as u64;
        format * body + F32 * (total - body)
    }

    /// Values that a forward pass keeps.
    fn kept(&self, tokens: u64, targets: u64) -> u64 {
        self.kept_of(&self.shape, self.settings, tokens, targets)
    }

    fn kept_of(
        &self,
        shape: &DecoderShape,
        settings: &LlmSettings,
        tokens: u64,
        targets: u64,
    ) -> u64 {
        let dim = self.items.1;
        let kept = kept_by_layer(shape, &settings.training);
        let layers = kept_by_layers(shape, kept, tokens, self.checkpointing);
        // Items looked up, projected, shifted and put among the prompt; the final norm.
        let around = tokens * (dim + 5 * shape.hidden);
        let read = self.read_positions(self.batch_size) * (shape.hidden + dim) + targets * dim;
        layers + around + read
    }

    /// Values that the backward pass adds: a layer's on their way, and two more of each
    /// parameter's (a layer's flat vector and its gradient).
    fn backward(&self, tokens: u64) -> u64 {
        let dim = self.items.1;
        let working = |shape: &DecoderShape| working_of_layer(shape) + 2 * shape.hidden + dim;
        // One layer at a time, be it the student's or that of a teacher that learns.
        let of_teacher = (self.distillation).filter(|_| self.online.is_some());
        let of_teacher = of_teacher.map_or(0, |(teacher, _)| working(&teacher));
        tokens * working(&self.shape).max(of_teacher) + 2 * self.parameters().trainable
    }

    /// Bytes of the teacher's weights, values of its forward pass, and values that the alignment
    /// adds to a step.
    fn distilled(&self, tokens: u64, targets: u64) -> (u64, u64, u64) {
        let Some((teacher, objective)) = &self.distillation else {
            return (0, 0, 0);
        };
        let dim = self.items.1;
        let around = 2 * teacher.hidden * dim + teacher.hidden + self.table();
        let weights = F32 * (teacher.parameters() + around) * self.teachers;
        let run = match self.online {
            None => held_in_evaluation(teacher, &BodyTraining::Frozen, tokens),
            Some(_) => 0,
        };
        let kept = (self.online).map_or(0, |s| self.kept_of(teacher, s, tokens, targets));
        let blocks = objective.num_blocks() as u64;
        let read = self.read_positions(self.batch_size);
        // Each pair: both states at all positions, then at the targets; squares, products and
        // differences of the two terms.
        let (hidden, taught) = (self.shape.hidden, teacher.hidden);
        let states = blocks * (read * (hidden + taught) + targets * (6 * hidden + 2 * taught));
        (weights, run, states + kept)
    }

    /// Bytes of a batch of the validation.
    fn validation(&self) -> u64 {
        let rows = EVALUATED_AT_ONCE;
        let longest = self.work.longest + 1;
        let tokens = self.tokens(rows * longest, rows);
        let held = held_in_evaluation(&self.shape, &self.settings.training, tokens);
        let around = tokens * (self.items.1 + 2 * self.shape.hidden);
        // Scores of 256 users.
        F32 * (held + around + 256 * self.items.0)
    }

    /// Bytes on disk; those of the teacher's states are counted by who has the data.
    #[must_use]
    pub fn disk(&self, teacher_cache: Option<u64>) -> Disk {
        let stored = self.shape.parameters() + self.projections() + self.table();
        Disk {
            teacher_cache,
            ..Disk::of(self.parameters().trainable, stored)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{BodyDtype, LoraSettings};

    /// SmolLM2-135M.
    fn shape(layers: u64) -> DecoderShape {
        DecoderShape {
            hidden: 576,
            query: 576,
            key_value: 192,
            mlp: 1536,
            layers,
        }
    }

    #[test]
    fn the_published_size_of_smollm2() {
        // 134.5 M with the embedding table of 49152 rows.
        assert_eq!(shape(30).parameters() + 49_152 * 576, 134_515_008);
    }

    #[test]
    fn adapters_of_all_modules() {
        let lora = BodyTraining::Lora(LoraSettings::default());
        let sums = 2 * (576 + 576) + 2 * (576 + 192) + 3 * (576 + 1536);
        assert_eq!(shape(4).trained(&lora), 4 * 16 * sums);
        assert_eq!(shape(4).trained(&BodyTraining::Frozen), 0);
    }

    #[test]
    fn a_body_in_16_bits_is_half_as_large() {
        let memory = |body_dtype| {
            let settings = LlmSettings {
                body_dtype,
                ..LlmSettings::default()
            };
            let run = DecoderRun {
                stage: "teach",
                shape: shape(8),
                settings: &settings,
                checkpointing: false,
                items: (100, 16),
                prompt: (0, 0),
                batch_size: 2,
                targets: Targets::All,
                work: Work {
                    windows: 2,
                    steps: 1,
                    epochs: 1,
                    mean_items: 9.0,
                    most_items: 9,
                    longest: 9,
                    draws: None,
                    parts: 1,
                },
                distillation: None,
                teachers: 1,
                online: None,
            };
            run.memory().weights
        };
        let saved = memory(BodyDtype::F32) - memory(BodyDtype::Bf16);
        assert_eq!(saved, 2 * shape(8).parameters());
    }

    #[test]
    fn checkpointing_keeps_one_layer_and_the_inputs() {
        let shape = shape(24);
        let lora = BodyTraining::Lora(LoraSettings::default());
        let kept = kept_by_layer(&shape, &lora);
        let all = kept_by_layers(&shape, kept, 1000, false);
        let few = kept_by_layers(&shape, kept, 1000, true);
        assert_eq!(all, 24 * kept * 1000);
        assert_eq!(few, (24 * 576 + kept) * 1000);
        assert!(few * 7 < all, "{few} of {all}");
    }
}
