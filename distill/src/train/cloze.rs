//! BERT4Rec's objective: some items of a sequence are masked, and the model says what stood there.

use slmrec_core::ItemIndex;

use super::losses::sampled::Candidates;
use super::objective::Losses;
use super::settings::check;
use super::{Objective, TrainError, TrainingBatch};
use crate::model::{HistoryBatch, MaskRng, Mode, Parameters, SequentialModel};

/// Cross-entropy over the catalog at masked items. Each sequence is a window with its last target; in
/// some of them only that last item is masked, which is what ranking asks for.
#[derive(Debug)]
pub struct Cloze {
    mask_row: u32,
    masked: f64,
    last_only: f64,
    none: Parameters,
}

impl Cloze {
    /// Masks with `mask_row` a share `masked` of the items, or, in a share `last_only` of the
    /// sequences, the last item alone.
    ///
    /// # Errors
    /// [`TrainError::Setting`] for shares outside their range.
    pub fn new(mask_row: u32, masked: f64, last_only: f64) -> Result<Self, TrainError> {
        let share = "above 0 and at most 1";
        check("masked", masked > 0.0 && masked <= 1.0, share, masked)?;
        let share = "from 0 to 1";
        check(
            "last_only",
            (0.0..=1.0).contains(&last_only),
            share,
            last_only,
        )?;
        Ok(Self {
            mask_row,
            masked,
            last_only,
            none: Parameters::default(),
        })
    }

    /// Masks a sequence in place; gives the masked places and what stood there.
    fn mask(&self, sequence: &mut [ItemIndex], rng: &mut MaskRng) -> Vec<(usize, u32)> {
        let last = sequence.len() - 1;
        let mut places: Vec<usize> = if rng.uniform() < self.last_only {
            vec![last]
        } else {
            (0..=last).filter(|_| rng.uniform() < self.masked).collect()
        };
        if places.is_empty() {
            places.push((rng.uniform() * sequence.len() as f64) as usize);
        }
        let mask = |place: usize| {
            let item = std::mem::replace(&mut sequence[place], ItemIndex(self.mask_row));
            (place, item.0)
        };
        places.into_iter().map(mask).collect()
    }
}

impl Objective for Cloze {
    fn loss(
        &self,
        model: &dyn SequentialModel,
        batch: &TrainingBatch,
        rng: &mut MaskRng,
    ) -> Result<Losses, TrainError> {
        let mut sequences = sequences(batch, model.max_history() + 1)?;
        let longest = sequences.iter().map(Vec::len).max().unwrap_or(0);
        let (mut positions, mut targets) = (Vec::new(), Vec::new());
        for (row, sequence) in sequences.iter_mut().enumerate() {
            for (place, item) in self.mask(sequence, rng) {
                positions.push((row * longest + place) as u32);
                targets.push(item);
            }
        }
        let rows: Vec<&[ItemIndex]> = sequences.iter().map(Vec::as_slice).collect();
        let device = batch.histories.items.device();
        let mut masked = HistoryBatch::new(&rows, device)?;
        masked.lookups.clone_from(&batch.histories.lookups);
        let output = model.forward(&masked, Mode::Train(rng), &[])?;
        let users = output.user_vectors.flatten(0, 1)?;
        let places = candle_core::Tensor::new(positions, device)?;
        let users = users.index_select(&places, 0)?;
        let candidates = Candidates::of_step(batch, rng);
        let items = model.item_table().with(batch.lookups());
        let loss = candidates.cross_entropy(&users, items, &targets, None)?;
        let loss = batch.share.of_last(loss)?;
        Losses::weighted(&[("cloze", 1.0, loss)])
    }

    fn parameters(&self) -> &Parameters {
        &self.none
    }

    fn describe(&self) -> serde_json::Value {
        serde_json::json!({
            "objective": "cloze",
            "masked": self.masked,
            "last_only": self.last_only,
        })
    }
}

/// The windows of a batch with their last targets, the newest `longest` items of each.
fn sequences(batch: &TrainingBatch, longest: usize) -> Result<Vec<Vec<ItemIndex>>, TrainError> {
    let items: Vec<Vec<u32>> = batch.histories.items.to_vec2()?;
    let (_, width) = batch.histories.items.dims2()?;
    let (positions, targets) = batch.last_examples();
    let sequence = |(position, target): (u32, u32)| {
        let (row, last) = (position as usize / width, position as usize % width);
        let mut sequence: Vec<ItemIndex> =
            items[row][..=last].iter().copied().map(ItemIndex).collect();
        sequence.push(ItemIndex(target));
        sequence.split_off(sequence.len().saturating_sub(longest))
    };
    Ok(positions.into_iter().zip(targets).map(sequence).collect())
}
