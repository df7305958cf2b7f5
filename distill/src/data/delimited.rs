//! Files with a separator between the fields.

use std::cell::Cell as Shared;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::rc::Rc;

use super::error::{Fault, io_error};
use super::layout::{Layout, Separator};
use super::lines::{self, Lines, MAX_LINE_BYTES};
use super::rows::{Cell, OnRow, Progress, ReadStats};
use super::{DataError, Format};

/// Reads the rows; quotes count in [`Format::Csv`] only, where a field may also hold line ends.
pub(super) fn read(
    path: &Path,
    layout: &Layout,
    wanted: &[usize],
    progress: &Progress<'_>,
    on_row: &mut OnRow<'_>,
) -> Result<ReadStats, DataError> {
    match (layout.format, layout.separator) {
        (Format::Csv, Separator::Byte(byte)) => {
            read_quoted(path, byte, layout, wanted, progress, on_row)
        }
        _ => read_plain(path, layout, wanted, progress, on_row),
    }
}

fn read_plain(
    path: &Path,
    layout: &Layout,
    wanted: &[usize],
    progress: &Progress<'_>,
    on_row: &mut OnRow<'_>,
) -> Result<ReadStats, DataError> {
    let mut lines = Lines::open(path, progress)?;
    let mut stats = ReadStats::default();
    if layout.header {
        lines.next_line()?;
    }
    while let Some((number, line)) = lines.next_line()? {
        stats.rows += 1;
        let (text, latin1) = match lines::decode(line, layout.latin1) {
            Ok(decoded) => decoded,
            Err(fault) => {
                on_row(number, Err(fault))?;
                continue;
            }
        };
        stats.latin1 += u64::from(latin1);
        let fields: Vec<&str> = layout.separator.split(&text).collect();
        match check_width(fields.len(), layout) {
            Ok(()) => {
                let cells: Vec<Cell<'_>> = wanted.iter().map(|&c| Cell::Text(fields[c])).collect();
                on_row(number, Ok(&cells))?;
            }
            Err(fault) => on_row(number, Err(fault))?,
        }
    }
    Ok(stats)
}

fn check_width(found: usize, layout: &Layout) -> Result<(), Fault> {
    let expected = layout.columns.len();
    if found == expected {
        return Ok(());
    }
    let separator = layout.separator.name();
    let first = if layout.header {
        "the header"
    } else {
        "the first line"
    };
    Err(Fault::new(
        format!("{expected} fields separated by {separator}, as in {first}"),
        found.to_string(),
    ))
}

fn read_quoted(
    path: &Path,
    separator: u8,
    layout: &Layout,
    wanted: &[usize],
    progress: &Progress<'_>,
    on_row: &mut OnRow<'_>,
) -> Result<ReadStats, DataError> {
    let file = File::open(path).map_err(|e| io_error(path, e))?;
    let bound = Bound::default();
    let mut reader = csv_reader(separator, BoundedRead::new(file, bound.clone()));
    let mut record = csv::ByteRecord::new();
    let mut stats = ReadStats::default();
    let mut skip_header = layout.header;
    loop {
        let start = reader.position().clone();
        bound.record_start.set(start.byte());
        progress.at(start.byte());
        match reader.read_byte_record(&mut record) {
            Ok(true) => {}
            Ok(false) => return Ok(stats),
            Err(_) if bound.exceeded.get() => {
                return Err(DataError::LineTooLong {
                    path: path.to_owned(),
                    line: start.line(),
                    limit: MAX_LINE_BYTES,
                });
            }
            Err(e) => return Err(io_error(path, e.into())),
        }
        if std::mem::take(&mut skip_header) || is_blank(&record) {
            continue;
        }
        stats.rows += 1;
        // The position before a record is before the blank lines above it, so the line is counted
        // back from the end: every record ends with a line end, and may have others in its fields.
        let within = record.as_slice().iter().filter(|&&b| b == b'\n').count() as u64;
        let open = bound.ended.get();
        let line = reader.position().line() - within - u64::from(!open);
        let cells = match open {
            true => Err(Fault::new("a closing quote", "the end of the file")),
            false => cells_of(&record, layout, wanted),
        };
        match cells {
            Ok(cells) => on_row(line, Ok(&cells))?,
            Err(fault) => on_row(line, Err(fault))?,
        }
    }
}

/// A line without anything on it but the `\r` of its end.
fn is_blank(record: &csv::ByteRecord) -> bool {
    record.len() == 1 && record.as_slice().trim_ascii().is_empty()
}

/// The reader for quoted files, for their header too. Only `\n` ends a record, which makes lines
/// countable; a `\r` before it is trimmed with the white space around the last field.
pub(super) fn csv_reader<R: Read>(separator: u8, source: R) -> csv::Reader<R> {
    csv::ReaderBuilder::new()
        .delimiter(separator)
        .has_headers(false)
        .flexible(true)
        .terminator(csv::Terminator::Any(b'\n'))
        .buffer_capacity(1 << 16)
        .from_reader(source)
}

fn cells_of<'r>(
    record: &'r csv::ByteRecord,
    layout: &Layout,
    wanted: &[usize],
) -> Result<Vec<Cell<'r>>, Fault> {
    check_width(record.len(), layout)?;
    let text = |&column: &usize| {
        let bytes = &record[column];
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Cell::Text(text)),
            Err(e) => {
                Err(lines::not_utf8(bytes, e.valid_up_to()).in_column(&layout.columns[column]))
            }
        }
    };
    wanted.iter().map(text).collect()
}

/// What the reader of records and the reader of bytes under it tell each other.
#[derive(Clone, Default)]
struct Bound {
    /// Where the record that is being read began.
    record_start: Rc<Shared<u64>>,
    /// Whether the record became too long.
    exceeded: Rc<Shared<bool>>,
    /// Whether the end of the file was seen; since the last line is always ended, a record that
    /// saw it is inside quotes.
    ended: Rc<Shared<bool>>,
}

/// Refuses to read on when one record has become too long (an open quote would otherwise swallow
/// the rest of the file into memory), and ends the last line where the file does not.
struct BoundedRead<R> {
    inner: R,
    bytes: u64,
    last: u8,
    bound: Bound,
}

impl<R> BoundedRead<R> {
    fn new(inner: R, bound: Bound) -> Self {
        Self {
            inner,
            bytes: 0,
            last: b'\n',
            bound,
        }
    }
}

impl<R: Read> Read for BoundedRead<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.bytes - self.bound.record_start.get() > MAX_LINE_BYTES as u64 {
            self.bound.exceeded.set(true);
            return Err(io::Error::other("record too long"));
        }
        let mut read = self.inner.read(buffer)?;
        if read == 0 && self.last != b'\n' && !buffer.is_empty() {
            buffer[0] = b'\n';
            read = 1;
        }
        self.bound.ended.set(read == 0);
        self.bytes += read as u64;
        if let Some(&last) = buffer[..read].last() {
            self.last = last;
        }
        Ok(read)
    }
}
