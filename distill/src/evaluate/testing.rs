//! Small datasets for the tests of this module and of the prior's.

use slmrec_core::dataset::Dataset;
use slmrec_core::vocabulary::{Item, ItemIndex, ItemVocabulary};

/// A dataset of `items` items with these sequences.
pub(crate) fn dataset(items: usize, sequences: &[&[u32]]) -> Dataset {
    let mut offsets = vec![0];
    for sequence in sequences {
        offsets.push(offsets[offsets.len() - 1] + sequence.len());
    }
    let item = |row: usize| Item::new(format!("i{row}"));
    Dataset {
        name: "test".into(),
        vocabulary: ItemVocabulary::new((1..=items).map(item).collect()).expect("valid"),
        users: (0..sequences.len()).map(|u| format!("u{u}")).collect(),
        items: sequences.concat().into_iter().map(ItemIndex).collect(),
        offsets,
        times: None,
        provenance: serde_json::Value::Null,
    }
}

/// Rows by descending score, smaller rows first among equals.
pub(crate) fn order(scores: &[f32]) -> Vec<u32> {
    let mut rows: Vec<u32> = (1..=scores.len() as u32).collect();
    rows.sort_by(|&a, &b| scores[b as usize - 1].total_cmp(&scores[a as usize - 1]));
    rows
}
