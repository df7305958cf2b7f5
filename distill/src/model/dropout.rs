//! Dropout whose masks depend only on a seed and a step, so that a resumed run draws the same ones.
//! (candle's own CPU random numbers cannot be seeded.)

use candle_core::{Result, Tensor};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};
use rayon::prelude::*;

/// Values of one piece of work.
const PIECE: usize = 1 << 14;

/// The stream of random bits of one training step.
#[derive(Debug)]
pub struct MaskRng(ChaCha8Rng);

/// Which values of a tensor are dropped, by their index alone: nothing is stored, and a backward
/// pass finds the same mask again.
#[derive(Clone, Copy, Debug)]
pub struct Mask {
    low: u32,
    high: u32,
    threshold: u32,
    keep: f32,
}

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

    /// A new mask that zeroes each value with probability `p` and scales the others by `1 / (1 - p)`.
    pub fn mask(&mut self, p: f64) -> Mask {
        Mask {
            low: self.0.next_u32(),
            high: self.0.next_u32(),
            threshold: (p * f64::from(u32::MAX)) as u32,
            keep: (1.0 / (1.0 - p)) as f32,
        }
    }

    /// Applies a new mask of probability `p`.
    ///
    /// # Errors
    /// Only what candle reports for making and multiplying tensors.
    pub fn dropout(&mut self, x: &Tensor, p: f64) -> Result<Tensor> {
        if p <= 0.0 {
            return Ok(x.clone());
        }
        self.mask(p).apply(x)
    }
}

impl Mask {
    /// What the value at `index` is multiplied with.
    #[inline(always)]
    #[must_use]
    pub fn factor(&self, index: usize) -> f32 {
        if self.keeps(index) { self.keep } else { 0.0 }
    }

    #[inline(always)]
    fn keeps(&self, index: usize) -> bool {
        // Two rounds of murmur3's finalizer, which 32-bit vector instructions have.
        mix(mix(index as u32 ^ self.low) ^ self.high) >= self.threshold
    }

    /// Multiplies values with the factors from `first` on.
    #[inline(always)]
    pub(crate) fn multiply(&self, x: &mut [f32], first: usize) {
        for (at, x) in x.iter_mut().enumerate() {
            *x *= self.factor(first + at);
        }
    }

    /// The product with a tensor of any shape.
    ///
    /// # Errors
    /// Only what candle reports for making and multiplying tensors.
    pub fn apply(&self, x: &Tensor) -> Result<Tensor> {
        let mut kept = vec![0u8; x.elem_count()];
        (kept.par_chunks_mut(PIECE).enumerate()).for_each(|(piece, kept)| {
            let first = piece * PIECE;
            for (at, kept) in kept.iter_mut().enumerate() {
                *kept = u8::from(self.keeps(first + at));
            }
        });
        // A byte a value is a quarter of what a GPU would wait for in f32.
        let kept = Tensor::from_vec(kept, x.shape(), x.device())?.to_dtype(x.dtype())?;
        x * (kept * f64::from(self.keep))?
    }
}

#[inline(always)]
fn mix(mut x: u32) -> u32 {
    x = (x ^ (x >> 16)).wrapping_mul(0x85eb_ca6b);
    x = (x ^ (x >> 13)).wrapping_mul(0xc2b2_ae35);
    x ^ (x >> 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_drop_the_asked_share_and_differ() {
        let mut rng = MaskRng::new(1, 2);
        let (first, second) = (rng.mask(0.3), rng.mask(0.3));
        let count = 100_000;
        let dropped = |mask: Mask| (0..count).filter(|i| mask.factor(*i) == 0.0).count();
        for mask in [first, second] {
            let share = dropped(mask) as f64 / f64::from(count as u32);
            // Five standard deviations of a binomial share.
            assert!((share - 0.3).abs() < 0.008, "{share}");
        }
        let both = (0..count)
            .filter(|i| first.factor(*i) == 0.0 && second.factor(*i) == 0.0)
            .count() as f64;
        assert!(
            (both / f64::from(count as u32) - 0.09).abs() < 0.005,
            "{both}"
        );
        // Neighbours are independent.
        let pairs = (0..count)
            .filter(|i| first.factor(*i) == 0.0 && first.factor(i + 1) == 0.0)
            .count() as f64;
        assert!(
            (pairs / f64::from(count as u32) - 0.09).abs() < 0.005,
            "{pairs}"
        );
        assert_eq!(first.factor(5), MaskRng::new(1, 2).mask(0.3).factor(5));
        let kept = (0..100).map(|i| first.factor(i)).fold(0.0, f32::max);
        assert!((kept - 1.0 / 0.7).abs() < 1e-6);
    }
}
