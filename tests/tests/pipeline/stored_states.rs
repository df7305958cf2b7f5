//! The teacher's states on disk, by the commands that fill, check and use them.

use std::fs;
use std::path::Path;

use super::support::{run, run_well, write_interactions, write_tiny_llama};
use super::{json, write_settings};

/// The settings of the test below, small enough for a few shards.
const STORED: [&str; 10] = [
    "--config",
    "pipeline.toml",
    "--set",
    "distill.cache_shard_mib=0.05",
    "--set",
    "distill.ce_only=false",
    "--set",
    "teach.train.epochs=1",
    "--set",
    "distill.train.epochs=1",
];

fn stored(folder: &Path, command: &[&str]) -> (Option<i32>, String, String) {
    let output = run("slmrec-distill", folder, &[command, &STORED].concat());
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

#[test]
fn the_teachers_states_are_stored_in_parts_checked_and_used_without_the_teacher() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let folder = dir.path();
    write_interactions(folder, 150);
    write_tiny_llama(&folder.join("base"));
    write_settings(folder, "item");
    let (code, _, said) = stored(folder, &["teach", "--cache-states"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("hint: run `slmrec-distill"), "{said}");
    for stage in ["prepare", "pretrain", "teach"] {
        let (code, _, said) = stored(folder, &[stage]);
        assert_eq!(code, Some(0), "{said}");
    }
    fill_in_two_parts(folder);
    mend_what_is_damaged(folder);
    refuse_what_is_too_large(folder);

    // Nothing but the states is needed any more.
    fs::remove_file(folder.join("slmrec-work/teacher/model.safetensors")).expect("remove");
    let (code, _, said) = stored(folder, &["distill", "--force", "--lambda-kd", "0.5"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("no teacher in memory"), "{said}");
    // The best items were not stored, so the teacher would have to be asked again.
    let (code, _, said) = stored(
        folder,
        &[
            "distill",
            "--lambda-kd",
            "0.5",
            "--set",
            "distill.objective.top_k=5",
        ],
    );
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("stale"), "{said}");
    assert!(said.contains("model.safetensors"), "{said}");
}

fn fill_in_two_parts(folder: &Path) {
    let (code, out, said) = stored(
        folder,
        &[
            "teach",
            "--cache-states",
            "--shard",
            "1/2",
            "--format",
            "json",
        ],
    );
    assert_eq!(code, Some(0), "{said}");
    let first = json(&out);
    let total = first["shards_total"].as_u64().expect("a number");
    assert!(total >= 4, "{out}");
    assert_eq!(first["computed"], total.div_ceil(2));
    assert_eq!(first["complete"], false);

    let check = ["teach", "--cache-states", "--check", "--format", "json"];
    let (code, out, said) = stored(folder, &check);
    assert_eq!(code, Some(1), "{said}");
    let shards = json(&out)["shards"].clone();
    assert_eq!(shards[0]["state"], "good");
    assert_eq!(shards[1]["state"], "missing");
    let fill: Vec<String> = serde_json::from_value(shards[1]["fill"].clone()).expect("command");
    assert!(fill.ends_with(&["--shard".to_owned(), format!("2/{total}")]));
    let fill: Vec<&str> = fill[1..].iter().map(String::as_str).collect();
    run_well("slmrec-distill", folder, &fill);

    let (code, _, said) = stored(folder, &["teach", "--cache-states", "--shard", "2/2"]);
    assert_eq!(code, Some(0), "{said}");
    let manifest = folder.join("slmrec-work/teacher-states/teacher-states.json");
    assert!(!manifest.exists());
    let (code, out, said) = stored(folder, &check);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(json(&out)["complete"], true);
    assert!(manifest.exists());
    let (_, out, _) = stored(folder, &["teach", "--cache-states", "--format", "json"]);
    assert_eq!(json(&out)["computed"], 0, "nothing is computed twice");
}

fn mend_what_is_damaged(folder: &Path) {
    let states = folder.join("slmrec-work/teacher-states");
    let mut shards: Vec<_> = (fs::read_dir(&states).expect("folder"))
        .map(|entry| entry.expect("entry").path())
        .filter(|path| path.extension().is_some_and(|e| e == "safetensors"))
        .collect();
    shards.sort();
    let mut bytes = fs::read(&shards[1]).expect("shard");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    fs::write(&shards[1], bytes).expect("damage");
    let file = fs::File::options().write(true).open(&shards[2]);
    file.and_then(|file| file.set_len(3000)).expect("cut");
    let (code, out, said) = stored(folder, &["teach", "--cache-states", "--check"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("2 of"), "{said}");
    assert!(
        out.contains("damaged") && out.contains("--shard 2/"),
        "{out}"
    );

    let (code, _, said) = stored(folder, &["distill"]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(said.matches("is damaged").count(), 2, "{said}");
    assert!(said.contains("computes 2 of"), "{said}");
    assert!(said.contains("no teacher in memory"), "{said}");
    let (code, _, said) = stored(folder, &["teach", "--cache-states", "--check"]);
    assert_eq!(code, Some(0), "{said}");
}

fn refuse_what_is_too_large(folder: &Path) {
    let small = ["--set", "distill.cache_max_gib=0.0001", "--force"];
    let (code, _, said) = stored(folder, &[&["distill"][..], &small].concat());
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("the teacher runs at every step"), "{said}");
    let asked = [&["distill", "--teacher-states", "cache"][..], &small].concat();
    for command in [&asked[..], &["teach", "--cache-states", small[0], small[1]]] {
        let (code, _, said) = stored(folder, command);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("hint: raise distill.cache_max_gib"), "{said}");
    }
    let (code, _, said) = stored(folder, &["teach", "--cache-states", "--shard", "3/2"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("expected i/n"), "{said}");
}
