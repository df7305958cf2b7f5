//! A model as a scorer: user vector times item embeddings.

use candle_core::{DType, Device, Result, Tensor};
use slmrec_core::ItemIndex;
use slmrec_core::history::newest;

use super::{EvaluateError, Scorer};
use crate::model::{HistoryBatch, Mode, ReadAt, SequentialModel};

/// Histories of one forward pass.
const BATCH: usize = 64;

/// Runs a model on the newest `max_history` items of each history.
pub struct ModelScorer<'a> {
    name: String,
    model: &'a dyn SequentialModel,
    /// Item embeddings without the padding row, f32 `[D, N]`.
    catalog: Tensor,
}

impl<'a> ModelScorer<'a> {
    /// Scores by the model's item embeddings: make a new scorer after a training step.
    ///
    /// # Errors
    /// Embeddings that are not `[N + 1, D]`.
    pub fn new(
        name: impl Into<String>,
        model: &'a dyn SequentialModel,
    ) -> std::result::Result<Self, EvaluateError> {
        let name = name.into();
        match catalog_of(model) {
            Ok(catalog) => Ok(Self {
                name,
                model,
                catalog,
            }),
            Err(source) => Err(EvaluateError::Model {
                system: name,
                source,
            }),
        }
    }

    /// Scores `[B][N]` of histories of about one length.
    fn score_batch(&self, histories: &[&[ItemIndex]]) -> Result<Vec<Vec<f32>>> {
        let users = batch_vectors(self.model, histories, self.catalog.device())?;
        users.matmul(&self.catalog)?.to_vec2()
    }

    fn score_all(&self, histories: &[&[ItemIndex]]) -> Result<Vec<Vec<f32>>> {
        by_length(self.model, histories, |batch| self.score_batch(batch))
    }
}

/// User vectors of histories (oldest first, not empty), f32 `[H][D]`.
///
/// # Errors
/// What running the model gives.
pub(crate) fn user_vectors(
    model: &dyn SequentialModel,
    histories: &[&[ItemIndex]],
) -> Result<Vec<Vec<f32>>> {
    let device = model.item_table().weight.device().clone();
    by_length(model, histories, |batch| {
        batch_vectors(model, batch, &device)?.to_vec2()
    })
}

/// One row for each history from `run`, which gets the newest items of histories of about one length,
/// so that little of a batch is padding.
fn by_length(
    model: &dyn SequentialModel,
    histories: &[&[ItemIndex]],
    run: impl Fn(&[&[ItemIndex]]) -> Result<Vec<Vec<f32>>>,
) -> Result<Vec<Vec<f32>>> {
    let max_history = model.max_history();
    let kept: Vec<&[ItemIndex]> = histories.iter().map(|h| newest(h, max_history)).collect();
    let mut by_length: Vec<usize> = (0..kept.len()).collect();
    by_length.sort_by_key(|&i| kept[i].len());
    let mut rows = vec![Vec::new(); kept.len()];
    for places in by_length.chunks(BATCH) {
        let batch: Vec<&[ItemIndex]> = places.iter().map(|&i| kept[i]).collect();
        for (&place, row) in places.iter().zip(run(&batch)?) {
            rows[place] = row;
        }
    }
    Ok(rows)
}

/// User vectors of a batch, f32 `[B, D]`.
fn batch_vectors(
    model: &dyn SequentialModel,
    histories: &[&[ItemIndex]],
    device: &Device,
) -> Result<Tensor> {
    let batch = HistoryBatch::new(histories, device)?.reading(ReadAt::LastItem);
    let vectors = model.forward(&batch, Mode::Eval, &[])?.user_vectors;
    let (b, s, d) = vectors.dims3()?;
    // A model may still give every position.
    let users = if s == 1 {
        vectors.reshape((b, d))?
    } else {
        let flat = vectors.reshape((b * s, d))?; // [B * S, D]
        flat.index_select(&batch.last_positions()?, 0)?
    };
    users.detach().to_dtype(DType::F32)?.contiguous()
}

impl Scorer for ModelScorer<'_> {
    fn name(&self) -> &str {
        &self.name
    }

    fn scores(
        &mut self,
        histories: &[&[ItemIndex]],
    ) -> std::result::Result<Vec<Vec<f32>>, EvaluateError> {
        self.score_all(histories)
            .map_err(|source| EvaluateError::Model {
                system: self.name.clone(),
                source,
            })
    }
}

