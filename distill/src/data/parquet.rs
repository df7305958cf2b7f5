//! Apache Parquet, row group by row group.

use std::fs::File;
use std::path::Path;

use ::parquet::arrow::ProjectionMask;
use ::parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, GenericListArray, OffsetSizeTrait, RecordBatch, types};
use arrow_schema::{DataType, TimeUnit};

use super::error::io_error;
use super::layout::{Layout, format_error};
use super::rows::{Cell, OnRow, Progress, ReadStats};
use super::time;
use super::{DataError, Format};

const BATCH_ROWS: usize = 8192;

fn open(path: &Path) -> Result<ParquetRecordBatchReaderBuilder<File>, DataError> {
    let file = File::open(path).map_err(|e| io_error(path, e))?;
    // The Arrow schema some writers leave would bring dictionaries and views; the file's own has
    // plain types only.
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let length = file.metadata().map_err(|e| io_error(path, e))?.len();
    let builder = ParquetRecordBatchReaderBuilder::try_new_with_options(file, options)
        .map_err(|e| broken(path, &e))?;
    check_places(path, &builder, length)?;
    Ok(builder)
}

/// The reader trusts the places of the column chunks and panics on negative ones.
fn check_places(
    path: &Path,
    builder: &ParquetRecordBatchReaderBuilder<File>,
    length: u64,
) -> Result<(), DataError> {
    let groups = builder.metadata().row_groups().iter();
    for column in groups.flat_map(|group| group.columns()) {
        let start = column
            .dictionary_page_offset()
            .unwrap_or_else(|| column.data_page_offset());
        let size = column.compressed_size();
        let end = u64::try_from(start)
            .ok()
            .zip(u64::try_from(size).ok())
            .and_then(|(start, size)| start.checked_add(size));
        if end.is_none_or(|end| end > length) {
            let found = format!("a column at byte {start} of {size} bytes in a file of {length}");
            return Err(broken(path, &found));
        }
    }
    Ok(())
}

fn broken(path: &Path, error: &dyn std::fmt::Display) -> DataError {
    let hint = "is the file complete? Supported codecs are none, snappy and zstd";
    format_error(path, "a readable Parquet file", error.to_string(), hint)
}

/// The columns at the top level.
pub(super) fn layout(path: &Path) -> Result<Layout, DataError> {
    let builder = open(path)?;
    let fields = builder.schema().fields().iter();
    let names = fields.map(|field| field.name().clone()).collect();
    Ok(Layout::new(Format::Parquet, names))
}

/// Reads the wanted columns only.
pub(super) fn read(
    path: &Path,
    layout: &Layout,
    wanted: &[usize],
    progress: &Progress<'_>,
    on_row: &mut OnRow<'_>,
) -> Result<ReadStats, DataError> {
    let builder = open(path)?;
    let rows = u64::try_from(builder.metadata().file_metadata().num_rows()).unwrap_or(0);
    let bytes_per_row = progress.total() as f64 / rows.max(1) as f64;
    let mask = ProjectionMask::roots(builder.parquet_schema(), wanted.iter().copied());
    let reader = builder
        .with_projection(mask)
        .with_batch_size(BATCH_ROWS)
        .build()
        .map_err(|e| broken(path, &e))?;
    let mut stats = ReadStats::default();
    for batch in reader {
        let batch = batch.map_err(|e| broken(path, &e))?;
        let columns = wanted_columns(path, layout, wanted, &batch)?;
        for row in 0..batch.num_rows() {
            stats.rows += 1;
            let cells: Vec<Cell<'_>> = columns.iter().map(|c| c.cell(row)).collect();
            on_row(stats.rows, Ok(&cells))?;
        }
        progress.at((stats.rows as f64 * bytes_per_row) as u64);
    }
    Ok(stats)
}

/// A projection keeps the order of the file, not of the wish, so columns are found by name.
fn wanted_columns<'b>(
    path: &Path,
    layout: &Layout,
    wanted: &[usize],
    batch: &'b RecordBatch,
) -> Result<Vec<Column<'b>>, DataError> {
    let column = |&at: &usize| {
        let name = &layout.columns[at];
        let array = batch
            .column_by_name(name)
            .ok_or_else(|| broken(path, &format_args!("no column {name:?}")))?;
        Column::new(array).ok_or_else(|| {
            format_error(
                path,
                format!("text, lists of text, numbers or timestamps in the column {name:?}"),
                array.data_type().to_string(),
                "write the column as one of these",
            )
        })
    };
    wanted.iter().map(column).collect()
}

