//! One step over all parameters in CPU memory: every value is read and written once, in place, and
//! nothing is allocated that grows with the parameters.
//!
//! candle hands out a tensor's values for writing only inside an in-place operation on that one
//! tensor, while a step writes three tensors a parameter. So the value vectors are moved out of their
//! tensors (a swap of pointers), changed together by all threads, and moved back.
//!
//! Work is cut into pieces of a fixed size and sums are added piece by piece in order, so that
//! results do not depend on the number of threads.

use std::cell::RefCell;

use candle_core::{CpuStorage, InplaceOp1, Layout, Result, Storage, Tensor, Var};
use rayon::prelude::*;

use super::{BETA1, BETA2, Change, EPSILON, Slot};
use crate::model::RowGradient;

/// Values of one piece of work.
const PIECE: usize = 1 << 14;
/// Sums run in so many lanes, so that the compiler can vectorise them.
const LANES: usize = 8;

/// Moves every parameter of `slots` down its gradient. All are f32 in CPU memory and contiguous.
pub(super) fn update(slots: &[(&Slot, &Tensor, Change)]) -> Result<()> {
    let mut taken = Vec::with_capacity(slots.len());
    for (slot, _, _) in slots {
        taken.push([
            Taken::from(&slot.var)?,
            Taken::from(&slot.first_moment)?,
            Taken::from(&slot.second_moment)?,
        ]);
    }
    let done = sweep(slots, &mut taken);
    for values in taken.into_iter().flatten() {
        values.put_back()?;
    }
    done
}

fn sweep(slots: &[(&Slot, &Tensor, Change)], taken: &mut [[Taken<'_>; 3]]) -> Result<()> {
    let gradients: Vec<_> = (slots.iter())
        .map(|(_, gradient, _)| gradient.storage_and_layout())
        .collect();
    let mut pieces = Vec::new();
    for (((storage, layout), (slot, _, change)), values) in gradients.iter().zip(slots).zip(taken) {
        let gradient = slice(storage, layout)?;
        let [parameter, first, second] = values.each_mut().map(|taken| &mut taken.values);
        let sizes = [parameter.len(), first.len(), second.len()];
        if sizes != [gradient.len(); 3] {
            candle_core::bail!(
                "AdamW: {} has {} values, its gradient {}, its moments {} and {}",
                slot.name,
                sizes[0],
                gradient.len(),
                sizes[1],
                sizes[2]
            );
        }
        let parts = (parameter.chunks_mut(PIECE))
            .zip(first.chunks_mut(PIECE))
            .zip(second.chunks_mut(PIECE))
            .zip(gradient.chunks(PIECE));
        pieces.extend(parts.map(|(((p, m), v), g)| (p, m, v, g, change)));
    }
    (pieces.into_par_iter()).for_each(|(p, m, v, g, change)| step(p, m, v, g, change));
    Ok(())
}

/// Moves the rows that have a gradient, and nothing else. All is f32 in CPU memory and contiguous.
pub(super) fn update_rows(slot: &Slot, gradient: &RowGradient, change: &Change) -> Result<()> {
    let width = gradient.values.dims2()?.1;
    let (storage, layout) = gradient.values.storage_and_layout();
    let gradients = slice(&storage, layout)?;
    let mut taken = [
        Taken::from(&slot.var)?,
        Taken::from(&slot.first_moment)?,
        Taken::from(&slot.second_moment)?,
    ];
    let [p, m, v] = taken.each_mut().map(|taken| &mut taken.values);
    let values = p.len().min(m.len()).min(v.len());
    let fits = (gradient.rows.last()).is_none_or(|last| (*last as usize + 1) * width <= values);
    if fits {
        for (row, gradient) in gradient.rows.iter().zip(gradients.chunks(width)) {
            let at = *row as usize * width;
            let of = at..at + width;
            let (p, m, v) = (&mut p[of.clone()], &mut m[of.clone()], &mut v[of]);
            step(p, m, v, gradient, change);
        }
    }
    for values in taken {
        values.put_back()?;
    }
    if !fits {
        candle_core::bail!("AdamW: {} has no row {:?}", slot.name, gradient.rows.last());
    }
    Ok(())
}

/// The step of one piece: parameter, first and second moment, gradient.
fn step(p: &mut [f32], m: &mut [f32], v: &mut [f32], g: &[f32], change: &Change) {
    let (clip, keep, rate) = (change.clip as f32, change.keep as f32, change.rate as f32);
    let inverse_root = change.root.recip() as f32;
    let (b1, b2, epsilon) = (BETA1 as f32, BETA2 as f32, EPSILON as f32);
    let (c1, c2) = ((1.0 - BETA1) as f32, (1.0 - BETA2) as f32);
    for (((p, m), v), g) in p.iter_mut().zip(m).zip(v).zip(g) {
        let g = g * clip;
        *m = *m * b1 + g * c1;
        *v = *v * b2 + g * g * c2;
        *p = *p * keep - *m / (v.sqrt() * inverse_root + epsilon) * rate;
    }
}

/// Sum of squares of a contiguous f32 tensor in CPU memory, in f64. What is not finite stays so.
pub(super) fn sum_of_squares(x: &Tensor) -> Result<f64> {
    let (storage, layout) = x.storage_and_layout();
    let pieces: Vec<f64> = slice(&storage, layout)?
        .par_chunks(PIECE)
        .map(squares_of_piece)
        .collect();
    Ok(pieces.iter().sum())
}

fn squares_of_piece(x: &[f32]) -> f64 {
    let mut lanes = [0f64; LANES];
    let chunks = x.chunks_exact(LANES);
    let rest: f64 = (chunks.remainder().iter())
        .map(|x| f64::from(*x) * f64::from(*x))
        .sum();
    for chunk in chunks {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane += f64::from(*x) * f64::from(*x);
        }
    }
    lanes.iter().sum::<f64>() + rest
}

fn slice<'a>(storage: &'a Storage, layout: &Layout) -> Result<&'a [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (Storage::Cpu(storage), Some((start, end))) => {
            match storage.as_slice::<f32>()?.get(start..end) {
                Some(values) => Ok(values),
                // Its vector was moved out: a gradient that is itself a parameter.
                None => candle_core::bail!("AdamW: a gradient shares its memory with a parameter"),
            }
        }
        _ => candle_core::bail!("AdamW: a gradient that is not contiguous f32 in CPU memory"),
    }
}

/// The values of a tensor, moved out of it until they are put back.
struct Taken<'a> {
    var: &'a Var,
    values: Vec<f32>,
}

impl<'a> Taken<'a> {
    fn from(var: &'a Var) -> Result<Self> {
        let swap = Swap(RefCell::default());
        var.inplace_op1(&swap)?;
        let values = swap.0.into_inner();
        Ok(Self { var, values })
    }

    fn put_back(self) -> Result<()> {
        self.var.inplace_op1(&Swap(RefCell::new(self.values)))
    }
}

/// Swaps the values of a tensor with those in the cell.
struct Swap(RefCell<Vec<f32>>);

impl InplaceOp1 for Swap {
    fn name(&self) -> &'static str {
        "adamw-swap"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, _layout: &Layout) -> Result<()> {
        match storage {
            CpuStorage::F32(values) => {
                std::mem::swap(values, &mut *self.0.borrow_mut());
                Ok(())
            }
            _ => candle_core::bail!("AdamW: a parameter that is not f32"),
        }
    }
}
