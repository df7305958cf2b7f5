//! The whole way on generated data, by the very commands that a person types: logs, SASRec,
//! teacher, student, bundle, recommendations, comparison; then again, to see it skipped.

mod browser;
mod data_alone;
mod objective;
mod quantization;
mod stored_states;
mod study;
#[path = "../support/mod.rs"]
mod support;
mod tuning;

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
[baselines]
models = ["gru4rec", "bert4rec", "sasrec-prior"]
[baselines.gru4rec.model]
hidden_size = 16
max_history = 12
[baselines.gru4rec.train]
epochs = 2
[baselines.bert4rec.model]
hidden_size = 16
intermediate_size = 16
max_history = 12
[baselines.bert4rec.train]
epochs = 2
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
# Little data: one user more or less is a per cent.
[export]
max_ndcg_drop = 0.5
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
    let operators = fs::read_to_string(folder.join("slmrec-work/export/required_operators.config"));
    let operators = operators.expect("the operators of the graphs");
    assert!(
        operators.starts_with("ai.onnx;17;") && operators.contains("MatMul"),
        "{operators}"
    );
    let comparison = fs::read(folder.join("slmrec-work/evaluation/comparison.json"));
    let comparison: Value = serde_json::from_slice(&comparison.expect("written")).expect("JSON");
    let rows = comparison.to_string();
    for system in [
        "popularity",
        "Markov",
        "co-occurrence",
        "SASRec",
        "GRU4Rec",
        "BERT4Rec + prior",
        "SASRec, prior inside + prior",
        "teacher",
        "student, distilled + prior",
        "student, distilled + prior of the training items",
        "int8",
    ] {
        assert!(rows.contains(system), "{system} is a row of the comparison");
    }

    recommends(folder);
    reports_and_compares(folder);
    refreshes_the_prior(folder);
    skips_what_is_up_to_date(folder);
    refuses_what_is_wrong(folder);
    a_blend_teaches(folder);
    study::goes_on_where_it_was(folder);
    objective::forms_of_student_and_objective(folder);
    objective::studies_of_them(folder);
    quantization::is_chosen_by_ranking(folder);
    tuning::searches_and_goes_on(folder);
    data_alone::is_enough(folder);
}

/// The page about the run, and the run against itself.
fn reports_and_compares(folder: &Path) {
    let summary = json(&run_well(
        "slmrec-distill",
        folder,
        &["report", "--format", "json"],
    ));
    assert_eq!(summary["missing"], serde_json::json!([]));
    assert_eq!(summary["stale"], serde_json::json!([]));
    assert_ne!(summary["verdict"]["decision"], "unknown");
    assert_eq!(summary["verdict"]["system"], "student, int8 bundle");
    let page = fs::read_to_string(folder.join("slmrec-work/report.html")).expect("the page");
    for part in [
        "student, distilled + prior of the training items",
        "loss cos",
        "One recommendation",
    ] {
        assert!(page.contains(part), "{part}");
    }
    let events = folder.join("slmrec-work/tensorboard/student/events.out.tfevents.0.slmrec");
    assert!(events.is_file(), "the curves for TensorBoard");
    browser::shows_all_of(&folder.join("slmrec-work/report.html"));
    let itself = [
        "compare",
        "slmrec-work",
        "slmrec-work/evaluation",
        "--format",
        "json",
    ];
    let compared = json(&run_well("slmrec-distill", folder, &itself));
    for pair in compared["pairs"].as_array().expect("pairs") {
        assert_eq!(pair["changes"]["unchanged"], 500);
        assert_eq!(pair["difference"]["ndcg_10"]["high"], 0.0);
    }
    let against = [
        &itself[..],
        &[
            "--system",
            "student, distilled + prior",
            "--against",
            "popularity",
        ],
    ]
    .concat();
    let compared = json(&run_well("slmrec-distill", folder, &against));
    assert_eq!(compared["pairs"][0]["difference"]["ndcg_10_differs"], true);
    let gained = compared["examples"]["gained"].as_array().expect("users");
    let title = gained[0]["data"]["target"].as_str().expect("a title");
    assert!(title.contains("Film"), "{title}");
    let twice = ["seeds", "slmrec-work", "slmrec-work/evaluation"];
    let refused = run("slmrec-distill", folder, &twice);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("found the same ranks"), "{said}");
}

