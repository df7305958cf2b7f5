//! `cargo xtask check-arm`: catalog scoring on ARM's vector instructions, under emulation, and what
//! phones run compiled for Android and iOS. Nothing is run on a phone.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::{apt, process, workspace};

/// Where the tests run.
const LINUX: &str = "aarch64-unknown-linux-gnu";
/// What is compiled only: there is no linker for them without an NDK or Xcode.
const PHONES: [&str; 2] = ["aarch64-linux-android", "aarch64-apple-ios"];
/// What phones run, without tract, which they do without. Those that a checkout does not have are
/// left out.
const PACKAGES: [(&str, &str); 2] = [("slmrec-runtime", "runtime"), ("slmrec-ffi", "runtime/ffi")];
const EMULATOR: &str = "qemu-aarch64-static";
const LINKER: &str = "aarch64-linux-gnu-gcc";
/// Where Debian has the libraries of that linker.
const LIBRARIES: &str = "/usr/aarch64-linux-gnu";
/// The vector multiplications of int8 and of f32 rows, as a disassembler names them.
const VECTOR_INSTRUCTIONS: [&str; 2] = ["smlal2", "fmla"];

/// Run the tests of catalog scoring on emulated ARM; compile the runtime for Android and iOS (Linux)
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example: cargo xtask check-arm\n\n\
    Needs rustup, and as root on Debian installs the compiler and the emulator that it needs. What\n\
    cannot be had is named, and what needs it is left out."
)]
pub(crate) struct Arguments {}

pub(crate) fn run(_arguments: &Arguments) -> Result<()> {
    let mut done = Vec::new();
    match can_run_tests() {
        Ok(()) => {
            run_tests()?;
            done.push("slmrec-core passes its tests on emulated ARM".to_owned());
            ensure_vectors()?;
            done.push(format!("its kernels have {}", VECTOR_INSTRUCTIONS.join(" and ")));
        }
        Err(why) => eprintln!("notice: {why:#}: no test was run on emulated ARM"),
    }
    for target in PHONES {
        match has_target(target).and_then(|()| has_zstd()) {
            Ok(()) => {
                for package in compile(target)? {
                    done.push(format!("{package} compiles for {target}"));
                }
            }
            Err(why) => eprintln!("notice: {why:#}: nothing was compiled for {target}"),
        }
    }
    ensure!(!done.is_empty(), "none of the tools that this needs can be had");
    println!("check-arm: {}", done.join("; "));
    Ok(())
}

fn can_run_tests() -> Result<()> {
    has_target(LINUX)?;
    apt::program(LINKER, &["gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"])?;
    apt::program(EMULATOR, &["qemu-user-static"])
}

/// Adds the standard library of a target to the toolchain, where it is not there yet.
fn has_target(target: &str) -> Result<()> {
    let mut rustup = Command::new("rustup");
    rustup.args(["target", "add", target]).current_dir(workspace::root());
    process::run(&mut rustup).with_context(|| format!("no standard library for {target}"))
}

/// zstd is in C, which takes a compiler for the target. Where nothing is linked, any zstd's header
/// serves.
fn has_zstd() -> Result<()> {
    apt::file(Path::new("/usr/include/zstd.h"), &["libzstd-dev", "pkg-config"])
}

fn run_tests() -> Result<()> {
    let mut cargo = for_linux("test");
    // The dev profile, as everywhere: its own crates are hardly optimised, its tests the same.
    process::run(cargo.args(["--lib"]))
}

fn for_linux(command: &str) -> Command {
    let mut cargo = workspace::cargo();
    let variable = |name: &str| {
        format!("CARGO_TARGET_{}_{name}", LINUX.to_uppercase().replace('-', "_"))
    };
    cargo
        .args([command, "--locked", "--package", "slmrec-core", "--target", LINUX])
        .env(variable("LINKER"), LINKER)
        .env(variable("RUNNER"), format!("{EMULATOR} -L {LIBRARIES}"));
    cargo
}

/// Whether the compiler has found the vector instructions, in the optimised library.
fn ensure_vectors() -> Result<()> {
    todo!()
}

/// Compiles what phones run; the packages.
fn compile(target: &str) -> Result<Vec<&'static str>> {
    let there = |(_, folder): &&(&str, &str)| workspace::root().join(folder).is_dir();
    let packages: Vec<&str> = PACKAGES.iter().filter(there).map(|(name, _)| *name).collect();
    let mut cargo = workspace::cargo();
    cargo.args(["check", "--locked", "--no-default-features", "--target", target]);
    for package in &packages {
        cargo.args(["--package", package]);
    }
    cargo
        .env("ZSTD_SYS_USE_PKG_CONFIG", "1")
        .env("PKG_CONFIG_ALLOW_CROSS", "1");
    process::run(&mut cargo)?;
    Ok(packages)
}
