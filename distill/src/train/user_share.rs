//! Part of the users, for the question how much data training needs.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};

use slmrec_core::{Dataset, Split};

use super::{Targets, TrainError, TrainingData};

/// Keeps this choice apart from other uses of the same seed.
const SHARE_SEED: u64 = 0x7573_6572_735f_7332;

/// Which of `users` users belong to a share of them, at least one: the first ones of an order that
/// depends on the seed alone, so that a smaller share is part of a larger one.
#[must_use]
pub fn share_of_users(users: usize, share: f64, seed: u64) -> Vec<bool> {
    let mut order: Vec<usize> = (0..users).collect();
    if share < 1.0 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed ^ SHARE_SEED);
        for at in 0..users {
            // The bias of multiply-and-shift is below 2^-32 * users.
            let left = (users - at) as u64;
            let other = at + ((u64::from(rng.next_u32()) * left) >> 32) as usize;
            order.swap(at, other);
        }
        order.truncate(((users as f64 * share).round() as usize).max(1));
    }
    let mut chosen = vec![false; users];
    for user in order {
        chosen[user] = true;
    }
    chosen
}

impl TrainingData {
    /// The windows of what is known of the users that are `chosen` before the targets of a split, as
    /// [`TrainingData::new`] cuts those of the training sequences; the others have none. Empty for all
    /// users.
    ///
    /// # Errors
    /// As [`TrainingData::new`].
    pub fn of_users(
        dataset: &Dataset,
        before: Split,
        chosen: &[bool],
        max_history: usize,
        targets: Targets,
    ) -> Result<Self, TrainError> {
        let sequences = (0..dataset.num_users()).map(|user| match chosen.get(user) {
            Some(false) => &[],
            _ => dataset.known_before(user, before),
        });
        Self::cut(sequences, dataset.num_items(), max_history, targets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_nested_and_repeat() {
        let of = |share| share_of_users(100, share, 7);
        let count = |users: &[bool]| users.iter().filter(|user| **user).count();
        let shares = [0.001, 0.25, 0.5, 1.0].map(of);
        assert_eq!([1, 25, 50, 100], [0, 1, 2, 3].map(|at| count(&shares[at])));
        for pair in shares.windows(2) {
            assert!(
                pair[0]
                    .iter()
                    .zip(&pair[1])
                    .all(|(small, large)| small <= large)
            );
        }
        assert_eq!(of(0.5), shares[2]);
        assert_ne!(share_of_users(100, 0.5, 8), shares[2]);
    }

    #[test]
    fn the_windows_are_those_of_the_share() {
        let sequences: Vec<&[u32]> = vec![&[1, 2, 3, 1, 2]; 40];
        let dataset = crate::evaluate::testing::dataset(3, &sequences);
        let users = |share| {
            let chosen = share_of_users(40, share, 7);
            let data =
                TrainingData::of_users(&dataset, Split::Validation, &chosen, 5, Targets::All);
            let data = data.expect("data");
            let users: Vec<usize> = (0..data.len()).map(|at| data.window(at).user).collect();
            assert!(users.iter().all(|user| chosen[*user]));
            (users, data.fingerprint())
        };
        let all = TrainingData::new(&dataset, 5, Targets::All).expect("data");
        let newer = TrainingData::of_users(&dataset, Split::Test, &[], 5, Targets::All);
        let (newer, user) = (newer.expect("data"), all.window(0).user);
        let (validation, _) = dataset.held_out(user, Split::Test).expect("long enough");
        assert_eq!(newer.items(0).last(), validation.last());
        assert_ne!(all.items(0).last(), newer.items(0).last());
        assert_eq!(users(1.0).1, all.fingerprint());
        assert_eq!(users(0.25).0.len(), 10);
        assert_ne!(users(0.25).1, all.fingerprint());
    }
}
