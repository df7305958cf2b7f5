//! `cargo xtask test`: everything that must hold before a change goes in, as steps.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use serde::Deserialize;

use crate::small_bundle::Build;
use crate::{browser, process, python_package, setup, test_android, test_ios, workspace};

/// Run every check: format, lints, tests, documentation, generated code
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  cargo xtask test\n  cargo xtask test --only clippy\n  \
    cargo xtask test --fast    # without the download of real weights and the tests on them"
)]
pub(crate) struct Arguments {
    /// Run this step only (may be given several times)
    #[arg(long, value_enum, value_name = "STEP")]
    only: Vec<Step>,
    /// Leave out what needs the real weights, the libraries for apps and the documentation
    #[arg(long)]
    fast: bool,
}

/// Steps in the order in which they run: cheap ones first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Step {
    /// cargo fmt --check
    Fmt,
    /// `xtask proto --check`
    Proto,
    /// cargo clippy with warnings denied
    Clippy,
    /// Unit and integration tests, on real weights fetched first
    Tests,
    /// The Android library's Kotlin sources on the JVM
    Android,
    /// The iOS library's Swift sources on Linux
    Ios,
    /// Examples in the documentation
    DocTests,
    /// cargo doc with warnings denied
    Docs,
}

/// Where the tests on real weights find them.
const WEIGHTS_VARIABLE: &str = "SLMREC_TEST_GGUF";
const ENCODER_VARIABLE: &str = "SLMREC_TEST_MINILM";
/// What the pipeline's test opens the report with.
const BROWSER_VARIABLE: &str = "SLMREC_TEST_BROWSER";

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let steps = chosen_steps(arguments);
    let library = setup::onnxruntime()?;
    let mut counts = Counts::default();
    let mut done = Vec::new();
    for step in steps {
        let name = name_of(step);
        eprintln!("\n== {name}");
        let start = Instant::now();
        let result = run_step(step, &library, arguments.fast, &mut counts);
        let time = start.elapsed();
        if let Err(error) = result {
            print_summary(&done, &counts);
            bail!("step {name} failed after {}: {error:#}", seconds(time));
        }
        eprintln!("== {name}: ok in {}", seconds(time));
        done.push((name, time));
    }
    print_summary(&done, &counts);
    Ok(())
}

fn chosen_steps(arguments: &Arguments) -> Vec<Step> {
    let mut steps = Step::value_variants().to_vec();
    if !arguments.only.is_empty() {
        steps.retain(|step| arguments.only.contains(step));
    } else if arguments.fast {
        steps.retain(|step| !matches!(step, Step::Android | Step::Ios | Step::Docs));
    }
    steps
}

fn name_of(step: Step) -> String {
    let value = step.to_possible_value();
    value.map_or_else(|| format!("{step:?}"), |v| v.get_name().to_owned())
}

fn run_step(step: Step, library: &Path, fast: bool, counts: &mut Counts) -> Result<()> {
    let mut cargo = workspace::cargo();
    cargo
        .env(setup::DYLIB_VARIABLE, library)
        .env("ORT_DISABLE_TELEMETRY", "1");
    match step {
        Step::Fmt => process::run(cargo.args(["fmt", "--all", "--check"])),
        Step::Proto => process::run(cargo.args(["xtask", "proto", "--check"])),
        Step::Clippy => {
            cargo.args(["clippy", "--workspace", "--all-targets", "--locked"]);
            process::run(cargo.args(["--", "-D", "warnings"]))
        }
        Step::Tests => {
            cargo.args(["test", "--workspace", "--locked", "--no-fail-fast"]);
            cargo.args(["--lib", "--bins", "--tests"]);
            if let Some(browser) = browser::find_or_install() {
                cargo.env(BROWSER_VARIABLE, browser);
            }
            if let Some(python) = python_package::for_tests() {
                cargo.env(python_package::PYTHON_VARIABLE, python);
            }
            if fast {
                cargo.env_remove(WEIGHTS_VARIABLE);
                cargo.env_remove(ENCODER_VARIABLE);
                eprintln!("--fast: tests on real weights do not run");
                cargo.args(["--", "--skip", "real_weights"]);
            } else {
                // Built first, so that the fetching program is the one of the tests: built alone it
                // would have other features, and half of the dependencies would be built twice.
                let mut build = workspace::cargo();
                build.args(["test", "--workspace", "--locked", "--no-run"]);
                process::run(build.args(["--lib", "--bins", "--tests"]))?;
                let weights = fetch("smollm2-135m", weights_in)?;
                let encoder = fetch("minilm", folder_in)?;
                for (name, path) in [(WEIGHTS_VARIABLE, weights), (ENCODER_VARIABLE, encoder)] {
                    eprintln!("{name}={}", path.display());
                    cargo.env(name, path);
                }
            }
            run_tests(&mut cargo, counts)
        }
        Step::Android => test_android::test(Build::Workspace, library),
        Step::Ios => test_ios::test(Build::Workspace, library),
        Step::DocTests => {
            cargo.args(["test", "--workspace", "--locked", "--no-fail-fast", "--doc"]);
            run_tests(&mut cargo, counts)
        }
        Step::Docs => {
            cargo.env("RUSTDOCFLAGS", "-D warnings");
            process::run(cargo.args(["doc", "--workspace", "--no-deps", "--locked"]))
        }
    }
}

