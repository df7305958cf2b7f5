use proptest::prelude::*;

use super::*;

fn settings() -> PriorSettings {
    PriorSettings {
        last_items: 2,
        ..PriorSettings::WINDOW_5
    }
}

type Rows = Vec<Vec<(ItemIndex, f32)>>;

fn rows(rows: &[&[(u32, f32)]]) -> Rows {
    let row = |row: &&[(u32, f32)]| row.iter().map(|&(i, c)| (ItemIndex(i), c)).collect();
    std::iter::once(Vec::new())
        .chain(rows.iter().map(row))
        .collect()
}

/// Items 1, 2, 3; 1 was seen beside 2 and 3, 2 beside 1.
fn tiny(settings: PriorSettings) -> TransitionPrior {
    let rows = rows(&[&[(2, 4.0), (3, 1.0)], &[(1, 4.0)], &[]]);
    TransitionPrior::new(settings, vec![0.0, 4.0, 16.0, 1.0], rows, usize::MAX).expect("valid")
}

fn sums(prior: &TransitionPrior, history: &[u32]) -> Vec<f32> {
    let history: Vec<ItemIndex> = history.iter().copied().map(ItemIndex).collect();
    let mut sums = SparseSums::default();
    prior.sum(&history, &mut sums);
    let all = (1..=prior.num_items() as u32).map(|i| sums.get(ItemIndex(i)));
    all.collect()
}

#[test]
fn sums_by_hand() {
    let plain = tiny(settings());
    assert_eq!(sums(&plain, &[1]), [0.0, 4.0, 1.0]);
    // 2 is the newest, 1 counts half, 3 is too old.
    assert_eq!(sums(&plain, &[3, 1, 2]), [4.0, 2.0, 0.5]);
    let corrected = tiny(PriorSettings {
        popularity_power: 0.5,
        ..settings()
    });
    assert_eq!(sums(&corrected, &[1]), [0.0, 1.0, 1.0]);
    let normalised = tiny(PriorSettings {
        normalise_rows: true,
        ..settings()
    });
    assert_eq!(sums(&normalised, &[1]), [0.0, 0.8, 0.2]);
    assert_eq!(
        plain
            .read_as(PriorSettings {
                normalise_rows: true,
                window: 9,
                ..settings()
            })
            .expect("valid"),
        normalised,
        "counting settings stay"
    );
}

#[test]
fn scores_are_the_model_and_the_logarithm() {
    let prior = tiny(settings());
    let weights = PriorWeights {
        alpha: 2.0,
        beta: 0.5,
    };
    let mut scores = [1.0f32, 1.0, 1.0];
    prior.add_to(
        &[ItemIndex(1)],
        weights,
        &mut SparseSums::default(),
        &mut scores,
    );
    let constant = 2.0 * 0.5f32.ln();
    for (score, p) in scores.iter().zip([0.0f32, 4.0, 1.0]) {
        let full = 1.0 + 2.0 * (p + 0.5).ln();
        assert!((score - (full - constant)).abs() < 1e-5);
    }
}

#[test]
fn a_used_scratch_is_clean() {
    let prior = tiny(settings());
    let mut used = SparseSums::default();
    prior.sum(&[ItemIndex(1)], &mut used);
    prior.sum(&[ItemIndex(2)], &mut used);
    let found: Vec<_> = used.iter().collect();
    assert_eq!(found, [(ItemIndex(1), 4.0)]);
    assert_eq!(used.get(ItemIndex(99)), 0.0);
}

#[test]
fn adding_is_counting_everything_at_once() {
    let a = tiny(settings());
    let newer = rows(&[&[(3, 2.0)], &[], &[(2, 5.0)]]);
    let b = TransitionPrior::new(settings(), vec![0.0, 1.0, 0.0, 3.0], newer, 9).expect("valid");
    let both = a.add(&b, 9).expect("alike");
    let expected = rows(&[&[(2, 4.0), (3, 3.0)], &[(1, 4.0)], &[(2, 5.0)]]);
    let expected = TransitionPrior::new(settings(), vec![0.0, 5.0, 16.0, 4.0], expected, 9);
    assert_eq!(Ok(both), expected);
    let other = tiny(PriorSettings {
        window: 6,
        ..settings()
    });
    assert!(a.add(&other, 9).is_err());
}

