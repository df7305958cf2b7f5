//! Training that is killed, interrupted, or has no room to save: whole processes.

#![cfg(unix)]

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const PROGRAM: &str = env!("CARGO_BIN_EXE_slmrec-distill");
/// Long enough for the slowest machine; only a failing test waits for it.
const PATIENCE: Duration = Duration::from_secs(120);

fn command(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(arguments).current_dir(folder);
    command
}

fn well(mut command: Command) -> Output {
    let output = command.output().expect("the program starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    output
}

/// Kills the training of a stage in a folder.
fn verify(folder: &Path, stage: &str, kills: &str, more: &[&str]) -> serde_json::Value {
    let arguments = ["verify-resume", stage, "--kills", kills, "--format", "json"];
    let output = well(command(folder, &[&arguments, more].concat()));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn verify_generated(stage: &str, kills: &str, more: &[&str]) -> serde_json::Value {
    let folder = tempfile::tempdir().expect("temporary folder");
    verify(folder.path(), stage, kills, more)
}

#[test]
fn killed_students_end_with_the_same_bits() {
    let found = verify_generated("distill", "3", &[]);
    assert_eq!(found["kills"], 3);
    let runs = found["runs"].as_array().expect("runs");
    assert_eq!(found["identical"], runs.len());
    assert!(found["steps"].as_u64() > Some(20), "{found}");
}

#[test]
fn killed_sasrecs_end_with_the_same_bits() {
    let found = verify_generated("pretrain", "2", &[]);
    assert_eq!(found["kills"], 2);
}

/// Two replicas of teacher and student, in two threads of one process.
#[test]
fn killed_replicas_end_with_the_same_bits() {
    let found = verify_generated("distill", "2", &["--set", "devices=2"]);
    assert_eq!(found["kills"], 2);
    let runs = found["runs"].as_array().expect("runs");
    assert_eq!(found["identical"], runs.len());
}

/// A training of one's own: the copies are killed, the work directory stays as it is.
#[test]
fn a_training_of_ones_own_is_killed_in_copies() {
    let folder = prepared();
    let found = verify(
        folder.path(),
        "pretrain",
        "2",
        &["--own", "--config", "p.toml"],
    );
    assert_eq!(found["kills"], 2);
    assert!(found["steps"].as_u64() > Some(20), "{found}");
    let work = folder.path().join("slmrec-work");
    assert!(!work.join("sasrec").exists(), "nothing was trained here");
}

/// A work directory with a dataset and the settings of a run of a second or so.
fn prepared() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("temporary folder");
    let mut log = String::from("user,item,time\n");
    for user in 0..40 {
        for step in 0..10 {
            writeln!(log, "u{user},i{},{step}", (user + step * 3) % 20).expect("text");
        }
    }
    fs::write(folder.path().join("log.csv"), log).expect("log");
    let settings = "[pretrain.model]\nhidden_size = 64\nmax_history = 8\n\
                    [pretrain.train]\nepochs = 12\npatience = 12\nbatch_size = 4\n\
                    save_every_steps = 1\n";
    fs::write(folder.path().join("p.toml"), settings).expect("settings");
    well(command(folder.path(), &["prepare", "log.csv"]));
    folder
}

/// Arguments of the training, into a work directory of its own.
fn pretrain(folder: &Path, work: &str) -> Command {
    let dataset = folder.join(work).join("dataset");
    fs::create_dir_all(&dataset).expect("folder");
    for entry in fs::read_dir(folder.join("slmrec-work/dataset")).expect("dataset") {
        let path = entry.expect("entry").path();
        fs::copy(&path, dataset.join(path.file_name().expect("name"))).expect("copy");
    }
    command(
        folder,
        &["pretrain", "--config", "p.toml", "--work-dir", work],
    )
}

fn weights(folder: &Path, work: &str) -> Vec<u8> {
    fs::read(weights_file(folder, work)).expect("weights")
}

fn weights_file(folder: &Path, work: &str) -> PathBuf {
    let dir = folder.join(work).join("sasrec");
    let mut files = fs::read_dir(dir).expect("folder").flatten();
    let file = files.find(|file| file.path().extension().is_some_and(|e| e == "safetensors"));
    file.expect("weights").path()
}

fn wait_for(child: &mut Child, path: &Path) {
    let start = Instant::now();
    while !path.exists() {
        assert!(start.elapsed() < PATIENCE, "no {}", path.display());
        assert!(child.try_wait().expect("status").is_none(), "ended early");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn signals_save_the_state_and_the_same_command_goes_on() {
    let folder = prepared();
    let folder = folder.path();
    well(pretrain(folder, "whole"));
    for signal in ["INT", "TERM"] {
        let mut training = pretrain(folder, signal);
        training.stderr(Stdio::piped()).stdout(Stdio::null());
        let mut child = training.spawn().expect("starts");
        let state = folder.join(signal).join("sasrec/state");
        wait_for(&mut child, &state.join("train-state.previous.safetensors"));
        let sent = Command::new("sh")
            .args(["-c", &format!("kill -s {signal} {}", child.id())])
            .status();
        assert!(sent.expect("sh").success());
        let output = child.wait_with_output().expect("ends");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(130), "{signal}: {said}");
        assert!(said.contains("stopping after this step"), "{said}");
        assert!(said.contains("hint: the same command goes on"), "{said}");
        well(pretrain(folder, signal));
        assert!(!state.exists(), "a finished run leaves no state");
        let record = fs::read(folder.join(signal).join("sasrec/stage.json"));
        let record: serde_json::Value =
            serde_json::from_slice(&record.expect("record")).expect("JSON");
        assert!(record["figures"]["resumed_from"].as_u64() > Some(0));
        assert_eq!(weights(folder, signal), weights(folder, "whole"));
    }
}

/// A limit on the size of files stands in for a full disk: states do not fit, weights do.
#[test]
fn without_room_for_states_training_warns_and_still_ends() {
    let folder = prepared();
    let folder = folder.path();
    well(pretrain(folder, "whole"));
    let size = fs::metadata(weights_file(folder, "whole"))
        .expect("size")
        .len();
    // In blocks of 512 or 1024 bytes, as the shell has it: more than the weights, less than a state.
    let blocks = size * 13 / 10 / 512;
    let training = pretrain(folder, "limited");
    let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$@\"");
    let mut limited = Command::new("sh");
    limited
        .args(["-c", &script, "sh"])
        .arg(training.get_program());
    limited.args(training.get_args()).current_dir(folder);
    let output = well(limited);
    let said = String::from_utf8_lossy(&output.stderr);
    for part in [
        "warning: step 1",
        "train-state.safetensors",
        "hint: make room",
        "goes on",
    ] {
        assert!(said.contains(part), "{part:?} in {said}");
    }
    assert_eq!(weights(folder, "limited"), weights(folder, "whole"));
}

/// Allocator and candle read some settings from the environment only; what is set already stays.
#[cfg(target_os = "linux")]
#[test]
fn a_training_has_the_environment_in_which_it_is_fast() {
    let folder = prepared();
    let folder = folder.path();
    let mut training = pretrain(folder, "looked-at");
    training.stderr(Stdio::null()).stdout(Stdio::null());
    training.env_remove("CANDLE_NUM_THREADS");
    training.env("RAYON_NUM_THREADS", "1");
    let mut child = training.spawn().expect("starts");
    wait_for(&mut child, &folder.join("looked-at/sasrec/state"));
    let environment = fs::read(format!("/proc/{}/environ", child.id())).expect("running");
    let has = |wanted: &str| {
        environment
            .split(|&b| b == 0)
            .any(|v| v == wanted.as_bytes())
    };
    assert!(has("CANDLE_NUM_THREADS=1"));
    assert!(has("RAYON_NUM_THREADS=1"));
    assert!(child.wait().expect("ends").success());
}
