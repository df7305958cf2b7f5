//! Causal attention over packed rows and its gradient, for f32 in CPU memory.
//!
//! A part is what attends among itself: the prefix, or one row (which sees the prefix too). For each
//! key/value head of a part, keys and values are copied out once, transposed where the inner loop
//! runs over them, and every query head of the group uses the copies.

use std::ops::Range;

use rayon::prelude::*;

use super::super::exp::exp;
use super::super::matrix::Matrix;
use super::super::rows::Rows;
use super::super::simd::{LANES, add_product, add_scaled, dot, vectorized};
use super::{Heads, Rope, Segments, WeightMask};

/// Rows per task of the rotation.
const ROWS: usize = 32;

/// Attention of the queries at some packed tokens over the keys and values of all.
pub(in super::super) struct Attention<'a> {
    pub(in super::super) heads: Heads,
    pub(in super::super) segments: &'a Segments,
    /// How queries and keys are rotated, if they are.
    pub(in super::super) rope: Option<&'a Rope>,
    pub(in super::super) dropout: Option<WeightMask>,
    /// The packed tokens that have a query, ascending.
    pub(in super::super) queries: Rows<'a>,
}

/// Packed tokens that attend among themselves, and which rows of the queries are theirs.
struct Part {
    tokens: Range<usize>,
    queries: Range<usize>,
    /// Tokens of the prefix that they see besides.
    prefix: usize,
}

/// Keys and values of one head as a part sees them, oldest first.
struct Context {
    len: usize,
    /// `len` rounded up to whole blocks.
    padded: usize,
    /// Head size rounded up to whole blocks.
    width: usize,
    /// `[dim, padded]`
    keys_transposed: Vec<f32>,
    /// `[len, width]`
    values: Vec<f32>,
}

/// Gradients that one part gives.
struct PartGradient {
    queries: Vec<f32>,
    keys_values: Vec<f32>,
    prefix_keys_values: Vec<f32>,
}

fn padded(len: usize) -> usize {
    len.next_multiple_of(LANES)
}

