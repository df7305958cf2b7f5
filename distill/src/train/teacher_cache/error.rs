//! What can be wrong with remembered teacher states.

use std::io;
use std::path::PathBuf;

/// Why teacher states could not be stored or read.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// A file or folder that cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A value that 16 bits cannot hold.
    #[error(
        "window {window}, position {position}: {what} holds {value}, expected at most 65504 in size\n\
         hint: distill.teacher_states = \"live\" stores nothing and has no such limit"
    )]
    Overflow {
        /// `the state after layer l`, `the user vector` or `a score`.
        what: String,
        /// Window of the training data.
        window: usize,
        /// Position within its history, from 0.
        position: usize,
        /// The value.
        value: f32,
    },
    /// A shard that is not what it should be although it was found sound before.
    #[error(
        "{}: expected {expected}, found {found}\n\
         hint: `slmrec-distill teach --cache-states` computes damaged shards again", path.display()
    )]
    Damaged {
        /// The shard.
        path: PathBuf,
        /// What would have been right.
        expected: String,
        /// What stands there.
        found: String,
    },
    /// Shards that are not there or not sound.
    #[error(
        "{}: {bad} of {total} shards are missing, stale or damaged\n\
         hint: `slmrec-distill teach --cache-states` fills them; with --shard i/n on several machines",
        dir.display()
    )]
    Incomplete {
        /// The directory.
        dir: PathBuf,
        /// How many are not sound.
        bad: usize,
        /// How many there should be.
        total: usize,
    },
    /// More bytes than the settings allow.
    #[error(
        "the teacher's states take {needed:.3} GiB, expected at most {allowed:.3} GiB\n\
         hint: raise distill.cache_max_gib, or set distill.teacher_states = \"live\"; fewer blocks or \
         distill.objective.positions = \"last\" need less"
    )]
    TooLarge {
        /// GiB that the states take.
        needed: f64,
        /// GiB that they may take.
        allowed: f64,
    },
    /// Something was asked for that was not stored.
    #[error("the stored teacher states: expected {expected}, found {found}")]
    NotStored {
        /// What the student asks for.
        expected: String,
        /// What is stored.
        found: String,
    },
    /// A part of the work that is not one.
    #[error("{found:?}: expected i/n with 1 <= i <= n, for example 3/16")]
    Part {
        /// What was typed.
        found: String,
    },
    /// Ctrl-C: finished shards stay, the one at hand is dropped.
    #[error("interrupted; finished shards are kept")]
    Interrupted,
}

impl CacheError {
    pub(super) fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io {
            path: path.into(),
            source,
        }
    }
}
