//! Starting values that depend only on a seed and a parameter's name.

use candle_core::{DType, Device, Result, Shape, Tensor};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};

/// A seed of its own for each parameter, so that adding one does not change the others.
#[must_use]
pub(crate) fn named_seed(seed: u64, name: &str) -> u64 {
    // FNV-1a; ChaCha spreads what it leaves uneven.
    let basis = 0xcbf2_9ce4_8422_2325 ^ seed.rotate_left(32);
    (name.bytes()).fold(basis, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    })
}

/// Values spread evenly over `-bound..bound`.
///
/// # Errors
/// Only what candle reports for making a tensor.
pub(crate) fn uniform(
    shape: impl Into<Shape>,
    bound: f64,
    seed: u64,
    device: &Device,
) -> Result<Tensor> {
    let shape = shape.into();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let values: Vec<f32> = (0..shape.elem_count())
        .map(|_| ((f64::from(rng.next_u32()) / 2_147_483_648.0 - 1.0) * bound) as f32)
        .collect();
    Tensor::from_vec(values, shape, device)?.to_dtype(DType::F32)
}
