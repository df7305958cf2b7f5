//! Titles that fit what is typed, letters in order, best first.

use nucleo_matcher::pattern::{CaseMatching, Normalization, Pattern};
use nucleo_matcher::{Config, Matcher, Utf32Str};
use slmrec_core::{Item, ItemIndex, ItemVocabulary};

/// Longest list of titles.
const MOST: usize = 50;

/// Finds items of a catalog.
pub(crate) struct Search {
    matcher: Matcher,
    buffer: Vec<char>,
}

impl Search {
    pub(crate) fn new() -> Self {
        Self {
            matcher: Matcher::new(Config::DEFAULT),
            buffer: Vec::new(),
        }
    }

    /// The items whose titles (ids, where there is none) fit `query` best; an item whose id is
    /// exactly that comes first. Everything fits an empty query.
    pub(crate) fn find(&mut self, catalog: &ItemVocabulary, query: &str) -> Vec<ItemIndex> {
        let query = query.trim();
        let pattern = Pattern::parse(query, CaseMatching::Ignore, Normalization::Smart);
        let rows = (1u32..).map(ItemIndex).zip(catalog.items());
        let mut found: Vec<(u32, ItemIndex)> = rows
            .filter_map(|(row, item)| Some((self.score(&pattern, query, item)?, row)))
            .collect();
        let better_first =
            |a: &(u32, ItemIndex), b: &(u32, ItemIndex)| b.0.cmp(&a.0).then(a.1.cmp(&b.1));
        if found.len() > MOST {
            found.select_nth_unstable_by(MOST - 1, better_first);
            found.truncate(MOST);
        }
        found.sort_unstable_by(better_first);
        found.into_iter().map(|(_, row)| row).collect()
    }

    fn score(&mut self, pattern: &Pattern, query: &str, item: &Item) -> Option<u32> {
        if item.id == query {
            return Some(u32::MAX);
        }
        let text = item.title.as_ref().unwrap_or(&item.id);
        let text = Utf32Str::new(text, &mut self.buffer);
        pattern.score(text, &mut self.matcher)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn catalog(titles: &[&str]) -> ItemVocabulary {
        let items = (1..).zip(titles).map(|(n, title)| Item {
            title: (!title.is_empty()).then(|| (*title).to_owned()),
            ..Item::new(n.to_string())
        });
        ItemVocabulary::new(items.collect()).expect("valid")
    }

    fn find(catalog: &ItemVocabulary, query: &str) -> Vec<u32> {
        let found = Search::new().find(catalog, query);
        found.into_iter().map(|item| item.0).collect()
    }

    #[test]
    fn letters_in_order_whatever_their_case_or_accents() {
        let catalog = catalog(&["Star Wars", "Amélie", "Stargate", "The Godfather"]);
        assert_eq!(find(&catalog, "amelie"), [2]);
        assert_eq!(find(&catalog, "gdfthr"), [4]);
        assert_eq!(find(&catalog, "star wars"), [1]);
        assert_eq!(find(&catalog, "star"), [1, 3]);
        assert_eq!(find(&catalog, "xyz"), [0u32; 0]);
        assert_eq!(find(&catalog, " "), [1, 2, 3, 4]);
    }

    #[test]
    fn ids_stand_in_for_titles_and_come_first_where_they_are_meant() {
        let catalog = catalog(&["", "Apollo 13", "Film 1"]);
        assert_eq!(find(&catalog, "1"), [1, 2, 3]);
        assert_eq!(find(&catalog, "3")[0], 3);
    }

    #[test]
    fn a_long_list_is_cut() {
        let titles = vec!["Same title"; 2 * MOST];
        let found = find(&catalog(&titles), "same");
        assert_eq!(found.len(), MOST);
        assert_eq!(found[..3], [1, 2, 3]);
    }
}
