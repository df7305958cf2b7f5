//! The native half of the Python package `slmrec`: what [`slmrec_runtime`] offers, in Python's plain
//! types. The package's own modules (`slmrec/*.py`) make of it what a person calls.
//!
//! Every call releases the interpreter before it waits or works ([`shared`]), and what goes wrong,
//! a panic included, becomes an exception of `slmrec` ([`errors`]).
//!
//! The order in which to read: [`recommender`] → [`history_state`] → [`batch`].

mod batch;
mod errors;
mod given;
mod history_state;
mod recommender;
mod shared;

/// The native half of the package `slmrec`; use the package.
#[pyo3::pymodule]
mod _native {
    #[pymodule_export]
    use crate::history_state::HistoryState;
    #[pymodule_export]
    use crate::recommender::Recommender;
}
