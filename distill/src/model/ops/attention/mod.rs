//! Causal grouped-query attention over packed rows, with rotary positions or without.
//!
//! Tokens are packed without padding: first the prefix that all rows share, then row after row.
//! The prefix sees itself; a row's token sees the prefix and the row up to itself. Positions count
//! from the prefix's first token. Running the prefix once is exact, since under a causal mask its
//! keys and values depend on nothing that follows.

pub(super) mod kernel;
mod rope;

use candle_core::{D, DType, Device, Result, Tensor};

use crate::model::dropout::Mask;

pub use rope::Rope;

/// How packed tokens divide into a shared prefix and rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segments {
    /// Tokens P of the prefix, which come first.
    pub prefix: usize,
    /// Tokens of each row, without the prefix.
    pub lengths: Vec<usize>,
}

impl Segments {
    /// Number of packed tokens.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.prefix + self.lengths.iter().sum::<usize>()
    }

    /// Longest sequence, prefix included.
    #[must_use]
    pub fn longest(&self) -> usize {
        self.prefix + self.lengths.iter().copied().max().unwrap_or(0)
    }

    /// First packed token of each row.
    #[must_use]
    pub fn starts(&self) -> Vec<usize> {
        let mut next = self.prefix;
        (self.lengths.iter())
            .map(|len| {
                let start = next;
                next += len;
                start
            })
            .collect()
    }

    /// Position of each packed token in its sequence.
    pub(super) fn positions(&self) -> Vec<usize> {
        let rows = (self.lengths.iter()).flat_map(|len| self.prefix..self.prefix + len);
        (0..self.prefix).chain(rows).collect()
    }
}

/// Head counts and sizes.
#[derive(Clone, Copy, Debug)]
pub struct Heads {
    /// Query heads.
    pub query: usize,
    /// Key/value heads; a divisor of `query`.
    pub key_value: usize,
    /// Size of one head; even.
    pub dim: usize,
}

/// Dropout of attention weights: which weights of each packed token's query heads are dropped.
#[derive(Clone, Copy, Debug)]
pub struct WeightMask {
    mask: Mask,
    heads: usize,
    positions: usize,
}

impl WeightMask {
    /// The weights of `heads` query heads over `segments` that `mask` drops.
    #[must_use]
    pub fn new(mask: Mask, heads: usize, segments: &Segments) -> Self {
        let positions = segments.longest();
        Self {
            mask,
            heads,
            positions,
        }
    }

    /// Drops out the weights with which a head of a packed token sees its sequence from the first
    /// position on.
    #[inline(always)]
    pub(super) fn multiply(&self, weights: &mut [f32], token: usize, head: usize) {
        let first = (token * self.heads + head) * self.positions;
        self.mask.multiply(weights, first);
    }
}

/// How attention runs beside its queries, keys and values.
#[derive(Clone, Copy, Debug)]
pub struct AttentionSettings<'a> {
    /// Head counts and sizes.
    pub heads: Heads,
    /// How tokens divide into rows.
    pub segments: &'a Segments,
    /// How queries and keys are rotated, if they are.
    pub rope: Option<&'a Rope>,
    /// Dropout of the attention weights.
    pub dropout: Option<WeightMask>,
}

