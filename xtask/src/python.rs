//! Private Python environments under `.slmrec`, filled by pip.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::{process, workspace};

/// The Python of the environment `.slmrec/NAME` with `packages`; made anew unless it has just these,
/// or some of these, to which the others are added.
///
/// # Errors
/// No python3 with venv, no network, or a package that pip does not find.
pub(crate) fn environment(name: &str, packages: &[&str]) -> Result<PathBuf> {
    let folder = workspace::root().join(".slmrec").join(name);
    let python = folder.join("bin/python");
    let wanted = packages.join("\n");
    let there = installed(&folder);
    if there.as_deref() != Some(&wanted) {
        eprintln!("{name}: installing {} with pip", packages.join(", "));
        let list = list_of(&folder);
        if there.is_some_and(|there| can_grow(&there, packages)) {
            fs::remove_file(&list).with_context(|| list.display().to_string())?;
        } else {
            process::run(
                Command::new("python3")
                    .args(["-m", "venv", "--clear"])
                    .arg(&folder),
            )?;
        }
        process::run(
            Command::new(&python)
                .args(["-m", "pip", "install", "--quiet"])
                .arg("--disable-pip-version-check")
                .args(packages),
        )
        .with_context(|| {
            let packages = packages.join(", ");
            format!(
                "pip could not install {packages}; hint: this needs the network or a mirror \
                 (PIP_INDEX_URL)"
            )
        })?;
        fs::write(&list, wanted).with_context(|| list.display().to_string())?;
    }
    Ok(python)
}

/// Where an environment that is whole says what is in it.
fn list_of(folder: &Path) -> PathBuf {
    folder.join("packages.txt")
}

/// Whether only additions are missing.
fn can_grow(installed: &str, wanted: &[&str]) -> bool {
    installed.lines().all(|package| wanted.contains(&package))
}

fn installed(folder: &Path) -> Option<String> {
    fs::read_to_string(list_of(folder)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_additions_are_added() {
        assert!(can_grow("a==1\nb==2", &["a==1", "b==2", "c==3"]));
        assert!(!can_grow("a==1\nb==2", &["a==2", "b==2", "c==3"]));
        assert!(!can_grow("a==1\nb==2", &["a==1"]));
    }

    #[test]
    fn an_environment_that_was_cut_short_is_not_taken() {
        let dir = tempfile::tempdir().expect("temporary folder");
        assert_eq!(installed(dir.path()), None);
        fs::write(list_of(dir.path()), "a==1\nb==2").expect("written");
        assert_eq!(installed(dir.path()).as_deref(), Some("a==1\nb==2"));
    }
}
