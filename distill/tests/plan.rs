//! `slmrec-distill plan`, and the plan that stands before every training.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

fn run(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_slmrec-distill"))
        .args(arguments)
        .current_dir(folder)
        .output()
        .expect("the program starts")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A prepared dataset and the header of a model; its weights are not there.
fn prepared() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("temporary folder");
    let mut log = String::from("user,item,time\n");
    for user in 0..30 {
        for step in 0..9 {
            writeln!(log, "u{user},i{},{step}", (user + step * 3) % 20).expect("text");
        }
    }
    fs::write(folder.path().join("log.csv"), log).expect("log");
    let base = folder.path().join("base");
    fs::create_dir(&base).expect("folder");
    let config = serde_json::json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama",
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 8,
        "num_attention_heads": 4, "num_key_value_heads": 2, "rms_norm_eps": 1e-5,
        "vocab_size": 8, "tie_word_embeddings": true, "hidden_act": "silu",
    });
    fs::write(base.join("config.json"), config.to_string()).expect("config");
    let prepared = run(folder.path(), &["prepare", "log.csv"]);
    assert!(prepared.status.success(), "{}", stderr(&prepared));
    folder
}

fn names<'a>(plan: &'a serde_json::Value) -> Vec<&'a str> {
    let stages = plan["stages"].as_array().expect("stages");
    let name = |stage: &'a serde_json::Value| stage["stage"].as_str().expect("a name");
    stages.iter().map(name).collect()
}

#[test]
fn every_training_stage_is_planned_from_headers_alone() {
    let folder = prepared();
    let output = run(
        folder.path(),
        &["plan", "--base", "base", "--format", "json"],
    );
    assert!(output.status.success(), "{}", stderr(&output));
    let plan: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let stages = plan["stages"].as_array().expect("stages");
    assert_eq!(names(&plan), ["pretrain", "teach", "ce-only", "distill"]);
    for stage in stages {
        assert!(stage["memory"]["activations"].as_u64() > Some(0), "{stage}");
        assert!(
            stage["time"]["total_seconds"].as_f64() > Some(0.0),
            "{stage}"
        );
        assert!(
            stage["parameters"]["trainable"].as_u64() > Some(0),
            "{stage}"
        );
    }
    assert!(stages[3]["memory"]["teacher"].as_u64() > Some(0));
    assert!(stages[3]["disk"]["teacher_cache"].as_u64() > Some(0));
    let table = run(folder.path(), &["plan", "--no-calibration"]);
    let said = stderr(&table);
    assert!(said.contains("no pretrained model is named"), "{said}");
    let table = String::from_utf8(table.stdout).expect("UTF-8");
    for part in ["peak memory", "pretrain", "states on disk", "free: memory"] {
        assert!(table.contains(part), "{part:?} in {table}");
    }
}

#[test]
fn members_of_a_blend_and_what_is_trained_again_are_planned() {
    let folder = prepared();
    let mut arguments = vec![
        "plan",
        "--base",
        "base",
        "--no-calibration",
        "--format",
        "json",
    ];
    for change in [
        "distill.teacher=blend",
        "blend.more_sasrecs=2",
        "blend.more_decoders=1",
        "refit.models=true",
    ] {
        arguments.extend(["--set", change]);
    }
    let output = run(folder.path(), &arguments);
    assert!(output.status.success(), "{}", stderr(&output));
    let plan: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let validated = [
        "pretrain",
        "teach",
        "blend-sasrec",
        "blend-sasrec",
        "blend-decoder",
        "ce-only",
        "distill",
    ];
    let refit =
        ["pretrain", "blend-sasrec", "blend-sasrec", "distill"].map(|name| format!("refit-{name}"));
    assert_eq!(names(&plan)[..7], validated);
    assert_eq!(names(&plan)[7..], refit);
    // Both decoders are in memory while they teach.
    let teacher = |plan: &serde_json::Value| {
        let distill = names(plan).iter().position(|name| *name == "distill");
        plan["stages"][distill.expect("planned")]["memory"]["teacher"].as_u64()
    };
    let both = teacher(&plan).expect("bytes");
    arguments.extend(["--set", "blend.more_decoders=0"]);
    let output = run(folder.path(), &arguments);
    let plan = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(teacher(&plan), Some(both / 2));
}

#[test]
fn layers_that_the_base_does_not_have_are_an_error() {
    let folder = prepared();
    let arguments = [
        "plan",
        "--base",
        "base",
        "--set",
        "teach.layers=9",
        "--no-calibration",
    ];
    let output = run(folder.path(), &arguments);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("base"), "{}", stderr(&output));
}

/// 17 billion values a layer fit nowhere that tests run; nothing of the size is allocated.
#[cfg(target_os = "linux")]
#[test]
fn what_cannot_fit_is_refused_before_it_begins() {
    let folder = prepared();
    let huge = ["--set", "pretrain.model.hidden_size=65536"];
    for command in ["plan", "pretrain"] {
        let output = run(folder.path(), &[command, huge[0], huge[1]]);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        for part in ["pretrain needs about", "of memory", "hint:", "--force"] {
            assert!(said.contains(part), "{part:?} in {said}");
        }
    }
    let forced = run(folder.path(), &["plan", huge[0], huge[1], "--force"]);
    assert!(forced.status.success(), "{}", stderr(&forced));
}

#[test]
fn the_plan_is_said_before_the_training() {
    let folder = prepared();
    let small = ["--set", "pretrain.train.epochs=1"];
    let output = run(folder.path(), &["pretrain", small[0], small[1]]);
    let said = stderr(&output);
    assert!(output.status.success(), "{said}");
    assert!(
        said.contains("pretrain: plan:") && said.contains("at most about"),
        "{said}"
    );
}
