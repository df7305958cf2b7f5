//! What this machine has free.

use std::fs;
use std::path::Path;

use serde::Serialize;

/// Free memory and disk in bytes; `None` where the system does not tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Free {
    /// What the process may still take, plus what it holds already.
    pub memory: Option<u64>,
    /// Free on the disk of the work directory.
    pub disk: Option<u64>,
}

impl Free {
    /// Asks the system. `work_dir` need not exist yet.
    #[must_use]
    pub fn now(work_dir: &Path) -> Self {
        Self {
            memory: free_memory(),
            disk: free_disk(work_dir),
        }
    }
}

/// The least of what the machine and the control group leave. Only Linux tells.
fn free_memory() -> Option<u64> {
    let machine = field(&fs::read_to_string("/proc/meminfo").ok()?, "MemAvailable:")?;
    let held = fs::read_to_string("/proc/self/status").ok();
    let held = held
        .and_then(|status| field(&status, "VmRSS:"))
        .unwrap_or(0);
    let group = group_memory().unwrap_or(u64::MAX);
    Some(machine.min(group).saturating_add(held))
}

/// A number of kilobytes in the form of `/proc`, in bytes.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    let kilobytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    kilobytes.checked_mul(1024)
}

/// What a container may still take (control groups, version 2).
fn group_memory() -> Option<u64> {
    let number = |name: &str| {
        let text = fs::read_to_string(Path::new("/sys/fs/cgroup").join(name)).ok()?;
        text.trim().parse::<u64>().ok()
    };
    Some(number("memory.max")?.saturating_sub(number("memory.current")?))
}

#[cfg(unix)]
fn free_disk(dir: &Path) -> Option<u64> {
    // The directory itself, or the nearest one above it that is there.
    let dir = std::path::absolute(dir).ok()?;
    let there = dir.ancestors().find(|dir| dir.is_dir())?;
    let system = rustix::fs::statvfs(there).ok()?;
    system.f_bavail.checked_mul(system.f_frsize)
}

#[cfg(not(unix))]
fn free_disk(_dir: &Path) -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_lines_of_proc() {
        let text = "MemTotal:  9 kB\nMemAvailable:   2048 kB\n";
        assert_eq!(field(text, "MemAvailable:"), Some(2 << 20));
        assert_eq!(field(text, "VmRSS:"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn linux_tells() {
        let free = Free::now(Path::new("no/such/folder"));
        assert!(
            free.memory > Some(1 << 20) && free.disk.is_some(),
            "{free:?}"
        );
    }
}
