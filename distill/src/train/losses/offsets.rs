//! Known additions to some of the scores, row by row: the offset of a generalised linear model. They
//! get no gradient, so a model that is trained under them learns what they do not say.

use std::ops::Range;

use candle_core::{DType, Device, Result, Tensor};

/// Takes an item out of a softmax. Finite, so that the difference of two such scores is a number.
pub const MASKED: f32 = -1e9;

/// A sparse matrix `[R, N]` over the items `1..=N`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Offsets {
    /// Where each row begins; the last entry is the number of values.
    starts: Vec<usize>,
    /// Ascending within a row.
    items: Vec<u32>,
    values: Vec<f32>,
}

impl Offsets {
    /// Rows of `(item, value)`, each with ascending items.
    #[must_use]
    pub fn from_rows(rows: impl IntoIterator<Item = Vec<(u32, f32)>>) -> Self {
        let mut offsets = Self {
            starts: vec![0],
            ..Self::default()
        };
        for row in rows {
            debug_assert!(row.is_sorted_by(|a, b| a.0 < b.0));
            offsets.items.extend(row.iter().map(|(item, _)| *item));
            offsets.values.extend(row.iter().map(|(_, value)| *value));
            offsets.starts.push(offsets.items.len());
        }
        offsets
    }

    /// Number of rows R.
    #[must_use]
    pub fn num_rows(&self) -> usize {
        self.starts.len().saturating_sub(1)
    }

    /// The same places with other values.
    #[must_use]
    pub fn map(&self, value: impl Fn(f32) -> f32) -> Self {
        Self {
            values: self.values.iter().map(|v| value(*v)).collect(),
            ..self.clone()
        }
    }

    /// The values of both, those of `over` where both have one. As many rows as `over` has.
    #[must_use]
    pub fn overlaid(&self, over: &Self) -> Self {
        Self::from_rows((0..over.num_rows()).map(|row| {
            let all = 0..u32::MAX;
            let mut merged: Vec<(u32, f32)> = over.within(row, all.clone()).collect();
            let added = merged.len();
            let others = self.within(row, all);
            merged.extend(others.filter(|(item, _)| over.row(row).0.binary_search(item).is_err()));
            if added > 0 {
                merged.sort_unstable_by_key(|(item, _)| *item);
            }
            merged
        }))
    }

    /// What is added to an item's score; 0 where nothing is.
    #[must_use]
    pub fn get(&self, row: usize, item: u32) -> f32 {
        let (items, values) = self.row(row);
        items.binary_search(&item).map_or(0.0, |at| values[at])
    }

    /// The additions of a row to a range of items.
    pub fn within(&self, row: usize, range: Range<u32>) -> impl Iterator<Item = (u32, f32)> {
        let (items, values) = self.row(row);
        let from = items.partition_point(|item| *item < range.start);
        let to = items.partition_point(|item| *item < range.end);
        (items[from..to].iter().copied()).zip(values[from..to].iter().copied())
    }

    /// Some rows with all their zeros, `[rows, N]`; column 0 is item 1.
    ///
    /// # Errors
    /// Only what candle reports for making tensors.
    pub fn dense(
        &self,
        rows: Range<usize>,
        num_items: usize,
        dtype: DType,
        device: &Device,
    ) -> Result<Tensor> {
        let count = rows.len();
        let mut values = vec![0f32; count * num_items];
        for (row, values) in rows.zip(values.chunks_exact_mut(num_items)) {
            for (item, value) in self.within(row, 1..num_items as u32 + 1) {
                values[item as usize - 1] = value;
            }
        }
        Tensor::from_vec(values, (count, num_items), device)?.to_dtype(dtype)
    }

    fn row(&self, row: usize) -> (&[u32], &[f32]) {
        let range = self.starts[row]..self.starts[row + 1];
        (&self.items[range.clone()], &self.values[range])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_found_again() {
        let rows = [vec![(1, 0.5), (3, -1.0)], vec![], vec![(2, 2.0)]];
        let offsets = Offsets::from_rows(rows);
        assert_eq!(offsets.num_rows(), 3);
        assert_eq!((offsets.get(0, 3), offsets.get(0, 2)), (-1.0, 0.0));
        let within: Vec<_> = offsets.within(0, 2..4).collect();
        assert_eq!(within, [(3, -1.0)]);
        let dense = offsets.dense(0..3, 3, DType::F32, &Device::Cpu);
        let dense: Vec<Vec<f32>> = dense.expect("dense").to_vec2().expect("rows");
        assert_eq!(
            dense,
            [[0.5, 0.0, -1.0], [0.0, 0.0, 0.0], [0.0, 2.0, 0.0]].map(Vec::from)
        );
        assert_eq!(offsets.map(|v| v * 2.0).get(2, 2), 4.0);
        let over = Offsets::from_rows([vec![(2, 9.0), (3, 9.0)], vec![], vec![]]);
        let both = offsets.overlaid(&over);
        let rows: Vec<Vec<_>> = (0..3).map(|row| both.within(row, 1..4).collect()).collect();
        assert_eq!(
            rows,
            [vec![(1, 0.5), (2, 9.0), (3, 9.0)], vec![], vec![(2, 2.0)]]
        );
    }
}
