//! The shapes that a graph states of its values are those that they have when it runs: engines plan
//! memory by them, and a stale one breaks them.

use std::path::{Path, PathBuf};

use ort::session::{Session, SessionInputValue};
use ort::value::Tensor;
use slmrec_core::Bundle;
use slmrec_core::manifest::{Precision, past_name};
use slmrec_export::testing::{TinyCheckpoint, tiny_dataset, with_stated_shapes_as_outputs};
use slmrec_export::{ExportOptions, export, export_plain_onnx};

#[path = "support/mod.rs"]
mod support;

/// The graph of a bundle, and the plain one of the same student.
fn graphs(kind: &TinyCheckpoint, precision: Precision, folder: &Path) -> [Vec<u8>; 2] {
    let (checkpoint, dataset) = (folder.join("checkpoint"), folder.join("dataset"));
    tiny_dataset().write(&dataset).expect("dataset");
    kind.write(&checkpoint, &dataset);
    let (bundle, plain) = (folder.join("student.slmrec"), folder.join("plain.onnx"));
    let options = ExportOptions {
        precision,
        ..ExportOptions::default()
    };
    export(&checkpoint, &dataset, &options, &bundle).expect("exports");
    let mut bundle = Bundle::open(&bundle).expect("opens");
    let member = bundle.manifest().encoders[0].member.clone();
    export_plain_onnx(&checkpoint, &plain).expect("exports");
    let plain = std::fs::read(plain).expect("reads");
    [bundle.member(&member).expect("sound"), plain]
}

fn library() -> PathBuf {
    let search = support::libraries();
    let found = search.folders.iter().flat_map(std::fs::read_dir).flatten();
    let found = found.flatten().map(|entry| entry.path());
    let named = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("libonnxruntime.")
    };
    let library = search.named.or_else(|| found.filter(|p| named(p)).min());
    library.expect("ONNX Runtime; `cargo xtask setup` puts it there")
}

#[test]
fn stated_shapes_are_true() {
    let environment = ort::init_from(library()).expect("loads");
    let environment = environment.with_telemetry(false).build().expect("starts");
    for kind in [TinyCheckpoint::item(), TinyCheckpoint::response()] {
        for precision in [Precision::Fp32, Precision::Int8] {
            let folder = tempfile::tempdir().expect("temporary folder");
            let [folded, plain] = graphs(&kind, precision, folder.path());
            for (graph, is_plain) in [(folded, false), (plain, true)] {
                let (graph, stated) = with_stated_shapes_as_outputs(&graph);
                assert!(!stated.is_empty());
                let builder = Session::builder(&environment).expect("builder");
                let session = { builder }.commit_from_memory(&graph).expect("opens");
                let mut asked = Asked {
                    kind: &kind,
                    session,
                    stated: &stated,
                };
                // Together at most the longest history of the tiny students, 6.
                for items in [1, 2, 4] {
                    asked.check(items, None, is_plain);
                    if !is_plain {
                        asked.check(items, Some(2), is_plain);
                    }
                }
            }
        }
    }
}

struct Asked<'a> {
    kind: &'a TinyCheckpoint,
    session: Session,
    stated: &'a [(String, Vec<String>)],
}

impl Asked<'_> {
    /// Runs `items` items, behind so many `past` positions instead of the prefix's.
    fn check(&mut self, items: usize, past: Option<usize>, is_plain: bool) {
        let kind = self.kind;
        let history = vec![0.1f32; items * kind.item_dim];
        let history = Tensor::from_array(([1, items, kind.item_dim], history)).expect("tensor");
        let mut inputs: Vec<(String, SessionInputValue<'_>)> =
            vec![("history_embeddings".into(), history.into())];
        let head_dim = kind.hidden_size / kind.num_attention_heads;
        for layer in (0..kind.num_hidden_layers).filter(|_| past.is_some()) {
            for part in ["keys", "values"] {
                let shape = [kind.num_key_value_heads, 1, past.unwrap_or(0), head_dim];
                let values = vec![0.1f32; shape.iter().product()];
                let kept = Tensor::from_array((shape, values)).expect("tensor");
                inputs.push((past_name(layer, part), kept.into()));
            }
        }
        let found = self.session.run(inputs).expect("runs");
        let prefix = kind.prefix_tokens;
        let before = if is_plain { 0 } else { past.unwrap_or(prefix) };
        let positions = items + kind.suffix_tokens + if is_plain { prefix } else { 0 };
        for (name, axes) in self.stated {
            let expected = axes.iter().map(|axis| match axis.as_str() {
                "history" => items,
                "positions" => positions,
                "all" => before + positions,
                size => size.parse().expect("a size, or the name of a length"),
            });
            let expected: Vec<usize> = expected.collect();
            let (shape, _) = found[name.as_str()]
                .try_extract_tensor::<f32>()
                .expect("floats");
            let shape: Vec<usize> = shape.iter().map(|&n| n as usize).collect();
            assert_eq!(shape, expected, "{name}, {items} items, past {past:?}");
        }
    }
}
