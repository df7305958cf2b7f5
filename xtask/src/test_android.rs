//! `cargo xtask test-android`: what can be checked of the Android library without an Android SDK.
//!
//! The Kotlin sources are compiled and tested on the JVM, on a bundle and a shared library made
//! here, and the ONNX Runtime that the Gradle file names is looked into.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::elf::Elf;
use crate::robolectric::Jars;
use crate::{maven, process, setup, size, workspace};

/// Compile and test the Android library's Kotlin sources on the JVM
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example: cargo xtask test-android\n\nIt needs Java 17, Maven and Maven Central, \
    and says so where they are not there. Beside what `cargo xtask test` runs, the part that knows \
    Android is run in Robolectric, which is a download of some 250 MB. Nothing is run on a device."
)]
pub(crate) struct Arguments {}

/// Which features the shared library is built with: those of its package, or those of the whole
/// workspace, which a test of the workspace has built already.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Build {
    Package,
    Workspace,
}

pub(crate) fn run(_arguments: &Arguments) -> Result<()> {
    test(Build::Package, &setup::onnxruntime()?)
}

/// Robolectric's jars, where they are wanted: a test of the whole workspace does without the download.
fn robolectric(build: Build) -> Option<Jars> {
    let jars = match build {
        Build::Package => Jars::fetch(),
        Build::Workspace => {
            let line =
                "the part that knows Android is compiled only; `cargo xtask test-android` runs it";
            eprintln!("notice: {line}");
            return None;
        }
    };
    (jars.map_err(|why| {
        eprintln!("notice: no Robolectric ({why:#}): the part that knows Android is compiled only")
    }))
    .ok()
}

/// # Errors
/// A test that fails. Not what cannot be had on this machine: that is a notice.
pub(crate) fn test(build: Build, onnxruntime: &Path) -> Result<()> {
    if let Err(why) = maven::ready() {
        eprintln!("notice: {why}: the Kotlin sources are neither compiled nor tested");
        return Ok(());
    }
    let bundle = write_bundle(build)?;
    let library = workspace::target_dir().join("debug/deps");
    let mut tests = tests(&bundle, onnxruntime, &library);
    if let Some(jars) = robolectric(build) {
        tests.args(jars.properties());
    }
    process::run(&mut tests)?;
    check_archives()
}

fn tests(bundle: &Path, onnxruntime: &Path, library: &Path) -> Command {
    let mut tests = maven::maven();
    tests.arg("test");
    for (name, path) in [
        ("bundle", bundle),
        ("onnxruntime", onnxruntime),
        ("library.folder", library),
    ] {
        tests.arg(format!("-Dslmrec.{name}={}", path.display()));
    }
    tests
}

/// The rows of the bench of the border, as JSON: the library as an app ships it, on a small bundle.
pub(crate) fn bench(onnxruntime: &Path) -> Result<String> {
    maven::ready().map_err(anyhow::Error::msg)?;
    let bundle = write_bundle(Build::Package)?;
    let library = size::build(&size::host()?, false)?;
    let folder = library.parent().context("the library has no folder")?;
    let rows = tempfile::NamedTempFile::new()?;
    let mut tests = tests(&bundle, onnxruntime, folder);
    tests
        .arg("--quiet")
        .arg("-Dtest=OverheadBench")
        .arg(format!("-Dslmrec.bench={}", rows.path().display()))
        .stdout(Stdio::null());
    process::run(&mut tests)?;
    Ok(fs::read_to_string(rows.path())?)
}

