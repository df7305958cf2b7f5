//! How pairs are best counted and read, by the counts' own ranking of held-out items.
//!
//! One target a user is little to choose between fifty settings by where users are few, so users
//! with a long training sequence lend some of its newest items as further targets: counts are made
//! without them while the search goes on, and with them in the end.

use rayon::prelude::*;
use slmrec_core::metrics::Metric;
use slmrec_core::prior::{Direction, PriorError, PriorSettings, SparseSums, TransitionPrior};
use slmrec_core::{Dataset, ItemIndex, Split};

use super::counting::{CountedSequence, count, training_sequences};
use crate::evaluate::{EvaluateError, held_out_cases};

/// A user lends one further target for so many training items..
const ITEMS_PER_TARGET: usize = 10;
/// ..but no more than so many.
const MOST_LENT: usize = 9;

/// Rounds over all settings; each ends with the best value of every one.
const ROUNDS: usize = 2;
/// Where the search begins beside [`PriorSettings::WINDOW_5`]: what did best on MovieLens-100K.
const WIDE: PriorSettings = PriorSettings {
    window: 20,
    distance_power: 0.7,
    direction: Direction::Both,
    popularity_power: 0.3,
    normalise_rows: true,
    last_items: 10,
    decay: 0.8,
};

const STARTS: [PriorSettings; 2] = [PriorSettings::WINDOW_5, WIDE];

/// Why a prior could not be tuned.
#[derive(Debug, thiserror::Error)]
pub enum TuneError {
    /// No validation targets.
    #[error(transparent)]
    Evaluate(#[from] EvaluateError),
    /// Counting failed.
    #[error(transparent)]
    Prior(#[from] PriorError),
    /// The search was asked to stop.
    #[error("interrupted")]
    Interrupted,
}

/// What a search found.
#[derive(Clone, Debug, PartialEq)]
pub struct TunedPrior {
    /// The training sequences, counted with the best settings.
    pub prior: TransitionPrior,
    /// Its NDCG@10 on the validation targets, seen items removed, of the counts alone.
    pub ndcg_10: f64,
    /// How many settings were compared.
    pub compared: usize,
    /// How many users were asked.
    pub users: usize,
    /// How many targets of theirs the settings were chosen by.
    pub targets: usize,
}

/// Most settings that a search looks at.
#[must_use]
pub fn most_comparisons() -> usize {
    STARTS.len() + ROUNDS * (counting_choices().len() + reading_choices().len())
}

/// Searches the settings one after the other, from two starting points. `users` limits the targets
/// to some places of the dataset; `go_on` is asked before each comparison and told how many of
/// [`most_comparisons`] are behind.
///
/// # Errors
/// A dataset without validation targets; `go_on` said no.
pub fn tune(
    dataset: &Dataset,
    users: Option<&[usize]>,
    most: usize,
    go_on: &dyn Fn(usize) -> bool,
) -> Result<TunedPrior, TuneError> {
    let (sequences, cases) = lend(dataset, users)?;
    let mut search = Search {
        dataset,
        sequences,
        cases,
        most,
        counted: None,
        looked_at: 0,
        compared: 0,
        go_on,
    };
    let mut best: Option<(PriorSettings, f64)> = None;
    for start in STARTS {
        search.compare(start, &mut best)?;
    }
    for _ in 0..ROUNDS {
        for choices in [counting_choices, reading_choices] {
            let Some((centre, _)) = best else { break };
            let mut round = best;
            for change in choices() {
                let mut settings = round.map_or(centre, |(settings, _)| settings);
                change.apply(&mut settings);
                search.compare(settings, &mut round)?;
            }
            best = round;
        }
    }
    let settings = best.map_or(PriorSettings::WINDOW_5, |(settings, _)| settings);
    let sequences = training_sequences(dataset);
    let prior = count(&sequences, dataset.num_items(), settings, most)?;
    let validation = validation_targets(dataset, users)?;
    Ok(TunedPrior {
        ndcg_10: ndcg_10(&prior, &validation),
        prior,
        compared: search.compared,
        users: validation.len(),
        targets: search.cases.len(),
    })
}

/// A held-out item of a user.
struct TuningTarget<'a> {
    history: &'a [ItemIndex],
    target: ItemIndex,
    /// Its share of the user's word: those of a user add up to one.
    share: f64,
}

fn validation_targets<'a>(
    dataset: &'a Dataset,
    users: Option<&[usize]>,
) -> Result<Vec<TuningTarget<'a>>, EvaluateError> {
    let cases = held_out_cases(dataset, Split::Validation, users)?;
    let target = |case: crate::evaluate::Case<'a>| TuningTarget {
        history: case.history,
        target: case.target,
        share: 1.0,
    };
    Ok(cases.into_iter().map(target).collect())
}

