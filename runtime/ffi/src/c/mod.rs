//! The C interface: the same objects as opaque handles, questions and answers as JSON.
//!
//! JSON, because C++, Dart, JavaScript and C# have it at hand, fields can be added without a new
//! binary interface, and beside a run of the model its cost is nothing.
//!
//! Pointers are checked for null and texts for UTF-8 and length; a pointer that is neither null
//! nor valid cannot be told from a good one, here as in any C interface.

#![expect(
    unsafe_code,
    reason = "pointers of C callers; the only such module of the workspace"
)]

mod border;
mod history_state;
mod linked;
mod questions;
mod recommender;
mod status;

pub use history_state::{
    SlmrecHistoryState, slmrec_history_state_append, slmrec_history_state_free,
    slmrec_history_state_new, slmrec_history_state_recommend, slmrec_history_state_restore,
    slmrec_history_state_write,
};
pub use linked::slmrec_use_linked_onnxruntime;
pub use recommender::{
    SlmrecCancelToken, SlmrecRecommender, slmrec_apply_pack, slmrec_cancel_token_cancel,
    slmrec_cancel_token_free, slmrec_cancel_token_new, slmrec_close, slmrec_explain, slmrec_info,
    slmrec_open, slmrec_popular, slmrec_recommend, slmrec_score, slmrec_self_test,
};
pub use status::{SlmrecStatus, slmrec_last_error, slmrec_string_free, slmrec_version};
