//! `run` with the data and no settings: what it chooses, says and leaves.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::support::{program, run, run_well};

/// Small enough for a test; the recipe decides the rest.
const SMALL: [&str; 13] = [
    "teach.base=base",
    "pretrain.train.epochs=1",
    "baselines.models=[]",
    "teach.layers=2",
    "teach.train.epochs=1",
    "blend.more_sasrecs=1",
    "distill.layers=1",
    "distill.objective.blocks=1",
    "distill.train.epochs=1",
    "distill.ce_only=false",
    "export.precision=fp32",
    "export.output=alone.slmrec",
    "evaluate.bundle=false",
];

pub(crate) fn is_enough(folder: &Path) {
    let run_data = |input: &str| {
        let mut command = Command::new(program("slmrec-distill"));
        command
            .args(["run", input, "--work-dir", "alone"])
            .args(SMALL.iter().flat_map(|change| ["--set", change]))
            .current_dir(folder)
            // Whatever this machine has fetched.
            .env("SLMREC_CACHE", folder.join("nothing-fetched"));
        let output = command.output().expect("the program starts");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{input}: {said}");
        said
    };
    let said = run_data("ratings.csv");
    for part in [
        "recipe for short histories",
        "hint: `slmrec-distill fetch minilm`",
        "all settings: alone/pipeline.toml",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(folder.join("alone.slmrec").is_file());
    let chosen = fs::read_to_string(folder.join("alone/pipeline.toml")).expect("the settings");
    // The recipe's, the recipe's for short histories, and as asked.
    for line in ["teacher = \"blend\"", "dropout = 0.5", "layers = 1"] {
        assert!(chosen.lines().any(|l| l == line), "{line}: {chosen}");
    }
    // Settings that were edited are not lost.
    let edited = format!("{chosen}# mine\n");
    fs::write(folder.join("alone/pipeline.toml"), &edited).expect("edited");
    assert!(run_data("ratings.csv").contains("other settings were there"));
    let kept = fs::read_to_string(folder.join("alone/pipeline.toml.before"));
    assert_eq!(kept.expect("the edited ones"), edited);
    assert!(!run_data("ratings.csv").contains("other settings were there"));
    two_files_of_settings_are_refused(folder);
    // The same settings from the file that it left.
    let again = run_data("alone/pipeline.toml");
    for stage in [
        "pretrain",
        "teach",
        "blend",
        "distill",
        "refit-pretrain",
        "refit-blend",
        "refit-distill",
        "export",
        "evaluate",
    ] {
        assert!(again.contains(&format!("{stage}: up to date")), "{again}");
    }
    the_student_that_is_shipped_knows_the_validation_items(folder);
}

/// Histories are short here, so SASRec and student are trained once more.
fn the_student_that_is_shipped_knows_the_validation_items(folder: &Path) {
    let comparison = fs::read_to_string(folder.join("alone/evaluation/comparison.json"));
    let comparison = comparison.expect("the comparison");
    for row in [
        "SASRec, refit + prior",
        "blended teacher, refit",
        "student, distilled, refit",
    ] {
        assert!(comparison.contains(&format!("\"{row}\"")), "{row}");
    }
    let record = |stage: &str| {
        let text = fs::read(folder.join("alone").join(stage).join("stage.json"));
        let record: Value = serde_json::from_slice(&text.expect("a record")).expect("JSON");
        record
    };
    let refit = record("refit/student");
    assert_eq!(refit["figures"]["best_metric"], Value::Null);
    assert_eq!(
        refit["figures"]["best_epoch"],
        record("student")["figures"]["best_epoch"]
    );
    assert_ne!(
        refit["inputs"]["teacher"],
        record("student")["inputs"]["teacher"]
    );
    the_blend_that_teaches_it_knows_them_too(folder);
    assert_ne!(
        record("export")["inputs"]["student"],
        record("export")["inputs"]["validated student"]
    );
    let evaluate = |split| {
        let program = ["evaluate", "--dataset", "alone/dataset", "--split", split];
        let bundle = ["--bundle", "alone.slmrec", "--no-prior"];
        run("slmrec-run", folder, &[&program[..], &bundle].concat())
    };
    assert!(evaluate("test").status.success());
    let refused = evaluate("validation");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        !refused.status.success() && said.contains("trained on the validation"),
        "{said}"
    );
    let report = ["report", "--work-dir", "alone", "--format", "json"];
    let report: Value =
        serde_json::from_str(&run_well("slmrec-distill", folder, &report)).expect("JSON");
    assert_eq!(report["stale"], serde_json::json!([]));
    // Another model than the validated one is not trained in its place.
    let other = run("slmrec-distill", folder, &["refit", "--work-dir", "alone"]);
    let said = String::from_utf8_lossy(&other.stderr).into_owned();
    assert_eq!(other.status.code(), Some(1), "{said}");
    assert!(
        said.contains("the settings that it was trained with"),
        "{said}"
    );
    // It is taken wherever it lies, unless the settings leave it out.
    let export = |change| {
        let common = ["export", "--config", "alone/pipeline.toml", "--set", change];
        run_well("slmrec-distill", folder, &common);
        let record = record("export");
        record["inputs"]["student"] == record["inputs"]["validated student"]
    };
    assert!(export("refit.models=false"));
    assert!(!export("refit.models=true"));
}

/// But for the language model among its members, and with the weights that validation gave them.
fn the_blend_that_teaches_it_knows_them_too(folder: &Path) {
    let members = |blend: &str| {
        let text = fs::read(folder.join("alone").join(blend).join("blend.json"));
        let description: Value = serde_json::from_slice(&text.expect("a blend")).expect("JSON");
        let members = description["members"].as_array().expect("members").clone();
        assert!(members.len() > 1, "{members:?}");
        members
    };
    let (validated, refit) = (members("blend"), members("refit/blend"));
    assert_eq!(validated.len(), refit.len());
    for (validated, refit) in validated.iter().zip(&refit) {
        assert_eq!(validated["weight"], refit["weight"]);
        let name = validated["folder"].as_str().expect("a folder");
        if validated["kind"] == "decoder" {
            assert_eq!(validated, refit);
        } else {
            assert_eq!(refit["folder"], format!("refit/{name}"));
            assert_ne!(validated["sha256"], refit["sha256"]);
        }
    }
}

fn two_files_of_settings_are_refused(folder: &Path) {
    let both = ["run", "pipeline.toml", "--config", "alone/pipeline.toml"];
    let refused = run("slmrec-distill", folder, &both);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("expected one file of settings"), "{said}");
}
