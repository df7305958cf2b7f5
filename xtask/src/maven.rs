//! Java and Maven for the tests of the Kotlin sources.

use std::path::Path;
use std::process::Command;

use crate::{apt, process, workspace};

const PACKAGES: [&str; 2] = ["openjdk-17-jdk-headless", "maven"];
/// The project that compiles and tests the Kotlin sources.
const PROJECT: &str = "android/jvm-tests/pom.xml";

/// Maven with everything that the project needs, installed first where that can be done.
///
/// # Errors
/// Why it cannot run here, as a sentence for a notice.
pub(crate) fn ready() -> Result<(), String> {
    if !runs("mvn") || !runs("javac") {
        apt::install(&PACKAGES)
            .map_err(|why| format!("there is no Java with Maven, and {why:#}"))?;
    }
    let mut resolve = maven();
    resolve.args(["--quiet", "dependency:resolve"]);
    process::run(&mut resolve).map_err(|e| format!("Maven Central cannot be reached ({e:#})"))
}

/// Maven on the project, quiet about downloads.
pub(crate) fn maven() -> Command {
    let mut maven = Command::new("mvn");
    maven
        .args(["--batch-mode", "--no-transfer-progress", "--file"])
        .arg(workspace::root().join(PROJECT));
    maven
}

/// Copies an artifact (`group:name:version:type`) into a folder.
///
/// # Errors
/// What Maven says.
pub(crate) fn copy(artifact: &str, folder: &Path) -> anyhow::Result<()> {
    let mut copy = maven();
    copy.args(["--quiet", "dependency:copy"])
        .arg(format!("-Dartifact={artifact}"))
        .arg(format!("-DoutputDirectory={}", folder.display()));
    process::run(&mut copy)
}

fn runs(program: &str) -> bool {
    let status = Command::new(program).arg("-version").output();
    status.is_ok_and(|output| output.status.success())
}
