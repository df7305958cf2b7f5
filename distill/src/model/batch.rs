//! Histories as one right-padded tensor.
//!
//! Padding stands on the right, so under a causal mask no real position ever sees it, positions
//! count real tokens only, and a padded row equals the unpadded run.

use std::sync::Arc;

use candle_core::{Device, Result, Tensor};
use slmrec_core::ItemIndex;

use super::dropout::MaskRng;
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

    /// The same histories with some items hidden, each with the chance `share`: they become padding in
    /// their places.
    ///
    /// # Errors
    /// Only what candle reports.
    pub fn hiding(&self, share: f64, rng: &mut MaskRng) -> Result<Self> {
        let (b, s) = self.items.dims2()?;
        let mut items: Vec<u32> = self.items.flatten_all()?.to_vec1()?;
        for (row, &length) in items.chunks_exact_mut(s.max(1)).zip(&self.lengths) {
            for item in &mut row[..length] {
                if rng.uniform() < share {
                    *item = ItemIndex::PADDING.0;
                }
            }
        }
        Ok(Self {
            items: Tensor::from_vec(items, (b, s), self.items.device())?,
            ..self.clone()
        })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_items_are_padding_in_their_places() {
        let histories: Vec<Vec<ItemIndex>> = (0..40u32)
            .map(|row| (1..=row % 9 + 1).map(ItemIndex).collect())
            .collect();
        let rows: Vec<&[ItemIndex]> = histories.iter().map(Vec::as_slice).collect();
        let batch = HistoryBatch::new(&rows, &Device::Cpu).expect("batch");
        let hiding = |share: f64| {
            let hidden = batch.hiding(share, &mut MaskRng::new(1, 2)).expect("batch");
            assert_eq!(hidden.lengths, batch.lengths);
            hidden.items.to_vec2::<u32>().expect("items")
        };
        let items: Vec<Vec<u32>> = batch.items.to_vec2().expect("items");
        assert_eq!(hiding(0.0), items);
        let hidden = hiding(0.3);
        assert_eq!(hidden, hiding(0.3), "the same stream, the same items");
        let pairs = hidden.iter().flatten().zip(items.iter().flatten());
        let real: Vec<_> = pairs.filter(|(_, item)| **item > 0).collect();
        assert!(real.iter().all(|(h, item)| **h == 0 || h == item));
        let share = real.iter().filter(|(h, _)| **h == 0).count() as f64 / real.len() as f64;
        assert!((0.2..0.4).contains(&share), "{share}");
    }
}
