//! Packs: another prior, new items, retired ones.

use slmrec_core::manifest::ITEM_PACK_FEATURE;
use slmrec_core::pack::{NEW_ITEMS_MEMBER, NEW_TABLE_MEMBER, NewItemsEntry, RETIRED_MEMBER};
use slmrec_core::{BundleError, PackManifest};
use tempfile::TempDir;

use super::*;

/// What a pack may hold.
#[derive(Default)]
struct Content {
    prior: Option<TransitionPrior>,
    /// Ids with their rows.
    new: Vec<(&'static str, [f32; 2])>,
    /// Categories of each new item.
    categories: Vec<String>,
    retired: Option<Vec<&'static str>>,
}

impl Content {
    fn new(items: &[(&'static str, [f32; 2])]) -> Self {
        Self {
            new: items.to_vec(),
            ..Self::default()
        }
    }

    fn retired(ids: &[&'static str]) -> Self {
        Self {
            retired: Some(ids.to_vec()),
            ..Self::default()
        }
    }

    fn write(self, path: &Path, bundle_sha256: &str, row_type: RowType) {
        let mut writer = BundleWriter::new();
        let count = self.new.len();
        if count > 0 {
            let item = |(id, _): &(&str, [f32; 2])| Item {
                title: Some(format!("New {id}")),
                categories: self.categories.clone(),
                ..Item::new(*id)
            };
            // Written as it is: a vocabulary would refuse an id that occurs twice.
            let items: Vec<Item> = self.new.iter().map(item).collect();
            let json = serde_json::json!({ "items": items });
            let rows: Vec<f32> = self.new.iter().flat_map(|(_, row)| *row).collect();
            let table = ItemTable::from_f32(&rows, 2, row_type).expect("table");
            writer.add(NEW_ITEMS_MEMBER, serde_json::to_vec(&json).expect("json"));
            writer.add(NEW_TABLE_MEMBER, table.to_bytes());
        }
        if let Some(prior) = &self.prior {
            writer.add(PRIOR_MEMBER, prior.to_bytes().expect("bytes"));
        }
        if let Some(retired) = &self.retired {
            let json = serde_json::to_vec(retired).expect("json");
            writer.add(RETIRED_MEMBER, json);
        }
        let manifest = PackManifest {
            format_version: FORMAT_VERSION,
            required_features: vec![PRIOR_FEATURE.into(), ITEM_PACK_FEATURE.into()],
            created_by: "test".into(),
            bundle_sha256: bundle_sha256.into(),
            prior: self.prior.is_some().then(prior_entry),
            new_items: (count > 0).then(|| NewItemsEntry {
                vocabulary: NEW_ITEMS_MEMBER.into(),
                table: NEW_TABLE_MEMBER.into(),
                count,
            }),
            retired: self.retired.map(|_| RETIRED_MEMBER.into()),
            members: BTreeMap::new(),
        };
        writer.write(path, manifest).expect("writes");
    }
}

/// Writes a pack for a recommender and applies it.
fn apply(recommender: &mut Recommender, content: Content) -> Result<(), RuntimeError> {
    let dir: TempDir = tempfile::tempdir().expect("temporary folder");
    let path = dir.path().join("p.delta");
    content.write(&path, recommender.bundle_sha256(), RowType::F32);
    recommender.apply_pack(&path)
}

fn best(recommender: &mut Recommender, history: &[&str], filter: &FilterOptions) -> Vec<String> {
    let history = History::from_items(history.iter().copied());
    let found = recommender.recommend(&history, 9, filter).expect("answers");
    found.items.into_iter().map(|item| item.id).collect()
}

fn all() -> FilterOptions {
    FilterOptions::default()
}

#[test]
fn a_prior_takes_the_place_of_the_bundles() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let path = dir.path().join("p.delta");
    let content = || Content {
        prior: Some(prior(5, 1.0)),
        ..Content::default()
    };
    let mut recommender = open(with_prior(), &samples(), |mean| mean).expect("opens");
    content().write(&path, "another", RowType::F32);
    let error = recommender.apply_pack(&path).expect_err("refused");
    assert!(matches!(error, RuntimeError::Bundle(_)), "{error}");
    let history = History::from_items(["a"]);
    let before = recommender.scores(&history).expect("scores").values;
    assert_eq!(before[1], 2.0 * 4f32.ln(), "nothing has changed");
    apply(&mut recommender, content()).expect("applies");
    let after = recommender.scores(&history).expect("scores").values;
    assert_eq!(after, [1.0, 0.0, 1.0, 1.0, 2.0 * 2f32.ln() - 1.0]);
}

#[test]
fn new_items_are_ranked_named_and_read() {
    let mut recommender = open(with_prior(), &samples(), |mean| mean).expect("opens");
    apply(&mut recommender, Content::new(&[("n", [9.0, 0.0])])).expect("applies");
    let history = History::from_items(["a"]);
    let found = recommender.recommend(&history, 1, &all()).expect("answers");
    assert_eq!(found.items[0].id, "n");
    assert_eq!(found.items[0].title.as_deref(), Some("New n"));
    assert_eq!(found.items[0].score, 9.0);
    // In a history it is an item like others; the prior has counted nothing about it.
    let history = History::from_items(["n"]);
    assert_eq!(
        recommender.user_vector(&history).expect("answers"),
        [9.0, 0.0]
    );
    let scores = recommender.scores(&history).expect("scores").values;
    assert_eq!(scores, [9.0, 0.0, 9.0, 9.0, -9.0, 81.0]);
    assert_eq!(
        best(&mut recommender, &["n"], &all()),
        ["a", "c", "d", "b", "e"]
    );
    let allow = FilterOptions {
        allow: Some(vec!["n".into(), "b".into()]),
        ..all()
    };
    assert_eq!(best(&mut recommender, &["a"], &allow), ["n", "b"]);
}

#[test]
fn new_items_have_categories() {
    let mut recommender = recommender();
    let content = Content {
        categories: vec!["new".into()],
        ..Content::new(&[("n", [9.0, 0.0]), ("m", [8.0, 0.0])])
    };
    apply(&mut recommender, content).expect("applies");
    let only = FilterOptions {
        categories: Some(vec!["new".into()]),
        ..all()
    };
    assert_eq!(best(&mut recommender, &["a"], &only), ["n", "m"]);
    let without = FilterOptions {
        block_categories: vec!["new".into()],
        ..all()
    };
    assert_eq!(
        best(&mut recommender, &["a"], &without),
        ["c", "d", "b", "e"]
    );
    // A category of a pack may be one that the bundle has not; what is refused leaves none.
    let content = Content {
        categories: vec!["more".into(), "more".into()],
        ..Content::new(&[("o", [7.0, 0.0])])
    };
    apply(&mut recommender, content).expect_err("refused");
    assert_eq!(recommender.vocabulary().categories().len(), 1);
}

#[test]
fn several_packs_apply_in_order() {
    let mut recommender = recommender();
    apply(&mut recommender, Content::new(&[("n", [9.0, 0.0])])).expect("applies");
    apply(
        &mut recommender,
        Content::new(&[("m", [8.0, 0.0]), ("o", [7.0, 0.0])]),
    )
    .expect("applies");
    assert_eq!(best(&mut recommender, &["a"], &all())[..3], ["n", "m", "o"]);
    apply(&mut recommender, Content::retired(&["m", "c"])).expect("applies");
    assert_eq!(
        best(&mut recommender, &["a"], &all()),
        ["n", "o", "d", "b", "e"]
    );
    assert_eq!(recommender.item_packs().len(), 2);
}

#[test]
fn retired_items_are_never_recommended() {
    let mut recommender = recommender();
    apply(&mut recommender, Content::retired(&["c"])).expect("applies");
    let seen = FilterOptions {
        include_seen: true,
        allow: Some(vec!["c".into(), "d".into()]),
        ..all()
    };
    let history = History::from_items(["a"]);
    let found = recommender.recommend(&history, 2, &seen).expect("answers");
    assert_eq!((found.items[0].id.as_str(), found.shortfall), ("d", 1));
    let popular = recommender.popular(3, &all()).expect("answers");
    assert!(popular.items.iter().all(|item| item.id != "c"));
    let scores = recommender.scores(&history).expect("scores");
    let ranked = recommender.rank(&scores, 9, &all()).expect("ranks");
    assert!(ranked.items.iter().all(|item| item.id != "c"));
    // It may still be part of a history, and be scored by name.
    assert_eq!(
        recommender
            .user_vector(&History::from_items(["c"]))
            .expect("answers"),
        [1.0, 1.0]
    );
    assert_eq!(
        recommender
            .score(&history, &["c"])
            .expect("answers")
            .items
            .len(),
        1
    );
}

#[test]
fn a_pack_that_does_not_fit_changes_nothing() {
    let mut recommender = recommender();
    let before = best(&mut recommender, &["a"], &all());
    for (content, part) in [
        (
            Content::new(&[("c", [9.0, 0.0])]),
            "expected items that the catalog does not have, found",
        ),
        (
            Content::new(&[("n", [9.0, 0.0]), ("n", [9.0, 0.0])]),
            "expected a vocabulary",
        ),
        (
            Content::retired(&["nobody"]),
            "expected ids of the catalog, found \"nobody\"",
        ),
        (
            Content {
                retired: Some(vec!["nobody"]),
                ..Content::new(&[("n", [9.0, 0.0])])
            },
            "expected ids of the catalog",
        ),
    ] {
        let error = apply(&mut recommender, content)
            .expect_err("refused")
            .to_string();
        assert!(error.contains(part), "{error}");
        assert_eq!(best(&mut recommender, &["a"], &all()), before);
    }
    let dir = tempfile::tempdir().expect("temporary folder");
    let path = dir.path().join("p.delta");
    let content = Content::new(&[("n", [9.0, 0.0])]);
    content.write(&path, recommender.bundle_sha256(), RowType::Int8);
    let error = recommender.apply_pack(&path).expect_err("refused");
    let RuntimeError::Bundle(BundleError::Member { expected, .. }) = error else {
        panic!("{error}");
    };
    assert_eq!(expected, "1 x 2 F32");
    assert_eq!(best(&mut recommender, &["a"], &all()), before);
}

#[test]
fn a_state_belongs_to_the_items_that_it_may_hold() {
    let mut plain = recommender();
    let history = History::from_items(["a"]);
    let (old, _) = plain.history_state(&history).expect("a state");
    let bytes = old.to_bytes().expect("bytes");
    let mut packed = recommender();
    apply(&mut packed, Content::new(&[("n", [9.0, 0.0])])).expect("applies");
    // Rows of before are the same rows.
    let mut state = packed.restore_history_state(&bytes).expect("restores");
    state.append(&packed, "n").expect("appends");
    assert_eq!(state.user_vector(&mut packed).expect("answers"), [5.0, 0.0]);
    let bytes = state.to_bytes().expect("bytes");
    assert!(packed.restore_history_state(&bytes).is_ok());
    let error = plain.restore_history_state(&bytes).expect_err("refused");
    assert!(error.to_string().contains("item packs"), "{error}");
    let error = state.user_vector(&mut plain).expect_err("refused");
    assert!(error.to_string().contains("item packs"), "{error}");
    let mut other = recommender();
    apply(&mut other, Content::new(&[("m", [1.0, 0.0])])).expect("applies");
    assert!(other.restore_history_state(&bytes).is_err());
}
