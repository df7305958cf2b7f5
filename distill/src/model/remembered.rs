//! A model that runs every history once, however often it is asked.
//!
//! An evaluation meets the same histories again and again: a model stands alone, with the prior, and
//! as a member of a blend.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use candle_core::{DType, Result, Tensor};

use super::{HistoryBatch, ItemTable, Mode, ModelOutput, Parameters, ReadAt, SequentialModel};

/// Keeps the user vectors after the last item of each history, f32 `[D]`; everything else is passed
/// on. The weights must not change meanwhile.
pub struct Remembered {
    model: Box<dyn SequentialModel + Send>,
    vectors: Mutex<HashMap<Vec<u32>, Vec<f32>>>,
}

impl Remembered {
    /// Remembers nothing yet.
    #[must_use]
    pub fn new(model: impl SequentialModel + Send + 'static) -> Self {
        Self {
            model: Box::new(model),
            vectors: Mutex::default(),
        }
    }

    /// Runs the rows of a batch that are new.
    fn learn(&self, batch: &HistoryBatch, rows: &[Vec<u32>]) -> Result<()> {
        let mut vectors = self.vectors.lock().unwrap_or_else(PoisonError::into_inner);
        let new: Vec<u32> = (0..rows.len())
            .filter(|&row| !vectors.contains_key(&rows[row]))
            .map(|row| row as u32)
            .collect();
        if new.is_empty() {
            return Ok(());
        }
        let places = Tensor::new(new.as_slice(), batch.items.device())?;
        let lengths: Vec<usize> = new.iter().map(|&r| batch.lengths[r as usize]).collect();
        let longest = lengths.iter().copied().max().unwrap_or(0);
        let part = HistoryBatch {
            items: batch
                .items
                .index_select(&places, 0)?
                .narrow(1, 0, longest)?
                .contiguous()?,
            lengths,
            ..batch.clone()
        };
        let users = self.model.forward(&part, Mode::Eval, &[])?.user_vectors;
        let users = users.squeeze(1)?.to_dtype(DType::F32)?.to_vec2()?; // [new, D]
        vectors.extend(new.iter().map(|&row| rows[row as usize].clone()).zip(users));
        Ok(())
    }
}

impl SequentialModel for Remembered {
    fn forward(
        &self,
        batch: &HistoryBatch,
        mode: Mode<'_>,
        state_layers: &[usize],
    ) -> Result<ModelOutput> {
        let once = matches!(mode, Mode::Eval) && state_layers.is_empty();
        if !once || batch.read != ReadAt::LastItem {
            return self.model.forward(batch, mode, state_layers);
        }
        let mut rows: Vec<Vec<u32>> = batch.items.to_vec2()?;
        for (row, &length) in rows.iter_mut().zip(&batch.lengths) {
            row.truncate(length);
        }
        self.learn(batch, &rows)?;
        let vectors = self.vectors.lock().unwrap_or_else(PoisonError::into_inner);
        let known: Vec<f32> = rows.iter().flat_map(|row| &vectors[row]).copied().collect();
        let shape = (rows.len(), 1, known.len() / rows.len().max(1));
        Ok(ModelOutput {
            user_vectors: Tensor::from_vec(known, shape, batch.items.device())?,
            states: Vec::new(),
        })
    }

    fn read_out(&self, state: &Tensor) -> Result<Tensor> {
        self.model.read_out(state)
    }

    fn item_table(&self) -> ItemTable<'_> {
        self.model.item_table()
    }

    fn parameters(&self) -> &Parameters {
        self.model.parameters()
    }

    fn num_layers(&self) -> usize {
        self.model.num_layers()
    }

    fn max_history(&self) -> usize {
        self.model.max_history()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use candle_core::Device;
    use slmrec_core::ItemIndex;

    use super::*;
    use crate::evaluate::{ModelScorer, Scorer};
    use crate::model::{SasRec, SasRecSettings};

    /// Counts the histories that it runs.
    struct Counting(SasRec, Arc<AtomicUsize>);

    impl SequentialModel for Counting {
        fn forward(
            &self,
            batch: &HistoryBatch,
            mode: Mode<'_>,
            state_layers: &[usize],
        ) -> Result<ModelOutput> {
            self.1.fetch_add(batch.size(), Ordering::Relaxed);
            self.0.forward(batch, mode, state_layers)
        }

        fn item_table(&self) -> ItemTable<'_> {
            self.0.item_table()
        }

        fn parameters(&self) -> &Parameters {
            self.0.parameters()
        }

        fn num_layers(&self) -> usize {
            self.0.num_layers()
        }

        fn max_history(&self) -> usize {
            self.0.max_history()
        }
    }

    fn sasrec() -> SasRec {
        let settings = SasRecSettings {
            hidden_size: 8,
            intermediate_size: 8,
            max_history: 4,
            ..SasRecSettings::default()
        };
        SasRec::new(settings, 9, 7, &Device::Cpu).expect("a model")
    }

    #[test]
    fn every_history_is_run_once_and_scores_stay() {
        let runs = Arc::new(AtomicUsize::new(0));
        let remembered = Remembered::new(Counting(sasrec(), Arc::clone(&runs)));
        let histories = [&[1, 2, 3][..], &[4], &[2, 2, 1, 1, 5], &[4]];
        let rows: Vec<Vec<ItemIndex>> = (histories.iter())
            .map(|h| h.iter().copied().map(ItemIndex).collect())
            .collect();
        let borrowed: Vec<&[ItemIndex]> = rows.iter().map(Vec::as_slice).collect();
        let plain = sasrec();
        let mut plain = ModelScorer::new("plain", &plain).expect("fits");
        let expected = plain.scores(&borrowed).expect("runs");
        let mut scorer = ModelScorer::new("remembered", &remembered).expect("fits");
        for part in [&borrowed[..2], &borrowed, &borrowed] {
            let found = scorer.scores(part).expect("runs");
            for (found, expected) in found.iter().flatten().zip(expected.iter().flatten()) {
                assert!((found - expected).abs() < 1e-6, "{found} {expected}");
            }
        }
        assert_eq!(runs.load(Ordering::Relaxed), 3);
    }

    #[test]
    fn other_passes_are_the_models_own() {
        let remembered = Remembered::new(sasrec());
        let batch = HistoryBatch::new(&[&[ItemIndex(1), ItemIndex(2)]], &Device::Cpu).expect("one");
        let every = remembered
            .forward(&batch, Mode::Eval, &[1])
            .expect("a forward pass");
        assert_eq!(every.user_vectors.dims(), [1, 2, 8]);
        assert_eq!(every.states.len(), 1);
    }
}
