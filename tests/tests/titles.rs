//! Titles on generated data, by the commands that a person types: vectors, SASRec with titles, as a
//! member of the blend, as a row of the comparison, and under a language model.

mod support;

use std::fs;
use std::path::Path;

use candle_core::Device;
use serde_json::Value;
use slmrec_core::Dataset;
use slmrec_distill::cold::TitleMap;
use slmrec_distill::model::{SasRec, SequentialModel};
use support::{run, run_well, write_interactions, write_tiny_bert, write_tiny_llama};

const SETTINGS: &str = r#"
seed = 7
[prepare]
source = "ratings.csv"
[pretrain.model]
hidden_size = 16
num_attention_heads = 2
intermediate_size = 16
max_history = 12
dropout = 0.1
[pretrain.train]
epochs = 4
batch_size = 32
learning_rate = 0.005
[model]
max_history = 12
[teach]
base = "base"
layers = 2
[teach.train]
epochs = 1
[distill]
layers = 2
[distill.objective]
blocks = 2
[distill.train]
epochs = 1
"#;

/// stderr of a command that must end well.
fn said(folder: &Path, arguments: &[&str]) -> String {
    let arguments = [arguments, &["--config", "pipeline.toml"]].concat();
    let output = run("slmrec-distill", folder, &arguments);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments:?}: {said}");
    said
}

/// stderr of a command that must be refused.
fn refused(folder: &Path, arguments: &[&str]) -> String {
    let arguments = [arguments, &["--config", "pipeline.toml"]].concat();
    let output = run("slmrec-distill", folder, &arguments);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
    said
}

fn json(folder: &Path, arguments: &[&str]) -> Value {
    let arguments = [
        arguments,
        &["--config", "pipeline.toml", "--format", "json"],
    ]
    .concat();
    let text = run_well("slmrec-distill", folder, &arguments);
    serde_json::from_str(&text).expect("JSON on stdout")
}

const PRETRAIN: [&str; 3] = ["pretrain", "--titles", "encoder"];

#[test]
fn titles_from_vectors_to_a_teacher() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let folder = dir.path();
    write_interactions(folder, 150);
    write_tiny_llama(&folder.join("base"));
    write_tiny_bert(&folder.join("encoder"));
    fs::write(folder.join("pipeline.toml"), SETTINGS).expect("settings");
    without_one_title(folder);
    for stage in [&["prepare"][..], &["prior", "fit"], &["pretrain"]] {
        said(folder, stage);
    }
    vectors_are_kept_until_something_changes(folder);
    is_a_member_of_the_blend(folder);
    is_a_row_of_the_comparison(folder);
    gives_cold_items_vectors(folder);
    gives_a_teacher_its_items(folder);
    adds_items_to_a_bundle(folder);
    a_whole_run_measures_cold_items(folder);
    trains_with_drawn_items(folder);
    refuses_what_is_wrong(folder);
}

fn without_one_title(folder: &Path) {
    let movies = fs::read_to_string(folder.join("movies.csv")).expect("movies");
    let kept: String = (movies.lines())
        .filter(|line| !line.starts_with("m4,"))
        .map(|line| format!("{line}\n"))
        .collect();
    fs::write(folder.join("movies.csv"), kept).expect("movies");
}

fn vectors_are_kept_until_something_changes(folder: &Path) {
    let first = said(folder, &PRETRAIN);
    assert!(first.contains("pretrain: up to date"), "{first}");
    let counts = "titles: 59 items have one, 1 have none";
    assert!(first.contains(counts), "{first}");
    let second = said(folder, &PRETRAIN);
    for stage in ["pretrain", "titles", "pretrain-titles"] {
        assert!(second.contains(&format!("{stage}: up to date")), "{second}");
    }
    // Another encoder, then other titles.
    let config = folder.join("encoder/config.json");
    let text = fs::read_to_string(&config).expect("config");
    fs::write(&config, text.replace("1e-12", "1e-11")).expect("config");
    let third = said(folder, &PRETRAIN);
    assert!(third.contains("titles: begins"), "{third}");
    let movies = fs::read_to_string(folder.join("movies.csv")).expect("movies");
    let swapped = movies.replacen("Film 7,", "Film 8,", 1);
    fs::write(folder.join("movies.csv"), swapped).expect("movies");
    said(folder, &["prepare", "--force"]);
    said(folder, &["prior", "fit"]);
    let fourth = said(folder, &PRETRAIN);
    for stage in ["titles", "pretrain-titles"] {
        assert!(fourth.contains(&format!("{stage}: begins")), "{fourth}");
    }
}

