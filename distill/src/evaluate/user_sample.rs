//! A sample of users, for figures that are asked often.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};
use slmrec_core::dataset::{Dataset, Split};

/// Keeps this choice apart from other uses of the same seed.
const SAMPLE_SEED: u64 = 0x7573_6572_735f_7631;

/// Places, ascending, of `most` users with a target in `split`, drawn by `seed`; `None` where there
/// are no more than that, or `most` is 0: then all users are meant.
#[must_use]
pub fn sample_users(dataset: &Dataset, split: Split, most: usize, seed: u64) -> Option<Vec<usize>> {
    let mut users: Vec<usize> = (0..dataset.num_users())
        .filter(|&user| dataset.held_out(user, split).is_some())
        .collect();
    if most == 0 || users.len() <= most {
        return None;
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed ^ SAMPLE_SEED);
    for at in 0..most {
        // The bias of multiply-and-shift is below 2^-32 * len.
        let left = (users.len() - at) as u64;
        let other = at + ((u64::from(rng.next_u32()) * left) >> 32) as usize;
        users.swap(at, other);
    }
    users.truncate(most);
    users.sort_unstable();
    Some(users)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::testing::dataset;

    #[test]
    fn samples_are_of_users_with_a_target_and_repeat() {
        let sequences: Vec<&[u32]> = (0..100)
            .map(|user| match user % 4 {
                0 => &[1, 2][..],
                _ => &[1, 2, 3],
            })
            .collect();
        let data = dataset(3, &sequences);
        let sample = |most, seed| sample_users(&data, Split::Validation, most, seed);
        assert_eq!(sample(0, 1), None);
        assert_eq!(sample(75, 1), None);
        let users = sample(20, 1).expect("fewer than all");
        assert_eq!(users.len(), 20);
        assert!(users.windows(2).all(|pair| pair[0] < pair[1]));
        assert!(users.iter().all(|user| user % 4 != 0));
        assert_eq!(sample(20, 1), Some(users.clone()));
        assert_ne!(sample(20, 2), Some(users));
    }
}
