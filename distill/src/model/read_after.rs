//! A model that is read after an inner layer, as if its layers ended there.

use candle_core::Result;

use super::{HistoryBatch, ItemTable, Mode, ModelOutput, Parameters, SequentialModel};

/// Reads `model` after one of its layers; the layers behind it still run.
pub struct ReadAfter<'a> {
    model: &'a dyn SequentialModel,
    layer: usize,
}

impl<'a> ReadAfter<'a> {
    /// Reads `model` after `layer` (`1..=L`); after the last one it is the model itself.
    #[must_use]
    pub fn new(model: &'a dyn SequentialModel, layer: usize) -> Self {
        Self { model, layer }
    }
}

impl SequentialModel for ReadAfter<'_> {
    fn forward(
        &self,
        batch: &HistoryBatch,
        mode: Mode<'_>,
        state_layers: &[usize],
    ) -> Result<ModelOutput> {
        if let Some(layer) = state_layers.iter().find(|layer| **layer >= self.layer) {
            candle_core::bail!(
                "a state after layer {layer} of a model read after {}",
                self.layer
            );
        }
        let layers: Vec<usize> = state_layers.iter().copied().chain([self.layer]).collect();
        let mut output = self.model.forward(batch, mode, &layers)?;
        let state = output
            .states
            .pop()
            .filter(|_| self.layer < self.model.num_layers());
        if let Some(state) = state {
            let (rows, positions, width) = state.dims3()?;
            let users = self
                .model
                .read_out(&state.reshape((rows * positions, width))?)?;
            let dim = users.dims2()?.1;
            output.user_vectors = users.reshape((rows, positions, dim))?;
        }
        Ok(output)
    }

    fn item_table(&self) -> ItemTable<'_> {
        self.model.item_table()
    }

    fn parameters(&self) -> &Parameters {
        self.model.parameters()
    }

    fn num_layers(&self) -> usize {
        self.layer
    }

    fn max_history(&self) -> usize {
        self.model.max_history()
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};
    use slmrec_core::ItemIndex;
    use slmrec_core::manifest::Readout;

    use super::*;
    use crate::model::{
        CheckpointInfo, LayerSelection, LlmRecommender, StateReadout, write_checkpoint,
    };
    use crate::train::testing::language_model;

    fn users(model: &dyn SequentialModel, layers: &[usize]) -> (Tensor, Vec<Tensor>) {
        let histories = [[3, 1, 4].map(ItemIndex).to_vec(), vec![ItemIndex(2)]];
        let histories: Vec<&[ItemIndex]> = histories.iter().map(Vec::as_slice).collect();
        let batch = HistoryBatch::new(&histories, &Device::Cpu).expect("batch");
        let output = model.forward(&batch, Mode::Eval, layers).expect("forward");
        (output.user_vectors, output.states)
    }

    fn farthest(a: &Tensor, b: &Tensor) -> f32 {
        let difference = (a - b).and_then(|d| d.abs()?.flatten_all()?.max(0)?.to_scalar());
        difference.expect("of one shape")
    }

    /// A model that is read early is the model that ends there, and a checkpoint's readout says the
    /// same without its layers.
    #[test]
    fn reading_early_is_ending_early() {
        let dir = tempfile::tempdir().expect("folder");
        for readout in [Readout::Item, Readout::Response] {
            let deep = language_model(3, 8, 0.0, readout, &Device::Cpu);
            let info = CheckpointInfo {
                role: "teacher".to_owned(),
                vocabulary_sha256: String::new(),
                provenance: serde_json::Value::Null,
            };
            write_checkpoint(&deep, dir.path(), &info).expect("written");
            for layer in [1, 2] {
                let first = LayerSelection::First(layer);
                let settings = deep.settings();
                let short =
                    LlmRecommender::start_from(dir.path(), &first, settings, 0, &Device::Cpu);
                let (expected, _) = users(&short.expect("short"), &[]);
                let (found, states) = users(&ReadAfter::new(&deep, layer), &[]);
                assert!(states.is_empty());
                assert!(farthest(&found, &expected) < 1e-5, "layer {layer}");
                let (_, states) = users(&deep, &[layer]);
                let (rows, positions, width) = states[0].dims3().expect("[B, S, H]");
                let state = states[0].reshape((rows * positions, width)).expect("rows");
                let stored = StateReadout::load(dir.path(), &Device::Cpu).expect("readout");
                let stored = stored.user_vectors(&state).expect("users");
                let stored = stored.reshape(found.shape()).expect("shape");
                assert!(farthest(&stored, &expected) < 1e-5, "layer {layer}");
            }
            let (whole, _) = users(&deep, &[]);
            let (last, _) = users(&ReadAfter::new(&deep, 3), &[]);
            assert_eq!(farthest(&last, &whole), 0.0);
        }
    }
}
