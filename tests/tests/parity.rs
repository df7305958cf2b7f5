//! Two independent ways to the same user vector: the engines against the plain forward pass that
//! export computed the bundle's samples with, and the folded graph against the plain one.
//!
//! ONNX Runtime is looked for as `slmrec-run` does; `cargo xtask setup` puts it there.

use std::path::{Path, PathBuf};

use ndarray::Axis;
use slmrec_core::certificate::Quantization;
use slmrec_core::manifest::{EncoderEntry, GraphTarget, Precision};
use slmrec_core::{Bundle, BundleWriter, History};
use slmrec_export::testing::{TinyCheckpoint, tiny_dataset};
use slmrec_export::{ExportOptions, Model, export, export_plain_onnx, reference};
use slmrec_runtime::{EngineChoice, LibrarySearch, OpenOptions, Recommender};

/// f32 in another order of operations; user vectors are of size 1.
const FP32_TOLERANCE: f32 = 1e-4;
/// Weights with eleven bits.
const FP16_COSINE: f32 = 0.9999;
/// Weights and activations with eight bits, random weights, narrow layers.
const INT8_COSINE: f32 = 0.995;
/// Weights with four bits, a scale for every 32.
const FOUR_BITS_COSINE: f32 = 0.95;

struct Case {
    folder: tempfile::TempDir,
    model: Model,
}

