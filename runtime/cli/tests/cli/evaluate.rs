//! `evaluate`, `inspect` and `verify`.

use insta::assert_snapshot;
use serde_json::Value;
use slmrec_core::metrics::MetricSet;
use slmrec_core::{BundleWriter, Dataset, Item, ItemVocabulary};

use crate::fixture::{failure, fixture, stdout, with_bundle};

fn json(command: &mut assert_cmd::Command) -> Value {
    serde_json::from_str(&stdout(command.args(["--format", "json"]))).expect("JSON")
}

fn ranks(report: &Value, protocol: &str) -> Vec<u32> {
    serde_json::from_value(report["ranks"][protocol].clone()).expect("ranks")
}

#[test]
fn ranks_are_those_of_the_recommendations() {
    let mut command = with_bundle("fp32");
    let report = json(
        command
            .arg("evaluate")
            .arg("--dataset")
            .arg(fixture().dataset()),
    );
    let dataset = Dataset::read(&fixture().dataset()).expect("dataset");
    let id = |item| dataset.vocabulary.get(item).expect("known").id.clone();
    let removed = ranks(&report, "seen_removed");
    assert_eq!(report["evaluated_users"], removed.len());
    for (position, user) in report["user_indices"]
        .as_array()
        .expect("users")
        .iter()
        .enumerate()
    {
        let user = user.as_u64().expect("index") as usize;
        let (seen, target) = dataset
            .held_out(user, slmrec_core::Split::Test)
            .expect("has a target");
        let history: Vec<String> = seen.iter().map(|&i| id(i)).collect();
        let history = serde_json::to_string(&history).expect("JSON");
        let mut command = with_bundle("fp32");
        let command = command.args(["-", "-k", "30"]).write_stdin(history);
        let list = json(command)["results"][0]["recommendations"].clone();
        let place = list
            .as_array()
            .expect("list")
            .iter()
            .position(|r| r["item"] == id(target));
        // A target that was seen before is ranked all the same, but never recommended.
        if !seen.contains(&target) {
            assert_eq!(place, Some(removed[position] as usize - 1), "user {user}");
        }
    }
}

#[test]
fn the_report_is_consistent() {
    let file = fixture().path("evaluation.json");
    let mut command = with_bundle("int8");
    command
        .args([
            "evaluate",
            "--format",
            "json",
            "--limit",
            "5",
            "--split",
            "validation",
            "--lists",
        ])
        .arg("--dataset")
        .arg(fixture().dataset())
        .arg("--output")
        .arg(&file);
    assert_eq!(stdout(&mut command), "");
    let report: Value =
        serde_json::from_slice(&std::fs::read(&file).expect("written")).expect("JSON");
    assert_eq!(report["evaluated_users"], 5);
    let lists = report["lists"].as_array().expect("asked for");
    assert_eq!(lists.len(), 5);
    assert!(lists.iter().all(|list| list[0].is_string()), "{lists:?}");
    for protocol in ["seen_removed", "seen_kept", "sampled"] {
        let ranks = ranks(&report, protocol);
        assert_eq!(ranks.len(), 5);
        let metrics: MetricSet =
            serde_json::from_value(report["protocols"][protocol]["metrics"].clone())
                .expect("metrics");
        assert_eq!(metrics, MetricSet::of_ranks(&ranks));
    }
    assert!(report["latency_ms"]["median"].as_f64() <= report["latency_ms"]["p90"].as_f64());
}

#[test]
fn items_that_the_bundle_does_not_know_are_misses_and_counted() {
    let mut dataset = Dataset::read(&fixture().dataset()).expect("dataset");
    let mut items = dataset.vocabulary.items().to_vec();
    items.reverse();
    let gone = dataset
        .held_out(0, slmrec_core::Split::Test)
        .expect("target")
        .1;
    let renamed = dataset.vocabulary.get(gone).expect("known").id.clone();
    for item in &mut items {
        if item.id == renamed {
            *item = Item::new("stranger");
        }
    }
    let last = dataset.num_items() as u32 + 1;
    dataset
        .items
        .iter_mut()
        .for_each(|item| item.0 = last - item.0);
    dataset.vocabulary = ItemVocabulary::new(items).expect("valid");
    let folder = fixture().path("other-dataset");
    dataset.write(&folder).expect("writes");

    let run = |folder: &std::path::Path| {
        let mut command = with_bundle("fp32");
        json(command.arg("evaluate").arg("--dataset").arg(folder))
    };
    let (same, other) = (run(&fixture().dataset()), run(&folder));
    assert_eq!(other["unknown"]["items"], 1);
    assert!(other["unknown"]["targets"].as_u64() >= Some(1));
    assert_eq!(ranks(&other, "seen_removed")[0], 31);
    // Users who never met the stranger rank as before, although every row has moved.
    let untouched = (0..dataset.num_users())
        .position(|u| dataset.sequence(u).iter().all(|i| i.0 != last - gone.0))
        .expect("such a user");
    assert_eq!(
        ranks(&same, "seen_kept")[untouched],
        ranks(&other, "seen_kept")[untouched]
    );
}