/// What is counted while settings are compared, and the targets that they are compared by: of each
/// user the validation item and some items before it, which are not counted then.
fn lend<'a>(
    dataset: &'a Dataset,
    users: Option<&[usize]>,
) -> Result<(Vec<CountedSequence<'a>>, Vec<TuningTarget<'a>>), EvaluateError> {
    let mut sequences = training_sequences(dataset);
    let mut targets = Vec::new();
    for case in held_out_cases(dataset, Split::Validation, users)? {
        let lent = (case.history.len() / ITEMS_PER_TARGET).min(MOST_LENT);
        let kept = case.history.len() - lent;
        sequences[case.user].items = &case.history[..kept];
        let share = 1.0 / (lent + 1) as f64;
        let earlier = (kept..case.history.len()).map(|at| (at, case.history[at]));
        let all = earlier.chain([(case.history.len(), case.target)]);
        targets.extend(all.map(|(at, target)| TuningTarget {
            history: &case.history[..at],
            target,
            share,
        }));
    }
    Ok((sequences, targets))
}

/// One setting's other value.
#[derive(Clone, Copy, Debug)]
enum Change {
    Window(usize),
    DistancePower(f32),
    Direction(Direction),
    PopularityPower(f32),
    NormaliseRows(bool),
    LastItems(usize),
    Decay(f32),
}

impl Change {
    fn apply(self, settings: &mut PriorSettings) {
        match self {
            Self::Window(value) => settings.window = value,
            Self::DistancePower(value) => settings.distance_power = value,
            Self::Direction(value) => settings.direction = value,
            Self::PopularityPower(value) => settings.popularity_power = value,
            Self::NormaliseRows(value) => settings.normalise_rows = value,
            Self::LastItems(value) => settings.last_items = value,
            Self::Decay(value) => settings.decay = value,
        }
    }
}

/// What needs new counts.
fn counting_choices() -> Vec<Change> {
    let windows = [1, 2, 3, 5, 10, 20, 40].map(Change::Window);
    let powers = [0.0, 0.4, 0.7, 1.0].map(Change::DistancePower);
    let directions = [Direction::Later, Direction::Both].map(Change::Direction);
    windows
        .into_iter()
        .chain(powers)
        .chain(directions)
        .collect()
}

/// What only reads them in another way.
fn reading_choices() -> Vec<Change> {
    let powers = [0.0, 0.15, 0.3, 0.5].map(Change::PopularityPower);
    let normalised = [false, true].map(Change::NormaliseRows);
    let last = [1, 3, 5, 10, 20, 50].map(Change::LastItems);
    let decays = [0.3, 0.5, 0.7, 0.8, 0.9, 1.0].map(Change::Decay);
    (powers.into_iter())
        .chain(normalised)
        .chain(last)
        .chain(decays)
        .collect()
}

struct Search<'a> {
    dataset: &'a Dataset,
    sequences: Vec<CountedSequence<'a>>,
    cases: Vec<TuningTarget<'a>>,
    most: usize,
    /// The counts of the last comparison.
    counted: Option<TransitionPrior>,
    /// Settings that came up, with those that were the best already.
    looked_at: usize,
    compared: usize,
    go_on: &'a dyn Fn(usize) -> bool,
}

impl Search<'_> {
    /// Puts `settings` in the place of `best` where they rank better.
    fn compare(
        &mut self,
        settings: PriorSettings,
        best: &mut Option<(PriorSettings, f64)>,
    ) -> Result<(), TuneError> {
        if !(self.go_on)(self.looked_at) {
            return Err(TuneError::Interrupted);
        }
        self.looked_at += 1;
        if best.is_some_and(|(known, _)| known == settings) {
            return Ok(());
        }
        let prior = match self.counted.take() {
            Some(prior) if same_counts(prior.settings(), &settings) => prior.read_as(settings)?,
            _ => count(
                &self.sequences,
                self.dataset.num_items(),
                settings,
                self.most,
            )?,
        };
        let ndcg = ndcg_10(&prior, &self.cases);
        self.counted = Some(prior);
        self.compared += 1;
        if best.is_none_or(|(_, best)| ndcg > best) {
            *best = Some((settings, ndcg));
        }
        Ok(())
    }
}

