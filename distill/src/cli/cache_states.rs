//! `slmrec-distill teach --cache-states`: what is stored, what is missing, what fills it.

use super::args::{OutputFormat, Teach};
use super::print;
use crate::pipeline::PipelineError;
use crate::pipeline::stages::Context;
use crate::pipeline::stages::cache::{self, CacheReport, ShardReport};
use crate::train::TrainError;
use crate::train::teacher_cache::{CacheError, FillPart, ShardState};

pub(super) fn run(args: &Teach, context: &Context<'_>) -> anyhow::Result<()> {
    if !args.check {
        let report = cache::fill(context, args.shard.unwrap_or(FillPart::ALL))?;
        return match args.format {
            OutputFormat::Json => print::json(&report),
            OutputFormat::Table => print::out(&filled(&report)),
        };
    }
    let report = cache::check(context)?;
    let again = Again::typed(std::env::args().collect());
    match args.format {
        OutputFormat::Json => print::json(&with_commands(&report, &again)?)?,
        OutputFormat::Table => print::out(&checked(&report, &again))?,
    }
    if report.complete {
        return Ok(());
    }
    Err(
        PipelineError::from(TrainError::from(CacheError::Incomplete {
            dir: report.dir.clone(),
            bad: bad(&report).count(),
            total: report.shards_total,
        }))
        .into(),
    )
}

fn filled(report: &CacheReport) -> String {
    let mut text = format!(
        "teacher states: {} shards computed, {} of {} good ({})",
        report.computed,
        report.shards.len() - bad(report).count(),
        report.shards_total,
        report.dir.display()
    );
    if !report.complete {
        text += "\nwhen the other parts are done: slmrec-distill teach --cache-states --check";
    }
    text
}

fn checked(report: &CacheReport, again: &Again) -> String {
    if report.complete {
        return format!(
            "teacher states: complete, {} shards, {} bytes ({})",
            report.shards_total,
            report.bytes,
            report.dir.display()
        );
    }
    let mut table = print::table(&["shard", "file", "state", "filled by"]);
    for shard in bad(report) {
        let command = shell(&again.command(shard.number, report.shards_total));
        table.add_row([
            shard.number.to_string(),
            shard.file.clone(),
            describe(&shard.state),
            command,
        ]);
    }
    format!("{table}\nall of them: {}", shell(again.whole()))
}

fn bad(report: &CacheReport) -> impl Iterator<Item = &ShardReport> {
    report.shards.iter().filter(|shard| !shard.state.is_good())
}

fn describe(state: &ShardState) -> String {
    match state {
        ShardState::Good { .. } => "good".to_owned(),
        ShardState::Missing => "missing".to_owned(),
        ShardState::Stale { found } => format!("stale: key {}", &found[..12.min(found.len())]),
        ShardState::Damaged { expected, found } => {
            format!("damaged: expected {expected}, found {found}")
        }
    }
}

/// The report with the command, as a list of arguments, that fills each bad shard.
fn with_commands(report: &CacheReport, again: &Again) -> anyhow::Result<serde_json::Value> {
    let mut value = serde_json::to_value(report)?;
    let shards = value["shards"].as_array_mut().into_iter().flatten();
    for (json, shard) in shards.zip(&report.shards) {
        if !shard.state.is_good() {
            json["fill"] = again.command(shard.number, report.shards_total).into();
        }
    }
    Ok(value)
}

/// Arguments as one line that a POSIX shell reads back as they are.
fn shell(arguments: &[String]) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=,:@%+".contains(c);
    let quoted = |argument: &String| {
        if !argument.is_empty() && argument.chars().all(plain) {
            argument.clone()
        } else {
            format!("'{}'", argument.replace('\'', r"'\''"))
        }
    };
    arguments.iter().map(quoted).collect::<Vec<_>>().join(" ")
}

/// The command that was typed, as one that fills instead of checking.
struct Again(Vec<String>);

impl Again {
    fn typed(arguments: Vec<String>) -> Self {
        let mut kept = vec!["slmrec-distill".to_owned()];
        let mut arguments = arguments.into_iter().skip(1);
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--check" => {}
                "--format" => {
                    arguments.next();
                }
                other if other.starts_with("--format=") => {}
                _ => kept.push(argument),
            }
        }
        Self(kept)
    }

    /// Fills one shard.
    fn command(&self, number: usize, total: usize) -> Vec<String> {
        let mut command = self.0.clone();
        command.extend(["--shard".to_owned(), format!("{number}/{total}")]);
        command
    }

    /// Fills everything.
    fn whole(&self) -> &[String] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_that_fills_is_the_one_that_checked() {
        let line = "/bin/slmrec-distill teach --cache-states --check --work-dir w --format json -q";
        let again = Again::typed(line.split(' ').map(str::to_owned).collect());
        assert_eq!(
            again.command(3, 16).join(" "),
            "slmrec-distill teach --cache-states --work-dir w -q --shard 3/16"
        );
        let odd = ["a b", "it's", "", "x=[1]"].map(str::to_owned);
        assert_eq!(shell(&odd), r"'a b' 'it'\''s' '' 'x=[1]'");
        let line = "x teach --cache-states --format=json --check";
        let again = Again::typed(line.split(' ').map(str::to_owned).collect());
        assert_eq!(
            again.whole().join(" "),
            "slmrec-distill teach --cache-states"
        );
    }
}
