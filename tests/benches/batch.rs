//! Many users: histories that share a pass over the catalog, against one after another. Random
//! weights at the widths of SmolLM2-135M, 4 layers, int8, histories of 1 to 50 items, catalogs of
//! two sizes, one thread. The encoder runs each history alone either way.

use std::env;
use std::error::Error;
use std::path::Path;

use slmrec_core::{Dataset, History, Item, ItemIndex, ItemVocabulary};
use slmrec_export::testing::TinyCheckpoint;
use slmrec_export::{ExportOptions, export};
use slmrec_runtime::{
    EngineChoice, FilterOptions, LibrarySearch, OpenOptions, Provider, Recommender, RuntimeError,
};
use slmrec_tests::bench::{Row, Samples, Subject, interleaved, to_json};

const CATALOGS: [u32; 2] = [1682, 100_000];
/// As many as `slmrec-run batch` lets share a pass.
const USERS: u32 = 32;
const WARM_UP: usize = 2;
const ROUNDS: usize = 25;

fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let mut rows = Vec::new();
    for items in CATALOGS {
        eprintln!("  {items} items");
        let folder = folder.path().join(items.to_string());
        std::fs::create_dir_all(&folder)?;
        rows.push(measure(&folder, items)?);
    }
    println!("{}", to_json(&rows)?);
    Ok(())
}

fn measure(folder: &Path, items: u32) -> Result<Row, Box<dyn Error>> {
    let (dataset, checkpoint) = (folder.join("dataset"), folder.join("checkpoint"));
    catalog(items)?.write(&dataset)?;
    let student = TinyCheckpoint::item().smollm2_widths();
    student.write(&checkpoint, &dataset);
    let bundle = folder.join("student.slmrec");
    export(&checkpoint, &dataset, &ExportOptions::default(), &bundle)?;
    let (mut single, mut batch) = (open(&bundle)?, open(&bundle)?);
    let history = |user: u32| {
        let length = 1 + user * 17 % 50;
        History::from_items((0..length).map(|n| (1 + (user * 131 + n * 37) % items).to_string()))
    };
    let histories: Vec<History> = (0..USERS).map(history).collect();
    let filter = FilterOptions::default();
    let mut one_by_one = || {
        histories.iter().try_for_each(|history| {
            let found = single.recommend(history, 10, &filter)?;
            std::hint::black_box(found);
            Ok(())
        })
    };
    let mut together = || {
        let found = batch.recommend_batch(&histories, 10, &filter);
        let found: Result<Vec<_>, RuntimeError> = found.into_iter().collect();
        std::hint::black_box(found?);
        Ok(())
    };
    let mut subjects: [Subject<'_, RuntimeError>; 2] = [&mut together, &mut one_by_one];
    let times = interleaved(WARM_UP, ROUNDS, &mut subjects)?;
    let [together, one_by_one] = [0, 1].map(|n: usize| per_user(&times[n]));
    let case = format!("{USERS} users together, {items} items");
    Ok(Row::new(case, "ms a user, median", together.median())
        .spread(&together)
        .against("one by one", one_by_one.median()))
}

fn per_user(samples: &Samples) -> Samples {
    samples.scaled(1.0 / f64::from(USERS))
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

fn catalog(items: u32) -> Result<Dataset, Box<dyn Error>> {
    let item = |row: u32| Item {
        id: row.to_string(),
        title: None,
    };
    let users: u32 = 20;
    let sequences = (0..users).flat_map(|u| (0..60).map(move |i| 1 + (u * 79 + i * 31) % items));
    Ok(Dataset {
        name: "random".into(),
        vocabulary: ItemVocabulary::new((1..=items).map(item).collect())?,
        users: (0..users).map(|user| user.to_string()).collect(),
        items: sequences.map(ItemIndex).collect(),
        offsets: (0..=users as usize).map(|user| user * 60).collect(),
        times: None,
        provenance: serde_json::json!({"source": "generated"}),
    })
}
