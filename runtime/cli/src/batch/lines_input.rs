//! JSON lines: a history a line, in the forms of a history file.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::Context;
use slmrec_core::history::parse_histories;

use super::{PART_ROWS, Question, User, WINDOW_ROWS};

/// Longest line that is read.
const MAX_LINE_BYTES: u64 = 16 << 20;
/// A window ends early when its lines have this many bytes.
const WINDOW_BYTES: usize = 16 << 20;

/// A file with a history a line; empty lines are passed over.
pub(crate) struct LinesInput {
    path: PathBuf,
    parts: Vec<Part>,
}

struct Part {
    /// Where its first line begins.
    offset: u64,
    /// Number of that line, counted from 1.
    first_line: u64,
    rows: u64,
}

impl LinesInput {
    /// Reads the file once to find where parts begin.
    ///
    /// # Errors
    /// A file that cannot be read; a line beyond [`MAX_LINE_BYTES`].
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        let mut lines = Lines::open(path, 0, 1)?;
        let mut parts: Vec<Part> = Vec::new();
        while let Some(line) = lines.next()? {
            match parts.last_mut() {
                Some(part) if part.rows < PART_ROWS as u64 => part.rows += 1,
                _ => parts.push(Part {
                    offset: line.offset,
                    first_line: line.number,
                    rows: 1,
                }),
            }
        }
        Ok(Self {
            path: path.to_owned(),
            parts,
        })
    }

    pub(super) fn part_rows(&self) -> Vec<u64> {
        self.parts.iter().map(|part| part.rows).collect()
    }

    pub(super) fn read(
        &mut self,
        part: usize,
        on_window: &mut dyn FnMut(Vec<Question>) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let part = &self.parts[part];
        let mut lines = Lines::open(&self.path, part.offset, part.first_line)?;
        let (mut window, mut bytes) = (Vec::new(), 0);
        for _ in 0..part.rows {
            let line = lines
                .next()?
                .with_context(|| format!("{}: shorter than a moment ago", self.path.display()))?;
            bytes += line.bytes.len();
            let row = line.number;
            let question =
                question(&line).with_context(|| format!("{}: line {row}", self.path.display()))?;
            window.push(question);
            if window.len() == WINDOW_ROWS || bytes >= WINDOW_BYTES {
                on_window(std::mem::take(&mut window))?;
                bytes = 0;
            }
        }
        match window.is_empty() {
            true => Ok(()),
            false => on_window(window),
        }
    }
}

fn question(line: &Line) -> anyhow::Result<Question> {
    let mut histories = parse_histories(&line.bytes)?;
    anyhow::ensure!(
        histories.len() == 1,
        "expected one history, found {}",
        histories.len()
    );
    let history = histories.swap_remove(0);
    Ok(Question {
        row: line.number,
        user: history.user.clone().map_or(User::Nobody, User::Text),
        history,
    })
}

/// Lines that are not empty.
struct Lines {
    path: PathBuf,
    file: BufReader<File>,
    offset: u64,
    /// Of the next line, counted from 1.
    number: u64,
}

struct Line {
    offset: u64,
    number: u64,
    bytes: Vec<u8>,
}

impl Lines {
    fn open(path: &Path, offset: u64, number: u64) -> anyhow::Result<Self> {
        let opened = File::open(path).and_then(|mut file| {
            file.seek(SeekFrom::Start(offset))?;
            Ok(BufReader::new(file))
        });
        Ok(Self {
            path: path.to_owned(),
            file: opened.with_context(|| path.display().to_string())?,
            offset,
            number,
        })
    }

    fn next(&mut self) -> anyhow::Result<Option<Line>> {
        loop {
            let mut bytes = Vec::new();
            let mut limited = (&mut self.file).take(MAX_LINE_BYTES + 1);
            let read = limited
                .read_until(b'\n', &mut bytes)
                .with_context(|| self.path.display().to_string())? as u64;
            let (offset, number) = (self.offset, self.number);
            anyhow::ensure!(
                read <= MAX_LINE_BYTES,
                "{}: line {number}: expected at most {MAX_LINE_BYTES} bytes, found more",
                self.path.display()
            );
            if read == 0 {
                return Ok(None);
            }
            self.offset += read;
            self.number += 1;
            if !bytes.trim_ascii().is_empty() {
                return Ok(Some(Line {
                    offset,
                    number,
                    bytes,
                }));
            }
        }
    }
}
