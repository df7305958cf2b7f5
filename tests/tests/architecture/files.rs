//! Size of committed files.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{expect_none, root};

const MAX_BYTES: u64 = 1 << 20;
const MAX_RUST_LINES: usize = 500;
/// What the first line of a generated file says.
const GENERATED: &str = "@generated";

#[test]
fn committed_files_are_small() {
    let files = committed(&root());
    assert!(files.len() > 50, "git lists {} files", files.len());
    expect_none(&too_large(&root(), &files, MAX_BYTES));
}

#[test]
fn rust_files_are_short() {
    let files = committed(&root());
    expect_none(&too_long(&root(), &files, MAX_RUST_LINES));
}

/// Paths that git tracks and that are there, relative to the root.
fn committed(root: &Path) -> Vec<PathBuf> {
    let git = Command::new("git")
        .args(["ls-files", "-z"])
        .current_dir(root)
        .output()
        .expect("git runs");
    assert!(
        git.status.success(),
        "{}",
        String::from_utf8_lossy(&git.stderr)
    );
    let list = String::from_utf8(git.stdout).expect("UTF-8 paths");
    list.split_terminator('\0')
        .map(PathBuf::from)
        .filter(|path| root.join(path).is_file())
        .collect()
}

fn too_large(root: &Path, files: &[PathBuf], limit: u64) -> Vec<String> {
    let size = |path: &PathBuf| fs::metadata(root.join(path)).expect("a file").len();
    let sizes = files.iter().map(|path| (path, size(path)));
    sizes
        .filter(|(_, bytes)| *bytes > limit)
        .map(|(path, bytes)| format!("{}: {bytes} bytes, at most {limit}", path.display()))
        .collect()
}

fn too_long(root: &Path, files: &[PathBuf], limit: usize) -> Vec<String> {
    let mut wrong = Vec::new();
    for path in files
        .iter()
        .filter(|p| p.extension().is_some_and(|e| e == "rs"))
    {
        let text = fs::read_to_string(root.join(path)).expect("a Rust file");
        let lines = text.lines().count();
        let generated = text.lines().next().is_some_and(|l| l.contains(GENERATED));
        if lines > limit && !generated {
            wrong.push(format!(
                "{}: {lines} lines, at most {limit}",
                path.display()
            ));
        }
    }
    wrong
}

#[test]
fn large_and_long_files_are_found() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let names = ["a.rs", "generated.rs", "notes.md"].map(PathBuf::from);
    fs::write(dir.path().join("a.rs"), "//\n".repeat(11)).expect("written");
    let generated = format!("// {GENERATED} by a tool.\n{}", "//\n".repeat(11));
    fs::write(dir.path().join("generated.rs"), generated).expect("written");
    fs::write(dir.path().join("notes.md"), "\n".repeat(100)).expect("written");

    let long = too_long(dir.path(), &names, 10);
    assert_eq!(long, ["a.rs: 11 lines, at most 10"]);
    let large = too_large(dir.path(), &names, 99);
    assert_eq!(large, ["notes.md: 100 bytes, at most 99"]);
}
