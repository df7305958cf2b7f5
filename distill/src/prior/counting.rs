//! Which items stand near which in sequences.

use slmrec_core::prior::{Direction, PriorError, PriorSettings, TransitionPrior};
use slmrec_core::{Dataset, ItemIndex, Split};

/// A sequence whose pairs are counted.
#[derive(Clone, Copy, Debug)]
pub struct CountedSequence<'a> {
    /// The items, oldest first.
    pub items: &'a [ItemIndex],
    /// Place of the first item that is new: pairs of two older ones were counted before.
    pub new_from: usize,
}

/// The training sequences of a dataset, all new.
#[must_use]
pub fn training_sequences(dataset: &Dataset) -> Vec<CountedSequence<'_>> {
    sequences_before(dataset, Split::Validation)
}

/// Everything before the targets of a split, all new: the training sequences, and for the test
/// targets the validation items, too. That is what is known on the day when they are asked for.
#[must_use]
pub fn sequences_before(dataset: &Dataset, split: Split) -> Vec<CountedSequence<'_>> {
    let sequence = |user| {
        let items = dataset.known_before(user, split);
        CountedSequence { items, new_from: 0 }
    };
    (0..dataset.num_users()).map(sequence).collect()
}

/// Counts, for every occurrence of an item, the items at a distance of `1..=window`, and keeps of
/// each item the `most` neighbours with the greatest weights.
///
/// Memory is the result plus one number per item and 8 bytes per interaction: rows are made one by
/// one from the places where their item occurs.
///
/// # Errors
/// Settings outside their range, or items outside the catalog of `items` items.
pub fn count(
    sequences: &[CountedSequence<'_>],
    items: usize,
    settings: PriorSettings,
    most: usize,
) -> Result<TransitionPrior, PriorError> {
    settings.check()?;
    let all = sequences.iter().flat_map(|s| s.items);
    if let Some(item) = all.into_iter().find(|i| !(1..=items).contains(&i.row())) {
        return Err(PriorError {
            what: "a counted item".to_owned(),
            expected: format!("a row in 1..={items}"),
            found: item.0.to_string(),
        });
    }
    let occurrences = Occurrences::of(sequences, items);
    let weights: Vec<f64> = (1..=settings.window)
        .map(|distance| settings.pair_weight(distance))
        .collect();
    let mut sums = vec![0.0; items + 1];
    let mut touched = Vec::new();
    let rows = (0..=items).map(|item| {
        for &(sequence, at) in occurrences.of_item(item) {
            let CountedSequence { items, new_from } = sequences[sequence as usize];
            let at = at as usize;
            let mut add = |place: Option<usize>, weight: f64| {
                let Some(&other) = place.and_then(|place| items.get(place)) else {
                    return;
                };
                if sums[other.row()] == 0.0 {
                    touched.push(other);
                }
                sums[other.row()] += weight;
            };
            for (distance, &weight) in (1..).zip(&weights) {
                if at + distance >= new_from {
                    add(Some(at + distance), weight);
                }
                if settings.direction == Direction::Both && at >= new_from {
                    add(at.checked_sub(distance), weight);
                }
            }
        }
        touched.sort_unstable();
        let pair = |other: ItemIndex| (other, std::mem::take(&mut sums[other.row()]) as f32);
        touched.drain(..).map(pair).collect()
    });
    TransitionPrior::new(settings, occurrences.new.clone(), rows, most)
}

/// Where each item occurs, as (sequence, place in it).
struct Occurrences {
    offsets: Vec<usize>,
    places: Vec<(u32, u32)>,
    /// Of each item, how many of them are new; entry 0 is the padding.
    new: Vec<f32>,
}

impl Occurrences {
    fn of(sequences: &[CountedSequence<'_>], items: usize) -> Self {
        let mut offsets = vec![0; items + 2];
        let mut new = vec![0f32; items + 1];
        for sequence in sequences {
            for (at, item) in sequence.items.iter().enumerate() {
                offsets[item.row() + 1] += 1;
                new[item.row()] += f32::from(u8::from(at >= sequence.new_from));
            }
        }
        for row in 1..offsets.len() {
            offsets[row] += offsets[row - 1];
        }
        let mut next = offsets.clone();
        let mut places = vec![(0, 0); offsets[items + 1]];
        for (user, sequence) in (0u32..).zip(sequences) {
            for (at, item) in (0u32..).zip(sequence.items) {
                places[next[item.row()]] = (user, at);
                next[item.row()] += 1;
            }
        }
        Self {
            offsets,
            places,
            new,
        }
    }

    fn of_item(&self, row: usize) -> &[(u32, u32)] {
        &self.places[self.offsets[row]..self.offsets[row + 1]]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn counted(sequences: &[(&[ItemIndex], usize)], settings: PriorSettings) -> TransitionPrior {
        let sequences: Vec<_> = sequences
            .iter()
            .map(|&(items, new_from)| CountedSequence { items, new_from })
            .collect();
        count(&sequences, 8, settings, usize::MAX).expect("counts")
    }

    fn row(prior: &TransitionPrior, item: u32) -> Vec<(u32, f32)> {
        prior.row(ItemIndex(item)).map(|(i, w)| (i.0, w)).collect()
    }

    #[test]
    fn counts_by_hand() {
        let items = [1, 2, 1, 3].map(ItemIndex);
        let later = PriorSettings {
            window: 1,
            direction: Direction::Later,
            ..PriorSettings::WINDOW_5
        };
        let prior = counted(&[(&items, 0)], later);
        assert_eq!(row(&prior, 1), [(2, 1.0), (3, 1.0)]);
        assert_eq!(row(&prior, 2), [(1, 1.0)]);
        assert!(row(&prior, 3).is_empty() && row(&prior, 4).is_empty());
        assert_eq!(prior.interactions(), 4);
        let both = PriorSettings {
            window: 2,
            distance_power: 1.0,
            ..PriorSettings::WINDOW_5
        };
        let prior = counted(&[(&items, 0)], both);
        assert_eq!(row(&prior, 1), [(1, 1.0), (2, 2.0), (3, 1.0)]);
        assert_eq!(row(&prior, 2), [(1, 2.0), (3, 0.5)]);
        assert!(row(&prior, 0).is_empty() && row(&prior, 99).is_empty());
    }

    #[test]
    fn items_outside_the_catalog_are_refused() {
        for item in [0, 9] {
            let items = [ItemIndex(1), ItemIndex(item)];
            let sequence = CountedSequence {
                items: &items,
                new_from: 0,
            };
            assert!(count(&[sequence], 8, PriorSettings::WINDOW_5, 9).is_err());
        }
    }

    proptest! {
        #[test]
        fn old_and_new_pairs_are_all_pairs(
            sequences in prop::collection::vec(
                (prop::collection::vec((1u32..8).prop_map(ItemIndex), 0..12), 0usize..13), 0..6),
            window in 1usize..4,
            later in any::<bool>(),
        ) {
            let settings = PriorSettings {
                window,
                direction: if later { Direction::Later } else { Direction::Both },
                ..PriorSettings::WINDOW_5
            };
            let cut = |(items, at): &(Vec<ItemIndex>, usize)| (*at).min(items.len());
            let all: Vec<_> = sequences.iter().map(|s| (&s.0[..], 0)).collect();
            let old: Vec<_> = sequences.iter().map(|s| (&s.0[..cut(s)], 0)).collect();
            let new: Vec<_> = sequences.iter().map(|s| (&s.0[..], cut(s))).collect();
            let all = counted(&all, settings);
            let sum = counted(&old, settings).add(&counted(&new, settings), usize::MAX);
            prop_assert_eq!(sum.as_ref(), Ok(&all));
            // Against counting every pair of places.
            let mut expected = [[0.0f32; 9]; 9];
            for (items, _) in &sequences {
                for (i, a) in items.iter().enumerate() {
                    for (j, b) in items.iter().enumerate() {
                        let near = i != j && i.abs_diff(j) <= window;
                        if near && (j > i || !later) {
                            expected[a.row()][b.row()] += 1.0;
                        }
                    }
                }
            }
            for item in 0..9u32 {
                let mut dense = [0.0f32; 9];
                row(&all, item).into_iter().for_each(|(i, v)| dense[i as usize] = v);
                prop_assert_eq!(dense, expected[item as usize]);
            }
        }
    }
}
