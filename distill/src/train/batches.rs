//! Training sequences as windows, and windows as batches.
//!
//! A window is at most `max_history + 1` items: its first items are the history, and each position
//! predicts the item after it. Windows are cut from the end of a sequence and share one item with
//! the next older window, so that every interaction but a user's first is a target exactly once.

use candle_core::Device;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};
use slmrec_core::{Dataset, ItemIndex, hash};

use super::{Targets, TrainError};
use crate::model::HistoryBatch;

/// Batches are sorted by length within this many batches' worth of windows, which saves most of
/// the padding and leaves most of the shuffling.
const BATCHES_PER_BUCKET: usize = 16;
/// Keeps the order of the windows apart from dropout masks of the same seed.
const ORDER_SEED: u64 = 0x6f72_6465_725f_7631;

/// A piece of one user's training sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// The user, in the order of the dataset.
    pub user: usize,
    /// First item of the window in the user's training sequence.
    pub start: usize,
    /// Number of items, targets included; at least 2.
    pub len: usize,
}

/// All windows of a data set.
#[derive(Clone, Debug)]
pub struct TrainingData {
    sequences: Vec<Vec<ItemIndex>>,
    windows: Vec<Window>,
    targets: Targets,
    num_items: usize,
}

impl TrainingData {
    /// Cuts the training sequences of `dataset` into windows of at most `max_history + 1` items.
    ///
    /// # Errors
    /// [`TrainError::NoData`] when no user has two training items.
    pub fn new(
        dataset: &Dataset,
        max_history: usize,
        targets: Targets,
    ) -> Result<Self, TrainError> {
        let sequences = (0..dataset.num_users())
            .map(|user| dataset.training_sequence(user).to_vec())
            .collect();
        Self::from_sequences(sequences, dataset.num_items(), max_history, targets)
    }

    /// The same from training sequences (oldest first), one a user, over `num_items` items.
    ///
    /// # Errors
    /// [`TrainError::NoData`] when no sequence has two items; [`TrainError::Setting`] for a
    /// `max_history` of 0.
    pub fn from_sequences(
        sequences: Vec<Vec<ItemIndex>>,
        num_items: usize,
        max_history: usize,
        targets: Targets,
    ) -> Result<Self, TrainError> {
        super::settings::check("max_history", max_history > 0, "at least 1", max_history)?;
        let mut windows = Vec::new();
        for (user, sequence) in sequences.iter().enumerate() {
            let mut end = sequence.len();
            while end >= 2 {
                let len = end.min(max_history + 1);
                let start = end - len;
                windows.push(Window { user, start, len });
                if targets == Targets::Last || start == 0 {
                    break;
                }
                end = start + 1;
            }
        }
        if windows.is_empty() {
            return Err(TrainError::NoData);
        }
        Ok(Self {
            sequences,
            windows,
            targets,
            num_items,
        })
    }

    /// Number of windows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.windows.len()
    }

    /// Never true: there is at least one window.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.windows.is_empty()
    }

    /// Number of items N of the catalog.
    #[must_use]
    pub fn num_items(&self) -> usize {
        self.num_items
    }

    /// The windows, users in order, each user's newest first.
    #[must_use]
    pub fn windows(&self) -> &[Window] {
        &self.windows
    }

    /// The items of a window, oldest first, targets included.
    #[must_use]
    pub fn items(&self, window: usize) -> &[ItemIndex] {
        let Window { user, start, len } = self.windows[window];
        &self.sequences[user][start..start + len]
    }

    /// SHA-256 over everything that training reads here.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let mut bytes = format!("{:?} {}", self.targets, self.num_items).into_bytes();
        for window in 0..self.len() {
            let items = self.items(window);
            bytes.extend((items.len() as u64).to_le_bytes());
            bytes.extend(items.iter().flat_map(|item| item.0.to_le_bytes()));
        }
        hash::sha256_hex(&bytes)
    }

    /// The windows of each batch of an epoch: shuffled by `seed` and `epoch` alone, windows of like
    /// length together, the batches in random order.
    #[must_use]
    pub fn epoch(&self, batch_size: usize, seed: u64, epoch: u64) -> Vec<Vec<usize>> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed ^ ORDER_SEED);
        rng.set_stream(epoch);
        let mut order: Vec<usize> = (0..self.len()).collect();
        shuffle(&mut order, &mut rng);
        let batch_size = batch_size.max(1);
        let mut batches = Vec::with_capacity(order.len().div_ceil(batch_size));
        for bucket in order.chunks_mut(batch_size.saturating_mul(BATCHES_PER_BUCKET)) {
            bucket.sort_by_key(|&window| self.windows[window].len); // stable, so still shuffled
            batches.extend(bucket.chunks(batch_size).map(<[usize]>::to_vec));
        }
        shuffle(&mut batches, &mut rng);
        batches
    }

    /// Makes the tensors of a batch.
    ///
    /// # Errors
    /// Only what candle reports for making tensors.
    pub fn batch(&self, windows: &[usize], device: &Device) -> candle_core::Result<TrainingBatch> {
        let histories: Vec<&[ItemIndex]> = windows
            .iter()
            .map(|&window| {
                let items = self.items(window);
                &items[..items.len() - 1]
            })
            .collect();
        let histories = HistoryBatch::new(&histories, device)?;
        let longest = histories.items.dim(1)?;
        let (mut rows, mut targets) = (Vec::new(), Vec::new());
        for (row, &window) in windows.iter().enumerate() {
            let items = self.items(window);
            let first = match self.targets {
                Targets::All => 1,
                Targets::Last => items.len() - 1,
            };
            for (at, item) in items.iter().enumerate().skip(first) {
                rows.push((row * longest + at - 1) as u32);
                targets.push(item.0);
            }
        }
        Ok(TrainingBatch {
            histories,
            windows: windows.to_vec(),
            mode: self.targets,
            target_positions: rows,
            targets,
        })
    }
}