impl Attention<'_> {
    fn q_width(&self) -> usize {
        self.heads.query * self.heads.dim
    }

    fn kv_width(&self) -> usize {
        self.heads.key_value * self.heads.dim
    }

    /// Rotates queries `[queries, query * dim]`, or back with `sign` -1.
    pub(in super::super) fn rotate_queries(&self, q: &mut Matrix, sign: f32) {
        self.rotate(q, self.queries, self.q_width(), sign);
    }

    /// Rotates the keys of `keys | values [tokens, 2 * key_value * dim]`, or back with `sign` -1.
    pub(in super::super) fn rotate_keys(&self, kv: &mut Matrix, sign: f32) {
        self.rotate(kv, Rows::All, self.kv_width(), sign);
    }

    fn rotate(&self, x: &mut Matrix, tokens: Rows<'_>, width: usize, sign: f32) {
        let Some(rope) = self.rope else { return };
        let positions = self.segments.positions();
        let stride = x.columns;
        let tasks = x.values_mut().par_chunks_mut(ROWS * stride);
        tasks.enumerate().for_each(|(task, rows)| {
            vectorized(
                #[inline(always)]
                || {
                    for (at, row) in rows.chunks_mut(stride).enumerate() {
                        let position = positions[tokens.row(task * ROWS + at)];
                        for head in row[..width].chunks_mut(self.heads.dim) {
                            rope.rotate(head, position, sign);
                        }
                    }
                },
            );
        });
    }

    fn parts(&self) -> Vec<Part> {
        let prefix = self.segments.prefix;
        let rows = self
            .segments
            .starts()
            .into_iter()
            .zip(&self.segments.lengths);
        let own = (prefix > 0).then_some((0..prefix, 0));
        let tokens = own
            .into_iter()
            .chain(rows.map(|(start, len)| (start..start + len, prefix)));
        let before = |token: usize| match self.queries {
            Rows::All => token,
            Rows::Some(rows) => rows.partition_point(|row| (*row as usize) < token),
        };
        tokens
            .map(|(tokens, prefix)| Part {
                queries: before(tokens.start)..before(tokens.end),
                tokens,
                prefix,
            })
            .collect()
    }

    /// Rotated queries `[queries, query * dim]` over rotated `keys | values [tokens, 2 * key_value * dim]`;
    /// the result has the shape of the queries.
    pub(in super::super) fn forward(&self, q: &Matrix, kv: &Matrix) -> Matrix {
        let parts = self.parts();
        let mut out = Matrix::zeros(q.rows, self.q_width());
        cut(out.values_mut(), &parts, self.q_width())
            .into_par_iter()
            .zip(&parts)
            .for_each(|(out, part)| self.part_forward(part, q, kv, out));
        out
    }

    fn part_forward(&self, part: &Part, q: &Matrix, kv: &Matrix, out: &mut [f32]) {
        let (dim, groups) = (self.heads.dim, self.heads.query / self.heads.key_value);
        for kv_head in 0..self.heads.key_value {
            let context = self.context(part, kv, kv_head);
            let mut p = vec![0f32; context.padded];
            let mut mixed = vec![0f32; context.width];
            for head in kv_head * groups..(kv_head + 1) * groups {
                for (at, row) in part.queries.clone().enumerate() {
                    let query = &q.values()[row * q.columns + head * dim..][..dim];
                    let seen = self.seen(part, row);
                    vectorized(
                        #[inline(always)]
                        || {
                            probabilities(query, &context.keys_transposed, &mut p, seen);
                            if let Some(dropout) = self.dropout {
                                dropout.multiply(&mut p[..seen], self.queries.row(row), head);
                            }
                            mixed.fill(0.0);
                            add_product(&mut mixed, &p[..seen], &context.values, context.width);
                        },
                    );
                    out[at * self.q_width() + head * dim..][..dim].copy_from_slice(&mixed[..dim]);
                }
            }
        }
    }

    /// Number of tokens that a query sees.
    fn seen(&self, part: &Part, row: usize) -> usize {
        part.prefix + self.queries.row(row) - part.tokens.start + 1
    }

    fn context(&self, part: &Part, kv: &Matrix, head: usize) -> Context {
        let dim = self.heads.dim;
        let len = part.prefix + part.tokens.len();
        let key = |token: usize| &kv.values()[token * kv.columns + head * dim..][..dim];
        let value =
            |token: usize| &kv.values()[token * kv.columns + self.kv_width() + head * dim..][..dim];
        let tokens = || (0..part.prefix).chain(part.tokens.clone());
        Context {
            len,
            padded: padded(len),
            width: padded(dim),
            keys_transposed: transposed(tokens().map(key), dim, padded(len)),
            values: widened(tokens().map(value), len, dim),
        }
    }

    /// Gradients with respect to rotated queries and rotated `keys | values`, in their shapes.
    pub(in super::super) fn backward(
        &self,
        q: &Matrix,
        kv: &Matrix,
        grad: &Matrix,
    ) -> (Matrix, Matrix) {
        let gradients: Vec<PartGradient> = self
            .parts()
            .par_iter()
            .map(|part| self.part_backward(part, q, kv, grad))
            .collect();
        let mut dq = Vec::with_capacity(q.values().len());
        let mut dkv = Vec::with_capacity(kv.values().len());
        for part in &gradients {
            dq.extend_from_slice(&part.queries);
            dkv.extend_from_slice(&part.keys_values);
        }
        for part in &gradients {
            let prefix = &mut dkv[..part.prefix_keys_values.len()];
            add_scaled(prefix, &part.prefix_keys_values, 1.0);
        }
        (Matrix::new(dq, q.columns), Matrix::new(dkv, kv.columns))
    }

    fn part_backward(&self, part: &Part, q: &Matrix, kv: &Matrix, grad: &Matrix) -> PartGradient {
        let (dim, groups) = (self.heads.dim, self.heads.query / self.heads.key_value);
        let scale = (dim as f32).sqrt().recip();
        let mut d = PartGradient {
            queries: vec![0f32; part.queries.len() * q.columns],
            keys_values: vec![0f32; part.tokens.len() * kv.columns],
            prefix_keys_values: vec![0f32; part.prefix * kv.columns],
        };
        if part.queries.is_empty() {
            return d;
        }
        for kv_head in 0..self.heads.key_value {
            let context = self.context(part, kv, kv_head);
            let width = context.width;
            let keys = untransposed(&context, dim);
            let values_transposed = transposed(
                context.values.chunks(width).map(|row| &row[..dim]),
                dim,
                context.padded,
            );
            let mut p = vec![0f32; context.padded];
            let (mut dropped, mut dp) = (p.clone(), p.clone());
            let mut dq = vec![0f32; width];
            let mut dk = vec![0f32; context.len * width];
            let mut dv = vec![0f32; context.len * width];
            for head in kv_head * groups..(kv_head + 1) * groups {
                for (at, row) in part.queries.clone().enumerate() {
                    let place = row * q.columns + head * dim;
                    let (query, grad) =
                        (&q.values()[place..][..dim], &grad.values()[place..][..dim]);
                    let seen = self.seen(part, row);
                    vectorized(
                        #[inline(always)]
                        || {
                            probabilities(query, &context.keys_transposed, &mut p, seen);
                            products(grad, &values_transposed, &mut dp, seen);
                            dropped[..seen].copy_from_slice(&p[..seen]);
                            if let Some(dropout) = self.dropout {
                                let token = self.queries.row(row);
                                dropout.multiply(&mut dropped[..seen], token, head);
                                dropout.multiply(&mut dp[..seen], token, head);
                            }
                            let mean = dot(&p[..seen], &dp[..seen]);
                            for (dp, p) in dp[..seen].iter_mut().zip(&p) {
                                *dp = p * (*dp - mean) * scale;
                            }
                            dq.fill(0.0);
                            add_product(&mut dq, &dp[..seen], &keys, width);
                            let rows = dk.chunks_mut(width).zip(dv.chunks_mut(width));
                            for ((dk, dv), (ds, p)) in rows.zip(dp[..seen].iter().zip(&dropped)) {
                                add_scaled(&mut dk[..dim], query, *ds);
                                add_scaled(&mut dv[..dim], grad, *p);
                            }
                        },
                    );
                    d.queries[at * q.columns + head * dim..][..dim].copy_from_slice(&dq[..dim]);
                }
            }
            self.scatter(&mut d, part, kv_head, (&dk, &dv), width);
        }
        d
    }

    /// Puts the gradients of one head's keys and values where they belong.
    fn scatter(
        &self,
        d: &mut PartGradient,
        part: &Part,
        head: usize,
        (dk, dv): (&[f32], &[f32]),
        width: usize,
    ) {
        let (dim, stride) = (self.heads.dim, 2 * self.kv_width());
        for (at, (dk, dv)) in dk.chunks(width).zip(dv.chunks(width)).enumerate() {
            let (rows, row) = match at.checked_sub(part.prefix) {
                Some(row) => (&mut d.keys_values, row),
                None => (&mut d.prefix_keys_values, at),
            };
            let row = &mut rows[row * stride..][..stride];
            row[head * dim..][..dim].copy_from_slice(&dk[..dim]);
            row[self.kv_width() + head * dim..][..dim].copy_from_slice(&dv[..dim]);
        }
    }
}

