//! Causal grouped-query attention with rotary positions over packed rows.
//!
//! Tokens are packed without padding: first the prefix that all rows share, then row after row.
//! The prefix sees itself; a row's token sees the prefix and the row up to itself. Positions count
//! from the prefix's first token. Running the prefix once is exact, since under a causal mask its
//! keys and values depend on nothing that follows.

use std::ops::Range;
use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp3, D, DType, Device, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::{add_scaled, cpu_slice, dot, fused, with_slice};

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

    /// Token ranges that attend among themselves: the prefix (when there is one), then each row.
    fn ranges(&self) -> Vec<Range<usize>> {
        let prefix = (self.prefix > 0).then_some(0..self.prefix);
        let rows = self.starts().into_iter().zip(&self.lengths);
        prefix
            .into_iter()
            .chain(rows.map(|(start, len)| start..start + len))
            .collect()
    }
}

/// Cosines and sines of the rotary positions, `[positions, head_dim / 2]`.
#[derive(Clone, Debug)]
pub struct Rope {
    cos: Arc<Vec<f32>>,
    sin: Arc<Vec<f32>>,
    half: usize,
}

impl Rope {
    /// The table of `positions` positions for frequencies `theta^(-2i / head_dim)`.
    #[must_use]
    pub fn new(positions: usize, head_dim: usize, theta: f64) -> Self {
        let half = head_dim / 2;
        let angles = (0..positions).flat_map(|position| {
            (0..half).map(move |i| {
                let frequency = theta.powf(-2.0 * i as f64 / head_dim as f64) as f32;
                position as f32 * frequency
            })
        });
        let angles: Vec<f32> = angles.collect();
        Self {
            cos: Arc::new(angles.iter().map(|a| a.cos()).collect()),
            sin: Arc::new(angles.iter().map(|a| a.sin()).collect()),
            half,
        }
    }

    /// Number of positions in the table.
    #[must_use]
    pub fn positions(&self) -> usize {
        self.cos.len() / self.half.max(1)
    }

