//! The best ten items of catalogs of 2,000 to ten million, D 128, one thread: a scan with a filter
//! against reading the same bytes once, against the plain form (all scores, then the best ten), and
//! int8 rows against exact search by numkong and usearch (a user vector of eight bits and no
//! scales there, of sixteen bits and a scale a row here). Rows are random; every variant takes its
//! turn in every round; times are CPU times.
//!
//! A catalog is left out, with a notice, where memory for one and a half of it is not there.
//! `SLMREC_BENCH_PYTHON` names a Python with numkong and usearch; `cargo xtask bench catalog` makes
//! one. `SLMREC_BENCH_CASE` chooses one size, for example 100000.

use std::cell::RefCell;
use std::convert::Infallible;
use std::env;
use std::error::Error;
use std::hint::black_box;
use std::io::Write as _;
use std::num::NonZeroUsize;
use std::path::Path;
use std::process::Command;

use slmrec_core::ranking::top_k;
use slmrec_core::{CatalogQuery, ItemIndex, ItemMask, ItemTable, RowType, scan};
use slmrec_tests::bench::clock::available_kib;
use slmrec_tests::bench::machine::Memory;
use slmrec_tests::bench::process::Process;
use slmrec_tests::bench::{Row, Subject, Timed, in_turns, interleaved, timed, to_json};

const DIM: usize = 128;
const K: usize = 10;
const ITEMS: [usize; 5] = [2_000, 20_000, 100_000, 1_000_000, 10_000_000];
/// The largest catalog that the others search, too.
const MOST_FOR_PEERS: usize = 1_000_000;
const PEERS: [&str; 2] = ["numkong", "usearch"];
/// Users of a batch that share a pass.
const BATCH: usize = 16;
/// Rows that are made at a time.
const CHUNK: usize = 100_000;
/// Largest multiple of the time of reading the rows once that int8 may take, at a million rows; and
/// of the time of the faster of the others, at 100,000.
const FLOOR_GOAL: (usize, f64) = (1_000_000, 1.5);
const PEER_GOAL: (usize, f64) = (100_000, 1.2);

type Failure = Box<dyn Error>;

fn main() -> Result<(), Failure> {
    let only = env::var("SLMREC_BENCH_CASE").ok();
    let wanted = |items: &usize| only.as_deref().is_none_or(|only| only == items.to_string());
    let mut rows = Vec::new();
    for items in ITEMS.into_iter().filter(wanted) {
        for row_type in [RowType::Int8, RowType::F16, RowType::F32] {
            if !fits(items, row_type)? {
                continue;
            }
            eprintln!("  {items} items, {row_type}");
            let catalog = Catalog::new(items, row_type)?;
            rows.extend(catalog.alone()?);
            if row_type == RowType::Int8 && items <= MOST_FOR_PEERS {
                rows.extend(catalog.beside_peers()?);
            }
        }
    }
    println!("{}", to_json(&rows)?);
    Ok(())
}

/// Whether there is memory for the rows, for as much that is read, and for half of it besides.
fn fits(items: usize, row_type: RowType) -> Result<bool, Failure> {
    let needed = (bytes(items, row_type) / 1024 * 5 / 2) as u64;
    let available = available_kib()?;
    if needed > available {
        let mib = [needed, available].map(|kib| kib / 1024);
        let [needed, available] = mib;
        eprintln!(
            "  NOTICE: {items} items, {row_type}, not measured: it needs {needed} MiB, there are \
             {available}"
        );
    }
    Ok(needed <= available)
}

/// Of the rows.
fn bytes(items: usize, row_type: RowType) -> usize {
    let width = match row_type {
        RowType::Int8 => 1,
        RowType::F16 => 2,
        RowType::F32 => 4,
    };
    items * DIM * width
}

/// Random rows and users.
struct Catalog {
    case: String,
    items: usize,
    table: ItemTable,
    users: Vec<Vec<f32>>,
    mask: ItemMask,
    rounds: usize,
}

impl Catalog {
    fn new(items: usize, row_type: RowType) -> Result<Self, Failure> {
        let mut random = Random(items as u64);
        let mut part = |rows: usize| {
            let mut values: Vec<f32> = (0..rows * DIM).map(|_| random.signed()).collect();
            // Rows of one scale, so that int8 products alone give the same order.
            values
                .iter_mut()
                .step_by(DIM)
                .for_each(|first| *first = 1.0);
            ItemTable::from_f32(&values, DIM, row_type)
        };
        let mut table = part(items.min(CHUNK))?;
        while table.len() < items {
            table.append(part(CHUNK.min(items - table.len()))?)?;
        }
        // Values that eight bits hold exactly.
        let mut eight_bits = || (random.signed() * 127.0).round() / 127.0;
        let users = (0..BATCH)
            .map(|_| (0..DIM).map(|_| eight_bits()).collect())
            .collect();
        let mut mask = ItemMask::none(items);
        (1..=items as u32)
            .step_by(items / 50)
            .for_each(|row| mask.exclude(ItemIndex(row)));
        Ok(Self {
            case: format!("{items} items, {row_type}"),
            items,
            table,
            users,
            mask,
            rounds: (20_000_000 / items).clamp(7, 200),
        })
    }

