//! What the prior would say to a user of the training data if that user had not been counted.
//!
//! A training sequence is in the counts itself, so they know its next items as they know no future
//! item of anybody. Who trains a model beside the counts, or by them, has to take the user's own
//! pairs out first. That is done row by row for the items of the user's history, exactly, but for
//! neighbours that were cut from long rows before.

use std::collections::HashMap;
use std::ops::Range;

use slmrec_core::ItemIndex;
use slmrec_core::prior::{Direction, SparseSums, TransitionPrior};

/// What remains of a count that was all the user's own, relative to it: rounding of sums in f32.
const NOTHING: f32 = 1e-4;

/// `p(i | history)` at some places of a training sequence, the history being all before the place,
/// without the sequence's own pairs: items ascending.
#[must_use]
pub fn sums_without(
    prior: &TransitionPrior,
    sequence: &[ItemIndex],
    places: Range<usize>,
) -> Vec<Vec<(u32, f32)>> {
    let rows = Rows::without(prior, sequence, &places);
    let mut sums = SparseSums::default();
    places
        .map(|place| {
            prior.sum_rows(&sequence[..place], &mut sums, |item| rows.of(item));
            let mut row: Vec<(u32, f32)> = sums.iter().map(|(item, p)| (item.0, p)).collect();
            row.sort_unstable_by_key(|(item, _)| *item);
            row
        })
        .collect()
}

/// Weights of the neighbours of the items that are read, less the sequence's own pairs.
struct Rows {
    of_item: HashMap<ItemIndex, Vec<(ItemIndex, f32)>>,
}

impl Rows {
    fn without(prior: &TransitionPrior, sequence: &[ItemIndex], places: &Range<usize>) -> Self {
        let read = places.start.saturating_sub(prior.settings().last_items)..places.end;
        let mut own = OwnCounts::default();
        for (at, item) in sequence.iter().enumerate() {
            *own.occurrences.entry(*item).or_default() += 1.0;
            if read.contains(&at) {
                own.pairs.entry(*item).or_default();
            }
        }
        own.count(prior, sequence);
        let of_item = own.pairs.keys().map(|&item| (item, own.rest(prior, item)));
        Self {
            of_item: of_item.collect(),
        }
    }

    fn of(&self, item: ItemIndex) -> impl Iterator<Item = (ItemIndex, f32)> {
        self.of_item.get(&item).into_iter().flatten().copied()
    }
}

#[derive(Default)]
struct OwnCounts {
    occurrences: HashMap<ItemIndex, f32>,
    /// Of the items that are read.
    pairs: HashMap<ItemIndex, HashMap<ItemIndex, f32>>,
}

impl OwnCounts {
    fn count(&mut self, prior: &TransitionPrior, sequence: &[ItemIndex]) {
        let settings = prior.settings();
        let weights: Vec<f32> = (1..=settings.window)
            .map(|distance| settings.pair_weight(distance) as f32)
            .collect();
        for (at, &first) in sequence.iter().enumerate() {
            for (&later, weight) in sequence[at + 1..].iter().zip(&weights) {
                let mut add = |item, neighbour| {
                    if let Some(row) = self.pairs.get_mut(&item) {
                        *row.entry(neighbour).or_default() += weight;
                    }
                };
                add(first, later);
                if settings.direction == Direction::Both {
                    add(later, first);
                }
            }
        }
    }

    /// The weights of an item's neighbours without the own counts.
    fn rest(&self, prior: &TransitionPrior, item: ItemIndex) -> Vec<(ItemIndex, f32)> {
        let own = self.pairs.get(&item);
        let left = prior.counts(item).filter_map(|(neighbour, count)| {
            let own = own.and_then(|own| own.get(&neighbour)).unwrap_or(&0.0);
            let left = count - own;
            (left > count * NOTHING).then_some((neighbour, left))
        });
        let (neighbours, mut counts): (Vec<ItemIndex>, Vec<f32>) = left.unzip();
        let occurrences = |item: ItemIndex| {
            let own = self.occurrences.get(&item).unwrap_or(&0.0);
            prior.occurrences(item) - own
        };
        (prior.settings()).weigh(neighbours.iter().copied(), &mut counts, occurrences);
        neighbours.into_iter().zip(counts).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use slmrec_core::prior::PriorSettings;

    use super::*;
    use crate::prior::counting::{CountedSequence, count};

    fn counted(sequences: &[Vec<ItemIndex>], settings: PriorSettings) -> TransitionPrior {
        let counted: Vec<_> = (sequences.iter())
            .map(|items| CountedSequence { items, new_from: 0 })
            .collect();
        count(&counted, 8, settings, usize::MAX).expect("counts")
    }

    proptest! {
        /// As if the others alone had been counted.
        #[test]
        fn is_what_the_others_say(
            sequences in prop::collection::vec(
                prop::collection::vec((1u32..8).prop_map(ItemIndex), 2..12), 1..6),
            window in 1usize..4,
            (later, normalise_rows) in (any::<bool>(), any::<bool>()),
            popularity_power in prop::sample::select(vec![0.0f32, 0.5]),
            last_items in 1usize..4,
        ) {
            let settings = PriorSettings {
                window,
                distance_power: 0.7,
                direction: if later { Direction::Later } else { Direction::Both },
                normalise_rows,
                popularity_power,
                last_items,
                ..PriorSettings::WINDOW_5
            };
            let all = counted(&sequences, settings);
            let others = counted(&sequences[1..], settings);
            let own = &sequences[0];
            let found = sums_without(&all, own, 1..own.len());
            prop_assert_eq!(found.len(), own.len() - 1);
            let mut sums = SparseSums::default();
            for (place, found) in (1..).zip(found) {
                others.sum(&own[..place], &mut sums);
                let mut expected: Vec<(u32, f32)> = sums.iter().map(|(i, p)| (i.0, p)).collect();
                expected.sort_unstable_by_key(|(item, _)| *item);
                prop_assert_eq!(found.len(), expected.len());
                for ((item, p), (expected_item, expected)) in found.iter().zip(&expected) {
                    prop_assert_eq!(item, expected_item);
                    prop_assert!((p - expected).abs() <= 1e-4 * expected, "{} and {}", p, expected);
                }
            }
        }
    }
}
