//! Text files line by line, with a bound on the length and a fallback for old encodings.

use std::borrow::Cow;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use super::DataError;
use super::error::{Fault, io_error};
use super::rows::Progress;

/// Longest line (or quoted record) that is read, in bytes. Real ones with a whole review in them
/// stay far below; a longer one means that the file is not what it seems.
pub(super) const MAX_LINE_BYTES: usize = 8 << 20;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A text file, one line at a time.
pub(super) struct Lines<'p> {
    path: PathBuf,
    reader: BufReader<File>,
    buffer: Vec<u8>,
    /// Number of the line in `buffer`, from 1.
    number: u64,
    bytes: u64,
    progress: &'p Progress<'p>,
}

impl<'p> Lines<'p> {
    pub(super) fn open(path: &Path, progress: &'p Progress<'p>) -> Result<Self, DataError> {
        let file = File::open(path).map_err(|e| io_error(path, e))?;
        Ok(Self {
            path: path.to_owned(),
            reader: BufReader::with_capacity(1 << 16, file),
            buffer: Vec::new(),
            number: 0,
            bytes: 0,
            progress,
        })
    }

    /// The next line that is not blank, without its end, and its number.
    pub(super) fn next_line(&mut self) -> Result<Option<(u64, &[u8])>, DataError> {
        loop {
            self.buffer.clear();
            let limit = MAX_LINE_BYTES as u64 + 1;
            let read = self
                .reader
                .by_ref()
                .take(limit)
                .read_until(b'\n', &mut self.buffer)
                .map_err(|e| io_error(&self.path, e))?;
            self.number += 1;
            self.bytes += read as u64;
            self.progress.at(self.bytes);
            if read == 0 {
                return Ok(None);
            }
            if read > MAX_LINE_BYTES {
                return Err(DataError::LineTooLong {
                    path: self.path.clone(),
                    line: self.number,
                    limit: MAX_LINE_BYTES,
                });
            }
            if !trim(self.number, &self.buffer).is_empty() {
                return Ok(Some((self.number, trim(self.number, &self.buffer))));
            }
        }
    }
}

/// Without the line's end, white space around it and a byte order mark. Tabs stay: they may
/// stand around empty fields.
fn trim(number: u64, line: &[u8]) -> &[u8] {
    let line = match line.strip_prefix(BYTE_ORDER_MARK) {
        Some(rest) if number == 1 => rest,
        _ => line,
    };
    let mut line = line.strip_suffix(b"\n").unwrap_or(line);
    while let [rest @ .., b' ' | b'\r'] = line {
        line = rest;
    }
    while let [b' ', rest @ ..] = line {
        line = rest;
    }
    line
}

/// The line as text; Latin-1 where that is allowed and UTF-8 is not what it is (the second value
/// tells).
pub(super) fn decode(line: &[u8], latin1: bool) -> Result<(Cow<'_, str>, bool), Fault> {
    match std::str::from_utf8(line) {
        Ok(text) => Ok((Cow::Borrowed(text), false)),
        // Latin-1 is the first 256 characters of Unicode.
        Err(_) if latin1 => Ok((
            Cow::Owned(line.iter().map(|&b| char::from(b)).collect()),
            true,
        )),
        Err(e) => Err(not_utf8(line, e.valid_up_to())),
    }
}

/// The fault of a byte string that is not UTF-8 from `at` on.
pub(super) fn not_utf8(bytes: &[u8], at: usize) -> Fault {
    let found = format!("the byte 0x{:02x} at place {}", bytes[at], at + 1);
    Fault::new("UTF-8 text", found).hint("convert the file, for example: iconv -f latin1 -t utf8")
}
