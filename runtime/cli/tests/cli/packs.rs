//! `--pack`: new and retired items, several packs in order.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::Value;
use slmrec_core::manifest::{FORMAT_VERSION, ITEM_PACK_FEATURE};
use slmrec_core::pack::{NEW_ITEMS_MEMBER, NEW_TABLE_MEMBER, NewItemsEntry, RETIRED_MEMBER};
use slmrec_core::{Bundle, BundleWriter, Item, ItemTable, ItemVocabulary, PackManifest};

use crate::fixture::{failure, fixture, stdout, with_bundle};

/// A pack of the fixture's int8 bundle: an item with the row of `like`, ten times as long, or some
/// to retire.
fn pack(name: &str, new: Option<(&str, &str)>, retired: &[&str]) -> PathBuf {
    let mut bundle = Bundle::open(&fixture().bundle("int8")).expect("bundle");
    let mut writer = BundleWriter::new();
    if let Some((id, like)) = new {
        let (vocabulary, table) = (bundle.vocabulary(), bundle.item_table());
        let like = vocabulary.expect("items").index_of(like).expect("an item");
        let table = table.expect("table");
        let mut row = Vec::new();
        table.append_row(like, &mut row);
        row.iter_mut().for_each(|value| *value *= 10.0);
        let row = ItemTable::from_f32(&row, table.dim(), table.row_type()).expect("a row");
        let title = Some("Brand new".into());
        let item = ItemVocabulary::new(vec![Item {
            title,
            ..Item::new(id)
        }])
        .expect("valid");
        writer.add(NEW_ITEMS_MEMBER, item.to_json().expect("JSON"));
        writer.add(NEW_TABLE_MEMBER, row.to_bytes());
    }
    if !retired.is_empty() {
        writer.add(RETIRED_MEMBER, serde_json::to_vec(retired).expect("JSON"));
    }
    let manifest = PackManifest {
        format_version: FORMAT_VERSION,
        required_features: vec![ITEM_PACK_FEATURE.into()],
        created_by: "test".into(),
        bundle_sha256: bundle.sha256().into(),
        prior: None,
        new_items: new.map(|_| NewItemsEntry {
            vocabulary: NEW_ITEMS_MEMBER.into(),
            table: NEW_TABLE_MEMBER.into(),
            count: 1,
        }),
        retired: (!retired.is_empty()).then(|| RETIRED_MEMBER.into()),
        members: BTreeMap::new(),
    };
    let path = fixture().path(name);
    writer.write(&path, manifest).expect("a pack");
    path
}

fn list(history: &str, packs: &[&PathBuf]) -> Vec<(String, Value)> {
    let mut command = with_bundle("int8");
    command
        .args(["-", "-k", "40", "--format", "json"])
        .write_stdin(history);
    for pack in packs {
        command.arg("--pack").arg(pack);
    }
    let report: Value = serde_json::from_str(&stdout(&mut command)).expect("JSON");
    let rows = report["results"][0]["recommendations"]
        .as_array()
        .expect("a list");
    let row = |row: &Value| {
        (
            row["item"].as_str().expect("id").to_owned(),
            row["title"].clone(),
        )
    };
    rows.iter().map(row).collect()
}

#[test]
fn new_items_come_and_retired_ones_go() {
    let best = list(r#"["item-3"]"#, &[])[0].0.clone();
    let new = pack("new.delta", Some(("new-1", &best)), &[]);
    let found = list(r#"["item-3"]"#, &[&new]);
    assert_eq!(found[0], ("new-1".into(), "Brand new".into()));
    assert_eq!(found.len(), 30);
    assert_eq!(list(r#"["new-1"]"#, &[&new]).len(), 30);
    let retired = pack("retired.delta", None, &[&best]);
    let found = list(r#"["item-3"]"#, &[&new, &retired]);
    assert_eq!((found[0].0.as_str(), found.len()), ("new-1", 29));
    assert!(found.iter().all(|(id, _)| *id != best));
    // The samples are the bundle's own, whatever packs change.
    let verify = stdout(with_bundle("int8").args(["verify", "--pack"]).arg(&retired));
    assert!(!verify.contains("FAILED"), "{verify}");
}

#[test]
fn packs_that_do_not_fit_are_refused() {
    let known = pack("known.delta", Some(("item-4", "item-3")), &[]);
    let stranger = pack("stranger.delta", None, &["nobody"]);
    for (bundle, path, part) in [
        (
            "int8",
            &known,
            "expected items that the catalog does not have",
        ),
        (
            "int8",
            &stranger,
            "expected ids of the catalog, found \"nobody\"",
        ),
        ("fp32", &stranger, "expected a pack of the bundle"),
    ] {
        let mut command = with_bundle(bundle);
        let command = command
            .arg("-")
            .write_stdin(r#"["item-3"]"#)
            .arg("--pack")
            .arg(path);
        let said = failure(command, 1);
        assert!(said.contains(part), "{said}");
    }
}
