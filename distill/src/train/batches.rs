//! Training sequences as windows, and windows as batches.
//!
//! A window is at most `max_history + 1` items: its first items are the history, and each position
//! predicts the item after it. Windows are cut from the end of a sequence and share one item with
//! the next older window, so that every interaction but a user's first is a target exactly once.

mod order;
mod share;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use candle_core::Device;
use rayon::prelude::*;
use slmrec_core::prior::TransitionPrior;
use slmrec_core::{Dataset, ItemIndex, Split, hash};

use super::losses::negatives::NegativeSampler;
use super::losses::offsets::{MASKED, Offsets};
use super::settings::check;
use super::{CatalogLoss, Targets, TrainError, TrainSettings};
use crate::model::{HistoryBatch, ItemLookups, ReadAt};
use crate::prior::{CountedSequence, sums_without};

pub use order::EpochOrder;
pub use share::Share;

/// Windows whose items are hashed together, so that hashing needs little memory.
const WINDOWS_PER_DIGEST: usize = 1 << 16;

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

/// A window as it is kept: there are more of them than users.
#[derive(Clone, Copy, Debug)]
struct Piece {
    user: u32,
    start: u32,
    len: u32,
}

/// All windows of a data set: one list of items, and 12 bytes a window.
#[derive(Clone, Debug)]
pub struct TrainingData {
    /// All training sequences, one after the other.
    items: Vec<ItemIndex>,
    /// Where each user's sequence begins in `items`; the last entry is its length.
    offsets: Vec<usize>,
    pieces: Vec<Piece>,
    targets: Targets,
    num_items: usize,
    share_histories: bool,
    negatives: Option<Arc<NegativeSampler>>,
    prior: Option<Arc<TransitionPrior>>,
    mask_seen: bool,
    label_smoothing: f64,
    item_dropout: f64,
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
        Self::of_users(dataset, Split::Validation, &[], max_history, targets)
    }

    /// The same from training sequences (oldest first), one a user, over `num_items` items.
    ///
    /// # Errors
    /// [`TrainError::NoData`] when no sequence has two items; [`TrainError::Setting`] for a
    /// `max_history` of 0, or more users or interactions than 32 bits count.
    pub fn from_sequences(
        sequences: Vec<Vec<ItemIndex>>,
        num_items: usize,
        max_history: usize,
        targets: Targets,
    ) -> Result<Self, TrainError> {
        let sequences = sequences.iter().map(Vec::as_slice);
        Self::cut(sequences, num_items, max_history, targets)
    }

    pub(super) fn cut<'s>(
        sequences: impl Iterator<Item = &'s [ItemIndex]>,
        num_items: usize,
        max_history: usize,
        targets: Targets,
    ) -> Result<Self, TrainError> {
        check("max_history", max_history > 0, "at least 1", max_history)?;
        let (mut items, mut offsets) = (Vec::new(), vec![0]);
        for sequence in sequences {
            items.extend_from_slice(sequence);
            offsets.push(items.len());
        }
        items.shrink_to_fit();
        for (what, count) in [("interactions", items.len()), ("users", offsets.len())] {
            check(
                what,
                u32::try_from(count).is_ok(),
                "at most 2^32 - 1",
                count,
            )?;
        }
        let pieces = cut(&offsets, max_history, targets);
        if pieces.is_empty() {
            return Err(TrainError::NoData);
        }
        Ok(Self {
            items,
            offsets,
            pieces,
            targets,
            num_items,
            share_histories: true,
            negatives: None,
            prior: None,
            mask_seen: false,
            label_smoothing: 0.0,
            item_dropout: 0.0,
        })
    }

    /// What else the settings of the run say about its batches: how many windows of a user there are,
    /// where negatives are drawn from, what is masked, smoothed and hidden, and whether equal histories
    /// are shared. Without this there are all windows, the catalog's loss is the plain full one, and
    /// they are shared.
    ///
    /// # Errors
    /// [`TrainError::Setting`] for more negatives than items.
    pub fn with_settings(mut self, settings: &TrainSettings) -> Result<Self, TrainError> {
        self.share_histories = settings.share_histories;
        self.mask_seen = settings.mask_seen;
        self.label_smoothing = settings.label_smoothing;
        self.item_dropout = settings.item_dropout;
        if settings.newest_windows > 0 {
            self.keep_newest(settings.newest_windows);
        }
        self.negatives = match &settings.catalog_loss {
            CatalogLoss::Full => None,
            CatalogLoss::Sampled(sampled) => {
                let mut counts = vec![0u32; self.num_items];
                for item in &self.items {
                    counts[item.row() - 1] += 1;
                }
                Some(Arc::new(NegativeSampler::new(sampled, &counts)?))
            }
        };
        Ok(self)
    }

    /// Has every batch say what the counts of these training sequences predict at each target, without
    /// the user's own ([`TrainingBatch::prior`]).
    #[must_use]
    pub fn with_prior(mut self, prior: Arc<TransitionPrior>) -> Self {
        self.prior = Some(prior);
        self
    }

    /// Keeps the newest `most` windows of each user.
    fn keep_newest(&mut self, most: usize) {
        let (mut user, mut kept) = (u32::MAX, 0);
        self.pieces.retain(|piece| {
            if piece.user != user {
                (user, kept) = (piece.user, 0);
            }
            kept += 1;
            kept <= most
        });
    }

    /// Number of windows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pieces.len()
    }

    /// Never true: there is at least one window.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Draws of a step where the softmax is sampled.
    #[must_use]
    pub fn draws(&self) -> Option<usize> {
        self.negatives.as_ref().map(|sampler| sampler.draws())
    }

    /// Number of items N of the catalog.
    #[must_use]
    pub fn num_items(&self) -> usize {
        self.num_items
    }

    /// A window by its number: users in order, each user's newest first.
    #[must_use]
    pub fn window(&self, window: usize) -> Window {
        let Piece { user, start, len } = self.pieces[window];
        Window {
            user: user as usize,
            start: start as usize,
            len: len as usize,
        }
    }

    /// The windows, users in order, each user's newest first.
    pub fn windows(&self) -> impl Iterator<Item = Window> {
        (0..self.len()).map(|window| self.window(window))
    }

    /// The items of a window, oldest first, targets included.
    #[must_use]
    pub fn items(&self, window: usize) -> &[ItemIndex] {
        let Window { user, start, len } = self.window(window);
        let start = self.offsets[user] + start;
        &self.items[start..start + len]
    }

    /// The items of a window that the model sees.
    fn history(&self, window: usize) -> &[ItemIndex] {
        let items = self.items(window);
        &items[..items.len() - 1]
    }

    /// SHA-256 over everything that training reads here.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let mut digests = format!("{:?} {}", self.targets, self.num_items);
        let windows: Vec<usize> = (0..self.len()).collect();
        for windows in windows.chunks(WINDOWS_PER_DIGEST) {
            let mut bytes = Vec::new();
            for &window in windows {
                let items = self.items(window);
                bytes.extend((items.len() as u64).to_le_bytes());
                bytes.extend(items.iter().flat_map(|item| item.0.to_le_bytes()));
            }
            digests.push_str(&hash::sha256_hex(&bytes));
        }
        hash::sha256_hex(digests.as_bytes())
    }

    /// The batches of an epoch: windows shuffled by `seed` and `epoch` alone, those of like length
    /// together, the batches in random order.
    #[must_use]
    pub fn epoch(&self, batch_size: usize, seed: u64, epoch: u64) -> EpochOrder {
        let lengths = |window: u32| self.pieces[window as usize].len;
        EpochOrder::new(self.len(), lengths, batch_size, (seed, epoch))
    }

    /// Makes the tensors of a batch. Windows with the same history become one row, unless the
    /// settings say otherwise.
    ///
    /// # Errors
    /// Only what candle reports for making tensors.
    pub fn batch(&self, windows: &[usize], device: &Device) -> candle_core::Result<TrainingBatch> {
        let (representatives, row_of) = self.rows(windows);
        let histories: Vec<&[ItemIndex]> = (representatives.iter())
            .map(|&window| self.history(window))
            .collect();
        let read = match self.targets {
            Targets::All => ReadAt::EveryItem,
            Targets::Last => ReadAt::LastItem,
        };
        let mut histories = HistoryBatch::new(&histories, device)?.reading(read);
        // A step that draws items reads a few rows of the item table.
        histories.lookups = self.negatives.is_some().then(Arc::default);
        let longest = histories.items.dim(1)?;
        let mut examples = Vec::new();
        for (&row, &window) in row_of.iter().zip(windows) {
            let items = self.items(window);
            for at in self.target_places(items.len()) {
                let number = examples.len();
                examples.push(((row * longest + at - 1) as u32, items[at].0, number));
            }
        }
        examples.sort_by_key(|(position, ..)| *position);
        let order: Vec<usize> = examples.iter().map(|(.., number)| *number).collect();
        let prior = (self.prior.as_deref()).map(|prior| {
            let sums = |items: &[ItemIndex], places| {
                sums_without(prior, CountedSequence { items, new_from: 0 }, places)
            };
            self.beside(windows, &order, sums)
        });
        let seen = (self.mask_seen).then(|| self.beside(windows, &order, seen_before));
        let (target_positions, targets) = examples.into_iter().map(|(p, t, _)| (p, t)).unzip();
        Ok(TrainingBatch {
            histories,
            windows: representatives,
            mode: self.targets,
            target_positions,
            targets,
            negatives: self.negatives.clone(),
            prior,
            seen,
            label_smoothing: self.label_smoothing,
            item_dropout: self.item_dropout,
            share: Share::WHOLE,
        })
    }

    /// Which places of a window of `len` items are targets.
    fn target_places(&self, len: usize) -> Range<usize> {
        match self.targets {
            Targets::All => 1..len,
            Targets::Last => len - 1..len,
        }
    }

    /// What `rows` gives for the target places of the windows (from a user's whole sequence and places
    /// in it), in another order.
    fn beside(
        &self,
        windows: &[usize],
        order: &[usize],
        rows: impl Fn(&[ItemIndex], Range<usize>) -> Vec<Vec<(u32, f32)>> + Sync,
    ) -> Offsets {
        let of_windows: Vec<_> = (windows.par_iter())
            .map(|&window| {
                let Window { user, start, len } = self.window(window);
                let sequence = &self.items[self.offsets[user]..self.offsets[user + 1]];
                let places = self.target_places(len);
                rows(sequence, start + places.start..start + places.end)
            })
            .collect();
        let mut rows: Vec<_> = of_windows.into_iter().flatten().collect();
        Offsets::from_rows((order.iter()).map(|&number| std::mem::take(&mut rows[number])))
    }

    /// One window for each row of a batch, and the row of each window.
    fn rows(&self, windows: &[usize]) -> (Vec<usize>, Vec<usize>) {
        if !self.share_histories {
            return (windows.to_vec(), (0..windows.len()).collect());
        }
        let mut first_of: HashMap<&[ItemIndex], usize> = HashMap::with_capacity(windows.len());
        let mut representatives = Vec::with_capacity(windows.len());
        let row_of = (windows.iter())
            .map(|&window| {
                *first_of.entry(self.history(window)).or_insert_with(|| {
                    representatives.push(window);
                    representatives.len() - 1
                })
            })
            .collect();
        (representatives, row_of)
    }
}

