//! Files that are no histories: the message names file and row, nothing is written.

use std::path::Path;
use std::sync::Arc;

use arrow_array::builder::{Int64Builder, ListBuilder, StringBuilder};
use arrow_array::{ArrayRef, Float64Array, StringArray, UInt64Array};

use super::files::{Row, write, write_columns};
use super::histories;
use crate::fixture::{failure, fixture, with_bundle};

/// What is said about an input, without the lines about the engine.
fn refused(input: &Path) -> String {
    let output = fixture().path("hostile-out.parquet");
    let mut command = with_bundle("fp32");
    command
        .arg("batch")
        .arg("--input")
        .arg(input)
        .arg("--output")
        .arg(&output);
    // The parts of one input are no parts of another.
    let text = failure(command.arg("--restart"), 1);
    assert!(!output.exists());
    let lines = text.lines().filter(|line| !line.starts_with("engine: "));
    lines.collect::<Vec<_>>().join("\n")
}

fn strings(lists: &[Option<&[Option<&str>]>]) -> ArrayRef {
    let mut column = ListBuilder::new(StringBuilder::new());
    for list in lists {
        column.append_option(list.map(|list| list.iter().copied()));
    }
    Arc::new(column.finish())
}

fn integers(lists: &[Option<&[Option<i64>]>]) -> ArrayRef {
    let mut column = ListBuilder::new(Int64Builder::new());
    for list in lists {
        column.append_option(list.map(|list| list.iter().copied()));
    }
    Arc::new(column.finish())
}

const GOOD: Option<&[Option<&str>]> = Some(&[Some("item-3"), Some("item-8")]);

fn refused_columns<'a>(columns: impl IntoIterator<Item = (&'a str, ArrayRef, bool)>) -> String {
    let path = fixture().path("columns.parquet");
    write_columns(&path, columns, 100);
    refused(&path)
}

#[test]
fn columns_that_are_missing_or_of_another_type() {
    let text: ArrayRef = Arc::new(StringArray::from(vec!["item-3 item-8"]));
    let number: ArrayRef = Arc::new(Float64Array::from(vec![1.0]));
    for (name, column, part) in [
        (
            "items",
            strings(&[GOOD]),
            "expected a column \"history\", found [\"items\"]",
        ),
        (
            "history",
            text,
            "column \"history\": expected a list of strings or integers, found",
        ),
    ] {
        let said = refused_columns([(name, column, true)]);
        assert!(said.contains(part), "{said}");
    }
    let said = refused_columns([("history", strings(&[GOOD]), true), ("user", number, true)]);
    assert!(
        said.contains("column \"user\": expected strings or integers"),
        "{said}"
    );
    let said = refused_columns([
        ("history", strings(&[GOOD]), true),
        ("times", strings(&[GOOD]), true),
    ]);
    assert!(
        said.contains("column \"times\": expected a list of integers"),
        "{said}"
    );
}

#[test]
fn nulls_name_their_row() {
    let said = refused_columns([("history", strings(&[GOOD, None]), true)]);
    assert!(
        said.contains("columns.parquet: row 2: history: expected a list, found null"),
        "{said}"
    );
    let with_null: &[Option<&str>] = &[Some("item-3"), None];
    let said = refused_columns([("history", strings(&[GOOD, GOOD, Some(with_null)]), true)]);
    assert!(
        said.contains("row 3: history[1]: expected an id, found null"),
        "{said}"
    );
    let times: &[Option<i64>] = &[Some(1), None];
    let said = refused_columns([
        ("history", strings(&[GOOD]), true),
        ("times", integers(&[Some(times)]), true),
    ]);
    assert!(
        said.contains("row 1: times[1]: expected a time, found null"),
        "{said}"
    );
    let times: &[Option<i64>] = &[Some(1)];
    let said = refused_columns([
        ("history", strings(&[GOOD]), true),
        ("times", integers(&[Some(times)]), true),
    ]);
    assert!(said.contains("row 1: times: expected 2 values"), "{said}");
    let users: ArrayRef = Arc::new(UInt64Array::from(vec![1, u64::MAX]));
    let said = refused_columns([
        ("history", strings(&[GOOD, GOOD]), true),
        ("user", users, true),
    ]);
    assert!(
        said.contains("row 2: user: expected an integer below 2^63"),
        "{said}"
    );
}

