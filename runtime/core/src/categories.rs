//! Which items belong to which category.
//!
//! Categories are names that the catalog gives its items (genres, departments). A filter over them
//! reads the rows of a name, which are made once, and never the names of all items.

use std::collections::{BTreeMap, HashSet};

use crate::vocabulary::{Item, ItemIndex, VocabularyError};

/// Most categories of one item.
pub const MAX_CATEGORIES_PER_ITEM: usize = 256;
/// Longest name of a category, in bytes of UTF-8.
pub const MAX_CATEGORY_BYTES: usize = 256;
/// Most different categories of a vocabulary.
pub const MAX_CATEGORIES: usize = 100_000;

/// The rows of each category.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Categories {
    /// Ascending rows by name; no list is empty.
    rows: BTreeMap<String, Vec<ItemIndex>>,
    /// Number of items that have a category.
    items: usize,
}

impl Categories {
    /// The categories of items whose rows begin at `first`.
    ///
    /// # Errors
    /// More categories than an item or a vocabulary may have, and names that are empty, too long,
    /// surrounded by white space or given to an item twice.
    pub(crate) fn of(first: u32, items: &[Item]) -> Result<Self, VocabularyError> {
        let mut all = Self::default();
        for (row, item) in (first..).zip(items) {
            check(row, &item.categories)?;
            for name in &item.categories {
                match all.rows.get_mut(name) {
                    Some(rows) => rows.push(ItemIndex(row)),
                    None => {
                        all.rows.insert(name.clone(), vec![ItemIndex(row)]);
                        all.check_len(0)?;
                    }
                }
            }
            all.items += usize::from(!item.categories.is_empty());
        }
        Ok(all)
    }

    /// That these and `behind`, whose rows come after, are together few enough.
    ///
    /// # Errors
    /// More than [`MAX_CATEGORIES`].
    pub(crate) fn check_with(&self, behind: &Self) -> Result<(), VocabularyError> {
        let new = (behind.rows.keys()).filter(|name| !self.rows.contains_key(*name));
        self.check_len(new.count())
    }

    fn check_len(&self, more: usize) -> Result<(), VocabularyError> {
        match self.rows.len() + more {
            found if found > MAX_CATEGORIES => Err(VocabularyError::TooManyCategories {
                max: MAX_CATEGORIES,
            }),
            _ => Ok(()),
        }
    }

    /// Takes in those of items whose rows come after.
    pub(crate) fn append(&mut self, behind: Self) {
        for (name, rows) in behind.rows {
            self.rows.entry(name).or_default().extend(rows);
        }
        self.items += behind.items;
    }

    /// The rows of a category, ascending; `None` for a name that no item has. Names are compared
    /// as they are.
    #[must_use]
    pub fn items_of(&self, name: &str) -> Option<&[ItemIndex]> {
        self.rows.get(name).map(Vec::as_slice)
    }

    /// Names and their rows, in the order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[ItemIndex])> {
        (self.rows.iter()).map(|(name, rows)| (name.as_str(), rows.as_slice()))
    }

    /// Number of different categories.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether no item has a category.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Number of items that have a category.
    #[must_use]
    pub fn items_with_any(&self) -> usize {
        self.items
    }
}

