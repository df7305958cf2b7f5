//! `cargo xtask check-engines`: the examples for Ray and Spark on local workers, against the program.

use std::process::Command;

use anyhow::{Context, Result};

use crate::{process, python, python_package};

const PACKAGES: [&str; 7] = [
    "pytest==9.2.0",
    "numpy==2.4.6",
    "pandas==3.1.1",
    "pyarrow==26.0.1",
    "onnxruntime==1.31.1",
    "ray[data]==2.60.0",
    "pyspark==4.3.0",
];
/// Which of the package's tests run.
const SELECTION: (&str, &str) = ("SLMREC_TEST_SELECTION", "engines");

/// Run examples/ray_batch.py and examples/spark_batch.py and compare their rows with slmrec-run's
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: cargo xtask check-engines\n\n\
    Fetches Ray and PySpark (some 700 MB) with pip; Spark needs Java 17 or newer.")]
pub(crate) struct Arguments {}

pub(crate) fn run(_arguments: &Arguments) -> Result<()> {
    let mut java = Command::new("java");
    process::stdout_of(java.arg("--version")).context("Spark needs Java 17 or newer")?;
    let wheel = python_package::wheel()?;
    let python = python::environment("engines-python", &PACKAGES)?;
    python_package::install(&python, &wheel)?;
    python_package::run_tests(&python, &[SELECTION])?;
    println!("check-engines: Ray and Spark give the rows of slmrec-run batch");
    Ok(())
}
