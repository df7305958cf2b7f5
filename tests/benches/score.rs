//! One recommendation and one appended item through our bundles, beside everything that the same
//! student could run in: PyTorch eager and compiled, a plain fp32 ONNX export (the prompt in the
//! sequence, every position in every layer) in ONNX Runtime, that export through ONNX Runtime's own
//! quantizer, tract; and beside SASRec in PyTorch. Random weights at the widths of SmolLM2-135M, 4
//! layers, 20,000 items, one thread, the best ten items that are not in the history.
//!
//! [`scoring`] times the answers, [`opening`] what it takes to get to the first one, [`floors`] what
//! the machine could do at best, [`forms`] one product in several forms of quantization. Everything
//! takes turns; times are CPU times of the process that
//! works. All but PyTorch runs in the same runtime, so that only the graphs differ. A user vector
//! of another model would make the times worthless: every peer's is compared with ours first.
//!
//! `SLMREC_BENCH_PYTHON` names a Python with PyTorch, transformers, onnx and onnxruntime; `cargo
//! xtask bench score` makes one. `SLMREC_BENCH_CASE` chooses one part: scoring, opening or
//! forms.

use std::env;
use std::error::Error;
use std::path::Path;
use std::process::Command;

use slmrec_tests::bench::process::Process;
use slmrec_tests::bench::to_json;

#[path = "score/floors.rs"]
mod floors;
#[path = "score/forms.rs"]
mod forms;
#[path = "score/opening.rs"]
mod opening;
#[path = "score/scoring.rs"]
mod scoring;
#[path = "score/student.rs"]
mod student;

use student::Student;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().collect();
    if let Some(at) = arguments.iter().position(|a| a == opening::ARGUMENT) {
        return opening::work(&arguments[at + 1..]);
    }
    let only = env::var("SLMREC_BENCH_CASE").ok();
    let wanted = |name: &str| only.as_deref().is_none_or(|only| only == name);
    let mut rows = Vec::new();
    if wanted("forms") {
        eprintln!("  forms of a product");
        rows.extend(forms::rows()?);
    }
    let folder = tempfile::tempdir()?;
    let response = || Student::response(folder.path());
    if wanted("scoring") {
        for student in [&response()?, &Student::item(folder.path())?] {
            let mut command = python("serve")?;
            command.arg(&student.checkpoint);
            let mut python = Process::start("PyTorch", &mut command, 1)?;
            let (floors, measured) = floors::measure(&mut python)?;
            rows.extend(measured);
            for items in [10, 50] {
                eprintln!("  {}, {items} items", student.name);
                let case = scoring::Case { student, items };
                rows.extend(case.rows(&mut python, floors)?);
            }
        }
    }
    if wanted("opening") {
        eprintln!("  opening");
        rows.extend(opening::rows(&response()?)?);
    }
    println!("{}", to_json(&rows)?);
    Ok(())
}

/// Python's side of this bench.
fn python(mode: &str) -> Result<Command, Box<dyn Error>> {
    let mut command = worker("score_worker.py")?;
    command.arg(mode);
    Ok(command)
}

fn worker(script: &str) -> Result<Command, Box<dyn Error>> {
    const PYTHON: &str = "SLMREC_BENCH_PYTHON";
    let python = env::var_os(PYTHON).ok_or_else(|| format!("{PYTHON} is not set"))?;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/score");
    let mut command = Command::new(python);
    command.arg(folder.join(script));
    Ok(command)
}
