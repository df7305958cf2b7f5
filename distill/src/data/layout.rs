//! What a file looks like: its format, its separator and the names of its columns.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use super::categories::GENRE_FLAGS;
use super::error::{excerpt, io_error};
use super::{DataError, Format, delimited, json_lines, parquet, sequence_lines};

/// How much of a file is looked at to recognise it.
const PROBE_BYTES: u64 = 64 << 10;

/// What stands between two fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Separator {
    Byte(u8),
    /// `::`, as in MovieLens `ratings.dat`.
    DoubleColon,
}

impl Separator {
    pub(super) fn split<'t>(self, line: &'t str) -> Box<dyn Iterator<Item = &'t str> + 't> {
        match self {
            Self::Byte(byte) => Box::new(line.split(char::from(byte))),
            Self::DoubleColon => Box::new(line.split("::")),
        }
    }

    pub(super) fn name(self) -> String {
        match self {
            Self::Byte(b'\t') => "a tab".into(),
            Self::Byte(byte) => format!("{:?}", char::from(byte)),
            Self::DoubleColon => "\"::\"".into(),
        }
    }
}

/// What the rows of a file are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Interactions,
    Items,
}

/// What is known about a file before it is looked at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request<'s> {
    pub(super) purpose: Purpose,
    pub(super) format: Format,
    pub(super) header: Option<bool>,
    /// The user (or none) and item columns as settings name them.
    pub(super) user_column: Option<&'s str>,
    pub(super) item_column: Option<&'s str>,
}

/// How a file is to be read.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Layout {
    /// Never [`Format::Auto`].
    pub(super) format: Format,
    pub(super) separator: Separator,
    /// Whether the first line is a header.
    pub(super) header: bool,
    pub(super) columns: Vec<String>,
    /// Whether lines that are not UTF-8 are Latin-1 (the MovieLens files of the nineties).
    pub(super) latin1: bool,
    /// What was recognised, for the report.
    pub(super) note: Option<String>,
}

impl Layout {
    pub(super) fn new(format: Format, columns: Vec<String>) -> Self {
        Self {
            format,
            separator: Separator::Byte(b' '),
            header: false,
            columns,
            latin1: false,
            note: None,
        }
    }

    fn separated(format: Format, separator: Separator, header: bool, columns: Vec<String>) -> Self {
        Self {
            separator,
            header,
            latin1: format == Format::MovieLens,
            ..Self::new(format, columns)
        }
    }
}

/// The beginning of a file.
struct Probe {
    /// The first bytes, without a byte order mark.
    head: Vec<u8>,
    /// The first line that is not blank, where it ends within the probe.
    first_line: String,
    extension: String,
}

/// Looks at a file.
///
/// # Errors
/// Folders, empty files, compressed or binary files, forms that are not known.
pub(super) fn detect(path: &Path, request: &Request<'_>) -> Result<Layout, DataError> {
    let probe = probe(path)?;
    refuse_containers(path, &probe.head)?;
    let format = match request.format {
        Format::Auto => guess_format(path, &probe, request)?,
        format => format,
    };
    match format {
        Format::Parquet => parquet::layout(path),
        Format::JsonLines => json_lines::layout(path, &probe.first_line),
        Format::Sequences => sequence_lines::layout(&probe.head, request),
        Format::MovieLens => movielens(path, &probe, request),
        Format::RecBole => recbole(path, &probe),
        Format::Tsv => Ok(headed(Format::Tsv, Separator::Byte(b'\t'), &probe, request)),
        Format::Csv | Format::Auto => csv(path, &probe, request),
    }
}

fn probe(path: &Path) -> Result<Probe, DataError> {
    let kind = fs::metadata(path).map_err(|e| io_error(path, e))?;
    if !kind.is_file() {
        return Err(DataError::NotAFile {
            path: path.to_owned(),
            found: if kind.is_dir() {
                "a folder"
            } else {
                "something else"
            },
        });
    }
    let mut head = Vec::new();
    File::open(path)
        .and_then(|file| file.take(PROBE_BYTES).read_to_end(&mut head))
        .map_err(|e| io_error(path, e))?;
    if head.starts_with(b"\xef\xbb\xbf") {
        head.drain(..3);
    }
    let text = String::from_utf8_lossy(&head);
    let first_line = text.lines().find(|line| !line.trim().is_empty());
    let Some(first_line) = first_line.map(|line| line.trim_matches(' ').to_owned()) else {
        return Err(DataError::Empty {
            path: path.to_owned(),
        });
    };
    let extension = path.extension().unwrap_or_default().to_string_lossy();
    Ok(Probe {
        first_line,
        extension: extension.to_ascii_lowercase(),
        head,
    })
}

