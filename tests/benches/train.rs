//! Training steps against PyTorch: the same mathematics on the same cores. Random weights at the
//! widths of SmolLM2-135M.
//!
//! Each subject lives in a process of its own (this program again, or `train.py`), so that its peak
//! memory is its own, and does one step whenever it is told to; the subjects of a case take turns.
//! CPU time is that of the whole process. `SLMREC_BENCH_PYTHON` names a Python with PyTorch,
//! transformers and peft; `cargo xtask bench train` makes one.

use std::env;
use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use slmrec_tests::bench::{Row, Samples, to_json};

#[path = "train/worker.rs"]
mod worker;

const PYTHON: &str = "SLMREC_BENCH_PYTHON";

/// Steps of one case, and the goals against eager PyTorch.
struct Case {
    name: &'static str,
    title: &'static str,
    warm_up: usize,
    rounds: usize,
    cpu_goal: Option<f64>,
    memory_goal: Option<f64>,
}

const CASES: [Case; 3] = [
    Case {
        name: "student",
        title: "4-layer student, LoRA r 16, 16 x 50 items, catalog 12k",
        warm_up: 2,
        rounds: 9,
        cpu_goal: Some(0.75),
        memory_goal: Some(0.30),
    },
    Case {
        name: "teacher",
        title: "24-layer teacher, LoRA r 16, 16 x 50 items, catalog 12k",
        warm_up: 1,
        rounds: 5,
        cpu_goal: Some(0.70),
        memory_goal: Some(0.40),
    },
    Case {
        name: "sasrec",
        title: "SASRec d 128, 2 layers, 128 x 50 items, catalog 3.4k",
        warm_up: 2,
        rounds: 9,
        cpu_goal: Some(0.80),
        memory_goal: None,
    },
];

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().collect();
    if let Some(at) = arguments.iter().position(|a| a == "worker") {
        return worker::run(arguments.get(at + 1).ok_or("worker needs a case")?);
    }
    let only = env::var("SLMREC_BENCH_CASE").ok();
    let mut rows = Vec::new();
    for threads in [1, 2] {
        for case in &CASES {
            if only.as_deref().is_none_or(|name| name == case.name) {
                rows.extend(measure(case, threads)?);
            }
        }
    }
    println!("{}", to_json(&rows)?);
    Ok(())
}

/// Runs the subjects of a case in turns.
fn measure(case: &Case, threads: usize) -> Result<Vec<Row>, Box<dyn Error>> {
    let python = env::var_os(PYTHON).ok_or_else(|| format!("{PYTHON} is not set"))?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/train/torch_worker.py");
    eprintln!("  {}, threads {threads}", case.title);
    let mut subjects = Vec::new();
    subjects.push(Subject::start(
        "ours",
        Command::new(env::current_exe()?).arg("worker"),
        case,
        threads,
    )?);
    for mode in ["eager", "compile"] {
        let mut command = Command::new(&python);
        command.arg(&script).arg(mode);
        subjects.push(Subject::start(mode, &mut command, case, threads)?);
    }
    for round in 0..case.warm_up + case.rounds {
        for subject in &mut subjects {
            subject.step(round >= case.warm_up)?;
        }
    }
    let reports: Vec<Report> = subjects.into_iter().map(Subject::finish).collect();
    let what = format!("{}, threads {threads}", case.title);
    let ours = &reports[0];
    let mut rows = Vec::new();
    for theirs in &reports[1..] {
        let eager = theirs.name == "eager";
        let peer = format!("PyTorch {}", theirs.name);
        let spread = format!(
            " (10-90 %: {:.0}-{:.0})",
            ours.cpu.quantile(0.1),
            ours.cpu.quantile(0.9)
        );
        let mut cpu = Row::new(&what, format!("CPU ms per step{spread}"), ours.cpu.median())
            .against(&peer, theirs.cpu.median());
        let mut memory =
            Row::new(&what, "peak MiB of the process", ours.peak).against(&peer, theirs.peak);
        if eager {
            cpu.goal = case.cpu_goal;
            memory.goal = case.memory_goal;
        }
        rows.push(cpu);
        rows.push(
            Row::new(&what, "ms per step", ours.wall.median()).against(&peer, theirs.wall.median()),
        );
        rows.push(memory);
    }
    Ok(rows)
}

/// A process that does a step when it is told to.
struct Subject {
    name: String,
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    wall: Vec<f64>,
    cpu: Vec<f64>,
    peak: f64,
}

struct Report {
    name: String,
    wall: Samples,
    cpu: Samples,
    peak: f64,
}

impl Subject {
    fn start(
        name: &str,
        command: &mut Command,
        case: &Case,
        threads: usize,
    ) -> Result<Self, Box<dyn Error>> {
        let mut child = command
            .arg(case.name)
            .env("RAYON_NUM_THREADS", threads.to_string())
            .env("CANDLE_NUM_THREADS", threads.to_string())
            .env("OMP_NUM_THREADS", threads.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdin = child.stdin.take().ok_or("no stdin")?;
        let stdout = BufReader::new(child.stdout.take().ok_or("no stdout")?);
        Ok(Self {
            name: name.to_owned(),
            child,
            stdin,
            stdout,
            wall: Vec::new(),
            cpu: Vec::new(),
            peak: 0.0,
        })
    }

    /// One step; its line is wall milliseconds, CPU milliseconds and peak memory in KiB.
    fn step(&mut self, counts: bool) -> Result<(), Box<dyn Error>> {
        self.stdin.write_all(b"step\n")?;
        self.stdin.flush()?;
        let mut line = String::new();
        self.stdout.read_line(&mut line)?;
        let figures: Vec<f64> = line
            .split_whitespace()
            .map(str::parse)
            .collect::<Result<_, _>>()?;
        let [wall, cpu, peak] = figures[..] else {
            return Err(format!("{} printed {line:?}", self.name).into());
        };
        self.peak = self.peak.max(peak / 1024.0);
        if counts {
            self.wall.push(wall);
            self.cpu.push(cpu);
        }
        Ok(())
    }

    fn finish(mut self) -> Report {
        drop(self.stdin);
        let _ = self.child.wait();
        Report {
            name: self.name,
            wall: Samples::new(self.wall),
            cpu: Samples::new(self.cpu),
            peak: self.peak,
        }
    }
}