/// Builds the shared library, which lies beside the tests of its package, and a small bundle.
fn write_bundle(build: Build) -> Result<PathBuf> {
    let folder = workspace::target_dir().join("tmp");
    fs::create_dir_all(&folder)?;
    let bundle = folder.join("test-android.slmrec");
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

const VERSIONS: &str = "android/gradle/libs.versions.toml";
/// ABI folders of an archive and what `readelf` calls their machines.
const ABIS: [(&str, &str); 3] = [
    ("arm64-v8a", "AArch64"),
    ("armeabi-v7a", "ARM"),
    ("x86_64", "Advanced Micro Devices X86-64"),
];
const PAGE: u64 = 16 * 1024;

/// A library with native code that the Gradle file names.
struct Archive {
    /// Its name in the catalog of versions.
    name: &'static str,
    group: &'static str,
    artifact: &'static str,
    library: &'static str,
    /// A function that it must export, under the version of the archive.
    exports: Option<&'static str>,
}

const ARCHIVES: [Archive; 2] = [
    Archive {
        name: "jna",
        group: "net.java.dev.jna",
        artifact: "jna",
        library: "libjnidispatch.so",
        exports: None,
    },
    Archive {
        name: "onnxruntime",
        group: "com.microsoft.onnxruntime",
        artifact: "onnxruntime-android",
        library: "libonnxruntime.so",
        exports: Some("OrtGetApiBase"),
    },
];

/// Whether what the Gradle file names has what an app needs, on every ABI.
fn check_archives() -> Result<()> {
    let catalog = fs::read_to_string(workspace::root().join(VERSIONS))?;
    ARCHIVES
        .iter()
        .try_for_each(|archive| check_archive(archive, &version_of(archive.name, &catalog)?))
}

fn check_archive(archive: &Archive, version: &str) -> Result<()> {
    let Archive {
        group, artifact, ..
    } = archive;
    let name = format!("{group}:{artifact}:{version}:aar");
    let folder = tempfile::tempdir()?;
    if let Err(error) = maven::copy(&name, folder.path()) {
        eprintln!("notice: {name} cannot be fetched ({error:#}): it is not looked into");
        return Ok(());
    }
    let file = folder.path().join(format!("{artifact}-{version}.aar"));
    let mut unpack = Command::new("jar");
    process::run(unpack.arg("xf").arg(&file).current_dir(folder.path()))?;
    for (abi, machine) in ABIS {
        let libraries = folder.path().join("jni").join(abi);
        let elf = Elf::read(&libraries.join(archive.library))?;
        let exports = archive.exports.map(|symbol| (symbol, version));
        check_library(&elf, machine, exports).with_context(|| format!("{name}, {abi}"))?;
    }
    eprintln!("{name}: ABIs, 16 KB pages and exported functions are as an app needs them");
    Ok(())
}

/// The version of `name` in the catalog of versions.
fn version_of(name: &str, catalog: &str) -> Result<String> {
    let start = format!("{name} = \"");
    let value = catalog.lines().find_map(|line| line.strip_prefix(&start));
    let version = value.and_then(|value| value.strip_suffix('"'));
    let version = version.with_context(|| format!("{VERSIONS}: no version of {name}"))?;
    Ok(version.to_owned())
}

fn check_library(elf: &Elf, machine: &str, exports: Option<(&str, &str)>) -> Result<()> {
    ensure!(
        elf.machine == machine,
        "expected a library for {machine}, found one for {}",
        elf.machine
    );
    if let Some((symbol, version)) = exports {
        let expected = format!("VERS_{version}");
        let found = elf.version_of(symbol);
        ensure!(
            found == Some(expected.as_str()),
            "expected {symbol} of {expected}, found {found:?}"
        );
    }
    // 32-bit systems have no pages of 16 KB.
    let fits = |alignment: &u64| alignment.is_multiple_of(PAGE);
    ensure!(
        machine == "ARM" || elf.alignments.iter().all(fits),
        "segments are aligned to {:?} bytes, not to pages of {PAGE}",
        elf.alignments
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn elf() -> Elf {
        Elf {
            machine: "AArch64".into(),
            alignments: vec![0x4000, 0x10000],
            exported: vec!["OrtGetApiBase@@VERS_1.26.0".into()],
        }
    }

    #[test]
    fn a_library_that_does_not_fit_is_refused() {
        let check = |elf: &Elf| check_library(elf, "AArch64", Some(("OrtGetApiBase", "1.26.0")));
        check(&elf()).expect("fits");
        let small_pages = Elf {
            alignments: vec![0x4000, 0x1000],
            ..elf()
        };
        let other_version = Elf {
            exported: vec!["OrtGetApiBase@@VERS_1.20.0".into()],
            ..elf()
        };
        let no_symbol = Elf {
            exported: vec![],
            ..elf()
        };
        let other_machine = Elf {
            machine: "ARM".into(),
            ..elf()
        };
        for bad in [small_pages, other_version, no_symbol, other_machine] {
            assert!(check(&bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_version_is_that_of_the_catalog() {
        let catalog = fs::read_to_string(workspace::root().join(VERSIONS)).expect("committed");
        let version = version_of("onnxruntime", &catalog).expect("a version");
        assert!(version.starts_with("1."), "{version}");
        assert!(version_of("onnxruntime", "jna = \"1\"").is_err());
    }

    /// The Maven project and the Gradle build compile the same sources with the same libraries.
    #[test]
    fn maven_and_gradle_name_the_same_versions() {
        let root = workspace::root();
        let catalog = fs::read_to_string(root.join(VERSIONS)).expect("committed");
        let pom = fs::read_to_string(root.join("android/jvm-tests/pom.xml")).expect("committed");
        for name in ["kotlin", "coroutines", "jna"] {
            let start = format!("<{name}.version>");
            let value = pom
                .split(&start)
                .nth(1)
                .and_then(|rest| rest.split('<').next());
            let version = value.expect("a version in the pom");
            let line = format!("{name} = \"{version}\"");
            assert!(catalog.lines().any(|l| l == line), "{VERSIONS}: no {line}");
        }
    }
}
