//! Peak memory of a stage, where the system tells it.

use std::fs;

/// Forgets the peak so far, so that the next reading belongs to what comes now. Only Linux can;
/// elsewhere (or without the right) the peak stays that of the whole process.
pub fn reset_peak_memory() {
    // "5" resets VmHWM (proc(5)); a refusal only makes the next reading an upper bound.
    let _ = fs::write("/proc/self/clear_refs", "5");
}

/// Largest resident memory since the last reset, in bytes; `None` where the system does not tell.
#[must_use]
pub fn peak_memory() -> Option<u64> {
    parse_peak(&fs::read_to_string("/proc/self/status").ok()?)
}

fn parse_peak(status: &str) -> Option<u64> {
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kilobytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_line() {
        assert_eq!(
            parse_peak("VmPeak: 9 kB\nVmHWM:\t  2048 kB\n"),
            Some(2 << 20)
        );
        assert_eq!(parse_peak("Name: x\n"), None);
    }
}
