//! Which column means what.

use std::collections::BTreeMap;
use std::path::Path;

use super::categories::GENRE_FLAGS;
use super::layout::{Layout, Purpose, Request};
use super::{DataError, Format, PrepareSettings};

/// A meaning a column can have, and the names by which it is known. Names are compared without
/// case, `_`, `-` and spaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Role {
    pub(super) name: &'static str,
    pub(super) setting: &'static str,
    guesses: &'static [&'static str],
}

pub(super) const USER: Role = Role {
    name: "user",
    setting: "user_column",
    guesses: &["user", "user_id", "uid", "reviewerID"],
};
pub(super) const ITEM: Role = Role {
    name: "item",
    setting: "item_column",
    // Where reviews have both, the parent names the product and the other one its variant.
    guesses: &["item", "item_id", "movie_id", "parent_asin", "asin"],
};
pub(super) const TIME: Role = Role {
    name: "time",
    setting: "time_column",
    guesses: &["time", "timestamp", "ts", "unixReviewTime", "datetime"],
};
pub(super) const RATING: Role = Role {
    name: "rating",
    setting: "rating_column",
    guesses: &["rating", "score", "stars", "overall"],
};
/// In a file of interactions a plain `title` may be that of a review, so it is not guessed.
pub(super) const TITLE: Role = Role {
    name: "title",
    setting: "title_column",
    guesses: &["item_title", "movie_title"],
};
/// As for a title: plain categories may be those of the interaction.
pub(super) const CATEGORIES: Role = Role {
    name: "categories",
    setting: "categories_column",
    guesses: &["item_genres", "item_categories", "item_category"],
};
const ITEMS_ITEM: Role = Role {
    setting: "items_item_column",
    guesses: &["item", "item_id", "movie_id", "parent_asin", "asin", "id"],
    ..ITEM
};
const ITEMS_TITLE: Role = Role {
    name: "title",
    setting: "items_title_column",
    guesses: &["title", "name", "movie_title", "item_title", "item_name"],
};
const ITEMS_CATEGORIES: Role = Role {
    setting: "items_categories_column",
    guesses: &["genres", "genre", "categories", "category"],
    ..CATEGORIES
};
/// In RecBole's form of MovieLens-100K genres are called a class.
const RECBOLE_CATEGORIES: Role = Role {
    guesses: &["genres", "genre", "class"],
    ..ITEMS_CATEGORIES
};

/// Column numbers (from 0) of a file of interactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct InteractionColumns {
    pub(super) user: usize,
    pub(super) item: usize,
    pub(super) time: Option<usize>,
    pub(super) rating: Option<usize>,
    pub(super) title: Option<usize>,
    pub(super) categories: Option<usize>,
}

impl InteractionColumns {
    pub(super) fn resolve(
        path: &Path,
        layout: &Layout,
        settings: &PrepareSettings,
    ) -> Result<Self, DataError> {
        if layout.format == Format::Sequences {
            return Self::of_sequences(settings);
        }
        let optional = |role, asked: &Option<String>| find(path, layout, role, asked.as_deref());
        let rating_wanted = settings.min_rating.is_some() || settings.rating_column.is_some();
        let rating = match rating_wanted {
            true => Some(required(
                path,
                layout,
                RATING,
                settings.rating_column.as_deref(),
            )?),
            false => None,
        };
        Ok(Self {
            user: required(path, layout, USER, settings.user_column.as_deref())?,
            item: required(path, layout, ITEM, settings.item_column.as_deref())?,
            time: optional(TIME, &settings.time_column)?,
            rating,
            title: optional(TITLE, &settings.title_column)?,
            categories: categories(
                path,
                layout,
                CATEGORIES,
                settings.categories_column.as_deref(),
            )?,
        })
    }

