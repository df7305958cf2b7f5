//! The package's tests, `test_*.py`, on the module that this build has made: without a build of
//! its own, and on bundles that are made here. `cargo xtask test` names the Python that runs them,
//! or says that it has none.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use slmrec_core::manifest::{FORMAT_VERSION, PRIOR_FEATURE, Precision, PriorEntry};
use slmrec_core::pack::PRIOR_MEMBER;
use slmrec_core::{
    Bundle, BundleWriter, ItemIndex, PackManifest, PriorSettings, PriorWeights, Split,
    TransitionPrior,
};
use slmrec_export::testing::{TinyCheckpoint, tiny_dataset};
use slmrec_export::{ExportOptions, export};

/// A Python with pytest, numpy, pyarrow, onnxruntime and mypy.
const PYTHON_VARIABLE: &str = "SLMREC_TEST_PYTHON";
/// Set where the package is installed in that Python and is the one to test.
const INSTALLED_VARIABLE: &str = "SLMREC_TEST_INSTALLED";
/// A folder of tests that runs instead of all but it.
const SELECTION_VARIABLE: &str = "SLMREC_TEST_SELECTION";
/// Where the tests find the bundles, and the program that they compare with.
const BUNDLES_VARIABLE: &str = "SLMREC_TEST_BUNDLES";
const PROGRAM_VARIABLE: &str = "SLMREC_TEST_RUN";

#[test]
fn the_package_passes_its_tests() {
    let Some(python) = env::var_os(PYTHON_VARIABLE) else {
        eprintln!("{PYTHON_VARIABLE} is not set: the Python package was not tested");
        return;
    };
    let folder = tempfile::tempdir().expect("temporary folder");
    write_bundles(folder.path());
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut pytest = Command::new(&python);
    pytest
        .args(["-m", "pytest", "-q"])
        .arg(env::var(SELECTION_VARIABLE).unwrap_or_else(|_| "--ignore=engines".to_owned()))
        .current_dir(project.join("tests"))
        .env(BUNDLES_VARIABLE, folder.path())
        .env(PROGRAM_VARIABLE, program())
        .env("PYTHONDONTWRITEBYTECODE", "1")
        // The library is that of the Python, as it is for a user.
        .env_remove("ORT_DYLIB_PATH")
        .env_remove("PYTHONPATH");
    if env::var_os(INSTALLED_VARIABLE).is_none() {
        let package = folder.path().join("package");
        put_together(project, &package);
        pytest.env("PYTHONPATH", package);
    }
    let status = pytest.status().expect("Python starts");
    assert!(status.success(), "pytest: {status}");
}

/// The package as a wheel has it: its Python files and the module.
fn put_together(project: &Path, package: &Path) {
    let to = package.join("slmrec");
    fs::create_dir_all(&to).expect("package folder");
    for entry in fs::read_dir(project.join("slmrec")).expect("Python files") {
        let path = entry.expect("an entry").path();
        if path.is_file() {
            fs::copy(&path, to.join(path.file_name().expect("a name"))).expect("copies");
        }
    }
    let name = |suffix| format!("{}slmrec_native{suffix}", env::consts::DLL_PREFIX);
    let module = build_folder()
        .join("deps")
        .join(name(env::consts::DLL_SUFFIX));
    fs::copy(&module, to.join("_native.abi3.so"))
        .unwrap_or_else(|e| panic!("{}: {e}", module.display()));
}

/// `target/debug`, where this test runs in `target/debug/deps`.
fn build_folder() -> PathBuf {
    let this = env::current_exe().expect("this program");
    let folder = this.ancestors().nth(2).expect("a build folder");
    folder.to_owned()
}

fn program() -> PathBuf {
    let program = build_folder().join(format!("slmrec-run{}", env::consts::EXE_SUFFIX));
    let hint = "build it, with the same flags: cargo build -p slmrec-run";
    assert!(program.is_file(), "{}: {hint}", program.display());
    program
}

/// A tiny model in two precisions, and a pack for each.
fn write_bundles(folder: &Path) {
    let (dataset, checkpoint) = (folder.join("dataset"), folder.join("checkpoint"));
    tiny_dataset().write(&dataset).expect("dataset");
    TinyCheckpoint::item().write(&checkpoint, &dataset);
    for (name, precision) in [("fp32", Precision::Fp32), ("int8", Precision::Int8)] {
        let options = ExportOptions {
            precision,
            ..ExportOptions::default()
        };
        let bundle = folder.join(format!("{name}.slmrec"));
        export(&checkpoint, &dataset, &options, &bundle).expect("exports");
        let items = tiny_dataset().vocabulary.len();
        let bundle = Bundle::open(&bundle).expect("opens");
        write_pack(
            &folder.join(format!("{name}.delta")),
            bundle.sha256(),
            items,
        );
    }
}

/// A pack whose counts say that item 2 follows item 1, very often.
fn write_pack(path: &Path, bundle_sha256: &str, items: usize) {
    let row = |row| match row {
        1 => vec![(ItemIndex(2), 1e6)],
        _ => Vec::new(),
    };
    let rows = (0..=items).map(row);
    let settings = PriorSettings::WINDOW_5;
    let prior = TransitionPrior::new(settings, vec![1.0; items + 1], rows, 9).expect("valid");
    let mut writer = BundleWriter::new();
    writer.add(PRIOR_MEMBER, prior.to_bytes().expect("bytes"));
    let manifest = PackManifest {
        format_version: FORMAT_VERSION,
        required_features: vec![PRIOR_FEATURE.into()],
        created_by: "test".into(),
        bundle_sha256: bundle_sha256.into(),
        prior: Some(PriorEntry {
            member: PRIOR_MEMBER.into(),
            settings,
            weights: PriorWeights {
                alpha: 10.0,
                beta: 1.0,
            },
            interactions: 9,
            counted_before: Split::Validation,
        }),
        new_items: None,
        retired: None,
        members: BTreeMap::new(),
    };
    writer.write(path, manifest).expect("writes");
}
