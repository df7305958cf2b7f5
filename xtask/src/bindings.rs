//! `cargo xtask bindings`: writes the generated Kotlin, Swift and C sources anew.

use anyhow::Result;

use crate::{process, workspace};

/// Makes the test that compares the committed sources write them.
const WRITE_VARIABLE: &str = "SLMREC_WRITE_BINDINGS";

/// Write the generated Kotlin, Swift and C sources of `runtime/ffi` anew
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example: cargo xtask bindings\n\nWhether the committed ones are up to date is a \
    test: cargo test -p slmrec-ffi bindings::"
)]
pub(crate) struct Arguments {}

pub(crate) fn run(_arguments: &Arguments) -> Result<()> {
    let mut cargo = workspace::cargo();
    cargo
        .args(["test", "--quiet", "--locked", "--package", "slmrec-ffi"])
        .args(["--test", "border", "bindings::"])
        .env(WRITE_VARIABLE, "1");
    process::run(&mut cargo)
}
