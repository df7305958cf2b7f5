//! The recommender and the cancel token for C.

use std::ffi::c_char;
use std::sync::Arc;

use super::{SlmrecStatus, border, questions};
use crate::error::SlmrecError;
use crate::records::OpenOptions;
use crate::{CancelToken, Recommender};

/// An opened bundle. Calls may come from any thread and are answered one after the other.
pub struct SlmrecRecommender(pub(super) Arc<Recommender>);

/// Ends the questions that it is given to.
pub struct SlmrecCancelToken(Arc<CancelToken>);

/// Opens the bundle at `path` (UTF-8) and makes the engine ready. `options` is null or JSON:
/// `{"onnxruntime": "/path/libonnxruntime.so", "provider": "auto", "threads": 1, "prior": true}`,
/// every field optional. `recommender` receives a handle for `slmrec_close`, or null.
///
/// # Safety
/// Texts end in NUL; `recommender` may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slmrec_open(
    path: *const c_char,
    options: *const c_char,
    recommender: *mut *mut SlmrecRecommender,
) -> SlmrecStatus {
    // SAFETY: by the contract above.
    border::call(|| unsafe {
        border::clear("recommender", recommender)?;
        let options = match options.is_null() {
            true => OpenOptions::default(),
            false => border::question("options", options)?,
        };
        let opened = Recommender::open(border::text("path", path)?, options)?;
        border::give(recommender, SlmrecRecommender(opened));
        Ok(())
    })
}

/// Frees a recommender. No other thread may be in a call with it; its history states stay valid.
/// Null is allowed.
///
/// # Safety
/// Null, or a handle from `slmrec_open` that was not freed before.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slmrec_close(recommender: *mut SlmrecRecommender) {
    // SAFETY: by the contract above.
    unsafe { border::take_back(recommender) }
}

/// The best items for a history, oldest first. `question` is JSON:
/// `{"history": ["50", "181"], "k": 10, "filter": {"include_seen": false, "block": [], "allow": null, "categories": null, "block_categories": []}}`,
/// all but the history optional. `answer` receives
/// `{"items": [{"rank": 1, "id": "258", "title": "Contact", "score": 18.1}], "shortfall": 0, "unknown_items": [], "unknown_filter_items": [], "unknown_categories": [], "used_items": 2, "milliseconds": 5.2}`,
/// to be freed with `slmrec_string_free`, or null. `cancel` may be null.
///
/// # Safety
/// Handles are alive, texts end in NUL, `answer` may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slmrec_recommend(
    recommender: *const SlmrecRecommender,
    question: *const c_char,
    cancel: *const SlmrecCancelToken,
    answer: *mut *mut c_char,
) -> SlmrecStatus {
    // SAFETY: by the contract above.
    border::call(|| unsafe {
        border::clear("answer", answer)?;
        let recommender = border::object("recommender", recommender)?;
        let asked: questions::Recommend = border::question("question", question)?;
        let found =
            (recommender.0).recommend(asked.history, asked.k, asked.filter, token(cancel))?;
        border::give_json(answer, &found)
    })
}

/// Ranks given items for a history. `question` is JSON:
/// `{"history": ["50"], "candidates": ["1", "2"]}`. `answer` receives
/// `{"items": [..], "unknown_candidates": [], "unknown_items": []}`. `cancel` may be null.
///
/// # Safety
/// As `slmrec_recommend`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slmrec_score(
    recommender: *const SlmrecRecommender,
    question: *const c_char,
    cancel: *const SlmrecCancelToken,
    answer: *mut *mut c_char,
) -> SlmrecStatus {
    // SAFETY: by the contract above.
    border::call(|| unsafe {
        border::clear("answer", answer)?;
        let recommender = border::object("recommender", recommender)?;
        let asked: questions::Score = border::question("question", question)?;
        let ranked = (recommender.0).score(asked.history, asked.candidates, token(cancel))?;
        border::give_json(answer, &ranked)
    })
}

