//! Sample histories with expected results, so that every device can check itself.

use std::collections::HashSet;
use std::path::Path;

use ndarray::{Array2, Axis};
use slmrec_core::certificate::Quantization;
use slmrec_core::manifest::{Precision, Sample, SampleItem, Samples};
use slmrec_core::prior::SparseSums;
use slmrec_core::ranking::top_k;
use slmrec_core::{Dataset, ItemIndex, ItemMask, ItemTable, RowType, history};

use crate::bundle::{ExportOptions, ExportedPrior};
use crate::error::ExportError;
use crate::model::Model;
use crate::reference;

/// A bundle carries at least this many samples where the data has as many.
pub const MIN_SAMPLES: usize = 8;
/// Expected items per sample.
pub const TOP_ITEMS: usize = 10;

/// Smallest cosine and smallest mean top-10 overlap with the full-precision result that a sound
/// engine reaches.
struct Thresholds {
    min_cosine: f32,
    min_overlap: f32,
}

/// The same arithmetic in another order: only rounding differs, and items that all but tie may
/// change places at the edge of the list.
const FP32: Thresholds = Thresholds {
    min_cosine: 0.9999,
    min_overlap: 0.98,
};
/// Eleven bits of mantissa in weights and item rows: errors near 1e-3 per weight average out.
const FP16: Thresholds = Thresholds {
    min_cosine: 0.999,
    min_overlap: 0.95,
};
/// Eight bits in weights, activations and item rows. Four layers of pretrained SmolLM2 weights
/// reached .9966 and .98; a saturating kernel or one scale for rows of unlike size stays below.
const INT8: Thresholds = Thresholds {
    min_cosine: 0.98,
    min_overlap: 0.8,
};
/// Four bits in weights. Trained students reached .989 and .95, narrow random ones .956 and .93; whether
/// that ranks well enough is for the certificate to say.
const FOUR_BITS: Thresholds = Thresholds {
    min_cosine: 0.9,
    min_overlap: 0.7,
};

/// Chooses histories (at least [`MIN_SAMPLES`]) from the training sequences and computes their
/// results in full precision on the unquantized item embeddings. `dir` is the dataset's, for
/// messages.
pub(crate) fn samples(
    model: &Model,
    dataset: &Dataset,
    options: &ExportOptions,
    dir: &Path,
) -> Result<Samples, ExportError> {
    let count = options.samples.max(MIN_SAMPLES);
    let histories = choose(dataset, count, model.recommender.max_history);
    let values: Vec<f32> = model.item_embeddings.iter().copied().collect();
    let table = ItemTable::from_f32(&values, model.recommender.item_dim, RowType::F32)?;
    let mut samples = histories
        .iter()
        .map(|history| expected(model, dataset, &table, options.prior.as_ref(), history, dir))
        .collect::<Result<Vec<_>, _>>()?;
    // Whoever has seen the whole catalog has nothing to be compared with.
    samples.retain(|sample| !sample.top.is_empty());
    if samples.is_empty() {
        return Err(ExportError::NoHistories {
            dataset: dir.to_owned(),
        });
    }
    let Thresholds {
        min_cosine,
        min_overlap,
    } = match options.precision {
        Precision::Fp32 => FP32,
        Precision::Fp16 => FP16,
        Precision::Int8 if options.quantization == Quantization::Blocks4 => FOUR_BITS,
        Precision::Int8 => INT8,
    };
    Ok(Samples {
        computed_by: concat!("slmrec-export ", env!("CARGO_PKG_VERSION"), " in f32").to_owned(),
        min_cosine,
        min_overlap,
        samples,
    })
}

/// Lengths 1 and 2, then evenly up to `max_history`, then longer ones that have to be cut.
fn wanted_lengths(count: usize, max_history: usize) -> Vec<usize> {
    let inner = count.saturating_sub(4).max(1);
    let even = (1..=inner).map(|i| (max_history * i).div_ceil(inner));
    [1, 2]
        .into_iter()
        .chain(even)
        .chain([max_history + 1, max_history * 2])
        .collect()
}

/// Distinct histories, as far as the data has them; each from another user where possible.
fn choose(dataset: &Dataset, count: usize, max_history: usize) -> Vec<&[ItemIndex]> {
    let users = dataset.num_users();
    let longest = (0..users).map(|u| dataset.training_sequence(u).len()).max();
    let longest = longest.unwrap_or(0);
    let more = (1..=longest).cycle().take(count + longest);
    let mut taken = HashSet::new();
    let mut chosen = Vec::new();
    for length in wanted_lengths(count, max_history).into_iter().chain(more) {
        if chosen.len() == count {
            break;
        }
        let length = length.min(longest);
        let first = chosen.len() * users / count;
        let free = (0..users).map(|i| (first + i) % users).find(|&user| {
            dataset.training_sequence(user).len() >= length && !taken.contains(&(user, length))
        });
        if let Some(user) = free.filter(|_| length > 0) {
            taken.insert((user, length));
            chosen.push(history::newest(dataset.training_sequence(user), length));
        }
    }
    chosen
}

fn expected(
    model: &Model,
    dataset: &Dataset,
    table: &ItemTable,
    prior: Option<&ExportedPrior>,
    items: &[ItemIndex],
    dir: &Path,
) -> Result<Sample, ExportError> {
    let read: Vec<usize> = history::newest(items, model.recommender.max_history)
        .iter()
        .map(|item| item.row() - 1)
        .collect();
    let embeddings: Array2<f32> = model.item_embeddings.select(Axis(0), &read);
    let user_vector = reference::user_vector(model, embeddings.view()).to_vec();
    if user_vector.iter().any(|v| !v.is_finite()) {
        return Err(ExportError::NotFinite {
            dataset: dir.to_owned(),
        });
    }
    let mut seen = ItemMask::none(table.len());
    items.iter().for_each(|item| seen.exclude(*item));
    let mut scores = table.scores(&user_vector);
    if let Some(ExportedPrior {
        counts, weights, ..
    }) = prior
    {
        counts.add_to(items, *weights, &mut SparseSums::default(), &mut scores);
    }
    let top = top_k(&scores, TOP_ITEMS, &seen)?
        .into_iter()
        .map(|best| SampleItem {
            item: id(dataset, best.item),
            score: best.score,
        })
        .collect();
    Ok(Sample {
        history: items.iter().map(|item| id(dataset, *item)).collect(),
        user_vector,
        top,
    })
}

/// The catalog key of a row that a checked dataset contains.
pub(crate) fn id(dataset: &Dataset, item: ItemIndex) -> String {
    match dataset.vocabulary.get(item) {
        Some(item) => item.id.clone(),
        None => unreachable!("a checked dataset has no row {item}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn histories_cover_short_full_and_cut_lengths() {
        let dataset = testing::tiny_dataset();
        let max_history = 5;
        let histories = choose(&dataset, 16, max_history);
        let lengths: HashSet<usize> = histories.iter().map(|h| h.len()).collect();
        assert_eq!(histories.len(), 16);
        for length in [1, 2, max_history, max_history + 1] {
            assert!(lengths.contains(&length), "{lengths:?}");
        }
    }

    #[test]
    fn a_small_dataset_gives_what_it_has() {
        let mut dataset = testing::tiny_dataset();
        dataset.users.truncate(1);
        dataset.items.truncate(3);
        dataset.offsets = vec![0, 3];
        let histories = choose(&dataset, 8, 5);
        assert_eq!(histories.len(), 1);
        dataset.items.clear();
        dataset.offsets = vec![0, 0];
        assert!(choose(&dataset, 8, 5).is_empty());
    }
}
