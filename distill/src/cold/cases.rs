//! Cold items as targets: after which histories they were chosen, and how high a table of items ranks
//! them.

use std::collections::HashSet;

use candle_core::Tensor;
use rayon::prelude::*;
use slmrec_core::ItemIndex;
use slmrec_core::ranking::{ItemMask, rank_of};

use super::ColdError;

/// Scores held at once (64 MiB of f32).
const SCORES_AT_ONCE: usize = 1 << 24;

/// A cold item that a user chose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// The user, in the order of the sequences.
    pub user: usize,
    /// What the user chose before, without cold items; oldest first, not empty.
    pub history: Vec<ItemIndex>,
    /// The cold item.
    pub target: ItemIndex,
}

/// Where a target stands (1 is the top, ties count against it).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Places {
    /// Among all items that are not in the history.
    pub all: u32,
    /// Among the cold items.
    pub cold: u32,
}

/// Every interaction with one of `cold` in the sequences, and how many of them have no warm item
/// before them and so no case.
#[must_use]
pub fn find<'s>(
    sequences: impl Iterator<Item = &'s [ItemIndex]>,
    cold: &[ItemIndex],
) -> (Vec<Case>, usize) {
    let cold: HashSet<ItemIndex> = cold.iter().copied().collect();
    let (mut cases, mut without_history) = (Vec::new(), 0);
    for (user, sequence) in sequences.enumerate() {
        let mut history = Vec::new();
        for &item in sequence {
            if !cold.contains(&item) {
                history.push(item);
            } else if history.is_empty() {
                without_history += 1;
            } else {
                cases.push(Case {
                    user,
                    history: history.clone(),
                    target: item,
                });
            }
        }
    }
    (cases, without_history)
}

/// At most `most` cases, spread evenly.
#[must_use]
pub fn spread(cases: Vec<Case>, most: usize) -> Vec<Case> {
    let step = cases.len().div_ceil(most.max(1)).max(1);
    cases.into_iter().step_by(step).collect()
}

/// The place of every target by the products of user vectors `[cases, D]` and a table `[N + 1, D]`.
///
/// # Errors
/// Shapes that do not fit, or a score that is not a number.
pub fn places(
    users: &Tensor,
    table: &Tensor,
    cases: &[Case],
    cold: &[ItemIndex],
) -> Result<Vec<Places>, ColdError> {
    let items = table.dims2()?.0.saturating_sub(1);
    let catalog = table.narrow(0, 1, items)?.t()?; // [D, N]
    let mut cold_only = ItemMask::none(items);
    cold_only.allow_only(cold.iter().copied());
    let batch = (SCORES_AT_ONCE / items.max(1)).max(1);
    let mut found = Vec::with_capacity(cases.len());
    for (at, cases) in cases.chunks(batch).enumerate() {
        let users = users.narrow(0, at * batch, cases.len())?;
        let scores: Vec<Vec<f32>> = users.matmul(&catalog)?.to_vec2()?;
        let of_batch: Result<Vec<Places>, _> = (cases.par_iter().zip(&scores))
            .map(|(case, scores)| {
                let mut seen = ItemMask::none(items);
                case.history.iter().for_each(|&item| seen.exclude(item));
                Ok::<_, ColdError>(Places {
                    all: rank_of(scores, case.target, &seen)? as u32,
                    cold: rank_of(scores, case.target, &cold_only)? as u32,
                })
            })
            .collect();
        found.extend(of_batch?);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    fn rows(rows: &[u32]) -> Vec<ItemIndex> {
        rows.iter().copied().map(ItemIndex).collect()
    }

    fn case(user: usize, history: &[u32], target: u32) -> Case {
        Case {
            user,
            history: rows(history),
            target: ItemIndex(target),
        }
    }

    #[test]
    fn histories_are_warm_and_every_cold_interaction_counts() {
        let sequences = [rows(&[9, 1, 2, 8, 9, 3]), rows(&[1, 2]), rows(&[2, 9])];
        let (cases, without) = find(sequences.iter().map(Vec::as_slice), &rows(&[8, 9]));
        let expected = [case(0, &[1, 2], 8), case(0, &[1, 2], 9), case(2, &[2], 9)];
        assert_eq!((cases.as_slice(), without), (&expected[..], 1));
        assert_eq!(
            spread(cases.clone(), 2),
            [case(0, &[1, 2], 8), case(2, &[2], 9)]
        );
        assert_eq!(spread(cases.clone(), 9), cases);
    }

    #[test]
    fn places_by_hand() {
        // Scores of rows 1 to 5: 5, 4, 3, 2, 2. Row 1 is seen.
        let table = Tensor::new(&[[9f32], [5.0], [4.0], [3.0], [2.0], [2.0]], &Device::Cpu);
        let users = Tensor::new(&[[1f32], [-1.0]], &Device::Cpu).expect("users");
        let cases = [case(0, &[1], 4), case(1, &[1, 2], 3)];
        let found = places(&users, &table.expect("table"), &cases, &rows(&[3, 4, 5]));
        // The second user likes what is low: 4 and 5 stand before 3.
        let expected = [Places { all: 4, cold: 3 }, Places { all: 3, cold: 3 }];
        assert_eq!(found.expect("ranks"), expected);
    }
}
