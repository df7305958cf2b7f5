//! `cargo xtask test-ios`: what can be checked of the iOS library without a Mac.
//!
//! The Swift sources are compiled and tested on Linux, on a bundle and a shared library made here;
//! clang reads the generated header and its module map; what needs SwiftUI is parsed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::small_bundle::{self, Build};
use crate::swift::{self, Swift};
use crate::{process, setup, workspace};

/// Compile and test the iOS library's Swift sources on Linux
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example: cargo xtask test-ios\n\nIt takes the `swift` on the PATH, or the system \
    that SLMREC_SWIFT_ROOT names,\nor as root on Debian and Ubuntu unpacks Debian's into \
    .slmrec/swift-root (2 GB).\nWhere there is none it says so. Nothing is run on a Mac or an \
    iPhone."
)]
pub(crate) struct Arguments {}

/// The folder of the Swift package.
const PACKAGE: &str = "ios";
const HEADERS: &str = "ios/Sources/SLMRecC/include";
const MODULE: &str = "SLMRecC";

pub(crate) fn run(_arguments: &Arguments) -> Result<()> {
    test(Build::Package, &setup::onnxruntime()?)
}

/// # Errors
/// A test that fails. Not what cannot be had on this machine: that is a notice.
pub(crate) fn test(build: Build, onnxruntime: &Path) -> Result<()> {
    let swift = match swift::ready() {
        Ok(swift) => swift,
        Err(why) => {
            eprintln!("notice: {why:#}: the Swift sources are neither compiled nor tested");
            return Ok(());
        }
    };
    let bundle = small_bundle::write(build)?;
    let shared = shared_folders(onnxruntime)?;
    let shared: Vec<&Path> = shared.iter().map(PathBuf::as_path).collect();
    read_headers(&swift, &shared)?;
    parse_sample(&swift, &shared)?;
    let counts = run_tests(&mut tests(&swift, &shared, &bundle, onnxruntime))?;
    println!("test-ios: {counts}");
    Ok(())
}

/// The workspace, and what may lie outside it.
fn shared_folders(onnxruntime: &Path) -> Result<Vec<PathBuf>> {
    let library = onnxruntime.parent().context("ONNX Runtime has no folder")?;
    let mut folders = vec![workspace::root()];
    for other in [workspace::target_dir(), library.to_owned()] {
        if !other.starts_with(&folders[0]) {
            folders.push(other);
        }
    }
    Ok(folders)
}

fn tests(swift: &Swift, shared: &[&Path], bundle: &Path, onnxruntime: &Path) -> Command {
    let mut tests = swift.command("swift", shared);
    tests
        .args(["test", "--package-path", PACKAGE, "--disable-swift-testing"])
        .arg("--scratch-path")
        .arg(workspace::target_dir().join("swift"))
        .env("SLMREC_LIBRARY_FOLDER", small_bundle::library_folder())
        .env("SLMREC_TEST_BUNDLE", bundle)
        .env("SLMREC_TEST_ONNXRUNTIME", onnxruntime);
    if matches!(swift, Swift::Root(_)) {
        // Of one version. Newer compilers may warn of more, in generated code too.
        tests.args(["-Xswiftc", "-warnings-as-errors"]);
    }
    tests
}

/// Shows what the tests print but for their success; the line with the counts.
fn run_tests(tests: &mut Command) -> Result<String> {
    let mut counts = None;
    process::run_lines(tests, |line| {
        if let Some(all) = counts_in(line) {
            counts = Some(all);
        } else if !is_routine(line) {
            println!("{line}");
        }
    })?;
    let (counts, number) = counts.context("`swift test` says no number of tests")?;
    ensure!(number > 0, "`swift test` has run no test");
    Ok(counts)
}

fn is_routine(line: &str) -> bool {
    line.starts_with("Test Suite '")
        || line.starts_with("Test Case '") && !line.contains("' failed ")
        || line.starts_with('[')
}

/// `Executed 29 tests, with 1 test skipped and 0 failures (0 unexpected) in 12.887 (12.887) seconds`
/// and its number. The last such line of a run is that of all suites.
fn counts_in(line: &str) -> Option<(String, u32)> {
    let line = line.trim();
    let rest = line.strip_prefix("Executed ")?;
    let number = rest.split(' ').next()?.parse().ok()?;
    Some((line.to_owned(), number))
}

/// Reads the generated header as C, and as the module that Swift imports.
fn read_headers(swift: &Swift, shared: &[&Path]) -> Result<()> {
    let folder = workspace::target_dir().join("swift/clang");
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    for (name, text) in [
        ("header.c", format!("#include \"{MODULE}.h\"\n")),
        ("module.m", format!("@import {MODULE};\n")),
    ] {
        let source = folder.join(name);
        fs::write(&source, text)?;
        let Some(mut clang) = swift.tool("clang", shared) else {
            eprintln!("notice: there is no clang: the generated header is read by Swift only");
            return Ok(());
        };
        clang.args([
            "-fsyntax-only",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-I",
            HEADERS,
        ]);
        if name == "module.m" {
            clang.arg("-fmodules");
            clang.arg(format!("-fmodules-cache-path={}", folder.display()));
        }
        process::run(clang.arg(&source))?;
    }
    Ok(())
}

/// Reads what is compiled on a Mac only: the sample's views.
fn parse_sample(swift: &Swift, shared: &[&Path]) -> Result<()> {
    let mut parse = swift.command("swiftc", shared);
    parse.args(["-parse", "-swift-version", "6"]);
    for entry in fs::read_dir(workspace::root().join("ios/Sample"))? {
        parse.arg(entry?.path());
    }
    process::run(&mut parse)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_those_of_the_last_line() {
        let line = "\t Executed 29 tests, with 1 test skipped and 0 failures (0 unexpected) in 1 s";
        let (text, number) = counts_in(line).expect("counts");
        assert_eq!((text.as_str(), number), (line.trim(), 29));
        assert_eq!(counts_in("Test Suite 'A' passed"), None);
    }

    #[test]
    fn failures_are_shown() {
        for line in [
            "Test Case 'A.b' failed (0.1 seconds)",
            "/w/A.swift:3: error: A.b : XCTAssertTrue failed - no",
            "warning: unused",
        ] {
            assert!(!is_routine(line), "{line}");
        }
        assert!(is_routine("Test Case 'A.b' passed (0.1 seconds)"));
        assert!(is_routine("[3/8] Emitting module SLMRec"));
    }

    #[test]
    fn what_lies_outside_the_workspace_is_shared_too() {
        let inside = workspace::root().join(".slmrec/onnxruntime/libonnxruntime.so");
        let mut expected = vec![workspace::root()];
        if !workspace::target_dir().starts_with(&expected[0]) {
            expected.push(workspace::target_dir());
        }
        assert_eq!(shared_folders(&inside).expect("folders"), expected);
        expected.push("/opt/ort".into());
        let outside = Path::new("/opt/ort/libonnxruntime.so");
        assert_eq!(shared_folders(outside).expect("folders"), expected);
    }
}
