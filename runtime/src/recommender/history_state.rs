//! A history that grows: what is known of it is kept, so that an appended item costs its own
//! positions only.
//!
//! A state holds the newest items, the set of seen ones and, in memory, the keys and values of what
//! the encoder has read. It is bounded: by the longest history, the longest reach of a prior and
//! the catalog. Past the longest history the window slides, and what deeper layers kept depends on
//! items that are gone, so it is encoded anew.
//!
//! Its written form has the items alone: keys and values are some hundred kilobytes and cost one
//! run to make again.

use std::collections::{BTreeSet, VecDeque};

use ndarray::ArrayView3;
use serde::{Deserialize, Serialize};
use slmrec_core::history::encode_history;
use slmrec_core::prior::MAX_LAST_ITEMS;
use slmrec_core::{EncodedHistory, History, HistoryError, ItemIndex};

use super::{Asked, Recommendations, Recommender, Timing, timed};
use crate::engine::KeyValues;
use crate::error::RuntimeError;
use crate::options::FilterOptions;

/// The written form that this library writes and reads.
const FORMAT_VERSION: u32 = 1;

/// One person's history, with what the encoder has made of it. Made by
/// [`Recommender::history_state`]; it belongs to that recommender's bundle.
#[derive(Clone, Debug)]
pub struct HistoryState {
    bundle_sha256: String,
    /// Packs whose items it may hold, in order.
    item_packs: Vec<String>,
    max_history: usize,
    /// The newest known items, oldest first: as many as encoder and prior may read.
    newest: VecDeque<ItemIndex>,
    /// Every known item.
    seen: BTreeSet<ItemIndex>,
    /// Number of items ever appended.
    appended: u64,
    encoded: Option<Encoded>,
}

/// What the encoder has read, as counts of appended items.
#[derive(Clone, Debug)]
pub(super) struct Encoded {
    from: u64,
    to: u64,
    user_vector: Vec<f32>,
    /// `None` where the engine runs whole histories only.
    key_values: Option<KeyValues>,
}

/// The written form.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    format_version: u32,
    bundle_sha256: String,
    /// SHA-256 of the packs whose items stand behind the bundle's rows, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    item_packs: Vec<String>,
    /// Rows of the bundle's vocabulary, oldest first.
    newest: Vec<ItemIndex>,
    /// Rows, ascending.
    seen: Vec<ItemIndex>,
}

impl HistoryState {
    /// Appends an item that the person has just taken; `false`, and nothing is changed, for an id
    /// that the catalog does not have. Nothing runs before the next question.
    ///
    /// # Errors
    /// A state of another bundle.
    pub fn append(&mut self, recommender: &Recommender, id: &str) -> Result<bool, RuntimeError> {
        recommender.check_state(self)?;
        let item = recommender.vocabulary.index_of(id);
        if let Some(item) = item {
            self.item_packs.clone_from(&recommender.item_packs);
            self.push(item);
        }
        Ok(item.is_some())
    }

    /// The `k` best items after all that was appended; the answer of [`Recommender::recommend`]
    /// for the same history, within the tolerance of the engine's arithmetic.
    ///
    /// # Errors
    /// A state of another bundle, one without an item, and what the engine reports.
    pub fn recommend(
        &mut self,
        recommender: &mut Recommender,
        k: usize,
        filter: &FilterOptions,
    ) -> Result<Recommendations, RuntimeError> {
        let asked = recommender.ask_state(self)?;
        recommender.check_stop()?;
        let mut answers = recommender.answer(vec![asked], k, filter);
        // One question, one answer.
        answers.swap_remove(0)
    }

    /// The user vector after all that was appended, D values.
    ///
    /// # Errors
    /// As [`Self::recommend`].
    pub fn user_vector(&mut self, recommender: &mut Recommender) -> Result<Vec<f32>, RuntimeError> {
        recommender.ask_state(self).map(|asked| asked.user_vector)
    }

    /// Number of items that the encoder reads: the newest known ones.
    #[must_use]
    pub fn used_items(&self) -> usize {
        self.newest.len().min(self.max_history)
    }

    /// The written form, for [`Recommender::restore_history_state`]: JSON with rows of the bundle's
    /// vocabulary. Equal states give equal bytes.
    ///
    /// # Errors
    /// None that a state can cause.
    pub fn to_bytes(&self) -> Result<Vec<u8>, RuntimeError> {
        let written = Written {
            format_version: FORMAT_VERSION,
            bundle_sha256: self.bundle_sha256.clone(),
            item_packs: self.item_packs.clone(),
            newest: self.newest.iter().copied().collect(),
            seen: self.seen.iter().copied().collect(),
        };
        serde_json::to_vec(&written).map_err(|e| wrong("something that JSON can hold", e))
    }

    fn push(&mut self, item: ItemIndex) {
        self.newest.push_back(item);
        if self.newest.len() > self.max_history.max(MAX_LAST_ITEMS) {
            self.newest.pop_front();
        }
        self.seen.insert(item);
        self.appended += 1;
    }

    /// What the encoder reads, oldest first.
    pub(super) fn window(&self) -> Vec<ItemIndex> {
        let before = self.newest.len() - self.used_items();
        self.newest.iter().skip(before).copied().collect()
    }
}

