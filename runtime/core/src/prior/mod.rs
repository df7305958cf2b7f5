//! The transition prior: which items stood near which, counted, as an addition to a model's scores.
//!
//! ```text
//! p(i | history) = sum over the newest items h of the history, n = 0 for the newest:
//!                  decay^n * w[h, i]
//! w[h, i]        = count(h, i) / occurrences(i)^popularity_power, each row divided by its sum
//!                  where normalise_rows says so
//! score(i)       = model(i) + alpha * ln(1 + p(i) / beta)
//! ```
//! `alpha * ln(1 + p / beta)` is `alpha * ln(p + beta)` less a constant, so the ranking is the same
//! and an item without a count costs nothing: only the rows of the newest items are read.
//!
//! What is stored are counts, not weights, so that newer interactions can be added
//! ([`TransitionPrior::add`]) without what was counted before.

mod file;
mod sums;

use std::collections::BTreeMap;
use std::ops::Range;

use serde::{Deserialize, Serialize};

pub use sums::SparseSums;

use crate::history::newest;
use crate::vocabulary::ItemIndex;

/// Most history items whose rows are added up: what keeps a hostile setting cheap.
pub const MAX_LAST_ITEMS: usize = 1000;
/// Largest counted distance.
pub const MAX_WINDOW: usize = 1000;

/// Why a prior could not be made or read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{what}: expected {expected}, found {found}")]
pub struct PriorError {
    /// The setting or the part of the file.
    pub what: String,
    /// What would have been right.
    pub expected: String,
    /// What stands there.
    pub found: String,
}

/// Which neighbours of an occurrence are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Only items that come later.
    Later,
    /// Items on both sides.
    Both,
}

/// How pairs are counted and how a history adds them up.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PriorSettings {
    /// Largest distance of a counted pair.
    pub window: usize,
    /// A pair at distance d counts `d^-distance_power`.
    pub distance_power: f32,
    /// Which neighbours are counted.
    pub direction: Direction,
    /// A count is divided by the occurrences of the scored item to this power.
    pub popularity_power: f32,
    /// Whether the weights of each item's neighbours are then made to sum to one.
    pub normalise_rows: bool,
    /// How many of the newest items of the history are added up.
    pub last_items: usize,
    /// Weight of an item relative to the item after it.
    pub decay: f32,
}

impl PriorSettings {
    /// Plain counts within five places on either side, halved per step back in the history.
    pub const WINDOW_5: Self = Self {
        window: 5,
        distance_power: 0.0,
        direction: Direction::Both,
        popularity_power: 0.0,
        normalise_rows: false,
        last_items: 5,
        decay: 0.5,
    };

    /// What a pair at `distance` (at least 1) counts.
    #[must_use]
    pub fn pair_weight(&self, distance: usize) -> f64 {
        (distance as f64).powf(-f64::from(self.distance_power))
    }

    /// Turns the counts of one item's neighbours into weights, in place. `occurrences` says how often
    /// an item occurred where pairs were counted.
    pub fn weigh(
        &self,
        neighbours: impl Iterator<Item = ItemIndex>,
        counts: &mut [f32],
        occurrences: impl Fn(ItemIndex) -> f32,
    ) {
        for (count, item) in counts.iter_mut().zip(neighbours) {
            *count *= occurrences(item).max(1.0).powf(-self.popularity_power);
        }
        if self.normalise_rows {
            let sum: f64 = counts.iter().map(|w| f64::from(*w)).sum();
            // Counts of nearly nothing can round to weights of nothing.
            if sum > 0.0 {
                for weight in counts {
                    *weight = (f64::from(*weight) / sum) as f32;
                }
            }
        }
    }

