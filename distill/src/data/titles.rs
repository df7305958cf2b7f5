//! Titles from a file of items.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use slmrec_core::Item;

use super::columns::resolve_items;
use super::layout::{Layout, Request, detect};
use super::log::Interner;
use super::report::BadLines;
use super::rows::{self, Progress, ReadStats};
use super::{DataError, Format, PrepareSettings};

/// Titles by item number, and how they were found.
#[derive(Debug)]
pub(super) struct Titles {
    pub(super) by_item: HashMap<u32, String>,
    pub(super) layout: Layout,
    /// The columns of item and title.
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

/// Reads the titles of the items that occur in the interactions; the first title of an item
/// counts.
pub(super) fn read(
    path: &Path,
    settings: &PrepareSettings,
    items: &Interner,
) -> Result<Titles, DataError> {
    let mut by_item = HashMap::new();
    let found = each(path, settings, &mut |id, title| {
        if let (Some(number), Some(title)) = (items.get(id), title) {
            by_item.entry(number).or_insert_with(|| title.to_owned());
        }
    })?;
    let Found {
        layout,
        wanted,
        stats,
        bad_lines,
    } = found;
    Ok(Titles {
        by_item,
        columns: [("item", wanted[0]), ("title", wanted[1])]
            .map(|(role, at)| (role.to_owned(), layout.columns[at].clone()))
            .into(),
        layout,
        stats,
        bad_lines,
    })
}

/// Reads all items of a file, each once, in the order of the file; the first title of an item
/// counts.
///
/// # Errors
/// A file that cannot be read as what it is said to be or seems to be.
pub fn items(path: &Path, settings: &PrepareSettings) -> Result<Vec<Item>, DataError> {
    let mut items: Vec<Item> = Vec::new();
    let mut places = HashMap::new();
    each(path, settings, &mut |id, title| {
        let next = items.len();
        let place = *places.entry(id.to_owned()).or_insert(next);
        if place == next {
            let id = id.to_owned();
            items.push(Item::new(id));
        }
        let item = &mut items[place];
        if item.title.is_none() {
            item.title = title.map(str::to_owned);
        }
    })?;
    Ok(items)
}

/// How a file of items was read.
struct Found {
    layout: Layout,
    /// The columns of item and title.
    wanted: Vec<usize>,
    stats: ReadStats,
    bad_lines: BadLines,
}

fn each(
    path: &Path,
    settings: &PrepareSettings,
    on_item: &mut dyn FnMut(&str, Option<&str>),
) -> Result<Found, DataError> {
    let layout = detect(path, &Request::items(settings))?;
    let wanted = resolve_items(path, &layout, settings)?;
    let mut bad_lines = BadLines::default();
    let mut digits = String::new();
    let silent = Progress::new(0, &|_, _| {});
    let stats = rows::read(path, &layout, &wanted, &silent, &mut |line, row| {
        let name = |slot: usize| layout.columns[wanted[slot]].as_str();
        let found = row.and_then(|cells| {
            let (id, _) = cells[0].id(&mut digits).map_err(|f| f.in_column(name(0)))?;
            let title = cells[1].title().map_err(|f| f.in_column(name(1)))?;
            on_item(id, title);
            Ok(())
        });
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
        wanted: wanted.to_vec(),
        stats,
        bad_lines,
    })
}
