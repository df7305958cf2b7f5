//! The whole way on generated data, by the very commands that a person types: logs, SASRec,
//! teacher, student, bundle, recommendations, comparison; then again, to see it skipped.

mod support;

use std::fs;
use std::path::Path;

use serde_json::Value;
use support::{run, run_well, write_interactions, write_tiny_llama};

fn write_settings(folder: &Path, readout: &str) {
    let prompt = match readout {
        "response" => "[prompt]\nprefix = \"the history of a person :\"\nsuffix = \"next :\"\n",
        _ => "",
    };
    let targets = if readout == "response" { "last" } else { "all" };
    let text = format!(
        r#"
seed = 7
[prepare]
source = "ratings.csv"
[pretrain.model]
hidden_size = 32
num_attention_heads = 2
intermediate_size = 32
max_history = 12
dropout = 0.1
[pretrain.train]
epochs = 40
batch_size = 32
learning_rate = 0.005
[model]
readout = "{readout}"
max_history = 12
[teach]
base = "base"
layers = 4
[teach.train]
epochs = 10
patience = 10
batch_size = 16
learning_rate = 0.005
targets = "{targets}"
[distill]
layers = 2
[distill.objective]
blocks = 2
[distill.train]
epochs = 10
patience = 10
batch_size = 16
learning_rate = 0.005
targets = "{targets}"
{prompt}"#
    );
    fs::write(folder.join("pipeline.toml"), text).expect("settings");
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).expect("JSON on stdout")
}

#[test]
fn from_logs_to_recommendations() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let folder = dir.path();
    write_interactions(folder, 500);
    write_tiny_llama(&folder.join("base"));
    write_settings(folder, "item");

    run_well("slmrec-distill", folder, &["run", "pipeline.toml"]);
    assert!(folder.join("student.slmrec").is_file());
    let comparison = fs::read(folder.join("slmrec-work/evaluation/comparison.json"));
    let comparison: Value = serde_json::from_slice(&comparison.expect("written")).expect("JSON");
    let rows = comparison.to_string();
    for system in [
        "popularity",
        "Markov",
        "co-occurrence",
        "SASRec",
        "teacher",
        "int8",
    ] {
        assert!(rows.contains(system), "{system} is a row of the comparison");
    }

    recommends(folder);
    skips_what_is_up_to_date(folder);
    refuses_what_is_wrong(folder);
}

fn recommends(folder: &Path) {
    fs::write(
        folder.join("history.json"),
        r#"["m3", "m24", "no such film", "m51"]"#,
    )
    .expect("history");
    let found = json(&run_well(
        "slmrec-run",
        folder,
        &["history.json", "--format", "json"],
    ));
    assert_eq!(found["bundle"]["precision"], "int8");
    assert_eq!(found["engine"]["name"], "onnxruntime");
    let result = &found["results"][0];
    assert_eq!(result["unknown_items"], serde_json::json!(["no such film"]));
    assert_eq!(result["used_items"], 3);
    let list = result["recommendations"].as_array().expect("a list");
    assert_eq!(list.len(), 10);
    assert!(
        list[0]["title"]
            .as_str()
            .is_some_and(|t| t.contains("é (1999)"))
    );
    assert!(
        list.iter().all(|r| r["item"] != "m3"),
        "seen items are left out"
    );
    // 51 is nearly always followed by 51 * 7 + 3 = 0 (mod 60).
    let rank = list.iter().position(|r| r["item"] == "m0");
    assert!(
        rank.is_some_and(|r| r < 5),
        "the learned successor is near the top: {list:?}"
    );

    let table = run_well("slmrec-run", folder, &["history.json"]);
    assert!(table.contains("Film 0"), "{table}");
    run_well("slmrec-run", folder, &["verify"]);
    run_well("slmrec-run", folder, &["inspect"]);
}

fn skips_what_is_up_to_date(folder: &Path) {
    let second = run("slmrec-distill", folder, &["run", "pipeline.toml"]);
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(second.status.success(), "{said}");
    for stage in [
        "prepare", "pretrain", "teach", "ce-only", "distill", "export", "evaluate",
    ] {
        assert!(
            said.contains(&format!("{stage}: up to date")),
            "{stage}: {said}"
        );
    }
    // Another weight of a loss term concerns the student and what follows, nothing before it.
    let changed = [
        "run",
        "pipeline.toml",
        "--set",
        "distill.objective.lambda_ms=0.2",
    ];
    let third = run("slmrec-distill", folder, &changed);
    let said = String::from_utf8_lossy(&third.stderr).into_owned();
    assert!(third.status.success(), "{said}");
    for stage in ["prepare", "pretrain", "teach", "ce-only"] {
        assert!(
            said.contains(&format!("{stage}: up to date")),
            "{stage}: {said}"
        );
    }
    for stage in ["distill", "export", "evaluate"] {
        assert!(
            said.contains(&format!("{stage}: begins")),
            "{stage}: {said}"
        );
    }
}

fn refuses_what_is_wrong(folder: &Path) {
    let cases: [(&[&str], &str); 4] = [
        (
            &["distill", "--layers", "3", "--blocks", "2"],
            "do not divide into 2 blocks",
        ),
        (&["prepare", "nowhere.csv"], "nowhere.csv"),
        (
            &["teach", "--work-dir", "elsewhere", "--base", "base"],
            "hint: run `slmrec-distill prepare`",
        ),
        (
            &["run", "pipeline.toml", "--set", "distill.layer=3"],
            "unknown field",
        ),
    ];
    for (arguments, part) in cases {
        let output = run("slmrec-distill", folder, arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
        assert!(said.contains(part), "{arguments:?}: {said}");
    }
}

#[test]
fn the_papers_form_with_a_prompt() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let folder = dir.path();
    write_interactions(folder, 150);
    write_tiny_llama(&folder.join("base"));
    write_settings(folder, "response");
    let quick = [
        "--set",
        "teach.train.epochs=1",
        "--set",
        "distill.train.epochs=1",
    ];
    let line = [&["run", "pipeline.toml"][..], &quick].concat();
    run_well("slmrec-distill", folder, &line);
    let verified = run_well("slmrec-run", folder, &["verify", "--format", "json"]);
    assert!(!verified.is_empty());
    let inspected = run_well("slmrec-run", folder, &["inspect", "--format", "json"]);
    assert!(inspected.contains("the history of a person"), "{inspected}");
}
