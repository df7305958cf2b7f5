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
    # fewer epochs: every stage runs, the figures mean little"
)]
pub(crate) struct Arguments {
    /// Where the stages read and write
    #[arg(long, value_name = "DIR", default_value = "slmrec-work")]
    work_dir: PathBuf,
    /// Take `demo-quick.toml` instead of `demo.toml`
    #[arg(long)]
    quick: bool,
}

const HISTORY: &str = "examples/history.json";

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let library = setup::onnxruntime()?;
    let work_dir = env::current_dir()?.join(&arguments.work_dir);
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
    for name in ["ml-100k", "smollm2-135m"] {
        let mut fetch = program("slmrec-distill")?;
        costs.push(step(fetch.args(["fetch", name]))?);
    }
    let pipeline = if arguments.quick {
        "demo-quick.toml"
    } else {
        "demo.toml"
    };
    let mut stages = program("slmrec-distill")?;
    stages.args(["run", pipeline, "--work-dir"]).arg(&work_dir);
    costs.push(step(&mut stages)?);
    let mut recommend = program("slmrec-run")?;
    costs.push(step(recommend.arg(HISTORY))?);
    print_total(&costs);
    Ok(())
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