fn is_a_member_of_the_blend(folder: &Path) {
    let blend = ["blend", "--no-decoder", "--more-sasrecs", "0"];
    let more = ["--more-sasrecs-with-titles", "1"];
    let found = json(folder, &[&blend[..], &more, &PRETRAIN[1..]].concat());
    let members = found["members"].as_array().expect("members");
    let folders: Vec<&str> = (members.iter())
        .filter_map(|member| member["folder"].as_str())
        .collect();
    assert_eq!(
        folders,
        ["sasrec", "sasrec-titles", "blend-sasrec-titles-1"]
    );
    let alone: Vec<f64> = (members.iter())
        .filter_map(|member| member["validation_ndcg_10"].as_f64())
        .collect();
    assert_ne!(alone[1], alone[2], "another seed");
    let best = found["validation_ndcg_10"].as_f64().expect("a figure");
    assert!(best > 0.0 && best.is_finite(), "{found}");
}

fn is_a_row_of_the_comparison(folder: &Path) {
    let evaluate = ["evaluate", "--split", "validation", "--no-bundle"];
    let rows = json(folder, &evaluate).to_string();
    for row in ["SASRec with titles", "SASRec with titles + prior"] {
        assert!(rows.contains(&format!("\"{row}\"")), "{row}");
    }
}

fn gives_cold_items_vectors(folder: &Path) {
    let cold = ["cold", "--titles", "encoder"];
    let report = json(folder, &cold);
    // 5 % of 59 titled items would be 3.
    assert_eq!(report["held_out"], 20, "{report}");
    let work = folder.join("slmrec-work");
    let dataset = Dataset::read(&work.join("dataset")).expect("dataset");
    let count = |name: &str| report[name].as_u64().expect("a count");
    assert!(count("targets") >= count("users") && count("users") > 0);
    assert!(count("targets") + count("without_history") < dataset.items.len() as u64);
    let figure = |row: &Value, name: &str| row[name]["mean"].as_f64().expect("a figure");
    let systems = report["systems"].as_array().expect("systems");
    assert_eq!(systems.len(), 3);
    // Half of 20 cold items are drawn by chance.
    assert!((figure(&systems[0], "cold_10") - 0.5).abs() < 1e-12);
    for row in systems {
        assert!(figure(row, "all_10") <= figure(row, "all_50"), "{row}");
        assert!(figure(row, "all_10") <= figure(row, "cold_10"), "{row}");
        assert_eq!(figure(row, "cold_50"), 1.0, "{row}");
    }
    let tried = report["tried"].as_array().expect("maps");
    assert!(tried.len() > 20, "{tried:?}");
    let (map, description) = TitleMap::load(&work.join("cold")).expect("the map");
    let chosen = serde_json::to_value(map.choice()).expect("JSON");
    assert_eq!(chosen, tried[0]["choice"], "the best is the one for use");
    assert_eq!(description.source.table, "sasrec");
    trains_without_the_cold_items(&work);
    let again = said(folder, &cold);
    for stage in ["titles", "cold-sasrec", "cold"] {
        assert!(again.contains(&format!("{stage}: up to date")), "{again}");
    }
    let more = said(
        folder,
        &["cold", "--titles", "encoder", "--held-out", "0.36"],
    );
    assert!(more.contains("cold-sasrec: begins"), "{more}");
    let refusals: [(&[&str], &str); 2] = [
        (&["cold"], "expected pretrain.titles"),
        (
            &["cold", "--titles", "encoder", "--held-out", "0.5"],
            "cold.held_out",
        ),
    ];
    for (arguments, part) in refusals {
        let told = refused(folder, arguments);
        assert!(told.contains(part), "{arguments:?}: {told}");
    }
}

