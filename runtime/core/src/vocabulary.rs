//! The item vocabulary: which catalog key stands for which dense row.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::categories::Categories;

/// Dense row of an item: `1..=N`; row 0 is the padding and never an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ItemIndex(pub u32);

impl ItemIndex {
    /// The padding row.
    pub const PADDING: Self = Self(0);

    /// The row as an array index.
    #[must_use]
    pub fn row(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for ItemIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// One entry of the catalog.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Item {
    /// The catalog's own key (`ItemId`), a string whatever the source file had.
    pub id: String,
    /// What a person reads, where the source had one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Names of the categories that it belongs to, each once, without white space around them;
    /// bounded as [`crate::categories`] says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub categories: Vec<String>,
}

impl Item {
    /// An item without title and categories.
    #[must_use]
    pub fn new(id: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            ..Self::default()
        }
    }
}

/// Why a list of items is not a vocabulary.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum VocabularyError {
    /// The same id twice.
    #[error("item id {id:?} occurs twice (rows {first} and {second})")]
    Duplicate {
        /// The id.
        id: String,
        /// Row of the first occurrence.
        first: u32,
        /// Row of the second occurrence.
        second: u32,
    },
    /// An id without a character.
    #[error("row {row} has an empty item id")]
    EmptyId {
        /// The row.
        row: u32,
    },
    /// More items than `u32` rows.
    #[error("{found} items, at most {max} are supported")]
    TooMany {
        /// Number of items found.
        found: usize,
        /// The limit.
        max: usize,
    },
    /// An item with more categories than supported.
    #[error("row {row} has {found} categories, at most {max} are supported")]
    TooManyCategoriesOfAnItem {
        /// The row.
        row: u32,
        /// Number of its categories.
        found: usize,
        /// The limit.
        max: usize,
    },
    /// More different categories than supported.
    #[error("more than {max} different categories; is it a column of categories?")]
    TooManyCategories {
        /// The limit.
        max: usize,
    },
    /// A category with too long a name.
    #[error("row {row} has a category of {found} bytes, at most {max} are supported")]
    CategoryTooLong {
        /// The row.
        row: u32,
        /// Bytes of the name.
        found: usize,
        /// The limit.
        max: usize,
    },
    /// A category that is empty or has white space around it.
    #[error("row {row} has the category {name:?}, expected a name without white space around it")]
    CategoryName {
        /// The row.
        row: u32,
        /// The name.
        name: String,
    },
    /// The same category of an item twice.
    #[error("row {row} has the category {name:?} twice")]
    RepeatedCategory {
        /// The row.
        row: u32,
        /// The name.
        name: String,
    },
    /// The JSON is not a vocabulary.
    #[error("not a vocabulary: {0}")]
    Json(String),
}

/// Catalog keys, titles and categories by dense row, and back.
#[derive(Clone, Debug, Default)]
pub struct ItemVocabulary {
    items: Vec<Item>,
    by_id: HashMap<String, ItemIndex>,
    categories: Categories,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct VocabularyFile {
    items: Vec<Item>,
}

impl ItemVocabulary {
    /// Most items a vocabulary may hold.
    pub const MAX_ITEMS: usize = 100_000_000;

    /// Builds a vocabulary; `items[0]` becomes row 1.
    ///
    /// # Errors
    /// Duplicate or empty ids, too many items, and categories past the limits of
    /// [`crate::categories`].
    pub fn new(items: Vec<Item>) -> Result<Self, VocabularyError> {
        let mut vocabulary = Self::default();
        vocabulary.append(items)?;
        Ok(vocabulary)
    }

    /// Appends items: the first becomes row `N + 1`.
    ///
    /// # Errors
    /// As [`Self::new`]; nothing is appended then.
    pub fn append(&mut self, items: Vec<Item>) -> Result<(), VocabularyError> {
        let before = self.items.len();
        let found = before + items.len();
        if found > Self::MAX_ITEMS {
            let max = Self::MAX_ITEMS;
            return Err(VocabularyError::TooMany { found, max });
        }
        let first = before as u32 + 1;
        let categories = Categories::of(first, &items)?;
        self.categories.check_with(&categories)?;
        self.by_id.reserve(items.len());
        let entered = ((first..).zip(&items)).try_for_each(|(row, item)| self.enter(row, item));
        match &entered {
            Ok(()) => {
                self.items.extend(items);
                self.categories.append(categories);
            }
            Err(_) => self.by_id.retain(|_, index| index.row() <= before),
        }
        entered
    }

