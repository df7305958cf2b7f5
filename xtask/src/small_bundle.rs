//! What tests in other languages run on: the shared library and a small bundle.

use std::fs;
use std::path::PathBuf;

use anyhow::{Result, ensure};

use crate::{process, workspace};

/// Which features the shared library is built with: those of its package, or those of the whole
/// workspace, which a test of the workspace has built already.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Build {
    Package,
    Workspace,
}

/// Builds the shared library, which lies in [`library_folder`] then, and writes a small bundle.
///
/// # Errors
/// A build that fails.
pub(crate) fn write(build: Build) -> Result<PathBuf> {
    let folder = workspace::target_dir().join("tmp");
    fs::create_dir_all(&folder)?;
    let bundle = folder.join("small.slmrec");
    let mut cargo = workspace::cargo();
    cargo.args(["test", "--quiet", "--locked", "--test", "border"]);
    match build {
        Build::Package => cargo.args(["--package", "slmrec-ffi"]),
        Build::Workspace => cargo.arg("--workspace"),
    };
    cargo.arg("shared_bundle::");
    process::run(cargo.env("SLMREC_WRITE_BUNDLE", &bundle))?;
    ensure!(bundle.is_file(), "{}: not written", bundle.display());
    Ok(bundle)
}

/// The folder of the shared library: beside the tests of its package.
pub(crate) fn library_folder() -> PathBuf {
    workspace::target_dir().join("debug/deps")
}