fn catalog_of(model: &dyn SequentialModel) -> Result<Tensor> {
    let embeddings = model.item_embeddings()?.detach(); // [N + 1, D]
    let (rows, _) = embeddings.dims2()?;
    embeddings
        .narrow(0, 1, rows.saturating_sub(1))?
        .to_dtype(DType::F32)?
        .t() // no copy: a large table need not be in memory twice
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::testing::dataset;
    use crate::evaluate::validation_ndcg;
    use crate::model::{ItemTable, ModelOutput, Parameters};
    use slmrec_core::dataset::Split;
    use slmrec_core::evaluation::Protocol;

    /// The user vector at a position is the embedding of the item there, so the best score is the
    /// item itself; padded positions are filled with NaN.
    struct Echo {
        parameters: Parameters,
        /// Row 0 must never be read as an item.
        items: Tensor,
        response: bool,
        max_history: usize,
    }

    fn echo(response: bool, max_history: usize) -> Echo {
        let mut rows = vec![9.0f32; 4];
        rows.extend((0..16).map(|i| if i % 5 == 0 { 1.0 } else { 0.0 }));
        Echo {
            parameters: Parameters::default(),
            items: Tensor::from_vec(rows, (5, 4), &Device::Cpu).expect("5 x 4"),
            response,
            max_history,
        }
    }

    impl SequentialModel for Echo {
        fn forward(&self, batch: &HistoryBatch, _: Mode<'_>, _: &[usize]) -> Result<ModelOutput> {
            let (b, s) = batch.items.dims2()?;
            let rows: Vec<Vec<u32>> = batch.items.to_vec2()?;
            let mut values = vec![f32::NAN; b * s * 4];
            for (row, &length) in batch.lengths.iter().enumerate() {
                for at in 0..length {
                    let start = (row * s + at) * 4;
                    values[start..start + 4].fill(0.0);
                    values[start + rows[row][at] as usize - 1] = 1.0;
                }
            }
            let vectors = Tensor::from_vec(values, (b, s, 4), &Device::Cpu)?;
            let user_vectors = if self.response {
                let last = batch.last_positions()?;
                let flat = vectors.reshape((b * s, 4))?;
                flat.index_select(&last, 0)?.unsqueeze(1)?
            } else {
                vectors
            };
            Ok(ModelOutput {
                user_vectors,
                states: Vec::new(),
            })
        }

        fn item_table(&self) -> ItemTable<'_> {
            (&self.items).into()
        }

        fn parameters(&self) -> &Parameters {
            &self.parameters
        }

        fn num_layers(&self) -> usize {
            1
        }

        fn max_history(&self) -> usize {
            self.max_history
        }
    }

    #[test]
    fn reads_the_last_real_position_of_every_history() {
        let histories = [&[1, 2, 3][..], &[4], &[2, 2, 1, 1]];
        let rows: Vec<Vec<ItemIndex>> = histories
            .iter()
            .map(|h| h.iter().copied().map(ItemIndex).collect())
            .collect();
        let borrowed: Vec<&[ItemIndex]> = rows.iter().map(Vec::as_slice).collect();
        let one_hot = |item: usize| -> Vec<f32> {
            (1..=4).map(|i| if i == item { 1.0 } else { 0.0 }).collect()
        };
        for response in [false, true] {
            for max_history in [1, 2, 50] {
                let model = echo(response, max_history);
                let mut scorer = ModelScorer::new("echo", &model).expect("fits");
                let scores = scorer.scores(&borrowed).expect("runs");
                assert_eq!(scores, [one_hot(3), one_hot(4), one_hot(1)]);
                let alone = scorer.scores(&borrowed[2..]).expect("runs");
                assert_eq!(alone, [one_hot(1)]);
            }
        }
    }

    #[test]
    fn an_empty_history_is_an_error_that_names_the_model() {
        let model = echo(false, 5);
        let mut scorer = ModelScorer::new("echo", &model).expect("fits");
        let error = scorer.scores(&[&[]]).expect_err("refused");
        assert!(error.to_string().starts_with("echo: "), "{error}");
    }

    #[test]
    fn validation_is_ndcg_10_with_seen_items_removed() {
        // Validation targets 2 (a repeat of the last training item: rank 1) and 4 (after 1 is
        // removed it ties with 2 and 3: rank 3). The last user has no target.
        let data = dataset(4, &[&[1, 2, 2, 3], &[1, 4, 2], &[1, 2]]);
        let model = echo(false, 5);
        let expected = [1.0, 1.0 / 4f64.log2()];
        let both = validation_ndcg(&model, &data, None).expect("evaluates");
        assert!((both - (expected[0] + expected[1]) / 2.0).abs() < 1e-12);
        let one = validation_ndcg(&model, &data, Some(&[1, 2])).expect("evaluates");
        assert!((one - expected[1]).abs() < 1e-12);
        assert!(validation_ndcg(&model, &data, Some(&[3])).is_err());
        assert!(validation_ndcg(&model, &data, Some(&[2])).is_err());
        // The trainer's figure is the evaluation's.
        let mut scorer = ModelScorer::new("echo", &model).expect("fits");
        let split = Split::Validation;
        let whole = crate::evaluate::evaluate(
            &mut scorer,
            &data,
            split,
            Protocol::default(),
            &mut |_, _| (),
        )
        .expect("evaluates");
        let mean = whole.metrics.seen_removed.ndcg_10.mean;
        assert!((mean - both).abs() < 1e-12);
    }
}
