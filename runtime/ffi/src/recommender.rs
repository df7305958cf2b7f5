//! The opened bundle.

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use slmrec_core::History;
use slmrec_runtime::{self as runtime, RuntimeError};

use crate::cancel::CancelToken;
use crate::convert::count;
use crate::error::SlmrecError;
use crate::history_state::HistoryState;
use crate::limits;
use crate::records::{
    BundleInfo, Explanations, Filter, OpenOptions, PopularItems, RankedCandidates, Reasons,
    Recommendations, SelfTest,
};

/// An opened bundle: histories in, recommendations out.
///
/// Every call blocks. Calls may come from any thread; they are answered one after the other.
#[derive(Debug, uniffi::Object)]
pub struct Recommender {
    runtime: Mutex<runtime::Recommender>,
}

#[uniffi::export]
impl Recommender {
    /// Opens the bundle at a path and makes the engine ready: some tenths of a second.
    #[uniffi::constructor]
    pub fn open(path: &str, options: OpenOptions) -> Result<Arc<Self>, SlmrecError> {
        let recommender = runtime::Recommender::open(Path::new(path), &options.try_into()?)?;
        Ok(Arc::new(Self {
            runtime: Mutex::new(recommender),
        }))
    }

    /// The `k` best items for a history, which is oldest first.
    pub fn recommend(
        &self,
        history: Vec<String>,
        k: u32,
        filter: Filter,
        cancel: Option<Arc<CancelToken>>,
    ) -> Result<Recommendations, SlmrecError> {
        let history = checked(history)?;
        let filter = filter.try_into()?;
        self.ask(cancel, |runtime| {
            runtime.recommend(&history, k as usize, &filter)
        })
        .map(Into::into)
    }

    /// Ranks given items for a history, with the scores that `recommend` gives them. Seen items are
    /// ranked like others.
    pub fn score(
        &self,
        history: Vec<String>,
        candidates: Vec<String>,
        cancel: Option<Arc<CancelToken>>,
    ) -> Result<RankedCandidates, SlmrecError> {
        let history = checked(history)?;
        limits::check_ids("the candidates", &candidates)?;
        self.ask(cancel, |runtime| runtime.score(&history, &candidates))
            .map(Into::into)
    }

    /// Why items are recommended: for each of them, up to `max_reasons` items of the history whose
    /// removal lowers its score most. The newest `max_items` of the history are left out in turn,
    /// so a call costs a few times what `recommend` does. A history of one item gives no reasons.
    pub fn explain(
        &self,
        history: Vec<String>,
        items: Vec<String>,
        max_items: u32,
        max_reasons: u32,
        cancel: Option<Arc<CancelToken>>,
    ) -> Result<Explanations, SlmrecError> {
        let history = checked(history)?;
        limits::check_ids("the items", &items)?;
        let options = runtime::ExplainOptions {
            max_items: at_least_one("max_items", max_items)?,
            max_reasons: at_least_one("max_reasons", max_reasons)?,
        };
        let found = self.ask(cancel, |runtime| {
            runtime.explain(&history, &items, &options)
        })?;
        let reasons = found.reasons.into_iter().zip(items);
        Ok(Explanations {
            items: reasons
                .map(|(reasons, id)| Reasons {
                    id,
                    reasons: reasons.into_iter().map(Into::into).collect(),
                })
                .collect(),
            examined: count(found.examined),
        })
    }

    /// The `k` most popular items: an answer for a person without a usable history.
    pub fn popular(&self, k: u32, filter: Filter) -> Result<PopularItems, SlmrecError> {
        let filter = filter.try_into()?;
        self.ask(None, |runtime| runtime.popular(k as usize, &filter))
            .map(Into::into)
    }

    /// A state that begins with a history, which may be empty, and grows by single items.
    pub fn history_state(
        self: Arc<Self>,
        history: Vec<String>,
    ) -> Result<Arc<HistoryState>, SlmrecError> {
        let history = checked(history)?;
        let (state, unknown) = self.ask(None, |runtime| runtime.history_state(&history))?;
        Ok(HistoryState::new(self, state, unknown))
    }

    /// A state from what its `to_bytes` gave, for example before the system ended the app. Only for
    /// the bundle that it was made with.
    pub fn restore_history_state(
        self: Arc<Self>,
        bytes: Vec<u8>,
    ) -> Result<Arc<HistoryState>, SlmrecError> {
        limits::check_text("a written history state", bytes.len())?;
        let state = self.ask(None, |runtime| runtime.restore_history_state(&bytes))?;
        Ok(HistoryState::new(self, state, Vec::new()))
    }

    /// Lets a pack change the answers: its prior takes the place of the bundle's. After a failure
    /// the recommender is as it was.
    pub fn apply_pack(&self, path: &str) -> Result<(), SlmrecError> {
        self.ask(None, |runtime| runtime.apply_pack(Path::new(path)))
    }

    /// What is in the bundle and what runs it.
    pub fn info(&self) -> Result<BundleInfo, SlmrecError> {
        self.ask(None, |runtime| Ok(runtime.into()))
    }

    /// Replays the bundle's own samples: does this device give what was expected at export?
    pub fn self_test(&self, cancel: Option<Arc<CancelToken>>) -> Result<SelfTest, SlmrecError> {
        let test = self.ask(cancel, runtime::Recommender::self_test)?;
        Ok((&test).into())
    }
}

impl Recommender {
    /// Asks the runtime when it is this question's turn.
    pub(crate) fn ask<T>(
        &self,
        cancel: Option<Arc<CancelToken>>,
        question: impl FnOnce(&mut runtime::Recommender) -> Result<T, RuntimeError>,
    ) -> Result<T, SlmrecError> {
        let cancelled = || cancel.as_ref().is_some_and(|token| token.is_cancelled());
        if cancelled() {
            return Err(RuntimeError::Cancelled.into());
        }
        let mut runtime = self.lock()?;
        if cancelled() {
            return Err(RuntimeError::Cancelled.into());
        }
        runtime.stop_when(cancel.as_ref().map(|token| token.flag()));
        let answer = question(&mut runtime);
        runtime.stop_when(None);
        Ok(answer?)
    }

    fn lock(&self) -> Result<MutexGuard<'_, runtime::Recommender>, SlmrecError> {
        self.runtime.lock().map_err(|_| after_a_fault())
    }
}

/// What an object says after a panic inside: its parts may no longer fit together.
pub(crate) fn after_a_fault() -> SlmrecError {
    SlmrecError::Internal("an earlier call ended in a fault; open the bundle anew".into())
}

fn checked(history: Vec<String>) -> Result<History, SlmrecError> {
    limits::check_ids("the history", &history)?;
    Ok(History::from_items(history))
}

fn at_least_one(what: &str, n: u32) -> Result<NonZeroUsize, SlmrecError> {
    let error = || SlmrecError::InvalidArgument(format!("{what}: expected at least 1, found 0"));
    NonZeroUsize::new(n as usize).ok_or_else(error)
}
