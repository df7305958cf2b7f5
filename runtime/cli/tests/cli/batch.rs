//! `slmrec-run batch`: equal to single runs, whole after kills, and hostile files.

mod files;
mod hostile;
mod resume;

use serde_json::Value;

use crate::fixture::{bare, failure, fixture, stdout, with_bundle};
use files::{Row, read, write};

/// Runs a batch and gives what it wrote.
fn batch(bundle: &str, input: &str, output: &str, arguments: &[&str]) -> Vec<Row> {
    let (input, output) = (fixture().path(input), fixture().path(output));
    let mut command = with_bundle(bundle);
    command
        .arg("batch")
        .arg("--input")
        .arg(&input)
        .arg("--output")
        .arg(&output);
    command.args(arguments).assert().success().stdout("");
    assert!(!output.with_extension("parquet.parts").exists());
    read(&output)
}

/// Histories of lengths beyond the longest, with unknown items among them.
fn histories(users: usize) -> Vec<Row> {
    let row = |user: usize| {
        let item = |n: usize| match (user + n) % 7 {
            6 if n > 0 => format!("gone-{n}"),
            _ => format!("item-{}", 1 + (user * 5 + n * n + 3 * n) % 30),
        };
        Row {
            user: Value::from(format!("user {user}")),
            items: (0..1 + user % 9).map(item).collect(),
            ..Row::default()
        }
    };
    (0..users).map(row).collect()
}

#[test]
fn gives_what_single_runs_give() {
    let rows = histories(40);
    write(&fixture().path("equal.parquet"), &rows, 13);
    let document: Vec<Value> = (rows.iter())
        .map(|row| serde_json::json!({ "user": row.user, "history": row.items }))
        .collect();
    let history = fixture().history("equal.json", &Value::from(document).to_string());
    for bundle in ["fp32", "int8"] {
        for arguments in [
            &["-k", "4"][..],
            &[
                "-k",
                "29",
                "--block",
                "item-3",
                "--block",
                "nothing",
                "--threads",
                "3",
            ],
            &["--include-seen", "--allow", "item-1", "--allow", "item-2"],
            &[
                "--category",
                " third ",
                "--category",
                "nothing",
                "--block-category",
                "even",
            ],
            &["--category", "nothing"],
        ] {
            let found = batch(bundle, "equal.parquet", "equal-out.parquet", arguments);
            let single: Vec<&str> = (arguments.iter().copied())
                .filter(|word| !["--threads", "3"].contains(word))
                .collect();
            let mut command = with_bundle(bundle);
            let command = command
                .arg(&history)
                .args(single)
                .args(["--format", "json"]);
            let report: Value = serde_json::from_str(&stdout(command)).expect("JSON");
            let results = report["results"].as_array().expect("results");
            assert_eq!(found.len(), results.len());
            for (found, expected) in found.iter().zip(results) {
                assert_eq!(*found, Row::of(expected));
            }
        }
    }
}

#[test]
fn json_lines_and_parquet_say_the_same() {
    let rows = histories(30);
    let lines: String = (rows.iter())
        .map(|row| {
            format!(
                "{}\n\n",
                serde_json::json!({ "user": row.user, "history": row.items })
            )
        })
        .collect();
    fixture().history("same.jsonl", &lines);
    write(&fixture().path("same.parquet"), &rows, 100);
    let parquet = batch("fp32", "same.parquet", "same-1.parquet", &[]);
    for (input, output) in [
        ("same.jsonl", "same-2.parquet"),
        ("same.jsonl", "same-3.jsonl"),
        ("same.parquet", "same-4.ndjson"),
    ] {
        assert_eq!(
            batch("fp32", input, output, &[]),
            parquet,
            "{input} {output}"
        );
    }
}

#[test]
fn users_may_be_integers_or_missing_and_times_order() {
    let of = |user: Value, items: &[&str], times: Option<&[i64]>| Row {
        user,
        items: items.iter().map(|id| (*id).to_owned()).collect(),
        times: times.map(<[i64]>::to_vec),
        ..Row::default()
    };
    let rows = [
        of(7.into(), &["item-8", "item-3"], Some(&[2, 1])),
        of(Value::Null, &["item-3", "item-8"], None),
    ];
    write(&fixture().path("timed.parquet"), &rows, 10);
    let found = batch("fp32", "timed.parquet", "timed-out.parquet", &["-k", "3"]);
    assert_eq!((&found[0].user, &found[1].user), (&7.into(), &Value::Null));
    assert_eq!(found[0].items, found[1].items);
    assert_eq!(found[0].scores, found[1].scores);
    let found = batch("fp32", "timed.parquet", "timed-out.jsonl", &["-k", "3"]);
    assert_eq!(found[0].user, 7);
}

#[test]
fn a_history_of_nothing_known_gets_an_empty_list() {
    let row = |items: &[&str]| Row {
        items: items.iter().map(|id| (*id).to_owned()).collect(),
        ..Row::default()
    };
    write(
        &fixture().path("unknown.parquet"),
        &[
            row(&[]),
            row(&["gone", "gone", "lost"]),
            row(&["item-3", "gone"]),
        ],
        10,
    );
    let found = batch(
        "fp32",
        "unknown.parquet",
        "unknown-out.parquet",
        &["-k", "5"],
    );
    let counts: Vec<_> = (found.iter())
        .map(|r| (r.items.len(), r.shortfall, r.unknown))
        .collect();
    assert_eq!(counts, [(0, 5, 0), (0, 5, 2), (5, 0, 1)]);
    let mut command = with_bundle("fp32");
    command
        .arg("batch")
        .arg("--input")
        .arg(fixture().path("unknown.parquet"));
    command
        .arg("--output")
        .arg(fixture().path("unknown-out.jsonl"));
    let said = command.assert().success().get_output().stderr.clone();
    let said = String::from_utf8(said).expect("UTF-8");
    assert!(
        said.contains("2 of whose history nothing is known"),
        "{said}"
    );
    assert!(
        said.contains("1 with items that the catalog does not have"),
        "{said}"
    );
}

#[test]
fn an_empty_file_gives_an_empty_file() {
    write(&fixture().path("empty.parquet"), &[], 10);
    assert_eq!(batch("fp32", "empty.parquet", "empty-out.parquet", &[]), []);
    fixture().history("empty.jsonl", "\n");
    assert_eq!(batch("fp32", "empty.jsonl", "empty-out.jsonl", &[]), []);
}

#[test]
fn help_without_a_bundle() {
    let help = stdout(bare().args(["batch", "--help"]));
    assert!(help.contains("goes on with the same command"), "{help}");
    let talk = failure(bare().arg("batch"), 1);
    assert!(talk.contains("--input"), "{talk}");
}