/// Windows of all users in order, each user's newest first.
fn cut(offsets: &[usize], max_history: usize, targets: Targets) -> Vec<Piece> {
    let mut pieces = Vec::new();
    for (user, borders) in offsets.windows(2).enumerate() {
        let mut end = borders[1] - borders[0];
        while end >= 2 {
            let len = end.min(max_history.saturating_add(1));
            let start = end - len;
            pieces.push(Piece {
                user: user as u32,
                start: start as u32,
                len: len as u32,
            });
            if targets == Targets::Last || start == 0 {
                break;
            }
            end = start + 1;
        }
    }
    pieces.shrink_to_fit();
    pieces
}

/// Histories and their targets.
#[derive(Clone, Debug)]
pub struct TrainingBatch {
    /// Histories `[B, S]`.
    pub histories: HistoryBatch,
    /// Which window of the training data each row is (the first of those that share it): the key of
    /// a cache of teacher states.
    pub windows: Vec<usize>,
    /// Which positions have a target.
    pub mode: Targets,
    /// Flat indices into `[B * S]` of the positions with a target, ascending, R of them. A position
    /// occurs once for each window that shares it.
    pub target_positions: Vec<u32>,
    /// The target items, one for each of `target_positions`.
    pub targets: Vec<u32>,
    /// `p(i | history)` of the transition prior at each target, the user's own pairs not counted, where
    /// the data has a prior.
    pub prior: Option<Offsets>,
    /// What takes the items that the user had before out of each target's softmax, where the settings
    /// say so.
    pub seen: Option<Offsets>,
    /// Share of a target's probability that all candidates get alike.
    pub label_smoothing: f64,
    /// Chance of each item of a history to be hidden.
    pub item_dropout: f64,
    /// What draws the candidates of a sampled softmax; `None` for the full one.
    pub negatives: Option<Arc<NegativeSampler>>,
    /// How much of the step's batch this is.
    pub share: Share,
}

