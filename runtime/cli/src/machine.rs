//! What this program tells the library about the machine: where to remember things, and which
//! machine it is.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;

use slmrec_runtime::ProviderCache;

/// Where the choice of a provider is remembered; `None` where the environment names no place.
pub(crate) fn provider_cache() -> Option<ProviderCache> {
    Some(ProviderCache {
        folder: cache_folder(|name| std::env::var_os(name))?,
        machine: machine(),
    })
}

/// `SLMREC_CACHE`, or `slmrec` in `XDG_CACHE_HOME`, `LOCALAPPDATA` or `HOME/.cache`, the first that
/// is set.
fn cache_folder(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let folder = |name: &str| {
        let value = variable(name).filter(|value| !value.is_empty())?;
        Some(PathBuf::from(value))
    };
    // A relative XDG_CACHE_HOME is to be ignored, says the XDG base directory specification.
    let xdg = || folder("XDG_CACHE_HOME").filter(|path| path.is_absolute());
    folder("SLMREC_CACHE")
        .or_else(|| Some(xdg()?.join("slmrec")))
        .or_else(|| Some(folder("LOCALAPPDATA")?.join("slmrec")))
        .or_else(|| Some(folder("HOME")?.join(".cache").join("slmrec")))
}

/// Tells machines apart that share a home folder: system, processor, and its name or number where
/// they are to be had.
fn machine() -> String {
    let id = fs::read_to_string("/etc/machine-id").ok();
    let name = || {
        std::env::var("COMPUTERNAME")
            .or_else(|_| std::env::var("HOSTNAME"))
            .ok()
    };
    let id = id.or_else(name).unwrap_or_default();
    let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = processors
        .lines()
        .find_map(|line| line.strip_prefix("model name"));
    let model = model
        .unwrap_or_default()
        .trim_start_matches([' ', '\t', ':']);
    let (system, architecture) = (std::env::consts::OS, std::env::consts::ARCH);
    format!("{system} {architecture} {model} {}", id.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_folder_that_is_named() {
        let of = |set: &[(&str, &str)]| {
            cache_folder(|name| {
                let found = set.iter().find(|(set, _)| *set == name);
                found.map(|(_, value)| (*value).into())
            })
        };
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[("HOME", "/me")]), Some("/me/.cache/slmrec".into()));
        let relative = [("HOME", "/me"), ("XDG_CACHE_HOME", "cache")];
        assert_eq!(of(&relative), Some("/me/.cache/slmrec".into()));
        let all = [
            ("HOME", "/me"),
            ("XDG_CACHE_HOME", "/c"),
            ("SLMREC_CACHE", "/s"),
        ];
        assert_eq!(of(&all), Some("/s".into()));
        assert_eq!(of(&all[..2]), Some("/c/slmrec".into()));
    }
}