/// `x · m [dim, padded]`, at least the first `len` values.
#[inline(always)]
fn products(x: &[f32], m: &[f32], out: &mut [f32], len: usize) {
    let stride = out.len();
    let out = &mut out[..padded(len)];
    out.fill(0.0);
    add_product(out, x, m, stride);
}

/// Softmax of the scaled scores of a query over the first `seen` keys.
#[inline(always)]
fn probabilities(query: &[f32], keys_transposed: &[f32], p: &mut [f32], seen: usize) {
    products(query, keys_transposed, p, seen);
    let scale = (query.len() as f32).sqrt().recip();
    let p = &mut p[..seen];
    let mut highest = f32::NEG_INFINITY;
    for score in p.iter_mut() {
        *score *= scale;
        highest = if *score > highest { *score } else { highest };
    }
    let mut sums = [0f32; LANES];
    for block in p.chunks_mut(LANES) {
        for (p, sum) in block.iter_mut().zip(&mut sums) {
            *p = exp(*p - highest);
            *sum += *p;
        }
    }
    let scale = sums.iter().sum::<f32>().recip();
    for p in p {
        *p *= scale;
    }
}

/// `[dim, stride]` of rows `[dim]`, zero beyond them.
fn transposed<'a>(rows: impl Iterator<Item = &'a [f32]>, dim: usize, stride: usize) -> Vec<f32> {
    let mut out = vec![0f32; dim * stride];
    for (at, row) in rows.enumerate() {
        for (i, value) in row.iter().enumerate() {
            out[i * stride + at] = *value;
        }
    }
    out
}

/// `[len, width]` of rows `[dim]`, each widened by zeros to whole blocks.
fn widened<'a>(rows: impl Iterator<Item = &'a [f32]>, len: usize, dim: usize) -> Vec<f32> {
    let width = padded(dim);
    let mut out = vec![0f32; len * width];
    for (out, row) in out.chunks_mut(width).zip(rows) {
        out[..dim].copy_from_slice(row);
    }
    out
}

/// The keys `[len, width]` again.
fn untransposed(context: &Context, dim: usize) -> Vec<f32> {
    let mut out = vec![0f32; context.len * context.width];
    for (at, row) in out.chunks_mut(context.width).enumerate() {
        for (i, value) in row[..dim].iter_mut().enumerate() {
            *value = context.keys_transposed[i * context.padded + at];
        }
    }
    out
}

/// Cuts `x` into the queries of each part, which follow each other without gaps.
fn cut<'a>(mut x: &'a mut [f32], parts: &[Part], width: usize) -> Vec<&'a mut [f32]> {
    let mut cuts = Vec::with_capacity(parts.len());
    for part in parts {
        let (own, rest) = std::mem::take(&mut x).split_at_mut(part.queries.len() * width);
        cuts.push(own);
        x = rest;
    }
    cuts
}