/// The same settings and seed: only other data give another loss.
fn trains_without_the_cold_items(work: &Path) {
    let record = |dir: &str| -> Value {
        let bytes = fs::read(work.join(dir).join("stage.json")).expect("record");
        serde_json::from_slice(&bytes).expect("JSON")
    };
    assert!(record("cold/sasrec")["inputs"]["held-out rows"].is_string());
    assert!(record("sasrec")["inputs"]["held-out rows"].is_null());
    let first_loss = |dir: &str| record(dir)["figures"]["epochs"][0]["losses"]["ce"].clone();
    assert_ne!(
        first_loss("cold/sasrec"),
        first_loss("sasrec"),
        "other data"
    );
}

fn gives_a_teacher_its_items(folder: &Path) {
    said(folder, &["teach", "--item-embeddings", "titles"]);
    let work = folder.join("slmrec-work");
    let table = |dir: &str| {
        let (model, _) = SasRec::load(&work.join(dir), &Device::Cpu).expect("SASRec");
        let items = model
            .item_embeddings()
            .and_then(|items| items.to_vec2::<f32>());
        items.expect("items")
    };
    let path = work.join("teacher/recommender.safetensors");
    let teacher = candle_core::safetensors::load(path, &Device::Cpu).expect("teacher");
    let items: Vec<Vec<f32>> = teacher["item_embeddings.weight"].to_vec2().expect("items");
    assert_eq!(items, table("sasrec-titles"), "the sums");
    assert_ne!(items, table("sasrec"));
}

