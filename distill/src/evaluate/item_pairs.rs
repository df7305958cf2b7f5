//! Which items stand near which in the training sequences: a sparse item-by-item matrix.

use slmrec_core::ItemIndex;
use slmrec_core::dataset::Dataset;

/// Sparse rows of (item, weight), one row per item, items ascending within a row.
#[derive(Clone, Debug)]
pub struct ItemPairs {
    offsets: Vec<usize>,
    entries: Vec<(ItemIndex, f32)>,
}

/// Which neighbours of an occurrence are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Only items that come later.
    Later,
    /// Items on both sides.
    Both,
}

impl ItemPairs {
    /// Counts, for every occurrence of an item in a training sequence, the items at a distance of
    /// `1..=window`, each with `weight(distance)`.
    ///
    /// Memory is the result plus one number per item and per interaction: rows are built one by
    /// one from the places where their item occurs.
    pub fn count(
        dataset: &Dataset,
        window: usize,
        direction: Direction,
        weight: impl Fn(usize) -> f64,
    ) -> Self {
        let weights: Vec<f64> = (1..=window).map(weight).collect();
        let occurrences = Occurrences::of(dataset);
        let rows = dataset.num_items() + 1;
        let mut offsets = vec![0];
        let mut entries = Vec::new();
        let mut sums = vec![0.0; rows];
        let mut touched = Vec::new();
        for item in 0..rows {
            for &(user, at) in occurrences.of_item(item) {
                let sequence = dataset.training_sequence(user as usize);
                let at = at as usize;
                let mut add = |place: Option<usize>, weight: f64| {
                    let Some(&other) = place.and_then(|place| sequence.get(place)) else {
                        return;
                    };
                    if sums[other.row()] == 0.0 {
                        touched.push(other);
                    }
                    sums[other.row()] += weight;
                };
                for (distance, &weight) in (1..).zip(&weights) {
                    add(at.checked_add(distance), weight);
                    if direction == Direction::Both {
                        add(at.checked_sub(distance), weight);
                    }
                }
            }
            touched.sort_unstable();
            for other in touched.drain(..) {
                entries.push((other, sums[other.row()] as f32));
                sums[other.row()] = 0.0;
            }
            offsets.push(entries.len());
        }
        Self { offsets, entries }
    }

    /// The neighbours of an item; empty for rows outside the catalog.
    #[must_use]
    pub fn row(&self, item: ItemIndex) -> &[(ItemIndex, f32)] {
        match self.offsets.get(item.row()..=item.row().saturating_add(1)) {
            Some(&[from, to]) => &self.entries[from..to],
            _ => &[],
        }
    }

    /// Multiplies every entry with `factor(column)`.
    pub fn scale_columns(&mut self, factor: impl Fn(ItemIndex) -> f32) {
        for (column, value) in &mut self.entries {
            *value *= factor(*column);
        }
    }

    /// Divides every row by its sum.
    pub fn normalise_rows(&mut self) {
        for bounds in self.offsets.windows(2) {
            let row = &mut self.entries[bounds[0]..bounds[1]];
            let sum: f64 = row.iter().map(|(_, value)| f64::from(*value)).sum();
            for (_, value) in row.iter_mut() {
                *value = (f64::from(*value) / sum) as f32;
            }
        }
    }
}

/// Where each item occurs in the training sequences, as (user, place in the sequence).
struct Occurrences {
    offsets: Vec<usize>,
    places: Vec<(u32, u32)>,
}

impl Occurrences {
    fn of(dataset: &Dataset) -> Self {
        let mut offsets = vec![0];
        for count in dataset.training_counts() {
            offsets.push(offsets[offsets.len() - 1] + count as usize);
        }
        let mut next = offsets.clone();
        let mut places = vec![(0, 0); offsets[offsets.len() - 1]];
        for user in 0..dataset.num_users() {
            for (at, item) in dataset.training_sequence(user).iter().enumerate() {
                places[next[item.row()]] = (user as u32, at as u32);
                next[item.row()] += 1;
            }
        }
        Self { offsets, places }
    }

    fn of_item(&self, row: usize) -> &[(u32, u32)] {
        &self.places[self.offsets[row]..self.offsets[row + 1]]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::testing::dataset;
    use proptest::prelude::*;

    fn row(pairs: &ItemPairs, item: u32) -> Vec<(u32, f32)> {
        let row = pairs.row(ItemIndex(item));
        row.iter().map(|&(i, v)| (i.0, v)).collect()
    }

    #[test]
    fn counts_by_hand() {
        // Training part of the one user: 1 2 1 3.
        let data = dataset(4, &[&[1, 2, 1, 3, 4, 4]]);
        let later = ItemPairs::count(&data, 1, Direction::Later, |_| 1.0);
        assert_eq!(row(&later, 1), [(2, 1.0), (3, 1.0)]);
        assert_eq!(row(&later, 2), [(1, 1.0)]);
        assert!(row(&later, 3).is_empty() && row(&later, 4).is_empty());
        let both = ItemPairs::count(&data, 2, Direction::Both, |d| 1.0 / d as f64);
        assert_eq!(row(&both, 1), [(1, 1.0), (2, 2.0), (3, 1.0)]);
        assert_eq!(row(&both, 2), [(1, 2.0), (3, 0.5)]);
        assert!(row(&both, 0).is_empty() && row(&both, 99).is_empty());
    }

    #[test]
    fn scales_and_normalises() {
        let data = dataset(4, &[&[1, 2, 1, 3, 4, 4]]);
        let mut pairs = ItemPairs::count(&data, 1, Direction::Later, |_| 1.0);
        pairs.scale_columns(|item| if item.0 == 2 { 3.0 } else { 1.0 });
        pairs.normalise_rows();
        assert_eq!(row(&pairs, 1), [(2, 0.75), (3, 0.25)]);
    }

    proptest! {
        #[test]
        fn equals_counting_every_pair(
            sequences in prop::collection::vec(prop::collection::vec(1u32..8, 0..12), 0..6),
            window in 0usize..4,
        ) {
            let borrowed: Vec<&[u32]> = sequences.iter().map(Vec::as_slice).collect();
            let data = dataset(8, &borrowed);
            let pairs = ItemPairs::count(&data, window, Direction::Both, |_| 1.0);
            let mut expected = [[0.0f32; 9]; 9];
            for user in 0..data.num_users() {
                let sequence = data.training_sequence(user);
                for (i, a) in sequence.iter().enumerate() {
                    for (j, b) in sequence.iter().enumerate() {
                        if i != j && i.abs_diff(j) <= window {
                            expected[a.row()][b.row()] += 1.0;
                        }
                    }
                }
            }
            for item in 0..9u32 {
                let mut dense = [0.0f32; 9];
                for (column, value) in row(&pairs, item) {
                    dense[column as usize] = value;
                }
                prop_assert_eq!(dense, expected[item as usize]);
            }
        }
    }
}
