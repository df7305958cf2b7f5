//! Parquet: a history a row, row group by row group.

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::Context;
use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, RecordBatch, types};
use arrow_schema::{DataType, Field, TimeUnit};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader,
    ParquetRecordBatchReaderBuilder,
};
use slmrec_core::History;
use slmrec_core::history::{HistoryEntry, MAX_ENTRIES};

use super::input::UserType;
use super::{PART_ROWS, Question, User, WINDOW_ROWS};

const USER: &str = "user";
const HISTORY: &str = "history";
const TIMES: &str = "times";

/// A file with the column `history` and perhaps `user` and `times`; others are not read.
pub(crate) struct ParquetInput {
    path: PathBuf,
    metadata: ArrowReaderMetadata,
    parts: Vec<Part>,
    user_type: UserType,
    /// The reader behind the last part, where the next one may go on.
    open: Option<Open>,
}

/// Rows of one row group.
#[derive(Clone)]
struct Part {
    group: usize,
    /// Rows within the group.
    rows: Range<usize>,
    /// Number of its first row in the file, counted from 0.
    first_row: u64,
}

struct Open {
    reader: ParquetRecordBatchReader,
    group: usize,
    /// The row within the group that the reader gives next.
    next: usize,
}

impl ParquetInput {
    /// Reads the footer and looks at the columns.
    ///
    /// # Errors
    /// A file that is no Parquet, is cut, or has other columns.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        let file = File::open(path).with_context(|| path.display().to_string())?;
        let file_metadata = (file.metadata()).with_context(|| path.display().to_string())?;
        // The Arrow schema that some writers leave would bring dictionaries and views; the file's
        // own has plain types only.
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let metadata = ArrowReaderMetadata::load(&file, options).map_err(|e| broken(path, &e))?;
        check_places(path, &metadata, file_metadata.len())?;
        let user_type = user_type(path, &metadata)?;
        Ok(Self {
            path: path.to_owned(),
            parts: parts(path, &metadata)?,
            metadata,
            user_type,
            open: None,
        })
    }

    pub(super) fn part_rows(&self) -> Vec<u64> {
        self.parts.iter().map(|p| p.rows.len() as u64).collect()
    }

    pub(super) fn user_type(&self) -> UserType {
        self.user_type
    }

    pub(super) fn read(
        &mut self,
        part: usize,
        on_window: &mut dyn FnMut(Vec<Question>) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let part = self.parts[part].clone();
        let mut open = match self.open.take() {
            Some(open) if open.group == part.group && open.next == part.rows.start => open,
            _ => self.reader(&part)?,
        };
        while open.next < part.rows.end {
            let batch = (open.reader.next()).unwrap_or_else(|| {
                Err(arrow_schema::ArrowError::ParquetError(
                    "fewer rows than the footer says".into(),
                ))
            });
            let batch = batch.map_err(|e| broken(&self.path, &e))?;
            let first = part.first_row + (open.next - part.rows.start) as u64 + 1;
            open.next += batch.num_rows();
            // Windows end where parts do, in rows that are there.
            anyhow::ensure!(
                batch.num_rows() > 0 && open.next <= part.rows.end,
                broken(&self.path, &"other rows than the footer says")
            );
            on_window(self.questions(&batch, first)?)?;
        }
        self.open = Some(open);
        Ok(())
    }

    /// A reader from the beginning of a part to the end of its row group.
    fn reader(&self, part: &Part) -> anyhow::Result<Open> {
        let file = File::open(&self.path).with_context(|| self.path.display().to_string())?;
        let builder =
            ParquetRecordBatchReaderBuilder::new_with_metadata(file, self.metadata.clone());
        let mask = ProjectionMask::columns(builder.parquet_schema(), [USER, HISTORY, TIMES]);
        let reader = builder
            .with_projection(mask)
            .with_row_groups(vec![part.group])
            .with_offset(part.rows.start)
            .with_batch_size(WINDOW_ROWS)
            .build()
            .map_err(|e| broken(&self.path, &e))?;
        Ok(Open {
            reader,
            group: part.group,
            next: part.rows.start,
        })
    }

    /// The rows of a batch; `first` is the number of the first, counted from 1.
    fn questions(&self, batch: &RecordBatch, first: u64) -> anyhow::Result<Vec<Question>> {
        let missing = || broken(&self.path, &"a column is gone");
        let columns = Columns {
            user: batch.column_by_name(USER),
            history: batch.column_by_name(HISTORY).with_context(missing)?,
            times: batch.column_by_name(TIMES),
        };
        let question = |at: usize| {
            let row = first + at as u64;
            let read = columns.question(at, row);
            read.with_context(|| format!("{}: row {row}", self.path.display()))
        };
        (0..batch.num_rows()).map(question).collect()
    }
}

