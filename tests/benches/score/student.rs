//! The student that is measured, in all the forms that it is measured in.

use std::env;
use std::error::Error;
use std::path::{Path, PathBuf};

use slmrec_core::certificate::Quantization;
use slmrec_core::manifest::{Precision, Readout};
use slmrec_core::{Bundle, BundleWriter, Dataset, History, Item, ItemIndex, ItemVocabulary};
use slmrec_export::testing::TinyCheckpoint;
use slmrec_export::{ExportOptions, export, export_plain_onnx};
use slmrec_runtime::{
    EngineChoice, LibrarySearch, OpenOptions, Provider, Recommender, RuntimeError,
};

/// Items of the catalog.
pub(super) const ITEMS: u32 = 20_000;
const HIDDEN: usize = 576;
const MLP: usize = 1536;
const KEY_VALUE: usize = 192;
const LAYERS: usize = 4;

/// Files of one student.
pub(super) struct Student {
    pub(super) name: &'static str,
    pub(super) readout: Readout,
    /// Prompt tokens before and after the history.
    prefix: usize,
    suffix: usize,
    pub(super) checkpoint: PathBuf,
    pub(super) int8: PathBuf,
    /// Weights in four bits.
    pub(super) four_bits: PathBuf,
    pub(super) fp32: PathBuf,
    /// The plain fp32 export.
    pub(super) plain_onnx: PathBuf,
    /// Bundles with the plain export, and with what ONNX Runtime's quantizer makes of it, in place
    /// of our graph, so that everything around the graph is the same.
    pub(super) plain: PathBuf,
    pub(super) plain_int8: PathBuf,
}

impl Student {
    /// 40 prompt tokens before, 5 behind the history.
    pub(super) fn response(folder: &Path) -> Result<Self, Box<dyn Error>> {
        let sizes = TinyCheckpoint {
            prefix_tokens: 40,
            suffix_tokens: 5,
            ..TinyCheckpoint::response()
        };
        Self::make("response readout", &sizes.smollm2_widths(), folder)
    }

    /// No prompt.
    pub(super) fn item(folder: &Path) -> Result<Self, Box<dyn Error>> {
        Self::make(
            "item readout",
            &TinyCheckpoint::item().smollm2_widths(),
            folder,
        )
    }

    fn make(
        name: &'static str,
        sizes: &TinyCheckpoint,
        folder: &Path,
    ) -> Result<Self, Box<dyn Error>> {
        let dataset = folder.join("dataset");
        if !dataset.exists() {
            catalog()?.write(&dataset)?;
        }
        let checkpoint = folder.join(name.replace(' ', "-"));
        sizes.write(&checkpoint, &dataset);
        let bundle = |precision: Precision, quantization: Quantization| {
            let path = checkpoint.join(format!("{precision}-{quantization}.slmrec"));
            let options = ExportOptions {
                precision,
                quantization,
                ..ExportOptions::default()
            };
            export(&checkpoint, &dataset, &options, &path)?;
            Ok::<_, Box<dyn Error>>(path)
        };
        let int8 = bundle(Precision::Int8, Quantization::Dynamic)?;
        let four_bits = bundle(Precision::Int8, Quantization::Blocks4)?;
        let fp32 = bundle(Precision::Fp32, Quantization::Dynamic)?;
        let plain_onnx = checkpoint.join("plain.onnx");
        export_plain_onnx(&checkpoint, &plain_onnx)?;
        let quantized = checkpoint.join("plain-quantized.onnx");
        let status = (super::python("quantize")?.arg(&plain_onnx).arg(&quantized)).status()?;
        if !status.success() {
            return Err("onnxruntime's quantize_dynamic failed".into());
        }
        Ok(Self {
            name,
            readout: sizes.readout,
            prefix: sizes.prefix_tokens,
            suffix: sizes.suffix_tokens,
            plain: with_graph(&fp32, &plain_onnx, "plain.slmrec")?,
            plain_int8: with_graph(&fp32, &quantized, "plain-quantized.slmrec")?,
            checkpoint,
            int8,
            four_bits,
            fp32,
            plain_onnx,
        })
    }

    /// Weights of the matrices that a run reads.
    pub(super) fn weights(&self) -> usize {
        LAYERS * (2 * HIDDEN * HIDDEN + 2 * HIDDEN * KEY_VALUE + 3 * HIDDEN * MLP)
    }

    /// GFLOP of the products that our graph cannot do without: `run` items and the suffix behind
    /// the prefix and `kept` items, in the last layer only keys and values but for the position
    /// that is read.
    pub(super) fn gflop(&self, kept: usize, run: usize) -> f64 {
        let rows = (run + self.suffix) as f64;
        let columns = (self.prefix + kept) as f64 + rows;
        let keys_values = (2 * HIDDEN * KEY_VALUE) as f64;
        let others = (2 * HIDDEN * HIDDEN + 3 * HIDDEN * MLP) as f64;
        let attention = |rows: f64| rows * columns * 2.0 * HIDDEN as f64;
        let inner = (LAYERS - 1) as f64 * (rows * (keys_values + others) + attention(rows));
        2.0 * (inner + rows * keys_values + others + attention(1.0)) / 1e9
    }

    /// Opens one of the files in ONNX Runtime.
    pub(super) fn open(&self, bundle: &Path) -> Result<Recommender, RuntimeError> {
        open(bundle, EngineChoice::OnnxRuntime)
    }
}

/// Opens a bundle with one thread.
pub(super) fn open(bundle: &Path, engine: EngineChoice) -> Result<Recommender, RuntimeError> {
    let options = OpenOptions {
        engine,
        provider: Provider::Cpu,
        libraries: LibrarySearch::new(None, env::var_os("ORT_DYLIB_PATH"), None),
        ..OpenOptions::default()
    };
    Recommender::open(bundle, &options)
}

/// The first items of the catalog.
pub(super) fn history(items: u32) -> History {
    History::from_items((1..=items).map(id))
}

pub(super) fn id(row: u32) -> String {
    row.to_string()
}

/// A bundle with another graph, which is not incremental.
fn with_graph(bundle: &Path, onnx: &Path, name: &str) -> Result<PathBuf, Box<dyn Error>> {
    let path = onnx.with_file_name(name);
    let mut bundle = Bundle::open(bundle)?;
    let mut manifest = bundle.manifest().clone();
    let mut writer = BundleWriter::new();
    for name in manifest.members.keys() {
        writer.add(name, bundle.member(name)?);
    }
    let encoder = manifest.encoders.first_mut().ok_or("no encoder")?;
    encoder.incremental = false;
    writer.add(&encoder.member, std::fs::read(onnx)?);
    writer.write(&path, manifest)?;
    Ok(path)
}

/// Items and a few users.
fn catalog() -> Result<Dataset, Box<dyn Error>> {
    let items = (1..=ITEMS).map(|row| Item {
        title: Some(format!("Item {row}")),
        ..Item::new(id(row))
    });
    let users: u32 = 20;
    let sequences = (0..users).flat_map(|u| (0..60).map(move |i| 1 + (u * 79 + i * 31) % ITEMS));
    Ok(Dataset {
        name: "random".into(),
        vocabulary: ItemVocabulary::new(items.collect())?,
        users: (0..users).map(|user| user.to_string()).collect(),
        items: sequences.map(ItemIndex).collect(),
        offsets: (0..=users as usize).map(|user| user * 60).collect(),
        times: None,
        provenance: serde_json::json!({"source": "generated"}),
    })
}
