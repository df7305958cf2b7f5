//! The Python package: a Python for its tests, its wheel, and `cargo xtask check-wheel`, which tests
//! what a user would install.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::{process, python, workspace};

/// What the package's tests need, in the versions that they were written with.
const PACKAGES: [&str; 5] = [
    "pytest==9.2.0",
    "numpy==2.4.6",
    "pyarrow==26.0.1",
    "onnxruntime==1.31.1",
    "mypy==2.4.1",
];
const MATURIN: &str = "maturin==1.16.0";
/// Where `runtime/python/tests/python.rs` finds the Python.
pub(crate) const PYTHON_VARIABLE: &str = "SLMREC_TEST_PYTHON";
/// Says that the package is installed in it.
pub(crate) const INSTALLED_VARIABLE: &str = "SLMREC_TEST_INSTALLED";

/// Build the Python wheel and run the package's tests on it, installed
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: cargo xtask check-wheel    # leaves the wheel in target/wheels")]
pub(crate) struct Arguments {}

pub(crate) fn run(_arguments: &Arguments) -> Result<()> {
    let wheel = wheel()?;
    let python = python::environment("wheel-python", &PACKAGES)?;
    install(&python, &wheel)?;
    run_tests(&python, &[])?;
    println!("check-wheel: {} passes its tests", wheel.display());
    Ok(())
}

/// A Python with what the tests need. `None`, with a notice, where there is none.
pub(crate) fn for_tests() -> Option<PathBuf> {
    let python = python::environment("test-python", &PACKAGES);
    let notice = |why| eprintln!("notice: {why:#}: the Python package is not tested");
    python.map_err(notice).ok()
}

/// Builds the wheel with maturin, optimised.
pub(crate) fn wheel() -> Result<PathBuf> {
    let python = python::environment("maturin-python", &[MATURIN])?;
    let folder = workspace::target_dir().join("wheels");
    // Of one build only, so that there is no doubt which one it is.
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| folder.display().to_string())?;
    }
    let mut maturin = Command::new(python);
    maturin
        .args(["-m", "maturin", "build", "--release", "--locked", "--out"])
        .arg(&folder)
        .current_dir(workspace::root().join("runtime/python"))
        .env("CARGO_TARGET_DIR", workspace::target_dir());
    process::run(&mut maturin)?;
    let entries = fs::read_dir(&folder).with_context(|| folder.display().to_string())?;
    let mut paths = entries.filter_map(|entry| entry.ok().map(|entry| entry.path()));
    let wheel = paths.find(|path| path.extension().is_some_and(|e| e == "whl"));
    wheel.with_context(|| format!("maturin left no wheel in {}", folder.display()))
}

/// Installs the wheel in an environment that has what it depends on.
pub(crate) fn install(python: &Path, wheel: &Path) -> Result<()> {
    let mut pip = Command::new(python);
    pip.args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
    ])
    .args(["--no-deps", "--force-reinstall"])
    .arg(wheel);
    process::run(&mut pip)
}

/// Runs the tests of the installed package, with what the tests' own program is given beyond that.
pub(crate) fn run_tests(python: &Path, variables: &[(&str, &str)]) -> Result<()> {
    let cargo = |arguments: &[&str]| {
        let mut cargo = workspace::cargo();
        cargo.args(arguments);
        cargo.args([
            "--locked",
            "--package",
            "slmrec-run",
            "--package",
            "slmrec-python",
        ]);
        cargo
    };
    // The program that the tests compare with.
    process::run(cargo(&["build"]).args(["--bins"]))?;
    let mut tests = cargo(&["test"]);
    tests
        .args(["--test", "python", "--", "--nocapture"])
        .env(PYTHON_VARIABLE, python)
        .env(INSTALLED_VARIABLE, "1")
        .envs(variables.iter().copied());
    process::run(&mut tests)
}
