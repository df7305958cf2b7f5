//! `slmrec-run watch` without a terminal; with one, its parts have tests of their own.

use crate::fixture::{failure, stdout, with_bundle};

#[test]
fn says_that_it_needs_a_terminal() {
    let said = failure(with_bundle("fp32").arg("watch"), 1);
    assert!(said.contains("error: watch needs a terminal"), "{said}");
    assert!(said.contains("hint: `slmrec-run history.json`"), "{said}");
}

#[test]
fn help() {
    let help = stdout(with_bundle("fp32").args(["watch", "--help"]));
    assert!(help.contains("Pick items by their titles"), "{help}");
}