    /// Rotates one head by its position, or back with `sign` -1.
    fn rotate(&self, head: &mut [f32], position: usize, sign: f32) {
        let table = position * self.half..(position + 1) * self.half;
        let (first, second) = head.split_at_mut(self.half);
        let angles = self.cos[table.clone()].iter().zip(&self.sin[table]);
        for ((a, b), (cos, sin)) in first.iter_mut().zip(second).zip(angles) {
            let (x, y, sin) = (*a, *b, sin * sign);
            *a = x * cos - y * sin;
            *b = y * cos + x * sin;
        }
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

/// Attention of `q [tokens, query * dim]` over `k, v [tokens, key_value * dim]`, before rotation.
/// Returns `[tokens, query * dim]`.
///
/// # Errors
/// Shapes that do not fit, or more positions than the table has.
pub fn causal_attention(
    (q, k, v): (&Tensor, &Tensor, &Tensor),
    heads: Heads,
    segments: &Arc<Segments>,
    rope: &Rope,
) -> Result<Tensor> {
    let tokens = segments.tokens();
    for (x, count) in [(q, heads.query), (k, heads.key_value), (v, heads.key_value)] {
        if x.dims() != [tokens, count * heads.dim] {
            candle_core::bail!(
                "attention: {:?} is not [{tokens}, {count} * {}]",
                x.shape(),
                heads.dim
            );
        }
    }
    if segments.longest() > rope.positions() {
        candle_core::bail!(
            "{} positions asked for, {} prepared",
            segments.longest(),
            rope.positions()
        );
    }
    if !fused(q) {
        return causal_attention_slow((q, k, v), heads, segments, rope);
    }
    let op = CausalAttention {
        heads,
        segments: segments.clone(),
        rope: rope.clone(),
    };
    q.contiguous()?
        .apply_op3(&k.contiguous()?, &v.contiguous()?, op)
}

/// The same in tensor operations, on rows padded to the longest.
///
/// # Errors
/// Shapes that do not fit.
pub fn causal_attention_slow(
    (q, k, v): (&Tensor, &Tensor, &Tensor),
    heads: Heads,
    segments: &Segments,
    rope: &Rope,
) -> Result<Tensor> {
    let (device, dtype) = (q.device(), q.dtype());
    let (rows, longest) = (segments.lengths.len(), segments.longest());
    let pad = padding_index(segments, device)?;
    let table = |values: &[f32]| {
        Tensor::from_slice(&values[..longest * rope.half], (longest, rope.half), device)?
            .to_dtype(dtype)
    };
    let (cos, sin) = (table(&rope.cos)?, table(&rope.sin)?);
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
    let q = candle_nn::rotary_emb::rope_slow(&split(q, heads.query)?, &cos, &sin)?;
    let k = candle_nn::rotary_emb::rope_slow(&split(k, heads.key_value)?, &cos, &sin)?;
    let (k, v) = (repeat(k)?, repeat(split(v, heads.key_value)?)?);
    let scores = (q.contiguous()?.matmul(&k.t()?.contiguous()?)? * (heads.dim as f64).powf(-0.5))?;
    let scores = scores.broadcast_add(&causal_mask(longest, device)?.to_dtype(dtype)?)?;
    let out = candle_nn::ops::softmax(&scores, D::Minus1)?.matmul(&v.contiguous()?)?;
    let out = out
        .transpose(1, 2)?
        .reshape((rows * longest, heads.query * heads.dim))?;
    out.index_select(&packing_index(segments, device)?, 0)
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
    let longest = segments.longest() - segments.prefix;
    let mut index = Vec::new();
    for (start, len) in segments.starts().into_iter().zip(&segments.lengths) {
        index.extend(0..segments.prefix as u32);
        index.extend((0..longest).map(|t| (start + t.min(len.saturating_sub(1))) as u32));
    }
    let count = index.len();
    Tensor::from_vec(index, count, device)
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

struct CausalAttention {
    heads: Heads,
    segments: Arc<Segments>,
    rope: Rope,
}

/// Rotated queries and keys, and values.
struct Inputs<'a> {
    q: Vec<f32>,
    k: Vec<f32>,
    v: &'a [f32],
}

/// Gradients of one token range.
struct RangeGradients {
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    prefix_k: Vec<f32>,
    prefix_v: Vec<f32>,
}

impl CausalAttention {
    fn q_width(&self) -> usize {
        self.heads.query * self.heads.dim
    }

    fn kv_width(&self) -> usize {
        self.heads.key_value * self.heads.dim
    }

    /// Position of a packed token, given the range it stands in.
    fn position(&self, range: &Range<usize>, token: usize) -> usize {
        if range.start < self.segments.prefix {
            token
        } else {
            self.segments.prefix + token - range.start
        }
    }

    /// Rotates the heads of all tokens by their positions, or back with `sign` -1.
    fn rotate(&self, x: &mut [f32], width: usize, sign: f32) {
        for range in self.segments.ranges() {
            x[range.start * width..range.end * width]
                .par_chunks_mut(width)
                .with_min_len(16)
                .enumerate()
                .for_each(|(offset, token)| {
                    let position = self.position(&range, range.start + offset);
                    for head in token.chunks_mut(self.heads.dim) {
                        self.rope.rotate(head, position, sign);
                    }
                });
        }
    }

    fn inputs<'a>(&self, q: &[f32], k: &[f32], v: &'a [f32]) -> Inputs<'a> {
        let (mut q, mut k) = (q.to_vec(), k.to_vec());
        self.rotate(&mut q, self.q_width(), 1.0);
        self.rotate(&mut k, self.kv_width(), 1.0);
        Inputs { q, k, v }
    }

    /// Packed tokens that `token` of `range` sees.
    fn visible(&self, range: &Range<usize>, token: usize) -> impl Iterator<Item = usize> + use<> {
        let prefix = if range.start < self.segments.prefix {
            0
        } else {
            self.segments.prefix
        };
        (0..prefix).chain(range.start..token + 1)
    }

    /// Softmax of the scaled scores of one query over what it sees.
    fn probabilities(
        &self,
        query: &[f32],
        keys: &[f32],
        visible: impl Iterator<Item = usize>,
        out: &mut Vec<f32>,
    ) {
        let scale = (self.heads.dim as f32).sqrt().recip();
        out.clear();
        let width = self.kv_width();
        out.extend(visible.map(|j| scale * dot(query, &keys[j * width..][..self.heads.dim])));
        let highest = out.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let mut sum = 0.0;
        for p in out.iter_mut() {
            *p = (*p - highest).exp();
            sum += *p;
        }
        for p in out {
            *p /= sum;
        }
    }

    fn range_forward(&self, x: &Inputs<'_>, range: &Range<usize>, out: &mut [f32]) {
        let (dim, groups) = (self.heads.dim, self.heads.query / self.heads.key_value);
        let mut p = Vec::new();
        for head in 0..self.heads.query {
            let kv = head / groups * dim;
            for token in range.clone() {
                let query = &x.q[token * self.q_width() + head * dim..][..dim];
                self.probabilities(query, &x.k[kv..], self.visible(range, token), &mut p);
                let out = &mut out[(token - range.start) * self.q_width() + head * dim..][..dim];
                for (j, p) in self.visible(range, token).zip(&p) {
                    add_scaled(out, &x.v[j * self.kv_width() + kv..][..dim], *p);
                }
            }
        }
    }