#[test]
fn truncation_keeps_the_greatest_weights() {
    let rows = rows(&[&[(1, 2.0), (2, 4.0), (3, 2.0)], &[], &[]]);
    let corrected = PriorSettings {
        popularity_power: 1.0,
        ..settings()
    };
    // Weights 2, 0.25 and 2.
    let kept = |most| -> Vec<u32> {
        let occurrences = vec![0.0, 1.0, 16.0, 1.0];
        let prior = TransitionPrior::new(corrected, occurrences, rows.clone(), most);
        let prior = prior.expect("valid");
        assert_eq!(prior.longest_row(), most.min(3));
        prior.row(ItemIndex(1)).map(|(i, _)| i.0).collect()
    };
    assert_eq!(kept(1), [1]);
    assert_eq!(kept(2), [1, 3]);
    assert_eq!(kept(3), [1, 2, 3]);
}

#[test]
fn weights_that_round_to_nothing_are_no_nan() {
    let corrected = PriorSettings {
        popularity_power: 2.0,
        normalise_rows: true,
        ..settings()
    };
    let rows = rows(&[&[(2, 1e-30)], &[], &[]]);
    let prior = TransitionPrior::new(corrected, vec![0.0, 1.0, 1e30, 1.0], rows, 9);
    assert_eq!(sums(&prior.expect("valid"), &[1]), [0.0; 3]);
}

#[test]
fn refuses_what_cannot_be() {
    let build = |rows: Rows| TransitionPrior::new(settings(), vec![0.0; 4], rows, 9);
    for bad in [
        rows(&[&[(2, 1.0)], &[]]),
        rows(&[&[(4, 1.0)], &[], &[]]),
        rows(&[&[(0, 1.0)], &[], &[]]),
        rows(&[&[(2, 1.0), (2, 1.0)], &[], &[]]),
        rows(&[&[(2, 0.0)], &[], &[]]),
        rows(&[&[(2, f32::NAN)], &[], &[]]),
        vec![vec![(ItemIndex(1), 1.0)], vec![], vec![], vec![]],
    ] {
        assert!(build(bad.clone()).is_err(), "{bad:?}");
    }
    let wrong: [fn(&mut PriorSettings); 6] = [
        |s| s.window = 0,
        |s| s.last_items = MAX_LAST_ITEMS + 1,
        |s| s.decay = 1.5,
        |s| s.decay = f32::NAN,
        |s| s.popularity_power = -1.0,
        |s| s.distance_power = f32::INFINITY,
    ];
    for change in wrong {
        let mut settings = settings();
        change(&mut settings);
        assert!(settings.check().is_err(), "{settings:?}");
    }
    for (alpha, beta) in [(f32::NAN, 1.0), (-1.0, 1.0), (1.0, 0.0), (1.0, f32::NAN)] {
        assert!(PriorWeights { alpha, beta }.check().is_err());
    }
}

#[test]
fn damaged_files_are_refused() {
    let good = tiny(settings()).to_bytes().expect("bytes");
    let read = |bytes: &[u8]| TransitionPrior::from_bytes(bytes, settings(), 3);
    assert_eq!(read(&good), Ok(tiny(settings())));
    assert!(TransitionPrior::from_bytes(&good, settings(), 4).is_err());
    for length in 0..good.len() {
        assert!(read(&good[..length]).is_err(), "cut at {length}");
    }
    // The arrays follow the header; every bit may be flipped without a panic.
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        if let Ok(prior) = read(&bad) {
            assert!(sums(&prior, &[1, 2, 3]).iter().all(|s| s.is_finite()));
        }
    }
}

proptest! {
    #[test]
    fn survives_its_file(
        counts in prop::collection::vec(prop::collection::btree_map(1u32..30, 1e-6f32..1e6, 0..12), 29),
    ) {
        let rows: Rows = std::iter::once(Vec::new())
            .chain(counts.iter().map(|row| row.iter().map(|(i, c)| (ItemIndex(*i), *c)).collect()))
            .collect();
        let prior = TransitionPrior::new(settings(), vec![1.0; 30], rows, 99).expect("valid").rounded();
        let bytes = prior.to_bytes().expect("bytes");
        prop_assert_eq!(TransitionPrior::from_bytes(&bytes, settings(), 29), Ok(prior));
    }
}