impl Recommender {
    /// A state that begins with a history, which may be empty; its ids that the catalog does not
    /// have are left out and named.
    ///
    /// # Errors
    /// A history that is too long.
    pub fn history_state(
        &self,
        history: &History,
    ) -> Result<(HistoryState, Vec<String>), RuntimeError> {
        let mut state = self.empty_state();
        let max_history = self.manifest().model.max_history;
        match encode_history(history, &self.vocabulary, max_history) {
            Ok(EncodedHistory { seen, unknown, .. }) => {
                seen.into_iter().for_each(|item| state.push(item));
                Ok((state, unknown))
            }
            Err(HistoryError::Empty | HistoryError::AllUnknown { .. }) => {
                let mut unknown = Vec::new();
                for entry in &history.entries {
                    if !unknown.contains(&entry.item) {
                        unknown.push(entry.item.clone());
                    }
                }
                Ok((state, unknown))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// A state from its written form; the bytes are not trusted.
    ///
    /// # Errors
    /// Anything that this version did not write for this bundle.
    pub fn restore_history_state(&self, bytes: &[u8]) -> Result<HistoryState, RuntimeError> {
        let mut state = self.empty_state();
        let written: Written =
            serde_json::from_slice(bytes).map_err(|e| wrong("a written state", e))?;
        if written.format_version != FORMAT_VERSION {
            let expected = format!("format version {FORMAT_VERSION}");
            return Err(wrong(expected, written.format_version));
        }
        state.bundle_sha256 = written.bundle_sha256;
        state.item_packs = written.item_packs;
        self.check_state(&state)?;
        let rows = || written.newest.iter().chain(&written.seen);
        if let Some(row) = rows().find(|item| self.vocabulary.get(**item).is_none()) {
            let expected = format!("rows of 1..={}", self.vocabulary.len());
            return Err(wrong(expected, row.0));
        }
        written.newest.into_iter().for_each(|item| state.push(item));
        state.seen.extend(written.seen);
        Ok(state)
    }

    fn empty_state(&self) -> HistoryState {
        HistoryState {
            bundle_sha256: self.bundle.sha256().to_owned(),
            item_packs: self.item_packs.clone(),
            max_history: self.manifest().model.max_history,
            newest: VecDeque::new(),
            seen: BTreeSet::new(),
            appended: 0,
            encoded: None,
        }
    }

    fn check_state(&self, state: &HistoryState) -> Result<(), RuntimeError> {
        if state.bundle_sha256 == self.bundle.sha256() {
            // Packs that came later only append rows.
            if self.item_packs.starts_with(&state.item_packs) {
                return Ok(());
            }
            let expected = format!("one of the item packs {:?}", self.item_packs);
            return Err(wrong(expected, format!("one of {:?}", state.item_packs)));
        }
        let expected = format!("one of the bundle {}", self.bundle.sha256());
        Err(wrong(expected, format!("one of {:?}", state.bundle_sha256)))
    }

    /// Brings a state up to date; the question that it asks.
    pub(super) fn ask_state(&mut self, state: &mut HistoryState) -> Result<Asked, RuntimeError> {
        self.check_state(state)?;
        let mut timing = Timing::default();
        let user_vector = self.catch_up(state, &mut timing)?;
        let newest = state.newest.make_contiguous();
        let additions = timed(&mut timing.score, || self.additions(newest));
        let history = EncodedHistory {
            items: state.window(),
            seen: state.seen.iter().copied().collect(),
            unknown: Vec::new(),
        };
        Ok(Asked {
            history,
            user_vector,
            additions,
            timing,
        })
    }

    /// Encodes what was appended since the last time.
    fn catch_up(
        &mut self,
        state: &mut HistoryState,
        timing: &mut Timing,
    ) -> Result<Vec<f32>, RuntimeError> {
        let window = state.window();
        if window.is_empty() {
            return Err(HistoryError::Empty.into());
        }
        let to = state.appended;
        let from = to - window.len() as u64;
        // After a failure nothing is kept.
        let before = state.encoded.take().filter(|encoded| encoded.from == from);
        let (key_values, read) = match before {
            Some(encoded) if encoded.to == to => {
                let user_vector = encoded.user_vector.clone();
                state.encoded = Some(encoded);
                return Ok(user_vector);
            }
            Some(Encoded {
                key_values: Some(key_values),
                ..
            }) => {
                let read = key_values.items();
                (Some(key_values), read)
            }
            _ => (None, 0),
        };
        let (user_vector, key_values) =
            self.extend(key_values.as_ref(), &window[read..], timing)?;
        state.encoded = Some(Encoded {
            from,
            to,
            user_vector: user_vector.clone(),
            key_values,
        });
        Ok(user_vector)
    }

    /// Runs items behind those of `past`, or alone where there is none; with what is left for the
    /// next run where the engine gives it.
    pub(super) fn extend(
        &mut self,
        past: Option<&KeyValues>,
        items: &[ItemIndex],
        timing: &mut Timing,
    ) -> Result<(Vec<f32>, Option<KeyValues>), RuntimeError> {
        self.check_stop()?;
        let dim = self.table.dim();
        let rows = timed(&mut timing.lookup, || self.embeddings(items));
        let view = ArrayView3::from_shape((1, items.len(), dim), &rows)
            .map_err(|_| self.no_user_vector("an embedding for every item", "fewer".into()))?;
        let found = timed(&mut timing.encode, || match self.encoder.incremental() {
            Some(encoder) => {
                let (user_vector, left) = encoder.extend(past, view)?;
                Ok::<_, RuntimeError>((user_vector, Some(left)))
            }
            None => Ok((self.encoder.encode(view)?, None)),
        });
        let (user_vector, left) = found?;
        Ok((self.checked(user_vector)?, left))
    }
}

fn wrong(expected: impl Into<String>, found: impl ToString) -> RuntimeError {
    RuntimeError::HistoryState {
        expected: expected.into(),
        found: found.to_string(),
    }
}
