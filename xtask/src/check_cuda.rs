//! `cargo xtask check-cuda`: compiles the CUDA build on a machine without a GPU, with the compiler
//! that pip has. Nothing is linked or run: that takes a driver and a GPU.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::{process, python, workspace};

/// Compiler and headers are parts of one release, which they have to be.
const PACKAGES: [&str; 1] = ["cuda-toolkit[nvcc,cccl,crt,nvvm,cudart,curand]==13.0.2"];
/// What the packages call the release.
const RELEASE: &str = "release 13.0";

/// What is compiled, one after the other.
const FEATURES: [&str; 2] = ["cuda", "nccl"];

/// Compile the CUDA build with a compiler from pip; nothing is run on a GPU (Linux)
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  cargo xtask check-cuda\n  cargo xtask check-cuda --compute-capability 90\n\n\
    The first run fetches about 200 MB and compiles candle's kernels, which takes many minutes."
)]
pub(crate) struct Arguments {
    /// Compute capability that the kernels are compiled for, without the dot
    #[arg(long, value_name = "NUMBER", default_value_t = 80)]
    compute_capability: u32,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let start = Instant::now();
    let python = python::environment("cuda-python", &PACKAGES)?;
    let home = toolkit(&python)?;
    let nvcc = home.join("bin/nvcc");
    let version = process::stdout_of(Command::new(&nvcc).arg("--version"))?;
    ensure!(
        version.contains(RELEASE),
        "{}: expected {RELEASE}, found {}",
        nvcc.display(),
        version.trim()
    );
    for features in FEATURES {
        eprintln!("check-cuda: --features {features}");
        process::run(&mut check(features, arguments, &home, &nvcc)?)?;
    }
    println!(
        "check-cuda: candle's kernels (compute capability {}) compile, and so does slmrec-distill \
         with its tests under --features {} ({:.0} s).\n\
         check-cuda: it was compiled only. Nothing was linked, and nothing was run on a GPU.",
        arguments.compute_capability,
        FEATURES.join(" and "),
        start.elapsed().as_secs_f64()
    );
    Ok(())
}

/// The folder of the toolkit in the environment of `python`.
fn toolkit(python: &Path) -> Result<PathBuf> {
    let code = "import sysconfig; print(sysconfig.get_path('purelib'))";
    let packages = process::stdout_of(Command::new(python).args(["-c", code]))?;
    let home = Path::new(packages.trim()).join("nvidia/cu13");
    ensure!(
        home.join("bin/nvcc").is_file(),
        "{}: expected bin/nvcc, found none; hint: the toolkit's wheels are for Linux",
        home.display()
    );
    Ok(home)
}

/// In a target directory of its own, since other features would make the usual one be built anew.
fn check(features: &str, arguments: &Arguments, home: &Path, nvcc: &Path) -> Result<Command> {
    let mut path = vec![home.join("bin")];
    path.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
    let path = env::join_paths(path).context("PATH")?;
    let threads = thread::available_parallelism()?;
    let mut cargo = workspace::cargo();
    cargo
        .args(["check", "--locked", "--package", "slmrec-distill"])
        .args(["--features", features, "--lib", "--bins", "--tests"])
        .arg("--target-dir")
        .arg(workspace::target_dir().join("cuda"))
        // The kernels' build script would leave half of the cores idle.
        .env("CUDAFORGE_THREADS", threads.to_string())
        .env("CUDA_HOME", home)
        .env("CUDA_PATH", home)
        .env("NVCC", nvcc)
        .env("CUDA_COMPUTE_CAP", arguments.compute_capability.to_string())
        .env("PATH", path);
    Ok(cargo)
}
