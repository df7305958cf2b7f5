//! The recommender for other languages: objects and records that UniFFI carries to Kotlin and
//! Swift, and a C interface over the same objects.
//!
//! Calls are coarse (a history in, a list out) and block; whoever must not block calls from a
//! thread of their own, which is what the facades in `android/` and `ios/` do. Questions to one
//! recommender are answered one after the other, from however many threads they come. Items are
//! string ids and titles, never rows of a table. Panics do not cross the border: UniFFI makes
//! exceptions of them, [`c`] a status.
//!
//! The order in which to read: [`Recommender`] → [`HistoryState`] → records → [`SlmrecError`] →
//! [`c`].

pub mod c;
mod cancel;
mod convert;
mod error;
mod history_state;
mod limits;
mod recommender;
mod records;

pub use cancel::CancelToken;
pub use error::SlmrecError;
pub use history_state::HistoryState;
pub use recommender::Recommender;
pub use records::{
    BundleInfo, Engine, Explanations, Filter, OpenOptions, PopularItem, PopularItems, Provider,
    RankedCandidates, Reason, Reasons, Recommendation, Recommendations, SelfTest,
};

uniffi::setup_scaffolding!("slmrec");
