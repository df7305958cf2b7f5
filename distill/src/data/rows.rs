//! Rows of any source, cell by cell, before they mean anything.

use std::cell::Cell as Shared;
use std::path::Path;

use super::error::{Fault, excerpt};
use super::layout::Layout;
use super::time::{self, Time, TimeKind};
use super::{DataError, Format, delimited, json_lines, parquet, sequence_lines};

/// One value of a row.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Cell<'a> {
    /// Nothing there (null).
    Missing,
    Text(&'a str),
    Integer(i64),
    /// An unsigned integer past `i64`.
    Large(u64),
    Float(f64),
    Instant(Time),
    /// A list of texts.
    List(Vec<&'a str>),
    /// A value no column of ours can have (another list, an object, a truth value): what it is.
    Other(&'static str),
}

/// Longest id in bytes; longer text is a wrong column.
const MAX_ID_BYTES: usize = 1024;

/// Type of a cell, for columns that must keep to one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CellKind {
    Text,
    Integer,
    Number,
    Date,
}

impl CellKind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Integer => "an integer",
            Self::Number => "a number",
            Self::Date => "a date",
        }
    }
}

impl Cell<'_> {
    /// An id as text (`scratch` holds the digits of numbers), and its kind.
    pub(super) fn id<'s>(&'s self, scratch: &'s mut String) -> Result<(&'s str, CellKind), Fault> {
        const EXPECTED: &str = "an id (text or integer)";
        scratch.clear();
        match self {
            Self::Text(text) => match text.trim() {
                "" => Err(Fault::new(EXPECTED, "an empty field")),
                id if id.len() > MAX_ID_BYTES => {
                    let found = format!("{} bytes, beginning {}", id.len(), excerpt(id));
                    Err(Fault::new(
                        format!("an id of at most {MAX_ID_BYTES} bytes"),
                        found,
                    ))
                }
                id => Ok((id, CellKind::Text)),
            },
            Self::Integer(number) => {
                scratch.push_str(&number.to_string());
                Ok((scratch, CellKind::Integer))
            }
            Self::Large(number) => {
                scratch.push_str(&number.to_string());
                Ok((scratch, CellKind::Integer))
            }
            other => Err(Fault::new(EXPECTED, other.describe())),
        }
    }

    /// A time, and how it was written.
    pub(super) fn time(&self) -> Result<(Time, CellKind), Fault> {
        match self {
            Self::Text(text) => match text.trim() {
                "" => Err(Fault::new("a time", "an empty field")),
                text => time::parse(text).map(|(time, kind)| match kind {
                    TimeKind::Number => (time, CellKind::Number),
                    TimeKind::Date => (time, CellKind::Date),
                }),
            },
            Self::Integer(number) => Ok((time::from_parts(*number, 1), CellKind::Number)),
            Self::Float(number) => Ok((time::from_f64(*number)?, CellKind::Number)),
            Self::Instant(time) => Ok((*time, CellKind::Date)),
            other => Err(Fault::new("a time", other.describe())),
        }
    }

    /// A finite number.
    pub(super) fn number(&self) -> Result<f64, Fault> {
        const EXPECTED: &str = "a finite number";
        let number = match self {
            Self::Text(text) => match text.trim() {
                "" => return Err(Fault::new(EXPECTED, "an empty field")),
                trimmed => trimmed
                    .parse()
                    .map_err(|_| Fault::new(EXPECTED, excerpt(text)))?,
            },
            Self::Integer(number) => *number as f64,
            Self::Large(number) => *number as f64,
            Self::Float(number) => *number,
            other => return Err(Fault::new(EXPECTED, other.describe())),
        };
        if number.is_finite() {
            return Ok(number);
        }
        Err(Fault::new(EXPECTED, number.to_string()))
    }

    /// A title; blank ones are none.
    pub(super) fn title(&self) -> Result<Option<&str>, Fault> {
        match self {
            Self::Missing => Ok(None),
            Self::Text(text) => Ok(Some(text.trim()).filter(|t| !t.is_empty())),
            other => Err(Fault::new("a title (text)", other.describe())),
        }
    }

    pub(super) fn describe(&self) -> String {
        match self {
            Self::Missing => "nothing (null)".into(),
            Self::Text(text) => excerpt(text),
            Self::Integer(number) => number.to_string(),
            Self::Large(number) => number.to_string(),
            Self::Float(number) => format!("the fraction {number}"),
            Self::Instant(_) => "a moment in time".into(),
            Self::List(_) => "a list".into(),
            Self::Other(what) => (*what).into(),
        }
    }
}

/// What a reader calls for each row: line number, and the wanted cells in the order in which they
/// were wanted, or what is wrong with the row.
pub(super) type OnRow<'f> =
    dyn FnMut(u64, Result<&[Cell<'_>], Fault>) -> Result<(), DataError> + 'f;

/// Tells how far reading is, now and then.
pub(super) struct Progress<'p> {
    report: &'p dyn Fn(u64, u64),
    total: u64,
    last: Shared<u64>,
}

impl<'p> Progress<'p> {
    const EVERY_BYTES: u64 = 1 << 20;

    pub(super) fn new(total: u64, report: &'p dyn Fn(u64, u64)) -> Self {
        report(0, total);
        Self {
            report,
            total,
            last: Shared::new(0),
        }
    }

    pub(super) fn at(&self, bytes: u64) {
        if bytes >= self.last.get() + Self::EVERY_BYTES {
            self.last.set(bytes);
            (self.report)(bytes.min(self.total), self.total);
        }
    }

    pub(super) fn done(&self) {
        (self.report)(self.total, self.total);
    }

    pub(super) fn total(&self) -> u64 {
        self.total
    }
}

/// What reading a file gave besides its rows.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ReadStats {
    /// Rows, the header not counted.
    pub(super) rows: u64,
    /// Lines that were not UTF-8 and were read as Latin-1.
    pub(super) latin1: u64,
}

/// Reads all rows of a file, handing the `wanted` columns of each to `on_row`.
pub(super) fn read(
    path: &Path,
    layout: &Layout,
    wanted: &[usize],
    progress: &Progress<'_>,
    on_row: &mut OnRow<'_>,
) -> Result<ReadStats, DataError> {
    let stats = match layout.format {
        Format::JsonLines => json_lines::read(path, layout, wanted, progress, on_row)?,
        Format::Parquet => parquet::read(path, layout, wanted, progress, on_row)?,
        Format::Sequences => sequence_lines::read(path, layout, progress, on_row)?,
        _ => delimited::read(path, layout, wanted, progress, on_row)?,
    };
    progress.done();
    if stats.rows == 0 {
        return Err(DataError::HeaderOnly {
            path: path.to_owned(),
        });
    }
    Ok(stats)
}
