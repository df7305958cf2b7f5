//! The bundle that tests in other languages use. With `SLMREC_WRITE_BUNDLE=PATH` it is left there.

use crate::support;
use std::path::PathBuf;

#[test]
fn the_bundle_is_the_same_every_time() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let kept = std::env::var_os("SLMREC_WRITE_BUNDLE").map(PathBuf::from);
    let first = kept.unwrap_or_else(|| folder.path().join("first.slmrec"));
    let second = folder.path().join("second.slmrec");
    support::write_bundle(&first);
    support::write_bundle(&second);
    let read = |path| std::fs::read(path).expect("written");
    assert!(read(&first) == read(&second));
}
