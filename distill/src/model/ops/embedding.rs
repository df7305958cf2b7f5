//! Items and positions looked up, added and dropped out, as one operation.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::attention::Segments;
use super::simd::{add_scaled, vectorized};
use super::{cpu_slice, with_slice};
use crate::model::dropout::Mask;

/// Rows per task.
const ROWS: usize = 32;

/// `mask * (scale * items[item] + positions[position])` of packed tokens.
pub(crate) struct Embedding {
    pub(crate) segments: Arc<Segments>,
    /// The item of each token.
    pub(crate) items: Vec<u32>,
    /// Factor on the item's row.
    pub(crate) scale: f32,
    pub(crate) mask: Option<Mask>,
}

impl Embedding {
    /// Runs on the tables `items [N, D]` and `positions [S, D]`.
    ///
    /// # Errors
    /// Tables of different widths, or an item or a position that they do not have.
    pub(crate) fn run(self, items: &Tensor, positions: &Tensor) -> Result<Tensor> {
        let (rows, width) = items.dims2()?;
        let (longest, position_width) = positions.dims2()?;
        if width != position_width || self.segments.tokens() != self.items.len() {
            candle_core::bail!(
                "an embedding of {} items as {} tokens, of sizes {width} and {position_width}",
                self.items.len(),
                self.segments.tokens()
            );
        }
        if self.segments.longest() > longest {
            candle_core::bail!("{} positions, {longest} known", self.segments.longest());
        }
        if let Some(item) = self.items.iter().find(|item| **item as usize >= rows) {
            candle_core::bail!("item {item}, the table has {rows} rows");
        }
        items.apply_op2(positions, self)
    }

    fn forward(&self, items: &[f32], positions: &[f32], width: usize) -> Vec<f32> {
        let of_tokens = self.segments.positions();
        let mut out = vec![0f32; self.items.len() * width];
        let tasks = out.par_chunks_mut(ROWS * width).enumerate();
        tasks.for_each(|(task, out)| {
            vectorized(
                #[inline(always)]
                || {
                    for (at, out) in out.chunks_mut(width).enumerate() {
                        let token = task * ROWS + at;
                        let item = &items[self.items[token] as usize * width..][..width];
                        let position = &positions[of_tokens[token] * width..][..width];
                        for ((out, item), position) in out.iter_mut().zip(item).zip(position) {
                            *out = item * self.scale + position;
                        }
                        if let Some(mask) = self.mask {
                            mask.multiply(out, token * width);
                        }
                    }
                },
            );
        });
        out
    }

    /// Adds the gradients, token by token, onto those of the tables.
    fn backward(&self, grad: &[f32], width: usize, items: &mut [f32], positions: &mut [f32]) {
        let of_tokens = self.segments.positions();
        let mut row = vec![0f32; width];
        vectorized(
            #[inline(always)]
            || {
                for (token, grad) in grad.chunks(width).enumerate() {
                    row.copy_from_slice(grad);
                    if let Some(mask) = self.mask {
                        mask.multiply(&mut row, token * width);
                    }
                    let item = &mut items[self.items[token] as usize * width..][..width];
                    add_scaled(item, &row, self.scale);
                    add_scaled(
                        &mut positions[of_tokens[token] * width..][..width],
                        &row,
                        1.0,
                    );
                }
            },
        );
    }
}

impl CustomOp2 for Embedding {
    fn name(&self) -> &'static str {
        "embedding"
    }

    fn cpu_fwd(
        &self,
        items: &CpuStorage,
        items_layout: &Layout,
        positions: &CpuStorage,
        positions_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let width = items_layout.shape().dims2()?.1;
        let items = cpu_slice(items, items_layout)?;
        let out = self.forward(items, cpu_slice(positions, positions_layout)?, width);
        Ok((CpuStorage::F32(out), (self.items.len(), width).into()))
    }

    fn bwd(
        &self,
        items: &Tensor,
        positions: &Tensor,
        _y: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let width = grad.dim(1)?;
        let mut d_items = vec![0f32; items.elem_count()];
        let mut d_positions = vec![0f32; positions.elem_count()];
        with_slice(grad, |grad| {
            self.backward(grad, width, &mut d_items, &mut d_positions);
            Ok(())
        })?;
        Ok((
            Some(Tensor::from_vec(d_items, items.shape(), items.device())?),
            Some(Tensor::from_vec(
                d_positions,
                positions.shape(),
                positions.device(),
            )?),
        ))
    }
}
