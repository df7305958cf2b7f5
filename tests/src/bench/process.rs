//! A process that is measured: it does a piece of work for each line that it is told, and answers
//! with what that took.

use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use super::Samples;
use super::clock::{cpu_ms, peak_kib};

/// What one piece of work took.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// From the clock on the wall.
    pub wall_ms: f64,
    /// Of all threads of the process.
    pub cpu_ms: f64,
    /// The loss of a step; NaN for other work.
    pub loss: f64,
}

/// A running process and its two pipes. It ends with the bench.
pub struct Process {
    name: String,
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    /// Largest resident size so far, in MiB.
    pub peak_mib: f64,
}

impl Process {
    /// Starts it with so many threads for what computes.
    ///
    /// # Errors
    /// A program that does not start.
    pub fn start(
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

    /// Says a line; the line that comes back.
    ///
    /// # Errors
    /// A process that has ended, or that names what it lacks (`missing: ..`).
    pub fn ask(&mut self, what: &str) -> Result<String, Box<dyn Error>> {
        writeln!(self.stdin, "{what}")?;
        self.stdin.flush()?;
        let mut line = String::new();
        self.stdout.read_line(&mut line)?;
        match line.strip_prefix("missing: ") {
            Some(reason) => Err(format!("{}, {what}: {}", self.name, reason.trim()).into()),
            None if line.is_empty() => Err(format!("{} has ended", self.name).into()),
            None => Ok(line),
        }
    }

    /// Has a piece of work done. The answer is wall milliseconds, CPU milliseconds, peak memory in
    /// KiB and the loss.
    ///
    /// # Errors
    /// As [`Self::ask`], and an answer of another form.
    pub fn tell(&mut self, what: &str) -> Result<Cost, Box<dyn Error>> {
        let line = self.ask(what)?;
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

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Does the work of each line on stdin and answers as [`Process::tell`] expects; `work` gives the
/// loss, or NaN.
///
/// # Errors
/// What the work gives, and streams that break.
pub fn serve(
    mut work: impl FnMut(&str) -> Result<f64, Box<dyn Error>>,
) -> Result<(), Box<dyn Error>> {
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let (wall, cpu) = (Instant::now(), cpu_ms());
        let loss = work(&line)?;
        let wall = wall.elapsed().as_secs_f64() * 1e3;
        println!("{wall} {} {} {loss}", cpu_ms() - cpu, peak_kib()?);
    }
    Ok(())
}

/// Times on the wall.
#[must_use]
pub fn wall(costs: &[Cost]) -> Samples {
    Samples::new(costs.iter().map(|cost| cost.wall_ms).collect())
}

/// CPU times.
#[must_use]
pub fn cpu(costs: &[Cost]) -> Samples {
    Samples::new(costs.iter().map(|cost| cost.cpu_ms).collect())
}
