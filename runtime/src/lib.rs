//! Bundle in, recommendations out: the code that a phone runs.
//!
//! ```no_run
//! use slmrec_core::History;
//! use slmrec_runtime::{FilterOptions, OpenOptions, Recommender};
//!
//! let mut recommender = Recommender::open("student.slmrec".as_ref(), &OpenOptions::default())?;
//! let history = History::from_items(["50", "181"]);
//! let found = recommender.recommend(&history, 10, &FilterOptions::default())?;
//! for item in &found.items {
//!     println!("{:2}  {}  {:.3}", item.rank, item.id, item.score);
//! }
//! # Ok::<(), slmrec_runtime::RuntimeError>(())
//! ```
//!
//! The order in which to read: [`options`] → [`recommender`] → [`engine`] (which runs the encoder
//! graph, ONNX Runtime or tract) → [`self_test`] → [`provider_choice`]. Nothing here prints, reads the environment or
//! opens a network connection; types of the engines stay inside [`engine`].
//!
//! ONNX Runtime's official builds collect telemetry unless the variable
//! `ORT_DISABLE_TELEMETRY=1` is in the process environment **before** the library is loaded. A
//! library cannot set it safely, so the program must: `slmrec-run` starts itself anew with it.
//! What can be switched off after loading is switched off here.

pub mod engine;
mod error;
pub mod options;
pub mod provider_choice;
pub mod recommender;
pub mod self_test;

pub use engine::{Encoder, EngineInfo, IncrementalEncoder, KeyValues};
pub use error::RuntimeError;
pub use options::{EngineChoice, FilterOptions, LibrarySearch, OpenOptions, Provider};
pub use provider_choice::{ProviderCache, ProviderChoice, ProviderTrial, TrialOutcome};
pub use recommender::{
    ExplainOptions, Explanations, HistoryState, PopularItem, PopularItems, RankedCandidates,
    Reason, Recommendation, Recommendations, Recommender, Scores, Timing,
};
pub use self_test::{SampleResult, SelfTest};
