//! Programs and files that Debian and Ubuntu have, installed where that can be done without asking
//! for a password.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::process;

/// The first of these programs on the PATH.
pub(crate) fn find(programs: &[&str]) -> Option<PathBuf> {
    let folders: Vec<PathBuf> = env::split_paths(&env::var_os("PATH")?).collect();
    let places = |name: &&str| {
        let places: Vec<PathBuf> = folders.iter().map(|folder| folder.join(name)).collect();
        places
    };
    let mut places = programs.iter().flat_map(places);
    places.find(|path| path.is_file())
}

/// Sees to it that a program is there.
///
/// # Errors
/// It is not, and cannot be installed.
pub(crate) fn program(name: &str, packages: &[&str]) -> Result<()> {
    if find(&[name]).is_some() {
        return Ok(());
    }
    install(packages).with_context(|| format!("there is no {name}"))?;
    ensure!(find(&[name]).is_some(), "apt-get has installed no {name}");
    Ok(())
}

/// Sees to it that a file is there.
///
/// # Errors
/// It is not, and cannot be installed.
pub(crate) fn file(path: &Path, packages: &[&str]) -> Result<()> {
    if path.is_file() {
        return Ok(());
    }
    install(packages).with_context(|| format!("there is no {}", path.display()))?;
    ensure!(
        path.is_file(),
        "apt-get has installed no {}",
        path.display()
    );
    Ok(())
}

/// Installs packages by apt-get, as root.
///
/// # Errors
/// Another user, no apt-get, no network, no such package.
pub(crate) fn install(packages: &[&str]) -> Result<()> {
    let user = process::stdout_of(Command::new("id").arg("-u"))?;
    ensure!(
        user.trim() == "0",
        "only root may install {}",
        packages.join(", ")
    );
    let apt = |arguments: &[&str]| {
        let mut apt = Command::new("apt-get");
        apt.args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
        process::stdout_of(&mut apt)
    };
    apt(&["update", "--quiet"])?;
    let install = ["install", "--yes", "--quiet", "--no-install-recommends"];
    apt(&[&install, packages].concat())?;
    Ok(())
}
