//! `verify-resume`: trains once undisturbed, then again and again in processes that are killed at
//! random instants and started anew, and compares what comes out bit by bit.
//!
//! The processes are this program with its ordinary commands, so that what is tested is what a
//! person runs.

mod compare;
mod lab;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use comfy_table::Table;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};
use serde::Serialize;

use super::args::{OutputFormat, TrainingStage, VerifyResume};
use super::{STOP, print};
use crate::pipeline::stage::STATE_DIR;
use crate::pipeline::{PipelineError, PipelineSettings, Reporter};
use compare::Outputs;
use lab::Lab;

/// Pause between two looks at a process.
const POLL: Duration = Duration::from_millis(1);
/// After a kill, one of so many runs is killed once more.
const AGAIN: u32 = 4;
/// Processes in a row that end before they could be killed, until something must be wrong.
const MOST_MISSES: usize = 50;

/// What was found.
#[derive(Debug, Serialize)]
pub(super) struct Verification {
    stage: &'static str,
    /// Seconds of the undisturbed process, and optimizer steps of its training.
    undisturbed_seconds: f64,
    steps: u64,
    kills: usize,
    /// Kills that left a half-written state.
    kills_during_a_save: usize,
    /// Runs whose result was compared.
    runs: Vec<Run>,
    identical: usize,
}

/// One run, from the beginning until it finished.
#[derive(Debug, Serialize)]
struct Run {
    kills: Vec<Kill>,
    /// The step from which the last process went on; absent when no state had been saved.
    resumed_from: Option<u64>,
    /// Files and figures that differ from those of the undisturbed run.
    differences: Vec<String>,
}

/// One killed process.
#[derive(Debug, Serialize)]
struct Kill {
    /// Seconds after its start.
    seconds: f64,
    /// Whether it left a half-written state.
    during_a_save: bool,
}

/// Runs the command.
pub(super) fn run(
    args: &VerifyResume,
    settings: PipelineSettings,
    reporter: &dyn Reporter,
) -> anyhow::Result<()> {
    let stage = args.stage;
    let seed = settings.seed;
    let lab = if args.own {
        Lab::own(settings, stage)?
    } else {
        reporter.say("verify-resume: making a small data set and models");
        Lab::generated(settings, stage)?
    };
    let mut verifier = Verifier {
        lab: &lab,
        rng: ChaCha8Rng::seed_from_u64(seed),
        limit: Duration::ZERO,
    };
    let found = verifier.verify(args.kills.get(), reporter)?;
    match args.format {
        OutputFormat::Json => print::json(&found)?,
        OutputFormat::Table => print::out(&found.to_string())?,
    }
    let different = found.runs.len() - found.identical;
    if different > 0 {
        bail!(
            "{different} of {} killed and resumed runs differ from the undisturbed one",
            found.runs.len()
        );
    }
    Ok(())
}

/// How a process ended.
enum End {
    Finished,
    Killed(Kill),
}

struct Verifier<'a> {
    lab: &'a Lab,
    rng: ChaCha8Rng,
    /// Kills fall within this time after a start: what an undisturbed process takes.
    limit: Duration,
}