    fn enter(&mut self, row: u32, item: &Item) -> Result<(), VocabularyError> {
        if item.id.is_empty() {
            return Err(VocabularyError::EmptyId { row });
        }
        match self.by_id.entry(item.id.clone()) {
            Entry::Vacant(place) => {
                place.insert(ItemIndex(row));
                Ok(())
            }
            Entry::Occupied(first) => Err(VocabularyError::Duplicate {
                id: item.id.clone(),
                first: first.get().0,
                second: row,
            }),
        }
    }

    /// Number of items N; valid rows are `1..=N`.
    #[must_use]
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there is no item.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The row of a catalog key.
    #[must_use]
    pub fn index_of(&self, id: &str) -> Option<ItemIndex> {
        self.by_id.get(id).copied()
    }

    /// The item of a row; `None` for the padding and for rows past the end.
    #[must_use]
    pub fn get(&self, index: ItemIndex) -> Option<&Item> {
        self.items.get(index.row().checked_sub(1)?)
    }

    /// All items in row order, beginning with row 1.
    #[must_use]
    pub fn items(&self) -> &[Item] {
        &self.items
    }

    /// Which items belong to which category.
    #[must_use]
    pub fn categories(&self) -> &Categories {
        &self.categories
    }

    /// The items alone, in row order.
    #[must_use]
    pub fn into_items(self) -> Vec<Item> {
        self.items
    }

    /// The JSON form `{"items":[{"id":"..","title":"..","categories":[".."]}]}`; what an item does
    /// not have is left out.
    ///
    /// # Errors
    /// Only what `serde_json` reports for plain strings, which is nothing.
    pub fn to_json(&self) -> Result<Vec<u8>, VocabularyError> {
        #[derive(Serialize)]
        struct Borrowed<'a> {
            items: &'a [Item],
        }
        serde_json::to_vec(&Borrowed { items: &self.items })
            .map_err(|e| VocabularyError::Json(e.to_string()))
    }

    /// Reads what [`Self::to_json`] wrote.
    ///
    /// # Errors
    /// Malformed JSON, or items that [`Self::new`] refuses.
    pub fn from_json(bytes: &[u8]) -> Result<Self, VocabularyError> {
        let file: VocabularyFile =
            serde_json::from_slice(bytes).map_err(|e| VocabularyError::Json(e.to_string()))?;
        Self::new(file.items)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(id: &str) -> Item {
        Item::new(id)
    }

    #[test]
    fn rows_begin_at_one() {
        let v = ItemVocabulary::new(vec![item("a"), item("b")]).expect("valid");
        assert_eq!(v.index_of("a"), Some(ItemIndex(1)));
        assert_eq!(v.get(ItemIndex(2)).map(|i| i.id.as_str()), Some("b"));
        assert_eq!(v.get(ItemIndex::PADDING), None);
        assert_eq!(v.get(ItemIndex(3)), None);
    }

    #[test]
    fn refuses_duplicates_and_empty_ids() {
        assert!(matches!(
            ItemVocabulary::new(vec![item("a"), item("a")]),
            Err(VocabularyError::Duplicate {
                first: 1,
                second: 2,
                ..
            })
        ));
        assert!(matches!(
            ItemVocabulary::new(vec![item("")]),
            Err(VocabularyError::EmptyId { row: 1 })
        ));
    }

    #[test]
    fn appends_all_or_nothing() {
        let mut v = ItemVocabulary::new(vec![item("a"), item("b")]).expect("valid");
        v.append(vec![item("c")]).expect("appends");
        assert_eq!(v.index_of("c"), Some(ItemIndex(3)));
        let error = v.append(vec![item("d"), item("a")]).expect_err("refused");
        let id = "a".to_owned();
        let (first, second) = (1, 5);
        assert_eq!(error, VocabularyError::Duplicate { id, first, second });
        assert_eq!((v.len(), v.index_of("d")), (3, None));
        assert_eq!(v.index_of("a"), Some(ItemIndex(1)));
    }

    #[test]
    fn json_round_trip() {
        let v = ItemVocabulary::new(vec![
            item("50"),
            Item {
                title: Some("Amélie, \"2001\"".into()),
                ..Item::new("é")
            },
        ])
        .expect("valid");
        let back = ItemVocabulary::from_json(&v.to_json().expect("json")).expect("round trip");
        assert_eq!(back.items(), v.items());
        assert!(ItemVocabulary::from_json(b"{\"items\":[{\"id\":3}]}").is_err());
    }
}
