//! `slmrec-distill`: arguments → settings → stages → what is printed.
//!
//! stdout carries results, stderr carries talk. Exit codes: 0 fine, 1 something to correct,
//! 2 a fault of this program, 130 interrupted.

pub mod args;
mod cache_states;
mod changes;
pub mod cold;
pub mod compare;
mod environment;
mod fetch;
pub mod items;
mod print;
mod prior;
pub mod report;
mod reporter;
pub mod seeds;
mod study;
mod tune;
mod verify_resume;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;
use clap::{CommandFactory, Parser};

use crate::evaluate::Comparison;
use crate::pipeline::stages::tune::Subject;
use crate::pipeline::stages::{self, Context};
use crate::pipeline::work_dir::DEFAULT_WORK_DIR;
use crate::pipeline::{PipelineError, PipelineSettings, StageRecord, WorkDir};
use args::{Cli, Command, TrainingStage};
use reporter::TerminalReporter;

static STOP: AtomicBool = AtomicBool::new(false);

/// Runs the program on the arguments of the process.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    environment::complete();
    match dispatch(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", indent_hint(&chain(&error)));
            ExitCode::from(exit_code(&error))
        }
    }
}

/// Help and version are what was asked for; any other trouble with the arguments is the person's to
/// correct (clap's own exit code would be 2, which is ours).
fn usage(error: &clap::Error) -> ExitCode {
    // Nothing can be done about a terminal that cannot be written to.
    let _ = error.print();
    ExitCode::from(u8::from(error.use_stderr()))
}

fn dispatch(cli: &Cli) -> anyhow::Result<()> {
    let reporter = TerminalReporter::new(cli.common.quiet);
    match &cli.command {
        Command::Completions { shell } => {
            let mut command = Cli::command();
            clap_complete::generate(
                *shell,
                &mut command,
                "slmrec-distill",
                &mut std::io::stdout(),
            );
            return Ok(());
        }
        Command::Fetch(args) => return fetch::run(args, &reporter),
        Command::Compare(args) => return compare::run(args),
        Command::Seeds(args) => return seeds::run(args),
        _ => {}
    }
    let mut changes = inherited(cli)?;
    changes.extend(changes::Changes::of(&cli.common, &cli.command)?);
    let file = match &cli.command {
        Command::Run(run) => match (run.settings(), cli.common.config.as_deref()) {
            (Some(given), Some(config)) => anyhow::bail!(
                "run: expected one file of settings, found {} and --config {}\n\
                 hint: leave one of them out",
                given.display(),
                config.display()
            ),
            (given, config) => given.or(config),
        },
        _ => cli.common.config.as_deref(),
    };
    let settings = PipelineSettings::load(file, &changes)?;
    if matches!(cli.command, Command::Settings) {
        let text = toml::to_string(&settings).context("settings as TOML")?;
        return print::out(&text);
    }
    stop_on_ctrl_c()?;
    if let Command::VerifyResume(args) = &cli.command {
        return verify_resume::run(args, settings, &reporter);
    }
    let context = Context::new(
        settings,
        cli.common.force,
        &reporter,
        &STOP,
        fetch::cache_dir(),
        program_dir()?,
    )?;
    match &cli.command {
        Command::Run(_) if file.is_some() => whole_run(&context, stages::run_all(&context)?),
        Command::Run(_) => whole_run(&context, stages::run_data(&context, &changes)?),
        other => run_stages(other, &context),
    }
}

/// What is printed of a run through all stages.
fn whole_run(
    context: &Context<'_>,
    (comparison, records): (Comparison, Vec<StageRecord>),
) -> anyhow::Result<()> {
    print::comparison(&comparison, args::OutputFormat::Table)?;
    print::costs(&records)?;
    let work = context.work().root().display();
    let line = format!("a page about this run: slmrec-distill report --work-dir {work}");
    context.reporter.say(&line);
    Ok(())
}

