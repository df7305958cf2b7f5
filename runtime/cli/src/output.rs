//! Data on stdout, talk on stderr, tables.

use std::io::{self, Write};
use std::path::Path;

use anyhow::Context;
use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets};
use serde::Serialize;

use crate::failure::Internal;

/// Writes data to stdout. A reader that has gone away has had what it wanted.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => {
            Err(Internal(format!("standard output: {e}")).into())
        }
        _ => Ok(()),
    }
}

/// Writes data to a file, whole or not at all, or to stdout.
pub(crate) fn print_or_save(text: &str, file: Option<&Path>) -> anyhow::Result<()> {
    match file {
        Some(path) => slmrec_core::atomic::write(path, text.as_bytes())
            .with_context(|| path.display().to_string()),
        None => print(text),
    }
}

/// Says something on stderr; it is talk, so nothing depends on its arrival.
pub(crate) fn say(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Pretty JSON with a final newline.
pub(crate) fn json(value: &impl Serialize) -> anyhow::Result<String> {
    let mut text = serde_json::to_string_pretty(value)
        .map_err(|e| Internal(format!("the result cannot be written as JSON: {e}")))?;
    text.push('\n');
    Ok(text)
}

/// An empty table in the house style.
pub(crate) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::UTF8_FULL_CONDENSED)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(header.iter().map(Cell::new));
    table
}

/// A cell that is aligned like a number.
pub(crate) fn number(text: impl ToString) -> Cell {
    Cell::new(text.to_string()).set_alignment(CellAlignment::Right)
}

/// Text from a bundle, safe for a terminal: control characters do not get through.
pub(crate) fn printable(text: &str) -> String {
    let visible = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    text.chars().map(visible).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn escape_sequences_do_not_reach_the_terminal() {
        assert_eq!(super::printable("a\u{1b}[2Jb\n"), "a\u{fffd}[2Jb\u{fffd}");
    }
}
