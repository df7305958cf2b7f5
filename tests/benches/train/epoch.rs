//! An epoch of distillation: with all exact savings, without each of them, and as a plain PyTorch
//! loop that runs teacher and student with the prompt in every row. All go through the same windows.

use std::error::Error;
use std::path::Path;

use slmrec_distill::train::TrainingData;
use slmrec_tests::bench::{Row, Samples};

use super::{distiller, python, worker};
use slmrec_tests::bench::process::{Cost, Process};

const PASSES: usize = 3;
/// Largest share of the plain PyTorch loop's time that all savings together may take.
const GOAL: f64 = 0.25;
/// Epochs that one filling of the teacher cache may serve.
const EPOCHS: [usize; 2] = [2, 4];
/// Two ways to the same loss may differ by this much, relatively: half floats in the teacher cache,
/// sums in another order.
const TOLERANCE: f64 = 1e-3;

const ALL: &str = "all";
const TORCH: &str = "torch";
/// Ways that leave out one saving, by the name that the worker knows them by, and what they are.
const WITHOUT: [(&str, &str); 5] = [
    ("live", "the teacher at every step"),
    ("unshared", "the prompt in every row"),
    ("padded", "rows padded to the longest of their batch"),
    (
        "padded-unsorted",
        "rows padded, batches not sorted by length",
    ),
    ("unfused", "decoder layers in candle's operations"),
];
/// One target a history: the last layer where it is read, and everywhere.
const LAST: [&str; 2] = ["last", "last-everywhere"];

/// A subject and its costs, epoch by epoch.
struct Runner {
    name: &'static str,
    subject: Process,
    epochs: Vec<Vec<Cost>>,
}

impl Runner {
    /// CPU milliseconds of each epoch.
    fn cpu(&self) -> Samples {
        let sum = |costs: &Vec<Cost>| costs.iter().map(|cost| cost.cpu_ms).sum();
        Samples::new(self.epochs.iter().map(sum).collect())
    }
}

pub(super) fn rows() -> Result<Vec<Row>, Box<dyn Error>> {
    let data = distiller::data()?;
    let items: usize = data.windows().map(|window| window.len - 1).sum();
    let title = format!(
        "distillation epoch: 4 layers from 24, prompt 40, {} windows of {:.0} items",
        data.len(),
        items as f64 / data.len() as f64
    );
    super::say(&title);
    let folder = tempfile::tempdir()?;
    let mut fill = Runner {
        name: "fill",
        subject: Process::start("fill", worker::command()?.arg("fill"), 1)?,
        epochs: Vec::new(),
    };
    let cache = folder.path().join("states");
    fill.subject.tell(&cache.to_string_lossy())?;
    let mut runners = start(&cache)?;
    run(&data, folder.path(), &mut fill, &mut runners)?;
    report(&title, &data, &fill, &runners)
}

fn start(cache: &Path) -> Result<Vec<Runner>, Box<dyn Error>> {
    let without = WITHOUT.iter().map(|(name, _)| *name);
    let mut runners = Vec::new();
    for name in [ALL].into_iter().chain(without).chain(LAST) {
        let mut command = worker::command()?;
        command.args(["distill", name]).arg(cache);
        runners.push(Runner {
            name,
            subject: Process::start(name, &mut command, 1)?,
            epochs: Vec::new(),
        });
    }
    runners.push(Runner {
        name: TORCH,
        subject: Process::start(TORCH, python()?.args(["eager", "distill"]), 1)?,
        epochs: Vec::new(),
    });
    Ok(runners)
}

