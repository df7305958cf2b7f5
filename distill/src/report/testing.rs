//! A small work directory with the output of every stage, without any training.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use slmrec_core::dataset::{Dataset, Split};
use slmrec_core::evaluation::Protocol;
use slmrec_core::hash::sha256_hex;
use slmrec_core::{Item, ItemIndex, ItemVocabulary};

use crate::evaluate::names::{CE_ONLY, COOCCURRENCE_TUNED, SASREC, STUDENT, bundle, with_prior};
use crate::evaluate::rank_files::{COMPARISON_FILE, RANKS_DIR, rank_file_name};
use crate::evaluate::{
    Comparison, EvaluateError, Measurement, NO_PRIOR, RECOMMENDATIONS_FILE, Recommendations,
    Scorer, evaluate, measure,
};
use crate::pipeline::StageRecord;
use crate::pipeline::stage::RECORD_FILE;

/// Titles are what strangers type.
pub(super) const HOSTILE: &str = "<script>alert('x')</script> & \"quotes\" <b>";
const ITEMS: u32 = 40;
const USERS: u32 = 120;

/// A scorer that finds the next item of the chain in so many of a hundred histories.
struct Chain {
    name: String,
    percent: u32,
}

impl Scorer for Chain {
    fn name(&self) -> &str {
        &self.name
    }

    fn scores(&mut self, histories: &[&[ItemIndex]]) -> Result<Vec<Vec<f32>>, EvaluateError> {
        let of = |history: &&[ItemIndex]| {
            let last = history.last().map_or(0, |item| item.0);
            let found = (last * 37 + history.len() as u32 * 11) % 100 < self.percent;
            let score = |row: u32| match row == last % ITEMS + 1 && found {
                true => 1000.0,
                false => ((row * 7919 + last * 31) % 101) as f32,
            };
            (1..=ITEMS).map(score).collect()
        };
        Ok(histories.iter().map(of).collect())
    }
}

/// Users who walk along a chain of items.
pub(super) fn dataset() -> Dataset {
    let title = |row: u32| match row {
        1..=8 => format!("{HOSTILE} {row}"),
        _ => format!("Film {row}, é"),
    };
    let item = |row| Item {
        title: Some(title(row)),
        ..Item::new(format!("i{row}"))
    };
    let mut offsets = vec![0];
    let mut items = Vec::new();
    for user in 0..USERS {
        let length = 4 + user % 9;
        items.extend((0..length).map(|step| ItemIndex((user * user + step) % ITEMS + 1)));
        offsets.push(items.len());
    }
    Dataset {
        name: "tiny <data>".into(),
        vocabulary: ItemVocabulary::new((1..=ITEMS).map(item).collect()).expect("valid"),
        users: (0..USERS).map(|user| format!("u{user}")).collect(),
        items,
        offsets,
        times: None,
        provenance: Value::Null,
    }
}

/// Everything that a whole run leaves behind; the student finds `student` targets of a hundred,
/// everything simpler at most 40.
pub(super) fn work_directory(root: &Path, student: u32) {
    let data = dataset();
    data.write(&root.join("dataset")).expect("dataset");
    record(root, "dataset", &[], prepare_figures(), json!({}));
    record(root, "prior", &["dataset"], json!({}), json!({}));
    record(
        root,
        "sasrec",
        &["dataset"],
        fit(&["ce"]),
        json!({ "train": { "epochs": 3 } }),
    );
    record(
        root,
        "teacher",
        &["dataset", "sasrec"],
        fit(&["ce"]),
        json!({}),
    );
    record(
        root,
        "ce-only",
        &["dataset", "sasrec"],
        fit(&["ce"]),
        json!({ "seed": 7 }),
    );
    let terms = fit(&["ce", "cos", "kd", "ms", "norm"]);
    let inputs = ["dataset", "sasrec", "teacher"];
    record(
        root,
        "student",
        &inputs,
        terms,
        json!({ "seed": 7, "teacher": "decoder" }),
    );
    let inputs = ["dataset", "student"];
    record(root, "cold", &inputs, cold_figures(), json!({}));
    record(root, "export", &["student"], export_figures(), json!({}));
    evaluation(root, &data, student);
    for (folder, figures) in studies(&data) {
        let folder = format!("studies/{folder}");
        record(root, &folder, &["dataset", "teacher"], figures, json!({}));
    }
    let latency = json!({ "bundle_latency_ms": { "median": 1.25, "p90": 2.5 } });
    record(
        root,
        "evaluation",
        &["dataset", "student"],
        latency,
        json!({}),
    );
}

