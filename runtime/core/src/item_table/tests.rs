//! Storing, reading back, and hostile bytes.

use super::*;

/// Half a quantization step per value.
const INT8_ROUNDING: f32 = 0.5 / 127.0;
const F16_ROUNDING: f32 = 1.0 / 2048.0;

fn values(rows: usize, dim: usize) -> Vec<f32> {
    (0..rows * dim)
        .map(|i| ((i * 37 % 101) as f32 - 50.0) / 25.0)
        .collect()
}

#[test]
fn round_trips_and_scores() {
    let (rows, dim) = (7, 19);
    let dense = values(rows, dim);
    let user: Vec<f32> = (0..dim).map(|i| (i as f32 - 9.0) / 10.0).collect();
    for (row_type, tolerance) in [
        (RowType::F32, 0.0),
        (RowType::F16, F16_ROUNDING),
        (RowType::Int8, INT8_ROUNDING),
    ] {
        let table = ItemTable::from_f32(&dense, dim, row_type).expect("valid");
        let back = ItemTable::from_bytes(&table.to_bytes()).expect("round trip");
        assert_eq!(back, table);
        let wide = back.to_f32();
        for (a, b) in wide.iter().zip(&dense) {
            assert!((a - b).abs() <= 2.0 * tolerance + 1e-7);
        }
        for (score, row) in back.scores(&user).iter().zip(wide.chunks(dim)) {
            let exact: f32 = row.iter().zip(&user).map(|(a, b)| a * b).sum();
            assert!((score - exact).abs() < 1e-4);
        }
    }
}

#[test]
fn padding_and_strangers_have_no_row() {
    let table = ItemTable::from_f32(&values(3, 4), 4, RowType::F16).expect("valid");
    let mut out = Vec::new();
    assert!(!table.append_row(ItemIndex::PADDING, &mut out));
    assert!(!table.append_row(ItemIndex(4), &mut out));
    assert!(out.is_empty());
    assert!(table.append_row(ItemIndex(3), &mut out));
    assert_eq!(out.len(), 4);
}

#[test]
fn hostile_bytes_are_typed_errors() {
    let good = ItemTable::from_f32(&values(3, 4), 4, RowType::Int8)
        .expect("valid")
        .to_bytes();
    for cut in 0..good.len() {
        assert!(ItemTable::from_bytes(&good[..cut]).is_err(), "cut at {cut}");
    }
    let mut huge = good.clone();
    huge[16..24].copy_from_slice(&u64::MAX.to_le_bytes());
    assert!(matches!(
        ItemTable::from_bytes(&huge),
        Err(ItemTableError::Length { .. })
    ));
    let mut nan = good;
    nan[24..28].copy_from_slice(&f32::NAN.to_le_bytes());
    assert_eq!(
        ItemTable::from_bytes(&nan),
        Err(ItemTableError::NotFinite { row: 1 })
    );
    for bad in [f32::NAN, f32::INFINITY] {
        for row_type in [RowType::F32, RowType::F16, RowType::Int8] {
            assert!(ItemTable::from_f32(&[1.0, bad], 2, row_type).is_err());
        }
    }
}

#[test]
fn appended_rows_score_as_rows_of_one_table() {
    let values: Vec<f32> = (0..30).map(|n| (n as f32 * 0.37).sin()).collect();
    for row_type in [RowType::F32, RowType::F16, RowType::Int8] {
        let whole = ItemTable::from_f32(&values, 3, row_type).expect("table");
        let mut grown = ItemTable::from_f32(&values[..21], 3, row_type).expect("table");
        let more = ItemTable::from_f32(&values[21..], 3, row_type).expect("table");
        grown.append(more).expect("fits");
        assert_eq!(grown, whole);
        let other = ItemTable::from_f32(&values, 2, row_type).expect("table");
        assert!(grown.append(other).is_err());
        assert_eq!(grown, whole);
    }
    let mut floats = ItemTable::from_f32(&values, 3, RowType::F32).expect("table");
    let halves = ItemTable::from_f32(&values, 3, RowType::F16).expect("table");
    assert!(floats.append(halves).is_err());
}