/// Why items are recommended. `question` is JSON:
/// `{"history": ["50", "181"], "items": ["258"], "max_items": 16, "max_reasons": 3}`. `answer`
/// receives `{"items": [{"id": "258", "reasons": [{"id": "50", "title": "..", "age": 2, "drop": 1.5}]}], "examined": 2}`.
/// `cancel` may be null.
///
/// # Safety
/// As `slmrec_recommend`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slmrec_explain(
    recommender: *const SlmrecRecommender,
    question: *const c_char,
    cancel: *const SlmrecCancelToken,
    answer: *mut *mut c_char,
) -> SlmrecStatus {
    // SAFETY: by the contract above.
    border::call(|| unsafe {
        border::clear("answer", answer)?;
        let recommender = border::object("recommender", recommender)?;
        let asked: questions::Explain = border::question("question", question)?;
        let found = (recommender.0).explain(
            asked.history,
            asked.items,
            asked.max_items,
            asked.max_reasons,
            token(cancel),
        )?;
        border::give_json(answer, &found)
    })
}

/// The most popular items, for a person without a usable history. `question` is JSON:
/// `{"k": 10, "filter": {..}}`. `answer` receives
/// `{"items": [{"rank": 1, "id": "50", "title": ".."}], "shortfall": 0, "unknown_filter_items": [], "unknown_categories": []}`.
///
/// # Safety
/// As `slmrec_recommend`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slmrec_popular(
    recommender: *const SlmrecRecommender,
    question: *const c_char,
    answer: *mut *mut c_char,
) -> SlmrecStatus {
    // SAFETY: by the contract above.
    border::call(|| unsafe {
        border::clear("answer", answer)?;
        let recommender = border::object("recommender", recommender)?;
        let asked: questions::List = border::question("question", question)?;
        border::give_json(answer, &recommender.0.popular(asked.k, asked.filter)?)
    })
}

/// Lets the pack at `path` change the answers. After a failure the recommender is as it was.
///
/// # Safety
/// As `slmrec_recommend`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slmrec_apply_pack(
    recommender: *const SlmrecRecommender,
    path: *const c_char,
) -> SlmrecStatus {
    // SAFETY: by the contract above.
    border::call(|| unsafe {
        let recommender = border::object("recommender", recommender)?;
        recommender.0.apply_pack(border::text("path", path)?)
    })
}

/// What is in the bundle and what runs it, as JSON.
///
/// # Safety
/// As `slmrec_recommend`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slmrec_info(
    recommender: *const SlmrecRecommender,
    answer: *mut *mut c_char,
) -> SlmrecStatus {
    // SAFETY: by the contract above.
    border::call(|| unsafe {
        border::clear("answer", answer)?;
        let recommender = border::object("recommender", recommender)?;
        border::give_json(answer, &recommender.0.info()?)
    })
}

/// Replays the bundle's own samples; `answer` receives JSON with `"passed"`. `cancel` may be null.
///
/// # Safety
/// As `slmrec_recommend`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slmrec_self_test(
    recommender: *const SlmrecRecommender,
    cancel: *const SlmrecCancelToken,
    answer: *mut *mut c_char,
) -> SlmrecStatus {
    // SAFETY: by the contract above.
    border::call(|| unsafe {
        border::clear("answer", answer)?;
        let recommender = border::object("recommender", recommender)?;
        border::give_json(answer, &recommender.0.self_test(token(cancel))?)
    })
}

/// A token that has not been cancelled; to be freed with `slmrec_cancel_token_free`.
#[unsafe(no_mangle)]
pub extern "C" fn slmrec_cancel_token_new() -> *mut SlmrecCancelToken {
    Box::into_raw(Box::new(SlmrecCancelToken(CancelToken::new())))
}

/// Cancels, from any thread, and does not wait: a question with this token ends before its next
/// step with `SLMREC_STATUS_CANCELLED`.
///
/// # Safety
/// A token that is alive, or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slmrec_cancel_token_cancel(
    token: *const SlmrecCancelToken,
) -> SlmrecStatus {
    // SAFETY: by the contract above.
    border::call(|| unsafe {
        border::object("token", token)?.0.cancel();
        Ok::<(), SlmrecError>(())
    })
}

/// Frees a token. Questions that were given it go on. Null is allowed.
///
/// # Safety
/// Null, or a token that was not freed before.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slmrec_cancel_token_free(token: *mut SlmrecCancelToken) {
    // SAFETY: by the contract above.
    unsafe { border::take_back(token) }
}

/// # Safety
/// Null, or a token that is alive.
pub(super) unsafe fn token(token: *const SlmrecCancelToken) -> Option<Arc<CancelToken>> {
    // SAFETY: by the contract above.
    unsafe { token.as_ref() }.map(|token| Arc::clone(&token.0))
}
