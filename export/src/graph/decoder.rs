//! The recommender's graph, in its folded and its plain form.
//!
//! Shapes are written for one history: T positions run (S items and R suffix tokens, in the plain
//! form also the P prefix tokens), C positions are given by their keys and values (folded: the P
//! prefix tokens and what else an earlier run has left, plain: 0).
//!
//! Where a shape cannot be followed from the inputs' (behind a slice to a computed length, or a
//! `-1`), it is stated. ONNX Runtime compares every buffer that it plans with all that are free; of
//! unknown sizes none is ever reused, and opening a graph takes more than twice as long.

use ndarray::{Array1, Array2, Array3, Axis as NdAxis};
use slmrec_core::certificate::Quantization;
use slmrec_core::manifest::{Precision, past_name, present_name};

use super::builder::{Axis, GraphBuilder, int, ints};
use super::linear::{Linears, Weight};
use super::{INPUT, OUTPUT};
use crate::error::ExportError;
use crate::model::{Layer, Model};
use crate::reference;

mod attention;

use attention::Attention;

/// Added to scores of positions that may not be seen: the softmax makes an exact zero of it.
const MASKED: f32 = -1e9;
/// The length of the history, S.
const HISTORY: Axis<'static> = Axis::Free("history");
/// All positions, C + T.
const ALL: Axis<'static> = Axis::Free("all");
/// An end that every slice is clipped to.
const TO_THE_END: i64 = i64::MAX;

/// How much of what is known at export the graph makes use of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Prefix as constant keys and values, last layer only where it is read, gains and scales
    /// multiplied into weights.
    Folded,
    /// The model as it is written down, prompt tokens and all positions in every layer: what the
    /// folded form is compared with.
    Plain,
}

/// Writes a model as an ONNX file.
///
/// # Errors
/// Weights that half precision cannot hold, or a file beyond the format's limit.
pub(crate) fn encoder_onnx(
    model: &Model,
    precision: Precision,
    quantization: Quantization,
    form: Form,
) -> Result<Vec<u8>, ExportError> {
    let mut decoder = Decoder {
        b: GraphBuilder::new("slmrec-encoder"),
        linears: Linears::new(precision, quantization),
        model,
        form,
    };
    decoder.encoder()?;
    decoder.b.finish()
}

struct Decoder<'a> {
    b: GraphBuilder,
    linears: Linears,
    model: &'a Model,
    form: Form,
}

/// Values that all layers share.
struct Shared {
    /// Cosines `[T, head_dim]`, both halves alike.
    cos: String,
    /// Sines `[T, head_dim]`, the first half negative.
    sin: String,
    /// `[T, C + T]`, added to attention scores.
    mask: String,
    /// T.
    positions: Axis<'static>,
}

/// What a layer keeps of earlier positions.
struct Past {
    keys: Kept,
    values: Kept,
}

/// Names of the input with earlier positions and of the output that has the new ones behind them.
struct Kept {
    past: String,
    present: String,
}

/// A normed input and the gain that is still missing from it.
struct Normed {
    value: String,
    /// To be multiplied into the next matrices; `None` when the graph has applied it.
    gain: Option<Array1<f32>>,
}

