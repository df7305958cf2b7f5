//! The transition prior: counting it, choosing how, weighing it against a model, and refreshing it.
//!
//! Follow it: [`counting`] (training sequences → pairs, a [`TransitionPrior`] of `slmrec_core`) →
//! [`tuning`] (which window, which corrections: by the counts' own validation NDCG@10) → [`mixing`]
//! (alpha and beta beside a model's scores, by validation) → [`scorer`] (a model and its prior as
//! one system) → [`update`] (newer interactions into the prior of a bundle, without the model).
//!
//! [`TransitionPrior`]: slmrec_core::TransitionPrior

pub mod counting;
mod grid;
mod leave_one_out;
pub mod mixing;
pub mod scorer;
pub mod tuning;
pub mod update;

pub use counting::{CountedSequence, count};
pub use leave_one_out::{sum_without_last, sums_without};
pub use mixing::{Counts, Mixture, likeliest, likeliest_beside, mix};
pub use scorer::WithPrior;
pub use tuning::{TunedPrior, tune};
