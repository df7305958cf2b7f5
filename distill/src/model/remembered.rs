//! A model that runs every history once, however often it is asked.
//!
//! An evaluation meets the same histories again and again: a model stands alone, with the prior, and
//! as a member of a blend.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{DType, Result, Tensor};

use super::{HistoryBatch, ItemTable, Mode, ModelOutput, Parameters, ReadAt, SequentialModel};

/// Most numbers that are kept, 256 MiB; histories beyond them are run each time.
const MOST_KEPT: usize = 1 << 26;

/// Keeps the user vectors after the last item of each history, f32 `[D]`; everything else is passed
/// on. The weights must not change meanwhile. Clones are the same model and share what is kept.
#[derive(Clone)]
pub struct Remembered {
    model: Arc<dyn SequentialModel + Send>,
    kept: Arc<Mutex<Kept>>,
    most: usize,
}

/// User vectors by the items of their histories.
#[derive(Default)]
struct Kept {
    vectors: HashMap<Vec<u32>, Vec<f32>>,
    /// Items and values together.
    numbers: usize,
}

impl Kept {
    /// Keeps a vector unless there are too many numbers then.
    fn add(&mut self, items: &[u32], vector: &[f32], most: usize) {
        let numbers = items.len() + vector.len();
        if self.numbers + numbers <= most {
            self.numbers += numbers;
            self.vectors.insert(items.to_vec(), vector.to_vec());
        }
    }
}

impl Remembered {
    /// Remembers nothing yet.
    #[must_use]
    pub fn new(model: impl SequentialModel + Send + 'static) -> Self {
        Self {
            model: Arc::new(model),
            kept: Arc::default(),
            most: MOST_KEPT,
        }
    }

    /// The vector of each row of a batch; only rows that are new are run.
    fn vectors(&self, batch: &HistoryBatch) -> Result<Vec<Vec<f32>>> {
        let mut rows: Vec<Vec<u32>> = batch.items.to_vec2()?;
        for (row, &length) in rows.iter_mut().zip(&batch.lengths) {
            row.truncate(length);
        }
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let known = rows.iter().map(|row| kept.vectors.get(row).cloned());
        let known: Vec<Option<Vec<f32>>> = known.collect();
        let new = (0..rows.len() as u32).filter(|row| known[*row as usize].is_none());
        let new: Vec<u32> = new.collect();
        let mut found = self.run(batch, &new)?.into_iter();
        let vectors = known.into_iter().zip(&rows).map(|(known, row)| {
            known.or_else(|| {
                let vector = found.next()?;
                kept.add(row, &vector, self.most);
                Some(vector)
            })
        });
        match vectors.collect() {
            Some(vectors) => Ok(vectors),
            None => candle_core::bail!("a model gave too few user vectors"),
        }
    }

    /// Runs some rows of a batch, `[rows][D]`.
    fn run(&self, batch: &HistoryBatch, new: &[u32]) -> Result<Vec<Vec<f32>>> {
        if new.is_empty() {
            return Ok(Vec::new());
        }
        let places = Tensor::new(new, batch.items.device())?;
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
        users.squeeze(1)?.to_dtype(DType::F32)?.to_vec2() // [new, D]
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
        let vectors = self.vectors(batch)?.concat();
        let shape = (batch.size(), 1, vectors.len() / batch.size().max(1));
        Ok(ModelOutput {
            user_vectors: Tensor::from_vec(vectors, shape, batch.items.device())?,
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

        // Room for one history of one item and its vector: the other two are run each time.
        let mut forgetful = Remembered::new(Counting(sasrec(), Arc::clone(&runs)));
        forgetful.most = 9;
        let mut scorer = ModelScorer::new("forgetful", &forgetful).expect("fits");
        for _ in 0..2 {
            let found = scorer.scores(&borrowed[..3]).expect("runs");
            for (found, expected) in found.iter().flatten().zip(expected.iter().flatten()) {
                assert!((found - expected).abs() < 1e-6, "{found} {expected}");
            }
        }
        assert_eq!(runs.load(Ordering::Relaxed), 3 + 3 + 2);
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
