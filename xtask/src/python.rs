//! Private Python environments under `.slmrec`, filled by pip.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::{process, workspace};

/// The Python of the environment `.slmrec/NAME` with `packages`; made anew unless it has just these.
///
/// # Errors
/// No python3 with venv, no network, or a package that pip does not find.
pub(crate) fn environment(name: &str, packages: &[&str]) -> Result<PathBuf> {
    let folder = workspace::root().join(".slmrec").join(name);
    let python = folder.join("bin/python");
    let wanted = packages.join("\n");
    if installed(&folder).as_deref() != Some(&wanted) {
        eprintln!("{name}: installing {} with pip", packages.join(", "));
        process::run(
            Command::new("python3")
                .args(["-m", "venv", "--clear"])
                .arg(&folder),
        )?;
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
        let list = list_of(&folder);
        fs::write(&list, wanted).with_context(|| list.display().to_string())?;
    }
    Ok(python)
}

/// Where an environment that is whole says what is in it.
fn list_of(folder: &Path) -> PathBuf {
    folder.join("packages.txt")
}

fn installed(folder: &Path) -> Option<String> {
    fs::read_to_string(list_of(folder)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_environment_that_was_cut_short_is_not_taken() {
        let dir = tempfile::tempdir().expect("temporary folder");
        assert_eq!(installed(dir.path()), None);
        fs::write(list_of(dir.path()), "a==1\nb==2").expect("written");
        assert_eq!(installed(dir.path()).as_deref(), Some("a==1\nb==2"));
    }
}
