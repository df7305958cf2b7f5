//! Rotary positions (Su et al., arXiv 2104.09864), the halves of a head as Hugging Face pairs them.

use std::sync::Arc;

/// Cosines and sines of the rotary positions, `[positions, head_dim / 2]`.
#[derive(Clone, Debug)]
pub struct Rope {
    pub(super) cos: Arc<Vec<f32>>,
    pub(super) sin: Arc<Vec<f32>>,
    pub(super) half: usize,
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
    #[inline(always)]
    pub(super) fn rotate(&self, head: &mut [f32], position: usize, sign: f32) {
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