impl Verifier<'_> {
    fn verify(&mut self, kills: usize, reporter: &dyn Reporter) -> anyhow::Result<Verification> {
        let stage = self.lab.stage();
        let reference = self.lab.fresh("undisturbed")?;
        reporter.say(&format!("verify-resume: {} undisturbed", stage.name()));
        let start = Instant::now();
        self.to_the_end(&reference)?;
        self.limit = start.elapsed();
        let expected = Outputs::read(&stage.dir_in(&reference))?;
        let mut found = Verification {
            stage: stage.name(),
            undisturbed_seconds: self.limit.as_secs_f64(),
            steps: expected.steps(),
            kills: 0,
            kills_during_a_save: 0,
            runs: Vec::new(),
            identical: 0,
        };
        let counter = reporter.counter("kills", kills as u64);
        while found.kills < kills {
            let run = self.killed_run(kills - found.kills, &expected)?;
            found.kills += run.kills.len();
            found.kills_during_a_save += run.kills.iter().filter(|k| k.during_a_save).count();
            found.identical += usize::from(run.differences.is_empty());
            found.runs.push(run);
            counter.set(found.kills as u64);
        }
        Ok(found)
    }

    /// A run with at least one kill and at most `most`.
    fn killed_run(&mut self, most: usize, expected: &Outputs) -> anyhow::Result<Run> {
        let stage = self.lab.stage();
        for _ in 0..MOST_MISSES {
            let work = self.lab.fresh("killed")?;
            let state = stage.dir_in(&work).join(STATE_DIR);
            let mut kills = Vec::new();
            while kills.is_empty() || (kills.len() < most && self.below(AGAIN) == 0) {
                match self.until_a_random_instant(&work, &state)? {
                    End::Killed(kill) => kills.push(kill),
                    End::Finished => break,
                }
            }
            if kills.is_empty() {
                continue; // it ended before its kill; another one
            }
            self.to_the_end(&work)?;
            let found = Outputs::read(&stage.dir_in(&work))?;
            return Ok(Run {
                kills,
                resumed_from: found.resumed_from(),
                differences: expected.differences(&found),
            });
        }
        bail!("{MOST_MISSES} processes in a row ended before they could be killed")
    }

    fn below(&mut self, n: u32) -> u32 {
        ((u64::from(self.rng.next_u32()) * u64::from(n)) >> 32) as u32
    }

    fn to_the_end(&self, work: &Path) -> anyhow::Result<()> {
        let mut child = self.lab.start(work)?;
        let status = child.wait().context("waiting for the training process")?;
        self.check(status)
    }

    fn until_a_random_instant(&mut self, work: &Path, state: &Path) -> anyhow::Result<End> {
        let share = f64::from(self.rng.next_u32()) / f64::from(u32::MAX);
        let instant = self.limit.mul_f64(share);
        let start = Instant::now();
        let mut child = self.lab.start(work)?;
        while start.elapsed() < instant {
            if let Some(status) = child
                .try_wait()
                .context("looking at the training process")?
            {
                self.check(status)?;
                return Ok(End::Finished);
            }
            stop_if_asked(&mut child)?;
            std::thread::sleep(POLL.min(instant.saturating_sub(start.elapsed())));
        }
        let seconds = start.elapsed().as_secs_f64();
        child.kill().context("killing the training process")?;
        let status = child.wait().context("waiting for the killed process")?;
        if status.success() {
            return Ok(End::Finished); // it was faster
        }
        Ok(End::Killed(Kill {
            seconds,
            during_a_save: has_leftover(state),
        }))
    }

    fn check(&self, status: ExitStatus) -> anyhow::Result<()> {
        if status.success() {
            return Ok(());
        }
        bail!(
            "the training process failed ({status}):\n{}",
            self.lab.said()
        )
    }
}

/// Ctrl-C reaches the process, too; it must not be taken for a failure.
fn stop_if_asked(child: &mut Child) -> anyhow::Result<()> {
    if STOP.load(Ordering::SeqCst) {
        child.wait().context("waiting for the training process")?;
        return Err(PipelineError::Settings("interrupted".into()).into());
    }
    Ok(())
}

fn has_leftover(state: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(state) else {
        return false;
    };
    entries
        .flatten()
        .any(|entry| entry.file_name().to_string_lossy().starts_with('.'))
}

/// This program with `arguments`; what it says goes to the file `said`.
fn this_program(arguments: &[&str], work: &Path, said: &Path) -> anyhow::Result<Child> {
    let program = std::env::current_exe().context("cannot find out where this program lies")?;
    let said = std::fs::File::create(said)
        .with_context(|| format!("{}: cannot be written", said.display()))?;
    Command::new(&program)
        .args(arguments)
        .arg("--work-dir")
        .arg(work)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(said)
        .spawn()
        .with_context(|| format!("{}: cannot be started", program.display()))
}

impl TrainingStage {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Pretrain => "pretrain",
            Self::Teach => "teach",
            Self::Distill => "distill",
        }
    }

    fn dir_in(self, work: &Path) -> PathBuf {
        let work = crate::pipeline::WorkDir::new(work);
        match self {
            Self::Pretrain => work.sasrec(),
            Self::Teach => work.teacher(),
            Self::Distill => work.student(),
        }
    }
}

impl std::fmt::Display for Verification {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut table: Table = print::table(&["verify-resume", self.stage]);
        let mut from: Vec<u64> = self.runs.iter().filter_map(|r| r.resumed_from).collect();
        from.sort_unstable();
        let anew = self.runs.len() - from.len();
        let steps = match (from.first(), from.last()) {
            (Some(first), Some(last)) => {
                let different = from.iter().collect::<std::collections::BTreeSet<_>>().len();
                format!(
                    "{} runs, from {different} different steps, {first} to {last} of {}",
                    from.len(),
                    self.steps
                )
            }
            _ => "no run".to_owned(),
        };
        for (name, value) in [
            (
                "undisturbed run",
                format!("{:.1} s", self.undisturbed_seconds),
            ),
            ("kills", self.kills.to_string()),
            ("kills during a save", self.kills_during_a_save.to_string()),
            ("resumed from a state", steps),
            (
                "begun anew (killed before the first state)",
                anew.to_string(),
            ),
            (
                "identical to the undisturbed run",
                format!("{} of {}", self.identical, self.runs.len()),
            ),
        ] {
            table.add_row([name.to_owned(), value]);
        }
        for (at, run) in self.runs.iter().enumerate() {
            for difference in &run.differences {
                table.add_row([format!("run {} differs", at + 1), difference.clone()]);
            }
        }
        write!(f, "{table}")
    }
}
