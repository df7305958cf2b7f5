//! Ranking every user's target, and comparing systems by it.
//!
//! A [`Scorer`] gives every item a score for a history; [`evaluate`] turns the scores into the rank
//! of each user's held-out item and sums them up as an [`Evaluation`], the type that the device
//! command writes too. [`Comparison`] puts several of them into one table, with paired intervals.
//!
//! The floors ([`Popularity`], [`MarkovChain`], [`Cooccurrence`]) count training sequences only. For
//! a test target the history they score from includes the validation item, as for every other
//! system; what they counted does not.

pub mod compare;
mod comparison;
mod cooccurrence;
mod exposure;
mod markov;
mod measure;
mod model_scorer;
pub mod names;
mod popularity;
pub mod rank_files;
mod recent_popularity;
pub mod seeds;
mod table;
#[cfg(test)]
pub(crate) mod testing;
mod user_sample;
mod weights;

use rayon::prelude::*;
use slmrec_core::dataset::{Dataset, Split};
use slmrec_core::evaluation::{EvaluationError, Protocol};
use slmrec_core::metrics::Metric;
use slmrec_core::ranking::{ItemMask, RankingError, rank_of};
use slmrec_core::{Evaluation, ItemIndex};

use crate::model::SequentialModel;

pub(crate) use comparison::paired_row;
pub use comparison::{Comparison, ComparisonError, PairedDifference, PairedRow, Row};
pub use cooccurrence::Cooccurrence;
pub use exposure::{Exposure, PopularItems, RECOMMENDATIONS_FILE, Recommendations};
pub use markov::MarkovChain;
pub use measure::{Measurement, NO_PRIOR, measure};
pub use model_scorer::ModelScorer;
pub(crate) use model_scorer::user_vectors;
pub use names::headline;
pub use popularity::Popularity;
pub use recent_popularity::RecentPopularity;
pub use user_sample::sample_users;
pub use weights::{Weights, weigh};

/// Most scores held at once (64 MiB of f32); a batch has fewer users where the catalog is large.
const SCORES_AT_ONCE: usize = 1 << 24;
/// Most users of a batch.
const USERS_AT_ONCE: usize = 256;

/// Why a system could not be evaluated.
#[derive(Debug, thiserror::Error)]
pub enum EvaluateError {
    /// A score that is not a number, or a target that is not in the catalog.
    #[error("{system}, user {user:?}: {source}")]
    Ranking {
        /// The system.
        system: String,
        /// The user's id.
        user: String,
        /// What was wrong.
        source: RankingError,
    },
    /// A system that scored another number of histories or items than it was asked to.
    #[error("{system}: expected {expected} {what}, found {found}")]
    Shape {
        /// The system.
        system: String,
        /// Of what.
        what: &'static str,
        /// How many were asked for.
        expected: usize,
        /// How many came.
        found: usize,
    },
    /// No user has a target.
    #[error(
        "no user of {dataset:?} has an item to rank\n\
         hint: a user needs three items or more (training, validation, test)"
    )]
    NoUsers {
        /// The dataset.
        dataset: String,
    },
    /// A user that the dataset does not have.
    #[error("user {user} is not in {dataset:?}, which has {users} users")]
    UnknownUser {
        /// The dataset.
        dataset: String,
        /// The place asked for.
        user: usize,
        /// Number of users.
        users: usize,
    },
    /// A model that could not be run.
    #[error("{system}: {source}")]
    Model {
        /// The system.
        system: String,
        /// What candle said.
        source: candle_core::Error,
    },
    /// Ranks that do not fit together.
    #[error(transparent)]
    Evaluation(#[from] EvaluationError),
}

/// Anything that scores the whole catalog for a history.
pub trait Scorer {
    /// What a person calls the system.
    fn name(&self) -> &str;

    /// Scores of every item for each history (oldest first, not empty): entry `[h][i]` is the
    /// score of row `i + 1` for history `h`; higher is better.
    ///
    /// # Errors
    /// What running the system gives.
    fn scores(&mut self, histories: &[&[ItemIndex]]) -> Result<Vec<Vec<f32>>, EvaluateError>;
}

