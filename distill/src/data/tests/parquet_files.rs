//! Parquet: every column type, and files that are not what they say.

use std::sync::Arc;

use ::parquet::arrow::ArrowWriter;
use arrow_array::{
    ArrayRef, BooleanArray, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray, UInt64Array,
};

use super::*;

pub(super) fn parquet(columns: Vec<(&str, ArrayRef)>) -> Vec<u8> {
    let batch = RecordBatch::try_from_iter_with_nullable(
        columns.into_iter().map(|(name, array)| (name, array, true)),
    )
    .expect("columns of one length");
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), None).expect("writer");
    writer.write(&batch).expect("writes");
    writer.close().expect("closes");
    bytes
}

fn strings(values: [&str; 4]) -> ArrayRef {
    Arc::new(StringArray::from(values.to_vec()))
}

#[test]
fn columns_of_every_type() {
    let plain = PrepareSettings::default();
    let times: [(&str, ArrayRef); 4] = [
        ("integers", Arc::new(Int64Array::from(vec![9, 1, 5, 2]))),
        (
            "floats",
            Arc::new(Float64Array::from(vec![1.75, 1.25, 1.5, 1.5])),
        ),
        (
            "stamps",
            Arc::new(TimestampMicrosecondArray::from(vec![9, 1, 5, 2])),
        ),
        (
            "dates",
            strings(["2024-01-09", "2024-01-01", "2024-01-05", "2024-01-02"]),
        ),
    ];
    for (what, time) in times {
        // The columns stand in another order than they are wanted in.
        let bytes = parquet(vec![
            ("timestamp", time),
            ("item_id", strings(["a", "a", "b", "c"])),
            ("user_id", strings(["u1", "u2", "u1", "u2"])),
        ]);
        assert_eq!(prepared("f.parquet", bytes, &plain), EXPECTED, "{what}");
    }
    let numbers = parquet(vec![
        ("user", Arc::new(Int32Array::from(vec![7, -8])) as ArrayRef),
        ("item", Arc::new(UInt64Array::from(vec![u64::MAX, 3]))),
    ]);
    assert_eq!(
        prepared("n", numbers, &plain),
        "7:18446744073709551615 -8:3"
    );
}

#[test]
fn refusals() {
    let plain = PrepareSettings::default();
    let user: ArrayRef = Arc::new(Int32Array::from(vec![Some(1), None]));
    let item: ArrayRef = Arc::new(Int32Array::from(vec![1, 2]));
    let error = refused(
        "n.parquet",
        parquet(vec![("user", user), ("item", item.clone())]),
        &plain,
    );
    assert!(matches!(&error, DataError::Line { line: 2, .. }), "{error}");
    let flags: ArrayRef = Arc::new(BooleanArray::from(vec![true, false]));
    let error = refused(
        "b.parquet",
        parquet(vec![("user", flags), ("item", item.clone())]),
        &plain,
    );
    assert!(error.to_string().contains("found Boolean"), "{error}");
    let halves: ArrayRef = Arc::new(Float64Array::from(vec![1.0, f64::NAN]));
    let columns = vec![
        ("user", item.clone()),
        ("item", item.clone()),
        ("time", halves),
    ];
    let error = refused("t.parquet", parquet(columns), &plain);
    assert!(matches!(&error, DataError::Line { line: 2, .. }), "{error}");
    let none: ArrayRef = Arc::new(Int32Array::from(Vec::<i32>::new()));
    let error = refused(
        "e.parquet",
        parquet(vec![("user", none.clone()), ("item", none)]),
        &plain,
    );
    assert!(matches!(&error, DataError::HeaderOnly { .. }), "{error}");
    let whole = parquet(vec![("user", item.clone()), ("item", item)]);
    for cut in (0..whole.len()).step_by(7) {
        refused("cut.parquet", &whole[..cut], &plain);
    }
}
