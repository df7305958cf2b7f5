//! Which items may be recommended: from the arguments, and what of that the catalog does not have.

use std::path::Path;

use anyhow::Context;
use slmrec_runtime::{FilterOptions, Recommender};

use crate::arguments::FilterArguments;
use crate::output::{printable, say};

/// Most names of a list that are said on stderr.
const NAMED: usize = 10;

/// What the arguments let through.
pub(super) fn given(arguments: &FilterArguments) -> anyhow::Result<FilterOptions> {
    let block = ids(&arguments.block, arguments.block_file.as_deref())?;
    let categories = &arguments.category;
    Ok(FilterOptions {
        include_seen: arguments.include_seen,
        block: block.unwrap_or_default(),
        allow: ids(&arguments.allow, arguments.allow_file.as_deref())?,
        categories: (!categories.is_empty()).then(|| categories.clone()),
        block_categories: arguments.block_category.clone(),
    })
}

/// Ids of the command line and of a file with one a line; `None` when neither was given.
pub(super) fn ids(named: &[String], file: Option<&Path>) -> anyhow::Result<Option<Vec<String>>> {
    let mut ids = named.to_vec();
    if let Some(path) = file {
        let text = String::from_utf8(super::read_file(path)?)
            .with_context(|| format!("{}: expected UTF-8 text", path.display()))?;
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        ids.extend(lines.map(str::to_owned));
    }
    Ok((file.is_some() || !named.is_empty()).then_some(ids))
}

/// The filter without what the catalog does not have, which is named once and not for every
/// history. An allow list or categories of which nothing is left allow nothing.
pub(super) fn known(filter: FilterOptions, recommender: &Recommender) -> FilterOptions {
    let catalog = recommender.vocabulary();
    let (mut items, mut categories) = (Vec::new(), Vec::new());
    let mut ids = |ids| keep(ids, &mut items, |id| catalog.index_of(id).is_some());
    let (block, allow) = (ids(filter.block), filter.allow.map(&mut ids));
    let mut names = |names: Vec<String>| {
        let names = names.iter().map(|name| name.trim().to_owned()).collect();
        let has = |name: &str| catalog.categories().items_of(name).is_some();
        keep(names, &mut categories, has)
    };
    let filter = FilterOptions {
        include_seen: filter.include_seen,
        block,
        allow,
        categories: filter.categories.map(&mut names),
        block_categories: names(filter.block_categories),
    };
    warn("", &items, &categories);
    filter
}

/// What is known of `names`; the others go to `unknown`.
fn keep(
    names: Vec<String>,
    unknown: &mut Vec<String>,
    is_known: impl Fn(&str) -> bool,
) -> Vec<String> {
    let (known, others): (Vec<_>, Vec<_>) = names.into_iter().partition(|name| is_known(name));
    unknown.extend(others);
    known
}

/// Says what the filter names and the catalog does not have; `whose` begins the line.
pub(super) fn warn(whose: &str, items: &[String], categories: &[String]) {
    if !items.is_empty() {
        let list = named(items);
        say(&format!(
            "warning: {whose}the filter names items that the catalog does not have: {list}"
        ));
    }
    if !categories.is_empty() {
        let list = named(categories);
        say(&format!(
            "warning: {whose}the filter names categories that no item has: {list}; hint: \
             `slmrec-run inspect` lists those of the bundle"
        ));
    }
}

/// The first names of a list, and how many more there are.
pub(super) fn named(names: &[String]) -> String {
    let first: Vec<String> = names
        .iter()
        .take(NAMED)
        .map(|name| format!("{:?}", printable(name)))
        .collect();
    match names.len().saturating_sub(NAMED) {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
    }
}
