//! Recommendations for a file of histories: a file in, a file out, in bounded memory.
//!
//! The order in which to read: [`input`] (histories, cut into parts) → [`workers`] (which answer
//! them) → [`output`] (a part's answers as a file, and all of them as one) → [`parts`] (what is
//! finished, so that a run that was killed goes on).

pub(crate) mod input;
mod lines_input;
pub(crate) mod output;
mod parquet_input;
mod parquet_output;
pub(crate) mod parts;
pub(crate) mod progress;
pub(crate) mod workers;

use std::path::Path;

use serde::Serialize;
use slmrec_core::History;

/// Most histories of a part: what a kill can cost at most.
pub(crate) const PART_ROWS: usize = 16_384;
/// Most histories that are in memory at once.
pub(crate) const WINDOW_ROWS: usize = 1024;

/// Whose history it is, as the input says it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub(crate) enum User {
    /// The input has none.
    Nobody,
    Text(String),
    Integer(i64),
}

/// A row of the input.
#[derive(Debug)]
pub(crate) struct Question {
    /// Its number in the file, counted from 1.
    pub(crate) row: u64,
    pub(crate) user: User,
    pub(crate) history: History,
}

/// A row of the output.
#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct Answer {
    pub(crate) user: User,
    /// Best first.
    pub(crate) items: Vec<String>,
    pub(crate) scores: Vec<f32>,
    /// By how many items the list is shorter than asked for.
    pub(crate) shortfall: u32,
    /// Distinct ids of the history that the catalog does not have.
    pub(crate) unknown: u32,
    /// Nothing of the history is known, so the model was not asked.
    #[serde(skip)]
    pub(crate) nothing_known: bool,
}

/// How a file holds its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FileFormat {
    Parquet,
    JsonLines,
}

impl FileFormat {
    /// By the ending of the file's name.
    pub(crate) fn of(path: &Path) -> anyhow::Result<Self> {
        let ending = path.extension().and_then(|ending| ending.to_str());
        match ending.map(str::to_ascii_lowercase).as_deref() {
            Some("parquet") => Ok(Self::Parquet),
            Some("jsonl" | "ndjson") => Ok(Self::JsonLines),
            _ => anyhow::bail!(
                "{}: expected a name that ends in .parquet, .jsonl or .ndjson",
                path.display()
            ),
        }
    }

    /// The ending of a part's name.
    pub(crate) fn ending(self) -> &'static str {
        match self {
            Self::Parquet => "parquet",
            Self::JsonLines => "jsonl",
        }
    }
}
