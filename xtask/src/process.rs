//! Running other programs: every failure names the command line.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// The command as a person would type it.
pub(crate) fn display(command: &Command) -> String {
    let quote = |part: &OsStr| {
        let part = part.to_string_lossy();
        let plain = |c: char| c.is_alphanumeric() || "-_./=:,+@".contains(c);
        if !part.is_empty() && part.chars().all(plain) {
            part.into_owned()
        } else {
            format!("'{part}'")
        }
    };
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(quote)
        .collect::<Vec<_>>()
        .join(" ")
}

/// Runs a command that shares our terminal.
///
/// # Errors
/// A command that cannot be started or does not end with 0.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| cannot_start(command))?;
    check(command, status.success(), &status.to_string())
}

/// Runs a command and returns its stdout; its stderr goes to our terminal.
///
/// # Errors
/// As [`run`], and output that is not UTF-8.
pub(crate) fn stdout_of(command: &mut Command) -> Result<String> {
    let Output { status, stdout, .. } = command
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| cannot_start(command))?;
    check(command, status.success(), &status.to_string())?;
    String::from_utf8(stdout).with_context(|| format!("stdout of `{}`", display(command)))
}

/// Runs a command and shows each line of its stdout to `line` while it comes.
///
/// # Errors
/// As [`run`].
pub(crate) fn run_lines(command: &mut Command, mut line: impl FnMut(&str)) -> Result<()> {
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| cannot_start(command))?;
    if let Some(stdout) = child.stdout.take() {
        let mut stdout = BufReader::new(stdout);
        let mut bytes = Vec::new();
        while stdout.read_until(b'\n', &mut bytes)? > 0 {
            line(String::from_utf8_lossy(&bytes).trim_end_matches(['\n', '\r']));
            bytes.clear();
        }
    }
    let status = child.wait()?;
    check(command, status.success(), &status.to_string())
}

/// What a child cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    /// Wall time.
    pub(crate) time: Duration,
    /// Largest resident memory in bytes, where the system tells (Linux).
    pub(crate) peak_memory: Option<u64>,
}

/// Runs a command that shares our terminal and measures it.
///
/// # Errors
/// As [`run`].
pub(crate) fn run_measured(command: &mut Command) -> Result<Cost> {
    let start = Instant::now();
    let mut child = command.spawn().with_context(|| cannot_start(command))?;
    let mut peak_memory = None;
    let status = loop {
        // The kernel keeps the high-water mark, so only growth after the last look is missed.
        peak_memory = peak_memory.max(peak_memory_of(&child));
        if let Some(status) = child.try_wait()? {
            break status;
        }
        thread::sleep(Duration::from_millis(50));
    };
    check(command, status.success(), &status.to_string())?;
    Ok(Cost {
        time: start.elapsed(),
        peak_memory,
    })
}

fn peak_memory_of(child: &Child) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

fn cannot_start(command: &Command) -> String {
    format!("cannot start `{}`", display(command))
}

fn check(command: &Command, success: bool, status: &str) -> Result<()> {
    if !success {
        bail!("`{}` failed ({status})", display(command));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_name_the_command() {
        let error = run(Command::new("sh").args(["-c", "exit 3"])).expect_err("exit status 3");
        let message = format!("{error:#}");
        assert!(message.contains("sh -c 'exit 3'"), "{message}");
        let error = run(&mut Command::new("no-such-program-here")).expect_err("not found");
        assert!(format!("{error:#}").contains("no-such-program-here"));
    }

    #[test]
    fn lines_come_one_by_one_and_a_failure_after_them_counts() {
        let mut lines = Vec::new();
        let script = "printf 'a\\nb'; exit 1";
        let result = run_lines(Command::new("sh").args(["-c", script]), |line| {
            lines.push(line.to_owned());
        });
        assert_eq!(lines, ["a", "b"]);
        assert!(result.is_err());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn memory_is_measured() {
        let cost = run_measured(Command::new("sleep").arg("0.2")).expect("sleep runs");
        assert!(cost.time >= Duration::from_millis(200));
        assert!(cost.peak_memory.is_some_and(|bytes| bytes > 100_000));
    }
}