struct Columns<'a> {
    user: Option<&'a ArrayRef>,
    history: &'a ArrayRef,
    times: Option<&'a ArrayRef>,
}

impl Columns<'_> {
    fn question(&self, at: usize, row: u64) -> anyhow::Result<Question> {
        anyhow::ensure!(
            !self.history.is_null(at),
            "{HISTORY}: expected a list, found null"
        );
        let list = self.history.as_list::<i32>().value(at);
        anyhow::ensure!(
            list.len() <= MAX_ENTRIES,
            "{HISTORY}: expected at most {MAX_ENTRIES} items, found {}",
            list.len()
        );
        let mut entries = Vec::with_capacity(list.len());
        for place in 0..list.len() {
            let item = match cell(&list, place)? {
                User::Nobody => anyhow::bail!("{HISTORY}[{place}]: expected an id, found null"),
                User::Text(id) => id,
                User::Integer(id) => id.to_string(),
            };
            entries.push(HistoryEntry { item, time: None });
        }
        if let Some(times) = self.times.filter(|times| !times.is_null(at)) {
            entries = in_order(entries, &times.as_list::<i32>().value(at))?;
        }
        let user = match self.user {
            Some(users) => cell(users, at).context(USER)?,
            None => User::Nobody,
        };
        Ok(Question {
            row,
            user,
            history: History {
                user: None,
                entries,
            },
        })
    }
}

/// By time; items of one instant keep their order.
fn in_order(entries: Vec<HistoryEntry>, times: &ArrayRef) -> anyhow::Result<Vec<HistoryEntry>> {
    anyhow::ensure!(
        times.len() == entries.len(),
        "{TIMES}: expected {} values, one an item, found {}",
        entries.len(),
        times.len()
    );
    let mut timed = Vec::with_capacity(entries.len());
    for (place, entry) in entries.into_iter().enumerate() {
        match cell(times, place)? {
            User::Integer(time) => timed.push((time, entry)),
            _ => anyhow::bail!("{TIMES}[{place}]: expected a time, found null"),
        }
    }
    timed.sort_by_key(|(time, _)| *time);
    let entry = |(time, entry): (i64, HistoryEntry)| HistoryEntry {
        time: Some(time as f64),
        ..entry
    };
    Ok(timed.into_iter().map(entry).collect())
}

/// Text, an integer or nothing, of an array of [`is_text`] or [`is_integer`] type.
fn cell(array: &ArrayRef, at: usize) -> anyhow::Result<User> {
    use types as t;
    if array.is_null(at) {
        return Ok(User::Nobody);
    }
    macro_rules! integer {
        ($type:ty) => {{
            let value = array.as_primitive::<$type>().value(at);
            let value = i64::try_from(value);
            User::Integer(value.context("expected an integer below 2^63, found a greater one")?)
        }};
    }
    Ok(match array.data_type() {
        DataType::Utf8 => User::Text(array.as_string::<i32>().value(at).to_owned()),
        DataType::Int8 => integer!(t::Int8Type),
        DataType::Int16 => integer!(t::Int16Type),
        DataType::Int32 => integer!(t::Int32Type),
        DataType::Int64 => integer!(t::Int64Type),
        DataType::UInt8 => integer!(t::UInt8Type),
        DataType::UInt16 => integer!(t::UInt16Type),
        DataType::UInt32 => integer!(t::UInt32Type),
        DataType::UInt64 => integer!(t::UInt64Type),
        DataType::Timestamp(TimeUnit::Second, _) => integer!(t::TimestampSecondType),
        DataType::Timestamp(TimeUnit::Millisecond, _) => integer!(t::TimestampMillisecondType),
        DataType::Timestamp(TimeUnit::Microsecond, _) => integer!(t::TimestampMicrosecondType),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => integer!(t::TimestampNanosecondType),
        other => anyhow::bail!("expected text or integers, found {other}"),
    })
}

