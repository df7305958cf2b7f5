//! A recommender that several Python threads and history states share.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::Python;
use slmrec_runtime::Recommender;

use crate::errors::Failure;

/// One recommender; calls from several threads take turns.
pub(crate) struct Shared(Mutex<State>);

enum State {
    Open(Box<Recommender>),
    Closed,
    /// A call panicked, so what it left behind is not trusted; with what it said.
    Broken(String),
}

impl Shared {
    /// Opens a recommender with the interpreter released.
    pub(crate) fn open(
        py: Python<'_>,
        open: impl FnOnce() -> Result<Recommender, Failure> + Send,
    ) -> Result<Self, Failure> {
        let recommender = py.detach(|| caught(open))?;
        Ok(Self(Mutex::new(State::Open(Box::new(recommender)))))
    }

    /// Does `work` with the interpreter released: only then is it safe to wait for another thread,
    /// which may need the interpreter to end its own call.
    pub(crate) fn with<T: Send>(
        &self,
        py: Python<'_>,
        work: impl FnOnce(&mut Recommender) -> Result<T, Failure> + Send,
    ) -> Result<T, Failure> {
        py.detach(|| {
            let mut state = self.lock();
            let recommender = match &mut *state {
                State::Open(recommender) => recommender,
                State::Closed => return Err(Failure::Closed),
                State::Broken(said) => return Err(Failure::Panic(said.clone())),
            };
            let result = caught(|| work(recommender));
            if let Err(Failure::Panic(said)) = &result {
                *state = State::Broken(said.clone());
            }
            result
        })
    }

    /// Lets go of the bundle and the engine; once more does nothing.
    pub(crate) fn close(&self, py: Python<'_>) {
        py.detach(|| *self.lock() = State::Closed);
    }

    /// Panics are caught before they could poison it.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What `work` gives; a panic is a failure like others.
fn caught<T>(work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    // Whoever owns what `work` has changed does not use it after a panic.
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| Err(Failure::Panic(said(&*panic))))
}

fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a message".to_owned())
}