/// Files that are text or Parquet only once something has been done to them.
fn refuse_containers(path: &Path, head: &[u8]) -> Result<(), DataError> {
    let known: [(&[u8], &str, &str); 7] = [
        (b"\x1f\x8b", "gzip data", "unpack it with gunzip"),
        (b"PK\x03\x04", "a ZIP archive", "unpack it"),
        (
            b"\x28\xb5\x2f\xfd",
            "Zstandard data",
            "unpack it with unzstd",
        ),
        (b"BZh", "bzip2 data", "unpack it with bunzip2"),
        (b"\xfd7zXZ", "xz data", "unpack it with unxz"),
        (
            b"\xff\xfe",
            "UTF-16 text",
            "convert it, for example: iconv -f utf-16 -t utf-8",
        ),
        (
            b"\xfe\xff",
            "UTF-16 text",
            "convert it, for example: iconv -f utf-16 -t utf-8",
        ),
    ];
    match known.iter().find(|(magic, ..)| head.starts_with(magic)) {
        Some((_, found, hint)) => Err(format_error(path, "UTF-8 text or Parquet", *found, *hint)),
        None => Ok(()),
    }
}

fn guess_format(path: &Path, probe: &Probe, request: &Request<'_>) -> Result<Format, DataError> {
    let line = probe.first_line.as_str();
    let extension = probe.extension.as_str();
    if probe.head.starts_with(b"PAR1") || extension == "parquet" {
        return Ok(Format::Parquet);
    }
    if line.starts_with('{') {
        return Ok(Format::JsonLines);
    }
    if line.starts_with('[') {
        return Err(format_error(
            path,
            "one JSON object a line",
            "a JSON list",
            "write one object a line, for example: jq -c '.[]'",
        ));
    }
    if line.split("::").count() >= 3 || is_u_data(line) || is_u_item(line, request.purpose) {
        return Ok(Format::MovieLens);
    }
    if recbole_columns(line).is_some() {
        return Ok(Format::RecBole);
    }
    if line.contains('\t') || extension == "tsv" {
        return Ok(Format::Tsv);
    }
    if line.contains([',', ';', '|']) || extension == "csv" {
        return Ok(Format::Csv);
    }
    if request.purpose == Purpose::Interactions && sequence_lines::looks_like(&probe.head) {
        return Ok(Format::Sequences);
    }
    Err(format_error(
        path,
        "CSV, TSV, MovieLens, RecBole, JSON lines, Parquet, or lines of integer item ids",
        format!("a first line without a separator: {}", excerpt(line)),
        "name the format; ids separated by spaces that are not integers need the format sequences",
    ))
}

/// `user TAB item TAB rating TAB time`, as in MovieLens-100K's `u.data`.
fn is_u_data(line: &str) -> bool {
    let fields: Vec<&str> = line.split('\t').map(str::trim).collect();
    let [user, item, rating, time] = fields[..] else {
        return false;
    };
    let integer = |text: &str| text.parse::<u64>().ok();
    let rating = rating.parse::<f64>().unwrap_or(f64::NAN);
    // The size of the numbers tells rating and time from other columns.
    integer(user).is_some()
        && integer(item).is_some()
        && (0.0..=10.0).contains(&rating)
        && integer(time).is_some_and(|t| t >= 100_000_000)
}

/// `id|title|date||url|0|1|...`, as in MovieLens-100K's `u.item`.
fn is_u_item(line: &str, purpose: Purpose) -> bool {
    let fields: Vec<&str> = line.split('|').collect();
    purpose == Purpose::Items && fields.len() >= 19 && fields[0].parse::<u64>().is_ok()
}

