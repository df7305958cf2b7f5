//! The scan against the slow form: all scores, sorted.

use proptest::prelude::*;

use super::*;
use crate::item_table::RowType;
use crate::ranking::top_k;

const ROW_TYPES: [RowType; 3] = [RowType::F32, RowType::F16, RowType::Int8];

fn one() -> NonZeroUsize {
    NonZeroUsize::MIN
}

/// Few different values, so that ties are common.
fn table(values: &[i8], dim: usize, row_type: RowType) -> ItemTable {
    let values: Vec<f32> = values.iter().map(|v| f32::from(*v)).collect();
    ItemTable::from_f32(&values, dim, row_type).expect("valid")
}

fn slow(table: &ItemTable, query: &CatalogQuery<'_>) -> Result<Vec<ScoredItem>, RankingError> {
    let mut scores = table.scores(query.user_vector);
    for (item, addition) in query.additions {
        scores[item.row() - 1] += addition;
    }
    top_k(&scores, query.k, query.mask)
}

proptest! {
    #[test]
    fn the_scan_is_all_scores_sorted(
        (dim, rows, values) in (1usize..40, 0usize..200).prop_flat_map(|(dim, rows)| {
            (Just(dim), Just(rows), prop::collection::vec(-2i8..3, dim * rows))
        }),
        users in prop::collection::vec(prop::collection::vec(-2i8..3, 40), 1..4),
        excluded in prop::collection::vec(1u32..220, 0..40),
        allowed in prop::option::of(prop::collection::vec(1u32..220, 0..40)),
        added in prop::collection::btree_map(1u32..200, -3i8..4, 0..20),
        k in 0usize..250,
    ) {
        let mut mask = ItemMask::none(rows);
        excluded.iter().for_each(|&row| mask.exclude(ItemIndex(row)));
        if let Some(allowed) = allowed {
            mask.allow_only(allowed.into_iter().map(ItemIndex));
        }
        let additions: Vec<(ItemIndex, f32)> = (added.into_iter())
            .filter(|(row, _)| *row as usize <= rows)
            .map(|(row, value)| (ItemIndex(row), f32::from(value)))
            .collect();
        let users: Vec<Vec<f32>> = (users.iter())
            .map(|user| user[..dim].iter().map(|v| f32::from(*v)).collect())
            .collect();
        for row_type in ROW_TYPES {
            let table = table(&values, dim, row_type);
            let queries: Vec<CatalogQuery<'_>> = (users.iter())
                .map(|user| CatalogQuery { user_vector: user, additions: &additions, mask: &mask, k })
                .collect();
            let found = best(&table, &queries, one());
            for (found, query) in found.iter().zip(&queries) {
                prop_assert_eq!(found, &slow(&table, query));
                let length = found.as_ref().map(Vec::len);
                prop_assert_eq!(length, Ok(k.min(mask.allowed_count())));
            }
        }
    }

    #[test]
    fn some_items_have_the_scores_that_all_have(
        values in prop::collection::vec(-100i8..100, 19 * 50),
        user in prop::collection::vec(-2f32..2.0, 19),
        picks in prop::collection::vec(1u32..=50, 0..30),
    ) {
        for row_type in ROW_TYPES {
            let table = table(&values, 19, row_type);
            let all = table.scores(&user);
            let items: Vec<ItemIndex> = picks.iter().copied().map(ItemIndex).collect();
            let some = table.scores_of(&user, &items).expect("in the catalog");
            let expected: Vec<f32> = items.iter().map(|item| all[item.row() - 1]).collect();
            prop_assert_eq!(some, expected);
        }
    }
}

/// More bytes than one thread takes.
#[test]
fn threads_change_nothing() {
    let (rows, dim) = (3 * BYTES_FOR_A_THREAD / 128 + 77, 128);
    let values: Vec<f32> = (0..rows * dim)
        .map(|i| (i * 7919 % 1009) as f32 / 500.0 - 1.0)
        .collect();
    let table = ItemTable::from_f32(&values, dim, RowType::Int8).expect("valid");
    let user: Vec<f32> = (0..dim).map(|i| (i as f32 * 0.7).sin()).collect();
    let mut mask = ItemMask::none(rows);
    (1..=rows as u32)
        .step_by(3)
        .for_each(|row| mask.exclude(ItemIndex(row)));
    let additions: Vec<(ItemIndex, f32)> = (1..=rows as u32)
        .step_by(1000)
        .map(|row| (ItemIndex(row), 0.5))
        .collect();
    let query = CatalogQuery {
        user_vector: &user,
        additions: &additions,
        mask: &mask,
        k: 50,
    };
    let alone = best(&table, &[query], one());
    assert_eq!(alone[0], slow(&table, &query));
    let threads = NonZeroUsize::new(3).expect("not zero");
    assert_eq!(
        best(&table, &[query, query], threads),
        [alone.clone(), alone].concat()
    );
}

#[test]
fn a_score_that_is_no_number_is_an_error_unless_it_is_masked() {
    let table = ItemTable::from_f32(&[1.0, 0.0, f32::MAX, -f32::MAX], 2, RowType::F32);
    let table = table.expect("valid");
    let mut mask = ItemMask::none(2);
    let user = [f32::MAX, f32::MAX];
    let ask = |mask: &ItemMask| {
        let query = CatalogQuery {
            user_vector: &user,
            additions: &[],
            mask,
            k: 2,
        };
        best(&table, &[query], one()).remove(0)
    };
    assert_eq!(ask(&mask), Err(RankingError::NotANumber { row: 2 }));
    mask.exclude(ItemIndex(2));
    assert_eq!(ask(&mask).map(|found| found.len()), Ok(1));
}

#[test]
fn strangers_have_no_score() {
    let table = table(&[1, 2], 1, RowType::Int8);
    for row in [0, 3] {
        let error = table.scores_of(&[1.0], &[ItemIndex(row)]);
        assert_eq!(error, Err(RankingError::OutOfRange { row, items: 2 }));
    }
}
