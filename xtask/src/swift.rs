//! A Swift toolchain on Linux: one that is there, or Debian's, in a system of its own.
//!
//! Older Debians have no Swift, so the packages of the first one that has are unpacked beside the
//! workspace (`debootstrap`) and entered with `chroot`. What is mounted into it is mounted in a
//! mount namespace of the command's own, so that nothing stays behind however the command ends.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::{apt, process, workspace};

/// Names a folder with a Linux system that has Swift.
const ROOT_VARIABLE: &str = "SLMREC_SWIFT_ROOT";
const SUITE: &str = "trixie";
const MIRROR: &str = "http://deb.debian.org/debian";
const PACKAGES: [&str; 5] = [
    "swiftlang",
    "swiftlang-dev",
    "libswiftlang",
    "libc6-dev",
    "g++",
];
/// Where Debian has what belongs to Swift and is not on the PATH, its clang first of all.
const TOOLS: &str = "/usr/libexec/swift/bin";

/// A Swift toolchain, and where it runs.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Swift {
    /// On this system.
    Here,
    /// In the system under a folder.
    Root(PathBuf),
}

/// A toolchain that runs, prepared first where that can be done.
///
/// # Errors
/// Why there is none, as a sentence for a notice.
pub(crate) fn ready() -> Result<Swift> {
    ensure!(
        cfg!(target_os = "linux"),
        "the Swift sources are tested on Linux only"
    );
    let swift = match env::var_os(ROOT_VARIABLE) {
        Some(root) => Swift::Root(root.into()),
        None if Swift::Here.version().is_ok() => Swift::Here,
        None => Swift::Root(prepared()?),
    };
    swift.version().context("Swift does not run")?;
    Ok(swift)
}

impl Swift {
    /// A program of the toolchain, in the workspace's folder; in another system, the `shared`
    /// folders are there under the same paths.
    pub(crate) fn command(&self, program: &str, shared: &[&Path]) -> Command {
        match self {
            Self::Here => {
                let mut command = Command::new(program);
                command.current_dir(workspace::root());
                command
            }
            Self::Root(root) => {
                let mut command = inside(root, &workspace::root(), shared);
                command.arg(program);
                command
            }
        }
    }

    /// A program that comes with the toolchain, clang for example. `None` where it is not on the
    /// PATH.
    pub(crate) fn tool(&self, name: &str, shared: &[&Path]) -> Option<Command> {
        match self {
            Self::Here => apt::find(&[name]).map(|_| self.command(name, shared)),
            Self::Root(_) => Some(self.command(&format!("{TOOLS}/{name}"), shared)),
        }
    }

    fn version(&self) -> Result<String> {
        let root = workspace::root();
        let version = process::stdout_of(self.command("swift", &[&root]).arg("--version"))?;
        // Another program has the same name: that of OpenStack's object storage.
        ensure!(version.contains("Swift version"), "swift is {version:?}");
        Ok(version)
    }
}

/// The system beside the workspace, made where it is not there.
fn prepared() -> Result<PathBuf> {
    let folder = workspace::root().join(".slmrec");
    let root = folder.join("swift-root");
    if root.is_dir() {
        return Ok(root);
    }
    fs::create_dir_all(&folder)?;
    apt::program("debootstrap", &["debootstrap", "debian-archive-keyring"])?;
    eprintln!("test-ios: unpacking Debian {SUITE} with Swift into .slmrec/swift-root");
    // Beside its place, so that there is a whole one or none.
    let partial = tempfile::Builder::new()
        .prefix("partial-")
        .tempdir_in(&folder)?;
    let mut bootstrap = Command::new("debootstrap");
    bootstrap
        .args(["--variant=minbase", "--include=ca-certificates", SUITE])
        .arg(partial.path())
        .arg(MIRROR);
    quiet(&mut bootstrap)?;
    for arguments in [&["update"][..], &install()] {
        let mut apt = inside(partial.path(), Path::new("/"), &[]);
        apt.args(["env", "DEBIAN_FRONTEND=noninteractive", "apt-get"]);
        quiet(apt.args(arguments))?;
    }
    quiet(inside(partial.path(), Path::new("/"), &[]).args(["apt-get", "clean"]))?;
    fs::rename(partial.path(), &root).with_context(|| root.display().to_string())?;
    Ok(root)
}

fn install() -> Vec<&'static str> {
    let mut install = vec!["install", "--yes", "--no-install-recommends"];
    install.extend(PACKAGES);
    install
}

/// Shows what a long command said only when it has failed.
fn quiet(command: &mut Command) -> Result<()> {
    let output = command.output()?;
    if !output.status.success() {
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        let mut last: Vec<&str> = said.lines().rev().take(20).collect();
        last.reverse();
        anyhow::bail!("`{}`: {}", process::display(command), last.join("\n"));
    }
    Ok(())
}

/// Mounts what `$0` and the arguments before `--` name into a root, and runs the rest there.
const SCRIPT: &str = r#"set -e
root=$0 folder=$1; shift
mount --rbind /proc "$root/proc"
mount --rbind /dev "$root/dev"
while [ "$1" != -- ]; do
    mkdir -p "$root$1"
    mount --bind "$1" "$root$1"
    shift
done
shift
exec chroot "$root" sh -c 'cd "$0" && exec "$@"' "$folder" "$@""#;

/// What runs a command in the system under `root`, with the `shared` folders mounted; the command's
/// own words are to be added.
fn inside(root: &Path, folder: &Path, shared: &[&Path]) -> Command {
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--propagation", "private", "sh", "-c", SCRIPT])
        .arg(root)
        .arg(folder)
        .args(shared)
        .arg("--")
        // Not this machine's: what is installed there is meant.
        .env(
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        )
        .env("HOME", "/root");
    for name in [OsStr::new("TMPDIR"), OsStr::new("LD_LIBRARY_PATH")] {
        command.env_remove(name);
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_mounted_before_the_command_runs() {
        let swift = Swift::Root("/r".into());
        let command = swift.command("swift", &[Path::new("/a b"), Path::new("/c")]);
        let words: Vec<_> = command.get_args().skip(6).collect();
        let folder = workspace::root();
        let expected = [
            OsStr::new("/r"),
            folder.as_os_str(),
            OsStr::new("/a b"),
            OsStr::new("/c"),
            OsStr::new("--"),
            OsStr::new("swift"),
        ];
        assert_eq!(words, expected);
        let tool = swift.tool("clang", &[]).expect("always there");
        let last = tool.get_args().last().expect("a word");
        assert_eq!(last, "/usr/libexec/swift/bin/clang");
    }

    #[test]
    fn a_failure_shows_what_was_said() {
        let mut command = Command::new("sh");
        let error = quiet(command.args(["-c", "echo out; echo why >&2; exit 1"]));
        let text = format!("{:#}", error.expect_err("exit status 1"));
        assert!(text.contains("out\nwhy"), "{text}");
        assert!(quiet(&mut Command::new("true")).is_ok());
    }
}