/// What `slmrec-distill fetch NAME --format json` prints.
#[derive(Deserialize)]
struct Fetched {
    dir: PathBuf,
    files: Vec<PathBuf>,
}

/// Fetches real weights with the product's own program, which the tests' build has left; `path`
/// finds what is wanted in what it prints.
fn fetch(name: &str, path: fn(&str) -> Result<PathBuf>) -> Result<PathBuf> {
    let program = format!("debug/slmrec-distill{}", env::consts::EXE_SUFFIX);
    let mut fetch = Command::new(workspace::target_dir().join(program));
    fetch.args(["fetch", name, "--format", "json"]);
    path(&process::stdout_of(&mut fetch)?)
        .with_context(|| format!("stdout of `{}`", process::display(&fetch)))
}

fn weights_in(json: &str) -> Result<PathBuf> {
    let fetched: Fetched = serde_json::from_str(json)?;
    let is_gguf = |file: &&PathBuf| file.extension().is_some_and(|e| e == "gguf");
    let file = fetched.files.iter().find(is_gguf);
    let file = file.context("no .gguf file among \"files\"")?;
    Ok(workspace::root().join(&fetched.dir).join(file))
}

fn folder_in(json: &str) -> Result<PathBuf> {
    let fetched: Fetched = serde_json::from_str(json)?;
    Ok(workspace::root().join(fetched.dir))
}

/// Passes the output on and adds its counts up.
fn run_tests(command: &mut Command, counts: &mut Counts) -> Result<()> {
    process::run_lines(command, |line| {
        println!("{line}");
        counts.add(line);
    })
}

/// Results that the test programs printed themselves.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    programs: u64,
    passed: u64,
    failed: u64,
    ignored: u64,
}

impl Counts {
    /// Adds a line like `test result: ok. 3 passed; 0 failed; 1 ignored; ...`; others count nothing.
    fn add(&mut self, line: &str) {
        let Some((_, rest)) = line
            .strip_prefix("test result: ")
            .and_then(|rest| rest.split_once(". "))
        else {
            return;
        };
        self.programs += 1;
        for part in rest.split("; ") {
            match part.split_once(' ') {
                Some((n, "passed")) => self.passed += n.parse().unwrap_or(0),
                Some((n, "failed")) => self.failed += n.parse().unwrap_or(0),
                Some((n, "ignored")) => self.ignored += n.parse().unwrap_or(0),
                _ => {}
            }
        }
    }
}

fn print_summary(done: &[(String, Duration)], counts: &Counts) {
    eprintln!();
    for (name, time) in done {
        eprintln!("{name:<10} ok {:>9}", seconds(*time));
    }
    if counts.programs > 0 {
        let Counts {
            passed,
            failed,
            ignored,
            ..
        } = counts;
        println!("{passed} passed, {failed} failed, {ignored} ignored");
    }
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_those_of_the_test_programs() {
        let mut counts = Counts::default();
        for line in [
            "running 3 tests",
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.0s",
            "test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.0s",
        ] {
            counts.add(line);
        }
        let expected = Counts {
            programs: 2,
            passed: 4,
            failed: 2,
            ignored: 1,
        };
        assert_eq!(counts, expected);
    }

    #[test]
    fn the_weights_are_the_gguf_file() {
        let json =
            r#"{"name": "m", "dir": "/w/m", "files": ["LICENSE", "m.gguf"], "licence": "x"}"#;
        assert_eq!(weights_in(json).expect("found"), Path::new("/w/m/m.gguf"));
        assert_eq!(folder_in(json).expect("found"), Path::new("/w/m"));
        assert!(weights_in(r#"{"dir": "/w", "files": ["LICENSE"]}"#).is_err());
        assert!(weights_in("").is_err());
    }

    #[test]
    fn only_and_fast_choose() {
        let steps = |only: &[Step], fast| {
            chosen_steps(&Arguments {
                only: only.to_vec(),
                fast,
            })
        };
        assert_eq!(
            steps(&[Step::Docs, Step::Fmt], true),
            [Step::Fmt, Step::Docs]
        );
        assert!(!steps(&[], true).contains(&Step::Docs));
        assert!(!steps(&[], true).contains(&Step::Android));
        assert!(!steps(&[], true).contains(&Step::Ios));
        assert_eq!(steps(&[], false), Step::value_variants());
    }
}
