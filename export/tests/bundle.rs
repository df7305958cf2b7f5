//! What a bundle contains, by precision.

use std::collections::HashSet;
use std::fs;
use std::path::PathBuf;

use slmrec_core::manifest::{GraphTarget, Precision};
use slmrec_core::{Bundle, RowType};
use slmrec_export::testing::{TinyCheckpoint, tiny_dataset};
use slmrec_export::{ExportOptions, ExportReport, MIN_SAMPLES, TOP_ITEMS, export};

fn exported(folder: &tempfile::TempDir, options: &ExportOptions) -> (PathBuf, ExportReport) {
    let (dataset, checkpoint) = (
        folder.path().join("dataset"),
        folder.path().join("checkpoint"),
    );
    tiny_dataset().write(&dataset).expect("dataset");
    TinyCheckpoint::response().write(&checkpoint, &dataset);
    let output = folder.path().join("student.slmrec");
    let report = export(&checkpoint, &dataset, options, &output).expect("exports");
    (output, report)
}

fn options(precision: Precision) -> ExportOptions {
    ExportOptions {
        precision,
        ..ExportOptions::default()
    }
}

#[test]
fn a_bundle_has_everything_in_the_precision_asked_for() {
    let folder = tempfile::tempdir().expect("temporary folder");
    for (precision, row_type, target) in [
        (Precision::Fp32, RowType::F32, GraphTarget::Any),
        (Precision::Fp16, RowType::F16, GraphTarget::Any),
        (Precision::Int8, RowType::Int8, GraphTarget::OnnxRuntime),
    ] {
        let (path, report) = exported(&folder, &options(precision));
        let mut bundle = Bundle::open(&path).expect("opens");
        bundle.verify_members().expect("sound");
        let manifest = bundle.manifest().clone();
        assert_eq!(manifest.precision, precision);
        assert_eq!(manifest.items.row_type, row_type);
        let encoders: Vec<_> = manifest
            .encoders
            .iter()
            .map(|e| (e.target, e.opset))
            .collect();
        assert_eq!(encoders, [(target, 17)]);
        assert_eq!(manifest.model.prompt.prefix_tokens, 5);
        assert_eq!(manifest.metrics["ndcg@10"], 0.125);
        assert_eq!(manifest.data.users, 12);
        assert_eq!(manifest.model.checkpoint_sha256, report.checkpoint_sha256);
        assert_eq!(bundle.sha256(), report.bundle_sha256);
        assert_eq!(bundle.item_table().expect("table").len(), 30);
        assert_eq!(bundle.vocabulary().expect("vocabulary").len(), 30);
        assert_eq!(report.members.len(), 5);
        assert_eq!(report.bytes, fs::metadata(&path).expect("file").len());
    }
}

#[test]
fn samples_are_real_histories_with_unseen_recommendations() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let (path, _) = exported(&folder, &options(Precision::Int8));
    let samples = Bundle::open(&path)
        .expect("opens")
        .samples()
        .expect("samples");
    assert!(samples.samples.len() >= MIN_SAMPLES);
    for sample in &samples.samples {
        let seen: HashSet<&String> = sample.history.iter().collect();
        assert_eq!(sample.user_vector.len(), 16);
        assert_eq!(sample.top.len(), TOP_ITEMS);
        assert!(sample.top.iter().all(|best| !seen.contains(&best.item)));
        assert!(sample.top.is_sorted_by(|a, b| a.score >= b.score));
    }
}

#[test]
fn popular_items_come_by_training_count() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let options = ExportOptions {
        popularity: 4,
        ..ExportOptions::default()
    };
    let (path, _) = exported(&folder, &options);
    let dataset = tiny_dataset();
    let counts = dataset.training_counts();
    let popular = Bundle::open(&path)
        .expect("opens")
        .popularity()
        .expect("list");
    let count = |id: &String| counts[dataset.vocabulary.index_of(id).expect("known").row()];
    assert_eq!(popular.len(), 4);
    assert!(popular.is_sorted_by_key(|id| std::cmp::Reverse(count(id))));
    assert_eq!(Some(&count(&popular[0])), counts.iter().max());
}

#[test]
fn a_portable_int8_bundle_has_a_second_graph_and_exports_repeat_exactly() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let options = ExportOptions {
        portable: true,
        ..options(Precision::Int8)
    };
    let (path, _) = exported(&folder, &options);
    let first = fs::read(&path).expect("bundle");
    let manifest = Bundle::open(&path).expect("opens").manifest().clone();
    let targets: Vec<_> = manifest.encoders.iter().map(|e| e.target).collect();
    assert_eq!(targets, [GraphTarget::OnnxRuntime, GraphTarget::Any]);
    exported(&folder, &options);
    assert!(fs::read(&path).expect("bundle") == first);
}