    /// Checks every field's range.
    ///
    /// # Errors
    /// The first field outside its range.
    pub fn check(&self) -> Result<(), PriorError> {
        let range = |what: &str, right: bool, expected: String, found: String| {
            if right {
                Ok(())
            } else {
                Err(wrong(&format!("the prior's {what}"), expected, found))
            }
        };
        for (what, value, most) in [
            ("window", self.window, MAX_WINDOW),
            ("last_items", self.last_items, MAX_LAST_ITEMS),
        ] {
            let right = (1..=most).contains(&value);
            range(what, right, format!("1..={most}"), value.to_string())?;
        }
        for (what, value, most) in [
            ("distance_power", self.distance_power, 10.0),
            ("popularity_power", self.popularity_power, 2.0),
            ("decay", self.decay, 1.0),
        ] {
            let right = (0.0..=most).contains(&value);
            range(what, right, format!("0..={most}"), value.to_string())?;
        }
        Ok(())
    }
}

/// How the prior stands beside a model's scores.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PriorWeights {
    /// Weight of the logarithm.
    pub alpha: f32,
    /// What is added to the counts inside it: small values trust rare pairs.
    pub beta: f32,
}

impl PriorWeights {
    fn addition(self, p: f32) -> f32 {
        self.alpha * (p / self.beta).ln_1p()
    }

    /// Checks that both can be calculated with.
    ///
    /// # Errors
    /// An `alpha` that is negative or no number, a `beta` that is not positive.
    pub fn check(&self) -> Result<(), PriorError> {
        let Self { alpha, beta } = *self;
        if !(alpha.is_finite() && alpha >= 0.0) {
            return Err(wrong("the prior's alpha", "a number of at least 0", alpha));
        }
        if !(beta.is_normal() && beta > 0.0) {
            return Err(wrong("the prior's beta", "a positive number", beta));
        }
        Ok(())
    }
}

/// Counts of item pairs, and the weights that follow from them.
#[derive(Clone, Debug, PartialEq)]
pub struct TransitionPrior {
    settings: PriorSettings,
    /// How often each item occurred where pairs were counted; entry 0 is the padding.
    occurrences: Vec<f32>,
    /// Where each item's neighbours begin; `N + 2` entries, the padding's row is empty.
    offsets: Vec<usize>,
    /// Rows of the neighbours, ascending within an item's.
    neighbours: Vec<u32>,
    /// `count(h, i)`, positive.
    counts: Vec<f32>,
    /// `w[h, i]`
    weights: Vec<f32>,
}

impl TransitionPrior {
    /// A prior over `occurrences.len() - 1` items. `rows[h]` are the neighbours of item row `h`
    /// with their counts, ascending; entry 0, the padding, is empty. Of each row the `most`
    /// neighbours with the greatest weights are kept (among equal ones those that come first in the
    /// catalog).
    ///
    /// # Errors
    /// Settings outside their range; rows out of order or outside the catalog; a count that is not
    /// positive.
    pub fn new(
        settings: PriorSettings,
        occurrences: Vec<f32>,
        rows: impl IntoIterator<Item = Vec<(ItemIndex, f32)>>,
        most: usize,
    ) -> Result<Self, PriorError> {
        let mut offsets = vec![0];
        let (mut neighbours, mut counts) = (Vec::new(), Vec::new());
        let power = -settings.popularity_power;
        let factor = |item: ItemIndex| {
            let occurrences = occurrences.get(item.row()).copied().unwrap_or_default();
            occurrences.max(1.0).powf(power)
        };
        for mut row in rows {
            if row.len() > most {
                let weight = |&(item, count): &(ItemIndex, f32)| count * factor(item);
                row.sort_by(|a, b| weight(b).total_cmp(&weight(a)).then(a.0.cmp(&b.0)));
                row.truncate(most);
                row.sort_unstable_by_key(|(item, _)| *item);
            }
            neighbours.extend(row.iter().map(|(item, _)| item.0));
            counts.extend(row.iter().map(|(_, count)| *count));
            offsets.push(neighbours.len());
        }
        Self::from_parts(settings, occurrences, offsets, neighbours, counts)
    }

    fn from_parts(
        settings: PriorSettings,
        occurrences: Vec<f32>,
        offsets: Vec<usize>,
        neighbours: Vec<u32>,
        counts: Vec<f32>,
    ) -> Result<Self, PriorError> {
        settings.check()?;
        let mut prior = Self {
            settings,
            occurrences,
            offsets,
            neighbours,
            counts,
            weights: Vec::new(),
        };
        prior.check()?;
        prior.weigh();
        Ok(prior)
    }

