//! The bundle's own samples, replayed: does this engine on this machine give what the
//! full-precision reference gave at export?

use slmrec_core::History;
use slmrec_core::manifest::{Sample, Samples};

use crate::error::RuntimeError;
use crate::options::FilterOptions;
use crate::recommender::Recommender;

/// How the samples came out.
#[derive(Clone, Debug, PartialEq)]
pub struct SelfTest {
    /// What made the expected results.
    pub computed_by: String,
    /// Smallest cosine that passes.
    pub min_cosine: f32,
    /// Smallest mean overlap that passes.
    pub min_overlap: f32,
    /// Every sample, in the bundle's order.
    pub samples: Vec<SampleResult>,
}

/// How one sample came out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SampleResult {
    /// Cosine between the engine's user vector and the expected one.
    pub cosine: f32,
    /// Share of the expected top items that are in the engine's list of the same length.
    pub overlap: f32,
}

impl SelfTest {
    /// The smallest cosine of all samples; NaN when one is NaN.
    #[must_use]
    pub fn worst_cosine(&self) -> f32 {
        let cosines = self.samples.iter().map(|s| s.cosine);
        cosines.fold(f32::INFINITY, |worst, cosine| {
            if worst.is_nan() || worst <= cosine {
                worst
            } else {
                cosine
            }
        })
    }

    /// The mean overlap over the samples.
    #[must_use]
    pub fn mean_overlap(&self) -> f32 {
        let sum: f32 = self.samples.iter().map(|s| s.overlap).sum();
        sum / self.samples.len() as f32
    }

    /// Whether every cosine and the mean overlap reach what the bundle asks for.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.samples.iter().all(|s| s.cosine >= self.min_cosine)
            && self.mean_overlap() >= self.min_overlap
    }
}

impl Recommender {
    /// Replays the samples of the bundle.
    ///
    /// # Errors
    /// Samples that can check nothing (none, without expected items, of another dimension,
    /// thresholds that anything passes), and what [`Recommender::recommend`] reports.
    pub fn self_test(&mut self) -> Result<SelfTest, RuntimeError> {
        let samples = self.bundle_mut().samples()?;
        check(&samples)?;
        let results: Result<Vec<_>, _> = samples.samples.iter().map(|s| self.replay(s)).collect();
        Ok(SelfTest {
            computed_by: samples.computed_by,
            min_cosine: samples.min_cosine,
            min_overlap: samples.min_overlap,
            samples: results?,
        })
    }

    fn replay(&mut self, sample: &Sample) -> Result<SampleResult, RuntimeError> {
        let history = History::from_items(sample.history.iter().cloned());
        let user_vector = self.user_vector(&history)?;
        if user_vector.len() != sample.user_vector.len() {
            return Err(unusable(format!(
                "a user vector of {} values, expected {}",
                sample.user_vector.len(),
                user_vector.len()
            )));
        }
        let found = self.recommend(&history, sample.top.len(), &FilterOptions::default())?;
        let hits = found
            .items
            .iter()
            .filter(|item| sample.top.iter().any(|expected| expected.item == item.id));
        Ok(SampleResult {
            cosine: cosine(&user_vector, &sample.user_vector),
            overlap: hits.count() as f32 / sample.top.len() as f32,
        })
    }
}

/// Refuses samples that could not fail.
fn check(samples: &Samples) -> Result<(), RuntimeError> {
    if samples.samples.is_empty() {
        return Err(unusable("there are none".into()));
    }
    if samples.samples.iter().any(|s| s.top.is_empty()) {
        return Err(unusable("one has no expected items".into()));
    }
    let valid = |threshold: f32| threshold > 0.0 && threshold <= 1.0;
    if !valid(samples.min_cosine) || !valid(samples.min_overlap) {
        return Err(unusable(format!(
            "thresholds {} and {}, expected above 0 and at most 1",
            samples.min_cosine, samples.min_overlap
        )));
    }
    Ok(())
}

fn unusable(reason: String) -> RuntimeError {
    RuntimeError::Samples { reason }
}

/// In f64, so that a cosine of 1 is not rounded above or below a threshold near it.
fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let dot = |x: &[f32], y: &[f32]| -> f64 {
        let products = x.iter().zip(y).map(|(&x, &y)| f64::from(x) * f64::from(y));
        products.sum()
    };
    (dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()) as f32
}
