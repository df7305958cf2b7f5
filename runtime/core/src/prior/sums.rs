//! Sums over the few items that a history says something about.

use crate::vocabulary::ItemIndex;

/// Sums over a few items of a catalog, in memory that is used again.
#[derive(Clone, Debug, Default)]
pub struct SparseSums {
    /// By item row; 0 where nothing was added.
    values: Vec<f32>,
    touched: Vec<ItemIndex>,
}

impl SparseSums {
    pub(super) fn clear(&mut self, items: usize) {
        for item in self.touched.drain(..) {
            self.values[item.row()] = 0.0;
        }
        self.values.resize(items + 1, 0.0);
    }

    pub(super) fn add(&mut self, item: ItemIndex, value: f32) {
        let sum = &mut self.values[item.row()];
        if *sum == 0.0 && value > 0.0 {
            self.touched.push(item);
        }
        *sum += value;
    }

    /// Number of items N of the catalog that was summed over last.
    #[must_use]
    pub fn num_items(&self) -> usize {
        self.values.len().saturating_sub(1)
    }

    /// The sum of an item; 0 outside the catalog.
    #[must_use]
    pub fn get(&self, item: ItemIndex) -> f32 {
        self.values.get(item.row()).copied().unwrap_or_default()
    }

    /// The items that have a sum, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = (ItemIndex, f32)> {
        self.touched.iter().map(|&item| (item, self.get(item)))
    }
}
