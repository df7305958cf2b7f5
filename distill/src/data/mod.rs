//! From a file of interactions to a [`Dataset`].
//!
//! Follow a file: `layout` (what form is it, what are its columns called) → `columns` (which means
//! what) → `rows` with a reader for each form (`delimited`, `json_lines`, `parquet`,
//! `sequence_lines`) → `log` (interactions as small numbers, in file order) → `grouped` (by user
//! and time; repeats and k-core) → [`Dataset`]. `item_file` adds what a file of items says
//! (`categories`: how a cell names them), and [`PrepareReport`] tells what was dropped and why.
//!
//! Order: by time; what ties stays in the order of the file, and without times the file's order is
//! the order in time. Users and items are numbered by first occurrence in the file, so that the
//! same file and settings always give the same dataset.

mod categories;
mod columns;
mod delimited;
mod error;
mod grouped;
mod item_file;
mod json_lines;
mod layout;
mod lines;
mod log;
mod parquet;
mod report;
mod rows;
mod sequence_lines;
mod settings;
#[cfg(test)]
mod tests;
mod time;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use slmrec_core::{Dataset, Item, ItemIndex, ItemVocabulary, hash};

pub use error::{DataError, Fault};
pub use item_file::items;
pub use report::{
    BadLines, Counts, DuplicateReport, FileReport, KCoreRound, LengthQuantiles, PrepareReport,
    Ties, TimeSpan,
};
pub use settings::{Duplicates, Format, PrepareSettings};

use columns::InteractionColumns;
use error::io_error;
use grouped::Grouped;
use layout::{Layout, Request};
use log::{About, Collector, Log};
use rows::{Progress, ReadStats};

/// Reads interactions and makes a dataset of them; nothing is written.
///
/// `progress` is told now and then how many bytes of the source are read, and of how many.
///
/// # Errors
/// Files that cannot be read as what they are said to be or seem to be, and settings that leave
/// nothing.
pub fn prepare(
    source: &Path,
    settings: &PrepareSettings,
    progress: &dyn Fn(u64, u64),
) -> Result<(Dataset, PrepareReport), DataError> {
    settings.check()?;
    let layout = layout::detect(source, &Request::interactions(settings))?;
    let columns = InteractionColumns::resolve(source, &layout, settings)?;
    let (mut log, stats) = read_log(source, &layout, columns, settings, progress)?;
    let source_report = file_report(source, &layout, stats, columns.named(&layout))?;
    let mut about = std::mem::take(&mut log.about);
    let items_report = read_items(source, &layout, settings, &log, &mut about)?;

    let num_items = log.items.len();
    let mut grouped = Grouped::from_log(&mut log);
    let found = grouped.drop_duplicates(settings.duplicates, num_items);
    let before_core = grouped.len() as u64;
    let k_core_rounds = grouped.keep_core(settings.k_core, num_items);
    if grouped.len() == 0 {
        return Err(DataError::NothingLeft {
            path: source.to_owned(),
            filter: format!("k_core {}", settings.k_core),
            before: before_core,
            hint: "choose a smaller k_core",
        });
    }
    let mut report = PrepareReport {
        source: source_report,
        items: items_report,
        bad_lines: std::mem::take(&mut log.bad_lines),
        below_min_rating: log.below_min_rating,
        duplicates: DuplicateReport {
            rule: settings.duplicates,
            found,
            dropped: if settings.duplicates == Duplicates::Keep {
                0
            } else {
                found
            },
        },
        k_core: settings.k_core,
        k_core_rounds,
        kept: Counts::default(),
        users_for_training_only: grouped.shorter_than(3),
        items_without_title: 0,
        items_with_category: 0,
        categories: 0,
        lengths: grouped.lengths(),
        ties: grouped.ties(),
        times: TimeSpan::of(&grouped.times),
    };
    let mut dataset = dataset(source, settings, grouped, log, about)?;
    let untitled = |item: &&Item| item.title.is_none();
    report.items_without_title = dataset.vocabulary.items().iter().filter(untitled).count() as u64;
    let categories = dataset.vocabulary.categories();
    report.items_with_category = categories.items_with_any() as u64;
    report.categories = categories.len() as u64;
    report.kept = Counts {
        users: dataset.num_users() as u64,
        items: dataset.num_items() as u64,
        interactions: dataset.items.len() as u64,
    };
    dataset.provenance = provenance(settings, &report);
    Ok((dataset, report))
}

