//! One user a line: item ids separated by spaces, oldest first.

use std::path::Path;

use super::layout::{Layout, Request};
use super::lines::{self, Lines};
use super::rows::{Cell, OnRow, Progress, ReadStats};
use super::{DataError, Format};

/// Lines that must agree before a first column of users is believed.
const USER_LINES: usize = 10;

/// Whether the whole lines of a file's beginning hold nothing but integers.
pub(super) fn looks_like(head: &[u8]) -> bool {
    whole_lines(head).iter().all(|line| {
        line.split_whitespace()
            .all(|id| id.bytes().all(|b| b.is_ascii_digit()))
    })
}

/// Columns are `line, item`, or `user, item` where the first id of each line is the user's: because
/// settings say so (`user_column` 1), or because these ids count 1, 2, 3, ... from line to line.
pub(super) fn layout(head: &[u8], request: &Request<'_>) -> Result<Layout, DataError> {
    let with_user = match request.user_column {
        Some("1") => true,
        Some(other) => {
            return Err(DataError::Setting {
                setting: "user_column",
                expected: "1 (the first id of a line is the user's) or nothing".into(),
                found: format!("{other:?}"),
            });
        }
        None => counts_users(head),
    };
    let user = if with_user { "user" } else { "line" };
    let mut layout = Layout::new(Format::Sequences, vec![user.into(), "item".into()]);
    layout.note = Some(match (with_user, request.user_column) {
        (true, None) => "the first ids of the lines count 1, 2, 3, ...: taken for the users".into(),
        (true, Some(_)) => "the first id of a line is the user's".into(),
        (false, _) => "the user's id is the line number".into(),
    });
    Ok(layout)
}

fn counts_users(head: &[u8]) -> bool {
    let lines = whole_lines(head);
    let counts = |(at, line): (usize, &String)| {
        let mut ids = line.split_whitespace();
        ids.next().and_then(|id| id.parse().ok()) == Some(at + 1) && ids.next().is_some()
    };
    lines.len() >= USER_LINES && lines.iter().enumerate().all(counts)
}

/// The lines of a file's beginning, without the last one unless it ends.
fn whole_lines(head: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(head);
    let end = text.rfind('\n').unwrap_or(text.len());
    text[..end].lines().map(str::to_owned).collect()
}

/// Reads a user and an item for each id of each line.
pub(super) fn read(
    path: &Path,
    layout: &Layout,
    progress: &Progress<'_>,
    on_row: &mut OnRow<'_>,
) -> Result<ReadStats, DataError> {
    let with_user = layout.columns[0] == "user";
    let mut source = Lines::open(path, progress)?;
    let mut stats = ReadStats::default();
    while let Some((number, line)) = source.next_line()? {
        let text = match lines::decode(line, false) {
            Ok((text, _)) => text,
            Err(fault) => {
                stats.rows += 1;
                on_row(number, Err(fault))?;
                continue;
            }
        };
        let line_number = number.to_string();
        let mut ids = text.split_whitespace();
        let user = match with_user {
            true => ids.next().unwrap_or_default(),
            false => &line_number,
        };
        for item in ids {
            stats.rows += 1;
            on_row(number, Ok(&[Cell::Text(user), Cell::Text(item)]))?;
        }
    }
    Ok(stats)
}
