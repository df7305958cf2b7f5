//! Windows, orders and batches.

use super::*;

fn sequence(items: std::ops::Range<u32>) -> Vec<ItemIndex> {
    items.map(ItemIndex).collect()
}

fn data(targets: Targets) -> TrainingData {
    let sequences = vec![
        sequence(1..12),
        sequence(20..22),
        sequence(30..31),
        sequence(0..0),
        sequence(40..45),
        sequence(50..54),
    ];
    TrainingData::from_sequences(sequences, 60, 4, targets).expect("data")
}

#[test]
fn every_interaction_but_the_first_is_a_target_once() {
    let data = data(Targets::All);
    let mut found: Vec<u32> = Vec::new();
    for batch in data.epoch(3, 1, 0).iter() {
        found.extend(data.batch(&batch, &Device::Cpu).expect("batch").targets);
    }
    found.sort_unstable();
    let expected: Vec<u32> = (2..12).chain(21..22).chain(41..45).chain(51..54).collect();
    assert_eq!(found, expected);
}

#[test]
fn only_the_newest_windows_where_so_many_are_asked_for() {
    let kept = |newest_windows| {
        let settings = TrainSettings {
            newest_windows,
            ..TrainSettings::default()
        };
        let data = data(Targets::All).with_settings(&settings).expect("data");
        data.windows()
            .map(|w| (w.user, w.start))
            .collect::<Vec<_>>()
    };
    assert_eq!(kept(0), [(0, 6), (0, 2), (0, 0), (1, 0), (4, 0), (5, 0)]);
    assert_eq!(kept(2), [(0, 6), (0, 2), (1, 0), (4, 0), (5, 0)]);
    assert_eq!(kept(1), [(0, 6), (1, 0), (4, 0), (5, 0)]);
}

/// Row by row what the other users' pairs say, in the order of the targets.
#[test]
fn a_batch_says_what_the_prior_predicts_at_each_target() {
    use crate::prior::{CountedSequence, count, sums_without};
    let sequences = vec![
        sequence(1..12),
        sequence(5..9),
        sequence(3..7),
        sequence(5..9),
    ];
    let counted: Vec<_> = (sequences.iter())
        .map(|items| CountedSequence { items, new_from: 0 })
        .collect();
    let settings = slmrec_core::prior::PriorSettings::WINDOW_5;
    let prior = Arc::new(count(&counted, 60, settings, 99).expect("counts"));
    for targets in [Targets::All, Targets::Last] {
        let data = TrainingData::from_sequences(sequences.clone(), 60, 4, targets).expect("data");
        let data = data.with_prior(prior.clone());
        let all: Vec<usize> = (0..data.len()).rev().collect();
        let batch = data.batch(&all, &Device::Cpu).expect("batch");
        let sums = batch.prior.as_ref().expect("sums");
        assert_eq!(sums.num_rows(), batch.targets.len());
        // Two users share a history; each has its own row, without its own pairs only.
        let mut found: Vec<Vec<(u32, f32)>> = (0..sums.num_rows())
            .map(|row| sums.within(row, 1..61).collect())
            .collect();
        let mut expected = Vec::new();
        for window in &all {
            let Window { user, start, len } = data.window(*window);
            let first = if targets == Targets::All { 1 } else { len - 1 };
            let places = start + first..start + len;
            expected.extend(sums_without(&prior, counted[user], places));
        }
        assert!(expected.iter().any(|row| !row.is_empty()));
        let key = |row: &Vec<(u32, f32)>| format!("{row:?}");
        found.sort_by_key(key);
        expected.sort_by_key(key);
        assert_eq!(found, expected);
    }
}

/// All items before a target, those before its window included, but for the target itself.
#[test]
fn seen_items_are_masked() {
    let items = [5, 1, 3, 1, 2].map(ItemIndex).to_vec();
    for (targets, expected) in [
        (Targets::All, vec![vec![1, 3, 5], vec![3, 5]]),
        (Targets::Last, vec![vec![1, 3, 5]]),
    ] {
        let data = TrainingData::from_sequences(vec![items.clone()], 9, 2, targets).expect("data");
        let settings = TrainSettings {
            mask_seen: true,
            newest_windows: 1,
            ..TrainSettings::default()
        };
        let data = data.with_settings(&settings).expect("data");
        let batch = data.batch(&[0], &Device::Cpu).expect("batch");
        let seen = batch.seen.as_ref().expect("masks");
        let found: Vec<Vec<u32>> = (0..seen.num_rows())
            .map(|row| seen.within(row, 0..99).map(|(item, _)| item).collect())
            .collect();
        let mut expected = expected;
        if targets == Targets::All {
            expected.reverse();
        }
        assert_eq!(found, expected);
        assert_eq!(seen.get(0, 5), MASKED);
    }
}

