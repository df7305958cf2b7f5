//! Studies of the student, in a work directory whose earlier stages have run, and on the page.

use std::fs;
use std::path::Path;

use super::browser;
use super::json;
use super::support::{run, run_well};

/// Trains the students once, then finds them.
pub(super) fn goes_on_where_it_was(folder: &Path) {
    let study = [
        "study",
        "depth",
        "--values",
        "1,2",
        "--format",
        "json",
        "--config",
        "pipeline.toml",
        "--set",
        "distill.train.epochs=1",
        "--set",
        "distill.objective.lambda_kd=1",
    ];
    let found = json(&run_well("slmrec-distill", folder, &study));
    let rows = found["comparison"]["rows"].as_array().expect("rows");
    let names: Vec<&str> = rows
        .iter()
        .filter_map(|row| row["system"].as_str())
        .filter(|name| !name.ends_with(" + prior"))
        .collect();
    assert_eq!(rows.len(), 2 * names.len(), "each alone and with the prior");
    let expected = [
        "depth 1, CE only",
        "depth 1, distilled",
        "depth 2, CE only",
        "depth 2, distilled",
    ];
    assert_eq!(names, expected);
    assert_eq!(found["comparison"]["split"], "validation");
    for name in expected {
        let metric = &found["trainings"][name]["validation_ndcg_10"];
        assert!(
            metric.as_f64().is_some_and(|metric| metric > 0.0),
            "{name}: {metric}"
        );
    }
    let again = run("slmrec-distill", folder, &study);
    let said = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(again.status.success(), "{said}");
    assert_eq!(said.matches("up to date").count(), 4, "{said}");
    assert_eq!(json(&String::from_utf8_lossy(&again.stdout)), found);
    // The student of the work directory is another one, and stays.
    assert!(folder.join("slmrec-work/student/stage.json").is_file());

    let numbers = run(
        "slmrec-distill",
        folder,
        &["study", "losses", "--values", "2"],
    );
    assert_eq!(numbers.status.code(), Some(1));
    let said = String::from_utf8_lossy(&numbers.stderr).into_owned();
    assert!(said.contains("--values"), "{said}");
    tries_rates_and_keeps_ranks(folder);
    stand_in_the_report(folder);
}

/// Every student at each rate, the best of them compared, and `compare` reads what it left.
fn tries_rates_and_keeps_ranks(folder: &Path) {
    let study = [
        "study",
        "items",
        "--rates",
        "1e-3,3e-3",
        "--format",
        "json",
        "--config",
        "pipeline.toml",
        "--set",
        "distill.train.epochs=1",
    ];
    let found = json(&run_well("slmrec-distill", folder, &study));
    let random = &found["trainings"]["random, trained on"];
    let tried = random["tried"].as_array().expect("rates");
    assert_eq!(tried.len(), 2);
    let metric = |of: &serde_json::Value| of["validation_ndcg_10"].as_f64().expect("a metric");
    let best = tried.iter().map(metric).fold(0.0, f64::max);
    assert_eq!(metric(random), best, "{random}");
    let systems = ["--system", "random, trained on", "--against", "of SASRec"];
    let kept = "slmrec-work/studies/items";
    let compare = [&["compare", kept, kept][..], &systems].concat();
    let said = run_well("slmrec-distill", folder, &compare);
    assert!(said.contains("random, trained on"), "{said}");
}

/// Each with its chart or its table, unless it was not asked; none is out of date.
fn stand_in_the_report(folder: &Path) {
    let readout = ["study", "depth", "--readout", "--config", "pipeline.toml"];
    run_well("slmrec-distill", folder, &readout);
    let report = ["report", "--format", "json"];
    let report = json(&run_well("slmrec-distill", folder, &report));
    let stale = report["stale"].to_string();
    assert!(!stale.contains("studies/"), "{stale}");
    let path = folder.join("slmrec-work/report.html");
    let page = fs::read_to_string(&path).expect("the page");
    for part in [
        "How deep must the student be?",
        "depth 2, distilled",
        "minus “depth 2, CE only”",
        "What do the layers of the teacher know?",
        "teacher, read after layer 1",
        "slmrec-distill study losses",
    ] {
        assert!(page.contains(part), "{part}");
    }
    browser::shows_all_of(&path);
}
