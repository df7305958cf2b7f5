//! Training and device see the same user: candle against both engines on exported checkpoints, and
//! candle alone against itself in a padded batch.

mod support;

use std::path::Path;

use candle_core::Device;
use slmrec_core::manifest::Precision;
use slmrec_core::{Dataset, History, ItemIndex};
use slmrec_distill::model::{HistoryBatch, LlmRecommender, Mode, SequentialModel};
use slmrec_export::ExportOptions;
use slmrec_export::testing::{TinyCheckpoint, tiny_dataset};
use slmrec_runtime::{EngineChoice, OpenOptions, Recommender};

/// Two f32 forward passes in different order of summation: a few units in the last place per
/// product of a few dozen terms, on vectors of size about one.
const FP32_TOLERANCE: f32 = 2e-4;

struct Fixture {
    _dir: tempfile::TempDir,
    dataset: Dataset,
    checkpoint: std::path::PathBuf,
    dataset_dir: std::path::PathBuf,
}

fn fixture(shape: &TinyCheckpoint) -> Fixture {
    let dir = tempfile::tempdir().expect("temporary folder");
    let (checkpoint, dataset_dir) = (dir.path().join("checkpoint"), dir.path().join("dataset"));
    let dataset = tiny_dataset();
    dataset.write(&dataset_dir).expect("dataset");
    shape.write(&checkpoint, &dataset_dir);
    Fixture {
        _dir: dir,
        dataset,
        checkpoint,
        dataset_dir,
    }
}

impl Fixture {
    fn bundle(&self, precision: Precision) -> std::path::PathBuf {
        let path = self
            .checkpoint
            .with_file_name(format!("{precision}.slmrec"));
        let options = ExportOptions {
            precision,
            ..ExportOptions::default()
        };
        slmrec_export::export(&self.checkpoint, &self.dataset_dir, &options, &path)
            .expect("exports");
        path
    }

    fn histories(&self) -> Vec<Vec<ItemIndex>> {
        let items = self.dataset.num_items() as u32;
        (1..=8u32)
            .map(|len| {
                (0..len)
                    .map(|i| ItemIndex(1 + (i * 5 + len * 3) % items))
                    .collect()
            })
            .collect()
    }
}

fn open(path: &Path, engine: EngineChoice) -> Recommender {
    let options = OpenOptions {
        engine,
        libraries: support::libraries(),
        ..OpenOptions::default()
    };
    Recommender::open(path, &options).expect("opens")
}

fn engine_vectors(path: &Path, engine: EngineChoice, fixture: &Fixture) -> Vec<Vec<f32>> {
    let mut recommender = open(path, engine);
    (fixture.histories().iter())
        .map(|history| {
            let id = |item: &ItemIndex| {
                fixture
                    .dataset
                    .vocabulary
                    .get(*item)
                    .expect("known")
                    .id
                    .clone()
            };
            let history = History::from_items(history.iter().map(id));
            recommender.user_vector(&history).expect("encodes")
        })
        .collect()
}

/// User vectors of candle for a batch, read at each history's last position.
fn candle_vectors(model: &LlmRecommender, histories: &[&[ItemIndex]]) -> Vec<Vec<f32>> {
    let batch = HistoryBatch::new(histories, &Device::Cpu).expect("batch");
    let output = model.forward(&batch, Mode::Eval, &[]).expect("forward");
    let (b, s, d) = output.user_vectors.dims3().expect("three axes");
    let flat = output.user_vectors.reshape((b * s, d)).expect("flat");
    let rows: Vec<u32> = (batch.lengths.iter().enumerate())
        .map(|(row, len)| (row * s + if s == 1 { 0 } else { len - 1 }) as u32)
        .collect();
    let rows = candle_core::Tensor::new(rows, &Device::Cpu).expect("rows");
    flat.index_select(&rows, 0)
        .expect("select")
        .to_vec2()
        .expect("values")
}

fn newest(model: &LlmRecommender, histories: &[Vec<ItemIndex>]) -> Vec<Vec<ItemIndex>> {
    (histories.iter())
        .map(|h| slmrec_core::history::newest(h, model.max_history()).to_vec())
        .collect()
}

fn largest_difference(a: &[Vec<f32>], b: &[Vec<f32>]) -> f32 {
    let pairs = a.iter().flatten().zip(b.iter().flatten());
    pairs.map(|(x, y)| (x - y).abs()).fold(0.0, f32::max)
}

fn shapes() -> [TinyCheckpoint; 3] {
    let item_with_prompt = TinyCheckpoint {
        prefix_tokens: 4,
        ..TinyCheckpoint::item()
    };
    [
        TinyCheckpoint::item(),
        TinyCheckpoint::response(),
        item_with_prompt,
    ]
}

#[test]
fn candle_onnxruntime_and_tract_agree() {
    for shape in shapes() {
        let fixture = fixture(&shape);
        let model = LlmRecommender::load(&fixture.checkpoint, &Device::Cpu).expect("loads");
        let histories = newest(&model, &fixture.histories());
        let candle: Vec<Vec<f32>> = histories
            .iter()
            .map(|h| candle_vectors(&model, &[h]).remove(0))
            .collect();
        let bundle = fixture.bundle(Precision::Fp32);
        for engine in [EngineChoice::OnnxRuntime, EngineChoice::Tract] {
            let difference =
                largest_difference(&candle, &engine_vectors(&bundle, engine, &fixture));
            assert!(
                difference < FP32_TOLERANCE,
                "{:?} {engine:?}: {difference}",
                shape.readout
            );
        }
    }
}

#[test]
fn a_batch_equals_its_rows() {
    for shape in shapes() {
        let fixture = fixture(&shape);
        let model = LlmRecommender::load(&fixture.checkpoint, &Device::Cpu).expect("loads");
        let histories = newest(&model, &fixture.histories());
        let alone: Vec<Vec<f32>> = histories
            .iter()
            .map(|h| candle_vectors(&model, &[h]).remove(0))
            .collect();
        let rows: Vec<&[ItemIndex]> = histories.iter().map(Vec::as_slice).collect();
        let difference = largest_difference(&alone, &candle_vectors(&model, &rows));
        assert!(
            difference < FP32_TOLERANCE,
            "{:?}: {difference}",
            shape.readout
        );
    }
}
