//! The history state for C.

use std::ffi::c_char;
use std::sync::Arc;

use super::recommender::token;
use super::{SlmrecCancelToken, SlmrecRecommender, SlmrecStatus, border, questions};
use crate::HistoryState;
use crate::error::SlmrecError;

/// One person's history that grows by single items. It keeps its recommender's bundle alive.
pub struct SlmrecHistoryState(Arc<HistoryState>);

/// A state that begins with a history: a JSON list of ids, oldest first, for example `["50"]`, or
/// null for none. `state` receives a handle for `slmrec_history_state_free`, or null.
///
/// # Safety
/// The recommender is alive, texts end in NUL, `state` may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slmrec_history_state_new(
    recommender: *const SlmrecRecommender,
    history: *const c_char,
    state: *mut *mut SlmrecHistoryState,
) -> SlmrecStatus {
    // SAFETY: by the contract above.
    border::call(|| unsafe {
        border::clear("state", state)?;
        let recommender = border::object("recommender", recommender)?;
        let history = match history.is_null() {
            true => Vec::new(),
            false => border::question("history", history)?,
        };
        let made = Arc::clone(&recommender.0).history_state(history)?;
        border::give(state, SlmrecHistoryState(made));
        Ok(())
    })
}

/// A state from what `slmrec_history_state_write` gave, for the same bundle.
///
/// # Safety
/// As `slmrec_history_state_new`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slmrec_history_state_restore(
    recommender: *const SlmrecRecommender,
    written: *const c_char,
    state: *mut *mut SlmrecHistoryState,
) -> SlmrecStatus {
    // SAFETY: by the contract above.
    border::call(|| unsafe {
        border::clear("state", state)?;
        let recommender = border::object("recommender", recommender)?;
        let written = border::text("written", written)?.as_bytes().to_vec();
        let made = Arc::clone(&recommender.0).restore_history_state(written)?;
        border::give(state, SlmrecHistoryState(made));
        Ok(())
    })
}

/// Appends the item with this id. `known`, which may be null, receives whether the catalog has it;
/// if not, nothing is changed.
///
/// # Safety
/// The state is alive, the text ends in NUL, `known` may be written where it is not null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slmrec_history_state_append(
    state: *const SlmrecHistoryState,
    id: *const c_char,
    known: *mut bool,
) -> SlmrecStatus {
    // SAFETY: by the contract above.
    border::call(|| unsafe {
        let state = border::object("state", state)?;
        let appended = state.0.append(border::text("id", id)?.to_owned())?;
        if !known.is_null() {
            known.write(appended);
        }
        Ok(())
    })
}

/// The best items after all that was appended. `question` is JSON: `{"k": 10, "filter": {..}}`;
/// `answer` is that of `slmrec_recommend`. `cancel` may be null.
///
/// # Safety
/// Handles are alive, texts end in NUL, `answer` may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slmrec_history_state_recommend(
    state: *const SlmrecHistoryState,
    question: *const c_char,
    cancel: *const SlmrecCancelToken,
    answer: *mut *mut c_char,
) -> SlmrecStatus {
    // SAFETY: by the contract above.
    border::call(|| unsafe {
        border::clear("answer", answer)?;
        let state = border::object("state", state)?;
        let asked: questions::List = border::question("question", question)?;
        let found = state.0.recommend(asked.k, asked.filter, token(cancel))?;
        border::give_json(answer, &found)
    })
}

/// The state as a text for `slmrec_history_state_restore`, to be freed with `slmrec_string_free`.
///
/// # Safety
/// The state is alive, `written` may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slmrec_history_state_write(
    state: *const SlmrecHistoryState,
    written: *mut *mut c_char,
) -> SlmrecStatus {
    // SAFETY: by the contract above.
    border::call(|| unsafe {
        border::clear("written", written)?;
        let bytes = border::object("state", state)?.0.to_bytes()?;
        let text = String::from_utf8(bytes)
            .map_err(|_| SlmrecError::Internal("a written state is not UTF-8".into()))?;
        border::give_text(written, text);
        Ok(())
    })
}

/// Frees a state. Null is allowed.
///
/// # Safety
/// Null, or a state that was not freed before.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slmrec_history_state_free(state: *mut SlmrecHistoryState) {
    // SAFETY: by the contract above.
    unsafe { border::take_back(state) }
}
