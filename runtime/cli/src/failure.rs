//! Errors as a person sees them, and exit codes.

use std::fmt;
use std::process::ExitCode;

use slmrec_runtime::RuntimeError;

/// What was given is wrong, or a check failed.
const USER: u8 = 1;
/// This program is wrong.
const OURS: u8 = 2;

/// A fault that the user cannot mend.
#[derive(Debug)]
pub(crate) struct Internal(pub(crate) String);

impl fmt::Display for Internal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Internal {}

/// Prints an error and gives the exit code; `Ok(false)` is a check that failed and has said so.
pub(crate) fn exit_code(result: anyhow::Result<bool>) -> ExitCode {
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(USER),
        Err(error) => {
            eprintln!("{}", describe(&error));
            ExitCode::from(if is_internal(&error) { OURS } else { USER })
        }
    }
}

/// Help and version are no errors; a mistake on the command line is the user's.
pub(crate) fn usage(error: &clap::Error) -> ExitCode {
    // Nothing better can be done when even this cannot be printed.
    let _ = error.print();
    ExitCode::from(if error.use_stderr() { USER } else { 0 })
}

fn is_internal(error: &anyhow::Error) -> bool {
    let runtime = error.downcast_ref::<RuntimeError>();
    runtime.is_some_and(RuntimeError::is_internal) || error.downcast_ref::<Internal>().is_some()
}

/// `error: ..` and, on a line of its own, `hint: ..`.
fn describe(error: &anyhow::Error) -> String {
    let mut message = String::new();
    for cause in error.chain().map(ToString::to_string) {
        // Most typed errors name their cause themselves.
        if message.contains(&cause) {
            continue;
        }
        if !message.is_empty() {
            message.push_str(": ");
        }
        message.push_str(&cause);
    }
    let mut parts = message.split("; hint: ");
    let mut text = format!("error: {}", parts.next().unwrap_or_default());
    for hint in parts {
        text.push_str("\n  hint: ");
        text.push_str(hint);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_stand_on_their_own_line() {
        let error = anyhow::anyhow!("b is wrong; hint: mend b").context("a");
        assert_eq!(describe(&error), "error: a: b is wrong\n  hint: mend b");
    }
}