fn adds_items_to_a_bundle(folder: &Path) {
    said(folder, &["distill"]);
    said(folder, &["export", "--fp32"]);
    let new =
        "movieId,title,genres\nnew1,A new film,Drama|Brand-new\nm1,Film 1,Drama\nnew2,,Drama\n";
    fs::write(folder.join("new.csv"), new).expect("new items");
    let add = ["items", "add", "new.csv", "--bundle", "student.slmrec"];
    let add = [&add[..], &["-o", "new.delta", "--titles", "encoder"]].concat();
    let told = refused(folder, &add);
    assert!(
        told.contains("a map fitted on the student's items"),
        "{told}"
    );
    said(folder, &["cold", "--titles", "encoder"]);
    let told = refused(folder, &[&add[..7], &["--titles", "base"]].concat());
    assert!(told.contains("of the map"), "{told}");
    let report = json(folder, &add);
    let counts = ["added", "known", "without_title"].map(|name| report[name].as_u64());
    assert_eq!(counts, [Some(1); 3], "{report}");

    let list = |history: &str, options: &[&str]| -> Vec<String> {
        fs::write(folder.join("history.json"), history).expect("history");
        let arguments = [&["history.json", "--format", "json", "-k", "70"], options].concat();
        let found: Value =
            serde_json::from_str(&run_well("slmrec-run", folder, &arguments)).expect("JSON");
        let rows = found["results"][0]["recommendations"]
            .as_array()
            .expect("a list");
        let text = |row: &Value| format!("{} {}", row["item"], row["title"]);
        rows.iter().map(text).collect()
    };
    let new = "\"new1\" \"A new film\"".to_owned();
    let before = list(r#"["m1", "m2"]"#, &[]);
    let after = list(r#"["m1", "m2"]"#, &["--pack", "new.delta"]);
    assert_eq!((before.len(), after.len()), (58, 59));
    assert!(after.contains(&new) && !before.contains(&new));
    // It has its categories, one of them new to the bundle.
    let packed = |name| ["--pack", "new.delta", "--category", name];
    assert_eq!(
        list(r#"["m1", "m2"]"#, &packed("Brand-new")),
        vec![new.clone()]
    );
    // Film 4 is the one of which the file of items says nothing.
    let titled: Vec<String> = (after.iter().filter(|row| !row.starts_with("\"m4\"")))
        .cloned()
        .collect();
    assert_eq!(titled.len(), 58);
    assert_eq!(list(r#"["m1", "m2"]"#, &packed("Drama")), titled);
    let unknown = ["--category", "Brand-new"];
    assert!(list(r#"["m1", "m2"]"#, &unknown).is_empty());
    // It is read in a history, too; without the pack nobody knows it.
    assert_eq!(list(r#"["new1"]"#, &["--pack", "new.delta"]).len(), 60);
    let unknown = run("slmrec-run", folder, &["history.json"]);
    assert_eq!(unknown.status.code(), Some(1));

    let retire = [
        "items",
        "retire",
        "m5",
        "new1",
        "--bundle",
        "student.slmrec",
    ];
    let told = refused(folder, &[&retire[..], &["-o", "retired.delta"]].concat());
    assert!(told.contains("found \"new1\""), "{told}");
    let packs = ["--pack", "new.delta"];
    said(
        folder,
        &[&retire[..], &packs, &["-o", "retired.delta"]].concat(),
    );
    let packs = [&packs[..], &["--pack", "retired.delta"]].concat();
    let left = list(r#"["m1", "m2"]"#, &packs);
    assert_eq!(left.len(), 57);
    assert!(!left.contains(&new) && left.iter().all(|row| !row.starts_with("\"m5\"")));
    let told = refused(folder, &[&add[..], &packs].concat());
    assert!(told.contains("expected new items with a title"), "{told}");
}

fn a_whole_run_measures_cold_items(folder: &Path) {
    let cold = folder.join("slmrec-work/cold");
    let whole = |more: &[&str]| {
        fs::remove_dir_all(&cold).expect("removed");
        let settings = [
            "run",
            "pipeline.toml",
            "--set",
            "pretrain.titles=encoder",
            "--set",
            "baselines.models=[]",
            "--set",
            "evaluate.bundle=false",
            "--set",
            "export.precision=fp32",
        ];
        run_well("slmrec-distill", folder, &[&settings[..], more].concat())
    };
    let told = whole(&["--set", "cold.in_run=true"]);
    assert!(told.contains("cold-sasrec"), "its cost: {told}");
    assert!(cold.join("stage.json").is_file());
    let told = whole(&["--set", "cold.in_run=false"]);
    assert!(!cold.exists() && !told.contains("cold"), "{told}");
}

fn trains_with_drawn_items(folder: &Path) {
    let drawn = "pretrain.train.catalog_loss={sampled={negatives=20}}";
    let told = said(folder, &[&PRETRAIN[..], &["--set", drawn]].concat());
    assert!(told.contains("pretrain-titles: done"), "{told}");
}

fn refuses_what_is_wrong(folder: &Path) {
    let cases: [(&[&str], &str); 3] = [
        (
            &["pretrain", "--titles", "nowhere"],
            "hint: after `slmrec-distill fetch minilm`",
        ),
        (&["pretrain", "--titles", "base"], "is not supported"),
        (
            &["blend", "--more-sasrecs-with-titles", "1"],
            "expected pretrain.titles",
        ),
    ];
    for (arguments, part) in cases {
        let told = refused(
            folder,
            &[arguments, &["--set", "blend.more_sasrecs=0"]].concat(),
        );
        assert!(told.contains(part), "{arguments:?}: {told}");
    }
    let mut movies = String::from("movieId,title,genres\n");
    movies.push_str("m999,\"No such film\",Drama\n");
    fs::write(folder.join("movies.csv"), movies).expect("movies");
    said(folder, &["prepare", "--force"]);
    let told = refused(folder, &PRETRAIN);
    assert!(told.contains("none of the 60 items has a title"), "{told}");
}
