//! Drawing candidates for the sampled softmax.

use crate::model::MaskRng;
use crate::train::TrainError;
use crate::train::settings::{SampledSoftmax, check};

/// Draws items with probability proportional to `count^exponent`, where an item that never occurs
/// counts as one that occurs once.
#[derive(Clone, Debug)]
pub struct NegativeSampler {
    draws: usize,
    /// Entry i is the sum of the weights of the items `1..=i + 1`.
    cumulative: Vec<f64>,
}

/// Items that stand for the whole catalog in one step.
#[derive(Clone, Debug, PartialEq)]
pub struct Negatives {
    /// The different items that were drawn, ascending.
    pub items: Vec<u32>,
    /// For each of them `ln(times drawn / expected times drawn)`. Added to its score, it makes the
    /// sum of exponentials over the drawn items equal to the sum over the catalog in expectation.
    pub corrections: Vec<f32>,
}

impl NegativeSampler {
    /// A sampler of items `1..=counts.len()`, where `counts[i]` says how often item `i + 1` occurs.
    ///
    /// # Errors
    /// [`TrainError::Setting`] for settings outside their range, or more draws than items.
    pub fn new(settings: &SampledSoftmax, counts: &[u32]) -> Result<Self, TrainError> {
        settings.check()?;
        check(
            "catalog_loss.sampled.negatives",
            settings.negatives <= counts.len(),
            &format!(
                "at most {}, the items of the catalog (a catalog as small as this is fast with catalog_loss = \"full\")",
                counts.len()
            ),
            settings.negatives,
        )?;
        let mut sum = 0.0;
        let weight = |count: &u32| f64::from((*count).max(1)).powf(settings.popularity_exponent);
        let cumulative = (counts.iter())
            .map(|count| {
                sum += weight(count);
                sum
            })
            .collect();
        Ok(Self {
            draws: settings.negatives,
            cumulative,
        })
    }

    /// Number of draws of a step.
    #[must_use]
    pub fn draws(&self) -> usize {
        self.draws
    }

    /// Draws the negatives of a step, with replacement.
    #[must_use]
    pub fn draw(&self, rng: &mut MaskRng) -> Negatives {
        let last = self.cumulative.len() - 1;
        let total = self.cumulative[last];
        let mut drawn: Vec<usize> = (0..self.draws)
            .map(|_| {
                let at = rng.uniform() * total;
                self.cumulative.partition_point(|sum| *sum <= at).min(last)
            })
            .collect();
        drawn.sort_unstable();
        let (mut items, mut corrections) = (Vec::new(), Vec::new());
        for same in drawn.chunk_by(|a, b| a == b) {
            let item = same[0];
            let before = item.checked_sub(1).map_or(0.0, |at| self.cumulative[at]);
            let probability = (self.cumulative[item] - before) / total;
            let expected = probability * self.draws as f64;
            items.push(item as u32 + 1);
            corrections.push((same.len() as f64 / expected).ln() as f32);
        }
        Negatives { items, corrections }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampler(negatives: usize, popularity_exponent: f64, counts: &[u32]) -> NegativeSampler {
        let settings = SampledSoftmax {
            negatives,
            popularity_exponent,
        };
        NegativeSampler::new(&settings, counts).expect("sampler")
    }

    /// Share of the draws that fall on each item.
    fn shares(exponent: f64) -> Vec<f64> {
        let counts = [0, 1, 4, 25, 100];
        let sampler = sampler(5, exponent, &counts);
        let mut shares = vec![0.0; counts.len()];
        const STEPS: u64 = 20_000;
        for step in 0..STEPS {
            let negatives = sampler.draw(&mut MaskRng::new(1, step));
            for (item, correction) in negatives.items.iter().zip(&negatives.corrections) {
                let weight: f64 = counts
                    .iter()
                    .map(|&c| f64::from(c).max(1.0).powf(exponent))
                    .sum();
                let count = f64::from(counts[*item as usize - 1]).max(1.0);
                let expected = 5.0 * count.powf(exponent) / weight;
                let times = f64::from(*correction).exp() * expected;
                assert!((times - times.round()).abs() < 1e-5, "{times}");
                shares[*item as usize - 1] += times / (5 * STEPS) as f64;
            }
        }
        shares
    }

    #[test]
    fn draws_follow_the_exponent() {
        for (exponent, weights) in [
            (0.0, [1.0, 1.0, 1.0, 1.0, 1.0]),
            (0.5, [1.0, 1.0, 2.0, 5.0, 10.0]),
            (1.0, [1.0, 1.0, 4.0, 25.0, 100.0]),
        ] {
            let total: f64 = weights.iter().sum();
            let shares = shares(exponent);
            assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-6);
            for (share, weight) in shares.iter().zip(weights) {
                // Five standard deviations of 100,000 draws are at most 0.008.
                assert!((share - weight / total).abs() < 8e-3, "{shares:?}");
            }
        }
    }

    #[test]
    fn a_step_draws_the_same_again_and_steps_differ() {
        let sampler = sampler(8, 0.5, &[3; 50]);
        let draw = |seed, step| sampler.draw(&mut MaskRng::new(seed, step));
        assert_eq!(draw(7, 3), draw(7, 3));
        assert_ne!(draw(7, 3), draw(7, 4));
        assert_ne!(draw(7, 3), draw(8, 3));
        assert!(draw(7, 3).items.is_sorted());
    }

    #[test]
    fn refuses_more_negatives_than_items_and_none() {
        for (negatives, exponent, name) in [
            (0, 0.5, "catalog_loss.sampled.negatives"),
            (4, 0.5, "catalog_loss.sampled.negatives"),
            (3, -0.1, "catalog_loss.sampled.popularity_exponent"),
            (3, 1.1, "catalog_loss.sampled.popularity_exponent"),
            (3, f64::NAN, "catalog_loss.sampled.popularity_exponent"),
        ] {
            let settings = SampledSoftmax {
                negatives,
                popularity_exponent: exponent,
            };
            match NegativeSampler::new(&settings, &[1, 1, 1]) {
                Err(TrainError::Setting { name: found, .. }) => assert_eq!(found, name),
                other => panic!("{other:?}"),
            }
        }
    }
}
