//! Debian packages for checks that need more than Rust.

use std::process::Command;

use crate::process;

/// Installs packages where that can be done without asking for a password.
///
/// # Errors
/// Why nothing was installed, as a part of a sentence.
pub(crate) fn install(packages: &[&str]) -> Result<(), String> {
    let mut id = Command::new("id");
    match process::stdout_of(id.arg("-u")) {
        Ok(user) if user.trim() == "0" => {}
        _ => return Err("only root may install it".to_owned()),
    }
    let install = ["install", "--yes", "--quiet", "--no-install-recommends"];
    let install = [&install[..], packages].concat();
    for arguments in [&["update", "--quiet"][..], &install] {
        let mut apt = Command::new("apt-get");
        apt.args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
        process::stdout_of(&mut apt).map_err(|e| format!("apt-get did not install it ({e:#})"))?;
    }
    Ok(())
}