/// Attention of `q [tokens, query * dim]` over `k, v [tokens, key_value * dim]`, before rotation, in
/// tensor operations on rows padded to the longest. Returns `[tokens, query * dim]`.
///
/// # Errors
/// Shapes that do not fit.
pub fn causal_attention_slow(
    (q, k, v): (&Tensor, &Tensor, &Tensor),
    settings: AttentionSettings<'_>,
) -> Result<Tensor> {
    let AttentionSettings {
        heads, segments, ..
    } = settings;
    let (device, dtype) = (q.device(), q.dtype());
    let (rows, longest) = (segments.lengths.len(), segments.longest());
    let pad = padding_index(segments, device)?;
    let rotated = |x: Tensor| match settings.rope {
        Some(rope) => rotate_slow(&x, rope, longest),
        None => Ok(x),
    };
    // [rows, heads, longest, dim]
    let split = |x: &Tensor, heads_of_x: usize| {
        let x = x
            .index_select(&pad, 0)?
            .reshape((rows, longest, heads_of_x, heads.dim))?;
        x.transpose(1, 2)?.contiguous()
    };
    let repeat = |x: Tensor| {
        let groups = heads.query / heads.key_value;
        let shape = (rows, heads.key_value, groups, longest, heads.dim);
        let x = x.unsqueeze(2)?.broadcast_as(shape)?;
        x.reshape((rows, heads.query, longest, heads.dim))
    };
    let q = rotated(split(q, heads.query)?)?;
    let k = rotated(split(k, heads.key_value)?)?;
    let (k, v) = (repeat(k)?, repeat(split(v, heads.key_value)?)?);
    let scores = (q.contiguous()?.matmul(&k.t()?.contiguous()?)? * (heads.dim as f64).powf(-0.5))?;
    let scores = scores.to_dtype(DType::F32)?;
    let scores = scores.broadcast_add(&causal_mask(longest, device)?)?;
    let p = candle_nn::ops::softmax(&scores, D::Minus1)?.to_dtype(dtype)?;
    let p = match settings.dropout {
        Some(dropout) => {
            (p * factors(&dropout, segments)?
                .to_device(device)?
                .to_dtype(dtype)?)?
        }
        None => p,
    };
    let out = p.matmul(&v.contiguous()?)?;
    let out = out
        .transpose(1, 2)?
        .reshape((rows * longest, heads.query * heads.dim))?;
    out.index_select(&packing_index(segments, device)?, 0)
}

fn rotate_slow(x: &Tensor, rope: &Rope, positions: usize) -> Result<Tensor> {
    let table = |values: &[f32]| {
        let shape = (positions, rope.half);
        Tensor::from_slice(&values[..positions * rope.half], shape, x.device())?.to_dtype(x.dtype())
    };
    candle_nn::rotary_emb::rope_slow(x, &table(&rope.cos)?, &table(&rope.sin)?)
}

/// Factors of the weights `[rows, heads, longest, longest]`; at padded places they mean nothing.
fn factors(dropout: &WeightMask, segments: &Segments) -> Result<Tensor> {
    let (rows, longest) = (segments.lengths.len(), segments.longest());
    let mut factors = vec![1f32; rows * dropout.heads * longest * longest];
    let tokens = padding_tokens(segments);
    let of_rows = factors.chunks_mut(dropout.heads * longest * longest);
    for (factors, tokens) in of_rows.zip(tokens.chunks(longest)) {
        for (head, factors) in factors.chunks_mut(longest * longest).enumerate() {
            for (factors, token) in factors.chunks_mut(longest).zip(tokens) {
                dropout.multiply(factors, *token as usize, head);
            }
        }
    }
    Tensor::from_vec(
        factors,
        (rows, dropout.heads, longest, longest),
        &Device::Cpu,
    )
}

/// `[longest, longest]`, minus infinity above the diagonal.
fn causal_mask(longest: usize, device: &Device) -> Result<Tensor> {
    let cell = |(i, j): (usize, usize)| if j > i { f32::NEG_INFINITY } else { 0.0 };
    let cells = (0..longest).flat_map(|i| (0..longest).map(move |j| (i, j)));
    Tensor::from_vec(
        cells.map(cell).collect::<Vec<_>>(),
        (longest, longest),
        device,
    )
}

/// For each padded place, the packed token that stands there (any token for the padding).
fn padding_index(segments: &Segments, device: &Device) -> Result<Tensor> {
    let index = padding_tokens(segments);
    let count = index.len();
    Tensor::from_vec(index, count, device)
}

fn padding_tokens(segments: &Segments) -> Vec<u32> {
    let longest = segments.longest() - segments.prefix;
    let mut index = Vec::new();
    for (start, len) in segments.starts().into_iter().zip(&segments.lengths) {
        index.extend(0..segments.prefix as u32);
        index.extend((0..longest).map(|t| (start + t.min(len.saturating_sub(1))) as u32));
    }
    index
}

/// For each packed token, a padded place where it stands.
fn packing_index(segments: &Segments, device: &Device) -> Result<Tensor> {
    let longest = segments.longest();
    let mut index: Vec<u32> = (0..segments.prefix as u32).collect();
    for (row, len) in segments.lengths.iter().enumerate() {
        let first = row * longest + segments.prefix;
        index.extend((first..first + len).map(|i| i as u32));
    }
    let count = index.len();
    Tensor::from_vec(index, count, device)?.to_dtype(DType::U32)
}
