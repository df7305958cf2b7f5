//! Categories of items, as files write them.

use slmrec_core::categories::{MAX_CATEGORIES_PER_ITEM, MAX_CATEGORY_BYTES};

use super::error::{Fault, excerpt};
use super::layout::Layout;
use super::rows::Cell;
use super::{Format, PrepareSettings};

/// The last columns of MovieLens-100K's `u.item`, in the order of its `u.genre`: 1 where the film
/// is of that genre.
pub(super) const GENRE_FLAGS: [&str; 19] = [
    UNKNOWN,
    "Action",
    "Adventure",
    "Animation",
    "Children's",
    "Comedy",
    "Crime",
    "Documentary",
    "Drama",
    "Fantasy",
    "Film-Noir",
    "Horror",
    "Musical",
    "Mystery",
    "Romance",
    "Sci-Fi",
    "Thriller",
    "War",
    "Western",
];

/// No genre, in MovieLens-100K and in RecBole's form of it.
const UNKNOWN: &str = "unknown";
/// No genre, in MovieLens' newer sets.
const NONE_LISTED: &str = "(no genres listed)";

/// How the categories of an item stand in one cell.
pub(super) struct Splitter {
    separator: String,
    /// Whether [`UNKNOWN`] is no category.
    unknown_is_none: bool,
}

impl Splitter {
    pub(super) fn new(layout: &Layout, settings: &PrepareSettings) -> Self {
        let default = match layout.format {
            // What its `token_seq` means.
            Format::RecBole => " ",
            _ => "|",
        };
        let given = settings.category_separator.as_deref();
        Self {
            separator: given.unwrap_or(default).to_owned(),
            unknown_is_none: matches!(layout.format, Format::RecBole | Format::MovieLens),
        }
    }

    /// The categories in a cell, each once, in its order. A list has one in each of its texts.
    pub(super) fn read(&self, cell: &Cell<'_>) -> Result<Vec<String>, Fault> {
        match cell {
            Cell::Missing => Ok(Vec::new()),
            Cell::Text(text) => self.each_once(text.split(&self.separator)),
            Cell::List(texts) => self.each_once(texts.iter().copied()),
            Cell::Integer(number) => Ok(vec![number.to_string()]),
            Cell::Large(number) => Ok(vec![number.to_string()]),
            other => Err(refused(
                "categories (text or a list of texts)",
                other.describe(),
            )),
        }
    }

    fn each_once<'t>(&self, names: impl Iterator<Item = &'t str>) -> Result<Vec<String>, Fault> {
        let mut found: Vec<String> = Vec::new();
        for name in names.map(str::trim) {
            let is_none = matches!(name, "" | NONE_LISTED)
                || (self.unknown_is_none && name == UNKNOWN)
                || found.iter().any(|before| before == name);
            if is_none {
                continue;
            }
            if name.len() > MAX_CATEGORY_BYTES {
                let found = format!("{} bytes, beginning {}", name.len(), excerpt(name));
                let expected = format!("a category of at most {MAX_CATEGORY_BYTES} bytes");
                return Err(refused(&expected, found));
            }
            if found.len() == MAX_CATEGORIES_PER_ITEM {
                let expected = format!("at most {MAX_CATEGORIES_PER_ITEM} categories");
                return Err(refused(&expected, "more".into()));
            }
            found.push(name.to_owned());
        }
        Ok(found)
    }
}

fn refused(expected: &str, found: String) -> Fault {
    Fault::new(expected, found).hint(
        "set category_separator, name another column, or name none: the empty name leaves them out",
    )
}

/// The genres of an item by the cells of [`GENRE_FLAGS`].
pub(super) fn flagged(cells: &[Cell<'_>]) -> Result<Vec<String>, Fault> {
    let mut found = Vec::new();
    for (name, cell) in GENRE_FLAGS.into_iter().zip(cells) {
        match cell {
            Cell::Text(flag) if flag.trim() == "1" && name != UNKNOWN => {
                found.push(name.to_owned());
            }
            Cell::Text(flag) if ["0", "1"].contains(&flag.trim()) => {}
            other => return Err(Fault::new("0 or 1", other.describe()).in_column(name)),
        }
    }
    Ok(found)
}