/// A column of a type that we read, with its values at hand.
struct Column<'b> {
    array: &'b ArrayRef,
    value: Box<dyn Fn(usize) -> Cell<'b> + 'b>,
}

impl<'b> Column<'b> {
    fn new(array: &'b ArrayRef) -> Option<Self> {
        macro_rules! numbers {
            ($type:ty, $cell:expr) => {{
                let values = array.as_primitive::<$type>().values();
                Box::new(move |row| $cell(values[row]))
            }};
        }
        let value: Box<dyn Fn(usize) -> Cell<'b> + 'b> = match array.data_type() {
            DataType::Utf8 => {
                let values = array.as_string::<i32>();
                Box::new(move |row| Cell::Text(values.value(row)))
            }
            DataType::LargeUtf8 => {
                let values = array.as_string::<i64>();
                Box::new(move |row| Cell::Text(values.value(row)))
            }
            DataType::Int8 => numbers!(types::Int8Type, |v| Cell::Integer(i64::from(v))),
            DataType::Int16 => numbers!(types::Int16Type, |v| Cell::Integer(i64::from(v))),
            DataType::Int32 => numbers!(types::Int32Type, |v| Cell::Integer(i64::from(v))),
            DataType::Int64 => numbers!(types::Int64Type, Cell::Integer),
            DataType::UInt8 => numbers!(types::UInt8Type, |v| Cell::Integer(i64::from(v))),
            DataType::UInt16 => numbers!(types::UInt16Type, |v| Cell::Integer(i64::from(v))),
            DataType::UInt32 => numbers!(types::UInt32Type, |v| Cell::Integer(i64::from(v))),
            DataType::UInt64 => numbers!(types::UInt64Type, |v| {
                i64::try_from(v).map_or(Cell::Large(v), Cell::Integer)
            }),
            DataType::Float32 => numbers!(types::Float32Type, |v| Cell::Float(f64::from(v))),
            DataType::Float64 => numbers!(types::Float64Type, Cell::Float),
            DataType::Date32 => numbers!(types::Date32Type, |days| {
                Cell::Instant(time::from_parts(i64::from(days) * 86_400, 1))
            }),
            DataType::Timestamp(unit, _) => Self::timestamps(array, *unit),
            DataType::List(_) => Self::lists(array.as_list::<i32>())?,
            DataType::LargeList(_) => Self::lists(array.as_list::<i64>())?,
            _ => return None,
        };
        Some(Self { array, value })
    }

    /// Lists of texts.
    fn lists<O: OffsetSizeTrait>(
        lists: &'b GenericListArray<O>,
    ) -> Option<Box<dyn Fn(usize) -> Cell<'b> + 'b>> {
        let texts = lists.values().as_string_opt::<i32>()?;
        let offsets = lists.value_offsets();
        Some(Box::new(move |row| {
            let within = offsets[row].as_usize()..offsets[row + 1].as_usize();
            let present = within.filter(|&at| !texts.is_null(at));
            Cell::List(present.map(|at| texts.value(at)).collect())
        }))
    }

    fn timestamps(array: &'b ArrayRef, unit: TimeUnit) -> Box<dyn Fn(usize) -> Cell<'b> + 'b> {
        let (values, per_second) = match unit {
            TimeUnit::Second => (
                array.as_primitive::<types::TimestampSecondType>().values(),
                1,
            ),
            TimeUnit::Millisecond => (
                array
                    .as_primitive::<types::TimestampMillisecondType>()
                    .values(),
                1000,
            ),
            TimeUnit::Microsecond => (
                array
                    .as_primitive::<types::TimestampMicrosecondType>()
                    .values(),
                1_000_000,
            ),
            TimeUnit::Nanosecond => (
                array
                    .as_primitive::<types::TimestampNanosecondType>()
                    .values(),
                1_000_000_000,
            ),
        };
        Box::new(move |row| Cell::Instant(time::from_parts(values[row], per_second)))
    }

    fn cell(&self, row: usize) -> Cell<'b> {
        match self.array.is_null(row) {
            true => Cell::Missing,
            false => (self.value)(row),
        }
    }
}
