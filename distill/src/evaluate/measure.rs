//! One pass of a system over all users: the ranks of their targets, and the lists that they would
//! see.

use slmrec_core::dataset::{Dataset, Split};
use slmrec_core::evaluation::{Protocol, Ranks, UserRanks};
use slmrec_core::prior::{PriorWeights, SparseSums, TransitionPrior};
use slmrec_core::ranking::{ItemMask, RankingError, top_k};
use slmrec_core::{Evaluation, ItemIndex};

use super::exposure::{LIST, example_places};
use super::{Case, EvaluateError, Exposure, PopularItems, Scorer, for_each_batch, held_out_cases};

/// A system as it is.
pub const NO_PRIOR: (&[(String, TransitionPrior)], PriorWeights) = (
    &[],
    PriorWeights {
        alpha: 0.0,
        beta: 1.0,
    },
);

/// What a system did.
#[derive(Clone, Debug)]
pub struct Measurement {
    /// The ranks of the targets.
    pub evaluation: Evaluation,
    /// The lists, summed up.
    pub exposure: Exposure,
}

/// Ranks the targets of a system alone and with each of `priors` (name and counts) at the same
/// weights, and sums up the lists of each; the system scores once. The system alone comes first.
///
/// # Errors
/// As [`super::evaluate`].
pub fn measure(
    scorer: &mut dyn Scorer,
    dataset: &Dataset,
    split: Split,
    protocol: Protocol,
    (priors, weights): (&[(String, TransitionPrior)], PriorWeights),
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Vec<Measurement>, EvaluateError> {
    let cases = held_out_cases(dataset, split, None)?;
    let rank = |case: &Case<'_>, scores: &[f32]| {
        let mut answers = vec![answer(protocol, case, scores)?];
        for (_, prior) in priors {
            let mut with = scores.to_vec();
            prior.add_to(case.history, weights, &mut SparseSums::default(), &mut with);
            answers.push(answer(protocol, case, &with)?);
        }
        Ok(answers)
    };
    let of_users = for_each_batch(scorer, dataset, &cases, progress, rank)?;
    let names = std::iter::once(scorer.name()).chain(priors.iter().map(|(name, _)| name.as_str()));
    let kept = example_places(cases.len());
    let popular = PopularItems::of(dataset);
    let measurement = |(at, name): (usize, &str)| {
        let mut ranks = Ranks::default();
        of_users.iter().for_each(|user| ranks.push(user[at].ranks));
        let lists: Vec<&[ItemIndex]> = of_users.iter().map(|user| &user[at].list[..]).collect();
        let users = cases.iter().map(|case| case.user as u32).collect();
        Ok(Measurement {
            evaluation: Evaluation::new(name, dataset, split, protocol, users, ranks)?,
            exposure: Exposure::of(name, &lists, &kept, &popular),
        })
    };
    names.enumerate().map(measurement).collect()
}

/// One user's answer from one system.
struct Answer {
    ranks: UserRanks,
    /// The best items, without those of the history.
    list: Vec<ItemIndex>,
}

fn answer(protocol: Protocol, case: &Case<'_>, scores: &[f32]) -> Result<Answer, RankingError> {
    let mut seen = ItemMask::none(scores.len());
    case.history.iter().for_each(|&item| seen.exclude(item));
    let ranks = protocol.rank_user(case.user, case.history, case.target, scores)?;
    let best = top_k(scores, LIST, &seen)?;
    let list = best.into_iter().map(|scored| scored.item).collect();
    Ok(Answer { ranks, list })
}