/// The subjects take turns batch by batch; the cache is filled once an epoch, elsewhere.
fn run(
    data: &TrainingData,
    folder: &Path,
    fill: &mut Runner,
    runners: &mut [Runner],
) -> Result<(), Box<dyn Error>> {
    let batches = distiller::batches(data);
    let step = |runner: &mut Runner, number: usize| {
        let windows = &batches[number];
        let lengths = windows
            .iter()
            .map(|w| (data.items(*w).len() - 1).to_string());
        let line = match runner.name {
            TORCH => lengths.collect::<Vec<_>>().join(" "),
            _ => number.to_string(),
        };
        runner.subject.tell(&line)
    };
    let first = runners
        .iter_mut()
        .map(|runner| Ok((runner.name, step(runner, 0)?.loss)))
        .collect::<Result<Vec<_>, Box<dyn Error>>>()?;
    check_losses(&first)?;
    for pass in 0..PASSES {
        for runner in runners.iter_mut() {
            runner.epochs.push(Vec::new());
        }
        for number in 0..batches.len() {
            for runner in runners.iter_mut() {
                let cost = step(runner, number)?;
                runner.epochs[pass].push(cost);
            }
        }
        let again = folder.join(format!("states-{pass}"));
        let cost = fill.subject.tell(&again.to_string_lossy())?;
        fill.epochs.push(vec![cost]);
        std::fs::remove_dir_all(again)?;
    }
    Ok(())
}

/// A saving is exact: the first batch has the same loss without it.
fn check_losses(losses: &[(&str, f64)]) -> Result<(), Box<dyn Error>> {
    let of = |name: &str| {
        let found = losses.iter().find(|(known, _)| *known == name);
        found.map_or(f64::NAN, |(_, loss)| *loss)
    };
    let same = [
        (ALL, "live"),
        (ALL, "unshared"),
        (ALL, "padded"),
        (ALL, "unfused"),
        (LAST[0], LAST[1]),
    ];
    for (with, without) in same {
        let (left, right) = (of(with), of(without));
        if (left - right).abs() > TOLERANCE * left.abs() || !left.is_finite() {
            return Err(format!("the loss is {left} ({with}), but {right} ({without})").into());
        }
    }
    Ok(())
}

fn report(
    title: &str,
    data: &TrainingData,
    fill: &Runner,
    runners: &[Runner],
) -> Result<Vec<Row>, Box<dyn Error>> {
    const METRIC: &str = "CPU s an epoch";
    let of = |name: &str| {
        let runner = runners.iter().find(|runner| runner.name == name);
        runner.ok_or_else(|| format!("no subject {name}"))
    };
    let seconds = |runner: &Runner| runner.cpu().median() / 1e3;
    let (all, torch) = (of(ALL)?, of(TORCH)?);
    let row = |what: &str, metric: &str, runner: &Runner| {
        let spread = runner.cpu().scaled(1e-3);
        Row::new(format!("{title}: {what}"), metric, spread.median()).spread(&spread)
    };
    let plain = "plain PyTorch loop";
    let mut rows = vec![
        row("all savings", METRIC, all)
            .against(plain, seconds(torch))
            .goal(GOAL),
    ];
    for epochs in EPOCHS {
        let amortised = seconds(all) + seconds(fill) / epochs as f64;
        let what = format!("{title}: all savings, with 1/{epochs} of filling the teacher cache");
        let row = Row::new(what, METRIC, amortised).against(plain, seconds(torch));
        rows.push(row.goal(GOAL));
    }
    rows.push(
        Row::new(
            format!("{title}: all savings"),
            "peak MiB of the process",
            all.subject.peak_mib,
        )
        .against(plain, torch.subject.peak_mib),
    );
    let fill_ms = fill.cpu().scaled(1.0 / data.len() as f64);
    let what = format!("{title}: filling the teacher cache");
    rows.push(Row::new(what, "CPU ms a window", fill_ms.median()).spread(&fill_ms));
    for (name, peer) in WITHOUT {
        rows.push(row("all savings", METRIC, all).against(peer, seconds(of(name)?)));
    }
    let last = "one target a history, the last layer where it is read";
    rows.push(
        row(last, METRIC, of(LAST[0])?).against("the last layer everywhere", seconds(of(LAST[1])?)),
    );
    Ok(rows)
}
