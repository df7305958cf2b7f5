//! Dropout whose masks depend only on a seed and a step, so that a resumed run draws the same ones.
//! (candle's own CPU random numbers cannot be seeded.)

use candle_core::{Result, Tensor};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};

/// The stream of random bits of one training step.
#[derive(Debug)]
pub struct MaskRng(ChaCha8Rng);

impl MaskRng {
    /// The stream of step `step` of a run seeded with `seed`.
    #[must_use]
    pub fn new(seed: u64, step: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(step);
        Self(rng)
    }

    /// A number in `[0, 1)`, evenly distributed, of 53 random bits.
    pub fn uniform(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Zeroes each value with probability `p` and scales the others by `1 / (1 - p)`.
    ///
    /// # Errors
    /// Only what candle reports for making and multiplying tensors.
    pub fn dropout(&mut self, x: &Tensor, p: f64) -> Result<Tensor> {
        if p <= 0.0 {
            return Ok(x.clone());
        }
        let threshold = (p * f64::from(u32::MAX)) as u32;
        let keep = (1.0 / (1.0 - p)) as f32;
        let mask: Vec<f32> = (0..x.elem_count())
            .map(|_| {
                if self.0.next_u32() < threshold {
                    0.0
                } else {
                    keep
                }
            })
            .collect();
        x * Tensor::from_vec(mask, x.shape(), x.device())?.to_dtype(x.dtype())?
    }
}
