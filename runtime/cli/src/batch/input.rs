//! A file of histories, cut into parts that are the same at every run.

use std::path::Path;

use super::lines_input::LinesInput;
use super::parquet_input::ParquetInput;
use super::{FileFormat, Question};

/// An opened file of histories.
pub(crate) enum Input {
    Parquet(ParquetInput),
    Lines(LinesInput),
}

/// Whether users are integers in the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UserType {
    Text,
    Integer,
}

impl Input {
    /// Opens a file and cuts it into parts.
    ///
    /// # Errors
    /// A file that cannot be read, or without the columns that are needed.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        Ok(match FileFormat::of(path)? {
            FileFormat::Parquet => Self::Parquet(ParquetInput::open(path)?),
            FileFormat::JsonLines => Self::Lines(LinesInput::open(path)?),
        })
    }

    /// Number of histories in each part.
    pub(crate) fn part_rows(&self) -> Vec<u64> {
        match self {
            Self::Parquet(input) => input.part_rows(),
            Self::Lines(input) => input.part_rows(),
        }
    }

    pub(crate) fn user_type(&self) -> UserType {
        match self {
            Self::Parquet(input) => input.user_type(),
            Self::Lines(_) => UserType::Text,
        }
    }

    /// Reads a part, window by window.
    ///
    /// # Errors
    /// What `on_window` gives, and rows that are no histories, by their number.
    pub(crate) fn read(
        &mut self,
        part: usize,
        on_window: &mut dyn FnMut(Vec<Question>) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        match self {
            Self::Parquet(input) => input.read(part, on_window),
            Self::Lines(input) => input.read(part, on_window),
        }
    }
}
