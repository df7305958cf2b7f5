//! Loops over the logits of one row.

use rayon::prelude::*;

use crate::model::ops::exp::exp;
use crate::model::ops::simd::vectorized;

/// Values of one task of a thread.
const TASK_VALUES: usize = 1 << 14;

/// Turns logits into exponentials and adds them to the softmax of their row; where they show a new
/// highest logit, what the row had so far is scaled down.
pub(super) fn absorb(logits: &mut [f32], highest: &mut f32, sum: &mut f64, mixed: &mut [f32]) {
    vectorized(
        #[inline(always)]
        || {
            let peak = maximum(logits);
            if peak > *highest {
                let factor = exp(*highest - peak);
                mixed.iter_mut().for_each(|value| *value *= factor);
                *sum *= f64::from(factor);
                *highest = peak;
            }
            *sum += f64::from(exponentials(logits, *highest));
        },
    );
}

/// Lanes of a reduction, so that it can be vectorised.
pub(super) const LANES: usize = 16;

#[inline(always)]
fn maximum(values: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = values.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane = if *value > *lane { *value } else { *lane };
        }
    }
    let all = lanes.iter().chain(rest);
    all.fold(f32::NEG_INFINITY, |a, b| if *b > a { *b } else { a })
}

/// Replaces each value by its exponential relative to `highest`; gives their sum.
#[inline(always)]
pub(super) fn exponentials(values: &mut [f32], highest: f32) -> f32 {
    let mut lanes = [0f32; LANES];
    let (chunks, rest) = values.as_chunks_mut::<LANES>();
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *value = exp(*value - highest);
            *lane += *value;
        }
    }
    let mut sum = 0.0;
    for value in rest {
        *value = exp(*value - highest);
        sum += *value;
    }
    lanes.iter().sum::<f32>() + sum
}

pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// `to += from`.
pub(super) fn add(to: &mut [f32], from: &[f32]) {
    let tasks = to
        .par_chunks_mut(TASK_VALUES)
        .zip(from.par_chunks(TASK_VALUES));
    tasks.for_each(|(to, from)| {
        for (to, from) in to.iter_mut().zip(from) {
            *to += from;
        }
    });
}
