//! A filter as a bitmap over the catalog.

use std::collections::HashSet;

use slmrec_core::{ItemIndex, ItemMask};

use super::Recommender;
use crate::options::FilterOptions;

/// Names of a filter that the catalog does not have, each once.
#[derive(Clone, Debug, Default)]
pub(super) struct Unknown {
    /// Ids of the block and allow lists.
    pub(super) items: Vec<String>,
    pub(super) categories: Vec<String>,
}

impl Recommender {
    /// What lists, categories and packs exclude, and which names of `filter` the catalog does not
    /// have. An allow list or categories of unknown names alone allow nothing.
    pub(super) fn resolve(&self, filter: &FilterOptions) -> (ItemMask, Unknown) {
        let mut mask = ItemMask::none(self.vocabulary.len());
        let mut unknown = Names::default();
        let mut index_of = |id: &String| unknown.known(id, self.vocabulary.index_of(id));
        for item in filter.block.iter().filter_map(&mut index_of) {
            mask.exclude(item);
        }
        if let Some(allow) = &filter.allow {
            mask.allow_only(allow.iter().filter_map(&mut index_of));
        }
        let items = unknown.names;
        let mut unknown = Names::default();
        let mut items_of = |name: &String| -> &[ItemIndex] {
            let name = name.trim();
            let items = self.vocabulary.categories().items_of(name);
            unknown.known(name, items).unwrap_or_default()
        };
        for item in filter.block_categories.iter().flat_map(&mut items_of) {
            mask.exclude(*item);
        }
        if let Some(categories) = &filter.categories {
            mask.allow_only(categories.iter().flat_map(&mut items_of).copied());
        }
        let categories = unknown.names;
        self.retired.iter().for_each(|&item| mask.exclude(item));
        (mask, Unknown { items, categories })
    }
}

/// Names that were looked for and not found.
#[derive(Default)]
struct Names {
    names: Vec<String>,
    named: HashSet<String>,
}

impl Names {
    /// Passes on what was found under a name; without that, the name is remembered once.
    fn known<T>(&mut self, name: &str, found: Option<T>) -> Option<T> {
        if found.is_none() && self.named.insert(name.to_owned()) {
            self.names.push(name.to_owned());
        }
        found
    }
}

/// `lists` and what a history has seen.
pub(super) fn with_seen(lists: &ItemMask, filter: &FilterOptions, seen: &[ItemIndex]) -> ItemMask {
    let mut mask = lists.clone();
    if !filter.include_seen {
        seen.iter().for_each(|&item| mask.exclude(item));
    }
    mask
}
