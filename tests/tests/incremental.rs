//! Appending to a history is scoring it whole: states against whole runs, on real engines, and the
//! reasons for an item against leaving items out by hand.
//!
//! ONNX Runtime is looked for as `slmrec-run` does; `cargo xtask setup` puts it there.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use slmrec_core::manifest::Precision;
use slmrec_core::{Bundle, BundleWriter, History};
use slmrec_export::testing::{TinyCheckpoint, tiny_dataset};
use slmrec_export::{ExportOptions, export};
use slmrec_runtime::{
    EngineChoice, ExplainOptions, FilterOptions, HistoryState, LibrarySearch, OpenOptions,
    Recommender, RuntimeError,
};

/// f32 in another order of operations; user vectors are of size 1.
const FP32_TOLERANCE: f32 = 1e-4;
/// Activations are quantized over all rows of a run together, so an item that runs alone is rounded
/// in finer steps than beside others: two roundings of the same model, each as far from it as
/// `INT8_COSINE` of the parity tests says.
const INT8_COSINE: f32 = 0.99;
const ITEMS: u32 = 30;

/// Whether two user vectors are the same within a tolerance.
type Close = fn(&[f32], &[f32]) -> Result<(), String>;

struct Case {
    folder: tempfile::TempDir,
    kind: TinyCheckpoint,
}

impl Case {
    fn new(kind: TinyCheckpoint) -> Self {
        let folder = tempfile::tempdir().expect("temporary folder");
        let dataset = folder.path().join("dataset");
        tiny_dataset().write(&dataset).expect("dataset");
        kind.write(&folder.path().join("checkpoint"), &dataset);
        Self { folder, kind }
    }

    fn bundle(&self, precision: Precision) -> PathBuf {
        let path = self.folder.path().join(format!("{precision}.slmrec"));
        let options = ExportOptions {
            precision,
            ..ExportOptions::default()
        };
        let folder = |name: &str| self.folder.path().join(name);
        export(&folder("checkpoint"), &folder("dataset"), &options, &path).expect("exports");
        path
    }

    /// The same graph in a bundle that does not say that it is incremental.
    fn old_bundle(&self) -> PathBuf {
        let mut bundle = Bundle::open(&self.bundle(Precision::Fp32)).expect("opens");
        let mut manifest = bundle.manifest().clone();
        let mut writer = BundleWriter::new();
        for name in manifest.members.keys() {
            writer.add(name, bundle.member(name).expect("sound"));
        }
        manifest.encoders[0].incremental = false;
        let path = self.folder.path().join("old.slmrec");
        writer.write(&path, manifest).expect("writes");
        path
    }
}

