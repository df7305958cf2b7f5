//! Why a data file was refused.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use slmrec_core::VocabularyError;

/// Why `prepare` gave no dataset. Every message names the file, and where it helps the line, the
/// column, what was expected and what was found.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// A file that cannot be opened or read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A folder, a device or a pipe where a file is needed.
    #[error("{}: expected a regular file, found {found}; hint: give the file itself", path.display())]
    NotAFile {
        /// What was given.
        path: PathBuf,
        /// What it is.
        found: &'static str,
    },
    /// A file without any content.
    #[error("{}: expected interactions or items, found an empty file", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// A header and nothing after it.
    #[error("{}: expected rows after the header, found none", path.display())]
    HeaderOnly {
        /// The file.
        path: PathBuf,
    },
    /// A file whose form is not known, broken, or not the one asked for.
    #[error("{}: expected {expected}, found {found}; hint: {hint}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What would have been right.
        expected: String,
        /// What stands there.
        found: String,
        /// What to do.
        hint: String,
    },
    /// A column that was asked for, or is needed, is not there.
    #[error(
        "{}: expected a column for the {role} ({}), found the columns {}; hint: {hint}",
        path.display(), tried.join(", "), Quoted(found)
    )]
    MissingColumn {
        /// The file.
        path: PathBuf,
        /// `user`, `item`, `time`, `rating`, `title` or `categories`.
        role: &'static str,
        /// The names looked for.
        tried: Vec<String>,
        /// The columns of the file.
        found: Vec<String>,
        /// What to do.
        hint: String,
    },
    /// A column name that stands twice in the header.
    #[error("{}: expected one column {column:?}, found several; hint: rename one, or name the column by its position", path.display())]
    RepeatedColumn {
        /// The file.
        path: PathBuf,
        /// Its name.
        column: String,
    },
    /// A line that is not an interaction or item.
    #[error("{}:{line}: {fault}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Line (or row of a Parquet file), from 1.
        line: u64,
        /// What is wrong with it.
        fault: Box<Fault>,
    },
    /// A column whose values are of one type first and of another later.
    #[error(
        "{}:{line}: column {column:?}: expected {expected} as in line {first_line}, found {found}; hint: make the column one type", path.display()
    )]
    MixedTypes {
        /// The file.
        path: PathBuf,
        /// Line of the second type, from 1.
        line: u64,
        /// The column.
        column: String,
        /// The first type.
        expected: &'static str,
        /// The first line with the first type.
        first_line: u64,
        /// The second type.
        found: &'static str,
    },
    /// A line (or quoted record) longer than any real one.
    #[error(
        "{}:{line}: expected a line of at most {limit} bytes, found a longer one; hint: is a quote left open, or is this not a text file?", path.display()
    )]
    LineTooLong {
        /// The file.
        path: PathBuf,
        /// Where it begins, from 1.
        line: u64,
        /// The limit in bytes.
        limit: usize,
    },
    /// Everything was dropped.
    #[error("{}: expected interactions, found none left after {filter} ({before} before it); hint: {hint}", path.display())]
    NothingLeft {
        /// The file.
        path: PathBuf,
        /// The step that dropped the last one.
        filter: String,
        /// Interactions (or lines) before that step.
        before: u64,
        /// What to do.
        hint: &'static str,
    },
    /// More of something than is supported.
    #[error("{}: expected at most {limit} {what}, found more", path.display())]
    TooMany {
        /// The file.
        path: PathBuf,
        /// Users, items or interactions.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// A setting that cannot be used.
    #[error("setting {setting}: expected {expected}, found {found}")]
    Setting {
        /// Its name.
        setting: &'static str,
        /// What would have been right.
        expected: String,
        /// What was given.
        found: String,
    },
    /// The items make no vocabulary.
    #[error("{}: {source}", path.display())]
    Vocabulary {
        /// The file.
        path: PathBuf,
        /// What is wrong with them.
        source: VocabularyError,
    },
}

/// What is wrong with one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The column, where it is one column's fault.
    pub column: Option<String>,
    /// What would have been right.
    pub expected: String,
    /// What stands there, cut to a readable length.
    pub found: String,
    /// What to do, where that is known.
    pub hint: Option<String>,
}

impl Fault {
    pub(super) fn new(expected: impl Into<String>, found: impl Into<String>) -> Self {
        Self {
            column: None,
            expected: expected.into(),
            found: found.into(),
            hint: None,
        }
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(super) fn in_column(mut self, column: &str) -> Self {
        self.column = Some(column.to_owned());
        self
    }

    pub(super) fn at(self, path: &Path, line: u64) -> DataError {
        DataError::Line {
            path: path.to_owned(),
            line,
            fault: Box::new(self),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(column) = &self.column {
            write!(f, "column {column:?}: ")?;
        }
        write!(f, "expected {}, found {}", self.expected, self.found)?;
        match &self.hint {
            Some(hint) => write!(f, "; hint: {hint}"),
            None => Ok(()),
        }
    }
}

pub(super) fn io_error(path: &Path, source: io::Error) -> DataError {
    DataError::Io {
        path: path.to_owned(),
        source,
    }
}

/// A piece of hostile text as it may stand in a message: quoted, escaped, at most 60 characters.
pub(super) fn excerpt(text: &str) -> String {
    const LONGEST: usize = 60;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{:?}...", &text[..end]),
        None => format!("{text:?}"),
    }
}

/// At most twenty column names, each cut.
struct Quoted<'a>(&'a [String]);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MOST: usize = 20;
        let shown: Vec<String> = self.0.iter().take(MOST).map(|c| excerpt(c)).collect();
        f.write_str(&shown.join(", "))?;
        match self.0.len().saturating_sub(MOST) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}
