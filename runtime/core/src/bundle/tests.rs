//! A bundle that is damaged, foreign or of the future.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::*;
use crate::dataset::Split;
use crate::hash;
use crate::item_table::RowType;
use crate::manifest::{
    DataEntry, EncoderEntry, FORMAT_VERSION, GraphTarget, ItemsEntry, ModelEntry, PRIOR_FEATURE,
    Precision, PromptEntry, Readout, Sample,
};
use crate::pack::{PRIOR_MEMBER, Pack, PackManifest};
use crate::prior::{PriorSettings, PriorWeights};
use crate::vocabulary::{Item, ItemIndex};

fn prior_entry() -> PriorEntry {
    PriorEntry {
        member: PRIOR_MEMBER.into(),
        settings: PriorSettings::WINDOW_5,
        weights: PriorWeights {
            alpha: 2.0,
            beta: 0.1,
        },
        interactions: 7,
        counted_before: Split::Validation,
    }
}

/// 2 was seen beside 1 so many times.
fn prior(count: f32) -> TransitionPrior {
    let rows = [vec![], vec![(ItemIndex(2), count)], vec![]];
    let occurrences = vec![0.0, 4.0, 3.0];
    TransitionPrior::new(PriorSettings::WINDOW_5, occurrences, rows, 9).expect("valid")
}

fn manifest() -> Manifest {
    Manifest {
        format_version: FORMAT_VERSION,
        required_features: vec![PRIOR_FEATURE.into()],
        prior: Some(prior_entry()),
        created_by: "test".into(),
        precision: Precision::Fp32,
        encoders: vec![EncoderEntry {
            member: "encoder.onnx".into(),
            target: GraphTarget::Any,
            precision: Precision::Fp32,
            opset: 17,
            incremental: false,
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
            trained_before: Split::Validation,
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
        certificate: None,
        metrics: BTreeMap::new(),
        members: BTreeMap::new(),
    }
}

fn writer() -> BundleWriter {
    let vocabulary = ItemVocabulary::new(
        ["a", "b"]
            .map(|id| Item {
                title: Some(format!("Title of {id}")),
                ..Item::new(id)
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
    writer.add(PRIOR_MEMBER, prior(3.0).to_bytes().expect("bytes"));
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
        "{:?} {:?} {:?} {:?} {:?} {:?} {:?}",
        bundle.manifest().clone(),
        vocabulary.items(),
        table,
        bundle.samples()?,
        bundle.popularity()?,
        bundle.prior()?,
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
    let error = bundle.prior().expect_err("refused").to_string();
    assert!(
        error.contains("expected the prior's occurrences: 4"),
        "{error}"
    );
}

#[test]
fn weights_that_cannot_be_calculated_with_are_refused() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let mut wrong = manifest();
    wrong.prior = Some(PriorEntry {
        weights: PriorWeights {
            alpha: 1.0,
            beta: 0.0,
        },
        ..prior_entry()
    });
    let mut bundle = Bundle::open(&write(dir.path(), wrong)).expect("opens");
    assert!(bundle.prior().is_err());
}

fn write_pack(path: &Path, bundle_sha256: &str) {
    let mut writer = BundleWriter::new();
    writer.add(PRIOR_MEMBER, prior(5.0).to_bytes().expect("bytes"));
    let manifest = PackManifest {
        format_version: FORMAT_VERSION,
        required_features: vec![PRIOR_FEATURE.into()],
        created_by: "test".into(),
        bundle_sha256: bundle_sha256.into(),
        prior: Some(prior_entry()),
        new_items: None,
        retired: None,
        members: BTreeMap::new(),
    };
    writer.write(path, manifest).expect("writes");
}

#[test]
fn a_pack_belongs_to_one_bundle() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let bundle = write(dir.path(), manifest());
    let opened = Bundle::open(&bundle).expect("opens");
    let pack = dir.path().join("p.delta");
    write_pack(&pack, opened.sha256());
    let mut found = Pack::open(&pack, &opened).expect("opens");
    assert_eq!(found.prior().expect("reads"), Some(prior(5.0)));
    write_pack(&pack, "of another");
    let error = Pack::open(&pack, &opened).expect_err("refused").to_string();
    assert!(error.contains("found one of of another"), "{error}");
    // One kind of file is not taken for the other.
    let error = Pack::open(&bundle, &opened)
        .expect_err("refused")
        .to_string();
    assert!(error.contains("not a slmrec pack"), "{error}");
    let error = Bundle::open(&pack).expect_err("refused").to_string();
    assert!(error.contains("not a slmrec bundle"), "{error}");
}

#[test]
fn a_damaged_pack_is_refused_or_changes_nothing() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let bundle = Bundle::open(&write(dir.path(), manifest())).expect("opens");
    let pack = dir.path().join("p.delta");
    write_pack(&pack, bundle.sha256());
    let good = std::fs::read(&pack).expect("file");
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        std::fs::write(&pack, &bad).expect("flip");
        if let Ok(Some(found)) = Pack::open(&pack, &bundle).and_then(|mut pack| pack.prior()) {
            assert_eq!(found, prior(5.0), "flip at byte {at}");
        }
    }
}