    fn query(&self, user: usize) -> CatalogQuery<'_> {
        CatalogQuery {
            user_vector: &self.users[user],
            additions: &[],
            mask: &self.mask,
            k: K,
        }
    }

    /// Against the machine and against plainer forms.
    fn alone(&self) -> Result<Vec<Row>, Infallible> {
        let Self { table, users, .. } = self;
        let memory = Memory::of(bytes(self.items, table.row_type()));
        let queries: Vec<_> = (0..BATCH).map(|user| self.query(user)).collect();
        let one = NonZeroUsize::MIN;
        let mut alone = || done(black_box(scan::best(table, &queries[..1], one)));
        let mut plain = || done(black_box(top_k(&table.scores(&users[0]), K, &self.mask)));
        let mut batch = || done(black_box(scan::best(table, &queries, one)));
        let mut floor = || done(black_box(memory.read()));
        let mut subjects: [Subject<'_, Infallible>; 4] =
            [&mut alone, &mut plain, &mut batch, &mut floor];
        let times = interleaved(2, self.rounds, &mut subjects)?;
        let scan = Row::new(&self.case, "CPU ms, one history", times[0].median());
        let scan = scan.spread(&times[0]);
        let against_floor = (scan.clone()).against("reading the rows once", times[3].median());
        let each = times[2].scaled(1.0 / BATCH as f64);
        Ok(vec![
            match (self.items, table.row_type()) {
                (items, RowType::Int8) if items == FLOOR_GOAL.0 => against_floor.goal(FLOOR_GOAL.1),
                _ => against_floor,
            },
            scan.against("all scores, then the best", times[1].median()),
            Row::new(
                &self.case,
                format!("CPU ms a history, {BATCH} together"),
                each.median(),
            )
            .spread(&each)
            .against("one history", times[0].median()),
        ])
    }

    /// int8 rows against others' exact search, all without a filter.
    fn beside_peers(&self) -> Result<Vec<Row>, Failure> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("rows");
        self.write_rows(&file)?;
        let mut searcher = Process::start("search_worker.py", &mut searcher()?, 1)?;
        searcher.ask(&format!("rows {} {DIM}", file.display()))?;
        let user: Vec<i8> = self.users[0]
            .iter()
            .map(|v| (v * 127.0).round() as i8)
            .collect();
        let values: Vec<String> = user.iter().map(i8::to_string).collect();
        searcher.ask(&format!("user {}", values.join(" ")))?;
        let unfiltered = ItemMask::none(self.items);
        let query = CatalogQuery {
            mask: &unfiltered,
            ..self.query(0)
        };
        let search = || scan::best(&self.table, &[query], NonZeroUsize::MIN);
        let best = search().remove(0)?;
        for peer in PEERS {
            check(peer, &searcher.ask(&format!("best {peer}"))?, &best)?;
        }
        let searcher = &RefCell::new(searcher);
        let mut subjects: Vec<Timed<'_, Failure>> = vec![timed(|| {
            black_box(search());
            Ok(())
        })];
        subjects.extend(PEERS.map(|peer| -> Timed<'_, Failure> {
            Box::new(move || Ok(searcher.borrow_mut().tell(&format!("run {peer}"))?.cpu_ms))
        }));
        let times = in_turns(2, self.rounds.min(60), &mut subjects)?;
        let fastest = times[1..]
            .iter()
            .map(|t| t.median())
            .fold(f64::INFINITY, f64::min);
        let rows = PEERS.iter().zip(&times[1..]).map(|(peer, theirs)| {
            let row = Row::new(&self.case, "CPU ms, no filter", times[0].median());
            let row = row.spread(&times[0]).against(*peer, theirs.median());
            match self.items == PEER_GOAL.0 && theirs.median() <= fastest {
                true => row.goal(PEER_GOAL.1),
                false => row,
            }
        });
        Ok(rows.collect())
    }

    /// The int8 rows, without scales.
    fn write_rows(&self, file: &Path) -> Result<(), Failure> {
        let bytes = self.table.to_bytes();
        std::fs::File::create(file)?.write_all(&bytes[bytes.len() - self.items * DIM..])?;
        Ok(())
    }
}

/// Whether the best products are those of our best items; ours are rounded to sixteen bits.
fn check(peer: &str, line: &str, best: &[slmrec_core::ScoredItem]) -> Result<(), Failure> {
    let theirs: Vec<f64> = line
        .split_whitespace()
        .map(str::parse)
        .collect::<Result<_, _>>()?;
    let close = |(theirs, ours): (&f64, &slmrec_core::ScoredItem)| {
        let ours = f64::from(ours.score) * 127.0 * 127.0;
        (theirs - ours).abs() <= 1e-3 * theirs.abs()
    };
    match theirs.len() == best.len() && theirs.iter().zip(best).all(close) {
        true => Ok(()),
        false => Err(format!("{peer} found {theirs:?}, we found {best:?}").into()),
    }
}

/// The others' side of this bench.
fn searcher() -> Result<Command, Failure> {
    const PYTHON: &str = "SLMREC_BENCH_PYTHON";
    let python = env::var_os(PYTHON).ok_or_else(|| format!("{PYTHON} is not set"))?;
    let mut command = Command::new(python);
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    command.arg(tests.join("benches/catalog/search_worker.py"));
    Ok(command)
}

fn done<T>(_: T) -> Result<(), Infallible> {
    Ok(())
}

/// A small generator whose numbers never change.
struct Random(u64);

impl Random {
    /// Uniform in `-1..1`.
    fn signed(&mut self) -> f32 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        ((self.0 >> 40) as f32) / (1u32 << 23) as f32 - 1.0
    }
}