/// A study over a number, and one over names.
fn studies(data: &Dataset) -> [(&'static str, Value); 2] {
    let evaluate = |(name, percent): (&str, u32)| {
        let name = name.to_owned();
        let mut chain = Chain { name, percent };
        let (split, protocol) = (Split::Validation, Protocol::default());
        evaluate(&mut chain, data, split, protocol, &mut |_, _| ()).expect("measures")
    };
    let training = json!({ "seconds": 12.0, "validation_ndcg_10": 0.1 });
    let study = |systems: &[(&str, u32)], curves: Value| {
        let evaluations: Vec<_> = systems.iter().copied().map(evaluate).collect();
        let comparison = Comparison::new(&evaluations, &[systems[0].0]).expect("same targets");
        json!({
            "comparison": comparison, "curves": curves,
            "trainings": { systems[0].0: training, systems[1].0: training },
        })
    };
    let depth = [
        ("depth 1, CE only", 20),
        ("depth 1, distilled", 30),
        ("depth 4, CE only", 30),
        ("depth 4, distilled", 90),
    ];
    let curves = json!({ "axis": "layers", "lines": {
        "CE only": [[1.0, "depth 1, CE only"], [4.0, "depth 4, CE only"]],
        "distilled": [[1.0, "depth 1, distilled"], [4.0, "depth 4, distilled"]],
    } });
    let prior = ["CE only + prior", "+ kd + prior"];
    let losses = [
        ("CE only", 50),
        (prior[0], 60),
        ("+ kd", 90),
        (prior[1], 95),
        ("+ cos", 10),
    ];
    [
        ("depth", study(&depth, curves)),
        ("losses", study(&losses, Value::Null)),
    ]
}

fn evaluation(root: &Path, data: &Dataset, student: u32) {
    let int8 = bundle("int8");
    let systems = [
        (COOCCURRENCE_TUNED.to_owned(), 40),
        (SASREC.to_owned(), 30),
        (with_prior(SASREC), 40),
        (CE_ONLY.to_owned(), 30),
        (with_prior(CE_ONLY), 40),
        (STUDENT.to_owned(), student),
        (with_prior(STUDENT), student),
        (int8, student),
    ];
    let measured: Vec<Measurement> = (systems.into_iter())
        .flat_map(|(name, percent)| {
            let mut chain = Chain { name, percent };
            let protocol = Protocol::default();
            measure(
                &mut chain,
                data,
                Split::Test,
                protocol,
                NO_PRIOR,
                &mut |_, _| (),
            )
            .expect("measures")
        })
        .collect();
    let evaluations: Vec<_> = measured.iter().map(|m| m.evaluation.clone()).collect();
    let references = [COOCCURRENCE_TUNED, SASREC, CE_ONLY];
    let comparison = Comparison::new(&evaluations, &references).expect("same targets");
    // The bundle runs in a program of its own, which keeps no lists.
    let exposures = measured.into_iter().take(7).map(|m| m.exposure).collect();
    let recommendations = Recommendations::new(&evaluations[0].users, exposures);
    let dir = root.join("evaluation");
    fs::create_dir_all(dir.join(RANKS_DIR)).expect("folder");
    let write = |path: &Path, value: Value| fs::write(path, value.to_string()).expect("file");
    write(&dir.join(COMPARISON_FILE), json!(comparison));
    write(&dir.join(RECOMMENDATIONS_FILE), json!(recommendations));
    for evaluation in &evaluations {
        let name = rank_file_name(&evaluation.name);
        write(&dir.join(RANKS_DIR).join(name), json!(evaluation));
    }
}

/// Writes the record of a stage whose inputs are what lies there now.
pub(super) fn record(root: &Path, folder: &str, inputs: &[&str], figures: Value, settings: Value) {
    let dir = root.join(folder);
    fs::create_dir_all(&dir).expect("folder");
    let now = |input: &&str| {
        let record = StageRecord::read(&root.join(input)).expect("readable");
        (
            (*input).to_owned(),
            record.expect("an earlier stage").output_hash(),
        )
    };
    let record = StageRecord {
        format_version: 1,
        stage: folder.to_owned(),
        created_by: "test".into(),
        settings,
        inputs: inputs.iter().map(now).collect(),
        outputs: BTreeMap::from([("file".to_owned(), sha256_hex(folder.as_bytes()))]),
        figures,
        seconds: 1.5,
        peak_memory: Some(2_000_000),
    };
    fs::write(dir.join(RECORD_FILE), json!(record).to_string()).expect("record");
}

fn fit(terms: &[&str]) -> Value {
    let epoch = |epoch: u32| {
        let loss = |term: &&str| ((*term).to_owned(), json!(6.0 / f64::from(epoch)));
        json!({
            "epoch": epoch, "step": 10 * epoch, "metric": 0.1 * f64::from(epoch), "best": true,
            "losses": terms.iter().map(loss).collect::<BTreeMap<_, _>>(),
            "train_seconds": 1.0, "validation_seconds": 0.1,
        })
    };
    json!({
        "epochs": [epoch(1), epoch(2), epoch(3)], "best_epoch": 3, "best_metric": 0.3,
        "steps": 30, "stopped_early": false, "resumed_from": null,
    })
}

fn cold_figures() -> Value {
    let interval = |mean: f64| json!({ "mean": mean, "low": mean - 0.01, "high": mean + 0.01 });
    let row = |system: &str, mean: f64| {
        json!({
            "system": system, "all_10": interval(mean), "all_50": interval(2.0 * mean),
            "cold_10": interval(3.0 * mean), "cold_50": interval(4.0 * mean),
        })
    };
    let map = json!({ "map": { "kind": "ridge", "strength": 0.3 }, "same_length": true });
    json!({
        "items": ITEMS, "held_out": 2, "targets": 31, "users": 29, "without_history": 3,
        "choosing": [2, 30], "tried": [{ "choice": map, "hr_10": 0.1234, "cosine": 0.5 }],
        "systems": [row("map from titles, SASRec", 0.0421)],
        "difference": row("map - cosine", -0.0321),
        "shipped": { "table": "student", "items": 38 },
    })
}

fn export_figures() -> Value {
    json!({
        "path": "student.slmrec", "bytes": 14_756_116, "precision": "int8", "parameters": 14_308_992,
        "members": { "encoder.int8.onnx": 14_670_314, "items.bin": 222_048 },
        "checkpoint_sha256": "c0", "bundle_sha256": "b0", "file_sha256": "f00d", "prior": null,
    })
}

fn prepare_figures() -> Value {
    json!({
        "source": {
            "file": "<log>.csv", "bytes": 9, "sha256": "50c3", "format": "csv", "rows": 999,
            "columns": { "user": "u" }, "notes": [],
        },
        "items": null, "bad_lines": { "count": 2, "examples": ["line 7: <i>no time</i>"] },
        "below_min_rating": 3, "duplicates": { "rule": "keep", "found": 5, "dropped": 0 },
        "k_core": 2, "k_core_rounds": [{ "users": 1, "items": 1, "interactions": 17 }],
        "kept": { "users": USERS, "items": ITEMS, "interactions": 960 },
        "users_for_training_only": 0, "items_without_title": 0,
        "items_with_category": 30, "categories": 4,
        "lengths": { "min": 4, "p5": 4, "p25": 6, "median": 8, "p75": 10, "p95": 12, "max": 12, "mean": 8.0 },
        "ties": { "neighbours": 840, "neighbours_tied": 84, "users_last_two_tied": 4 }, "times": null,
    })
}
