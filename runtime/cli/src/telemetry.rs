//! Telemetry off before ONNX Runtime is loaded.
//!
//! The official builds of ONNX Runtime (1.29 and newer) gather facts about machine and program and
//! start an uploader as soon as they are initialised, before any call could switch that off, unless
//! `ORT_DISABLE_TELEMETRY=1` is in the environment. Changing the environment of a running process
//! is not safe in Rust, so the program starts itself anew with the variable set; on Unix the same
//! process is replaced, which costs about a millisecond.

use std::process::Command;

use anyhow::Context;

use crate::failure::Internal;

const VARIABLE: &str = "ORT_DISABLE_TELEMETRY";

/// Returns only in a process that has the variable set.
pub(crate) fn disable() -> anyhow::Result<()> {
    if std::env::var_os(VARIABLE).is_some_and(|value| value == "1") {
        return Ok(());
    }
    let executable = std::env::current_exe().map_err(|e| failed(&e))?;
    let mut command = Command::new(executable);
    command.args(std::env::args_os().skip(1)).env(VARIABLE, "1");
    start(command)
        .map(|never| match never {})
        .context("telemetry of ONNX Runtime cannot be switched off")
}

#[cfg(unix)]
fn start(mut command: Command) -> anyhow::Result<std::convert::Infallible> {
    use std::os::unix::process::CommandExt;
    Err(failed(&command.exec()).into())
}

#[cfg(not(unix))]
fn start(mut command: Command) -> anyhow::Result<std::convert::Infallible> {
    let status = command.status().map_err(|e| failed(&e))?;
    std::process::exit(status.code().unwrap_or(2))
}

fn failed(error: &std::io::Error) -> Internal {
    Internal(format!(
        "the program cannot start itself anew: {error}; hint: set {VARIABLE}=1 yourself"
    ))
}