#[test]
fn evaluation_table() {
    let mut command = with_bundle("fp32");
    let text = stdout(
        command
            .arg("evaluate")
            .arg("--dataset")
            .arg(fixture().dataset()),
    );
    let steady: Vec<&str> = text.lines().filter(|l| !l.starts_with("One ")).collect();
    assert_snapshot!(steady.join("\n"), @r#"
    tiny (test split), 12 users, 30 items in the bundle
    ┌────────────────────┬────────┬────────┬────────┬────────┬────────┬─────────┬─────────┬────────┬─────────────────┐
    │ Ranking            ┆ HR@1   ┆ HR@5   ┆ HR@10  ┆ HR@20  ┆ NDCG@5 ┆ NDCG@10 ┆ NDCG@20 ┆ MRR    ┆ NDCG@10, 95 %   │
    ╞════════════════════╪════════╪════════╪════════╪════════╪════════╪═════════╪═════════╪════════╪═════════════════╡
    │ full, seen removed ┆ 0.1667 ┆ 0.1667 ┆ 0.2500 ┆ 0.6667 ┆ 0.1667 ┆  0.1918 ┆  0.2985 ┆ 0.2215 ┆ 0.0000 – 0.4167 │
    │ full, seen kept    ┆ 0.1667 ┆ 0.1667 ┆ 0.1667 ┆ 0.5000 ┆ 0.1667 ┆  0.1667 ┆  0.2510 ┆ 0.2090 ┆ 0.0000 – 0.4167 │
    │ 1 + 29 sampled     ┆ 0.1667 ┆ 0.1667 ┆ 0.2500 ┆ 0.6667 ┆ 0.1667 ┆  0.1918 ┆  0.2985 ┆ 0.2215 ┆ 0.0000 – 0.4167 │
    └────────────────────┴────────┴────────┴────────┴────────┴────────┴─────────┴─────────┴────────┴─────────────────┘
    "#);
}

#[test]
fn a_dataset_that_is_none() {
    let mut command = with_bundle("fp32");
    let text = failure(command.args(["evaluate", "--dataset", "no-such-folder"]), 1);
    assert!(
        text.contains("no-such-folder/dataset.json: No such file"),
        "{text}"
    );
}

#[test]
fn inspect() {
    let text = stdout(with_bundle("int8").arg("inspect"));
    for part in [
        "int8",
        "30 items x 16",
        "encoder",
        "no graph for it",
        "SHA-256",
        "Category (2)",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let report = json(with_bundle("portable").arg("inspect"));
    assert_eq!(report["manifest"]["format_version"], 1);
    assert!(report["engines"]["tract"].is_string());
    assert_ne!(report["engines"]["tract"], report["engines"]["onnxruntime"]);
    assert_eq!(
        report["categories"],
        serde_json::json!([{"name": "even", "items": 15}, {"name": "third", "items": 10}])
    );
}

#[test]
fn verify_passes_and_can_fail() {
    for bundle in ["fp32", "int8", "portable"] {
        let report = json(with_bundle(bundle).arg("verify"));
        assert_eq!(report["passed"], true, "{bundle}: {report}");
        assert!(report["samples"].as_u64() >= Some(8));
    }
    let broken = fixture().bundle("broken-promise");
    break_promise(&broken);
    let mut command = with_bundle("fp32");
    command.arg("verify").arg("--bundle").arg(&broken);
    let output = command.assert().code(1).get_output().clone();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("FAILED"), "{text}");
    let talk = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        talk.contains("error: the samples do not come out"),
        "{talk}"
    );
}

/// The fp32 bundle, valid in every hash, with other expected user vectors.
fn break_promise(path: &std::path::Path) {
    let mut bundle = slmrec_core::Bundle::open(&fixture().bundle("fp32")).expect("opens");
    let mut samples = bundle.samples().expect("samples");
    for sample in &mut samples.samples {
        sample.user_vector.reverse();
    }
    let mut writer = BundleWriter::new();
    let manifest = bundle.manifest().clone();
    for name in manifest.members.keys() {
        writer.add(name, bundle.member(name).expect("member"));
    }
    writer.add(
        manifest.samples.clone(),
        serde_json::to_vec(&samples).expect("JSON"),
    );
    writer.write(path, manifest).expect("writes");
}
