//! Steps of the same model, batch and loss against PyTorch's, and ours with two threads against one.

use std::error::Error;

use slmrec_tests::bench::Row;

use super::{python, worker};
use slmrec_tests::bench::process::{Cost, Process, cpu, wall};

/// Steps of one case, and the goals against eager PyTorch.
struct Case {
    name: &'static str,
    title: &'static str,
    warm_up: usize,
    rounds: usize,
    cpu_goal: Option<f64>,
    memory_goal: Option<f64>,
    /// Largest share of the wall time with one thread that two may take.
    threads_goal: Option<f64>,
}

const CASES: [Case; 3] = [
    Case {
        name: "student",
        title: "4-layer student, LoRA r 16, 16 x 50 items, catalog 12k",
        warm_up: 2,
        rounds: 9,
        cpu_goal: Some(0.75),
        memory_goal: Some(0.30),
        threads_goal: Some(TWO_THREADS),
    },
    Case {
        name: "teacher",
        title: "24-layer teacher, LoRA r 16, 16 x 50 items, catalog 12k",
        warm_up: 1,
        rounds: 5,
        cpu_goal: Some(0.70),
        memory_goal: Some(0.40),
        threads_goal: Some(TWO_THREADS),
    },
    Case {
        name: "sasrec",
        title: "SASRec d 128, 2 layers, 128 x 50 items, catalog 3.4k",
        warm_up: 2,
        rounds: 9,
        cpu_goal: Some(0.80),
        memory_goal: None,
        threads_goal: None,
    },
];

/// Two threads at least 1.7 times as fast as one.
const TWO_THREADS: f64 = 1.0 / 1.7;

/// A subject and what its counted steps took.
struct Runner {
    subject: Process,
    costs: Vec<Cost>,
}

pub(super) fn rows(wanted: &dyn Fn(&str) -> bool) -> Result<Vec<Row>, Box<dyn Error>> {
    let mut rows = Vec::new();
    for threads in [1, 2] {
        for case in CASES.iter().filter(|case| wanted(case.name)) {
            let what = format!("{}, threads {threads}", case.title);
            super::say(&what);
            rows.extend(measure(case, &what, threads)?);
        }
    }
    Ok(rows)
}

/// Runs the subjects of a case in turns.
fn measure(case: &Case, what: &str, threads: usize) -> Result<Vec<Row>, Box<dyn Error>> {
    let ours = |threads| Process::start("ours", worker::command()?.arg(case.name), threads);
    let torch = |mode| {
        let mut command = python()?;
        Process::start(mode, command.args([mode, case.name]), threads)
    };
    let mut subjects = vec![ours(threads)?, torch("eager")?, torch("compile")?];
    if threads > 1 {
        subjects.push(ours(1)?);
    }
    let mut runners: Vec<Runner> = (subjects.into_iter())
        .map(|subject| Runner {
            subject,
            costs: Vec::new(),
        })
        .collect();
    for round in 0..case.warm_up + case.rounds {
        for runner in &mut runners {
            let cost = runner.subject.tell("step")?;
            if round >= case.warm_up {
                runner.costs.push(cost);
            }
        }
    }
    let mut rows = compared(what, &runners[0], &runners[1], "PyTorch eager");
    rows[0].goal = case.cpu_goal;
    rows[2].goal = case.memory_goal;
    rows.extend(compared(what, &runners[0], &runners[2], "PyTorch compile"));
    if let Some(one) = runners.get(3) {
        let mut row = wall_row(what, &runners[0], one, "ours, one thread");
        row.goal = case.threads_goal;
        rows.push(row);
    }
    Ok(rows)
}

fn compared(what: &str, ours: &Runner, theirs: &Runner, peer: &str) -> Vec<Row> {
    let own = cpu(&ours.costs);
    vec![
        Row::new(what, "CPU ms per step", own.median())
            .spread(&own)
            .against(peer, cpu(&theirs.costs).median()),
        wall_row(what, ours, theirs, peer),
        Row::new(what, "peak MiB of the process", ours.subject.peak_mib)
            .against(peer, theirs.subject.peak_mib),
    ]
}

fn wall_row(what: &str, ours: &Runner, theirs: &Runner, peer: &str) -> Row {
    let own = wall(&ours.costs);
    Row::new(what, "ms per step", own.median())
        .spread(&own)
        .against(peer, wall(&theirs.costs).median())
}