    /// Lines of ids have no columns but the two that are made.
    fn of_sequences(settings: &PrepareSettings) -> Result<Self, DataError> {
        let unusable = [
            (TIME.setting, settings.time_column.is_some()),
            (RATING.setting, settings.rating_column.is_some()),
            (TITLE.setting, settings.title_column.is_some()),
            (CATEGORIES.setting, settings.categories_column.is_some()),
            ("min_rating", settings.min_rating.is_some()),
            (ITEM.setting, settings.item_column.is_some()),
        ];
        match unusable.iter().find(|(_, given)| *given) {
            Some((setting, _)) => Err(DataError::Setting {
                setting,
                expected: "nothing, since lines of item ids have no such column".into(),
                found: "a value".into(),
            }),
            None => Ok(Self {
                user: 0,
                item: 1,
                time: None,
                rating: None,
                title: None,
                categories: None,
            }),
        }
    }

    /// The name of the column of each meaning.
    pub(super) fn named(&self, layout: &Layout) -> BTreeMap<String, String> {
        let user_and_item = [(USER, Some(self.user)), (ITEM, Some(self.item))];
        let others = [
            (TIME, self.time),
            (RATING, self.rating),
            (TITLE, self.title),
            (CATEGORIES, self.categories),
        ];
        let name = |(role, at): (Role, Option<usize>)| {
            at.map(|at| (role.name.to_owned(), layout.columns[at].clone()))
        };
        user_and_item
            .into_iter()
            .chain(others)
            .filter_map(name)
            .collect()
    }

    /// The columns to read: user, item, then those of time, rating, title and categories that are
    /// there.
    pub(super) fn wanted(&self) -> Vec<usize> {
        [
            Some(self.user),
            Some(self.item),
            self.time,
            self.rating,
            self.title,
            self.categories,
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

/// Column numbers in a file of items.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ItemColumns {
    pub(super) item: usize,
    pub(super) title: usize,
    pub(super) categories: CategoryColumns,
}

/// Where a file of items has categories.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum CategoryColumns {
    Nowhere,
    /// All of an item in one cell.
    Cell(usize),
    /// [`GENRE_FLAGS`], beginning here.
    Flags(usize),
}

impl ItemColumns {
    pub(super) fn resolve(
        path: &Path,
        layout: &Layout,
        settings: &PrepareSettings,
    ) -> Result<Self, DataError> {
        let item = settings.items_item_column.as_deref();
        let title = settings.items_title_column.as_deref();
        let asked = settings.items_categories_column.as_deref();
        let role = match layout.format {
            Format::RecBole => RECBOLE_CATEGORIES,
            _ => ITEMS_CATEGORIES,
        };
        Ok(Self {
            item: required(path, layout, ITEMS_ITEM, item)?,
            title: required(path, layout, ITEMS_TITLE, title)?,
            categories: match categories(path, layout, role, asked)? {
                Some(at) => CategoryColumns::Cell(at),
                None => match flags(layout) {
                    Some(first) if asked.is_none() => CategoryColumns::Flags(first),
                    _ => CategoryColumns::Nowhere,
                },
            },
        })
    }

    /// The columns to read: item, title, then those of the categories.
    pub(super) fn wanted(&self) -> Vec<usize> {
        let categories = match self.categories {
            CategoryColumns::Nowhere => 0..0,
            CategoryColumns::Cell(at) => at..at + 1,
            CategoryColumns::Flags(first) => first..first + GENRE_FLAGS.len(),
        };
        [self.item, self.title]
            .into_iter()
            .chain(categories)
            .collect()
    }