impl Decoder<'_> {
    fn encoder(&mut self) -> Result<(), ExportError> {
        let dim = self.model.recommender.item_dim;
        let axes = [Axis::Fixed(1), HISTORY, Axis::Fixed(dim)];
        self.b.input(INPUT, &axes);
        self.b.output(OUTPUT, &[Axis::Fixed(1), Axis::Fixed(dim)]);

        let mut x = self.embeddings()?; // [T, H]
        let past = match self.form {
            Form::Folded => self.past(),
            Form::Plain => vec![],
        };
        let shared = self.shared(&x, past.first());
        for (index, layer) in self.model.layers.iter().enumerate() {
            let last = index + 1 == self.model.layers.len();
            let only_read = last && self.form == Form::Folded;
            x = self.layer(index, layer, &x, &shared, past.get(index), only_read)?;
        }
        let normed = self.norm("norm", &x, &self.model.norm);
        let hidden = self.model.config.hidden_size;
        let read = self.last_row("norm.read", &normed.value, hidden); // [1, H]
        let weight = Weight::new(OUTPUT, &self.model.user_projection);
        let weight = fold(weight, normed.gain.as_ref());
        self.linears.apply_small(&mut self.b, &read, &weight)?;
        Ok(())
    }

    /// Projected items with the prompt tokens around them, `[T, H]`.
    fn embeddings(&mut self) -> Result<String, ExportError> {
        let model = self.model;
        let axis = self.b.integers("embed.batch_axis", &[0]);
        let items = self.b.node("Squeeze", "embed.history", &[INPUT, &axis]); // [S, D]
        let weight = Weight::new("embed.item_projection", &model.item_projection);
        let items = self.linears.apply_small(&mut self.b, &items, &weight)?;
        let bias = &model.item_projection_bias;
        let bias = self.b.floats("embed.item_bias", &[bias.len()], bias);
        let items = self.b.node("Add", "embed.items", &[&items, &bias]);
        let mut parts = vec![items];
        if self.form == Form::Plain && model.prefix_len() > 0 {
            let prefix = model.prefix_embeddings();
            parts.insert(0, self.b.floats("embed.prefix", prefix.shape(), prefix));
        }
        if model.suffix_len() > 0 {
            let suffix = model.suffix_embeddings();
            parts.push(self.b.floats("embed.suffix", suffix.shape(), suffix));
        }
        if parts.len() == 1 {
            return Ok(parts.remove(0));
        }
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let axis = vec![int("axis", 0)];
        let sequence = self.b.node_with("Concat", "embed.sequence", &parts, axis);
        let shape = [self.positions(), Axis::Fixed(model.config.hidden_size)];
        self.b.shape(&sequence, &shape);
        Ok(sequence)
    }

    /// The keys and values of earlier positions, by layer: inputs whose defaults are those of the
    /// prefix, `[kv, 1, C, head_dim]`.
    fn past(&mut self) -> Vec<Past> {
        let kv = self.model.config.kv_heads();
        let head_dim = self.model.config.head_size();
        let axes = |positions| {
            let (kv, head_dim) = (Axis::Fixed(kv), Axis::Fixed(head_dim));
            [kv, Axis::Fixed(1), positions, head_dim]
        };
        let prefix = reference::prefix_key_values(self.model);
        let layers = prefix.iter().enumerate().map(|(layer, prefix)| {
            let mut declare = |part: &str, values: &Array3<f32>| {
                let shape = [kv, 1, values.len_of(NdAxis(1)), head_dim];
                let present = present_name(layer, part);
                self.b.output(&present, &axes(ALL));
                let name = past_name(layer, part);
                let past_axes = axes(Axis::Free("past"));
                let past = self.b.input_with_default(&name, &past_axes, &shape, values);
                Kept { past, present }
            };
            Past {
                keys: declare("keys", &prefix.keys),
                values: declare("values", &prefix.values),
            }
        });
        layers.collect()
    }

    /// Rotary tables and causal mask, made for the longest history and cut to this one.
    fn shared(&mut self, x: &str, past: Option<&Past>) -> Shared {
        let model = self.model;
        let all = model.prefix_len() + model.recommender.max_history + model.suffix_len();
        let head_dim = model.config.head_size();
        let (cos, sin) = reference::rotary_table(model.config.rope_theta, head_dim, all);
        let wide = |left: &Array2<f32>, right: &Array2<f32>| -> Vec<f32> {
            let rows = left.rows().into_iter().zip(right.rows());
            rows.flat_map(|(l, r)| [l.to_vec(), r.to_vec()].concat())
                .collect()
        };
        let shape = [all, head_dim];
        let cos = self.b.floats("rotary.cos_all", &shape, &wide(&cos, &cos));
        let sin = self.b.floats("rotary.sin_all", &shape, &wide(&-&sin, &sin));
        let mask = Array2::from_shape_fn(
            (all, all),
            |(row, column)| {
                if column > row { MASKED } else { 0.0 }
            },
        );
        let mask = self.b.floats("mask.all", mask.shape(), &mask);

        let zero = self.b.integers("zero", &[0]);
        let run = self.length("sequence", x, &zero); // [1]: T
        let before = match past {
            Some(past) => {
                let positions = self.b.integers("past.positions_axis", &[2]);
                self.length("past", &past.keys.past, &positions) // [1]: C
            }
            None => zero.clone(),
        };
        let total = self.b.node("Add", "sequence.total", &[&before, &run]); // [1]: C + T
        let columns = self.b.integers("mask.columns_axis", &[1]);
        let mut cut = |name: &str, from: &str, start: &str, axis: &str| {
            self.b.node("Slice", name, &[from, start, &total, axis])
        };
        let rows = cut("mask.rows", &mask, &before, &zero);
        let shared = Shared {
            cos: cut("rotary.cos", &cos, &before, &zero),
            sin: cut("rotary.sin", &sin, &before, &zero),
            mask: cut("mask", &rows, &zero, &columns),
            positions: self.positions(),
        };
        let positions = shared.positions;
        for table in [&shared.cos, &shared.sin] {
            self.b.shape(table, &[positions, Axis::Fixed(head_dim)]);
        }
        let seen = match past {
            Some(_) => ALL,
            None => positions,
        };
        self.b.shape(&rows, &[positions, Axis::Fixed(all)]);
        self.b.shape(&shared.mask, &[positions, seen]);
        shared
    }

    /// T: the history alone, or with prompt tokens.
    fn positions(&self) -> Axis<'static> {
        let prompt = match self.form {
            Form::Folded => 0,
            Form::Plain => self.model.prefix_len(),
        } + self.model.suffix_len();
        match prompt {
            0 => HISTORY,
            _ => Axis::Free("positions"),
        }
    }

    /// The length of an axis, as a vector of one number.
    fn length(&mut self, name: &str, x: &str, axis: &str) -> String {
        let shape = self.b.node("Shape", &format!("{name}.shape"), &[x]);
        let length = format!("{name}.length");
        self.b.node("Gather", &length, &[&shape, axis])
    }

    /// One decoder layer, `[T, H]` to `[T, H]`, or to `[1, H]` where only the last is read.
    fn layer(
        &mut self,
        index: usize,
        layer: &Layer,
        x: &str,
        shared: &Shared,
        past: Option<&Past>,
        only_read: bool,
    ) -> Result<String, ExportError> {
        let name = |part: &str| format!("layers.{index}.{part}");
        let normed = self.norm(&name("input_layernorm"), x, &layer.input_layernorm);
        let attention = Attention {
            scope: name("self_attn"),
            layer,
            shared,
            past,
            only_read,
        };
        let attended = self.attention(&attention, &normed)?;
        let residual = match only_read {
            true => self.last_row(&name("residual"), x, self.model.config.hidden_size),
            false => x.to_owned(),
        };
        let x = self
            .b
            .node("Add", &name("attended"), &[&residual, &attended]);
        let gain = &layer.post_attention_layernorm;
        let normed = self.norm(&name("post_attention_layernorm"), &x, gain);
        let out = self.mlp(&name("mlp"), layer, &normed)?;
        Ok(self.b.node("Add", &name("output"), &[&x, &out]))
    }

    /// `x / rms(x)`; the gain is left to the following matrices where the form allows it.
    fn norm(&mut self, name: &str, x: &str, gain: &Array1<f32>) -> Normed {
        let part = |part: &str| format!("{name}.{part}");
        let eps = [self.model.config.rms_norm_eps as f32];
        let eps = self.b.floats(&part("eps"), &[1], &eps);
        let square = self.b.node("Mul", &part("square"), &[x, x]);
        let over_rows = vec![ints("axes", &[-1]), int("keepdims", 1)];
        let mean = self
            .b
            .node_with("ReduceMean", &part("mean"), &[&square], over_rows);
        let mean = self.b.node("Add", &part("mean_eps"), &[&mean, &eps]);
        let rms = self.b.node("Sqrt", &part("rms"), &[&mean]);
        let value = self.b.node("Div", &part("normed"), &[x, &rms]);
        match self.form {
            Form::Folded if self.linears.holds_eight_bits() => {
                // Half of the gain (its square root) stays with the activations, so that neither
                // they nor the weights have to bear all of its spread in eight bits.
                let root = gain.mapv(|g| g.abs().sqrt());
                let rest = gain.mapv(|g| g.signum() * g.abs().sqrt());
                let root = self.b.floats(&part("gain"), &[root.len()], &root);
                let value = self.b.node("Mul", name, &[&value, &root]);
                Normed {
                    value,
                    gain: Some(rest),
                }
            }
            Form::Folded => Normed {
                value,
                gain: Some(gain.clone()),
            },
            Form::Plain => {
                let gain = self.b.floats(&part("gain"), &[gain.len()], gain);
                let value = self.b.node("Mul", name, &[&value, &gain]);
                Normed { value, gain: None }
            }
        }
    }

    fn mlp(&mut self, name: &str, layer: &Layer, x: &Normed) -> Result<String, ExportError> {
        let part = |part: &str| format!("{name}.{part}");
        let gate = self.project(&part("gate_proj"), &layer.gate_proj, x)?;
        let up = self.project(&part("up_proj"), &layer.up_proj, x)?;
        let sigmoid = self.b.node("Sigmoid", &part("sigmoid"), &[&gate]);
        let silu = self.b.node("Mul", &part("silu"), &[&gate, &sigmoid]);
        let inner = self.b.node("Mul", &part("inner"), &[&silu, &up]);
        let down = Weight::new(&part("down_proj"), &layer.down_proj);
        self.linears.apply_down(&mut self.b, &inner, &down)
    }

    fn project(
        &mut self,
        name: &str,
        matrix: &Array2<f32>,
        x: &Normed,
    ) -> Result<String, ExportError> {
        let weight = fold(Weight::new(name, matrix), x.gain.as_ref());
        self.linears.apply(&mut self.b, &x.value, &weight)
    }

    /// The last row of `[T, n]`, as `[1, n]`.
    fn last_row(&mut self, name: &str, x: &str, n: usize) -> String {
        let start = self.b.integers(&format!("{name}.start"), &[-1]);
        let end = self.b.integers(&format!("{name}.end"), &[TO_THE_END]);
        let axis = self.b.integers(&format!("{name}.axis"), &[0]);
        let row = self.b.node("Slice", name, &[x, &start, &end, &axis]);
        self.b.shape(&row, &[Axis::Fixed(1), Axis::Fixed(n)]);
        row
    }
}

fn fold(weight: Weight, gain: Option<&Array1<f32>>) -> Weight {
    match gain {
        Some(gain) => weight.scale_inputs(gain),
        None => weight,
    }
}
