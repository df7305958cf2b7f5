//! Whole runs of `slmrec-distill` that need no training: help, settings, errors.

use std::path::Path;
use std::process::{Command, Output};

fn run(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_slmrec-distill"))
        .args(arguments)
        .current_dir(folder)
        .env("SLMREC_CACHE", folder.join("cache"))
        .output()
        .expect("the program starts")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

fn refused(folder: &Path, arguments: &[&str]) -> String {
    let output = run(folder, arguments);
    let said = String::from_utf8(output.stderr.clone()).expect("UTF-8");
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
    assert!(
        output.stdout.is_empty(),
        "{arguments:?}: stdout is for data"
    );
    said
}

#[test]
fn every_command_has_an_example() {
    let dir = tempfile::tempdir().expect("temporary folder");
    for command in [
        "prepare",
        "pretrain",
        "teach",
        "distill",
        "cold",
        "evaluate",
        "compare",
        "seeds",
        "report",
        "export",
        "run",
        "fetch",
        "plan",
        "verify-resume",
        "settings",
        "completions",
    ] {
        let help = stdout(&run(dir.path(), &[command, "--help"]));
        assert!(help.contains("Example"), "{command}: {help}");
        assert!(
            help.contains(&format!("slmrec-distill {command}")),
            "{command}: {help}"
        );
    }
}

#[test]
fn the_defaults_are_what_the_snapshot_says() {
    let dir = tempfile::tempdir().expect("temporary folder");
    insta::assert_snapshot!(stdout(&run(dir.path(), &["settings"])));
}

#[test]
fn printed_settings_are_a_settings_file() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let printed = stdout(&run(dir.path(), &["settings", "--set", "distill.layers=2"]));
    std::fs::write(dir.path().join("p.toml"), &printed).expect("file");
    let again = stdout(&run(dir.path(), &["settings", "--config", "p.toml"]));
    assert_eq!(again, printed);
    assert!(printed.contains("layers = 2"));
    let sampled = "pretrain.train.catalog_loss={sampled={negatives=7}}";
    let printed = stdout(&run(dir.path(), &["settings", "--set", sampled]));
    std::fs::write(dir.path().join("p.toml"), &printed).expect("file");
    let again = stdout(&run(dir.path(), &["settings", "--config", "p.toml"]));
    assert_eq!(again, printed);
    assert!(printed.contains("negatives = 7"));
}

#[test]
fn what_is_wrong_is_said_with_a_hint() {
    let dir = tempfile::tempdir().expect("temporary folder");
    std::fs::write(dir.path().join("empty.csv"), "").expect("file");
    std::fs::write(dir.path().join("bad.csv"), "user,item,time\nu,i,noon\n").expect("file");
    std::fs::write(dir.path().join("columns.csv"), "a,b\n1,2\n").expect("file");
    std::fs::write(dir.path().join("bad.toml"), "[distill]\nlayer = 3\n").expect("file");
    std::fs::write(dir.path().join("not.toml"), "= =").expect("file");
    let cases: [(&[&str], &[&str]); 17] = [
        (&["prepare"], &["prepare needs a file", "hint:"]),
        (&["prepare", "nowhere.csv"], &["nowhere.csv"]),
        (&["prepare", "empty.csv"], &["empty.csv"]),
        (&["prepare", "bad.csv"], &["bad.csv", "noon"]),
        (&["prepare", "columns.csv"], &["columns.csv"]),
        (
            &["prepare", "ml-100k"],
            &["ml-100k", "hint: slmrec-distill fetch ml-100k"],
        ),
        (
            &["pretrain"],
            &["dataset", "hint: run `slmrec-distill prepare`"],
        ),
        (&["teach"], &["teach needs a pretrained model", "hint:"]),
        (
            &["export", "--int8"],
            &["student", "hint: run `slmrec-distill distill`"],
        ),
        (
            &["run", "bad.toml"],
            &["bad.toml", "unknown field `layer`", "hint:"],
        ),
        (&["run", "not.toml"], &["not.toml", "TOML"]),
        (&["fetch", "ml-1m"], &["ml-1m", "ml-100k, smollm2-135m"]),
        (
            &["report"],
            &[
                "slmrec-work",
                "found none",
                "hint: run `slmrec-distill prepare",
            ],
        ),
        (
            &["compare", "nowhere", "elsewhere"],
            &["nowhere", "expected", "hint: run `slmrec-distill evaluate`"],
        ),
        (
            &["compare", "bad.toml", "bad.toml"],
            &["bad.toml", "expected the ranks of a system", "hint:"],
        ),
        (
            &["seeds", "nowhere", "elsewhere"],
            &["nowhere", "expected", "hint: run `slmrec-distill evaluate`"],
        ),
        (&["seeds", "slmrec-work"], &["2 values required", "RUN"]),
    ];
    for (arguments, parts) in cases {
        let said = refused(dir.path(), arguments);
        for part in parts {
            assert!(said.contains(part), "{arguments:?}: {part:?} in {said}");
        }
    }
}

#[cfg(not(feature = "cuda"))]
#[test]
fn a_device_that_is_not_there_is_an_error() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let said = refused(dir.path(), &["pretrain", "--device", "cuda"]);
    assert!(
        said.contains("--device cuda was asked for and cannot be used"),
        "{said}"
    );
}

#[test]
fn parts_of_the_teachers_states_are_asked_for_as_such() {
    let dir = tempfile::tempdir().expect("temporary folder");
    for (arguments, part) in [
        (&["teach", "--shard", "1/2"][..], "--cache-states"),
        (&["teach", "--check"], "--cache-states"),
        (&["teach", "--cache-states", "--layers", "8"], "--layers"),
        (
            &["teach", "--cache-states", "--check", "--force"],
            "--force",
        ),
        (
            &["teach", "--cache-states", "--shard", "0/2"],
            "expected i/n",
        ),
    ] {
        let said = refused(dir.path(), arguments);
        assert!(said.contains(part), "{arguments:?}: {said}");
    }
}

#[test]
fn json_lists_what_can_be_fetched() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let listed = stdout(&run(dir.path(), &["fetch", "--list", "--format", "json"]));
    let listed: serde_json::Value = serde_json::from_str(&listed).expect("JSON");
    assert!(listed.as_array().is_some_and(|list| list.len() >= 2));
}

#[test]
fn a_check_that_checks_nothing_is_refused() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let said = refused(dir.path(), &["verify-resume", "--kills", "0"]);
    assert!(said.contains("--kills"), "{said}");
    for part in ["0/3", "5/3", "x", "1/0"] {
        let said = refused(dir.path(), &["teach", "--cache-states", "--shard", part]);
        assert!(said.contains("--shard"), "{said}");
    }
}
