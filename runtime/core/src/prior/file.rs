//! A prior as bytes: safetensors with `occurrences` f32 `[N + 1]`, `lengths` u32 `[N + 1]` (pairs of
//! each item), `gaps` u32 `[pairs]` (a neighbour's row less the one before it in the same row, which
//! compresses well) and `counts` f16 `[pairs]`. The settings stand in the manifest.

use half::f16;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use super::{PriorError, PriorSettings, TransitionPrior, wrong};

/// Largest count that a file holds, which is f16's.
const MAX_COUNT: f32 = 65504.0;
/// Smallest count that a file holds: smaller ones are rounded up to it, none becomes 0.
const MIN_COUNT: f32 = 6.104e-5;

impl TransitionPrior {
    /// The prior as a file holds it: counts rounded to f16. Reading gives the same weights.
    #[must_use]
    pub fn rounded(&self) -> Self {
        let mut prior = self.clone();
        for count in &mut prior.counts {
            *count = f16::from_f32(count.clamp(MIN_COUNT, MAX_COUNT)).to_f32();
        }
        prior.weigh();
        prior
    }

    /// The file's bytes.
    ///
    /// # Errors
    /// Only what the format reports for plain arrays, which is nothing.
    pub fn to_bytes(&self) -> Result<Vec<u8>, PriorError> {
        let lengths = self.offsets.windows(2).map(|w| (w[1] - w[0]) as u32);
        let gaps = self.offsets.windows(2).flat_map(|w| {
            let mut before = 0;
            self.neighbours[w[0]..w[1]].iter().map(move |item| {
                let gap = item - before;
                before = *item;
                gap
            })
        });
        let counts = self.counts.iter().map(|c| c.clamp(MIN_COUNT, MAX_COUNT));
        let occurrences: Vec<u8> = bytes(self.occurrences.iter().map(|v| v.to_le_bytes()));
        let lengths: Vec<u8> = bytes(lengths.map(u32::to_le_bytes));
        let gaps: Vec<u8> = bytes(gaps.map(u32::to_le_bytes));
        let counts: Vec<u8> = bytes(counts.map(|c| f16::from_f32(c).to_le_bytes()));
        let (rows, pairs) = (self.occurrences.len(), self.counts.len());
        let failed = |e| wrong("the prior's file", "arrays", e);
        let tensors = [
            ("occurrences", Dtype::F32, rows, &occurrences),
            ("lengths", Dtype::U32, rows, &lengths),
            ("gaps", Dtype::U32, pairs, &gaps),
            ("counts", Dtype::F16, pairs, &counts),
        ]
        .into_iter()
        .map(|(name, dtype, len, bytes)| Ok((name, TensorView::new(dtype, vec![len], bytes)?)))
        .collect::<Result<Vec<_>, _>>()
        .map_err(failed)?;
        safetensors::serialize(tensors, None).map_err(failed)
    }

    /// Reads a file of a prior over `items` items.
    ///
    /// # Errors
    /// Anything that [`Self::to_bytes`] would not have written.
    pub fn from_bytes(
        bytes: &[u8],
        settings: PriorSettings,
        items: usize,
    ) -> Result<Self, PriorError> {
        let file = SafeTensors::deserialize(bytes)
            .map_err(|e| wrong("the prior's file", "safetensors", e))?;
        let tensor = |name: &str, dtype: Dtype| {
            let what = format!("the prior's {name}");
            let expected = format!("one axis of {dtype:?}");
            match file.tensor(name) {
                Ok(view) if view.dtype() == dtype && view.shape().len() == 1 => Ok(view.data()),
                Ok(view) => {
                    let found = format!("{:?} {:?}", view.dtype(), view.shape());
                    Err(wrong(&what, expected, found))
                }
                Err(e) => Err(wrong(&what, expected, e)),
            }
        };
        let u32s = |name| Ok(words(tensor(name, Dtype::U32)?).map(u32::from_le_bytes));
        let occurrences: Vec<f32> = words(tensor("occurrences", Dtype::F32)?)
            .map(f32::from_le_bytes)
            .collect();
        if occurrences.len() != items + 1 {
            let found = occurrences.len();
            return Err(wrong("the prior's occurrences", items + 1, found));
        }
        let mut offsets = vec![0usize];
        for length in u32s("lengths")? {
            offsets.push(offsets[offsets.len() - 1].saturating_add(length as usize));
        }
        let gaps: Vec<u32> = u32s("gaps")?.collect();
        let counts: Vec<f32> = (tensor("counts", Dtype::F16)?.as_chunks().0.iter())
            .map(|b| f16::from_le_bytes(*b).to_f32())
            .collect();
        let pairs = offsets[offsets.len() - 1];
        if pairs != gaps.len() || pairs != counts.len() {
            let found = format!("{} and {}", gaps.len(), counts.len());
            return Err(wrong("the prior's gaps and counts", pairs, found));
        }
        let neighbours = sum_gaps(&offsets, &gaps)?;
        Self::from_parts(settings, occurrences, offsets, neighbours, counts)
    }
}

fn sum_gaps(offsets: &[usize], gaps: &[u32]) -> Result<Vec<u32>, PriorError> {
    let mut neighbours = Vec::with_capacity(gaps.len());
    for bounds in offsets.windows(2) {
        let mut item = 0u32;
        for gap in &gaps[bounds[0]..bounds[1]] {
            item = item
                .checked_add(*gap)
                .ok_or_else(|| wrong("the prior's gaps", "item rows", "a sum beyond 2^32"))?;
            neighbours.push(item);
        }
    }
    Ok(neighbours)
}

fn words(bytes: &[u8]) -> impl Iterator<Item = [u8; 4]> {
    bytes.as_chunks().0.iter().copied()
}

fn bytes<const N: usize>(values: impl Iterator<Item = [u8; N]>) -> Vec<u8> {
    values.flatten().collect()
}
