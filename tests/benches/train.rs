//! Training against PyTorch on the same cores, and against itself without one saving or the other.
//! Random weights at the widths of SmolLM2-135M.
//!
//! [`steps`]: the same model, batch and loss, ours and PyTorch's. [`epoch`]: distillation with all
//! exact savings, without each of them, and as a plain PyTorch loop. [`products`]: how much of a
//! step is matrix products, and how fast they run beside the fastest product of this machine.
//!
//! Each subject lives in a process of its own (this program again, or `torch_worker.py`), so that
//! its peak memory is its own, and does a piece of work whenever it is told to; the subjects of a
//! case take turns. CPU time is that of the whole process. `SLMREC_BENCH_PYTHON` names a Python
//! with PyTorch, transformers and peft; `cargo xtask bench train` makes one. `SLMREC_BENCH_CASE`
//! chooses one case: student, teacher, sasrec, epoch or products.

use std::env;
use std::error::Error;
use std::path::Path;
use std::process::Command;

use slmrec_tests::bench::to_json;

#[path = "train/distiller.rs"]
mod distiller;
#[path = "train/epoch.rs"]
mod epoch;
#[path = "train/models.rs"]
mod models;
#[path = "train/products.rs"]
mod products;
#[path = "train/steps.rs"]
mod steps;
#[path = "train/worker.rs"]
mod worker;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().collect();
    if let Some(at) = arguments.iter().position(|a| a == worker::ARGUMENT) {
        return worker::run(&arguments[at + 1..]);
    }
    let only = env::var("SLMREC_BENCH_CASE").ok();
    let wanted = |name: &str| only.as_deref().is_none_or(|only| only == name);
    let mut rows = steps::rows(&wanted)?;
    if wanted("products") {
        rows.extend(products::rows()?);
    }
    if wanted("epoch") {
        rows.extend(epoch::rows()?);
    }
    say("done");
    println!("{}", to_json(&rows)?);
    Ok(())
}

/// Says what comes next, and how busy the machine is.
fn say(what: &str) {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load: Vec<&str> = load.split_whitespace().take(3).collect();
    eprintln!("  {what} (load {})", load.join(" "));
}

/// PyTorch's side of this bench.
fn python() -> Result<Command, Box<dyn Error>> {
    const PYTHON: &str = "SLMREC_BENCH_PYTHON";
    let python = env::var_os(PYTHON).ok_or_else(|| format!("{PYTHON} is not set"))?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/train/torch_worker.py");
    let mut command = Command::new(python);
    command.arg(script);
    Ok(command)
}