fn read_log(
    source: &Path,
    layout: &Layout,
    columns: InteractionColumns,
    settings: &PrepareSettings,
    progress: &dyn Fn(u64, u64),
) -> Result<(Log, ReadStats), DataError> {
    let progress = Progress::new(size_of(source)?, progress);
    let mut collector = Collector::new(source, layout, columns, settings);
    let wanted = columns.wanted();
    let stats = rows::read(source, layout, &wanted, &progress, &mut |line, row| {
        collector.row(line, row)
    })?;
    let log = collector.log;
    if !log.user.is_empty() {
        return Ok((log, stats));
    }
    let (filter, hint) = match settings.min_rating {
        Some(least) if log.below_min_rating > 0 => {
            (format!("min_rating {least}"), "choose a smaller min_rating")
        }
        _ => (
            "skip_bad_lines".into(),
            "without skip_bad_lines the first bad line is shown",
        ),
    };
    Err(DataError::NothingLeft {
        path: source.to_owned(),
        filter,
        before: stats.rows,
        hint,
    })
}

fn read_items(
    source: &Path,
    layout: &Layout,
    settings: &PrepareSettings,
    log: &Log,
    about: &mut HashMap<u32, About>,
) -> Result<Option<FileReport>, DataError> {
    let beside = || match settings.find_items && settings.title_column.is_none() {
        true => item_file::beside(source, layout),
        false => None,
    };
    let Some(path) = settings.items.clone().or_else(beside) else {
        return Ok(None);
    };
    let found = item_file::read(&path, settings, &log.items)?;
    for (item, mut said) in found.by_item {
        // What the source says of an item is for what its file of items leaves open.
        let before = about.remove(&item).unwrap_or_default();
        said.learn(before.title.as_deref(), before.categories);
        about.insert(item, said);
    }
    let mut report = file_report(&path, &found.layout, found.stats, found.columns)?;
    if settings.items.is_none() {
        report.notes.push("found beside the source".into());
    }
    if found.bad_lines.count > 0 {
        let examples = found.bad_lines.examples.join("; ");
        let count = found.bad_lines.count;
        report
            .notes
            .push(format!("{count} bad lines left out: {examples}"));
    }
    Ok(Some(report))
}

/// Numbers the users and items that are left, and puts everything into one place.
fn dataset(
    source: &Path,
    settings: &PrepareSettings,
    grouped: Grouped,
    log: Log,
    mut about: HashMap<u32, About>,
) -> Result<Dataset, DataError> {
    let mut rows = vec![ItemIndex::PADDING; log.items.len()];
    for &item in &grouped.items {
        rows[item as usize] = ItemIndex(1);
    }
    for (row, next) in rows.iter_mut().filter(|row| row.0 != 0).zip(1u32..) {
        *row = ItemIndex(next);
    }
    let kept = |(number, _): &(u32, Box<str>)| rows[*number as usize] != ItemIndex::PADDING;
    let items = (0u32..).zip(log.items.into_ids()).filter(kept);
    let items = items.map(|(number, id)| {
        let About { title, categories } = about.remove(&number).unwrap_or_default();
        let id = id.into();
        Item {
            id,
            title,
            categories,
        }
    });
    let vocabulary = ItemVocabulary::new(items.collect()).map_err(|e| DataError::Vocabulary {
        path: source.to_owned(),
        source: e,
    })?;
    let mut users = log.users.into_ids();
    let user = |&number: &u32| std::mem::take(&mut users[number as usize]).into();
    Ok(Dataset {
        name: settings.name.clone().unwrap_or_else(|| stem(source)),
        vocabulary,
        users: grouped.users.iter().map(user).collect(),
        items: grouped
            .items
            .iter()
            .map(|&item| rows[item as usize])
            .collect(),
        offsets: grouped.offsets,
        times: (!grouped.times.is_empty()).then_some(grouped.times),
        provenance: serde_json::Value::Null,
    })
}

fn provenance(settings: &PrepareSettings, report: &PrepareReport) -> serde_json::Value {
    serde_json::json!({
        "made_by": concat!("slmrec-distill prepare ", env!("CARGO_PKG_VERSION")),
        "settings": settings,
        "report": report,
    })
}

fn file_report(
    path: &Path,
    layout: &Layout,
    stats: ReadStats,
    columns: BTreeMap<String, String>,
) -> Result<FileReport, DataError> {
    let mut notes: Vec<String> = layout.note.iter().cloned().collect();
    if stats.latin1 > 0 {
        let count = stats.latin1;
        notes.push(format!(
            "{count} lines are not UTF-8 and were read as Latin-1"
        ));
    }
    Ok(FileReport {
        file: path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned(),
        bytes: size_of(path)?,
        sha256: hash::sha256_file(path).map_err(|e| io_error(path, e))?,
        format: layout.format,
        rows: stats.rows,
        columns,
        notes,
    })
}

fn size_of(path: &Path) -> Result<u64, DataError> {
    let metadata = std::fs::metadata(path).map_err(|e| io_error(path, e))?;
    Ok(metadata.len())
}

fn stem(path: &Path) -> String {
    path.file_stem()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}
