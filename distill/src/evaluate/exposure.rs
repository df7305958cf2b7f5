//! What a system shows to people: how much of the catalog, and how popular.

use serde::{Deserialize, Serialize};
use slmrec_core::ItemIndex;
use slmrec_core::dataset::Dataset;

/// The file of recommendations, in the folder of an evaluation.
pub const RECOMMENDATIONS_FILE: &str = "recommendations.json";
/// Length of the lists that are looked at.
pub(super) const LIST: usize = 10;
/// Users whose lists are kept as examples.
pub(super) const EXAMPLE_USERS: usize = 8;
/// Version of the file of recommendations.
pub(super) const FORMAT_VERSION: u32 = 1;

/// The lists of all systems of an evaluation, summed up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recommendations {
    /// Version of this file.
    pub format_version: u32,
    /// Length of the lists.
    pub list: usize,
    /// Places in the dataset of the users whose lists are kept.
    pub example_users: Vec<u32>,
    /// The systems that were measured here; a bundle is not, it runs in a program of its own.
    pub systems: Vec<Exposure>,
}

impl Recommendations {
    /// Of systems that were measured on `users` (places in the dataset).
    #[must_use]
    pub fn new(users: &[u32], systems: Vec<Exposure>) -> Self {
        let kept = example_places(users.len());
        Self {
            format_version: FORMAT_VERSION,
            list: LIST,
            example_users: kept.into_iter().map(|at| users[at]).collect(),
            systems,
        }
    }
}

/// The lists of one system: the best 10 items of every evaluated user, seen items removed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exposure {
    /// The system.
    pub system: String,
    /// Items that stand in at least one list.
    pub distinct_items: usize,
    /// Share of the catalog that stands in at least one list.
    pub coverage: f64,
    /// Mean number of training interactions of a recommended item.
    pub mean_popularity: f64,
    /// Share of the places that popular items take ([`PopularItems`]).
    pub popular_share: f64,
    /// Rows of the lists of [`Recommendations::example_users`], best first.
    pub examples: Vec<Vec<ItemIndex>>,
}

/// The most popular items of a catalog: the fewest that have half of the training interactions.
#[derive(Clone, Debug)]
pub struct PopularItems {
    /// Training interactions by row; entry 0 is the padding.
    counts: Vec<u32>,
    popular: Vec<bool>,
}

impl PopularItems {
    /// Counts the training sequences. Among equally popular items the smaller row goes first.
    #[must_use]
    pub fn of(dataset: &Dataset) -> Self {
        let counts = dataset.training_counts();
        let total: u64 = counts.iter().map(|&count| u64::from(count)).sum();
        let mut rows: Vec<usize> = (1..counts.len()).collect();
        rows.sort_by_key(|&row| std::cmp::Reverse(counts[row]));
        let mut popular = vec![false; counts.len()];
        let mut covered = 0;
        for row in rows {
            if 2 * covered >= total {
                break;
            }
            covered += u64::from(counts[row]);
            popular[row] = true;
        }
        Self { counts, popular }
    }

    /// Whether an item is one of them.
    #[must_use]
    pub fn contains(&self, item: ItemIndex) -> bool {
        self.popular.get(item.row()).copied().unwrap_or(false)
    }

    /// How often an item occurs in the training sequences.
    #[must_use]
    pub fn count(&self, item: ItemIndex) -> u32 {
        self.counts.get(item.row()).copied().unwrap_or(0)
    }

    /// How many they are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.popular.iter().filter(|&&popular| popular).count()
    }

    /// Whether nothing was counted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Exposure {
    /// Sums up the lists of all users; those at the places `kept` stay as examples.
    #[must_use]
    pub(super) fn of(
        system: &str,
        lists: &[&[ItemIndex]],
        kept: &[usize],
        popular: &PopularItems,
    ) -> Self {
        let items = popular.counts.len() - 1;
        let mut shown = vec![false; items + 1];
        let (mut places, mut in_popular, mut popularity) = (0u64, 0u64, 0u64);
        for &item in lists.iter().copied().flatten() {
            shown[item.row()] = true;
            places += 1;
            in_popular += u64::from(popular.contains(item));
            popularity += u64::from(popular.count(item));
        }
        let distinct_items = shown.iter().filter(|&&shown| shown).count();
        let mean = |sum: u64| sum as f64 / places.max(1) as f64;
        Self {
            system: system.to_owned(),
            distinct_items,
            coverage: distinct_items as f64 / items.max(1) as f64,
            mean_popularity: mean(popularity),
            popular_share: mean(in_popular),
            examples: kept.iter().map(|&at| lists[at].to_vec()).collect(),
        }
    }
}

/// Places of the users whose lists are kept, spread evenly over `users` users.
pub(super) fn example_places(users: usize) -> Vec<usize> {
    let kept = EXAMPLE_USERS.min(users);
    (0..kept).map(|i| i * users / kept).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::testing::dataset;

    #[test]
    fn figures_by_hand() {
        // Training: item 1 three times, item 2 once, item 3 once; items 4 and 5 never.
        let data = dataset(5, &[&[1, 2, 4, 4], &[1, 3, 5, 5], &[1, 4, 5]]);
        let popular = PopularItems::of(&data);
        assert_eq!(popular.len(), 1);
        assert!(popular.contains(ItemIndex(1)) && !popular.contains(ItemIndex(2)));
        let lists = [[1, 2], [1, 4]].map(|list| list.map(ItemIndex));
        let lists: Vec<&[ItemIndex]> = lists.iter().map(|list| &list[..]).collect();
        let exposure = Exposure::of("s", &lists, &[1], &popular);
        assert_eq!(exposure.distinct_items, 3);
        assert!((exposure.coverage - 0.6).abs() < 1e-12);
        assert!((exposure.popular_share - 0.5).abs() < 1e-12);
        assert!((exposure.mean_popularity - 7.0 / 4.0).abs() < 1e-12);
        assert_eq!(exposure.examples, [vec![ItemIndex(1), ItemIndex(4)]]);
    }

    #[test]
    fn examples_are_spread_and_few() {
        assert_eq!(example_places(3), [0, 1, 2]);
        assert_eq!(example_places(80), [0, 10, 20, 30, 40, 50, 60, 70]);
        assert!(example_places(0).is_empty());
    }
}
