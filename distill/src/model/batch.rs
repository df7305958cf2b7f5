//! Histories as one right-padded tensor.
//!
//! Padding stands on the right, so under a causal mask no real position ever sees it, positions
//! count real tokens only, and a padded row equals the unpadded run.

use std::sync::Arc;

use candle_core::{Device, Result, Tensor};
use slmrec_core::ItemIndex;

use super::item_lookups::ItemLookups;

/// At which items of a history its user vector is read (`item` readout, SASRec).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReadAt {
    /// At every item.
    #[default]
    EveryItem,
    /// At the last item only, which saves the work that only the others need.
    LastItem,
}

/// Histories `[B, S]`, padded on the right with row 0, and their true lengths.
#[derive(Clone, Debug)]
pub struct HistoryBatch {
    /// Item rows, u32 `[B, S]`, S the longest history of the batch.
    pub items: Tensor,
    /// True lengths, each in `1..=S`.
    pub lengths: Vec<usize>,
    /// Where user vectors are read.
    pub read: ReadAt,
    /// Takes the gradient of the rows of the item table that a training step reads; `None` for one
    /// dense gradient.
    pub lookups: Option<Arc<ItemLookups>>,
}

impl HistoryBatch {
    /// Pads histories to the longest of them.
    ///
    /// # Errors
    /// An empty batch or an empty history.
    pub fn new(histories: &[&[ItemIndex]], device: &Device) -> Result<Self> {
        let lengths: Vec<usize> = histories.iter().map(|h| h.len()).collect();
        let longest = lengths.iter().copied().max().unwrap_or(0);
        if lengths.contains(&0) || longest == 0 {
            candle_core::bail!("a batch needs at least one history, and each at least one item");
        }
        let mut rows = vec![ItemIndex::PADDING.0; histories.len() * longest];
        for (row, history) in rows.chunks_exact_mut(longest).zip(histories) {
            for (cell, item) in row.iter_mut().zip(*history) {
                *cell = item.0;
            }
        }
        let items = Tensor::from_vec(rows, (histories.len(), longest), device)?;
        Ok(Self {
            items,
            lengths,
            read: ReadAt::EveryItem,
            lookups: None,
        })
    }

    /// The same histories, read elsewhere.
    #[must_use]
    pub fn reading(mut self, read: ReadAt) -> Self {
        self.read = read;
        self
    }

    /// Number of histories B.
    #[must_use]
    pub fn size(&self) -> usize {
        self.lengths.len()
    }

    /// The real items, row after row without padding, u32 `[tokens]`.
    ///
    /// # Errors
    /// Only what candle reports.
    pub fn packed_items(&self) -> Result<Tensor> {
        let (_, s) = self.items.dims2()?;
        let flat = self.items.flatten_all()?;
        if !self.is_padded(s) {
            return Ok(flat);
        }
        let places: Vec<u32> = (self.lengths.iter().enumerate())
            .flat_map(|(row, len)| (row * s..row * s + len).map(|i| i as u32))
            .collect();
        let count = places.len();
        flat.index_select(&Tensor::from_vec(places, count, flat.device())?, 0)
    }

    /// Values of packed tokens `[tokens, W]` at their places `[B, S, W]`; at padded places the values
    /// mean nothing.
    ///
    /// # Errors
    /// Values of other tokens than those of [`Self::packed_items`].
    pub fn unpack(&self, x: &Tensor) -> Result<Tensor> {
        let (b, s) = self.items.dims2()?;
        let (_, width) = x.dims2()?;
        if !self.is_padded(s) {
            return x.reshape((b, s, width));
        }
        let mut places = Vec::with_capacity(b * s);
        let mut start = 0;
        for len in &self.lengths {
            places.extend((0..s).map(|t| (start + t.min(len - 1)) as u32));
            start += len;
        }
        let places = Tensor::from_vec(places, b * s, x.device())?;
        x.index_select(&places, 0)?.reshape((b, s, width))
    }

    fn is_padded(&self, longest: usize) -> bool {
        self.lengths.iter().any(|len| *len != longest)
    }

    /// Flat indices into `[B * S]` of each history's last real position, u32 `[B]`.
    ///
    /// # Errors
    /// Only what candle reports for making a tensor.
    pub fn last_positions(&self) -> Result<Tensor> {
        let (_, s) = self.items.dims2()?;
        let flat: Vec<u32> = (self.lengths.iter().enumerate())
            .map(|(row, len)| (row * s + len - 1) as u32)
            .collect();
        Tensor::from_vec(flat, self.size(), self.items.device())
    }
}
