//! The recommender over an encoder whose answer is known: filters, ties, unknown items, bad
//! engines. No ONNX graph is involved; the engines have tests of their own.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ndarray::{ArrayView3, Axis};
use slmrec_core::history::HistoryEntry;
use slmrec_core::manifest::{
    DataEntry, EncoderEntry, FORMAT_VERSION, GraphTarget, ItemsEntry, Manifest, ModelEntry,
    PRIOR_FEATURE, Precision, PriorEntry, PromptEntry, Readout, Sample, SampleItem, Samples,
};
use slmrec_core::pack::PRIOR_MEMBER;
use slmrec_core::{
    Bundle, BundleWriter, History, HistoryError, Item, ItemIndex, ItemTable, ItemVocabulary,
    PriorSettings, PriorWeights, RowType, Split, TransitionPrior,
};
use slmrec_runtime::{
    Encoder, EngineInfo, FilterOptions, OpenOptions, Provider, Recommender, RuntimeError,
};

#[path = "recommender/categories.rs"]
mod categories;
#[path = "recommender/packs.rs"]
mod packs;
#[path = "recommender/providers.rs"]
mod providers;

/// Embeddings are corners, so that scores can be worked out by hand: the user vector is the mean.
const EMBEDDINGS: [[f32; 2]; 5] = [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [1.0, 1.0], [-1.0, 0.0]];
const IDS: [&str; 5] = ["a", "b", "c", "d", "e"];

/// What becomes of the mean.
type Answer = fn(Vec<f32>) -> Vec<f32>;

/// The mean of the history, with one thing to go wrong.
struct Mean {
    info: EngineInfo,
    answer: Answer,
}

impl Encoder for Mean {
    fn encode(&mut self, embeddings: ArrayView3<'_, f32>) -> Result<Vec<f32>, RuntimeError> {
        let mean = embeddings.mean_axis(Axis(1)).expect("not empty");
        Ok((self.answer)(mean.into_iter().collect()))
    }

    fn info(&self) -> &EngineInfo {
        &self.info
    }
}

