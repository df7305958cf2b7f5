//! The rules of ARCHITECTURE.md, checked: which way crates may depend, what libraries may not do,
//! how large files may be. Each checker has tests of its own that show it failing.

mod dependencies;
mod files;
mod rust_code;
mod sources;

use std::path::{Path, PathBuf};

/// The workspace's root.
fn root() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests
        .parent()
        .expect("tests/ lies in the workspace")
        .to_path_buf()
}

/// Fails with all violations, one a line.
fn expect_none(violations: &[String]) {
    assert!(violations.is_empty(), "\n{}\n", violations.join("\n"));
}
