//! Questions that nobody waits for any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::Recommender;
use crate::error::RuntimeError;

impl Recommender {
    /// Lets another thread end questions: while the flag is set, they give
    /// [`RuntimeError::Cancelled`] before their next run of the encoder or their scan of the
    /// catalog. What already runs, runs to its end. `None` takes the flag away.
    pub fn stop_when(&mut self, flag: Option<Arc<AtomicBool>>) {
        self.stop = flag;
    }

    pub(super) fn check_stop(&self) -> Result<(), RuntimeError> {
        let is_set = |flag: &Arc<AtomicBool>| flag.load(Ordering::Relaxed);
        match &self.stop {
            Some(flag) if is_set(flag) => Err(RuntimeError::Cancelled),
            _ => Ok(()),
        }
    }
}