/// Ranks the target of every user in `split` under all three protocols. `progress` hears how many
/// users of how many are done. Users without a target are counted in
/// [`Evaluation::skipped_users`].
///
/// # Errors
/// A NaN (naming system and user), a scorer that fails, or no user with a target.
pub fn evaluate(
    scorer: &mut dyn Scorer,
    dataset: &Dataset,
    split: Split,
    protocol: Protocol,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Evaluation, EvaluateError> {
    let mut alone = measure(scorer, dataset, split, protocol, NO_PRIOR, progress)?;
    Ok(alone.swap_remove(0).evaluation)
}

/// Mean NDCG@10 on the validation targets with seen items removed, without intervals: what a
/// trainer asks after an epoch. `users` limits it to some places of the dataset.
///
/// # Errors
/// As [`evaluate`]; a user that the dataset does not have.
pub fn validation_ndcg(
    model: &dyn SequentialModel,
    dataset: &Dataset,
    users: Option<&[usize]>,
) -> Result<f64, EvaluateError> {
    validation_ndcg_of(&mut ModelScorer::new("model", model)?, dataset, users)
}

/// As [`validation_ndcg`], of any system.
///
/// # Errors
/// As [`validation_ndcg`].
pub fn validation_ndcg_of(
    scorer: &mut dyn Scorer,
    dataset: &Dataset,
    users: Option<&[usize]>,
) -> Result<f64, EvaluateError> {
    let cases = held_out_cases(dataset, Split::Validation, users)?;
    let ranks = for_each_batch(scorer, dataset, &cases, &mut |_, _| (), |case, scores| {
        let mut seen = ItemMask::none(scores.len());
        case.history.iter().for_each(|&item| seen.exclude(item));
        rank_of(scores, case.target, &seen).map(|rank| rank as u32)
    })?;
    Ok(Metric::Ndcg(10).mean(&ranks))
}

/// One user with a target.
pub(crate) struct Case<'a> {
    pub(crate) user: usize,
    pub(crate) history: &'a [ItemIndex],
    pub(crate) target: ItemIndex,
}

/// The users with a target in `split`, all of them or those at some places of the dataset.
pub(crate) fn held_out_cases<'a>(
    dataset: &'a Dataset,
    split: Split,
    users: Option<&[usize]>,
) -> Result<Vec<Case<'a>>, EvaluateError> {
    let total = dataset.num_users();
    if let Some(&user) = users.into_iter().flatten().find(|&&user| user >= total) {
        return Err(EvaluateError::UnknownUser {
            dataset: dataset.name.clone(),
            user,
            users: total,
        });
    }
    let case = |user| {
        let (history, target) = dataset.held_out(user, split)?;
        Some(Case {
            user,
            history,
            target,
        })
    };
    let cases: Vec<Case<'a>> = match users {
        Some(users) => users.iter().copied().filter_map(case).collect(),
        None => (0..total).filter_map(case).collect(),
    };
    if cases.is_empty() {
        return Err(EvaluateError::NoUsers {
            dataset: dataset.name.clone(),
        });
    }
    Ok(cases)
}