    fn range_backward(&self, x: &Inputs<'_>, range: &Range<usize>, grad: &[f32]) -> RangeGradients {
        let (dim, groups) = (self.heads.dim, self.heads.query / self.heads.key_value);
        let (q_width, kv_width) = (self.q_width(), self.kv_width());
        let prefix = if range.start < self.segments.prefix {
            0
        } else {
            self.segments.prefix
        };
        let zeros = |tokens: usize, width: usize| vec![0f32; tokens * width];
        let mut d = RangeGradients {
            q: zeros(range.len(), q_width),
            k: zeros(range.len(), kv_width),
            v: zeros(range.len(), kv_width),
            prefix_k: zeros(prefix, kv_width),
            prefix_v: zeros(prefix, kv_width),
        };
        let scale = (dim as f32).sqrt().recip();
        let (mut p, mut dp) = (Vec::new(), Vec::new());
        for head in 0..self.heads.query {
            let kv = head / groups * dim;
            for token in range.clone() {
                let query = &x.q[token * q_width + head * dim..][..dim];
                let grad = &grad[token * q_width + head * dim..][..dim];
                self.probabilities(query, &x.k[kv..], self.visible(range, token), &mut p);
                dp.clear();
                dp.extend(
                    self.visible(range, token)
                        .map(|j| dot(grad, &x.v[j * kv_width + kv..][..dim])),
                );
                let mean = dot(&p, &dp);
                let dq = &mut d.q[(token - range.start) * q_width + head * dim..][..dim];
                for (j, (p, dp)) in self.visible(range, token).zip(p.iter().zip(&dp)) {
                    let ds = p * (dp - mean) * scale;
                    add_scaled(dq, &x.k[j * kv_width + kv..][..dim], ds);
                    let (dk, dv, row) = if j < range.start {
                        (&mut d.prefix_k, &mut d.prefix_v, j)
                    } else {
                        (&mut d.k, &mut d.v, j - range.start)
                    };
                    add_scaled(&mut dk[row * kv_width + kv..][..dim], query, ds);
                    add_scaled(&mut dv[row * kv_width + kv..][..dim], grad, *p);
                }
            }
        }
        d
    }

    /// Gradients of q, k and v before rotation.
    fn gradients(&self, x: &Inputs<'_>, grad: &[f32]) -> [Vec<f32>; 3] {
        let ranges = self.segments.ranges();
        let parts: Vec<RangeGradients> = ranges
            .par_iter()
            .map(|range| self.range_backward(x, range, grad))
            .collect();
        let (mut q, mut k, mut v) = (Vec::new(), Vec::new(), Vec::new());
        for part in &parts {
            q.extend_from_slice(&part.q);
            k.extend_from_slice(&part.k);
            v.extend_from_slice(&part.v);
        }
        for part in &parts {
            add_scaled(&mut k[..part.prefix_k.len()], &part.prefix_k, 1.0);
            add_scaled(&mut v[..part.prefix_v.len()], &part.prefix_v, 1.0);
        }
        self.rotate(&mut q, self.q_width(), -1.0);
        self.rotate(&mut k, self.kv_width(), -1.0);
        [q, k, v]
    }
}

/// Cuts `x` into the rows of each range, which follow each other without gaps.
fn cut<'a>(mut x: &'a mut [f32], ranges: &[Range<usize>], width: usize) -> Vec<&'a mut [f32]> {
    let mut parts = Vec::with_capacity(ranges.len());
    for range in ranges {
        let (part, rest) = std::mem::take(&mut x).split_at_mut(range.len() * width);
        parts.push(part);
        x = rest;
    }
    parts
}

impl CustomOp3 for CausalAttention {
    fn name(&self) -> &'static str {
        "causal-attention"
    }

    fn cpu_fwd(
        &self,
        q: &CpuStorage,
        q_layout: &Layout,
        k: &CpuStorage,
        k_layout: &Layout,
        v: &CpuStorage,
        v_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (q, k, v) = (
            cpu_slice(q, q_layout)?,
            cpu_slice(k, k_layout)?,
            cpu_slice(v, v_layout)?,
        );
        let x = self.inputs(q, k, v);
        let ranges = self.segments.ranges();
        let mut out = vec![0f32; q.len()];
        (cut(&mut out, &ranges, self.q_width())
            .into_par_iter()
            .zip(&ranges))
        .for_each(|(out, range)| self.range_forward(&x, range, out));
        Ok((CpuStorage::F32(out), q_layout.shape().clone()))
    }

    fn bwd(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        _out: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let [dq, dk, dv] = with_slice(q, |qs| {
            with_slice(k, |ks| {
                with_slice(v, |vs| {
                    with_slice(grad, |g| Ok(self.gradients(&self.inputs(qs, ks, vs), g)))
                })
            })
        })?;
        Ok((
            Some(Tensor::from_vec(dq, q.shape(), q.device())?),
            Some(Tensor::from_vec(dk, k.shape(), k.device())?),
            Some(Tensor::from_vec(dv, v.shape(), v.device())?),
        ))
    }
}
