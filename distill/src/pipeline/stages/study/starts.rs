//! The students of `study start`.

use super::super::super::PipelineSettings;
use super::super::super::settings::{LayerChoice, StudentStart, Tuning};
use super::Variant;
use super::variants::alone;
use crate::model::BodyTraining;

/// All weights want a lower rate than adapters do (docs/recipe.md).
const FULL_RATE: f64 = 0.5;

/// What a student may begin as, each without a teacher. Weights that nobody has trained yet must all
/// be trained, so the pretrained ones are, too, in a row of their own.
pub(super) fn starts(settings: &PipelineSettings) -> Vec<Variant> {
    let first = (StudentStart::Base, LayerChoice::First);
    let random = (StudentStart::Random, LayerChoice::First);
    let mut rows = vec![
        ("the first layers", first),
        (
            "every k-th layer",
            (StudentStart::Base, LayerChoice::Interval),
        ),
        (
            "the teacher's first layers",
            (StudentStart::Teacher, LayerChoice::First),
        ),
    ];
    let student = settings.distill.student_model(&settings.model);
    let all = student.training == BodyTraining::Full;
    if all {
        rows.push(("random weights", random));
    }
    let begun = |(name, (start, layers)): (&str, _)| {
        let mut own = settings.clone();
        own.distill.start = start;
        own.distill.layer_choice = layers;
        alone(name.to_owned(), &own)
    };
    let mut found: Vec<Variant> = rows.into_iter().map(begun).collect();
    if !all {
        let in_full = [
            ("the first layers, all weights trained", first),
            ("random weights, all trained", random),
        ];
        found.extend(in_full.into_iter().map(|row| {
            let mut variant = begun(row);
            let section = &mut variant.settings.distill;
            section.tuning = Tuning::Full;
            section.train.learning_rate *= FULL_RATE;
            variant
        }));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_weights_are_all_trained_and_beside_pretrained_ones_that_are() {
        let mut settings = PipelineSettings::default();
        let found = starts(&settings);
        let begun: Vec<(StudentStart, Tuning)> = (found.iter())
            .map(|v| (v.settings.distill.start, v.settings.distill.tuning))
            .collect();
        let expected = [
            (StudentStart::Base, Tuning::Shared),
            (StudentStart::Base, Tuning::Shared),
            (StudentStart::Teacher, Tuning::Shared),
            (StudentStart::Base, Tuning::Full),
            (StudentStart::Random, Tuning::Full),
        ];
        assert_eq!(begun, expected);
        assert!(found.iter().all(|v| !v.taught));
        let rate = |at: usize| found[at].settings.distill.train.learning_rate;
        assert!(rate(3) < rate(0) && rate(3) == rate(4));
        settings.distill.tuning = Tuning::Full;
        let found = starts(&settings);
        let rates = found.iter().map(|v| v.settings.distill.train.learning_rate);
        assert_eq!(found.len(), 4);
        assert!(
            rates
                .into_iter()
                .all(|r| r == settings.distill.train.learning_rate)
        );
    }
}
