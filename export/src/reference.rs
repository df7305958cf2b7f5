//! The model written out plainly in ndarray: every position, every layer, f32.
//!
//! It computes the constant keys and values that the graph is folded with, and the expected
//! results that a bundle carries. Speed does not matter here, being readable does.

use ndarray::{Array1, Array2, Array3, ArrayView1, ArrayView2, Axis, concatenate, s};

use crate::model::{Layer, Model};

/// Rotated keys and values of one layer, each `[kv_heads, T, head_dim]`.
#[derive(Clone, Debug)]
pub struct KeyValue {
    /// Keys, rotated to their positions.
    pub keys: Array3<f32>,
    /// Values.
    pub values: Array3<f32>,
}

/// What a pass over a sequence of T positions leaves behind.
#[derive(Clone, Debug)]
pub struct Pass {
    /// Residual stream after each layer, `[T, H]`; the last one is taken after the final norm.
    pub states: Vec<Array2<f32>>,
    /// Keys and values of each layer.
    pub key_values: Vec<KeyValue>,
}

/// Cosines and sines `[positions, head_dim / 2]` of the rotary embedding, from position 0.
#[must_use]
pub fn rotary_table(theta: f64, head_dim: usize, positions: usize) -> (Array2<f32>, Array2<f32>) {
    let angle = |(position, i): (usize, usize)| {
        position as f64 * theta.powf(-2.0 * i as f64 / head_dim as f64)
    };
    let shape = (positions, head_dim / 2);
    (
        Array2::from_shape_fn(shape, |at| angle(at).cos() as f32),
        Array2::from_shape_fn(shape, |at| angle(at).sin() as f32),
    )
}

/// The keys and values of the constant prompt prefix, one entry per layer with T = P.
#[must_use]
pub fn prefix_key_values(model: &Model) -> Vec<KeyValue> {
    forward(model, model.prefix_embeddings().to_owned()).key_values
}

/// User vector `[D]` of a history's item embeddings `[S, D]`, oldest first, S of at least 1.
#[must_use]
pub fn user_vector(model: &Model, history: ArrayView2<'_, f32>) -> Array1<f32> {
    let items = history.dot(&model.item_projection.t()) + &model.item_projection_bias;
    let mut sequence = model.prefix_embeddings().to_owned();
    for part in [items.view(), model.suffix_embeddings()] {
        let rows = [sequence.view(), part];
        sequence =
            concatenate(Axis(0), &rows).unwrap_or_else(|e| unreachable!("all are H wide: {e}"));
    }
    let read = sequence.nrows() - 1;
    let pass = forward(model, sequence);
    let state = &pass.states[pass.states.len() - 1];
    model.user_projection.dot(&state.row(read))
}

/// Runs a sequence of embeddings `[T, H]` through all layers and the final norm.
#[must_use]
pub fn forward(model: &Model, mut x: Array2<f32>) -> Pass {
    let config = &model.config;
    let rotary = rotary_table(config.rope_theta, config.head_size(), x.nrows());
    let eps = config.rms_norm_eps as f32;
    let mut pass = Pass {
        states: Vec::with_capacity(model.layers.len()),
        key_values: Vec::with_capacity(model.layers.len()),
    };
    for layer in &model.layers {
        let normed = rms_norm(x.view(), layer.input_layernorm.view(), eps);
        let (attended, key_value) = attention(model, layer, normed.view(), &rotary);
        x += &attended;
        let normed = rms_norm(x.view(), layer.post_attention_layernorm.view(), eps);
        x += &mlp(layer, normed.view());
        pass.states.push(x.clone());
        pass.key_values.push(key_value);
    }
    if let Some(last) = pass.states.last_mut() {
        *last = rms_norm(x.view(), model.norm.view(), eps);
    }
    pass
}

fn rms_norm(x: ArrayView2<'_, f32>, gain: ArrayView1<'_, f32>, eps: f32) -> Array2<f32> {
    let mut out = x.to_owned();
    for mut row in out.rows_mut() {
        let mean_square = row.dot(&row) / row.len() as f32;
        row /= (mean_square + eps).sqrt();
        row *= &gain;
    }
    out
}

fn mlp(layer: &Layer, x: ArrayView2<'_, f32>) -> Array2<f32> {
    let gate = x.dot(&layer.gate_proj.t());
    let silu = gate.mapv(|v| v / (1.0 + (-v).exp()));
    (silu * x.dot(&layer.up_proj.t())).dot(&layer.down_proj.t())
}

fn attention(
    model: &Model,
    layer: &Layer,
    x: ArrayView2<'_, f32>,
    rotary: &(Array2<f32>, Array2<f32>),
) -> (Array2<f32>, KeyValue) {
    let (heads, kv_heads) = (model.config.num_attention_heads, model.config.kv_heads());
    let head_dim = model.config.head_size();
    let scale = 1.0 / (head_dim as f32).sqrt();
    let mut queries = split_heads(x.dot(&layer.q_proj.t()), heads); // [heads, T, head_dim]
    let mut keys = split_heads(x.dot(&layer.k_proj.t()), kv_heads);
    let values = split_heads(x.dot(&layer.v_proj.t()), kv_heads);
    rotate(&mut queries, rotary);
    rotate(&mut keys, rotary);
    let mut merged = Array2::zeros((x.nrows(), heads * head_dim));
    for head in 0..heads {
        // Consecutive query heads share one key/value head.
        let shared = head / (heads / kv_heads);
        let query = queries.index_axis(Axis(0), head);
        let key = keys.index_axis(Axis(0), shared);
        let scores = query.dot(&key.t()) * scale; // [T, T]
        let weights = causal_softmax(scores);
        let columns = head * head_dim..(head + 1) * head_dim;
        let out = weights.dot(&values.index_axis(Axis(0), shared));
        merged.slice_mut(s![.., columns]).assign(&out);
    }
    (merged.dot(&layer.o_proj.t()), KeyValue { keys, values })
}

/// `[T, heads * head_dim]` to `[heads, T, head_dim]`.
fn split_heads(x: Array2<f32>, heads: usize) -> Array3<f32> {
    let head_dim = x.ncols() / heads;
    Array3::from_shape_fn((heads, x.nrows(), head_dim), |(head, t, i)| {
        x[[t, head * head_dim + i]]
    })
}

/// Rotates pairs `(i, i + head_dim / 2)`, the order of Hugging Face checkpoints.
fn rotate(x: &mut Array3<f32>, (cos, sin): &(Array2<f32>, Array2<f32>)) {
    let (_, positions, head_dim) = x.dim();
    let half = head_dim / 2;
    for mut head in x.outer_iter_mut() {
        for t in 0..positions {
            for i in 0..half {
                let (a, b) = (head[[t, i]], head[[t, i + half]]);
                head[[t, i]] = a * cos[[t, i]] - b * sin[[t, i]];
                head[[t, i + half]] = b * cos[[t, i]] + a * sin[[t, i]];
            }
        }
    }
}

fn causal_softmax(mut scores: Array2<f32>) -> Array2<f32> {
    for (t, mut row) in scores.rows_mut().into_iter().enumerate() {
        row.slice_mut(s![t + 1..]).fill(f32::NEG_INFINITY);
        let max = row.fold(f32::NEG_INFINITY, |m, v| m.max(*v));
        row.mapv_inplace(|v| (v - max).exp());
        let sum = row.sum();
        row /= sum;
    }
    scores
}
