//! Which window is in which shard, and at which row: a function of spec and data alone, so that all
//! machines agree without talking.

use std::ops::Range;

use super::shard_file::HEADER_END;
use super::{CacheError, CacheSpec, RowShape};
use crate::train::TrainingData;
use crate::train::distillation::Positions;

/// Shards as ranges of windows, windows as ranges of rows.
#[derive(Clone, Debug)]
pub struct CacheLayout {
    spec: CacheSpec,
    key: String,
    /// First row of each window over all shards, and the number of rows at the end.
    first_rows: Vec<u64>,
    shards: Vec<Range<usize>>,
}

impl CacheLayout {
    /// Lays out the windows of `data`.
    #[must_use]
    pub fn new(spec: CacheSpec, data: &TrainingData) -> Self {
        let rows = stored_rows(data, spec.positions);
        let (first_rows, shards) = lay_out(rows, spec.shape().bytes(), spec.shard_bytes);
        Self {
            key: spec.key(),
            spec,
            first_rows,
            shards,
        }
    }

    /// What is stored.
    #[must_use]
    pub fn spec(&self) -> &CacheSpec {
        &self.spec
    }

    /// The spec's key.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Windows of each shard.
    #[must_use]
    pub fn shards(&self) -> &[Range<usize>] {
        &self.shards
    }

    /// Rows (stored positions) of a shard.
    #[must_use]
    pub fn rows(&self, shard: usize) -> u64 {
        let windows = &self.shards[shard];
        self.first_rows[windows.end] - self.first_rows[windows.start]
    }

    /// Rows of all shards.
    #[must_use]
    pub fn total_rows(&self) -> u64 {
        self.first_rows.last().copied().unwrap_or(0)
    }

    /// Size of a shard's file in bytes.
    #[must_use]
    pub fn file_bytes(&self, shard: usize) -> u64 {
        HEADER_END.saturating_add(self.rows(shard).saturating_mul(self.spec.shape().bytes()))
    }

    /// Size of all shards in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        total_bytes(self.total_rows(), self.shards.len(), &self.spec.shape())
    }

    /// File name of a shard.
    #[must_use]
    pub fn file_name(&self, shard: usize) -> String {
        format!(
            "states-{:05}-of-{:05}.safetensors",
            shard + 1,
            self.shards.len()
        )
    }

    /// First row of a window within its shard.
    pub(super) fn row_in_shard(&self, shard: usize, window: usize) -> u64 {
        self.first_rows[window] - self.first_rows[self.shards[shard].start]
    }

    /// Shard and row of a position of a window. `last` says whether it is the newest of its history.
    pub(super) fn address(
        &self,
        window: usize,
        position: usize,
        last: bool,
    ) -> Result<(usize, u64), CacheError> {
        let count = match self.first_rows.get(window..=window.saturating_add(1)) {
            Some([first, end]) => end - first,
            _ => 0,
        };
        let row = match self.spec.positions {
            Positions::All => Some(position as u64).filter(|row| *row < count),
            Positions::Last => (last && count == 1).then_some(0),
        };
        let Some(row) = row else {
            return Err(CacheError::NotStored {
                expected: format!("position {position} of window {window}"),
                found: match self.spec.positions {
                    Positions::All => format!("{count} positions of it"),
                    Positions::Last => "the last position of each window".to_owned(),
                },
            });
        };
        let shard = self.shards.partition_point(|range| range.end <= window);
        Ok((shard, self.row_in_shard(shard, window) + row))
    }
}

/// Number of stored positions of each window, in order.
pub fn stored_rows(data: &TrainingData, positions: Positions) -> impl Iterator<Item = u64> + '_ {
    (0..data.len()).map(move |window| match positions {
        Positions::All => data.items(window).len().saturating_sub(1) as u64,
        Positions::Last => 1,
    })
}

/// Exact size in bytes of all shards together, from the number of stored positions of each window
/// ([`stored_rows`], or counted elsewhere). The manifest comes on top with about 200 bytes a shard.
#[must_use]
pub fn cache_bytes(
    rows_per_window: impl IntoIterator<Item = u64>,
    shape: &RowShape,
    shard_bytes: u64,
) -> u64 {
    let (first_rows, shards) = lay_out(rows_per_window, shape.bytes(), shard_bytes);
    total_bytes(first_rows.last().copied().unwrap_or(0), shards.len(), shape)
}

fn total_bytes(rows: u64, shards: usize, shape: &RowShape) -> u64 {
    let headers = HEADER_END.saturating_mul(shards as u64);
    headers.saturating_add(rows.saturating_mul(shape.bytes()))
}

/// First row of each window (with the end), and as many windows a shard as fit.
fn lay_out(
    rows_per_window: impl IntoIterator<Item = u64>,
    row_bytes: u64,
    shard_bytes: u64,
) -> (Vec<u64>, Vec<Range<usize>>) {
    let fit = shard_bytes / row_bytes.max(1);
    let mut first_rows = vec![0];
    let mut shards: Vec<Range<usize>> = Vec::new();
    let (mut total, mut held) = (0u64, 0u64);
    for (window, rows) in rows_per_window.into_iter().enumerate() {
        match shards.last_mut() {
            Some(shard) if held.saturating_add(rows) <= fit => {
                shard.end = window + 1;
                held += rows;
            }
            _ => {
                shards.push(window..window + 1);
                held = rows;
            }
        }
        total = total.saturating_add(rows);
        first_rows.push(total);
    }
    (first_rows, shards)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_hold_what_fits_and_every_window_once() {
        let (first, shards) = lay_out([3, 2, 5, 9, 1, 1], 10, 50);
        assert_eq!(first, [0, 3, 5, 10, 19, 20, 21]);
        assert_eq!(
            shards,
            [0..2, 2..3, 3..4, 4..6],
            "a long window has its own"
        );
        assert_eq!(lay_out([], 10, 50), (vec![0], vec![]));
    }

    #[test]
    fn sizes_that_no_disk_has_do_not_wrap() {
        let shape = RowShape {
            layers: usize::MAX,
            hidden_size: usize::MAX,
            item_dim: 8,
            top_k: 0,
        };
        assert_eq!(cache_bytes([7, 9], &shape, 64), u64::MAX);
    }
}
