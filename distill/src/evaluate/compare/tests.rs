//! Two runs side by side, on figures that can be followed by hand.

use super::*;
use crate::evaluate::comparison::tests::evaluation;

fn run(path: &str, evaluations: Vec<Evaluation>) -> RankedRun {
    RankedRun {
        path: path.into(),
        evaluations,
        dataset: None,
    }
}

fn compare(
    first: &RankedRun,
    second: &RankedRun,
    selection: &Selection,
) -> Result<RunComparison, CompareError> {
    compare_runs(first, second, selection, None)
}

#[test]
fn gains_losses_and_examples_by_hand() {
    // Users 0..10 go from rank 20 to 1, users 10..15 from 5 to 15, the rest stay at 12.
    let before = |user| match user {
        0..=9 => 20,
        10..=14 => 5,
        _ => 12,
    };
    let after = |user| match user {
        0..=9 => 1,
        10..=14 => 15,
        _ => 12,
    };
    let first = run("a", vec![evaluation("s", before)]);
    let second = run("b", vec![evaluation("s", after)]);
    let selection = Selection {
        examples: 2,
        ..Selection::default()
    };
    let compared = compare(&first, &second, &selection).expect("compares");
    let pair = &compared.pairs[0];
    let changes = Changes {
        gained: 10,
        lost: 5,
        unchanged: 5,
        entered_top_10: 10,
        left_top_10: 5,
    };
    assert_eq!(pair.changes, changes);
    assert!((pair.difference.hr_10.mean - 0.25).abs() < 1e-12);
    assert!(pair.difference.ndcg_10_differs);
    let places = |users: &[ExampleUser]| users.iter().map(|u| u.place).collect::<Vec<_>>();
    assert_eq!(places(&compared.examples.gained), [0, 1]);
    assert_eq!(places(&compared.examples.lost), [10, 11]);
    let back = compare(&second, &first, &selection).expect("compares");
    assert_eq!(
        back.pairs[0].difference.hr_10.mean,
        -pair.difference.hr_10.mean
    );
    assert_eq!(places(&back.examples.gained), [10, 11]);
}

#[test]
fn systems_of_one_name_or_those_asked_for() {
    let both = || vec![evaluation("x", |_| 1), evaluation("y", |_| 2)];
    let (first, second) = (run("a", both()), run("b", both()));
    let all = compare(&first, &second, &Selection::default()).expect("compares");
    let names: Vec<&str> = all.pairs.iter().map(|pair| pair.second.as_str()).collect();
    assert_eq!(names, ["x", "y"]);
    let asked = |system: &str, against: Option<&str>| Selection {
        system: Some(system.into()),
        against: against.map(str::to_owned),
        examples: 0,
    };
    let one = compare(&first, &second, &asked("y", Some("x"))).expect("compares");
    assert_eq!(
        (one.pairs[0].first.as_str(), one.pairs[0].second.as_str()),
        ("x", "y")
    );
    let error = compare(&first, &second, &asked("z", None)).expect_err("unknown");
    let error = error.to_string();
    assert!(
        error.contains("\"z\"") && error.contains("\"y\""),
        "{error}"
    );
    let other = run("c", vec![evaluation("p", |_| 1), evaluation("q", |_| 1)]);
    let error = compare(&first, &other, &Selection::default()).expect_err("no pair");
    assert!(error.to_string().contains("--against"), "{error}");
}

#[test]
fn other_data_are_refused_with_both_places() {
    let first = run("a", vec![evaluation("s", |_| 1)]);
    let mut other = evaluation("s", |_| 1);
    other.users[19] = 50;
    let error = compare(&first, &run("b", vec![other]), &Selection::default());
    let error = error.expect_err("other users").to_string();
    assert!(
        error.starts_with("b: ") && error.contains("(of a)"),
        "{error}"
    );
    assert!(
        error.contains("expected 19") || error.contains("should be 19"),
        "{error}"
    );
    let mut other = evaluation("s", |_| 1);
    other.sequences_sha256 = "0".into();
    let error = compare(&first, &run("b", vec![other]), &Selection::default());
    let error = error.expect_err("another catalog").to_string();
    assert!(
        error.contains("SHA-256") && error.contains("hint:"),
        "{error}"
    );
}
