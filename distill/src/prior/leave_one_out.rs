//! What the prior would say to a counted user if that user, or that user's newest items, had not been
//! counted.
//!
//! A counted sequence is in the counts itself, so they know its next items as they know no future
//! item of anybody. Who asks them for such an item has to take the user's own pairs with it out
//! first. That is done row by row for the items of the user's history, exactly, but for neighbours
//! that were cut from long rows before.

use std::collections::HashMap;
use std::ops::Range;

use slmrec_core::ItemIndex;
use slmrec_core::prior::{Direction, SparseSums, TransitionPrior};

use super::counting::CountedSequence;

/// What remains of a count that was all the user's own, relative to it: rounding of sums in f32.
const NOTHING: f32 = 1e-4;

/// `p(i | history)` at some places of a counted sequence, the history being all before the place,
/// without the pairs that the sequence's new items are in: items ascending.
#[must_use]
pub fn sums_without(
    prior: &TransitionPrior,
    own: CountedSequence<'_>,
    places: Range<usize>,
) -> Vec<Vec<(u32, f32)>> {
    let rows = Rows::without(prior, own, &places);
    let mut sums = SparseSums::default();
    places
        .map(|place| {
            prior.sum_rows(&own.items[..place], &mut sums, |item| rows.of(item));
            let mut row: Vec<(u32, f32)> = sums.iter().map(|(item, p)| (item.0, p)).collect();
            row.sort_unstable_by_key(|(item, _)| *item);
            row
        })
        .collect()
}

/// `p(i | history)` for what a counted user chose after all items but the last, without the pairs
/// of that last one.
pub fn sum_without_last(prior: &TransitionPrior, items: &[ItemIndex], sums: &mut SparseSums) {
    let last = items.len().saturating_sub(1);
    let own = CountedSequence {
        items,
        new_from: last,
    };
    let rows = Rows::without(prior, own, &(last..last));
    prior.sum_rows(&items[..last], sums, |item| rows.of(item));
}

/// Weights of the neighbours of the items that are read, less the own pairs.
struct Rows {
    of_item: HashMap<ItemIndex, Vec<(ItemIndex, f32)>>,
}

impl Rows {
    fn without(prior: &TransitionPrior, own: CountedSequence<'_>, places: &Range<usize>) -> Self {
        let read = places.start.saturating_sub(prior.settings().last_items)..places.end;
        let mut counts = OwnCounts::default();
        for (at, item) in own.items.iter().enumerate() {
            if at >= own.new_from {
                *counts.occurrences.entry(*item).or_default() += 1.0;
            }
            if read.contains(&at) {
                counts.pairs.entry(*item).or_default();
            }
        }
        counts.count(prior, own);
        let of_item = (counts.pairs.keys()).map(|&item| (item, counts.rest(prior, item)));
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
    fn count(
        &mut self,
        prior: &TransitionPrior,
        CountedSequence { items, new_from }: CountedSequence<'_>,
    ) {
        let settings = prior.settings();
        let weights: Vec<f32> = (1..=settings.window)
            .map(|distance| settings.pair_weight(distance) as f32)
            .collect();
        for (at, &first) in items.iter().enumerate() {
            let new = new_from.saturating_sub(at + 1);
            for (&later, weight) in items[at + 1..].iter().zip(&weights).skip(new) {
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

    fn sorted(sums: &SparseSums) -> Vec<(u32, f32)> {
        let mut sorted: Vec<(u32, f32)> = sums.iter().map(|(i, p)| (i.0, p)).collect();
        sorted.sort_unstable_by_key(|(item, _)| *item);
        sorted
    }

    fn same(found: &[(u32, f32)], expected: &SparseSums) -> Result<(), TestCaseError> {
        let expected = sorted(expected);
        prop_assert_eq!(found.len(), expected.len());
        for ((item, p), (expected_item, expected)) in found.iter().zip(&expected) {
            prop_assert_eq!(item, expected_item);
            prop_assert!(
                (p - expected).abs() <= 1e-4 * expected,
                "{} and {}",
                p,
                expected
            );
        }
        Ok(())
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
            let new = CountedSequence { items: own, new_from: 0 };
            let found = sums_without(&all, new, 1..own.len());
            prop_assert_eq!(found.len(), own.len() - 1);
            let mut sums = SparseSums::default();
            for (place, found) in (1..).zip(found) {
                others.sum(&own[..place], &mut sums);
                same(&found, &sums)?;
            }
            // All that the user chose before the last item stays.
            let mut before = sequences.clone();
            before[0].pop();
            let before = counted(&before, settings);
            before.sum(&own[..own.len() - 1], &mut sums);
            let mut found = SparseSums::default();
            sum_without_last(&all, own, &mut found);
            same(&sorted(&found), &sums)?;
        }
    }
}
