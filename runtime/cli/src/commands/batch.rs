//! `slmrec-run batch`: recommendations for a file of histories.

use std::num::NonZeroUsize;
use std::path::Path;
use std::time::Instant;

use anyhow::Context;
use serde_json::{Map, Value, json};
use slmrec_core::hash;
use slmrec_runtime::{FilterOptions, OpenOptions, Recommender};

use super::filter;
use crate::arguments::BatchArguments;
use crate::batch::input::Input;
use crate::batch::parts::{Counts, Parts};
use crate::batch::progress::Progress;
use crate::batch::workers::Workers;
use crate::batch::{Answer, FileFormat, PART_ROWS, output};
use crate::bundle_search;
use crate::output::say;
use crate::report::EngineReport;

pub(crate) fn run(arguments: &BatchArguments) -> anyhow::Result<bool> {
    let (from, to) = (&arguments.input, &arguments.output);
    let format = FileFormat::of(to)?;
    check_places(from, to)?;
    let filter = filter::given(&arguments.filter)?;
    let mut input = Input::open(from)?;
    let rows = input.part_rows();
    let (recommenders, engine) = open(arguments)?;
    let filter = filter::known(filter, &recommenders[0]);
    let job = job(arguments, format, &filter, &recommenders[0], &engine)?;
    let parts = Parts::open(to, format, &job, arguments.restart)?;
    let done: Vec<Option<Counts>> = (0..rows.len()).map(|part| parts.finished(part)).collect();
    let before = done.iter().flatten().map(|counts| counts.rows).sum();
    if before > 0 {
        say(&format!("{before} histories are done already"));
    }
    let mut progress = Progress::new(rows.iter().sum(), before);
    let mut workers = Workers::new(recommenders, arguments.top.get(), filter);
    let (started, users) = (Instant::now(), input.user_type());
    let mut total = Counts::default();
    for (part, done) in done.into_iter().enumerate() {
        if let Some(counts) = done {
            total += counts;
            continue;
        }
        let mut counts = Counts::default();
        output::write_part(&parts.file(part), format, users, |write| {
            input.read(part, &mut |window| {
                let answers =
                    (workers.answer(window)).with_context(|| from.display().to_string())?;
                progress.add(answers.len() as u64);
                count(&answers, &mut counts);
                write(&answers)
            })
        })?;
        parts.finish(part, counts)?;
        total += counts;
    }
    progress.finish();
    let files: Vec<_> = (0..rows.len()).map(|part| parts.file(part)).collect();
    output::merge(to, format, users, &files)?;
    parts.remove(to)?;
    say_counts(to, &total, total.rows - before, started);
    Ok(true)
}

/// The output must not take the place of the input, and its folder must be there.
fn check_places(from: &Path, to: &Path) -> anyhow::Result<()> {
    let same = matches!((from.canonicalize(), to.canonicalize()), (Ok(a), Ok(b)) if a == b);
    anyhow::ensure!(!same, "{}: is the input, too", to.display());
    anyhow::ensure!(
        !to.is_dir(),
        "{}: expected a file, found a folder",
        to.display()
    );
    Ok(())
}

/// A recommender a thread: histories run beside each other, each on one thread.
fn open(arguments: &BatchArguments) -> anyhow::Result<(Vec<Recommender>, EngineReport)> {
    let path = bundle_search::find(arguments.bundle.bundle.as_deref())?;
    let threads = arguments.engine.threads;
    let options = OpenOptions {
        threads: NonZeroUsize::MIN,
        ..arguments.engine.options()
    };
    let open = |_| {
        let mut recommender = Recommender::open(&path, &options)?;
        for pack in &arguments.engine.pack {
            recommender.apply_pack(pack)?;
        }
        Ok(recommender)
    };
    let recommenders: Vec<Recommender> = (0..threads.get())
        .map(open)
        .collect::<anyhow::Result<_>>()?;
    let engine = EngineReport::from(recommenders[0].engine());
    engine.say();
    if threads.get() > 1 {
        say(&format!("{threads} histories run at a time"));
    }
    Ok((recommenders, engine))
}

/// All that the answers depend on.
fn job(
    arguments: &BatchArguments,
    format: FileFormat,
    filter: &FilterOptions,
    recommender: &Recommender,
    engine: &EngineReport,
) -> anyhow::Result<Map<String, Value>> {
    let file = |path: &Path| hash::sha256_file(path).with_context(|| path.display().to_string());
    let packs = arguments.engine.pack.iter().map(|pack| file(pack));
    let packs: Vec<String> = packs.collect::<anyhow::Result<_>>()?;
    let lists = serde_json::to_vec(&(
        (&filter.block, &filter.allow),
        (&filter.block_categories, &filter.categories),
    ))?;
    let values = [
        ("format_version", json!(1)),
        ("program", json!(env!("CARGO_PKG_VERSION"))),
        ("input_sha256", json!(file(&arguments.input)?)),
        ("output", json!(format)),
        ("bundle_sha256", json!(recommender.bundle_sha256())),
        ("packs_sha256", json!(packs)),
        ("prior", json!(recommender.has_prior())),
        ("engine", json!(engine)),
        ("k", json!(arguments.top)),
        ("include_seen", json!(filter.include_seen)),
        ("lists_sha256", json!(hash::sha256_hex(&lists))),
        ("part_rows", json!(PART_ROWS)),
    ];
    Ok(values
        .map(|(key, value)| (key.to_owned(), value))
        .into_iter()
        .collect())
}

fn count(answers: &[Answer], counts: &mut Counts) {
    for answer in answers {
        counts.rows += 1;
        if answer.nothing_known {
            counts.nothing_known += 1;
            continue;
        }
        counts.some_unknown += u64::from(answer.unknown > 0);
        counts.short += u64::from(answer.shortfall > 0);
    }
}

fn say_counts(to: &Path, counts: &Counts, answered: u64, started: Instant) {
    let seconds = started.elapsed().as_secs_f64();
    say(&format!(
        "{}: {} histories; {answered} in {seconds:.1} s, {:.0} a second",
        to.display(),
        counts.rows,
        answered as f64 / seconds.max(f64::MIN_POSITIVE)
    ));
    for (number, what) in [
        (
            counts.nothing_known,
            "of whose history nothing is known: their lists are empty",
        ),
        (
            counts.some_unknown,
            "with items that the catalog does not have: these were skipped",
        ),
        (counts.short, "with lists that the filters leave short"),
    ] {
        if number > 0 {
            say(&format!("  {number} {what}"));
        }
    }
}