/// The names of one item.
fn check(row: u32, names: &[String]) -> Result<(), VocabularyError> {
    if names.len() > MAX_CATEGORIES_PER_ITEM {
        return Err(VocabularyError::TooManyCategoriesOfAnItem {
            row,
            found: names.len(),
            max: MAX_CATEGORIES_PER_ITEM,
        });
    }
    let mut before = HashSet::new();
    for (at, name) in names.iter().enumerate() {
        if name.len() > MAX_CATEGORY_BYTES {
            return Err(VocabularyError::CategoryTooLong {
                row,
                found: name.len(),
                max: MAX_CATEGORY_BYTES,
            });
        }
        if name.is_empty() || name.trim() != name {
            let name = name.clone();
            return Err(VocabularyError::CategoryName { row, name });
        }
        // Most items have few, and looking at them takes less than hashing them.
        let is_repeated = match names.len() {
            ..=8 => names[..at].contains(name),
            _ => !before.insert(name),
        };
        if is_repeated {
            let name = name.clone();
            return Err(VocabularyError::RepeatedCategory { row, name });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vocabulary::ItemVocabulary;

    fn item(id: &str, categories: &[&str]) -> Item {
        Item {
            categories: categories.iter().map(|&name| name.to_owned()).collect(),
            ..Item::new(id)
        }
    }

    fn refusal(items: Vec<Item>) -> VocabularyError {
        ItemVocabulary::new(items).expect_err("refused")
    }

    #[test]
    fn rows_of_names_ascend_and_go_on_in_what_is_appended() {
        let items = vec![item("a", &["x", "y"]), item("b", &[]), item("c", &["x"])];
        let mut vocabulary = ItemVocabulary::new(items).expect("valid");
        let more = vec![item("d", &["z", "x"])];
        vocabulary.append(more).expect("appends");
        let found = vocabulary.categories();
        let rows = |name| -> Option<Vec<u32>> {
            let rows = found.items_of(name)?;
            Some(rows.iter().map(|item| item.0).collect())
        };
        assert_eq!(rows("x"), Some(vec![1, 3, 4]));
        assert_eq!(rows("y"), Some(vec![1]));
        assert_eq!(rows("z"), Some(vec![4]));
        assert_eq!((rows("X"), rows(" x")), (None, None));
        assert_eq!((found.len(), found.items_with_any()), (3, 3));
        let names: Vec<&str> = found.iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["x", "y", "z"]);
    }

    #[test]
    fn nothing_of_refused_items_stays() {
        let mut vocabulary = ItemVocabulary::new(vec![item("a", &["x"])]).expect("valid");
        let before = vocabulary.categories().clone();
        for refused in [item("a", &["y"]), item("b", &["y", "y"])] {
            vocabulary.append(vec![refused]).expect_err("refused");
            assert_eq!((vocabulary.categories(), vocabulary.len()), (&before, 1));
            assert_eq!(vocabulary.index_of("b"), None);
        }
    }

    #[test]
    fn names_that_no_filter_could_mean_are_refused() {
        for name in ["", " x", "x\t"] {
            let error = refusal(vec![item("a", &[]), item("b", &[name])]);
            let name = name.to_owned();
            assert_eq!(error, VocabularyError::CategoryName { row: 2, name });
        }
        let error = refusal(vec![item("a", &["x", "y", "x"])]);
        let name = "x".to_owned();
        assert_eq!(error, VocabularyError::RepeatedCategory { row: 1, name });
        let longest = "é".repeat(MAX_CATEGORY_BYTES / 2);
        ItemVocabulary::new(vec![item("a", &[&longest])]).expect("the longest");
        assert!(matches!(
            refusal(vec![item("a", &[&format!("{longest}x")])]),
            VocabularyError::CategoryTooLong { row: 1, found, .. } if found == MAX_CATEGORY_BYTES + 1
        ));
    }

    #[test]
    fn an_item_and_a_vocabulary_have_so_many_categories_and_no_more() {
        let of = |id: &str, numbers: std::ops::Range<usize>| Item {
            categories: numbers.map(|n| n.to_string()).collect(),
            ..Item::new(id)
        };
        let most = MAX_CATEGORIES_PER_ITEM;
        ItemVocabulary::new(vec![of("a", 0..most)]).expect("the most");
        assert!(matches!(
            refusal(vec![of("a", 0..most + 1)]),
            VocabularyError::TooManyCategoriesOfAnItem { row: 1, found, .. } if found == most + 1
        ));
        let starts = (0..MAX_CATEGORIES).step_by(most);
        let items = starts.map(|from| of(&from.to_string(), from..MAX_CATEGORIES.min(from + most)));
        let mut full = ItemVocabulary::new(items.collect()).expect("the most");
        assert_eq!(full.categories().len(), MAX_CATEGORIES);
        full.append(vec![of("known", 0..3)])
            .expect("none of them is new");
        let max = MAX_CATEGORIES;
        let error = full.append(vec![item("one", &["more"])]);
        assert_eq!(error, Err(VocabularyError::TooManyCategories { max }));
    }

    #[test]
    fn categories_are_in_the_json_where_there_are_any() {
        let items = vec![item("a", &["Sci-Fi", "War"]), item("b", &[])];
        let vocabulary = ItemVocabulary::new(items).expect("valid");
        let json = vocabulary.to_json().expect("json");
        assert_eq!(
            String::from_utf8_lossy(&json),
            r#"{"items":[{"id":"a","categories":["Sci-Fi","War"]},{"id":"b"}]}"#
        );
        let back = ItemVocabulary::from_json(&json).expect("round trip");
        assert_eq!(back.items(), vocabulary.items());
        assert_eq!(back.categories(), vocabulary.categories());
        let twice = br#"{"items":[{"id":"a","categories":["x","x"]}]}"#;
        assert!(ItemVocabulary::from_json(twice).is_err());
    }
}