#[test]
fn huge_ids_are_ids_that_nobody_knows() {
    let huge = "x".repeat(8 << 20);
    let row = |items: Vec<String>| Row {
        items,
        ..Row::default()
    };
    let path = fixture().path("huge.parquet");
    write(&path, &[row(vec![huge]), row(vec!["item-3".into()])], 1);
    let found = super::batch("fp32", "huge.parquet", "huge-out.parquet", &["-k", "2"]);
    assert_eq!((found[0].unknown, found[1].items.len()), (1, 2));
}

#[test]
fn files_that_are_no_parquet() {
    let whole = fixture().path("whole.parquet");
    write(&whole, &histories(200), 50);
    let bytes = std::fs::read(&whole).expect("bytes");
    let path = fixture().path("broken.parquet");
    for broken in [
        &b""[..],
        b"PAR1",
        b"no Parquet at all",
        &bytes[..bytes.len() / 2],
    ] {
        std::fs::write(&path, broken).expect("writes");
        let said = refused(&path);
        assert!(
            said.contains("broken.parquet: expected a readable Parquet file"),
            "{said}"
        );
    }
    // Whatever a flipped byte does, it is an exit code and no panic.
    for at in (0..bytes.len()).step_by(bytes.len() / 40) {
        let mut flipped = bytes.clone();
        flipped[at] ^= 0x55;
        std::fs::write(&path, flipped).expect("writes");
        let output = fixture().path("flipped-out.jsonl");
        let mut command = with_bundle("fp32");
        command
            .arg("batch")
            .arg("--input")
            .arg(&path)
            .arg("--output")
            .arg(&output);
        let ended = command.arg("--restart").output().expect("runs");
        let said = String::from_utf8_lossy(&ended.stderr);
        assert!(
            matches!(ended.status.code(), Some(0 | 1)),
            "byte {at}: {said}"
        );
    }
}

#[test]
fn lines_that_are_no_histories() {
    for (lines, part) in [
        ("[\"item-3\"]\n{\n", "lines.jsonl: line 2: not valid JSON"),
        (
            "[\"item-3\"]\n\n{\"items\": []}\n",
            "line 3: document: expected an object with",
        ),
        (
            "[{\"history\": []}, {\"history\": []}]\n",
            "line 1: expected one history, found 2",
        ),
        (
            "{\"history\": [\"item-3\", null]}\n",
            "line 1: .history[1]: expected",
        ),
        (
            "\"item-3\"",
            "line 1: document: expected a list or an object",
        ),
    ] {
        let path = fixture().history("lines.jsonl", lines);
        let said = refused(&path);
        assert!(said.contains(part), "{said}");
    }
    let long = format!("[\"{}\"]\n", "x".repeat(17 << 20));
    let path = fixture().history("lines.jsonl", &long);
    let said = refused(&path);
    assert!(
        said.contains("line 1: expected at most 16777216 bytes, found more"),
        "{said}"
    );
}

#[test]
fn names_and_places() {
    let input = fixture().path("places.parquet");
    write(&input, &histories(1), 1);
    let run = |input: &Path, output: &Path| {
        let mut command = with_bundle("fp32");
        command
            .arg("batch")
            .arg("--input")
            .arg(input)
            .arg("--output")
            .arg(output);
        failure(&mut command, 1)
    };
    let said = run(&input, &input);
    assert!(said.contains("places.parquet: is the input, too"), "{said}");
    let said = run(&input, &fixture().path("out.txt"));
    assert!(
        said.contains("out.txt: expected a name that ends in .parquet, .jsonl"),
        "{said}"
    );
    let said = run(
        &fixture().path("none.parquet"),
        &fixture().path("out.parquet"),
    );
    assert!(said.contains("none.parquet"), "{said}");
    let said = run(&input, &fixture().path("no/such/folder.parquet"));
    assert!(said.contains("folder.parquet"), "{said}");
}
