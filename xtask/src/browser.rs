//! A headless browser for the tests: one that is there, or Debian's smallest by apt-get.

use std::path::PathBuf;

use crate::apt;

/// Names under which systems have one.
const PROGRAMS: [&str; 5] = [
    "chromium-headless-shell",
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
];
const PACKAGE: &str = "chromium-headless-shell";

/// A browser, installed first where that can be done without asking for a password. `None`, with a
/// notice, where there is none.
pub(crate) fn find_or_install() -> Option<PathBuf> {
    if let Some(found) = apt::find(&PROGRAMS) {
        return Some(found);
    }
    if let Err(why) = apt::install(&[PACKAGE]) {
        eprintln!(
            "notice: no headless browser ({}): {why:#}: the report is not opened in one",
            PROGRAMS.join(", ")
        );
        return None;
    }
    apt::find(&PROGRAMS)
}
