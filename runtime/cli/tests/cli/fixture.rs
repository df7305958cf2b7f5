//! A tiny model exported three ways, and the command that runs it.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use assert_cmd::Command;
use slmrec_core::manifest::Precision;
use slmrec_export::testing::{TinyCheckpoint, tiny_dataset};
use slmrec_export::{ExportOptions, export};
use tempfile::TempDir;

pub(crate) struct Fixture {
    folder: TempDir,
}

/// Exported once a test run.
pub(crate) fn fixture() -> &'static Fixture {
    static FIXTURE: OnceLock<Fixture> = OnceLock::new();
    FIXTURE.get_or_init(|| {
        let fixture = Fixture {
            folder: tempfile::tempdir().expect("temporary folder"),
        };
        let (dataset, checkpoint) = (fixture.dataset(), fixture.path("checkpoint"));
        tiny_dataset().write(&dataset).expect("dataset");
        TinyCheckpoint::item().write(&checkpoint, &dataset);
        for (name, precision, portable) in [
            ("fp32", Precision::Fp32, false),
            ("int8", Precision::Int8, false),
            ("portable", Precision::Int8, true),
        ] {
            let options = ExportOptions {
                precision,
                portable,
                ..ExportOptions::default()
            };
            export(&checkpoint, &dataset, &options, &fixture.bundle(name)).expect("exports");
        }
        fixture
    })
}

impl Fixture {
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn bundle(&self, name: &str) -> PathBuf {
        self.path(&format!("{name}.slmrec"))
    }

    pub(crate) fn dataset(&self) -> PathBuf {
        self.path("dataset")
    }

    /// Writes a history file and gives its path.
    pub(crate) fn history(&self, name: &str, json: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, json).expect("history");
        path
    }
}

/// `slmrec-run` in an environment that has nothing of the caller's and in a folder with nothing.
pub(crate) fn bare() -> Command {
    static EMPTY: OnceLock<TempDir> = OnceLock::new();
    let folder = EMPTY.get_or_init(|| tempfile::tempdir().expect("temporary folder"));
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("slmrec-run"));
    command.env_clear().current_dir(folder.path());
    command
}

/// [`bare`], with a bundle and ONNX Runtime.
pub(crate) fn with_bundle(name: &str) -> Command {
    let mut command = bare();
    command
        .env("SLMREC_BUNDLE", fixture().bundle(name))
        .env("ORT_DYLIB_PATH", onnxruntime());
    command
}

/// The library that the tests run on. Without it they fail: skipping would look like passing.
pub(crate) fn onnxruntime() -> PathBuf {
    if let Some(path) = std::env::var_os("ORT_DYLIB_PATH") {
        return path.into();
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.slmrec/onnxruntime");
    let entries = std::fs::read_dir(&folder).into_iter().flatten();
    entries
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|path| path.to_string_lossy().contains("libonnxruntime"))
        .expect("these tests need ONNX Runtime: run `cargo xtask setup` or set ORT_DYLIB_PATH")
}

/// Standard output of a command that succeeds.
pub(crate) fn stdout(command: &mut Command) -> String {
    let output = command.assert().success().get_output().stdout.clone();
    String::from_utf8(output).expect("UTF-8")
}

/// Standard error of a command that ends with this code and prints no data.
pub(crate) fn failure(command: &mut Command, code: i32) -> String {
    let output = command.assert().code(code).get_output().clone();
    let data = String::from_utf8_lossy(&output.stdout);
    assert!(data.is_empty(), "no data beside an error: {data}");
    let text = String::from_utf8(output.stderr).expect("UTF-8");
    let folder = fixture().folder.path().display().to_string();
    text.replace(&folder, "[FOLDER]")
}
