//! Rust's errors as exceptions of `slmrec`, which the package defines in Python.

use std::io;

use pyo3::PyErr;
use slmrec_core::BundleError;
use slmrec_runtime::RuntimeError;

mod exceptions {
    pyo3::import_exception!(slmrec._errors, BundleError);
    pyo3::import_exception!(slmrec._errors, BundleNotFoundError);
    pyo3::import_exception!(slmrec._errors, ClosedError);
    pyo3::import_exception!(slmrec._errors, EngineError);
    pyo3::import_exception!(slmrec._errors, HistoryError);
    pyo3::import_exception!(slmrec._errors, HistoryStateError);
    pyo3::import_exception!(slmrec._errors, InternalError);
    pyo3::import_exception!(slmrec._errors, LibraryError);
}

/// Why a call has no answer.
pub(crate) enum Failure {
    /// What the runtime says.
    Runtime(RuntimeError),
    /// The recommender was closed.
    Closed,
    /// The runtime panicked, in this call or an earlier one; with what it said.
    Panic(String),
    /// What Python says.
    Python(PyErr),
}

impl From<RuntimeError> for Failure {
    fn from(error: RuntimeError) -> Self {
        Self::Runtime(error)
    }
}

impl From<PyErr> for Failure {
    fn from(error: PyErr) -> Self {
        Self::Python(error)
    }
}

impl From<Failure> for PyErr {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Runtime(error) => exception(&error),
            Failure::Closed => exceptions::ClosedError::new_err("the recommender is closed"),
            Failure::Panic(said) => exceptions::InternalError::new_err(format!(
                "a fault in slmrec: {said}; this recommender is of no use any more, open it anew"
            )),
            Failure::Python(error) => error,
        }
    }
}

/// The exception for an error of the runtime.
fn exception(error: &RuntimeError) -> PyErr {
    let message = error.to_string();
    match error {
        RuntimeError::Bundle(BundleError::Io { source, .. })
            if source.kind() == io::ErrorKind::NotFound =>
        {
            exceptions::BundleNotFoundError::new_err(message)
        }
        RuntimeError::Bundle(_) | RuntimeError::Samples { .. } => {
            exceptions::BundleError::new_err(message)
        }
        RuntimeError::History(_) => exceptions::HistoryError::new_err(message),
        RuntimeError::HistoryState { .. } => exceptions::HistoryStateError::new_err(message),
        RuntimeError::LibraryNotFound { .. }
        | RuntimeError::Library { .. }
        | RuntimeError::LibraryConflict { .. } => exceptions::LibraryError::new_err(message),
        RuntimeError::ProviderAbsent { .. }
        | RuntimeError::ProviderFailed { .. }
        | RuntimeError::ProviderCache { .. }
        | RuntimeError::EngineNotBuilt { .. }
        | RuntimeError::NoGraph { .. }
        | RuntimeError::Graph { .. }
        | RuntimeError::GraphShape { .. } => exceptions::EngineError::new_err(message),
        // Nobody here sets the flag that cancels.
        RuntimeError::Cancelled
        | RuntimeError::Inference { .. }
        | RuntimeError::UserVector { .. }
        | RuntimeError::Ranking(_) => exceptions::InternalError::new_err(message),
    }
}