/// Histories and their targets.
#[derive(Clone, Debug)]
pub struct TrainingBatch {
    /// Histories `[B, S]`.
    pub histories: HistoryBatch,
    /// Which window of the training data each row is: the key of a cache of teacher states.
    pub windows: Vec<usize>,
    /// Which positions have a target.
    pub mode: Targets,
    /// Flat indices into `[B * S]` of the positions with a target, ascending, R of them.
    pub target_positions: Vec<u32>,
    /// The target items, one for each of `target_positions`.
    pub targets: Vec<u32>,
}

fn shuffle<T>(values: &mut [T], rng: &mut ChaCha8Rng) {
    for at in (1..values.len()).rev() {
        // The bias of multiply-and-shift is below 2^-32 * len: nothing for an order.
        let other = (u64::from(rng.next_u32()) * (at as u64 + 1)) >> 32;
        values.swap(at, other as usize);
    }
}

impl TrainingBatch {
    /// Flat indices into `[B * S]` of each history's last item. Each of them has a target.
    #[must_use]
    pub fn last_positions(&self) -> Vec<u32> {
        let longest = self.histories.lengths.iter().copied().max().unwrap_or(0);
        (self.histories.lengths.iter().enumerate())
            .map(|(row, len)| (row * longest + len - 1) as u32)
            .collect()
    }

    /// The targets at the last positions, one a history.
    #[must_use]
    pub fn last_targets(&self) -> Vec<u32> {
        let last = self.last_positions();
        (self.target_positions.iter().zip(&self.targets))
            .filter(|(position, _)| last.binary_search(position).is_ok())
            .map(|(_, target)| *target)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequence(items: std::ops::Range<u32>) -> Vec<ItemIndex> {
        items.map(ItemIndex).collect()
    }

    fn data(targets: Targets) -> TrainingData {
        let sequences = vec![
            sequence(1..12),
            sequence(20..22),
            sequence(30..31),
            sequence(0..0),
            sequence(40..45),
            sequence(50..54),
        ];
        TrainingData::from_sequences(sequences, 60, 4, targets).expect("data")
    }

    #[test]
    fn every_interaction_but_the_first_is_a_target_once() {
        let data = data(Targets::All);
        let mut found: Vec<u32> = Vec::new();
        for batch in data.epoch(3, 1, 0) {
            found.extend(data.batch(&batch, &Device::Cpu).expect("batch").targets);
        }
        found.sort_unstable();
        let expected: Vec<u32> = (2..12).chain(21..22).chain(41..45).chain(51..54).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn the_last_mode_has_the_newest_item_of_each_user() {
        let data = data(Targets::Last);
        let all: Vec<usize> = (0..data.len()).collect();
        let batch = data.batch(&all, &Device::Cpu).expect("batch");
        assert_eq!(batch.targets, [11, 21, 44, 53]);
        assert_eq!(batch.target_positions, [3, 4, 11, 14]);
        assert_eq!(batch.histories.lengths, [4, 1, 4, 3]);
    }

    #[test]
    fn targets_follow_their_history() {
        let data = data(Targets::All);
        let all: Vec<usize> = (0..data.len()).collect();
        let batch = data.batch(&all, &Device::Cpu).expect("batch");
        let items = batch.histories.items.flatten_all().expect("flat");
        let items = items.to_vec1::<u32>().expect("items");
        for (position, target) in batch.target_positions.iter().zip(&batch.targets) {
            assert_eq!(items[*position as usize] + 1, *target);
        }
    }

    #[test]
    fn the_order_depends_on_seed_and_epoch_alone() {
        let sequences = (0..200).map(|_| sequence(1..9)).collect();
        let data = TrainingData::from_sequences(sequences, 9, 50, Targets::All).expect("data");
        assert_eq!(data.epoch(8, 7, 3), data.epoch(8, 7, 3));
        assert_ne!(data.epoch(8, 7, 3), data.epoch(8, 7, 4));
        assert_ne!(data.epoch(8, 7, 3), data.epoch(8, 8, 3));
        let mut all: Vec<usize> = data.epoch(8, 7, 3).concat();
        all.sort_unstable();
        assert_eq!(all, (0..data.len()).collect::<Vec<_>>());
    }

    #[test]
    fn nothing_to_learn_is_an_error() {
        let none = TrainingData::from_sequences(vec![sequence(1..2)], 9, 50, Targets::All);
        assert!(matches!(none, Err(TrainError::NoData)));
    }
}
