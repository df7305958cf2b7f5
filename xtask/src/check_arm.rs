//! `cargo xtask check-arm`: catalog scoring on ARM's vector instructions, under emulation, and what
//! phones run compiled for Android and iOS. Nothing is run on a phone.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::{apt, process, workspace};

/// Where the tests run.
const LINUX: &str = "aarch64-unknown-linux-gnu";
/// What is compiled only: there is no linker for them without an NDK or Xcode.
const PHONES: [&str; 2] = ["aarch64-linux-android", "aarch64-apple-ios"];
/// What phones run, without tract, which they do without. Those that a checkout does not have are
/// left out.
const PACKAGES: [(&str, &str); 2] = [("slmrec-runtime", "runtime"), ("slmrec-ffi", "runtime/ffi")];
const EMULATOR: &str = "qemu-aarch64-static";
const COMPILER: &str = "aarch64-linux-gnu-gcc";
const DISASSEMBLER: &str = "aarch64-linux-gnu-objdump";
/// Where Debian has the libraries of that compiler.
const LIBRARIES: &str = "/usr/aarch64-linux-gnu";
/// The vector multiplications of int8 and of f32 rows, as a disassembler names them.
const VECTOR_INSTRUCTIONS: [&str; 2] = ["smlal2", "fmla"];

/// Run the tests of catalog scoring on emulated ARM; compile the runtime for Android and iOS (Linux)
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: cargo xtask check-arm\n\n\
    Needs rustup, and as root on Debian installs the compiler and the emulator that it needs. What\n\
    cannot be had is named, and what needs it is left out.")]
pub(crate) struct Arguments {}

pub(crate) fn run(_arguments: &Arguments) -> Result<()> {
    let mut done = Vec::new();
    match can_run_tests() {
        Ok(()) => {
            let program = run_tests()?;
            let vectors = vector_instructions(&program)?;
            done.push(format!(
                "slmrec-core passes its tests on emulated ARM, its kernels with {vectors}"
            ));
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
    ensure!(
        !done.is_empty(),
        "none of the tools that this needs can be had"
    );
    println!("check-arm: {}", done.join("; "));
    Ok(())
}

fn can_run_tests() -> Result<()> {
    has_target(LINUX)?;
    apt::program(
        COMPILER,
        &["gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"],
    )?;
    apt::program(EMULATOR, &["qemu-user-static"])
}

/// Adds the standard library of a target to the toolchain, where it is not there yet.
fn has_target(target: &str) -> Result<()> {
    let mut rustup = Command::new("rustup");
    rustup
        .args(["target", "add", target])
        .current_dir(workspace::root());
    process::run(&mut rustup).with_context(|| format!("no standard library for {target}"))
}

/// zstd is in C, which takes a compiler for the target. Where nothing is linked, any zstd's header
/// serves.
fn has_zstd() -> Result<()> {
    apt::file(
        Path::new("/usr/include/zstd.h"),
        &["libzstd-dev", "pkg-config"],
    )
}

/// Runs the tests; the program that they are in.
///
/// Optimised: in the dev profile the compiler makes no vectors.
fn run_tests() -> Result<PathBuf> {
    let mut build = for_linux();
    build.args(["--no-run", "--message-format", "json"]);
    let program = program_in(&process::stdout_of(&mut build)?)?;
    process::run(&mut for_linux())?;
    Ok(program)
}

fn for_linux() -> Command {
    let name = LINUX.to_uppercase().replace('-', "_");
    let mut cargo = workspace::cargo();
    cargo
        .args([
            "test",
            "--release",
            "--locked",
            "--package",
            "slmrec-core",
            "--lib",
        ])
        .args(["--target", LINUX])
        .env(format!("CARGO_TARGET_{name}_LINKER"), COMPILER)
        .env(
            format!("CARGO_TARGET_{name}_RUNNER"),
            format!("{EMULATOR} -L {LIBRARIES}"),
        );
    cargo
}

/// The test program that cargo's messages name.
fn program_in(messages: &str) -> Result<PathBuf> {
    #[derive(Deserialize)]
    struct Message {
        executable: Option<PathBuf>,
    }
    let named = |line| serde_json::from_str::<Message>(line).ok()?.executable;
    let program = messages.lines().find_map(named);
    program.context("cargo names no test program")
}

/// How often each of [`VECTOR_INSTRUCTIONS`] stands in the functions that score a catalog.
///
/// # Errors
/// One that is nowhere: a kernel has fallen back to one value at a time.
fn vector_instructions(program: &Path) -> Result<String> {
    let mut objdump = Command::new(DISASSEMBLER);
    let code = process::stdout_of(objdump.args(["--disassemble", "--demangle"]).arg(program))?;
    let counts = VECTOR_INSTRUCTIONS.map(|name| (name, count_of(name, &code)));
    for (name, count) in counts {
        ensure!(count > 0, "no {name} in the code that scores a catalog");
    }
    Ok(counts
        .map(|(name, count)| format!("{count} {name}"))
        .join(", "))
}

/// Occurrences of an instruction in functions of `slmrec_core::item_table` and `slmrec_core::scan`,
/// of a disassembly like `0000 <slmrec_core::scan::best>:` and `  10: 4e20 fmla v0.4s, v1.4s`.
fn count_of(instruction: &str, code: &str) -> usize {
    let mut ours = false;
    let mut count = 0;
    for line in code.lines() {
        if line.ends_with(">:") {
            ours = ["item_table", "scan"]
                .iter()
                .any(|module| line.contains(&format!("slmrec_core::{module}::")))
                && !line.contains("::tests::");
        } else if ours && line.split_whitespace().any(|word| word == instruction) {
            count += 1;
        }
    }
    count
}

/// Compiles what phones run; the packages.
fn compile(target: &str) -> Result<Vec<&'static str>> {
    let there = |(_, folder): &&(&str, &str)| workspace::root().join(folder).is_dir();
    let packages: Vec<&str> = PACKAGES
        .iter()
        .filter(there)
        .map(|(name, _)| *name)
        .collect();
    let mut cargo = workspace::cargo();
    cargo.args([
        "check",
        "--locked",
        "--no-default-features",
        "--target",
        target,
    ]);
    for package in &packages {
        cargo.args(["--package", package]);
    }
    cargo
        .env("ZSTD_SYS_USE_PKG_CONFIG", "1")
        .env("PKG_CONFIG_ALLOW_CROSS", "1");
    process::run(&mut cargo)?;
    Ok(packages)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_are_counted_where_catalogs_are_scored() {
        let code = "0010 <slmrec_core::scan::best>:\n 10:\t4e20\tfmla\tv0.4s, v1.4s, v2.4s\n\
            14:\t4e20\tfmla\tv0.4s, v1.4s, v2.4s\n 18:\t4e20\tfmladd\tx0\n\
            0020 <slmrec_core::metrics::add>:\n 20:\t4e20\tfmla\tv0.4s\n\
            0030 <slmrec_core::scan::tests::best>:\n 30:\t4e20\tfmla\tv0.4s\n";
        assert_eq!(count_of("fmla", code), 2);
        assert_eq!(count_of("smlal2", code), 0);
    }

    #[test]
    fn the_test_program_is_what_cargo_names() {
        let messages = "{\"reason\":\"a\",\"executable\":null}\nnoise\n\
            {\"reason\":\"b\",\"executable\":\"/t/core-1\"}\n";
        assert_eq!(program_in(messages).expect("named"), Path::new("/t/core-1"));
        assert!(program_in("").is_err());
    }
}
