//! A graph of one fixed history length at a time, for providers that take no symbolic lengths.
//!
//! CoreML compiles a program for the shapes that it is given; nodes of unknown shape would all be
//! left to the CPU. A history cannot be padded to one length either: its positions count. So there
//! is a session for each length that comes up, made when it does, and the last few are kept.

use ndarray::{ArrayView3, Axis};

use super::{Encoder, EngineInfo};
use crate::error::RuntimeError;

/// Sessions that are kept.
const KEPT: usize = 4;

/// Makes a session for histories of one length.
pub(super) type Make<E> = Box<dyn Fn(usize) -> Result<E, RuntimeError> + Send>;

/// Sessions by length.
pub(super) struct StaticLengths<E> {
    make: Make<E>,
    /// Most recently used last.
    sessions: Vec<(usize, E)>,
    info: EngineInfo,
}

impl<E: Encoder> StaticLengths<E> {
    /// Begins with the session for one length, so that what is wrong with graph or provider is
    /// found at once.
    ///
    /// # Errors
    /// What `make` gives.
    pub(super) fn new(length: usize, make: Make<E>) -> Result<Self, RuntimeError> {
        let first = make(length)?;
        let info = EngineInfo {
            incremental: false,
            ..first.info().clone()
        };
        Ok(Self {
            make,
            sessions: vec![(length, first)],
            info,
        })
    }

    fn session(&mut self, length: usize) -> Result<&mut E, RuntimeError> {
        let session = match self.sessions.iter().position(|(of, _)| *of == length) {
            Some(at) => self.sessions.remove(at),
            None => {
                let made = (self.make)(length)?;
                if self.sessions.len() == KEPT {
                    self.sessions.remove(0);
                }
                (length, made)
            }
        };
        self.sessions.push(session);
        let last = self.sessions.len() - 1;
        Ok(&mut self.sessions[last].1)
    }
}

impl<E: Encoder> Encoder for StaticLengths<E> {
    fn encode(&mut self, embeddings: ArrayView3<'_, f32>) -> Result<Vec<f32>, RuntimeError> {
        self.session(embeddings.len_of(Axis(1)))?.encode(embeddings)
    }

    fn info(&self) -> &EngineInfo {
        &self.info
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::Mutex;

    use ndarray::Array3;
    use slmrec_core::manifest::Precision;

    use super::*;
    use crate::options::Provider;

    /// Refuses every length but its own.
    struct Fixed(usize, EngineInfo);

    impl Encoder for Fixed {
        fn encode(&mut self, embeddings: ArrayView3<'_, f32>) -> Result<Vec<f32>, RuntimeError> {
            assert_eq!(embeddings.len_of(Axis(1)), self.0);
            Ok(vec![self.0 as f32])
        }

        fn info(&self) -> &EngineInfo {
            &self.1
        }
    }

    #[test]
    fn each_length_has_its_session_and_the_last_few_are_kept() {
        let made: Arc<Mutex<Vec<usize>>> = Arc::default();
        let log = Arc::clone(&made);
        let info = EngineInfo {
            name: "fixed".into(),
            version: "1".into(),
            provider: Provider::CoreMl,
            threads: 1,
            encoder: "e".into(),
            precision: Precision::Fp32,
            incremental: true,
            notice: None,
        };
        let make = move |length| {
            log.lock().expect("not poisoned").push(length);
            Ok(Fixed(length, info.clone()))
        };
        let mut encoder = StaticLengths::new(5, Box::new(make)).expect("made");
        assert!(!encoder.info().incremental);
        for length in [5, 1, 2, 3, 5, 4, 5, 1] {
            let found = encoder.encode(Array3::zeros((1, length, 2)).view());
            assert_eq!(found.expect("runs"), [length as f32]);
        }
        // The fifth length took the place of 1, the one that was used least recently.
        assert_eq!(*made.lock().expect("not poisoned"), [5, 1, 2, 3, 4, 1]);
        assert!(encoder.incremental().is_none());
    }
}