fn is_text(kind: &DataType) -> bool {
    *kind == DataType::Utf8
}

fn is_integer(kind: &DataType) -> bool {
    kind.is_integer()
}

fn is_time(kind: &DataType) -> bool {
    kind.is_integer() || matches!(kind, DataType::Timestamp(_, _))
}

/// Checks the types of the columns.
fn user_type(path: &Path, metadata: &ArrowReaderMetadata) -> anyhow::Result<UserType> {
    let fields = metadata.schema().fields();
    let find = |name: &str| fields.iter().find(|field| field.name() == name);
    let list_of = |field: &Field, item: fn(&DataType) -> bool, expected: &str| {
        let right = matches!(field.data_type(), DataType::List(of) if item(of.data_type()));
        anyhow::ensure!(
            right,
            "{}: column {:?}: expected {expected}, found {}",
            path.display(),
            field.name(),
            field.data_type()
        );
        Ok(())
    };
    let Some(history) = find(HISTORY) else {
        let names: Vec<&str> = fields.iter().map(|field| field.name().as_str()).collect();
        anyhow::bail!(
            "{}: expected a column {HISTORY:?}, found {names:?}; hint: {HISTORY} is a list of item ids, oldest first",
            path.display()
        );
    };
    let id = |kind: &DataType| is_text(kind) || is_integer(kind);
    list_of(history, id, "a list of strings or integers")?;
    if let Some(times) = find(TIMES) {
        list_of(times, is_time, "a list of integers or timestamps")?;
    }
    match find(USER).map(|field| field.data_type()) {
        None => Ok(UserType::Text),
        Some(kind) if is_text(kind) => Ok(UserType::Text),
        Some(kind) if is_integer(kind) => Ok(UserType::Integer),
        Some(other) => anyhow::bail!(
            "{}: column {USER:?}: expected strings or integers, found {other}",
            path.display()
        ),
    }
}

/// Cuts row groups into parts; a part never has rows of two.
fn parts(path: &Path, metadata: &ArrowReaderMetadata) -> anyhow::Result<Vec<Part>> {
    let mut parts = Vec::new();
    let mut first_row = 0;
    for (group, about) in metadata.metadata().row_groups().iter().enumerate() {
        let rows = usize::try_from(about.num_rows()).map_err(|e| broken(path, &e))?;
        for start in (0..rows).step_by(PART_ROWS) {
            parts.push(Part {
                group,
                rows: start..rows.min(start + PART_ROWS),
                first_row: first_row + start as u64,
            });
        }
        first_row += rows as u64;
    }
    Ok(parts)
}

/// The reader trusts the places of the column chunks and panics on negative ones.
fn check_places(path: &Path, metadata: &ArrowReaderMetadata, length: u64) -> anyhow::Result<()> {
    let groups = metadata.metadata().row_groups().iter();
    for column in groups.flat_map(|group| group.columns()) {
        let start = column
            .dictionary_page_offset()
            .unwrap_or_else(|| column.data_page_offset());
        let size = column.compressed_size();
        let end = u64::try_from(start)
            .ok()
            .zip(u64::try_from(size).ok())
            .and_then(|(start, size)| start.checked_add(size));
        if end.is_none_or(|end| end > length) {
            let found = format!("a column at byte {start} of {size} bytes in a file of {length}");
            return Err(broken(path, &found));
        }
    }
    Ok(())
}

fn broken(path: &Path, found: &dyn std::fmt::Display) -> anyhow::Error {
    anyhow::anyhow!(
        "{}: expected a readable Parquet file, found: {found}; hint: is the file complete? \
         Supported codecs are none, snappy and zstd",
        path.display()
    )
}
