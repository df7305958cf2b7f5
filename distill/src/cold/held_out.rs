//! Which items are kept out of training, and the data without them.

use std::collections::HashSet;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};
use slmrec_core::{Dataset, ItemIndex};

use super::ColdError;

/// Fewest items that are kept out, so that the figures mean something.
pub const FEWEST: usize = 20;
/// Fewest items that must be left to fit a map on.
const FEWEST_LEFT: usize = 10;
/// Keeps this choice apart from other uses of the same seed.
const HELD_OUT_SEED: u64 = 0x636f_6c64_5f76_3031;

/// Draws a share of `items` (at least [`FEWEST`]), ascending, by `seed`. Twice as many and a few more
/// must be there: the maps are chosen on a second part.
///
/// # Errors
/// A share outside its range, or too few items.
pub fn draw(items: &[ItemIndex], share: f64, seed: u64) -> Result<Vec<ItemIndex>, ColdError> {
    if !(share > 0.0 && share <= 0.4) {
        return Err(ColdError::Share { found: share });
    }
    let count = ((items.len() as f64 * share).round() as usize).max(FEWEST);
    let expected = 2 * count + FEWEST_LEFT;
    if items.len() < expected {
        let found = items.len();
        return Err(ColdError::TooFewItems { expected, found });
    }
    Ok(sample(items, count, seed))
}

/// Draws `count` of `items`, ascending; all where there are no more.
#[must_use]
pub fn sample(items: &[ItemIndex], count: usize, seed: u64) -> Vec<ItemIndex> {
    let mut items = items.to_vec();
    let mut rng = ChaCha8Rng::seed_from_u64(seed ^ HELD_OUT_SEED);
    let count = count.min(items.len());
    for at in 0..count {
        // The bias of multiply-and-shift is below 2^-32 * len.
        let left = (items.len() - at) as u64;
        let other = at + ((u64::from(rng.next_u32()) * left) >> 32) as usize;
        items.swap(at, other);
    }
    items.truncate(count);
    items.sort_unstable();
    items
}

/// The same users and the same catalog without any interaction with `items`.
#[must_use]
pub fn without(dataset: &Dataset, items: &[ItemIndex]) -> Dataset {
    let out: HashSet<ItemIndex> = items.iter().copied().collect();
    let mut kept = Dataset {
        items: Vec::new(),
        offsets: vec![0],
        times: dataset.times.as_ref().map(|_| Vec::new()),
        ..dataset.clone()
    };
    for user in 0..dataset.num_users() {
        for at in dataset.offsets[user]..dataset.offsets[user + 1] {
            if out.contains(&dataset.items[at]) {
                continue;
            }
            kept.items.push(dataset.items[at]);
            if let (Some(kept), Some(times)) = (&mut kept.times, &dataset.times) {
                kept.push(times[at]);
            }
        }
        kept.offsets.push(kept.items.len());
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::testing::dataset;
    use crate::train::{Targets, TrainingData};

    fn rows(rows: &[u32]) -> Vec<ItemIndex> {
        rows.iter().copied().map(ItemIndex).collect()
    }

    #[test]
    fn draws_are_a_share_repeat_and_have_a_fewest() {
        let items: Vec<ItemIndex> = (1..=1000).map(ItemIndex).collect();
        let draw_of = |share, seed| draw(&items, share, seed).expect("enough");
        let found = draw_of(0.05, 1);
        assert_eq!((found.len(), draw_of(0.001, 1).len()), (50, FEWEST));
        assert_eq!(found, draw_of(0.05, 1));
        assert_ne!(found, draw_of(0.05, 2));
        assert!(found.windows(2).all(|pair| pair[0] < pair[1]));
        assert!(draw(&items[..50], 0.05, 1).is_ok());
        let few = draw(&items[..49], 0.05, 1).expect_err("too few");
        assert!(few.to_string().contains("at least 50 items"), "{few}");
        for share in [0.0, -0.1, 0.41, f64::NAN] {
            let refused = draw(&items, share, 1).expect_err("refused");
            assert!(refused.to_string().contains("setting cold.held_out"));
        }
    }

    #[test]
    fn kept_out_items_are_nowhere_in_what_training_reads() {
        let mut data = dataset(5, &[&[1, 2, 3, 4, 5, 1], &[2, 4], &[3, 5, 3, 5, 1]]);
        data.times = Some((0..13).collect());
        let warm = without(&data, &rows(&[2, 4]));
        assert_eq!(warm.sequence(0), rows(&[1, 3, 5, 1]));
        assert_eq!(warm.sequence(1), []);
        assert_eq!(warm.sequence(2), data.sequence(2));
        let times: Vec<i64> = vec![0, 2, 4, 5, 8, 9, 10, 11, 12];
        assert_eq!(warm.times.as_deref(), Some(&times[..]));
        assert_eq!((warm.num_items(), warm.num_users()), (5, 3));
        let counts = warm.training_counts();
        assert_eq!((counts[2], counts[4]), (0, 0));
        assert!(TrainingData::new(&warm, 4, Targets::All).is_ok());
    }
}
