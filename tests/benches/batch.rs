//! Many users: histories that share a pass over the catalog, against one after another and against
//! batches of the same student in PyTorch eager (sorted by length, padded to the longest of a
//! batch, a product with the whole catalog). Random weights at the widths of SmolLM2-135M, 4
//! layers, int8 and fp32, `item` readout, histories of 1 to 50 items, catalogs of two sizes, one
//! thread, CPU times. Our encoder runs each history alone either way.
//!
//! `SLMREC_BENCH_PYTHON` names a Python with PyTorch and transformers; `cargo xtask bench batch`
//! makes one.

use std::cell::RefCell;
use std::env;
use std::error::Error;
use std::path::Path;
use std::process::Command;

use slmrec_core::manifest::Precision;
use slmrec_core::{Dataset, History, Item, ItemIndex, ItemVocabulary};
use slmrec_export::testing::TinyCheckpoint;
use slmrec_export::{ExportOptions, export};
use slmrec_runtime::{
    EngineChoice, FilterOptions, LibrarySearch, OpenOptions, Provider, Recommender, RuntimeError,
};
use slmrec_tests::bench::process::Process;
use slmrec_tests::bench::{Row, Samples, Timed, in_turns, timed, to_json};

const CATALOGS: [u32; 2] = [1682, 100_000];
/// As many as `slmrec-run batch` lets share a pass.
const USERS: u32 = 32;
const WARM_UP: usize = 2;
const ROUNDS: usize = 25;
/// PyTorch's sizes of a batch; the best one is what we are compared with.
const SIZES: [u32; 4] = [1, 4, 8, 32];
/// Three times as many users per core-second as PyTorch.
const GOAL: f64 = 1.0 / 3.0;
/// Two ways to the same user vector may differ by this much, relative to its largest value.
const TOLERANCE: f32 = 1e-4;

type Failure = Box<dyn Error>;

fn main() -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    let mut rows = Vec::new();
    for items in CATALOGS {
        eprintln!("  {items} items");
        let folder = folder.path().join(items.to_string());
        std::fs::create_dir_all(&folder)?;
        rows.extend(measure(&folder, items)?);
    }
    println!("{}", to_json(&rows)?);
    Ok(())
}

fn measure(folder: &Path, items: u32) -> Result<Vec<Row>, Failure> {
    let (dataset, checkpoint) = (folder.join("dataset"), folder.join("checkpoint"));
    catalog(items)?.write(&dataset)?;
    let student = TinyCheckpoint::item().smollm2_widths();
    student.write(&checkpoint, &dataset);
    let open = |precision: Precision| {
        let bundle = folder.join(format!("{precision}.slmrec"));
        let options = ExportOptions {
            precision,
            ..ExportOptions::default()
        };
        export(&checkpoint, &dataset, &options, &bundle)?;
        Ok::<_, Failure>(open(&bundle)?)
    };
    let users: Vec<Vec<u32>> = (0..USERS).map(|user| rows_of(user, items)).collect();
    let history = |rows: &Vec<u32>| History::from_items(rows.iter().map(u32::to_string));
    let histories: Vec<History> = users.iter().map(history).collect();
    let torch = torch(folder, &checkpoint, &users)?;
    check(
        &mut torch.borrow_mut(),
        &mut open(Precision::Fp32)?,
        &histories,
    )?;

    let mut single = open(Precision::Int8)?;
    let mut subjects: Vec<Timed<'_, Failure>> = vec![
        together(open(Precision::Int8)?, &histories),
        timed(|| {
            for history in &histories {
                let found = single.recommend(history, 10, &FilterOptions::default())?;
                std::hint::black_box(found);
            }
            Ok(())
        }),
        together(open(Precision::Fp32)?, &histories),
    ];
    let ours = subjects.len();
    subjects.extend(SIZES.map(|size| -> Timed<'_, Failure> {
        let torch = &torch;
        Box::new(move || Ok(torch.borrow_mut().tell(&format!("together {size}"))?.cpu_ms))
    }));
    let times: Vec<Samples> = (in_turns(WARM_UP, ROUNDS, &mut subjects)?.iter())
        .map(|samples| samples.scaled(1.0 / f64::from(USERS)))
        .collect();
    let best = (0..SIZES.len()).fold(0, |best, at| {
        match times[ours + at].median() < times[ours + best].median() {
            true => at,
            false => best,
        }
    });
    let row = |precision: &str, times: &Samples| {
        let case = format!("{USERS} users together, {precision}, {items} items");
        Row::new(case, "CPU ms a user", times.median()).spread(times)
    };
    let peer = format!("PyTorch eager, {} in a batch", SIZES[best]);
    let theirs = times[ours + best].median();
    Ok(vec![
        row("int8", &times[0]).against("one by one", times[1].median()),
        row("int8", &times[0]).against(&peer, theirs).goal(GOAL),
        row("fp32", &times[2]).against(&peer, theirs),
    ])
}

/// Histories of 1 to 50 items.
fn rows_of(user: u32, items: u32) -> Vec<u32> {
    let length = 1 + user * 17 % 50;
    (0..length)
        .map(|n| 1 + (user * 131 + n * 37) % items)
        .collect()
}

fn together(mut recommender: Recommender, histories: &[History]) -> Timed<'_, Failure> {
    timed(move || {
        let found = recommender.recommend_batch(histories, 10, &FilterOptions::default());
        let found: Result<Vec<_>, RuntimeError> = found.into_iter().collect();
        std::hint::black_box(found?);
        Ok(())
    })
}

/// PyTorch with the same student and users.
fn torch(
    folder: &Path,
    checkpoint: &Path,
    users: &[Vec<u32>],
) -> Result<RefCell<Process>, Failure> {
    const PYTHON: &str = "SLMREC_BENCH_PYTHON";
    let python = env::var_os(PYTHON).ok_or_else(|| format!("{PYTHON} is not set"))?;
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut command = Command::new(python);
    command
        .arg(tests.join("benches/score/score_worker.py"))
        .arg("serve")
        .arg(checkpoint);
    let mut torch = Process::start("PyTorch", &mut command, 1)?;
    let file = folder.join("users.json");
    std::fs::write(&file, serde_json::to_vec(users)?)?;
    torch.ask(&format!("users {}", file.display()))?;
    Ok(RefCell::new(torch))
}

/// A bench of another model would be worthless.
fn check(
    torch: &mut Process,
    fp32: &mut Recommender,
    histories: &[History],
) -> Result<(), Failure> {
    for (user, history) in histories.iter().enumerate().step_by(7) {
        let ours = fp32.user_vector(history)?;
        let line = torch.ask(&format!("of-user {user} 8"))?;
        let values = line.split_whitespace().map(str::parse);
        let theirs: Vec<f32> = values.collect::<Result<_, _>>()?;
        let largest = ours.iter().fold(0.0f32, |most, v| most.max(v.abs()));
        let close = |(a, b): (&f32, &f32)| (a - b).abs() <= TOLERANCE * largest;
        if ours.len() != theirs.len() || !ours.iter().zip(&theirs).all(close) {
            return Err(format!("PyTorch is another model: user {user}").into());
        }
    }
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

fn catalog(items: u32) -> Result<Dataset, Box<dyn Error>> {
    let item = |row: u32| Item::new(row.to_string());
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
