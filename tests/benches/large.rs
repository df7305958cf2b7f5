//! The size of the paper's Cloth set: about 11 million interactions of 1.2 million users with 377
//! thousand items, generated. How much time and memory preparing takes, what a step of SASRec takes
//! with the full and with the sampled softmax, and what the losses over catalogs take alone.
//!
//! Each stage runs in a process of its own, so that its peak memory is its own. Linux only: memory
//! and CPU time are read from /proc. `-- --users 20000` makes everything smaller.

#[path = "large/generate.rs"]
mod generate;
#[path = "large/losses.rs"]
mod losses;
#[path = "large/training.rs"]
mod training;

use std::env;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use slmrec_core::Dataset;
use slmrec_distill::data::{self, PrepareSettings};
use slmrec_distill::pipeline::resources::{peak_memory, reset_peak_memory};
use slmrec_tests::bench::{Row, to_json};

const USERS: u32 = 1_200_000;
const STAGES: [&str; 6] = ["prepare", "read", "full", "sampled", "validation", "losses"];
/// Most memory that preparing may take, in MB.
const PREPARE_MB: f64 = 2000.0;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().collect();
    let value = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1).cloned()
    };
    let users = value("--users").map_or(Ok(USERS), |users| users.parse())?;
    if let (Some(stage), Some(folder)) = (value("--stage"), value("--folder")) {
        return run_stage(&stage, Path::new(&folder));
    }
    let folder = match value("--folder") {
        Some(folder) => Folder::Kept(folder.into()),
        None => Folder::Temporary(tempfile::tempdir()?),
    };
    let log = log_path(folder.path());
    if !log.exists() {
        eprintln!("  generating");
        generate::write_log(&log, users)?;
    }
    let mut rows = Vec::new();
    for stage in STAGES {
        eprintln!("  {stage}");
        let output = Command::new(env::current_exe()?)
            .args(["--stage", stage, "--folder"])
            .arg(folder.path())
            .stderr(Stdio::inherit())
            .output()?;
        if !output.status.success() {
            return Err(format!("the stage {stage} failed").into());
        }
        for line in String::from_utf8(output.stdout)?.lines() {
            let (case, metric, ours, peer): Figure = serde_json::from_str(line)?;
            let row = Row::new(case, metric, ours);
            rows.push(judged(match peer {
                Some((peer, theirs)) => row.against(peer, theirs),
                None => row,
            }));
        }
    }
    println!("{}", to_json(&rows)?);
    Ok(())
}

/// Case, metric and value; a peer and its value.
type Figure = (String, String, f64, Option<(String, f64)>);

/// The one figure that has a goal.
fn judged(row: Row) -> Row {
    if row.case.starts_with("prepare") && row.metric == MEMORY {
        return row.against("limit", PREPARE_MB).goal(1.0);
    }
    row
}

enum Folder {
    Temporary(tempfile::TempDir),
    Kept(PathBuf),
}

impl Folder {
    fn path(&self) -> &Path {
        match self {
            Self::Temporary(folder) => folder.path(),
            Self::Kept(folder) => folder,
        }
    }
}

fn log_path(folder: &Path) -> PathBuf {
    folder.join("interactions.csv")
}

fn dataset_path(folder: &Path) -> PathBuf {
    folder.join("dataset")
}

fn run_stage(stage: &str, folder: &Path) -> Result<(), Box<dyn Error>> {
    match stage {
        "prepare" => prepare(folder),
        "read" => read(folder),
        "full" => training::steps(&dataset_path(folder), "full"),
        "sampled" => training::steps(&dataset_path(folder), "sampled"),
        "validation" => training::validation(&dataset_path(folder)),
        "losses" => losses::losses(),
        other => Err(format!("no stage {other}").into()),
    }
}

const MEMORY: &str = "MB, peak";

/// What a stage cost.
struct Meter {
    started: Instant,
    cpu: f64,
}

impl Meter {
    fn start() -> Result<Self, Box<dyn Error>> {
        reset_peak_memory();
        Ok(Self {
            started: Instant::now(),
            cpu: cpu_seconds()?,
        })
    }

    fn print(&self, case: &str) -> Result<(), Box<dyn Error>> {
        figure(case, "s, wall", self.started.elapsed().as_secs_f64())?;
        figure(case, "s, CPU", cpu_seconds()? - self.cpu)?;
        figure(case, MEMORY, peak_mb()?)
    }
}

fn peak_mb() -> Result<f64, Box<dyn Error>> {
    let bytes = peak_memory().ok_or("no peak memory in /proc")?;
    Ok(bytes as f64 / 1e6)
}

/// A row for the parent process.
fn figure(case: &str, metric: &str, value: f64) -> Result<(), Box<dyn Error>> {
    print_figure((case.to_owned(), metric.to_owned(), value, None))
}

fn print_figure(figure: Figure) -> Result<(), Box<dyn Error>> {
    println!("{}", serde_json::to_string(&figure)?);
    Ok(())
}

/// User and system time of this process, its ended threads included, to a hundredth of a second:
/// means of several runs are finer.
fn cpu_seconds() -> Result<f64, Box<dyn Error>> {
    /// `_SC_CLK_TCK` of every Linux in use.
    const TICKS: f64 = 100.0;
    let stat = fs::read_to_string("/proc/self/stat")?;
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let mut times = fields.split_whitespace().skip(11).take(2);
    let mut next = || times.next().ok_or("a short /proc/self/stat");
    let (user, system): (f64, f64) = (next()?.parse()?, next()?.parse()?);
    Ok((user + system) / TICKS)
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn prepare(folder: &Path) -> Result<(), Box<dyn Error>> {
    let meter = Meter::start()?;
    let log = log_path(folder);
    let (dataset, report) = data::prepare(&log, &PrepareSettings::default(), &|_, _| ())?;
    dataset.write(&dataset_path(folder))?;
    let kept = &report.kept;
    let case = format!(
        "prepare, {} interactions, {} users, {} items",
        kept.interactions, kept.users, kept.items
    );
    meter.print(&case)
}

fn read(folder: &Path) -> Result<(), Box<dyn Error>> {
    let meter = Meter::start()?;
    let dataset = Dataset::read(&dataset_path(folder))?;
    meter.print("read the dataset")?;
    let meter = Meter::start()?;
    let data = training::data(&dataset, &training::settings("full")?)?;
    let fingerprint = data.fingerprint();
    let order = data.epoch(128, 1, 0);
    std::hint::black_box((fingerprint, order));
    meter.print("windows, fingerprint, order of an epoch")
}