    fn check(&self) -> Result<(), PriorError> {
        let items = self.occurrences.len();
        if self.offsets.len() != items + 1 || self.offsets.get(1) != Some(&0) {
            let found = format!("{} rows", self.offsets.len().saturating_sub(1));
            let expected = format!("{items} rows, the first one empty");
            return Err(wrong("the prior's rows", expected, found));
        }
        let positive = |values: &[f32], least: f32| {
            let bad = |v: &&f32| !v.is_finite() || **v < least;
            values.iter().find(bad).copied()
        };
        if let Some(found) = positive(&self.occurrences, 0.0) {
            return Err(wrong("the prior's occurrences", "at least 0", found));
        }
        if let Some(found) = positive(&self.counts, f32::MIN_POSITIVE) {
            return Err(wrong("the prior's counts", "above 0", found));
        }
        for bounds in self.offsets.windows(2) {
            let row = &self.neighbours[bounds[0]..bounds[1]];
            let ascending = row.windows(2).all(|pair| pair[0] < pair[1]);
            let first = row.first().is_none_or(|first| *first > 0);
            let last = row.last().is_none_or(|last| (*last as usize) < items);
            if !(ascending && first && last) {
                let expected = format!("ascending item rows in 1..{items}");
                return Err(wrong("the prior's neighbours", expected, "others"));
            }
        }
        Ok(())
    }

    /// Counts to weights.
    fn weigh(&mut self) {
        let mut weights = Vec::with_capacity(self.counts.len());
        for bounds in self.offsets.windows(2) {
            let row = bounds[0]..bounds[1];
            let first = weights.len();
            weights.extend_from_slice(&self.counts[row.clone()]);
            let occurrences = |item: ItemIndex| self.occurrences[item.row()];
            let items = self.neighbours[row].iter().map(|item| ItemIndex(*item));
            (self.settings).weigh(items, &mut weights[first..], occurrences);
        }
        self.weights = weights;
    }

    /// The settings that it was counted with.
    #[must_use]
    pub fn settings(&self) -> &PriorSettings {
        &self.settings
    }

    /// The same counts, read in another way. `window`, `distance_power` and `direction` are part of
    /// the counts and stay as they are.
    ///
    /// # Errors
    /// Settings outside their range.
    pub fn read_as(mut self, settings: PriorSettings) -> Result<Self, PriorError> {
        self.settings = PriorSettings {
            window: self.settings.window,
            distance_power: self.settings.distance_power,
            direction: self.settings.direction,
            ..settings
        };
        self.settings.check()?;
        self.weigh();
        Ok(self)
    }

    /// Number of items N.
    #[must_use]
    pub fn num_items(&self) -> usize {
        self.occurrences.len() - 1
    }

    /// Occurrences that were counted, of all items together.
    #[must_use]
    pub fn interactions(&self) -> usize {
        self.occurrences.iter().map(|n| f64::from(*n)).sum::<f64>() as usize
    }

    /// Most neighbours of an item.
    #[must_use]
    pub fn longest_row(&self) -> usize {
        let lengths = self.offsets.windows(2).map(|w| w[1] - w[0]);
        lengths.max().unwrap_or_default()
    }

    /// Number of pairs.
    #[must_use]
    pub fn num_pairs(&self) -> usize {
        self.neighbours.len()
    }

    /// The neighbours of an item and their weights; nothing for rows outside the catalog.
    pub fn row(&self, item: ItemIndex) -> impl Iterator<Item = (ItemIndex, f32)> {
        let bounds = self.bounds(item);
        let row = self.neighbours[bounds.clone()]
            .iter()
            .map(|i| ItemIndex(*i));
        row.zip(self.weights[bounds].iter().copied())
    }

    fn bounds(&self, item: ItemIndex) -> Range<usize> {
        match self.offsets.get(item.row()..) {
            Some([from, to, ..]) => *from..*to,
            _ => 0..0,
        }
    }