fn cases() -> Vec<TinyCheckpoint> {
    let with_prefix = TinyCheckpoint {
        prefix_tokens: 4,
        ..TinyCheckpoint::item()
    };
    let one_layer = TinyCheckpoint {
        num_hidden_layers: 1,
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

fn id(row: u32) -> String {
    format!("item-{row}")
}

fn empty_state(recommender: &Recommender) -> HistoryState {
    let (state, unknown) = recommender
        .history_state(&History::default())
        .expect("a state");
    assert!(unknown.is_empty());
    state
}

/// Rows of a history, some twice as long as what is read, and after which of them to ask.
fn histories() -> impl Strategy<Value = Vec<(u32, bool)>> {
    prop::collection::vec((1..=ITEMS, any::<bool>()), 1..14)
}

/// Appends items one by one and compares, where asked, with a whole run.
fn appended_is_whole(
    recommender: &mut Recommender,
    steps: &[(u32, bool)],
    close: Close,
) -> Result<(), TestCaseError> {
    let mut state = empty_state(recommender);
    let mut ids = Vec::new();
    for (at, &(row, asked)) in steps.iter().enumerate() {
        ids.push(id(row));
        prop_assert!(state.append(recommender, &id(row)).expect("this bundle's"));
        if asked || at + 1 == steps.len() {
            let history = History::from_items(ids.iter().cloned());
            let whole = recommender.user_vector(&history).expect("runs");
            let kept = state.user_vector(recommender).expect("runs");
            if let Err(difference) = close(&kept, &whole) {
                return Err(TestCaseError::fail(format!("{difference} after {ids:?}")));
            }
            let filter = FilterOptions::default();
            let found = state.recommend(recommender, 99, &filter).expect("ranks");
            let expected = recommender.recommend(&history, 99, &filter).expect("ranks");
            prop_assert_eq!(found.used_items, expected.used_items);
            // What was seen is left out of both.
            prop_assert_eq!(found.shortfall, expected.shortfall);
        }
    }
    Ok(())
}

fn within_tolerance(kept: &[f32], whole: &[f32]) -> Result<(), String> {
    let worst = kept.iter().zip(whole).map(|(a, b)| (a - b).abs());
    let worst = worst.fold(0.0, f32::max);
    match worst <= FP32_TOLERANCE {
        true => Ok(()),
        false => Err(format!("{worst} away")),
    }
}

fn within_cosine(kept: &[f32], whole: &[f32]) -> Result<(), String> {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f32>();
    let cosine = dot(kept, whole) / (dot(kept, kept) * dot(whole, whole)).sqrt();
    match cosine >= INT8_COSINE {
        true => Ok(()),
        false => Err(format!("cosine {cosine}")),
    }
}

#[test]
fn appending_is_scoring_the_whole_history() {
    for kind in cases() {
        let case = Case::new(kind);
        let checks: [(_, Close); 2] = [
            (Precision::Fp32, within_tolerance),
            (Precision::Int8, within_cosine),
        ];
        for (precision, close) in checks {
            let recommender = open(&case.bundle(precision), EngineChoice::OnnxRuntime);
            assert!(recommender.engine().incremental);
            // The runner calls its function by a shared reference.
            let recommender = RefCell::new(recommender);
            let mut runner = TestRunner::new(Config::with_cases(24));
            let result = runner.run(&histories(), |steps| {
                appended_is_whole(&mut recommender.borrow_mut(), &steps, close)
            });
            result.unwrap_or_else(|e| panic!("{precision} {:?}: {e}", case.kind));
        }
    }
}

/// Engines and bundles that know nothing of it give the same, by whole runs.
#[test]
fn where_a_graph_is_not_incremental_the_history_runs_whole() {
    let case = Case::new(TinyCheckpoint::response());
    let steps: Vec<(u32, bool)> = (1..10).map(|row| (row * 3, true)).collect();
    let old = open(&case.old_bundle(), EngineChoice::OnnxRuntime);
    let tract = open(&case.bundle(Precision::Fp32), EngineChoice::Tract);
    for mut recommender in [old, tract] {
        assert!(!recommender.engine().incremental);
        appended_is_whole(&mut recommender, &steps, within_tolerance).expect("the same");
    }
}

#[test]
fn a_written_state_goes_on_where_it_was() {
    let case = Case::new(TinyCheckpoint::item());
    let mut recommender = open(&case.bundle(Precision::Fp32), EngineChoice::OnnxRuntime);
    let long: Vec<String> = (1..=20).map(id).chain(["gone".to_owned()]).collect();
    let history = History::from_items(long);
    let (mut state, unknown) = recommender.history_state(&history).expect("a state");
    assert_eq!(unknown, ["gone"]);
    assert_eq!(state.used_items(), case.kind.max_history);
    let bytes = state.to_bytes().expect("bytes");
    let mut restored = recommender.restore_history_state(&bytes).expect("restores");
    assert_eq!(restored.to_bytes().expect("bytes"), bytes);
    assert!(
        !restored
            .append(&recommender, "gone")
            .expect("this bundle's")
    );
    let filter = FilterOptions::default();
    for state in [&mut state, &mut restored] {
        assert!(
            state
                .append(&recommender, "item-25")
                .expect("this bundle's")
        );
        let found = state
            .recommend(&mut recommender, 99, &filter)
            .expect("ranks");
        // Twenty-one of thirty were seen, most of them long ago.
        assert_eq!(found.items.len(), 9);
    }
    let of = |state: &mut HistoryState, r: &mut Recommender| state.user_vector(r).expect("runs");
    let (a, b) = (
        of(&mut state, &mut recommender),
        of(&mut restored, &mut recommender),
    );
    within_tolerance(&a, &b).expect("the same");
}

#[test]
fn states_of_others_and_damaged_ones_are_refused() {
    let case = Case::new(TinyCheckpoint::item());
    let mut recommender = open(&case.bundle(Precision::Fp32), EngineChoice::OnnxRuntime);
    let mut other = open(&case.bundle(Precision::Fp16), EngineChoice::OnnxRuntime);
    let history = History::from_items(["item-3", "item-8"]);
    let (mut state, _) = recommender.history_state(&history).expect("a state");
    let filter = FilterOptions::default();
    let refused = |error: RuntimeError| {
        assert!(
            matches!(error, RuntimeError::HistoryState { .. }),
            "{error}"
        );
    };
    refused(
        state
            .recommend(&mut other, 1, &filter)
            .expect_err("another bundle"),
    );
    refused(state.append(&other, "item-1").expect_err("another bundle"));
    let bytes = state.to_bytes().expect("bytes");
    refused(
        other
            .restore_history_state(&bytes)
            .expect_err("another bundle"),
    );
    let text = String::from_utf8(bytes).expect("JSON");
    for (from, to) in [
        ("\"format_version\":1", "\"format_version\":2"),
        ("[3,8]", "[3,0]"),
        ("[3,8]", "[3,31]"),
        ("[3,8]", "[3,-1]"),
        ("\"seen\"", "\"other\""),
    ] {
        assert!(text.contains(from), "{text}");
        let damaged = text.replacen(from, to, 1);
        refused(
            recommender
                .restore_history_state(damaged.as_bytes())
                .expect_err("damaged"),
        );
    }
    refused(recommender.restore_history_state(b"").expect_err("nothing"));
    let mut empty = empty_state(&recommender);
    let error = empty
        .recommend(&mut recommender, 1, &filter)
        .expect_err("empty");
    assert!(matches!(error, RuntimeError::History(_)), "{error}");
}

#[test]
fn reasons_are_what_leaving_out_by_hand_gives() {
    let ids = [3, 8, 20, 11, 8].map(id);
    let history = History::from_items(ids.clone());
    for (kind, engine) in [
        (TinyCheckpoint::item(), EngineChoice::OnnxRuntime),
        (TinyCheckpoint::response(), EngineChoice::OnnxRuntime),
        (TinyCheckpoint::response(), EngineChoice::Tract),
    ] {
        let case = Case::new(kind);
        let mut recommender = open(&case.bundle(Precision::Fp32), engine);
        let whole = recommender.scores(&history).expect("scores").values;
        let options = ExplainOptions {
            max_reasons: std::num::NonZeroUsize::MAX,
            ..ExplainOptions::default()
        };
        let asked = ["item-5", "nobody", "item-17"];
        let found = recommender
            .explain(&history, &asked, &options)
            .expect("explains");
        assert_eq!((found.examined, found.reasons[1].len()), (5, 0));
        for (reasons, row) in [(&found.reasons[0], 5), (&found.reasons[2], 17)] {
            let mut expected = Vec::new();
            for age in 1..=ids.len() {
                let mut rest = ids.to_vec();
                let left_out = rest.remove(ids.len() - age);
                let scores = recommender
                    .scores(&History::from_items(rest))
                    .expect("scores");
                let drop = whole[row - 1] - scores.values[row - 1];
                if drop > FP32_TOLERANCE {
                    expected.push((age, left_out, drop));
                }
            }
            expected.sort_by(|a, b| b.2.total_cmp(&a.2));
            let clear = reasons.iter().filter(|reason| reason.drop > FP32_TOLERANCE);
            let clear: Vec<_> = clear.collect();
            assert_eq!(
                clear.len(),
                expected.len(),
                "{reasons:?} is not {expected:?}"
            );
            for (reason, (age, id, drop)) in clear.iter().zip(&expected) {
                assert_eq!((reason.age, &reason.id), (*age, id));
                assert!((reason.drop - drop).abs() <= 2.0 * FP32_TOLERANCE);
            }
        }
        let one = History::from_items(["item-3"]);
        let found = recommender
            .explain(&one, &asked, &options)
            .expect("explains");
        assert_eq!((found.examined, found.reasons), (0, vec![vec![]; 3]));
    }
}
