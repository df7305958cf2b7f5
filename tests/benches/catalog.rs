//! The best ten items of catalogs of 2,000 to a million, D 128, one thread: a scan with a filter
//! against reading the same bytes once, and against the plain form (all scores, then the best ten).
//! Rows are random; every variant takes its turn in every round.

use std::convert::Infallible;
use std::error::Error;
use std::hint::black_box;
use std::num::NonZeroUsize;

use slmrec_core::ranking::top_k;
use slmrec_core::{CatalogQuery, ItemIndex, ItemMask, ItemTable, RowType, scan};
use slmrec_tests::bench::{Row, Subject, interleaved, to_json};

const DIM: usize = 128;
const K: usize = 10;
const ITEMS: [usize; 4] = [2_000, 20_000, 100_000, 1_000_000];
/// Users of a batch that share a pass.
const BATCH: usize = 16;
/// Largest multiple of the time of reading the rows once that int8 may take, at a million rows.
const GOAL: f64 = 1.5;

fn main() -> Result<(), Box<dyn Error>> {
    let mut rows = Vec::new();
    for items in ITEMS {
        for row_type in [RowType::Int8, RowType::F16, RowType::F32] {
            eprintln!("  {items} items, {row_type:?}");
            rows.extend(measure(items, row_type)?);
        }
    }
    println!("{}", to_json(&rows)?);
    Ok(())
}

fn measure(items: usize, row_type: RowType) -> Result<Vec<Row>, Box<dyn Error>> {
    let mut random = Random(items as u64);
    let values: Vec<f32> = (0..items * DIM).map(|_| random.signed()).collect();
    let table = ItemTable::from_f32(&values, DIM, row_type)?;
    drop(values);
    let words = vec![1u64; table.to_bytes().len() / 8];
    let users: Vec<Vec<f32>> = (0..BATCH)
        .map(|_| (0..DIM).map(|_| random.signed()).collect())
        .collect();
    let mut mask = ItemMask::none(items);
    (1..=items as u32)
        .step_by(items / 50)
        .for_each(|row| mask.exclude(ItemIndex(row)));
    let queries: Vec<CatalogQuery<'_>> = (users.iter())
        .map(|user_vector| CatalogQuery {
            user_vector,
            additions: &[],
            mask: &mask,
            k: K,
        })
        .collect();
    let one = NonZeroUsize::MIN;
    let mut alone = || done(black_box(scan::best(&table, &queries[..1], one)));
    let mut plain = || done(black_box(top_k(&table.scores(&users[0]), K, &mask)));
    let mut batch = || done(black_box(scan::best(&table, &queries, one)));
    let mut floor = || done(black_box(read(&words)));
    let mut subjects: [Subject<'_, Infallible>; 4] =
        [&mut alone, &mut plain, &mut batch, &mut floor];
    let rounds = (20_000_000 / items).clamp(15, 200);
    let times = interleaved(2, rounds, &mut subjects)?;
    let case = format!("{items} items, {row_type:?}");
    let scan = Row::new(&case, "ms, one history", times[0].median()).spread(&times[0]);
    let against_floor = (scan.clone()).against("reading the rows once", times[3].median());
    let each = times[2].scaled(1.0 / BATCH as f64);
    Ok(vec![
        match (items, row_type) {
            (1_000_000, RowType::Int8) => against_floor.goal(GOAL),
            _ => against_floor,
        },
        scan.against("all scores, then the best", times[1].median()),
        Row::new(
            &case,
            format!("ms a history, {BATCH} together"),
            each.median(),
        )
        .spread(&each)
        .against("one history", times[0].median()),
    ])
}

fn done<T>(_: T) -> Result<(), Infallible> {
    Ok(())
}

/// Reads everything once, with as little else to do as there can be.
fn read(words: &[u64]) -> u64 {
    let mut sums = [0u64; 16];
    let (chunks, rest) = words.as_chunks::<16>();
    for chunk in chunks {
        for (sum, word) in sums.iter_mut().zip(chunk) {
            *sum ^= word;
        }
    }
    sums.iter().chain(rest).fold(0, |all, word| all ^ word)
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
