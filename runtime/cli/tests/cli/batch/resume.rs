//! A run that is killed goes on, and gives the bytes of one that was not.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::files::write;
use super::histories;
use crate::fixture::{failure, fixture, onnxruntime, with_bundle};

fn command(input: &Path, output: &Path) -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("slmrec-run"));
    command
        .env("SLMREC_BUNDLE", fixture().bundle("int8"))
        .env("ORT_DYLIB_PATH", onnxruntime())
        // Else the process starts itself anew and a kill may come before that.
        .env("ORT_DISABLE_TELEMETRY", "1")
        .args(["batch", "--input"])
        .arg(input)
        .arg("--output")
        .arg(output)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

fn finished(parts: &Path) -> usize {
    let entries = fs::read_dir(parts).into_iter().flatten();
    let names = entries
        .filter_map(Result::ok)
        .map(|entry| entry.file_name());
    names
        .filter(|name| name.to_string_lossy().ends_with(".finished.json"))
        .count()
}

/// Starts a run and kills it once it has finished another part; whether it was cut.
fn kill(input: &Path, output: &Path, parts: &Path) -> bool {
    let before = finished(parts);
    let mut child = command(input, output).spawn().expect("starts");
    let started = Instant::now();
    while finished(parts) <= before && child.try_wait().expect("waits").is_none() {
        assert!(
            started.elapsed() < Duration::from_secs(60),
            "no part is finished"
        );
        sleep(Duration::from_millis(1));
    }
    child.kill().expect("killed");
    let ended = child.wait().expect("ended");
    assert_ne!(ended.code(), Some(1), "the run was refused");
    let cut = finished(parts) > before;
    if !cut {
        // It was at its end before it was seen to be on its way.
        fs::remove_file(output).expect("a finished output");
    }
    cut
}

#[test]
fn kills_lose_nothing_and_change_nothing() {
    let (groups, rows) = (24, 2400);
    let input = fixture().path("kills-input.parquet");
    write(&input, &histories(rows), rows / groups);
    for ending in ["parquet", "jsonl"] {
        let whole = fixture().path(&format!("kills-whole.{ending}"));
        assert!(command(&input, &whole).status().expect("runs").success());
        let output = fixture().path(&format!("kills.{ending}"));
        let parts = fixture().path(&format!("kills.{ending}.parts"));
        let mut kills = 0;
        while kills < 4 {
            kills += usize::from(kill(&input, &output, &parts));
        }
        assert!(!output.exists(), "nothing before the end");
        assert!(command(&input, &output).status().expect("runs").success());
        assert!(!parts.exists());
        assert!(
            fs::read(&output).expect("output") == fs::read(&whole).expect("output"),
            "{ending}: other bytes after {kills} kills"
        );
    }
}

fn batch_of(input: &Path, output: &Path) -> assert_cmd::Command {
    let mut command = with_bundle("int8");
    command
        .arg("batch")
        .arg("--input")
        .arg(input)
        .arg("--output")
        .arg(output);
    command
}

#[test]
fn damaged_parts_are_made_again_and_other_jobs_are_refused() {
    let input = fixture().path("damaged.parquet");
    write(&input, &histories(1000), 100);
    let output = fixture().path("damaged-out.parquet");
    let parts = fixture().path("damaged-out.parquet.parts");
    while !kill(&input, &output, &parts) {}
    let part = parts.join("00000000.parquet");
    assert!(fs::read(&part).expect("a part").starts_with(b"PAR1"));
    fs::write(&part, b"damaged").expect("writes");
    let other = failure(batch_of(&input, &output).args(["-k", "3"]), 1);
    assert!(other.contains("k was 10, is 3"), "{other}");
    assert!(other.contains("hint: --restart begins anew"), "{other}");
    batch_of(&input, &output).assert().success();
    let whole = fs::read(&output).expect("output");
    assert!(!parts.exists());
    batch_of(&input, &output).assert().success();
    assert!(fs::read(&output).expect("output") == whole);
}