/// Scores the cases batch by batch and ranks each; the ranking of a batch runs on all cores.
pub(crate) fn for_each_batch<R: Send>(
    scorer: &mut dyn Scorer,
    dataset: &Dataset,
    cases: &[Case<'_>],
    progress: &mut dyn FnMut(usize, usize),
    rank: impl Fn(&Case<'_>, &[f32]) -> Result<R, RankingError> + Sync,
) -> Result<Vec<R>, EvaluateError> {
    let items = dataset.num_items();
    let batch = (SCORES_AT_ONCE / items.max(1)).clamp(1, USERS_AT_ONCE);
    let mut ranks = Vec::with_capacity(cases.len());
    for cases_of_batch in cases.chunks(batch) {
        let histories: Vec<&[ItemIndex]> = cases_of_batch.iter().map(|c| c.history).collect();
        let scores = scorer.scores(&histories)?;
        check_shape(scorer.name(), &scores, histories.len(), items)?;
        let of_batch: Vec<_> = (cases_of_batch.par_iter().zip(&scores))
            .map(|(case, scores)| rank(case, scores))
            .collect();
        for (case, result) in cases_of_batch.iter().zip(of_batch) {
            ranks.push(result.map_err(|source| EvaluateError::Ranking {
                system: scorer.name().to_owned(),
                user: dataset.users[case.user].clone(),
                source,
            })?);
        }
        progress(ranks.len(), cases.len());
    }
    Ok(ranks)
}

fn check_shape(
    system: &str,
    scores: &[Vec<f32>],
    histories: usize,
    items: usize,
) -> Result<(), EvaluateError> {
    let wrong = |what, expected, found| EvaluateError::Shape {
        system: system.to_owned(),
        what,
        expected,
        found,
    };
    if scores.len() != histories {
        return Err(wrong("scored histories", histories, scores.len()));
    }
    match scores.iter().find(|row| row.len() != items) {
        Some(row) => Err(wrong("item scores", items, row.len())),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::testing::dataset;
    use super::*;
    use proptest::prelude::*;

    /// Scores that a function of the history gives.
    struct Fake<F>(F);

    impl<F: FnMut(&[ItemIndex]) -> Vec<f32>> Scorer for Fake<F> {
        fn name(&self) -> &'static str {
            "fake"
        }

        fn scores(&mut self, histories: &[&[ItemIndex]]) -> Result<Vec<Vec<f32>>, EvaluateError> {
            Ok(histories.iter().map(|history| (self.0)(history)).collect())
        }
    }

    fn run(
        data: &Dataset,
        split: Split,
        score: impl FnMut(&[ItemIndex]) -> Vec<f32>,
    ) -> Result<Evaluation, EvaluateError> {
        let mut scorer = Fake(score);
        evaluate(
            &mut scorer,
            data,
            split,
            Protocol::default(),
            &mut |_, _| (),
        )
    }

    #[test]
    fn ranks_by_hand() {
        let data = dataset(5, &[&[1, 2, 3], &[4], &[5, 5, 4, 4]]);
        // Rising scores: item 5 is best; everybody sees the same.
        let score = |_: &[ItemIndex]| vec![1.0, 2.0, 3.0, 4.0, 5.0];
        let test = run(&data, Split::Test, score).expect("evaluates");
        assert_eq!(
            (test.users.as_slice(), test.skipped_users),
            (&[0, 2][..], 1)
        );
        // User 0: target 3 behind 5 and 4. User 2: target 4, a repeat, with 5 removed or not.
        assert_eq!(test.ranks.seen_removed, [3, 1]);
        assert_eq!(test.ranks.seen_kept, [3, 2]);
        assert_eq!(test.ranks.sampled, [3, 1]);
        let validation = run(&data, Split::Validation, score).expect("evaluates");
        // User 0: history 1, target 2. User 2: history 5 5, target 4.
        assert_eq!(validation.ranks.seen_removed, [4, 1]);
        assert_eq!(validation.ranks.seen_kept, [4, 2]);
    }

    #[test]
    fn equal_scores_are_the_worst_rank() {
        let data = dataset(5, &[&[1, 2, 3]]);
        let got = run(&data, Split::Test, |_| vec![0.0; 5]).expect("evaluates");
        assert_eq!(got.ranks.seen_removed, [3]);
        assert_eq!(got.ranks.seen_kept, [5]);
    }

    #[test]
    fn nan_names_system_and_user() {
        let data = dataset(3, &[&[1, 2, 3], &[2, 3, 1]]);
        let error = run(&data, Split::Test, |history| {
            let bad = if history[0].0 == 2 { f32::NAN } else { 0.0 };
            vec![0.0, bad, 0.0]
        })
        .expect_err("NaN");
        let text = error.to_string();
        assert_eq!(
            text,
            "fake, user \"u1\": the score of item row 2 is not a number"
        );
    }

    #[test]
    fn wrong_shapes_and_no_users_are_errors() {
        let data = dataset(3, &[&[1, 2, 3]]);
        let error = run(&data, Split::Test, |_| vec![0.0; 4]).expect_err("a score too many");
        assert_eq!(error.to_string(), "fake: expected 3 item scores, found 4");
        let short = dataset(3, &[&[1, 2]]);
        assert!(matches!(
            run(&short, Split::Test, |_| vec![0.0; 3]),
            Err(EvaluateError::NoUsers { .. })
        ));
    }

    #[test]
    fn progress_reaches_the_end_over_several_batches() {
        let sequences: Vec<&[u32]> = (0..600).map(|_| &[1, 2, 3][..]).collect();
        let data = dataset(3, &sequences);
        let mut heard = Vec::new();
        let mut floor = Popularity::fit(&data, Split::Validation);
        let protocol = Protocol::default();
        evaluate(
            &mut floor,
            &data,
            Split::Test,
            protocol,
            &mut |done, all| {
                heard.push((done, all));
            },
        )
        .expect("evaluates");
        assert_eq!(heard, [(256, 600), (512, 600), (600, 600)]);
    }

    proptest! {
        #[test]
        fn ranks_depend_on_order_alone(
            scores in prop::collection::vec(-5i8..5, 9),
            sequences in prop::collection::vec(prop::collection::vec(1u32..10, 3..8), 1..6),
        ) {
            let borrowed: Vec<&[u32]> = sequences.iter().map(Vec::as_slice).collect();
            let data = dataset(9, &borrowed);
            let plain: Vec<f32> = scores.iter().copied().map(f32::from).collect();
            let grown: Vec<f32> = plain.iter().map(|score| 3.0 * score.exp() + 7.0).collect();
            let a = run(&data, Split::Test, |_| plain.clone()).expect("evaluates");
            let b = run(&data, Split::Test, |_| grown.clone()).expect("evaluates");
            prop_assert_eq!(a.ranks, b.ranks);
        }
    }
}
