//! Bundles for the tests, and the libraries that they run on.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use slmrec_core::manifest::Precision;
use slmrec_export::testing::{TinyCheckpoint, tiny_dataset};
use slmrec_export::{ExportOptions, export};
use tempfile::TempDir;

/// A tiny int8 bundle, exported once a test program.
pub(crate) fn bundle() -> &'static Path {
    static BUNDLE: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = BUNDLE.get_or_init(|| {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("student.slmrec");
        write_bundle(&path);
        (folder, path)
    });
    path
}

/// Writes the bundle of these tests to a place of the caller's.
pub(crate) fn write_bundle(path: &Path) {
    let folder = tempfile::tempdir().expect("temporary folder");
    let (dataset, checkpoint) = (folder.path().join("data"), folder.path().join("model"));
    tiny_dataset().write(&dataset).expect("dataset");
    TinyCheckpoint::item().write(&checkpoint, &dataset);
    let options = ExportOptions {
        precision: Precision::Int8,
        ..ExportOptions::default()
    };
    export(&checkpoint, &dataset, &options, path).expect("exports");
}

/// The ONNX Runtime that the tests run on. Without it they fail: skipping would look like passing.
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

/// The folder with the shared library that cargo has built for this test program.
pub(crate) fn library_folder() -> PathBuf {
    let program = std::env::current_exe().expect("a path");
    program.parent().expect("in a folder").to_owned()
}

/// The shared library that cargo has built for this test program.
pub(crate) fn library() -> PathBuf {
    let name = format!(
        "{}slmrec_ffi{}",
        std::env::consts::DLL_PREFIX,
        std::env::consts::DLL_SUFFIX
    );
    let path = library_folder().join(name);
    assert!(path.is_file(), "{}: not built", path.display());
    path
}
