//! A process that is measured: it does a piece of work for each line that it is told, and answers
//! with what that took.

use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use slmrec_tests::bench::Samples;

/// What one piece of work took.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cost {
    pub(super) wall_ms: f64,
    /// Of all threads of the process.
    pub(super) cpu_ms: f64,
    /// The loss of a step; NaN for other work.
    pub(super) loss: f64,
}

pub(super) struct Subject {
    name: String,
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    /// Largest resident size so far, in MiB.
    pub(super) peak_mib: f64,
}

impl Subject {
    pub(super) fn start(
        name: &str,
        command: &mut Command,
        threads: usize,
    ) -> Result<Self, Box<dyn Error>> {
        let mut child = command
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
            peak_mib: 0.0,
        })
    }

    /// Has a piece of work done. The answer is wall milliseconds, CPU milliseconds, peak memory in
    /// KiB and the loss.
    pub(super) fn tell(&mut self, what: &str) -> Result<Cost, Box<dyn Error>> {
        writeln!(self.stdin, "{what}")?;
        self.stdin.flush()?;
        let mut line = String::new();
        self.stdout.read_line(&mut line)?;
        let figures: Vec<f64> = line
            .split_whitespace()
            .map(str::parse)
            .collect::<Result<_, _>>()
            .map_err(|e| format!("{} answered {line:?}: {e}", self.name))?;
        let [wall_ms, cpu_ms, peak, loss] = figures[..] else {
            return Err(format!("{} answered {line:?}", self.name).into());
        };
        self.peak_mib = self.peak_mib.max(peak / 1024.0);
        Ok(Cost {
            wall_ms,
            cpu_ms,
            loss,
        })
    }
}

/// A subject ends with the bench.
impl Drop for Subject {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(super) fn wall(costs: &[Cost]) -> Samples {
    Samples::new(costs.iter().map(|cost| cost.wall_ms).collect())
}

pub(super) fn cpu(costs: &[Cost]) -> Samples {
    Samples::new(costs.iter().map(|cost| cost.cpu_ms).collect())
}