/// Whether settings differ in the reading only. What is kept of long rows goes by the reading's
/// weights, so a change there is a new count where rows are cut; that is taken as the same here.
fn same_counts(a: &PriorSettings, b: &PriorSettings) -> bool {
    (a.window, a.distance_power, a.direction) == (b.window, b.distance_power, b.direction)
}

/// NDCG@10 of the counts alone, seen items removed, as a mean over users; a target without a count
/// is a miss.
fn ndcg_10(prior: &TransitionPrior, cases: &[TuningTarget<'_>]) -> f64 {
    let gains: Vec<f64> = cases
        .par_iter()
        .map_init(SparseSums::default, |sums, case| {
            prior.sum(case.history, sums);
            let own = sums.get(case.target);
            if own <= 0.0 {
                return 0.0;
            }
            let better = sums.iter().filter(|&(item, sum)| {
                sum >= own && item != case.target && !case.history.contains(&item)
            });
            case.share * Metric::Ndcg(10).of_rank(1 + better.count())
        })
        .collect();
    let users: f64 = cases.iter().map(|case| case.share).sum();
    gains.iter().sum::<f64>() / users
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::testing::dataset;

    /// Items follow each other in a ring, at a distance of two, with other items between.
    fn ring() -> Dataset {
        let sequences: Vec<Vec<u32>> = (0..40u32)
            .map(|user| {
                let ring = (0..6).map(|step| 1 + (user + step) % 10);
                ring.flat_map(|item| [item, 11 + (item * 7 + user * 3) % 29])
                    .take(11)
                    .collect()
            })
            .collect();
        let borrowed: Vec<&[u32]> = sequences.iter().map(Vec::as_slice).collect();
        dataset(40, &borrowed)
    }

    #[test]
    fn finds_settings_at_least_as_good_as_where_it_began() {
        let data = ring();
        let tuned = tune(&data, None, usize::MAX, &|_| true).expect("tunes");
        let cases = validation_targets(&data, None).expect("targets");
        for start in [PriorSettings::WINDOW_5, WIDE] {
            let prior = count(&training_sequences(&data), 40, start, usize::MAX).expect("counts");
            assert!(ndcg_10(&prior, &cases) <= tuned.ndcg_10);
        }
        assert!(tuned.compared > 30 && tuned.users == 40);
        let looked_at = std::cell::Cell::new(0);
        let go_on = |done| {
            assert_eq!(done, looked_at.replace(done + 1));
            true
        };
        let again = tune(&data, None, usize::MAX, &go_on).expect("tunes");
        assert_eq!(again, tuned);
        assert_eq!(looked_at.get(), most_comparisons(), "what a bar counts to");
    }

    /// Long sequences lend their newest items, short ones nothing, and what is lent is not counted.
    #[test]
    fn some_training_items_are_lent_as_targets() {
        let long: Vec<u32> = (1..=33).collect();
        let data = dataset(40, &[&long, &[1, 2, 3, 4]]);
        let (sequences, targets) = lend(&data, None).expect("targets");
        let lengths: Vec<usize> = sequences.iter().map(|s| s.items.len()).collect();
        assert_eq!(lengths, [28, 2]);
        let found: Vec<(usize, u32)> = (targets.iter())
            .map(|target| (target.history.len(), target.target.0))
            .collect();
        assert_eq!(found, [(28, 29), (29, 30), (30, 31), (31, 32), (2, 3)]);
        let shares: f64 = targets.iter().map(|target| target.share).sum();
        assert!((shares - 2.0).abs() < 1e-12);
    }

    #[test]
    fn can_be_stopped() {
        let stopped = tune(&ring(), None, usize::MAX, &|_| false);
        assert!(matches!(stopped, Err(TuneError::Interrupted)));
    }

    #[test]
    fn ranks_by_hand() {
        // Training parts: 1 2 | 1 3 | 3 1; validation targets 3, 2 and 4.
        let data = dataset(4, &[&[1, 2, 3, 4], &[1, 3, 2, 4], &[3, 1, 4, 2]]);
        let cases = validation_targets(&data, None).expect("targets");
        let prior = count(&training_sequences(&data), 4, PriorSettings::WINDOW_5, 9);
        // User 0 has seen 1 and 2: 3 is the only other. User 1: 2 likewise. User 2: 4 has no count.
        let ndcg = ndcg_10(&prior.expect("counts"), &cases);
        assert!((ndcg - 2.0 / 3.0).abs() < 1e-12, "{ndcg}");
    }
}