/// Several models as one teacher, by its logits.
fn a_blend_teaches(folder: &Path) {
    let settings = [
        "--config",
        "pipeline.toml",
        "--set",
        "blend.more_decoders=1",
        "--set",
        "blend.more_sasrecs=1",
        "--set",
        "blend.prior=true",
    ];
    let blend = [&["blend", "--format", "json"], &settings[..]].concat();
    let blend = json(&run_well("slmrec-distill", folder, &blend));
    let members = blend["members"].as_array().expect("members");
    let folders: Vec<&str> = members
        .iter()
        .filter_map(|m| m["folder"].as_str())
        .collect();
    let expected = ["teacher", "blend-decoder-1", "sasrec", "blend-sasrec-1"];
    assert_eq!(folders, expected);
    assert_eq!(members[0]["weight"], members[1]["weight"], "{members:?}");
    let decoders = ["teacher", "blend-decoder-1"].map(|member| {
        let file = format!("slmrec-work/{member}/recommender.safetensors");
        fs::read(folder.join(file)).expect("a checkpoint")
    });
    assert_ne!(decoders[0], decoders[1], "another seed");
    let weights: f64 = members.iter().filter_map(|m| m["weight"].as_f64()).sum();
    assert!((weights - 1.0).abs() < 1e-9, "{members:?}");
    // The models know the generated chains, so the counts may be of no use; they were weighed.
    assert!(blend["prior"]["weights"]["alpha"].is_f64(), "{blend}");
    assert_eq!(blend["prior"]["users"], 500);
    let by_logits = [
        "--teacher",
        "blend",
        "--lambda-kd",
        "1",
        "--lambda-cos",
        "0",
    ];
    let rest = [
        "--lambda-norm",
        "0",
        "--lambda-ms",
        "0",
        "--no-ce-only",
        "--epochs",
        "2",
        "--set",
        "distill.prior=inside",
        "--set",
        "distill.train.mask_seen=true",
    ];
    let distill = [&["distill"], &settings[..], &by_logits, &rest].concat();
    let output = run("slmrec-distill", folder, &distill);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    assert!(said.contains(", kd "), "the term is there: {said}");
    assert!(said.contains("no teacher in memory"), "{said}");
    assert!(
        said.contains("the prior inside the scores: alpha"),
        "{said}"
    );
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

/// New interactions change the answers of the bundle that is there.
fn refreshes_the_prior(folder: &Path) {
    let manifest = json(&run_well(
        "slmrec-run",
        folder,
        &["inspect", "--format", "json"],
    ));
    assert_eq!(
        manifest["manifest"]["required_features"],
        serde_json::json!(["transition-prior"]),
        "the generated data has a chain that counting finds"
    );
    // A new fashion: whoever has 51 takes 58 next. Another item is not in the catalog.
    let mut log = String::from("userId,movieId,rating,timestamp\n");
    for user in 0..400 {
        log.push_str(&format!(
            "n{user},m51,5.0,2000000\nn{user},m58,5.0,2000060\n"
        ));
    }
    log.push_str("n0,m999,5.0,2000120\n");
    fs::write(folder.join("today.csv"), log).expect("log");
    let update = [
        "prior",
        "update",
        "today.csv",
        "-o",
        "student.delta",
        "--bundle",
    ];
    let bundle = [&update[..], &["student.slmrec", "--format", "json"]].concat();
    let report = json(&run_well("slmrec-distill", folder, &bundle));
    assert_eq!(report["new_interactions"], 800);
    assert_eq!(report["unknown_items"], 1);
    let best = |options: &[&str]| {
        let arguments = [&["history.json", "--format", "json"], options].concat();
        let found = json(&run_well("slmrec-run", folder, &arguments));
        let list = found["results"][0]["recommendations"].clone();
        let place = |id: &str| list.as_array()?.iter().position(|row| row["item"] == id);
        (place("m58"), list.to_string())
    };
    let (before, plain) = best(&[]);
    let (after, _) = best(&["--pack", "student.delta"]);
    assert!(after < Some(2), "{after:?}, before {before:?}");
    assert!(before.is_none_or(|before| before > 1), "{before:?}");
    let (_, model) = best(&["--no-prior"]);
    assert_ne!(plain, model, "the prior is part of the scores");
    // Only pairs with something new in them are counted.
    let since = [&bundle[..], &["--since", "2000060"]].concat();
    let report = json(&run_well("slmrec-distill", folder, &since));
    assert_eq!(report["new_interactions"], 400);
    let late = [&bundle[..], &["--since", "3000000"]].concat();
    let refused = run("slmrec-distill", folder, &late);
    assert_eq!(refused.status.code(), Some(1));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("expected new interactions"), "{said}");
    let same = ["--pack", "student.slmrec"];
    let refused = run(
        "slmrec-run",
        folder,
        &[&["history.json"], &same[..]].concat(),
    );
    assert_eq!(refused.status.code(), Some(1), "a bundle is no pack");
}

fn skips_what_is_up_to_date(folder: &Path) {
    let second = run("slmrec-distill", folder, &["run", "pipeline.toml"]);
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(second.status.success(), "{said}");
    for stage in [
        "prepare", "prior", "pretrain", "teach", "ce-only", "distill", "export", "evaluate",
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
