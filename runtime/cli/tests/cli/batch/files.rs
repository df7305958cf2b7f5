//! Files of histories and of recommendations, written and read by arrow.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow_array::builder::{Int64Builder, ListBuilder, StringBuilder};
use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, Int32Type, Int64Type};
use arrow_array::{Array, ArrayRef, RecordBatch};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::properties::WriterProperties;
use serde_json::Value;

/// A row of either file; what the other has is empty.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Row {
    /// A string, an integer or null.
    pub(super) user: Value,
    pub(super) items: Vec<String>,
    pub(super) times: Option<Vec<i64>>,
    /// As bits, so that equal means equal.
    pub(super) scores: Vec<u32>,
    pub(super) shortfall: i64,
    pub(super) unknown: i64,
}

impl Row {
    /// A result of `slmrec-run history.json --format json`.
    pub(super) fn of(result: &Value) -> Self {
        let list = result["recommendations"].as_array().expect("list");
        let score = |row: &Value| row["score"].as_f64().expect("score") as f32;
        let unknown = result["unknown_items"].as_array().expect("ids");
        Self {
            user: result["user"].clone(),
            items: (list.iter())
                .map(|row| row["item"].as_str().expect("id").to_owned())
                .collect(),
            times: None,
            scores: list.iter().map(|row| score(row).to_bits()).collect(),
            shortfall: result["shortfall"].as_i64().unwrap_or(0),
            unknown: unknown.len() as i64,
        }
    }

    /// A line of a file of recommendations.
    fn of_line(line: &str) -> Self {
        let row: Value = serde_json::from_str(line).expect("JSON");
        let list = |name: &str| row[name].as_array().expect("a list").clone();
        let score = |value: &Value| value.as_f64().expect("a number") as f32;
        Self {
            user: row["user"].clone(),
            items: (list("items").iter())
                .map(|id| id.as_str().expect("id").to_owned())
                .collect(),
            times: None,
            scores: list("scores").iter().map(|v| score(v).to_bits()).collect(),
            shortfall: row["shortfall"].as_i64().expect("shortfall"),
            unknown: row["unknown"].as_i64().expect("unknown"),
        }
    }
}

/// Writes histories in row groups of `group` rows; users are integers where the first one is.
pub(super) fn write(path: &Path, rows: &[Row], group: usize) {
    let users: ArrayRef = match rows.first().map(|row| row.user.is_i64()) {
        Some(true) => {
            let mut column = Int64Builder::new();
            rows.iter()
                .for_each(|row| column.append_option(row.user.as_i64()));
            Arc::new(column.finish())
        }
        _ => {
            let mut column = StringBuilder::new();
            rows.iter()
                .for_each(|row| column.append_option(row.user.as_str()));
            Arc::new(column.finish())
        }
    };
    let mut history = ListBuilder::new(StringBuilder::new());
    let mut times = ListBuilder::new(Int64Builder::new());
    for row in rows {
        history.append_value(row.items.iter().map(Some));
        times.append_option(
            row.times
                .as_ref()
                .map(|times| times.iter().copied().map(Some)),
        );
    }
    let columns: [(&str, ArrayRef); 3] = [
        ("user", users),
        ("history", Arc::new(history.finish())),
        ("times", Arc::new(times.finish())),
    ];
    write_columns(
        path,
        columns.map(|(name, array)| (name, array, true)),
        group,
    );
}

/// Writes any columns; each with whether it may have nulls.
pub(super) fn write_columns<'a>(
    path: &Path,
    columns: impl IntoIterator<Item = (&'a str, ArrayRef, bool)>,
    group: usize,
) {
    let batch = RecordBatch::try_from_iter_with_nullable(columns).expect("columns");
    let properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(group))
        .build();
    let file = File::create(path).expect("file");
    let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties)).expect("writer");
    writer.write(&batch).expect("writes");
    writer.close().expect("closes");
}

/// Reads recommendations.
pub(super) fn read(path: &Path) -> Vec<Row> {
    if path.extension().is_some_and(|ending| ending != "parquet") {
        let text = std::fs::read_to_string(path).expect("lines");
        return text.lines().map(Row::of_line).collect();
    }
    let builder =
        ParquetRecordBatchReaderBuilder::try_new(File::open(path).expect("file")).expect("Parquet");
    let reader = builder.build().expect("reader");
    let rows = |batch: RecordBatch| (0..batch.num_rows()).map(|at| row(&batch, at)).collect();
    reader
        .flat_map(|batch| -> Vec<Row> { rows(batch.expect("batch")) })
        .collect()
}

fn row(batch: &RecordBatch, at: usize) -> Row {
    let column = |name: &str| batch.column_by_name(name).expect("column");
    let count = |name: &str| i64::from(column(name).as_primitive::<Int32Type>().value(at));
    let user = column("user");
    let items = column("items").as_list::<i32>().value(at);
    let scores = column("scores").as_list::<i32>().value(at);
    let scores = scores.as_primitive::<Float32Type>().values();
    Row {
        user: match user.as_string_opt::<i32>() {
            _ if user.is_null(at) => Value::Null,
            Some(text) => text.value(at).into(),
            None => user.as_primitive::<Int64Type>().value(at).into(),
        },
        items: (items.as_string::<i32>().iter())
            .map(|id| id.expect("no nulls").to_owned())
            .collect(),
        times: None,
        scores: scores.iter().map(|score| score.to_bits()).collect(),
        shortfall: count("shortfall"),
        unknown: count("unknown"),
    }
}
