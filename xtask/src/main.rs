//! Project tasks, as `cargo xtask TASK`. One file per task; none of our crates is a dependency,
//! since a task runs commands and must work before anything else compiles.

mod apt;
mod bench;
mod bindings;
mod browser;
mod check_arm;
mod check_cuda;
mod check_engines;
mod demo;
mod elf;
mod maven;
mod process;
mod proto;
mod python;
mod python_package;
mod robolectric;
mod setup;
mod size;
mod test;
mod test_android;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Project tasks of SLMRec.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    Setup(setup::Arguments),
    Test(test::Arguments),
    Demo(demo::Arguments),
    Bench(bench::Arguments),
    CheckArm(check_arm::Arguments),
    CheckCuda(check_cuda::Arguments),
    CheckEngines(check_engines::Arguments),
    CheckWheel(python_package::Arguments),
    Proto(proto::Arguments),
    Bindings(bindings::Arguments),
    Size(size::Arguments),
    TestAndroid(test_android::Arguments),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().task {
        Task::Setup(arguments) => setup::run(&arguments),
        Task::Test(arguments) => test::run(&arguments),
        Task::Demo(arguments) => demo::run(&arguments),
        Task::Bench(arguments) => bench::run(&arguments),
        Task::CheckArm(arguments) => check_arm::run(&arguments),
        Task::CheckCuda(arguments) => check_cuda::run(&arguments),
        Task::CheckEngines(arguments) => check_engines::run(&arguments),
        Task::CheckWheel(arguments) => python_package::run(&arguments),
        Task::Proto(arguments) => proto::run(&arguments),
        Task::Bindings(arguments) => bindings::run(&arguments),
        Task::Size(arguments) => size::run(&arguments),
        Task::TestAndroid(arguments) => test_android::run(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
