//! Answers as Parquet, compressed by zstd: a row group a part.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use arrow_array::builder::{
    ArrayBuilder, Float32Builder, Int64Builder, ListBuilder, StringBuilder,
};
use arrow_array::{ArrayRef, Int32Array, RecordBatch};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use parquet::arrow::{ArrowSchemaConverter, ArrowWriter};
use parquet::basic::{Compression, ZstdLevel};
use parquet::column::writer::ColumnCloseResult;
use parquet::file::metadata::ParquetMetaDataReader;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;

use super::input::UserType;
use super::{Answer, PART_ROWS, User};

/// Columns `user`, `items`, `scores`, `shortfall`, `unknown`.
fn schema(users: UserType) -> SchemaRef {
    let user = match users {
        UserType::Text => DataType::Utf8,
        UserType::Integer => DataType::Int64,
    };
    let list = |name: &str, item: DataType| {
        let item = Field::new("element", item, false);
        Field::new(name, DataType::List(Arc::new(item)), false)
    };
    Arc::new(Schema::new(vec![
        Field::new("user", user, true),
        list("items", DataType::Utf8),
        list("scores", DataType::Float32),
        Field::new("shortfall", DataType::Int32, false),
        Field::new("unknown", DataType::Int32, false),
    ]))
}

fn properties() -> WriterProperties {
    WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_created_by(format!("slmrec-run {}", env!("CARGO_PKG_VERSION")))
        .set_max_row_group_row_count(Some(PART_ROWS))
        .build()
}

/// Writes a part.
pub(super) fn write(
    file: &mut (impl Write + Send),
    users: UserType,
    fill: impl FnOnce(&mut super::output::Write<'_>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let schema = schema(users);
    let mut writer = ArrowWriter::try_new(file, schema.clone(), Some(properties()))?;
    fill(&mut |answers| {
        let batch = RecordBatch::try_new(schema.clone(), columns(users, answers)?)?;
        Ok(writer.write(&batch)?)
    })?;
    writer.close()?;
    Ok(())
}

fn columns(users: UserType, answers: &[Answer]) -> anyhow::Result<Vec<ArrayRef>> {
    let counts = |of: fn(&Answer) -> u32| -> anyhow::Result<ArrayRef> {
        let counts = answers.iter().map(|answer| i32::try_from(of(answer)));
        let counts: Vec<i32> = counts.collect::<Result<_, _>>()?;
        Ok(Arc::new(Int32Array::from(counts)))
    };
    Ok(vec![
        user_column(users, answers),
        items_column(answers),
        scores_column(answers),
        counts(|answer| answer.shortfall)?,
        counts(|answer| answer.unknown)?,
    ])
}

/// An input has users of one type, so the other one does not occur.
fn user_column(users: UserType, answers: &[Answer]) -> ArrayRef {
    match users {
        UserType::Text => {
            let mut column = StringBuilder::new();
            for answer in answers {
                match &answer.user {
                    User::Text(user) => column.append_value(user),
                    User::Nobody | User::Integer(_) => column.append_null(),
                }
            }
            Arc::new(column.finish())
        }
        UserType::Integer => {
            let mut column = Int64Builder::new();
            for answer in answers {
                match answer.user {
                    User::Integer(user) => column.append_value(user),
                    User::Nobody | User::Text(_) => column.append_null(),
                }
            }
            Arc::new(column.finish())
        }
    }
}

fn items_column(answers: &[Answer]) -> ArrayRef {
    let mut column = list(StringBuilder::new(), DataType::Utf8);
    for answer in answers {
        for item in &answer.items {
            column.values().append_value(item);
        }
        column.append(true);
    }
    Arc::new(column.finish())
}

fn scores_column(answers: &[Answer]) -> ArrayRef {
    let mut column = list(Float32Builder::new(), DataType::Float32);
    for answer in answers {
        column.values().append_slice(&answer.scores);
        column.append(true);
    }
    Arc::new(column.finish())
}

fn list<B: ArrayBuilder>(values: B, item: DataType) -> ListBuilder<B> {
    ListBuilder::new(values).with_field(Field::new("element", item, false))
}

/// Copies the row groups of the parts as they are.
pub(super) fn merge(
    file: &mut (impl Write + Send),
    users: UserType,
    parts: &[PathBuf],
) -> anyhow::Result<()> {
    let schema = ArrowSchemaConverter::new().convert(&schema(users))?;
    let mut writer =
        SerializedFileWriter::new(file, schema.root_schema_ptr(), Arc::new(properties()))?;
    for part in parts {
        copy(part, &mut writer).with_context(|| part.display().to_string())?;
    }
    writer.close()?;
    Ok(())
}

fn copy<W: Write + Send>(part: &Path, writer: &mut SerializedFileWriter<W>) -> anyhow::Result<()> {
    let file = File::open(part)?;
    let metadata = ParquetMetaDataReader::new().parse_and_finish(&file)?;
    for group in metadata.row_groups() {
        let mut into = writer.next_row_group()?;
        for column in group.columns() {
            let whole = ColumnCloseResult {
                bytes_written: u64::try_from(column.compressed_size())?,
                rows_written: u64::try_from(group.num_rows())?,
                metadata: column.clone(),
                bloom_filter: None,
                column_index: None,
                offset_index: None,
            };
            into.append_column(&file, whole)?;
        }
        into.close()?;
    }
    Ok(())
}
