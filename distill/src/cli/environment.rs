//! What the process needs in its environment to be fast, before its first thread runs.
//!
//! - glibc gives large blocks back to the system when they are freed and takes them again for the
//!   next step: a fifth of a training's time went into clearing pages. Its thresholds are settings of
//!   the environment only.
//! - candle asks how many threads it may use before each matrix product, and without
//!   `RAYON_NUM_THREADS` it reads `/proc/cpuinfo` each time.
//! - candle's other operations share threads of their own that spin and that one caller has at a
//!   time; the parts of a batch would wait for each other.
//!
//! Changing the environment of a running process is not safe in Rust, so the program starts itself
//! anew with what is missing; on Unix the same process is replaced, which costs about a millisecond.
//! What a person has set stays.

use std::process::Command;

const ALLOCATOR: (&str, &str) = (
    "GLIBC_TUNABLES",
    "glibc.malloc.mmap_threshold=1073741824:glibc.malloc.trim_threshold=8589934592",
);

/// Returns in a process that has all of it, or, with a line about it, in one that cannot be replaced.
pub(super) fn complete() {
    let missing: Vec<_> = (wanted().into_iter())
        .filter(|(name, _)| std::env::var_os(name).is_none())
        .collect();
    if missing.is_empty() {
        return;
    }
    let started = std::env::current_exe().and_then(|executable| {
        let mut command = Command::new(executable);
        command.args(std::env::args_os().skip(1)).envs(missing);
        start(command)
    });
    let Err(error) = started;
    eprintln!("notice: the program cannot start itself anew: {error}; trainings are slower");
}

fn wanted() -> Vec<(&'static str, String)> {
    let mut wanted = vec![
        ("RAYON_NUM_THREADS", threads().to_string()),
        ("CANDLE_NUM_THREADS", "1".to_owned()),
    ];
    if cfg!(all(target_os = "linux", target_env = "gnu")) {
        wanted.push((ALLOCATOR.0, ALLOCATOR.1.to_owned()));
    }
    wanted
}

/// Cores, as far as the process may use them: two threads of one core gain nothing in a matrix
/// product.
fn threads() -> usize {
    let usable = std::thread::available_parallelism().map_or(1, usize::from);
    usable.min(num_cpus::get_physical()).max(1)
}

#[cfg(unix)]
fn start(mut command: Command) -> std::io::Result<std::convert::Infallible> {
    use std::os::unix::process::CommandExt;
    Err(command.exec())
}

#[cfg(not(unix))]
fn start(mut command: Command) -> std::io::Result<std::convert::Infallible> {
    let status = command.status()?;
    std::process::exit(status.code().unwrap_or(2))
}
