//! Filters by category: the answers are those of a walk over all items that compares names.

use proptest::prelude::*;

use super::*;

const NAMES: [&str; 5] = ["Drama", "Sci-Fi", "Film-Noir", "Children's", "drama"];

/// An item of a random catalog: its categories (a bit for each name) and its row.
type Random = (u8, [i8; 2]);

fn names(bits: u8) -> Vec<String> {
    let named = (0..).zip(NAMES).filter(|(bit, _)| bits >> bit & 1 == 1);
    named.map(|(_, name)| name.to_owned()).collect()
}

fn items(catalog: &[Random]) -> Vec<Item> {
    let item = |(at, (bits, _)): (usize, &Random)| Item {
        categories: names(*bits),
        ..Item::new(format!("i{at}"))
    };
    catalog.iter().enumerate().map(item).collect()
}

/// A recommender over a catalog whose most popular item comes last.
fn opened(catalog: &[Random]) -> Recommender {
    let dir = tempfile::tempdir().expect("temporary folder");
    let path = dir.path().join("b.slmrec");
    let rows: Vec<[f32; 2]> = (catalog.iter())
        .map(|(_, row)| row.map(f32::from))
        .collect();
    let mut manifest = manifest();
    manifest.items.count = catalog.len();
    let items = items(catalog);
    let popular: Vec<&str> = items.iter().rev().map(|item| item.id.as_str()).collect();
    let popular = serde_json::to_vec(&popular).expect("json");
    let samples = samples();
    write_items(&path, &items, &rows, manifest, &samples, popular);
    with_mean(&path, |mean| mean).expect("opens")
}

/// Whether a filter lets an item through, by its own words.
fn passes(item: &Item, filter: &FilterOptions) -> bool {
    let has = |name: &String| item.categories.iter().any(|own| own == name.trim());
    !filter.block.contains(&item.id)
        && (filter.allow.as_ref()).is_none_or(|allow| allow.contains(&item.id))
        && (filter.categories.as_ref()).is_none_or(|names| names.iter().any(has))
        && !filter.block_categories.iter().any(has)
}

fn some_names() -> impl Strategy<Value = Vec<String>> {
    let name = prop::sample::select(&["Drama", " Sci-Fi\t", "Film-Noir", "drama", "Opera"][..]);
    prop::collection::vec(name.prop_map(str::to_owned), 0..4)
}

fn some_ids() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec((0..150).prop_map(|n| format!("i{n}")), 0..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn a_filtered_list_is_all_items_filtered_and_sorted(
        catalog in prop::collection::vec((0u8..32, [-2i8..3, -2i8..3]), 1..140),
        seen in prop::collection::vec(any::<prop::sample::Index>(), 1..4),
        categories in prop::option::of(some_names()),
        block_categories in some_names(),
        block in some_ids(),
        allow in prop::option::weighted(0.3, some_ids()),
        include_seen in any::<bool>(),
        k in 1usize..150,
    ) {
        let mut recommender = opened(&catalog);
        let items = items(&catalog);
        let seen: Vec<&str> = (seen.iter()).map(|at| items[at.index(items.len())].id.as_str()).collect();
        let history = History::from_items(seen.clone());
        let filter = FilterOptions { include_seen, block, allow, categories, block_categories };
        let values = recommender.scores(&history).expect("scores").values;
        let allowed = |item: &Item, seen: &[&str]| {
            passes(item, &filter) && (include_seen || !seen.contains(&item.id.as_str()))
        };

        let mut expected: Vec<(&str, f32)> = (items.iter().zip(values))
            .filter(|(item, _)| allowed(item, &seen))
            .map(|(item, score)| (item.id.as_str(), score))
            .collect();
        // Stable: among equals the first of the catalog stays first.
        expected.sort_by(|a, b| b.1.total_cmp(&a.1));
        expected.truncate(k);
        let found = recommender.recommend(&history, k, &filter).expect("answers");
        let list: Vec<(&str, f32)> = (found.items.iter()).map(|i| (i.id.as_str(), i.score)).collect();
        prop_assert_eq!(&list, &expected);
        prop_assert_eq!(found.shortfall, k - expected.len());

        let expected: Vec<&str> = (items.iter().rev())
            .filter(|item| allowed(item, &[]))
            .map(|item| item.id.as_str())
            .take(k)
            .collect();
        let found = recommender.popular(k, &filter).expect("answers");
        let list: Vec<&str> = found.items.iter().map(|item| item.id.as_str()).collect();
        prop_assert_eq!((&list, found.shortfall), (&expected, k - expected.len()));
    }
}

fn three() -> Recommender {
    // Scores for i0: 1, 2, 3.
    opened(&[(0, [1, 0]), (0b1, [2, 0]), (0b11, [3, 0])])
}

fn recommend(filter: &FilterOptions) -> (Vec<String>, usize, Vec<String>, Vec<String>) {
    let history = History::from_items(["i0"]);
    let found = three().recommend(&history, 2, filter).expect("answers");
    let ids = found.items.into_iter().map(|item| item.id).collect();
    let (items, categories) = (found.unknown_filter_items, found.unknown_categories);
    (ids, found.shortfall, items, categories)
}

fn only(categories: &[&str]) -> FilterOptions {
    FilterOptions {
        categories: Some(categories.iter().map(|&name| name.to_owned()).collect()),
        ..FilterOptions::default()
    }
}

#[test]
fn unknown_categories_are_named_once_and_allow_nothing() {
    let none = Vec::<String>::new;
    let list = |ids: &[&str]| -> Vec<String> { ids.iter().map(|&id| id.to_owned()).collect() };
    assert_eq!(
        recommend(&only(&["Sci-Fi"])),
        (list(&["i2"]), 1, none(), none())
    );
    assert_eq!(
        recommend(&only(&["Drama", "Opera", " Opera "])),
        (list(&["i2", "i1"]), 0, none(), list(&["Opera"]))
    );
    assert_eq!(
        recommend(&only(&["sci-fi"])),
        (none(), 2, none(), list(&["sci-fi"]))
    );
    assert_eq!(recommend(&only(&[])), (none(), 2, none(), none()));
    let both = FilterOptions {
        block: list(&["nobody"]),
        block_categories: list(&["Sci-Fi", "Opera"]),
        ..only(&["Opera", "Drama"])
    };
    assert_eq!(
        recommend(&both),
        (list(&["i1"]), 1, list(&["nobody"]), list(&["Opera"]))
    );
}

#[test]
fn every_way_to_ask_honours_categories() {
    let mut recommender = three();
    let history = History::from_items(["i0"]);
    let filter = only(&["Sci-Fi", "Opera"]);
    let (mut state, _) = recommender.history_state(&history).expect("a state");
    let scores = recommender.scores(&history).expect("scores");
    let batch = recommender.recommend_batch(&[history], 2, &filter);
    let grown = state.recommend(&mut recommender, 2, &filter);
    let ranked = recommender.rank(&scores, 2, &filter);
    for found in batch.into_iter().chain([grown, ranked]) {
        let found = found.expect("answers");
        assert_eq!((found.items[0].id.as_str(), found.shortfall), ("i2", 1));
        assert_eq!(found.unknown_categories, ["Opera"]);
    }
    let popular = recommender.popular(2, &filter).expect("answers");
    assert_eq!((popular.items[0].id.as_str(), popular.shortfall), ("i2", 1));
    assert_eq!(popular.unknown_categories, ["Opera"]);
}