fn manifest() -> Manifest {
    Manifest {
        format_version: FORMAT_VERSION,
        required_features: vec![],
        prior: None,
        created_by: "test".into(),
        precision: Precision::Int8,
        encoders: vec![EncoderEntry {
            member: "encoder.onnx".into(),
            target: GraphTarget::OnnxRuntime,
            precision: Precision::Int8,
            opset: 17,
            incremental: false,
        }],
        model: ModelEntry {
            model_type: "mean".into(),
            base: "none".into(),
            readout: Readout::Item,
            max_history: 2,
            hidden_size: 2,
            num_hidden_layers: 1,
            num_attention_heads: 1,
            num_key_value_heads: 1,
            intermediate_size: 2,
            prompt: PromptEntry::default(),
            checkpoint_sha256: String::new(),
            trained_before: Split::Validation,
        },
        items: ItemsEntry {
            member: "items.bin".into(),
            count: IDS.len(),
            dim: 2,
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

fn samples() -> Samples {
    let top = |ids: &[&str]| {
        let item = |id: &&str| SampleItem {
            item: (*id).into(),
            score: 0.0,
        };
        ids.iter().map(item).collect()
    };
    Samples {
        computed_by: "hand".into(),
        min_cosine: 0.999,
        min_overlap: 0.75,
        samples: vec![
            Sample {
                history: vec!["a".into()],
                user_vector: vec![2.0, 0.0],
                top: top(&["c", "d"]),
            },
            Sample {
                history: vec!["a".into(), "b".into()],
                user_vector: vec![0.5, 0.5],
                top: top(&["d", "c"]),
            },
        ],
    }
}

fn write_bundle(path: &Path, manifest: Manifest, samples: &Samples) {
    let items = IDS.map(|id| Item {
        title: (id != "e").then(|| format!("Title of {id}")),
        ..Item::new(id)
    });
    let popular = br#"["c","e","a"]"#.to_vec();
    write_items(path, &items, &EMBEDDINGS, manifest, samples, popular);
}

fn write_items(
    path: &Path,
    items: &[Item],
    rows: &[[f32; 2]],
    manifest: Manifest,
    samples: &Samples,
    popularity: Vec<u8>,
) {
    let vocabulary = ItemVocabulary::new(items.to_vec()).expect("valid");
    let table = ItemTable::from_f32(rows.as_flattened(), 2, RowType::F32).expect("valid");
    let mut writer = BundleWriter::new();
    writer.add("vocabulary.json", vocabulary.to_json().expect("json"));
    writer.add("items.bin", table.to_bytes());
    writer.add("samples.json", serde_json::to_vec(samples).expect("json"));
    writer.add("popularity.json", popularity);
    writer.add("encoder.onnx", vec![1, 2, 3]);
    if manifest.prior.is_some() {
        writer.add(PRIOR_MEMBER, prior(2, 3.0).to_bytes().expect("bytes"));
    }
    writer.write(path, manifest).expect("writes");
}

/// Item row `neighbour` was seen beside "a" so many times.
fn prior(neighbour: u32, count: f32) -> TransitionPrior {
    let row = |row| match row {
        1 => vec![(ItemIndex(neighbour), count)],
        _ => vec![],
    };
    let occurrences = vec![1.0; IDS.len() + 1];
    let rows = (0..=IDS.len()).map(row);
    TransitionPrior::new(PriorSettings::WINDOW_5, occurrences, rows, 9).expect("valid")
}

fn prior_entry() -> PriorEntry {
    PriorEntry {
        member: PRIOR_MEMBER.into(),
        settings: PriorSettings::WINDOW_5,
        weights: PriorWeights {
            alpha: 2.0,
            beta: 1.0,
        },
        interactions: 9,
        counted_before: Split::Validation,
    }
}

fn with_prior() -> Manifest {
    Manifest {
        required_features: vec![PRIOR_FEATURE.into()],
        prior: Some(prior_entry()),
        ..manifest()
    }
}

fn open(
    manifest: Manifest,
    samples: &Samples,
    answer: Answer,
) -> Result<Recommender, RuntimeError> {
    let dir = tempfile::tempdir().expect("temporary folder");
    let path = dir.path().join("b.slmrec");
    write_bundle(&path, manifest, samples);
    with_mean(&path, answer)
}

fn with_mean(path: &Path, answer: Answer) -> Result<Recommender, RuntimeError> {
    let info = EngineInfo {
        name: "mean".into(),
        version: "1".into(),
        provider: Provider::Cpu,
        threads: 1,
        encoder: "encoder.onnx".into(),
        precision: Precision::Int8,
        incremental: false,
        notice: None,
    };
    let bundle = Bundle::open(path).expect("opens");
    Recommender::with_encoder(bundle, Box::new(Mean { info, answer }))
}

fn recommender() -> Recommender {
    open(manifest(), &samples(), |mean| mean).expect("opens")
}

fn ids(history: &[&str], k: usize, filter: &FilterOptions) -> (Vec<String>, usize) {
    let history = History::from_items(history.iter().copied());
    let found = recommender()
        .recommend(&history, k, filter)
        .expect("recommends");
    let ranks: Vec<usize> = found.items.iter().map(|i| i.rank).collect();
    assert_eq!(ranks, (1..=found.items.len()).collect::<Vec<_>>());
    (
        found.items.into_iter().map(|i| i.id).collect(),
        found.shortfall,
    )
}

#[test]
fn the_prior_is_added_to_the_scores() {
    let mut recommender = open(with_prior(), &samples(), |mean| mean).expect("opens");
    assert!(recommender.has_prior());
    let scores = recommender
        .scores(&History::from_items(["a"]))
        .expect("scores");
    // The model gives a 1, b 0, c 1, d 1, e -1; b was seen beside a three times.
    assert_eq!(scores.values, [1.0, 2.0 * 4f32.ln(), 1.0, 1.0, -1.0]);
    // An item of long ago counts, though the encoder does not read it (the decay is a half).
    let long = History::from_items(["a", "e", "e", "e"]);
    let scores = recommender.scores(&long).expect("scores");
    assert_eq!(scores.history.items.len(), 2);
    assert_eq!(scores.values[1], 2.0 * (3.0 / 8.0f32).ln_1p());
}

#[test]
fn seen_items_go_and_ties_follow_the_catalog() {
    let filter = FilterOptions::default();
    // Scores for [a]: a 1, b 0, c 1, d 1, e -1.
    assert_eq!(ids(&["a"], 2, &filter), (vec!["c".into(), "d".into()], 0));
    assert_eq!(ids(&["a"], 9, &filter).0, ["c", "d", "b", "e"]);
    assert_eq!(ids(&["a"], 9, &filter).1, 5);
    let seen = FilterOptions {
        include_seen: true,
        ..FilterOptions::default()
    };
    assert_eq!(ids(&["a"], 3, &seen).0, ["a", "c", "d"]);
    // Only the newest two are read, but all three are seen.
    assert_eq!(ids(&["c", "b", "a"], 5, &filter).0, ["d", "e"]);
}

#[test]
fn block_and_allow_lists() {
    let block = FilterOptions {
        block: vec!["c".into(), "nobody".into()],
        ..FilterOptions::default()
    };
    assert_eq!(ids(&["a"], 2, &block).0, ["d", "b"]);
    let allow = FilterOptions {
        allow: Some(vec!["e".into(), "c".into(), "a".into()]),
        block: vec!["e".into()],
        ..FilterOptions::default()
    };
    assert_eq!(ids(&["a"], 4, &allow), (vec!["c".into()], 3));
    let history = History::from_items(["a", "x", "x", "y"]);
    let found = recommender()
        .recommend(&history, 1, &block)
        .expect("recommends");
    assert_eq!(found.unknown_items, ["x", "y"]);
    assert_eq!(found.unknown_filter_items, ["nobody"]);
    assert_eq!(found.used_items, 1);
    assert_eq!(found.items[0].title.as_deref(), Some("Title of d"));
}

#[test]
fn a_batch_gives_each_history_its_own_answer() {
    let mut recommender = open(with_prior(), &samples(), |mean| mean).expect("opens");
    let histories = [&["a"][..], &["x"], &["b", "a"], &[]].map(|h| History::from_items(h.to_vec()));
    let filter = FilterOptions::default();
    let answers = recommender.recommend_batch(&histories, 3, &filter);
    assert_eq!(answers.len(), histories.len());
    for (answer, history) in answers.iter().zip(&histories) {
        match (answer, recommender.recommend(history, 3, &filter)) {
            (Ok(found), Ok(alone)) => assert_eq!(found.items, alone.items),
            (Err(found), Err(alone)) => assert_eq!(found.to_string(), alone.to_string()),
            (found, alone) => panic!("{found:?} is not {alone:?}"),
        }
    }
    assert!(answers[0].is_ok() && answers[1].is_err() && answers[3].is_err());
}

#[test]
fn candidates_have_the_scores_of_the_catalog() {
    let mut recommender = open(with_prior(), &samples(), |mean| mean).expect("opens");
    let history = History::from_items(["a", "x"]);
    let all = recommender.scores(&history).expect("scores").values;
    let found = recommender
        .score(&history, &["e", "nobody", "b", "a", "e", "d"])
        .expect("ranks");
    let got: Vec<(&str, f32)> = found
        .items
        .iter()
        .map(|i| (i.id.as_str(), i.score))
        .collect();
    // Scores: a 1, b 2 ln 4, d 1, e -1; seen items are ranked too, ties follow the catalog.
    assert_eq!(got, [("b", all[1]), ("a", 1.0), ("d", 1.0), ("e", -1.0)]);
    assert_eq!(found.unknown_candidates, ["nobody"]);
    assert_eq!(
        (found.unknown_items, found.used_items),
        (vec!["x".to_owned()], 1)
    );
}

#[test]
fn scores_and_user_vector_are_the_same_computation() {
    let mut recommender = recommender();
    let history = History::from_items(["a", "b"]);
    let user_vector = recommender.user_vector(&history).expect("encodes");
    assert_eq!(user_vector, [0.5, 0.5]);
    let scores = recommender.scores(&history).expect("scores");
    assert_eq!(scores.values, [0.5, 0.5, 1.0, 1.0, -0.5]);
}

#[test]
fn no_known_history_is_a_typed_error_and_popularity_only_on_request() {
    let mut recommender = recommender();
    let filter = FilterOptions::default();
    let mut error = |history: &History| {
        recommender
            .recommend(history, 3, &filter)
            .expect_err("nothing to go by")
    };
    let empty = error(&History::default());
    assert!(matches!(empty, RuntimeError::History(HistoryError::Empty)));
    let mut stranger = History::default();
    stranger.entries.push(HistoryEntry {
        item: "x".into(),
        time: None,
    });
    assert!(matches!(
        error(&stranger),
        RuntimeError::History(HistoryError::AllUnknown { count: 1, .. })
    ));
    let block = FilterOptions {
        block: vec!["e".into()],
        ..filter
    };
    let popular = recommender.popular(3, &block).expect("list");
    let ids: Vec<&str> = popular.items.iter().map(|i| i.id.as_str()).collect();
    assert_eq!((ids, popular.shortfall), (vec!["c", "a"], 1));
}

#[test]
fn an_engine_that_gives_nonsense_is_an_error() {
    let history = History::from_items(["a"]);
    let broken: [(Answer, &str); 3] = [
        (|_| vec![0.0, f32::NAN], "NaN at 1"),
        (|_| vec![f32::INFINITY, 0.0], "inf at 0"),
        (|_| vec![1.0], "2 values"),
    ];
    for (answer, expected) in broken {
        let mut recommender = open(manifest(), &samples(), answer).expect("opens");
        let error = recommender
            .recommend(&history, 1, &FilterOptions::default())
            .expect_err("refused");
        assert!(error.is_internal());
        assert!(error.to_string().contains(expected), "{error}");
    }
    // Finite, but the products are not.
    let mut huge = open(manifest(), &samples(), |_| vec![f32::MAX, -f32::MAX]).expect("opens");
    let ranked = huge.recommend(&history, 5, &FilterOptions::default());
    assert!(
        ranked.is_ok(),
        "infinite scores still have an order: {ranked:?}"
    );
}

#[test]
fn the_self_test_can_fail() {
    let mut good = recommender();
    let test = good.self_test().expect("replays");
    assert!(test.passed(), "{test:?}");
    assert_eq!((test.samples.len(), test.mean_overlap()), (2, 1.0));
    let mut turned = open(manifest(), &samples(), |v| vec![-v[0], v[1]]).expect("opens");
    let test = turned.self_test().expect("replays");
    assert!(!test.passed() && test.worst_cosine() < 0.0, "{test:?}");
    let mut zero = open(manifest(), &samples(), |_| vec![0.0, 0.0]).expect("opens");
    let test = zero.self_test().expect("replays");
    assert!(!test.passed() && test.worst_cosine().is_nan(), "{test:?}");
}

#[test]
fn samples_that_check_nothing_are_refused() {
    let change: [fn(&mut Samples); 4] = [
        |s| s.samples.clear(),
        |s| s.samples[1].top.clear(),
        |s| s.min_cosine = -1.0,
        |s| s.min_overlap = f32::NAN,
    ];
    for change in change {
        let mut samples = samples();
        change(&mut samples);
        // JSON has no NaN, so that one does not even read back.
        let error = open(manifest(), &samples, |mean| mean)
            .expect("opens")
            .self_test()
            .expect_err("refused");
        assert!(
            matches!(
                error,
                RuntimeError::Samples { .. } | RuntimeError::Bundle(_)
            ),
            "{error}"
        );
    }
    let mut other = samples();
    other.samples[0].user_vector.push(1.0);
    let error = open(manifest(), &other, |mean| mean)
        .expect("opens")
        .self_test()
        .expect_err("refused");
    assert!(error.to_string().contains("3 values"), "{error}");
}

#[test]
fn a_manifest_without_room_for_a_history_is_refused() {
    let mut manifest = manifest();
    manifest.model.max_history = 0;
    let error = open(manifest, &samples(), |mean| mean).expect_err("refused");
    assert!(error.to_string().contains("max_history"), "{error}");
}

#[cfg(feature = "tract")]
#[test]
fn tract_does_not_take_an_int8_graph() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let path = dir.path().join("b.slmrec");
    write_bundle(&path, manifest(), &samples());
    let options = OpenOptions {
        engine: slmrec_runtime::EngineChoice::Tract,
        ..OpenOptions::default()
    };
    let error = Recommender::open(&path, &options).expect_err("refused");
    assert!(matches!(error, RuntimeError::NoGraph { .. }), "{error}");
    assert!(error.to_string().contains("--portable"), "{error}");
}

#[cfg(feature = "tract")]
#[test]
fn auto_says_why_there_is_no_engine() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let path = dir.path().join("b.slmrec");
    write_bundle(&path, manifest(), &samples());
    let mut options = OpenOptions::default();
    options.libraries.system_names = vec!["libno-such-library.so".into()];
    let error = Recommender::open(&path, &options)
        .expect_err("refused")
        .to_string();
    assert!(error.contains("ONNX Runtime was not found"), "{error}");
    options.provider = Provider::Cuda;
    let error = Recommender::open(&path, &options).expect_err("refused");
    assert!(
        matches!(error, RuntimeError::LibraryNotFound { .. }),
        "{error}"
    );
}

#[test]
fn a_flag_ends_questions_while_it_is_set() {
    let (mut recommender, flag) = (recommender(), Arc::new(AtomicBool::new(true)));
    recommender.stop_when(Some(Arc::clone(&flag)));
    let mut vector = || recommender.user_vector(&History::from_items(["a"]));
    assert!(matches!(vector(), Err(RuntimeError::Cancelled)));
    flag.store(false, Ordering::Relaxed);
    vector().expect("not stopped");
}
