//! How one thread ends another's question.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Ends the questions that it was given to.
///
/// A question looks at its token before each run of the encoder and before the catalog is scanned,
/// and then fails as cancelled; what runs already, some milliseconds, runs to its end. A token that
/// was cancelled stays so.
#[derive(Debug, Default, uniffi::Object)]
pub struct CancelToken {
    flag: Arc<AtomicBool>,
}

#[uniffi::export]
impl CancelToken {
    /// A token that has not been cancelled.
    #[uniffi::constructor]
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// Cancels. Does not wait.
    pub fn cancel(&self) {
        self.flag.store(true, Ordering::Relaxed);
    }

    /// Whether it was cancelled.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.flag.load(Ordering::Relaxed)
    }
}

impl CancelToken {
    pub(crate) fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.flag)
    }
}
