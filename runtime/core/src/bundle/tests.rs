//! A bundle that is damaged, foreign or of the future.

use super::*;
use crate::item_table::RowType;
use crate::manifest::{
    DataEntry, EncoderEntry, GraphTarget, ItemsEntry, ModelEntry, Precision, PromptEntry, Readout,
    Sample,
};
use crate::vocabulary::Item;

fn manifest() -> Manifest {
    Manifest {
        format_version: FORMAT_VERSION,
        required_features: vec![],
        created_by: "test".into(),
        precision: Precision::Fp32,
        encoders: vec![EncoderEntry {
            member: "encoder.onnx".into(),
            target: GraphTarget::Any,
            precision: Precision::Fp32,
            opset: 17,
        }],
        model: ModelEntry {
            model_type: "llama".into(),
            base: "none".into(),
            readout: Readout::Item,
            max_history: 4,
            hidden_size: 8,
            num_hidden_layers: 1,
            num_attention_heads: 2,
            num_key_value_heads: 1,
            intermediate_size: 16,
            prompt: PromptEntry::default(),
            checkpoint_sha256: String::new(),
        },
        items: ItemsEntry {
            member: "items.bin".into(),
            count: 2,
            dim: 3,
            row_type: RowType::F32,
        },
        vocabulary: "vocabulary.json".into(),
        popularity: "popularity.json".into(),
        samples: "samples.json".into(),
        data: DataEntry {
            name: "none".into(),
            users: 0,
            interactions: 0,
            sha256: String::new(),
        },
        metrics: BTreeMap::new(),
        members: BTreeMap::new(),
    }
}

fn writer() -> BundleWriter {
    let vocabulary = ItemVocabulary::new(
        ["a", "b"]
            .map(|id| Item {
                id: id.into(),
                title: Some(format!("Title of {id}")),
            })
            .to_vec(),
    )
    .expect("valid");
    let table =
        ItemTable::from_f32(&[1.0, 2.0, 3.0, -1.0, 0.0, 0.5], 3, RowType::F32).expect("valid");
    let samples = Samples {
        computed_by: "test".into(),
        min_cosine: 0.99,
        min_overlap: 0.9,
        samples: vec![Sample {
            history: vec!["a".into()],
            user_vector: vec![1.0, 0.0, 0.0],
            top: vec![],
        }],
    };
    let mut writer = BundleWriter::new();
    writer.add("vocabulary.json", vocabulary.to_json().expect("json"));
    writer.add("items.bin", table.to_bytes());
    writer.add("samples.json", serde_json::to_vec(&samples).expect("json"));
    writer.add("popularity.json", b"[\"b\",\"a\"]".to_vec());
    writer.add(
        "encoder.onnx",
        (0..2000u32).flat_map(|i| (i * i).to_le_bytes()).collect(),
    );
    writer.add("of-the-future.bin", vec![7; 100]);
    writer
}

/// Everything a reader can get out of a bundle.
fn read_all(path: &Path) -> Result<String, BundleError> {
    let mut bundle = Bundle::open(path)?;
    bundle.verify_members()?;
    let vocabulary = bundle.vocabulary()?;
    let table = bundle.item_table()?;
    let encoder = bundle.member("encoder.onnx")?;
    Ok(format!(
        "{:?} {:?} {:?} {:?} {:?} {:?}",
        bundle.manifest().clone(),
        vocabulary.items(),
        table,
        bundle.samples()?,
        bundle.popularity()?,
        hash::sha256_hex(&encoder),
    ))
}

fn write(dir: &Path, manifest: Manifest) -> PathBuf {
    let path = dir.join("b.slmrec");
    writer().write(&path, manifest).expect("writes");
    path
}

#[test]
fn round_trip_is_deterministic() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let path = write(dir.path(), manifest());
    let first = std::fs::read(&path).expect("file");
    read_all(&path).expect("reads");
    write(dir.path(), manifest());
    assert_eq!(std::fs::read(&path).expect("file"), first);
}

#[test]
fn cut_anywhere_is_refused() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let path = write(dir.path(), manifest());
    let good = std::fs::read(&path).expect("file");
    for cut in 0..good.len() {
        std::fs::write(&path, &good[..cut]).expect("cut");
        assert!(read_all(&path).is_err(), "cut at {cut}");
    }
}

#[test]
fn a_flipped_bit_is_refused_or_changes_nothing() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let path = write(dir.path(), manifest());
    let good = std::fs::read(&path).expect("file");
    let truth = read_all(&path).expect("reads");
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        std::fs::write(&path, &bad).expect("flip");
        if let Ok(answer) = read_all(&path) {
            assert_eq!(answer, truth, "flip at byte {at}");
        }
    }
}

#[test]
fn future_versions_and_features_say_so() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let mut future = manifest();
    future.format_version = 2;
    let error = Bundle::open(&write(dir.path(), future)).expect_err("refused");
    assert!(error.to_string().contains("format version 2"), "{error}");
    let mut demanding = manifest();
    demanding.required_features.push("telepathy".into());
    let error = Bundle::open(&write(dir.path(), demanding)).expect_err("refused");
    assert!(error.to_string().contains("telepathy"), "{error}");
}

#[test]
fn counts_must_agree_with_the_manifest() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let mut wrong = manifest();
    wrong.items.count = 3;
    let mut bundle = Bundle::open(&write(dir.path(), wrong)).expect("opens");
    assert!(bundle.vocabulary().is_err());
    assert!(bundle.item_table().is_err());
}
