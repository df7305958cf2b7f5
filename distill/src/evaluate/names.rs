//! What the systems of a comparison are called, and which of them is the one to ship.

/// SASRec alone.
pub const SASREC: &str = "SASRec";
/// SASRec whose items also have title vectors.
pub const SASREC_TITLES: &str = "SASRec with titles";
/// The counts of the prior alone, with the settings that rank the validation targets best.
pub const COOCCURRENCE_TUNED: &str = "co-occurrence, tuned";
/// Several models as one teacher.
pub const BLEND: &str = "blended teacher";
/// The distilled student alone.
pub const STUDENT: &str = "student, distilled";
/// The student's shape trained without a teacher.
pub const CE_ONLY: &str = "student, CE only";
/// The teacher that learned beside the student, where distillation was online.
pub const ONLINE_TEACHER: &str = "teacher beside the student";

/// A model that was trained once more, with the validation items.
#[must_use]
pub fn refitted(system: &str) -> String {
    format!("{system}, refit")
}

/// A system with the prior beside it.
#[must_use]
pub fn with_prior(system: &str) -> String {
    format!("{system} + prior")
}

/// A system with the prior as it was before the validation items were counted.
#[must_use]
pub fn with_older_prior(system: &str) -> String {
    format!("{system} + prior of the training items")
}

/// The exported bundle of a precision.
#[must_use]
pub fn bundle(precision: &str) -> String {
    format!("student, {precision} bundle")
}

/// A bundle of which the prior is left out.
#[must_use]
pub fn without_prior(bundle: &str) -> String {
    format!("{bundle} without its prior")
}

fn is_bundle(system: &str) -> bool {
    system.starts_with("student, ") && system.ends_with(" bundle")
}

/// Place of the system that would be shipped: the bundle, or what comes nearest to it.
#[must_use]
pub fn headline(systems: &[&str]) -> Option<usize> {
    let place = |wanted: &dyn Fn(&str) -> bool| systems.iter().position(|name| wanted(name));
    let refit = refitted(STUDENT);
    let next = [
        with_prior(&refit),
        refit,
        with_prior(STUDENT),
        STUDENT.to_owned(),
    ];
    place(&is_bundle).or_else(|| next.iter().find_map(|next| place(&|name| name == next)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bundle_goes_first_and_a_floor_is_never_shipped() {
        let int8 = bundle("int8");
        let bare = without_prior(&int8);
        let all = [
            "SASRec",
            STUDENT,
            "student, distilled + prior",
            &bare,
            &int8,
        ];
        assert_eq!(headline(&all), Some(4));
        assert_eq!(headline(&all[..4]), Some(2));
        assert_eq!(headline(&all[..2]), Some(1));
        assert_eq!(headline(&all[..1]), None);
        let refit = refitted(STUDENT);
        assert_eq!(headline(&[STUDENT, &with_prior(STUDENT), &refit]), Some(2));
    }
}
