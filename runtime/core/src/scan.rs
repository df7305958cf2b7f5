//! One pass over the catalog: scores, what a prior adds to them, filters and the best k, without a
//! list of all scores.
//!
//! The catalog is read 64 items at a time, a word of the filter's bitmap. Of a word only what is
//! allowed is computed, so that k results are the k best allowed ones. Several histories share the
//! pass: a block of rows stays in the cache for all of them. Ranges of the catalog go to threads;
//! the answer does not depend on their number.

use std::num::NonZeroUsize;
use std::ops::Range;
use std::thread;

use crate::item_table::ItemTable;
use crate::item_table::kernel::{Kernel, ROWS, UserVector, Work, dispatch};
use crate::ranking::{Best, ItemMask, RankingError, ScoredItem, sort};
use crate::vocabulary::ItemIndex;

/// Items of a block: the bits of a word.
const BLOCK: usize = 64;
/// Least bytes of item rows for a thread: below, starting it costs more than it saves.
const BYTES_FOR_A_THREAD: usize = 4 << 20;

/// What is asked of the catalog for one history.
#[derive(Clone, Copy, Debug)]
pub struct CatalogQuery<'a> {
    /// User vector, D values.
    pub user_vector: &'a [f32],
    /// What is added to the scores of some items, in ascending order of items.
    pub additions: &'a [(ItemIndex, f32)],
    /// What may not be recommended; made for this catalog.
    pub mask: &'a ItemMask,
    /// Length of the list.
    pub k: usize,
}

/// The best items for each query, best first, among equal scores the smaller row; fewer than `k`
/// where the mask leaves fewer.
///
/// At most `threads` threads run, fewer for a small catalog.
///
/// # Errors
/// For each query: [`RankingError::NotANumber`] for a score that is no number, of the first such
/// item that could have entered the list.
///
/// # Panics
/// When a user vector has not D values: a caller's mistake, not a file's.
#[must_use]
pub fn best(
    table: &ItemTable,
    queries: &[CatalogQuery<'_>],
    threads: NonZeroUsize,
) -> Vec<Result<Vec<ScoredItem>, RankingError>> {
    let prepared: Vec<Prepared<'_>> = queries.iter().map(|q| Prepared::new(table, q)).collect();
    let words = (table.len() + BLOCK) / BLOCK;
    let bytes = table.len() * table.row_bytes();
    let parts = threads.get().min(bytes / BYTES_FOR_A_THREAD).max(1);
    let part = |n: usize| words * n / parts..words * (n + 1) / parts;
    let scan = |words: Range<usize>| {
        dispatch(Scan {
            table,
            queries: &prepared,
            words,
        })
    };
    let mut found = thread::scope(|scope| {
        let others: Vec<_> = (1..parts)
            .map(|n| scope.spawn(move || scan(part(n))))
            .collect();
        let mut found = vec![scan(part(0))];
        found.extend(others.into_iter().map(|thread| match thread.join() {
            Ok(part) => part,
            Err(panic) => std::panic::resume_unwind(panic),
        }));
        found
    });
    if found.len() == 1 {
        return found.swap_remove(0);
    }
    let mut found: Vec<_> = found.into_iter().map(Vec::into_iter).collect();
    let merged = queries.iter().map(|query| {
        let parts: Result<Vec<Vec<ScoredItem>>, _> =
            found.iter_mut().filter_map(Iterator::next).collect();
        let mut all = parts?.concat();
        sort(&mut all);
        all.truncate(query.k);
        Ok(all)
    });
    merged.collect()
}

/// A query and its user vector as the kernel reads it.
struct Prepared<'a> {
    query: &'a CatalogQuery<'a>,
    user: UserVector<'a>,
}

impl<'a> Prepared<'a> {
    fn new(table: &ItemTable, query: &'a CatalogQuery<'a>) -> Self {
        Self {
            query,
            user: table.user_vector(query.user_vector),
        }
    }
}

/// The best items of a range of words, for all queries.
struct Scan<'a> {
    table: &'a ItemTable,
    queries: &'a [Prepared<'a>],
    words: Range<usize>,
}

impl Work for Scan<'_> {
    type Output = Vec<Result<Vec<ScoredItem>, RankingError>>;

    #[inline(always)]
    fn run<K: Kernel>(self, kernel: K) -> Self::Output {
        let items = self.words.len() * BLOCK;
        let state = |prepared: &Prepared<'_>| State {
            best: Ok(Best::new(prepared.query.k, items)),
            addition: prepared
                .query
                .additions
                .partition_point(|(item, _)| item.row() < self.words.start * BLOCK),
        };
        let mut states: Vec<State> = self.queries.iter().map(state).collect();
        let mut block = Block {
            rows: [0; BLOCK],
            scores: [0.0; BLOCK],
            len: 0,
        };
        for word in self.words {
            for (prepared, state) in self.queries.iter().zip(&mut states) {
                block.take(prepared.query.mask.allowed(word), word * BLOCK);
                if block.len > 0 {
                    block.score(kernel, self.table, &prepared.user);
                    state.add(&mut block, prepared.query.additions);
                    state.offer(&block);
                }
            }
        }
        let finish = |state: State| state.best.map(Best::finish);
        states.into_iter().map(finish).collect()
    }
}

/// The allowed items of a word.
struct Block {
    /// Rows of the vocabulary, ascending.
    rows: [u32; BLOCK],
    scores: [f32; BLOCK],
    len: usize,
}

impl Block {
    #[inline(always)]
    fn take(&mut self, mut allowed: u64, first: usize) {
        self.len = allowed.count_ones() as usize;
        if allowed == u64::MAX {
            for (row, at) in self.rows.iter_mut().zip(first as u32..) {
                *row = at;
            }
            return;
        }
        for row in &mut self.rows[..self.len] {
            *row = first as u32 + allowed.trailing_zeros();
            allowed &= allowed - 1;
        }
    }

    #[inline(always)]
    fn score<K: Kernel>(&mut self, kernel: K, table: &ItemTable, user: &UserVector<'_>) {
        for from in (0..self.len).step_by(ROWS) {
            // The last group repeats its last row; what is past the end is not read.
            let row = |i: usize| self.rows[(from + i).min(self.len - 1)] as usize - 1;
            let scores = table.score_rows(kernel, std::array::from_fn(row), user);
            self.scores[from..from + ROWS].copy_from_slice(&scores);
        }
    }
}

/// How far a query has come.
struct State {
    best: Result<Best, RankingError>,
    /// The next entry of the additions.
    addition: usize,
}

impl State {
    /// Adds what belongs to items of the block.
    #[inline(always)]
    fn add(&mut self, block: &mut Block, additions: &[(ItemIndex, f32)]) {
        for (row, score) in block.rows.iter().zip(&mut block.scores).take(block.len) {
            while let Some((item, addition)) = additions.get(self.addition) {
                if item.0 > *row {
                    break;
                }
                if item.0 == *row {
                    *score += addition;
                }
                self.addition += 1;
            }
        }
    }

    #[inline(always)]
    fn offer(&mut self, block: &Block) {
        let Ok(best) = &mut self.best else {
            return;
        };
        let scores = &block.scores[..block.len];
        // Most blocks have nothing for the list; looking at all of it at once vectorises.
        if scores.iter().fold(true, |all, s| all & best.beats(*s)) {
            return;
        }
        for (&row, &score) in block.rows.iter().zip(scores) {
            let item = ItemIndex(row);
            if best.beats(score) {
                continue;
            }
            if let Err(error) = best.offer(ScoredItem { item, score }) {
                self.best = Err(error);
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests;
