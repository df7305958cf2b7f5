use std::fs;
use std::path::Path;

use candle_core::{Device, Tensor};
use serde_json::{Value, json};
use slmrec_core::hash::sha256_hex;

use super::{MAP_FILE, MapChoice, MapKind, MapSource, TitleMap, WEIGHTS_FILE};

const RIDGE: MapKind = MapKind::Ridge { strength: 0.5 };
const NEIGHBOURS: MapKind = MapKind::Neighbours { k: 2 };

fn table(rows: usize, columns: usize) -> Tensor {
    let value = |at: u32| (at * at % 17) as f32 - 8.0;
    let values: Vec<f32> = (1..=(rows * columns) as u32).map(value).collect();
    Tensor::from_vec(values, (rows, columns), &Device::Cpu).expect("a table")
}

fn saved(dir: &Path, map: MapKind) -> TitleMap {
    let choice = MapChoice {
        map,
        same_length: true,
    };
    let map = TitleMap::fit(choice, &table(5, 3), &table(5, 2)).expect("fits");
    let source = MapSource {
        titles_sha256: "t".into(),
        table: "student".into(),
        table_sha256: "s".into(),
        vocabulary_sha256: "v".into(),
    };
    map.save(dir, source).expect("saves");
    map
}

#[test]
fn what_is_read_back_maps_as_before() {
    for kind in [RIDGE, NEIGHBOURS] {
        let dir = tempfile::tempdir().expect("temporary folder");
        let map = saved(dir.path(), kind);
        let (read, description) = TitleMap::load(dir.path()).expect("loads");
        assert_eq!((description.title_size, description.item_size), (3, 2));
        assert_eq!(description.source.vocabulary_sha256, "v");
        assert_eq!(read.choice(), map.choice());
        let answer = |map: &TitleMap| -> Vec<Vec<f32>> {
            let found = map.embeddings(&table(4, 3)).expect("maps");
            found.to_vec2().expect("rows")
        };
        assert_eq!(answer(&read), answer(&map));
    }
}

/// What reading says after the description was changed.
fn after(kind: MapKind, change: impl FnOnce(&mut Value)) -> String {
    let dir = tempfile::tempdir().expect("temporary folder");
    saved(dir.path(), kind);
    let path = dir.path().join(MAP_FILE);
    let mut json: Value =
        serde_json::from_slice(&fs::read(&path).expect("description")).expect("JSON");
    change(&mut json);
    fs::write(&path, json.to_string()).expect("written");
    TitleMap::load(dir.path()).expect_err("refused").to_string()
}

#[test]
fn descriptions_out_of_range_are_refused() {
    let cases: [(MapKind, &str, Value, &str); 11] = [
        (
            RIDGE,
            "/format_version",
            json!(2),
            "expected format version 1, found 2",
        ),
        (RIDGE, "/title_size", json!(0), "a title_size of"),
        (RIDGE, "/item_size", json!(1 << 20), "an item_size of"),
        (RIDGE, "/items", json!(1), "items in 0..=0"),
        (NEIGHBOURS, "/items", json!(u64::MAX), "items in 1..="),
        (RIDGE, "/length", json!(-1.0), "a length of at least 0"),
        (
            RIDGE,
            "/choice/map/strength",
            json!(0.0),
            "a strength above 0",
        ),
        (
            NEIGHBOURS,
            "/choice/map/k",
            json!(6),
            "expected 1..=5 neighbours",
        ),
        (
            NEIGHBOURS,
            "/choice/map/kind",
            json!("oracle"),
            "unknown variant",
        ),
        (
            RIDGE,
            "/choice/map",
            json!({"kind": "neighbours", "k": 2}),
            "items in 1..=",
        ),
        (RIDGE, "/source", json!(null), "invalid type"),
    ];
    for (kind, at, value, expected) in cases {
        let said = after(kind, |json| {
            *json.pointer_mut(at).expect("a field") = value;
        });
        assert!(
            said.contains(MAP_FILE) && said.contains(expected),
            "{at}: {said}"
        );
    }
    let said = after(RIDGE, |json| json["more"] = json!(1));
    assert!(said.contains("unknown field"), "{said}");
}

/// What reading says with other tensors under their right hash.
fn with_tensors(kind: MapKind, tensors: Vec<(&str, Tensor)>) -> String {
    let dir = tempfile::tempdir().expect("temporary folder");
    saved(dir.path(), kind);
    let bytes = safetensors::serialize(tensors, None).expect("tensors");
    with_bytes(dir.path(), &bytes)
}

fn with_bytes(dir: &Path, bytes: &[u8]) -> String {
    fs::write(dir.join(WEIGHTS_FILE), bytes).expect("written");
    let path = dir.join(MAP_FILE);
    let mut json: Value =
        serde_json::from_slice(&fs::read(&path).expect("description")).expect("JSON");
    json["weights_sha256"] = sha256_hex(bytes).into();
    fs::write(&path, json.to_string()).expect("written");
    let said = TitleMap::load(dir).expect_err("refused").to_string();
    assert!(said.contains(WEIGHTS_FILE), "{said}");
    said
}

#[test]
fn tensors_that_do_not_fit_are_refused() {
    let said = with_tensors(NEIGHBOURS, vec![("titles", table(5, 3))]);
    assert!(
        said.contains("expected the tensor items, found none"),
        "{said}"
    );
    let tensors = vec![("titles", table(5, 3)), ("items", table(4, 2))];
    let said = with_tensors(NEIGHBOURS, tensors);
    assert!(
        said.contains("expected items to be [5, 2], found [4, 2]"),
        "{said}"
    );
    let nan = Tensor::new(&[f32::NAN, 0.0], &Device::Cpu).expect("values");
    let mean = table(3, 1).flatten_all().expect("flat");
    let tensors = vec![
        ("weight", table(3, 2)),
        ("title_mean", mean),
        ("item_mean", nan),
    ];
    let said = with_tensors(RIDGE, tensors);
    assert!(said.contains("NaN or infinity"), "{said}");
    let wide = table(5, 3).to_dtype(candle_core::DType::F64).expect("f64");
    let said = with_tensors(NEIGHBOURS, vec![("titles", wide), ("items", table(5, 2))]);
    assert!(said.contains("is not supported"), "{said}");
}

#[test]
fn files_that_are_missing_cut_or_changed_are_refused() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let load = || TitleMap::load(dir.path()).expect_err("refused").to_string();
    assert!(load().contains(MAP_FILE));
    saved(dir.path(), RIDGE);
    let path = dir.path().join(WEIGHTS_FILE);
    let whole = fs::read(&path).expect("tensors");
    let mut changed = whole.clone();
    let last = changed.len() - 1;
    changed[last] ^= 1;
    fs::write(&path, changed).expect("written");
    assert!(load().contains("expected SHA-256"));
    let said = with_bytes(dir.path(), &whole[..whole.len() - 4]);
    assert!(said.contains("a whole safetensors file"), "{said}");
    let said = with_bytes(dir.path(), &[0xff; 16]);
    assert!(said.contains("a whole safetensors file"), "{said}");
    fs::remove_file(&path).expect("removed");
    assert!(load().contains(WEIGHTS_FILE));
    fs::write(dir.path().join(MAP_FILE), "{").expect("written");
    assert!(load().contains(MAP_FILE));
}
