//! One recommendation through our bundles, against the same student exported plainly: fp32, the
//! prompt in the sequence, every position in every layer. Random weights at the widths of
//! SmolLM2-135M, 4 layers, a history of 50 items, a catalog as large as MovieLens-100K's, one
//! thread. All variants run in the same runtime, so the difference is the graph's. Appended items
//! run behind a kept history of 49.

use std::env;
use std::error::Error;
use std::path::{Path, PathBuf};

use slmrec_core::manifest::Precision;
use slmrec_core::{Bundle, BundleWriter, Dataset, History, Item, ItemIndex, ItemVocabulary};
use slmrec_export::testing::TinyCheckpoint;
use slmrec_export::{ExportOptions, export, export_plain_onnx};
use slmrec_runtime::{
    EngineChoice, FilterOptions, HistoryState, LibrarySearch, OpenOptions, Provider, Recommender,
    RuntimeError,
};
use slmrec_tests::bench::{Row, Samples, Subject, interleaved, to_json};

const ITEMS: u32 = 1682;
const HISTORY: u32 = 50;
const WARM_UP: usize = 10;
const ROUNDS: usize = 150;
/// Largest share of the plain export's time that the int8 bundle may take.
const GOAL: f64 = 0.5;

fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let dataset = folder.path().join("dataset");
    catalog()?.write(&dataset)?;
    let paper = TinyCheckpoint {
        prefix_tokens: 40,
        suffix_tokens: 5,
        ..TinyCheckpoint::response()
    };
    let mut rows = Vec::new();
    for (case, student) in [
        ("response readout, 40 + 50 + 5 tokens", paper),
        ("item readout, 50 tokens", TinyCheckpoint::item()),
    ] {
        eprintln!("  {case}");
        let work = folder.path().join(format!("{:?}", student.readout));
        student.smollm2_widths().write(&work, &dataset);
        rows.extend(measure(case, &work, &dataset)?);
    }
    println!("{}", to_json(&rows)?);
    Ok(())
}

/// Times the variants of one student.
fn measure(case: &str, checkpoint: &Path, dataset: &Path) -> Result<Vec<Row>, Box<dyn Error>> {
    let int8_path = bundle(checkpoint, dataset, Precision::Int8)?;
    let folded_path = bundle(checkpoint, dataset, Precision::Fp32)?;
    let plain = plain_bundle(checkpoint, &folded_path)?;
    let mut int8 = open(&int8_path)?;
    let mut folded = open(&folded_path)?;
    let mut plain = open(&plain)?;
    let history = History::from_items((1..=HISTORY).map(id));
    let before = History::from_items((1..HISTORY).map(id));
    let mut state_int8 = caught_up(&mut int8, &before)?;
    let mut state_fp32 = caught_up(&mut folded, &before)?;
    // One recommender for one closure: those that append have their own.
    let (mut int8_appends, mut folded_appends) = (open(&int8_path)?, open(&folded_path)?);
    let mut run_int8 = || recommend(&mut int8, &history);
    let mut run_folded = || recommend(&mut folded, &history);
    let mut run_plain = || recommend(&mut plain, &history);
    let mut append_int8 = || append(&mut int8_appends, &mut state_int8);
    let mut append_fp32 = || append(&mut folded_appends, &mut state_fp32);
    let mut subjects: [Subject<'_, RuntimeError>; 5] = [
        &mut run_int8,
        &mut run_folded,
        &mut run_plain,
        &mut append_int8,
        &mut append_fp32,
    ];
    let times = interleaved(WARM_UP, ROUNDS, &mut subjects)?;
    let mut rows = compare(&format!("int8 bundle, {case}"), &times[0], &times[2]);
    rows[0] = rows[0].clone().goal(GOAL);
    rows.extend(compare(
        &format!("fp32 bundle, {case}"),
        &times[1],
        &times[2],
    ));
    for (name, times_of) in [("int8", 3), ("fp32", 4)] {
        let case = format!("one appended item, {name}, {case}");
        rows.extend(compare(&case, &times[times_of], &times[2]));
    }
    Ok(rows)
}

/// A state that has run all but the last item.
fn caught_up(
    recommender: &mut Recommender,
    before: &History,
) -> Result<HistoryState, RuntimeError> {
    let (mut state, _) = recommender.history_state(before)?;
    state.user_vector(recommender)?;
    Ok(state)
}

/// The last item, appended to a copy of the state, whose copying is measured too.
fn append(recommender: &mut Recommender, state: &mut HistoryState) -> Result<(), RuntimeError> {
    let mut state = state.clone();
    state.append(recommender, &id(HISTORY))?;
    let found = state.recommend(recommender, 10, &FilterOptions::default())?;
    std::hint::black_box(found);
    Ok(())
}

/// Median, then the tenth and the ninetieth percentile.
fn compare(case: &str, ours: &Samples, plain: &Samples) -> Vec<Row> {
    [("median", 0.5), ("10 %", 0.1), ("90 %", 0.9)]
        .map(|(name, q)| {
            Row::new(case, format!("ms, {name}"), ours.quantile(q))
                .against("plain fp32 export", plain.quantile(q))
        })
        .to_vec()
}

fn recommend(recommender: &mut Recommender, history: &History) -> Result<(), RuntimeError> {
    let found = recommender.recommend(history, 10, &FilterOptions::default())?;
    std::hint::black_box(found);
    Ok(())
}

fn open(bundle: &Path) -> Result<Recommender, RuntimeError> {
    let options = OpenOptions {
        engine: EngineChoice::OnnxRuntime,
        provider: Provider::Cpu,
        libraries: LibrarySearch::new(None, env::var_os("ORT_DYLIB_PATH"), None),
        ..OpenOptions::default()
    };
    Recommender::open(bundle, &options)
}

fn bundle(
    checkpoint: &Path,
    dataset: &Path,
    precision: Precision,
) -> Result<PathBuf, Box<dyn Error>> {
    let path = checkpoint.join(format!("{precision}.slmrec"));
    let options = ExportOptions {
        precision,
        ..ExportOptions::default()
    };
    export(checkpoint, dataset, &options, &path)?;
    Ok(path)
}

/// The fp32 bundle with the plain graph in place of the folded one, so that everything around the
/// graph stays the same.
fn plain_bundle(checkpoint: &Path, folded: &Path) -> Result<PathBuf, Box<dyn Error>> {
    let onnx = checkpoint.join("plain.onnx");
    export_plain_onnx(checkpoint, &onnx)?;
    let mut bundle = Bundle::open(folded)?;
    let manifest = bundle.manifest().clone();
    let mut writer = BundleWriter::new();
    for name in manifest.members.keys() {
        writer.add(name, bundle.member(name)?);
    }
    let encoder = manifest
        .encoders
        .first()
        .ok_or("no encoder")?
        .member
        .clone();
    writer.add(encoder, std::fs::read(onnx)?);
    let path = checkpoint.join("plain.slmrec");
    writer.write(&path, manifest)?;
    Ok(path)
}

/// A catalog of MovieLens-100K's size and a few users.
fn catalog() -> Result<Dataset, Box<dyn Error>> {
    let items = (1..=ITEMS).map(|row| Item {
        id: id(row),
        title: Some(format!("Item {row}")),
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

fn id(row: u32) -> String {
    row.to_string()
}
