//! The products of a layer: `y = x Wᵀ + b`, with LoRA adapters beside the weight, or with the weight
//! itself trained. Modules that read the same input share one product, their weights stacked.

use candle_core::{Result, Tensor};

use super::low_rank::{add_low_rank, add_low_rank_masked};
use super::matrix::{Matrix, View, with_buffer};
use super::rows::{Rows, add_row};
use super::sums::sum_of_rows;
use super::theta::{Flat, Span, Theta};
use crate::model::dropout::Mask;

/// The stacked weights `[out, in]` of a product.
#[derive(Clone, Debug)]
pub(crate) enum Weight {
    /// Contiguous, not trained.
    Frozen(Tensor),
    /// Among the layer's trainable values.
    Trained(Span),
}

/// A LoRA adapter of one of the stacked modules.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Adapter {
    /// `[r, in]`
    pub(crate) a: Span,
    /// `[out of the module, r]`
    pub(crate) b: Span,
    /// First column of the product that belongs to the module.
    pub(crate) first: usize,
    /// `alpha / r`
    pub(crate) scale: f32,
}

/// One product.
#[derive(Clone, Debug)]
pub(crate) struct Product {
    pub(crate) weight: Weight,
    /// `[out]`, trained.
    pub(crate) bias: Option<Span>,
    pub(crate) adapters: Vec<Adapter>,
}

/// The input of a product, and what its adapters get instead while training.
pub(super) struct Input<'a> {
    pub(super) x: &'a Matrix,
    pub(super) dropped: Option<(Matrix, Mask, Rows<'a>)>,
}

impl Input<'_> {
    fn of_adapters(&self) -> &Matrix {
        self.dropped.as_ref().map_or(self.x, |(x, _, _)| x)
    }
}

impl Product {
    /// A product whose stacked weights `[out, in]` and bias `[out]` are trained.
    pub(crate) fn trained(
        flat: &mut Flat,
        weights: &[&Tensor],
        bias: Option<&Tensor>,
    ) -> Result<Self> {
        let mut stacked: Option<Span> = None;
        for weight in weights {
            let (rows, columns) = weight.dims2()?;
            let own = flat.push(weight, rows, columns);
            let first = stacked.unwrap_or(Span { rows: 0, ..own });
            stacked = Some(Span {
                rows: first.rows + rows,
                ..first
            });
        }
        match stacked {
            Some(span) => Ok(Self {
                weight: Weight::Trained(span),
                bias: bias.map(|bias| flat.push_vector(bias)),
                adapters: Vec::new(),
            }),
            None => candle_core::bail!("a product without weights"),
        }
    }

    fn with_weight<T>(&self, theta: Theta<'_>, f: impl FnOnce(View<'_>) -> Result<T>) -> Result<T> {
        match &self.weight {
            Weight::Frozen(w) => {
                let (rows, columns) = w.dims2()?;
                with_buffer(w, |storage, start| {
                    f(View::new(storage, start, rows, columns)?)
                })
            }
            Weight::Trained(span) => f(theta.view(*span)?),
        }
    }

    /// `scale · x Aᵀ [tokens, r]` of each adapter.
    pub(super) fn lows(&self, input: &Input<'_>, theta: Theta<'_>) -> Result<Vec<Matrix>> {
        let low = |adapter: &Adapter| {
            let x = input.of_adapters().view();
            let mut low = x.times_transposed(theta.view(adapter.a)?)?;
            scale(&mut low, adapter.scale);
            Ok(low)
        };
        self.adapters.iter().map(low).collect()
    }

    /// `x Wᵀ + lows Bᵀ + b`.
    pub(super) fn apply(&self, x: &Matrix, lows: &[Matrix], theta: Theta<'_>) -> Result<Matrix> {
        let mut y = self.with_weight(theta, |w| x.view().times_transposed(w))?;
        for (adapter, low) in self.adapters.iter().zip(lows) {
            let b = theta.view(adapter.b)?.transposed();
            add_low_rank(&mut y, adapter.first, low, b.view());
        }
        if let Some(bias) = self.bias {
            add_row(&mut y, theta.view(bias)?.values());
        }
        Ok(y)
    }

    pub(super) fn forward(
        &self,
        input: &Input<'_>,
        theta: Theta<'_>,
    ) -> Result<(Matrix, Vec<Matrix>)> {
        let lows = self.lows(input, theta)?;
        Ok((self.apply(input.x, &lows, theta)?, lows))
    }

    /// The gradient with respect to the input; those of the trainable values go to `d_theta`.
    pub(super) fn backward(
        &self,
        dy: &Matrix,
        input: &Input<'_>,
        lows: &[Matrix],
        theta: Theta<'_>,
        d_theta: &mut [f32],
    ) -> Result<Matrix> {
        let mut dx = self.with_weight(theta, |w| dy.view().times(w))?;
        if let Weight::Trained(span) = &self.weight {
            let dw = dy.view().transposed_times(input.x.view())?;
            d_theta[span.range()].copy_from_slice(dw.values());
        }
        if let Some(bias) = self.bias {
            d_theta[bias.range()].copy_from_slice(&sum_of_rows(dy));
        }
        for (adapter, low) in self.adapters.iter().zip(lows) {
            let dy = dy.columns(adapter.first, adapter.b.rows);
            let db = dy.transposed_times(low.view())?;
            d_theta[adapter.b.range()].copy_from_slice(db.values());
            let mut d_low = dy.times(theta.view(adapter.b)?)?;
            scale(&mut d_low, adapter.scale);
            let da = d_low.view().transposed_times(input.of_adapters().view())?;
            d_theta[adapter.a.range()].copy_from_slice(da.values());
            let a = theta.view(adapter.a)?;
            match &input.dropped {
                Some((_, mask, rows)) => add_low_rank_masked(&mut dx, &d_low, a, *mask, *rows),
                None => add_low_rank(&mut dx, 0, &d_low, a),
            }
        }
        Ok(dx)
    }
}

fn scale(x: &mut Matrix, by: f32) {
    for value in x.values_mut() {
        *value *= by;
    }
}
