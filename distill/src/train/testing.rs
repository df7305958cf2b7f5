//! Small models that the tests of training share.

use candle_core::{Device, Result, Tensor};

use crate::model::{
    HistoryBatch, Mode, ModelOutput, Parameters, ReadAt, SasRec, SasRecSettings, SequentialModel,
};

/// Items of the tests' catalog.
pub(crate) const ITEMS: usize = 9;

/// A SASRec over [`ITEMS`] items and histories of at most 5, always the same.
pub(crate) fn sasrec(num_hidden_layers: usize, hidden_size: usize, dropout: f64) -> SasRec {
    let settings = SasRecSettings {
        hidden_size,
        num_hidden_layers,
        num_attention_heads: 2,
        intermediate_size: 8,
        max_history: 5,
        dropout,
    };
    SasRec::new(settings, ITEMS, 3, &Device::Cpu).expect("model")
}

/// One vector a history whatever is asked for, as the `response` readout has it.
pub(crate) struct Response<'a>(pub(super) &'a SasRec);

impl SequentialModel for Response<'_> {
    fn forward(
        &self,
        batch: &HistoryBatch,
        mode: Mode<'_>,
        state_layers: &[usize],
    ) -> Result<ModelOutput> {
        let last = batch.clone().reading(ReadAt::LastItem);
        self.0.forward(&last, mode, state_layers)
    }

    fn item_embeddings(&self) -> Tensor {
        self.0.item_embeddings()
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
