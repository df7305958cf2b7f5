//! Recommenders, one a thread: each history runs alone, so an answer depends neither on their
//! number nor on the histories beside it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::Context;
use slmrec_core::{History, HistoryError};
use slmrec_runtime::{FilterOptions, Recommendations, Recommender, RuntimeError};

use super::{Answer, Question};

/// Histories that share one pass over the catalog.
const SHARED_PASS: usize = 32;

type Found = Result<Recommendations, RuntimeError>;

/// Answers windows of histories, all by the same question.
pub(crate) struct Workers {
    recommenders: Vec<Recommender>,
    k: usize,
    filter: FilterOptions,
}

impl Workers {
    pub(crate) fn new(recommenders: Vec<Recommender>, k: usize, filter: FilterOptions) -> Self {
        Self {
            recommenders,
            k,
            filter,
        }
    }

    /// The answers, in the order of the questions. A history of which nothing is known gets an
    /// empty list.
    ///
    /// # Errors
    /// The first history that cannot be answered otherwise, by its row.
    pub(crate) fn answer(&mut self, window: Vec<Question>) -> anyhow::Result<Vec<Answer>> {
        let (asked, histories): (Vec<_>, Vec<History>) = (window.into_iter())
            .map(|question| ((question.row, question.user), question.history))
            .unzip();
        let found = self.recommend(&histories);
        let answers = asked.into_iter().zip(found).map(|((row, user), found)| {
            let (list, unknown) = list(found).with_context(|| format!("row {row}"))?;
            let nothing_known = list.is_none();
            let (items, scores): (Vec<String>, Vec<f32>) =
                list.unwrap_or_default().into_iter().unzip();
            Ok(Answer {
                user,
                shortfall: u32::try_from(self.k - items.len())?,
                items,
                scores,
                unknown: u32::try_from(unknown)?,
                nothing_known,
            })
        });
        answers.collect()
    }

    fn recommend(&mut self, histories: &[History]) -> Vec<Found> {
        let chunks: Vec<&[History]> = histories.chunks(SHARED_PASS).collect();
        let next = AtomicUsize::new(0);
        let (k, filter) = (self.k, &self.filter);
        let work = |recommender: &mut Recommender| {
            let mut done = Vec::new();
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let Some(chunk) = chunks.get(at) else {
                    return done;
                };
                done.push((at, recommender.recommend_batch(chunk, k, filter)));
            }
        };
        let mut done = thread::scope(|scope| {
            let (first, others) = match self.recommenders.split_first_mut() {
                Some((first, others)) => (first, others),
                None => return Vec::new(),
            };
            let work = &work;
            let others: Vec<_> = (others.iter_mut())
                .map(|recommender| scope.spawn(move || work(recommender)))
                .collect();
            let mut done = work(first);
            for other in others {
                match other.join() {
                    Ok(more) => done.extend(more),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            done
        });
        done.sort_unstable_by_key(|(at, _)| *at);
        done.into_iter().flat_map(|(_, found)| found).collect()
    }
}

/// Ids with scores, and how many ids of the history are unknown.
type List = (Option<Vec<(String, f32)>>, usize);

/// No list where nothing of the history is known.
fn list(found: Found) -> Result<List, RuntimeError> {
    match found {
        Ok(found) => {
            let items = found.items.into_iter();
            let items = items.map(|item| (item.id, item.score)).collect();
            Ok((Some(items), found.unknown_items.len()))
        }
        Err(RuntimeError::History(HistoryError::Empty)) => Ok((None, 0)),
        Err(RuntimeError::History(HistoryError::AllUnknown { count, .. })) => Ok((None, count)),
        Err(error) => Err(error),
    }
}
