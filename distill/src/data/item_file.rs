//! What a file of items says: titles and categories.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use slmrec_core::Item;

use super::categories::{self, Splitter};
use super::columns::{CategoryColumns, ItemColumns};
use super::error::Fault;
use super::layout::{Layout, Request, detect};
use super::log::{About, Interner};
use super::report::BadLines;
use super::rows::{self, Cell, Progress, ReadStats};
use super::{DataError, Format, PrepareSettings};

/// What is said about items, by their number, and how it was found.
#[derive(Debug)]
pub(super) struct Described {
    pub(super) by_item: HashMap<u32, About>,
    pub(super) layout: Layout,
    /// The column of each meaning.
    pub(super) columns: BTreeMap<String, String>,
    pub(super) stats: ReadStats,
    pub(super) bad_lines: BadLines,
}

/// The items file that a known set has beside its interactions, where it is there.
pub(super) fn beside(source: &Path, layout: &Layout) -> Option<PathBuf> {
    let name = source.file_name()?.to_str()?;
    let sibling = match (layout.format, name) {
        (Format::Csv, "ratings.csv") => source.with_file_name("movies.csv"),
        (Format::MovieLens, "ratings.dat") => source.with_file_name("movies.dat"),
        (Format::MovieLens, "u.data") => source.with_file_name("u.item"),
        (Format::RecBole, _) if name.ends_with(".inter") => source.with_extension("item"),
        _ => return None,
    };
    sibling.is_file().then_some(sibling)
}

/// Reads what is said about the items that occur in the interactions; of an item the first title
/// and the first categories count.
pub(super) fn read(
    path: &Path,
    settings: &PrepareSettings,
    items: &Interner,
) -> Result<Described, DataError> {
    let mut by_item: HashMap<u32, About> = HashMap::new();
    let found = each(path, settings, &mut |id, title, categories| {
        if let Some(number) = items.get(id) {
            by_item.entry(number).or_default().learn(title, categories);
        }
    })?;
    Ok(Described {
        by_item,
        columns: found.columns.named(&found.layout),
        layout: found.layout,
        stats: found.stats,
        bad_lines: found.bad_lines,
    })
}

/// Reads all items of a file, each once, in the order of the file; of an item the first title and
/// the first categories count.
///
/// # Errors
/// A file that cannot be read as what it is said to be or seems to be.
pub fn items(path: &Path, settings: &PrepareSettings) -> Result<Vec<Item>, DataError> {
    let mut items: Vec<(String, About)> = Vec::new();
    let mut places = HashMap::new();
    each(path, settings, &mut |id, title, categories| {
        let next = items.len();
        let place = *places.entry(id.to_owned()).or_insert(next);
        if place == next {
            items.push((id.to_owned(), About::default()));
        }
        items[place].1.learn(title, categories);
    })?;
    let item = |(id, About { title, categories })| Item {
        id,
        title,
        categories,
    };
    Ok(items.into_iter().map(item).collect())
}

/// How a file of items was read.
struct Found {
    layout: Layout,
    columns: ItemColumns,
    stats: ReadStats,
    bad_lines: BadLines,
}

/// What is called for each item: id, title, categories.
type OnItem<'f> = dyn FnMut(&str, Option<&str>, Vec<String>) + 'f;

fn each(
    path: &Path,
    settings: &PrepareSettings,
    on_item: &mut OnItem<'_>,
) -> Result<Found, DataError> {
    settings.check()?;
    let layout = detect(path, &Request::items(settings))?;
    let columns = ItemColumns::resolve(path, &layout, settings)?;
    let mut bad_lines = BadLines::default();
    let splitter = Splitter::new(&layout, settings);
    let silent = Progress::new(0, &|_, _| {});
    let wanted = columns.wanted();
    let stats = rows::read(path, &layout, &wanted, &silent, &mut |line, row| {
        let found = row.and_then(|cells| item(cells, &layout, &columns, &splitter, on_item));
        match found {
            Ok(()) => Ok(()),
            Err(fault) if settings.skip_bad_lines => {
                bad_lines.add(line, &fault);
                Ok(())
            }
            Err(fault) => Err(fault.at(path, line)),
        }
    })?;
    Ok(Found {
        layout,
        columns,
        stats,
        bad_lines,
    })
}

/// Hands on a row: cells in the order of [`ItemColumns::wanted`].
fn item(
    cells: &[Cell<'_>],
    layout: &Layout,
    columns: &ItemColumns,
    splitter: &Splitter,
    on_item: &mut OnItem<'_>,
) -> Result<(), Fault> {
    let within = |column: usize| move |fault: Fault| fault.in_column(&layout.columns[column]);
    let mut digits = String::new();
    let (id, _) = cells[0].id(&mut digits).map_err(within(columns.item))?;
    let title = cells[1].title().map_err(within(columns.title))?;
    let categories = match columns.categories {
        CategoryColumns::Nowhere => Vec::new(),
        CategoryColumns::Cell(at) => splitter.read(&cells[2]).map_err(within(at))?,
        CategoryColumns::Flags(_) => categories::flagged(&cells[2..])?,
    };
    on_item(id, title, categories);
    Ok(())
}
