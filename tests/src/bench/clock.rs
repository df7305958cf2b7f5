//! CPU time and memory of this process, and the memory of the machine (Linux).

use std::error::Error;

/// CPU time of all threads of this process so far, in milliseconds. Unlike the time on the wall it
/// does not grow while others have the core. Systems other than Unix: the time on the wall.
#[must_use]
pub fn cpu_ms() -> f64 {
    #[cfg(unix)]
    {
        use rustix::time::{ClockId, clock_gettime};
        let time = clock_gettime(ClockId::ProcessCPUTime);
        time.tv_sec as f64 * 1e3 + time.tv_nsec as f64 / 1e6
    }
    #[cfg(not(unix))]
    {
        use std::{sync::LazyLock, time::Instant};
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        START.elapsed().as_secs_f64() * 1e3
    }
}

/// Largest resident size of this process so far, in KiB.
///
/// # Errors
/// A system without /proc.
pub fn peak_kib() -> Result<u64, Box<dyn Error>> {
    status_kib("/proc/self/status", "VmHWM:")
}

/// Memory that programs could take now, in KiB.
///
/// # Errors
/// A system without /proc.
pub fn available_kib() -> Result<u64, Box<dyn Error>> {
    status_kib("/proc/meminfo", "MemAvailable:")
}

fn status_kib(file: &str, field: &str) -> Result<u64, Box<dyn Error>> {
    let status = std::fs::read_to_string(file)?;
    let line = (status.lines().find_map(|line| line.strip_prefix(field)))
        .ok_or_else(|| format!("no {field} in {file}"))?;
    Ok(line.trim().trim_end_matches("kB").trim().parse()?)
}