/// The items before each place as [`MASKED`], ascending, without the item at the place.
fn seen_before(sequence: &[ItemIndex], places: Range<usize>) -> Vec<Vec<(u32, f32)>> {
    let mut seen: Vec<u32> = sequence[..places.start].iter().map(|item| item.0).collect();
    seen.sort_unstable();
    seen.dedup();
    places
        .map(|place| {
            let target = sequence[place].0;
            let others = seen.iter().filter(|item| **item != target);
            let row = others.map(|item| (*item, MASKED)).collect();
            if let Err(at) = seen.binary_search(&target) {
                seen.insert(at, target);
            }
            row
        })
        .collect()
}

impl TrainingBatch {
    /// What takes the gradient of single rows of the item table in this step.
    #[must_use]
    pub fn lookups(&self) -> Option<&ItemLookups> {
        self.histories.lookups.as_deref()
    }

    /// Flat indices into `[B * S]` of each history's last item. Each of them has a target.
    #[must_use]
    pub fn last_positions(&self) -> Vec<u32> {
        let longest = self.histories.lengths.iter().copied().max().unwrap_or(0);
        (self.histories.lengths.iter().enumerate())
            .map(|(row, len)| (row * longest + len - 1) as u32)
            .collect()
    }

    /// The positions of `target_positions` that are the last of their history, and their targets.
    #[must_use]
    pub fn last_examples(&self) -> (Vec<u32>, Vec<u32>) {
        let last = self.last_positions();
        (self.target_positions.iter().zip(&self.targets))
            .filter(|(position, _)| last.binary_search(position).is_ok())
            .unzip()
    }
}