fn movielens(path: &Path, probe: &Probe, request: &Request<'_>) -> Result<Layout, DataError> {
    let line = probe.first_line.as_str();
    let separator = if line.contains("::") {
        Separator::DoubleColon
    } else if is_u_item(line, request.purpose) {
        Separator::Byte(b'|')
    } else {
        Separator::Byte(b'\t')
    };
    let (needed, known): (usize, &[&str]) = match (request.purpose, separator) {
        (Purpose::Interactions, _) => (4, &["user_id", "item_id", "rating", "timestamp"]),
        (Purpose::Items, Separator::DoubleColon) => (2, &["item_id", "title", "genres"]),
        (Purpose::Items, _) => (2, &["item_id", "title"]),
    };
    let width = separator.split(line).count();
    if width < needed {
        return Err(format_error(
            path,
            format!(
                "{} separated by {}",
                known[..needed].join(", "),
                separator.name()
            ),
            format!("{width} fields in the first line: {}", excerpt(line)),
            "name another format",
        ));
    }
    let known = &known[..known.len().min(width)];
    let mut columns = positions(width);
    for (column, name) in columns.iter_mut().zip(known) {
        *column = (*name).to_owned();
    }
    if separator == Separator::Byte(b'|') && width == 5 + GENRE_FLAGS.len() {
        for (column, genre) in columns[5..].iter_mut().zip(GENRE_FLAGS) {
            *column = genre.to_owned();
        }
    }
    let mut layout = Layout::separated(Format::MovieLens, separator, false, columns);
    layout.note = Some(format!(
        "read as MovieLens' own form without a header: {} separated by {}",
        known.join(", "),
        separator.name()
    ));
    Ok(layout)
}

/// The names of `user_id:token TAB rating:float`, when every one has a type.
fn recbole_columns(line: &str) -> Option<Vec<String>> {
    let name = |field: &str| match field.trim().rsplit_once(':')? {
        (name, "token" | "float" | "token_seq" | "float_seq") => Some(name.to_owned()),
        _ => None,
    };
    line.split('\t').map(name).collect()
}

fn recbole(path: &Path, probe: &Probe) -> Result<Layout, DataError> {
    let columns = recbole_columns(&probe.first_line).ok_or_else(|| {
        format_error(
            path,
            "a header of typed columns separated by tabs, like user_id:token",
            excerpt(&probe.first_line),
            "name another format",
        )
    })?;
    if columns.iter().any(|name| name.ends_with("_id_list")) {
        return Err(format_error(
            path,
            "one interaction a line",
            "RecBole's sequential form with an item_id_list",
            "use the .inter file from which these examples were cut",
        ));
    }
    let tab = Separator::Byte(b'\t');
    Ok(Layout::separated(Format::RecBole, tab, true, columns))
}

fn csv(path: &Path, probe: &Probe, request: &Request<'_>) -> Result<Layout, DataError> {
    let line = probe.first_line.as_str();
    let count = |byte: u8| line.bytes().filter(|&b| b == byte).count();
    // The last of equals wins: a comma.
    let byte = [b'|', b';', b','].into_iter().max_by_key(|&b| count(b));
    let separator = Separator::Byte(byte.unwrap_or(b','));
    let mut layout = headed(Format::Csv, separator, probe, request);
    let Separator::Byte(byte) = separator else {
        return Ok(layout);
    };
    let mut record = csv::StringRecord::new();
    match delimited::csv_reader(byte, probe.head.as_slice()).read_record(&mut record) {
        Ok(_) if layout.header => {
            layout.columns = record.iter().map(|name| name.trim().to_owned()).collect();
        }
        Ok(_) => layout.columns = positions(record.len()),
        Err(_) => {
            return Err(format_error(
                path,
                "a first line of UTF-8 text",
                excerpt(line),
                "convert the file, for example: iconv -f latin1 -t utf8",
            ));
        }
    }
    Ok(layout)
}

/// A file with a header, unless settings say otherwise or name its columns by position.
fn headed(format: Format, separator: Separator, probe: &Probe, request: &Request<'_>) -> Layout {
    let names: Vec<String> = separator
        .split(&probe.first_line)
        .map(|name| name.trim().to_owned())
        .collect();
    let by_position = |column: Option<&str>| {
        column.is_some_and(|c| c.parse::<usize>().is_ok() && !names.iter().any(|name| name == c))
    };
    let positional = by_position(request.item_column)
        && (request.purpose == Purpose::Items || by_position(request.user_column));
    let header = request.header.unwrap_or(!positional);
    let columns = if header {
        names
    } else {
        positions(names.len())
    };
    Layout::separated(format, separator, header, columns)
}

fn positions(width: usize) -> Vec<String> {
    (1..=width).map(|at| at.to_string()).collect()
}

pub(super) fn format_error(
    path: &Path,
    expected: impl Into<String>,
    found: impl Into<String>,
    hint: impl Into<String>,
) -> DataError {
    DataError::Format {
        path: path.to_owned(),
        expected: expected.into(),
        found: found.into(),
        hint: hint.into(),
    }
}