    /// The neighbours of an item and how often they were counted; nothing for rows outside the
    /// catalog.
    pub fn counts(&self, item: ItemIndex) -> impl Iterator<Item = (ItemIndex, f32)> {
        let bounds = self.bounds(item);
        let row = self.neighbours[bounds.clone()].iter();
        row.map(|i| ItemIndex(*i))
            .zip(self.counts[bounds].iter().copied())
    }

    /// How often an item occurred where pairs were counted; 0 outside the catalog.
    #[must_use]
    pub fn occurrences(&self, item: ItemIndex) -> f32 {
        self.occurrences
            .get(item.row())
            .copied()
            .unwrap_or_default()
    }

    /// `p(i | history)` of every item that has one, into `sums`. The history is oldest first.
    pub fn sum(&self, history: &[ItemIndex], sums: &mut SparseSums) {
        self.sum_rows(history, sums, |item| self.row(item));
    }

    /// The same with other neighbours than those of the prior.
    pub fn sum_rows<R: Iterator<Item = (ItemIndex, f32)>>(
        &self,
        history: &[ItemIndex],
        sums: &mut SparseSums,
        row: impl Fn(ItemIndex) -> R,
    ) {
        sums.clear(self.num_items());
        let mut weight = 1.0;
        for &item in newest(history, self.settings.last_items).iter().rev() {
            for (neighbour, w) in row(item) {
                sums.add(neighbour, weight * w);
            }
            weight *= self.settings.decay;
        }
    }

    /// Adds `alpha * ln(1 + p / beta)` to the scores of the catalog; `scores[i]` belongs to row
    /// `i + 1`.
    pub fn add_to(
        &self,
        history: &[ItemIndex],
        weights: PriorWeights,
        sums: &mut SparseSums,
        scores: &mut [f32],
    ) {
        self.sum(history, sums);
        for (item, p) in sums.iter() {
            if let Some(score) = scores.get_mut(item.row() - 1) {
                *score += weights.addition(p);
            }
        }
    }

    /// What [`Self::add_to`] adds, in ascending order of items; items that get nothing are left
    /// out.
    #[must_use]
    pub fn additions(
        &self,
        history: &[ItemIndex],
        weights: PriorWeights,
        sums: &mut SparseSums,
    ) -> Vec<(ItemIndex, f32)> {
        self.sum(history, sums);
        let additions = sums.iter().map(|(item, p)| (item, weights.addition(p)));
        let mut additions: Vec<_> = additions.collect();
        additions.sort_unstable_by_key(|(item, _)| *item);
        additions
    }

    /// Adds the counts of newer interactions, counted in the same way over the same catalog, and
    /// keeps the `most` greatest weights of each item.
    ///
    /// # Errors
    /// Another catalog or other settings of counting.
    pub fn add(&self, newer: &Self, most: usize) -> Result<Self, PriorError> {
        let how = |p: &Self| {
            (
                p.settings.window,
                p.settings.distance_power,
                p.settings.direction,
            )
        };
        if self.num_items() != newer.num_items() || how(self) != how(newer) {
            let show = |p: &Self| format!("{:?} over {} items", how(p), p.num_items());
            return Err(wrong("the counts to add", show(self), show(newer)));
        }
        let occurrences = self.occurrences.iter().zip(&newer.occurrences);
        let rows = (0..self.occurrences.len()).map(|row| {
            let mut merged: BTreeMap<u32, f32> = BTreeMap::new();
            for prior in [self, newer] {
                let bounds = prior.offsets[row]..prior.offsets[row + 1];
                let counts = prior.neighbours[bounds.clone()]
                    .iter()
                    .zip(&prior.counts[bounds]);
                counts.for_each(|(item, count)| *merged.entry(*item).or_default() += count);
            }
            merged.into_iter().map(|(i, c)| (ItemIndex(i), c)).collect()
        });
        let occurrences = occurrences.map(|(a, b)| a + b).collect();
        Self::new(self.settings, occurrences, rows, most)
    }
}

fn wrong(what: &str, expected: impl ToString, found: impl ToString) -> PriorError {
    PriorError {
        what: what.to_owned(),
        expected: expected.to_string(),
        found: found.to_string(),
    }
}

#[cfg(test)]
mod tests;