impl Case {
    fn new(kind: &TinyCheckpoint) -> Self {
        let folder = tempfile::tempdir().expect("temporary folder");
        tiny_dataset()
            .write(&folder.path().join("dataset"))
            .expect("dataset");
        kind.write(
            &folder.path().join("checkpoint"),
            &folder.path().join("dataset"),
        );
        let model = Model::read(&folder.path().join("checkpoint")).expect("checkpoint");
        Self { folder, model }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn bundle(&self, precision: Precision, portable: bool) -> PathBuf {
        let path = self.path(&format!("{precision}.slmrec"));
        let options = ExportOptions {
            precision,
            portable,
            ..ExportOptions::default()
        };
        export(
            &self.path("checkpoint"),
            &self.path("dataset"),
            &options,
            &path,
        )
        .expect("exports");
        path
    }

    /// A bundle with weights of four bits.
    fn four_bits(&self) -> PathBuf {
        let path = self.path("four-bits.slmrec");
        let options = ExportOptions {
            precision: Precision::Int8,
            quantization: Quantization::Blocks4,
            ..ExportOptions::default()
        };
        let (checkpoint, dataset) = (self.path("checkpoint"), self.path("dataset"));
        export(&checkpoint, &dataset, &options, &path).expect("exports");
        path
    }

    /// A bundle whose encoder is the plain graph.
    fn plain_bundle(&self) -> PathBuf {
        let onnx = self.path("plain.onnx");
        export_plain_onnx(&self.path("checkpoint"), &onnx).expect("exports");
        let mut folded = Bundle::open(&self.bundle(Precision::Fp32, false)).expect("opens");
        let mut manifest = folded.manifest().clone();
        let mut writer = BundleWriter::new();
        for name in manifest
            .members
            .keys()
            .filter(|name| !name.ends_with(".onnx"))
        {
            writer.add(name, folded.member(name).expect("sound"));
        }
        writer.add("plain.onnx", std::fs::read(onnx).expect("graph"));
        manifest.encoders = vec![EncoderEntry {
            member: "plain.onnx".into(),
            target: GraphTarget::Any,
            precision: Precision::Fp32,
            opset: 17,
            incremental: false,
        }];
        let path = self.path("plain.slmrec");
        writer.write(&path, manifest).expect("writes");
        path
    }

    /// Items of a made-up history, as rows counted from 0.
    fn rows(&self, length: usize) -> Vec<usize> {
        let items = self.model.item_embeddings.nrows();
        (0..length).map(|i| (i * 7 + 3) % items).collect()
    }

    fn expected(&self, length: usize) -> Vec<f32> {
        let embeddings = self
            .model
            .item_embeddings
            .select(Axis(0), &self.rows(length));
        reference::user_vector(&self.model, embeddings.view()).to_vec()
    }

    fn got(&self, recommender: &mut Recommender, length: usize) -> Vec<f32> {
        let ids = self
            .rows(length)
            .into_iter()
            .map(|row| format!("item-{}", row + 1));
        recommender
            .user_vector(&History::from_items(ids))
            .expect("a user vector")
    }

    fn lengths(&self) -> [usize; 4] {
        let longest = self.model.recommender.max_history;
        [1, 2, longest - 1, longest]
    }
}

fn cases() -> Vec<TinyCheckpoint> {
    let with_prefix = TinyCheckpoint {
        prefix_tokens: 4,
        ..TinyCheckpoint::item()
    };
    let one_layer = TinyCheckpoint {
        num_hidden_layers: 1,
        prefix_tokens: 0,
        ..TinyCheckpoint::response()
    };
    vec![
        TinyCheckpoint::item(),
        with_prefix,
        TinyCheckpoint::response(),
        one_layer,
    ]
}

fn open(path: &Path, engine: EngineChoice) -> Recommender {
    let executable = std::env::current_exe().ok();
    let variable = std::env::var_os("ORT_DYLIB_PATH");
    let options = OpenOptions {
        engine,
        libraries: LibrarySearch::new(None, variable, executable.as_deref()),
        ..OpenOptions::default()
    };
    Recommender::open(path, &options).expect("opens")
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f32>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

fn assert_close(got: &[f32], expected: &[f32], what: &str) {
    assert_eq!(got.len(), expected.len(), "{what}");
    let worst = got.iter().zip(expected).map(|(a, b)| (a - b).abs());
    let worst = worst.fold(0.0, f32::max);
    assert!(worst <= FP32_TOLERANCE, "{what}: {worst} away");
}

#[test]
fn fp32_on_both_engines_is_the_plain_forward_pass() {
    for kind in cases() {
        let case = Case::new(&kind);
        let bundle = case.bundle(Precision::Fp32, false);
        for engine in [EngineChoice::OnnxRuntime, EngineChoice::Tract] {
            let mut recommender = open(&bundle, engine);
            for length in case.lengths() {
                let got = case.got(&mut recommender, length);
                let what = format!("{engine:?}, {length} items, {kind:?}");
                assert_close(&got, &case.expected(length), &what);
            }
        }
    }
}

#[test]
fn the_plain_graph_gives_what_the_folded_one_gives() {
    for kind in cases() {
        let case = Case::new(&kind);
        let mut recommender = open(&case.plain_bundle(), EngineChoice::OnnxRuntime);
        for length in case.lengths() {
            let got = case.got(&mut recommender, length);
            assert_close(
                &got,
                &case.expected(length),
                &format!("{length} items, {kind:?}"),
            );
        }
    }
}

#[test]
fn fewer_bits_stay_near_the_full_precision() {
    for kind in cases() {
        let case = Case::new(&kind);
        let half = case.bundle(Precision::Fp16, false);
        let int8 = case.bundle(Precision::Int8, true);
        let four_bits = case.four_bits();
        let engines = [
            (&half, EngineChoice::OnnxRuntime, FP16_COSINE),
            (&half, EngineChoice::Tract, FP16_COSINE),
            (&int8, EngineChoice::OnnxRuntime, INT8_COSINE),
            // The portable graph, with int8 item rows going in.
            (&int8, EngineChoice::Tract, INT8_COSINE),
            (&four_bits, EngineChoice::OnnxRuntime, FOUR_BITS_COSINE),
        ];
        for (bundle, engine, limit) in engines {
            let mut recommender = open(bundle, engine);
            for length in case.lengths() {
                let got = case.got(&mut recommender, length);
                let found = cosine(&got, &case.expected(length));
                assert!(
                    found >= limit,
                    "{engine:?} {limit}: {found}, {length} items, {kind:?}"
                );
            }
        }
    }
}

#[test]
fn bundles_pass_their_own_samples() {
    for kind in cases() {
        let case = Case::new(&kind);
        for precision in [Precision::Fp32, Precision::Fp16, Precision::Int8] {
            let mut recommender = open(&case.bundle(precision, false), EngineChoice::OnnxRuntime);
            let result = recommender.self_test().expect("samples");
            assert!(result.passed(), "{precision} {kind:?}: {result:?}");
        }
        let mut recommender = open(&case.four_bits(), EngineChoice::OnnxRuntime);
        let result = recommender.self_test().expect("samples");
        assert!(result.passed(), "four bits, {kind:?}: {result:?}");
    }
}
