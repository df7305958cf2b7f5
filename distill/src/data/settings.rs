//! What a person may say about a data file.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::DataError;

/// How the source file is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Recognised by content.
    #[default]
    Auto,
    /// Separated by comma, semicolon or bar, fields may be quoted.
    Csv,
    /// Separated by tabs, nothing quoted.
    Tsv,
    /// GroupLens' old forms: `::` between the fields, `u.data`, `u.item`; no header.
    MovieLens,
    /// Tabs, with typed names in the header (`user_id:token`).
    RecBole,
    /// One JSON object a line.
    JsonLines,
    /// Apache Parquet.
    Parquet,
    /// One user a line: item ids separated by spaces, oldest first. The user's id is the line
    /// number, or the first id of the line where `user_column` is `"1"`.
    Sequences,
}

/// What happens when a user meets the same item again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Duplicates {
    /// All of them stay.
    #[default]
    Keep,
    /// Only the oldest stays.
    First,
    /// Only the newest stays.
    Last,
}

/// Settings of [`prepare`](super::prepare).
///
/// A column is named as in the header, or by its position (`"1"` is the first); the user and item
/// columns given by position mean that the file has no header, unless `header` says otherwise.
/// Columns that are not given are guessed by the usual names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PrepareSettings {
    /// What to call the dataset; the name of the source file when absent.
    pub name: Option<String>,
    /// How the source is written.
    pub format: Format,
    /// Whether the first line names the columns; recognised when absent.
    pub header: Option<bool>,
    /// Column of the user id.
    pub user_column: Option<String>,
    /// Column of the item id.
    pub item_column: Option<String>,
    /// Column of the time: numbers (any unit) or ISO 8601 dates, UTC where no offset is given.
    pub time_column: Option<String>,
    /// Column of the rating; only read for `min_rating`.
    pub rating_column: Option<String>,
    /// Column of the item's title in the source itself.
    pub title_column: Option<String>,
    /// Column of the item's categories in the source itself; when empty, they are not read.
    pub categories_column: Option<String>,
    /// A file with the items' titles and categories.
    pub items: Option<PathBuf>,
    /// How that file is written.
    pub items_format: Format,
    /// Column of the item id in that file.
    pub items_item_column: Option<String>,
    /// Column of the title in that file.
    pub items_title_column: Option<String>,
    /// Column of the categories in that file; when empty, they are not read.
    pub items_categories_column: Option<String>,
    /// What stands between two categories of an item; when absent `|`, in RecBole's files a space.
    pub category_separator: Option<String>,
    /// Whether the file of items that belongs to a known set is looked for beside the source
    /// (`ratings.csv` + `movies.csv`, `x.inter` + `x.item`, `u.data` + `u.item`,
    /// `ratings.dat` + `movies.dat`) when `items` is absent.
    pub find_items: bool,
    /// Interactions rated lower are dropped.
    pub min_rating: Option<f64>,
    /// Users and items with fewer interactions are dropped, again and again until all have so
    /// many; 0 and 1 drop nothing.
    pub k_core: usize,
    /// What happens when a user meets the same item again.
    pub duplicates: Duplicates,
    /// Whether lines that cannot be read are counted and left out instead of ending the run.
    pub skip_bad_lines: bool,
}

impl Default for PrepareSettings {
    fn default() -> Self {
        Self {
            name: None,
            format: Format::Auto,
            header: None,
            user_column: None,
            item_column: None,
            time_column: None,
            rating_column: None,
            title_column: None,
            categories_column: None,
            items: None,
            items_format: Format::Auto,
            items_item_column: None,
            items_title_column: None,
            items_categories_column: None,
            category_separator: None,
            find_items: true,
            min_rating: None,
            k_core: 1,
            duplicates: Duplicates::Keep,
            skip_bad_lines: false,
        }
    }
}

impl PrepareSettings {
    pub(super) fn check(&self) -> Result<(), DataError> {
        let refused = |setting, expected: &str, found: String| {
            let expected = expected.to_owned();
            Err(DataError::Setting {
                setting,
                expected,
                found,
            })
        };
        match self.min_rating {
            Some(rating) if !rating.is_finite() => {
                return refused("min_rating", "a finite number", rating.to_string());
            }
            _ => {}
        }
        match self.category_separator.as_deref() {
            Some("") => refused("category_separator", "some text", "none".into()),
            _ => Ok(()),
        }
    }
}
