//! `cargo xtask demo`: from public data and weights to recommendations, with the product's own
//! commands.

use std::collections::BTreeMap;
use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::process::{self, Cost};
use crate::{setup, workspace};

/// Run the whole pipeline on MovieLens-100K and SmolLM2-135M
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  cargo xtask demo\n  cargo xtask demo --quick    \
    # few layers and epochs: every stage runs, the figures mean little"
)]
pub(crate) struct Arguments {
    /// Where the stages read and write [default: slmrec-work, with --quick slmrec-work/quick]
    #[arg(long, value_name = "DIR")]
    work_dir: Option<PathBuf>,
    /// Few layers and epochs, to see every stage run
    #[arg(long)]
    quick: bool,
}

const DATA: &str = "ml-100k";
const BASE: &str = "smollm2-135m";
const HISTORY: &str = "examples/history.json";
/// What `--quick` changes in the pipeline.
const QUICK: &[&str] = &[
    "pretrain.train.epochs=2",
    "teach.layers=4",
    "teach.train.epochs=1",
    "blend.more_sasrecs=0",
    "distill.layers=2",
    "distill.objective.blocks=2",
    "distill.train.epochs=1",
];

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let library = setup::onnxruntime()?;
    let (work_dir, bundle) = places(arguments)?;
    let programs = build()?;
    let program = |name: &str| -> Result<Command> {
        let path = programs.get(name);
        let path = path.with_context(|| format!("cargo built no program named {name}"))?;
        let mut command = Command::new(path);
        command
            .current_dir(workspace::root())
            .env(setup::DYLIB_VARIABLE, &library)
            .env("ORT_DISABLE_TELEMETRY", "1");
        Ok(command)
    };
    let mut costs = Vec::new();
    for name in [DATA, BASE] {
        let mut fetch = program("slmrec-distill")?;
        costs.push(step(fetch.args(["fetch", name]))?);
    }
    let mut stages = program("slmrec-distill")?;
    stages.args(["run", DATA, "--work-dir"]).arg(&work_dir);
    if arguments.quick {
        stages.args(QUICK.iter().flat_map(|change| ["--set", change]));
        stages
            .arg("--set")
            .arg(format!("export.output={:?}", bundle.display().to_string()));
    }
    costs.push(step(&mut stages)?);
    let mut report = program("slmrec-distill")?;
    report.args(["report", "--work-dir"]).arg(&work_dir);
    costs.push(step(&mut report)?);
    let mut recommend = program("slmrec-run")?;
    recommend.arg(HISTORY);
    if arguments.quick {
        recommend.arg("--bundle").arg(&bundle);
    }
    costs.push(step(&mut recommend)?);
    print_total(&costs);
    Ok(())
}

/// The work directory and the bundle. A quick run must not replace what a whole one made.
fn places(arguments: &Arguments) -> Result<(PathBuf, PathBuf)> {
    let root = workspace::root();
    let default = if arguments.quick {
        "slmrec-work/quick"
    } else {
        "slmrec-work"
    };
    let work_dir = match &arguments.work_dir {
        Some(typed) => env::current_dir()?.join(typed),
        None => root.join(default),
    };
    let folder = if arguments.quick { &work_dir } else { &root };
    let bundle = folder.join("student.slmrec");
    Ok((work_dir, bundle))
}

/// Shows the command as a person would type it, and runs it.
fn step(command: &mut Command) -> Result<Cost> {
    let program = Path::new(command.get_program()).file_stem();
    let mut typed = Command::new(program.unwrap_or(command.get_program()));
    typed.args(command.get_args());
    eprintln!("\n$ {}", process::display(&typed));
    process::run_measured(command)
}

fn print_total(costs: &[Cost]) {
    let time: Duration = costs.iter().map(|cost| cost.time).sum();
    eprintln!(
        "\ndemo: {:.1} min after the build",
        time.as_secs_f64() / 60.0
    );
    match costs.iter().filter_map(|cost| cost.peak_memory).max() {
        Some(bytes) => eprintln!("demo: at most {} MB of memory at once", bytes / 1_000_000),
        None => eprintln!("demo: peak memory is measured on Linux only"),
    }
}

/// A line of `cargo build --message-format=json`, as far as it matters here.
#[derive(Deserialize)]
struct Message {
    reason: String,
    target: Option<Target>,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
}

/// Builds the two programs and returns where they lie.
fn build() -> Result<BTreeMap<String, PathBuf>> {
    let mut cargo = workspace::cargo();
    cargo.args(["build", "--release", "--locked", "--bins"]);
    cargo.args(["--package", "slmrec-distill", "--package", "slmrec-run"]);
    eprintln!("\n$ {}", process::display(&cargo));
    // Diagnostics stay readable: only the list of artifacts is JSON.
    cargo.arg("--message-format=json-render-diagnostics");
    executables(&process::stdout_of(&mut cargo)?)
}

fn executables(messages: &str) -> Result<BTreeMap<String, PathBuf>> {
    let mut found = BTreeMap::new();
    for line in messages.lines() {
        let message: Message = serde_json::from_str(line).context("a message of cargo")?;
        if let ("compiler-artifact", Some(target), Some(path)) =
            (message.reason.as_str(), message.target, message.executable)
        {
            found.insert(target.name, path);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quick_run_keeps_to_itself() {
        let places = |quick| {
            let work_dir = None;
            places(&Arguments { work_dir, quick }).expect("places")
        };
        let (whole, quick) = (places(false), places(true));
        assert!(whole.0.ends_with("slmrec-work") && whole.1.ends_with("student.slmrec"));
        assert_ne!(whole.0, quick.0);
        assert_ne!(whole.1, quick.1);
    }

    #[test]
    fn programs_are_found_in_cargos_messages() {
        let messages = concat!(
            r#"{"reason":"compiler-artifact","target":{"name":"serde"},"executable":null}"#,
            "\n",
            r#"{"reason":"compiler-artifact","target":{"name":"slmrec-run"},"executable":"/t/slmrec-run"}"#,
            "\n",
            r#"{"reason":"build-finished","success":true}"#,
        );
        let found = executables(messages).expect("messages");
        assert_eq!(found.len(), 1);
        assert_eq!(found["slmrec-run"], Path::new("/t/slmrec-run"));
    }
}