/// What `distill`, and the states that it reads, take over from the teacher unless a settings file
/// speaks for all stages: the shape around the layers, the prompt, the base and the seed.
fn inherited(cli: &Cli) -> anyhow::Result<Vec<(String, toml::Value)>> {
    let inherits = match &cli.command {
        Command::Distill(_) | Command::Study(_) => true,
        Command::Tune(args) => matches!(args.subject, Subject::Student | Subject::CeOnly),
        Command::VerifyResume(args) => args.own && args.stage == TrainingStage::Distill,
        Command::Teach(teach) => teach.cache_states,
        _ => false,
    };
    if !inherits || cli.common.config.is_some() {
        return Ok(Vec::new());
    }
    let root = cli.common.work_dir.clone();
    let work = WorkDir::new(root.unwrap_or_else(|| DEFAULT_WORK_DIR.into()));
    stages::distill::shared_with_teacher(&work)?
        .into_iter()
        .map(|(name, value)| {
            let value = toml::Value::try_from(value)
                .with_context(|| format!("the teacher's setting {name}"))?;
            Ok((name.to_owned(), value))
        })
        .collect()
}

fn run_stages(command: &Command, context: &Context<'_>) -> anyhow::Result<()> {
    match command {
        Command::Report(args) => report::run(args, context.work()),
        Command::Prepare(_) => print::prepared(&stages::prepare::run(context)?),
        Command::Prior(args) => prior::run(args, context),
        Command::Pretrain(_) => {
            print::trained("SASRec", &stages::pretrain::run(context)?)?;
            match stages::pretrain::run_with_titles(context)? {
                Some([_, trained]) => print::trained("SASRec with titles", &trained),
                None => Ok(()),
            }
        }
        Command::Baselines(_) => {
            let trained = stages::baselines::run(context)?;
            let names = context.settings.baselines.models.iter();
            (names.zip(&trained)).try_for_each(|(of, outcome)| print::trained(of.name(), outcome))
        }
        Command::Teach(args) if args.cache_states => cache_states::run(args, context),
        Command::Teach(_) => print::trained("teacher", &stages::teach::run(context)?),
        Command::Blend(args) => print::blended(&stages::blend::run(context)?.1, args.format),
        Command::Distill(_) => {
            if let Some(ce_only) = stages::distill::run_ce_only(context)? {
                print::trained("student without teacher", &ce_only)?;
            }
            print::trained("student", &stages::distill::run(context)?)
        }
        Command::Refit => {
            let trained = stages::refit::run(context)?;
            (trained.iter()).try_for_each(|outcome| print::trained(&outcome.record.stage, outcome))
        }
        Command::Study(args) => study::run(args, context),
        Command::Tune(args) => tune::run(args, context),
        Command::Cold(args) => cold::run(args, context),
        Command::Items(args) => items::run(args, context),
        Command::Evaluate(args) => {
            print::comparison(&stages::evaluate::run(context)?.0, args.format)
        }
        Command::Plan(args) => {
            let plans = stages::plan::all(context)?;
            let misfits = stages::plan::misfits(context, &plans);
            print::plans(&plans, context, args.format)?;
            Ok(stages::plan::refuse(context, misfits)?)
        }
        Command::Export(args) => print::exported(&stages::export::run(context)?, args.format),
        Command::Run(_)
        | Command::Fetch(_)
        | Command::Compare(_)
        | Command::Seeds(_)
        | Command::Settings
        | Command::VerifyResume(_)
        | Command::Completions { .. } => Ok(()),
    }
}

fn program_dir() -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe().context("cannot find out where this program lies")?;
    Ok(program.parent().map(Path::to_path_buf).unwrap_or_default())
}

/// The first Ctrl-C asks for a clean stop, the second one ends the process.
fn stop_on_ctrl_c() -> anyhow::Result<()> {
    ctrlc::set_handler(|| {
        if STOP.swap(true, Ordering::SeqCst) {
            std::process::exit(130);
        }
        eprintln!("stopping after this step (Ctrl-C again to stop at once)");
    })
    .context("cannot listen for Ctrl-C")
}

/// The message and its causes, unless a cause is already part of what was said.
fn chain(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

fn indent_hint(text: &str) -> String {
    text.replace("\nhint: ", "\n  hint: ")
}

fn exit_code(error: &anyhow::Error) -> u8 {
    match error.downcast_ref::<PipelineError>() {
        Some(PipelineError::Interrupted) => 130,
        Some(PipelineError::Tensor(_)) => 2,
        _ => 1,
    }
}