    /// The name of the column of each meaning.
    pub(super) fn named(&self, layout: &Layout) -> BTreeMap<String, String> {
        let name = |at: usize| layout.columns[at].clone();
        let mut named = BTreeMap::from([
            (ITEM.name.to_owned(), name(self.item)),
            (TITLE.name.to_owned(), name(self.title)),
        ]);
        let categories = match self.categories {
            CategoryColumns::Nowhere => return named,
            CategoryColumns::Cell(at) => name(at),
            CategoryColumns::Flags(first) => {
                let last = first + GENRE_FLAGS.len() - 1;
                format!("{} to {}", name(first), name(last))
            }
        };
        named.insert(CATEGORIES.name.to_owned(), categories);
        named
    }
}

/// Where the flags of `u.item` begin.
fn flags(layout: &Layout) -> Option<usize> {
    let first = layout.columns.len().checked_sub(GENRE_FLAGS.len())?;
    let is_u_item = layout.format == Format::MovieLens && layout.columns[first..] == GENRE_FLAGS;
    is_u_item.then_some(first)
}

impl<'s> Request<'s> {
    pub(super) fn interactions(settings: &'s PrepareSettings) -> Self {
        Self {
            purpose: Purpose::Interactions,
            format: settings.format,
            header: settings.header,
            user_column: settings.user_column.as_deref(),
            item_column: settings.item_column.as_deref(),
        }
    }

    pub(super) fn items(settings: &'s PrepareSettings) -> Self {
        Self {
            purpose: Purpose::Items,
            format: settings.items_format,
            header: None,
            user_column: None,
            item_column: settings.items_item_column.as_deref(),
        }
    }
}

/// As [`find`], and an empty name means that there are none.
fn categories(
    path: &Path,
    layout: &Layout,
    role: Role,
    asked: Option<&str>,
) -> Result<Option<usize>, DataError> {
    match asked {
        Some("") => Ok(None),
        asked => find(path, layout, role, asked),
    }
}

fn required(
    path: &Path,
    layout: &Layout,
    role: Role,
    asked: Option<&str>,
) -> Result<usize, DataError> {
    find(path, layout, role, asked)?.ok_or_else(|| missing(path, layout, role, role.guesses))
}

/// The column asked for, which must be there, or else the first guess that is.
fn find(
    path: &Path,
    layout: &Layout,
    role: Role,
    asked: Option<&str>,
) -> Result<Option<usize>, DataError> {
    if let Some(name) = asked {
        return match by_name(path, layout, |column| column == name)? {
            Some(at) => Ok(Some(at)),
            None => by_position(layout, name)
                .map(Some)
                .ok_or_else(|| missing(path, layout, role, &[name])),
        };
    }
    for guess in role.guesses {
        let guess = plain(guess);
        if let Some(at) = by_name(path, layout, |column| plain(column) == guess)? {
            return Ok(Some(at));
        }
    }
    Ok(None)
}

fn by_name(
    path: &Path,
    layout: &Layout,
    is: impl Fn(&str) -> bool,
) -> Result<Option<usize>, DataError> {
    let mut found = (0..layout.columns.len()).filter(|&at| is(&layout.columns[at]));
    match (found.next(), found.next()) {
        (Some(first), Some(_)) => Err(DataError::RepeatedColumn {
            path: path.to_owned(),
            column: layout.columns[first].clone(),
        }),
        (first, _) => Ok(first),
    }
}

fn by_position(layout: &Layout, name: &str) -> Option<usize> {
    let at = name.parse::<usize>().ok()?.checked_sub(1)?;
    (at < layout.columns.len()).then_some(at)
}

fn plain(name: &str) -> String {
    name.chars()
        .filter(|c| !matches!(c, '_' | '-' | ' '))
        .flat_map(char::to_lowercase)
        .collect()
}

fn missing(path: &Path, layout: &Layout, role: Role, tried: &[&str]) -> DataError {
    let headless = layout.header && layout.columns.iter().any(|c| c.parse::<f64>().is_ok());
    let hint = if headless {
        "the first line looks like data: for a file without a header name the columns by position (1, 2, ...)".to_owned()
    } else {
        format!("set {}", role.setting)
    };
    DataError::MissingColumn {
        path: path.to_owned(),
        role: role.name,
        tried: tried.iter().map(|&name| name.to_owned()).collect(),
        found: layout.columns.clone(),
        hint,
    }
}
