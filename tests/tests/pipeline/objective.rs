//! Forms of the objective and of the student, by the flags that a person types, and the studies of
//! them, in a work directory whose earlier stages have run.

use std::fs;
use std::path::Path;

use super::json;
use super::support::{run, run_well};

const SETTINGS: [&str; 4] = [
    "--config",
    "pipeline.toml",
    "--set",
    "distill.train.epochs=1",
];

/// What `distill` said with some flags, none of which fails.
fn distil(folder: &Path, flags: &[&str]) -> String {
    let arguments = [&["distill", "--no-ce-only"], &SETTINGS[..], flags].concat();
    let output = run("slmrec-distill", folder, &arguments);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{flags:?}: {said}");
    said
}

/// The bundle of the student that is there.
fn export(folder: &Path) {
    let arguments = [&["export", "--fp32", "-o", "form.slmrec"], &SETTINGS[..]].concat();
    run_well("slmrec-distill", folder, &arguments);
    run_well("slmrec-run", folder, &["verify", "--bundle", "form.slmrec"]);
}

pub(super) fn forms_of_student_and_objective(folder: &Path) {
    let uneven = ["--block-map", "1:1,4:2", "--lambda-block-kl", "0.5"];
    let said = distil(folder, &uneven);
    assert!(said.contains("block_kl"), "{said}");
    assert!(said.contains("no teacher in memory"), "{said}");

    let narrow = [
        "--hidden-size",
        "20",
        "--intermediate-size",
        "24",
        "--key-value-heads",
        "1",
    ];
    let wholly = ["--start", "random", "--tuning", "full"];
    distil(folder, &[&narrow[..], &wholly].concat());
    export(folder);
    let config = fs::read(folder.join("slmrec-work/student/config.json")).expect("configuration");
    let config = json(&String::from_utf8_lossy(&config));
    assert_eq!(config["hidden_size"], 20);
    assert_eq!(config["num_attention_heads"], 2);
    let wide = run(
        "slmrec-distill",
        folder,
        &[&["distill", "--hidden-size", "33"], &SETTINGS[..]].concat(),
    );
    let said = String::from_utf8_lossy(&wide.stderr).into_owned();
    assert_eq!(wide.status.code(), Some(1), "{said}");
    assert!(said.contains("hidden_size: expected 1 to 32"), "{said}");

    let online = [&narrow[..], &["--online", "joint", "--start", "teacher"]].concat();
    let said = distil(folder, &online);
    assert!(said.contains("teacher_ce"), "{said}");
    let teacher = folder.join("slmrec-work/student/teacher/recommender.json");
    assert!(teacher.is_file(), "both checkpoints are there");
    assert!(distil(folder, &online).contains("distill: up to date"));
    let evaluate = [
        &["evaluate", "--no-bundle", "--format", "json"],
        &SETTINGS[..],
    ]
    .concat();
    let table = run_well("slmrec-distill", folder, &evaluate);
    assert!(table.contains("\"teacher beside the student\""), "{table}");
    fs::remove_file(&teacher).expect("remove");
    assert!(distil(folder, &online).contains("distill: begins"));
    export(folder);
    distil(folder, &[]);
    assert!(!teacher.exists(), "no teacher learned beside this student");
}

pub(super) fn studies_of_them(folder: &Path) {
    let names = |study: &[&str]| {
        let arguments = [&["study"], study, &["--format", "json"], &SETTINGS[..]].concat();
        let first = json(&run_well("slmrec-distill", folder, &arguments));
        let again = json(&run_well("slmrec-distill", folder, &arguments));
        assert_eq!(first, again, "{study:?}");
        let rows = first["comparison"]["rows"]
            .as_array()
            .expect("rows")
            .clone();
        let of_row = |row: &serde_json::Value| row["system"].as_str().map(str::to_owned);
        let alone = |name: &String| !name.ends_with(" + prior");
        let names = rows.iter().filter_map(of_row).filter(alone);
        names.collect::<Vec<String>>()
    };
    let layers: Vec<String> = (1..=4)
        .map(|l| format!("teacher, read after layer {l}"))
        .collect();
    assert_eq!(names(&["depth", "--readout"]), layers);
    let shares = names(&["data-size", "--shares", "0.5,1"]);
    assert_eq!(
        shares[..2],
        ["50 % of users, CE only", "50 % of users, distilled"]
    );
    assert_eq!(shares.len(), 4);
    let online = names(&["online", "--set", "distill.online_start=base"]);
    assert!(
        online.contains(&"teacher beside it, joint: its teacher".to_owned()),
        "{online:?}"
    );
    assert_eq!(online.len(), 6);
    let maps = names(&["blocks", "--map", "1:1,4:2"]);
    assert_eq!(maps, ["CE only", "blocks 1:1,4:2"]);
    let starts = names(&["start"]);
    assert_eq!(starts[0], "the first layers");
    assert!(starts.iter().any(|name| name.starts_with("random weights")));
}