#[test]
fn the_last_mode_has_the_newest_item_of_each_user() {
    let data = data(Targets::Last);
    let all: Vec<usize> = (0..data.len()).collect();
    let batch = data.batch(&all, &Device::Cpu).expect("batch");
    assert_eq!(batch.targets, [11, 21, 44, 53]);
    assert_eq!(batch.target_positions, [3, 4, 11, 14]);
    assert_eq!(batch.histories.lengths, [4, 1, 4, 3]);
}

#[test]
fn targets_follow_their_history() {
    let data = data(Targets::All);
    let all: Vec<usize> = (0..data.len()).collect();
    let batch = data.batch(&all, &Device::Cpu).expect("batch");
    let items = batch.histories.items.flatten_all().expect("flat");
    let items = items.to_vec1::<u32>().expect("items");
    for (position, target) in batch.target_positions.iter().zip(&batch.targets) {
        assert_eq!(items[*position as usize] + 1, *target);
    }
}

#[test]
fn the_order_depends_on_seed_and_epoch_alone() {
    let sequences = (0..200).map(|_| sequence(1..9)).collect();
    let data = TrainingData::from_sequences(sequences, 9, 50, Targets::All).expect("data");
    assert_eq!(data.epoch(8, 7, 3), data.epoch(8, 7, 3));
    assert_ne!(data.epoch(8, 7, 3), data.epoch(8, 7, 4));
    assert_ne!(data.epoch(8, 7, 3), data.epoch(8, 8, 3));
    let mut all: Vec<usize> = data.epoch(8, 7, 3).iter().flatten().collect();
    all.sort_unstable();
    assert_eq!(all, (0..data.len()).collect::<Vec<_>>());
}

#[test]
fn equal_histories_become_one_row() {
    let sequences = [&[1, 2, 3][..], &[1, 2, 4], &[5, 2, 3], &[1, 2, 3], &[1, 2]];
    let sequences = sequences.map(|s| s.iter().copied().map(ItemIndex).collect::<Vec<_>>());
    let data = TrainingData::from_sequences(sequences.to_vec(), 9, 50, Targets::All).expect("data");
    let windows = [0, 1, 2, 3, 4];
    let batch = data.batch(&windows, &Device::Cpu).expect("batch");
    assert_eq!(batch.windows, [0, 2, 4]);
    assert_eq!(batch.histories.lengths, [2, 2, 1]);
    assert_eq!(batch.target_positions, [0, 0, 0, 1, 1, 1, 2, 3, 4]);
    assert_eq!(batch.targets, [2, 2, 2, 3, 4, 3, 2, 3, 2]);
    let last = (vec![1, 1, 1, 3, 4], vec![3, 4, 3, 3, 2]);
    assert_eq!(batch.last_examples(), last);
    let apart = TrainSettings {
        share_histories: false,
        ..TrainSettings::default()
    };
    let data = data.with_settings(&apart).expect("settings");
    let batch = data.batch(&windows, &Device::Cpu).expect("batch");
    assert_eq!(batch.windows, windows);
    assert_eq!(batch.targets.len(), 9);
}

#[test]
fn more_negatives_than_items_are_refused() {
    let data = TrainingData::from_sequences(vec![sequence(1..9)], 9, 50, Targets::All);
    let settings = TrainSettings {
        catalog_loss: CatalogLoss::Sampled(crate::train::SampledSoftmax::default()),
        ..TrainSettings::default()
    };
    match data.expect("data").with_settings(&settings) {
        Err(TrainError::Setting {
            expected, found, ..
        }) => {
            assert!(expected.contains("full"), "{expected}");
            assert_eq!(found, "1024");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn nothing_to_learn_is_an_error() {
    let none = TrainingData::from_sequences(vec![sequence(1..2)], 9, 50, Targets::All);
    assert!(matches!(none, Err(TrainError::NoData)));
}
