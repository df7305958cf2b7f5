//! Which windows stand together in a batch, and in which order the batches come.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};

/// Batches are sorted by length within this many batches' worth of windows, which saves most of
/// the padding and leaves most of the shuffling.
const BATCHES_PER_BUCKET: usize = 16;
/// Keeps the order of the windows apart from dropout masks of the same seed.
const ORDER_SEED: u64 = 0x6f72_6465_725f_7631;

/// The batches of an epoch, four bytes a window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EpochOrder {
    windows: Vec<u32>,
    /// Numbers of pieces of `windows`, each `batch_size` long.
    batches: Vec<u32>,
    batch_size: usize,
}

impl EpochOrder {
    /// `count` windows shuffled by `seed` and `epoch` alone, those of like `length` together, the
    /// batches in random order.
    pub(super) fn new(
        count: usize,
        length: impl Fn(u32) -> u32,
        batch_size: usize,
        (seed, epoch): (u64, u64),
    ) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed ^ ORDER_SEED);
        rng.set_stream(epoch);
        let mut windows: Vec<u32> = (0..count as u32).collect();
        shuffle(&mut windows, &mut rng);
        let batch_size = batch_size.max(1);
        for bucket in windows.chunks_mut(batch_size.saturating_mul(BATCHES_PER_BUCKET)) {
            bucket.sort_by_key(|&window| length(window)); // stable, so still shuffled
        }
        let mut batches: Vec<u32> = (0..count.div_ceil(batch_size) as u32).collect();
        shuffle(&mut batches, &mut rng);
        Self {
            windows,
            batches,
            batch_size,
        }
    }

    /// The windows of the batch at this step of the epoch, from 0; `None` after the last.
    #[must_use]
    pub fn get(&self, step: usize) -> Option<Vec<usize>> {
        let start = *self.batches.get(step)? as usize * self.batch_size;
        let end = (start + self.batch_size).min(self.windows.len());
        let windows = self.windows[start..end].iter();
        Some(windows.map(|&window| window as usize).collect())
    }

    /// The batches one after the other.
    pub fn iter(&self) -> impl Iterator<Item = Vec<usize>> {
        (0..self.batches.len()).filter_map(|step| self.get(step))
    }
}

fn shuffle<T>(values: &mut [T], rng: &mut ChaCha8Rng) {
    for at in (1..values.len()).rev() {
        // The bias of multiply-and-shift is below 2^-32 * len: nothing for an order.
        let other = (u64::from(rng.next_u32()) * (at as u64 + 1)) >> 32;
        values.swap(at, other as usize);
    }
}
