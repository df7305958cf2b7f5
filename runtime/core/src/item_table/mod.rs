//! The item table: one embedding a row, stored as f32, f16 or int8 with a scale per row.
//!
//! Row 0 (padding) is not stored. int8 rows are symmetric: `value = scale[row] * q`, with
//! `scale = max|row| / 127`, so a row of zeros has scale 0.
//!
//! Byte layout, little-endian: magic `SLMITEMS`, `u32` row type (0 f32, 1 f16, 2 int8), `u32`
//! dimension D, `u64` rows N, then for int8 N x `f32` scales, then N x D values.

use half::f16;
use serde::{Deserialize, Serialize};

use crate::ranking::RankingError;
use crate::vocabulary::ItemIndex;

pub(crate) mod kernel;

use kernel::{Kernel, ROWS, UserVector, Work, dispatch, score_floats, score_int8};

const MAGIC: &[u8; 8] = b"SLMITEMS";
const HEADER: usize = 24;
/// Largest embedding dimension that a table may have.
pub const MAX_DIM: usize = 16_384;

/// How rows are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RowType {
    /// 32-bit floats.
    F32,
    /// 16-bit floats.
    F16,
    /// 8-bit integers with an f32 scale per row.
    Int8,
}

impl std::fmt::Display for RowType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Int8 => "int8",
        })
    }
}

impl RowType {
    fn code(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Int8 => 2,
        }
    }

    fn width(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 => 2,
            Self::Int8 => 1,
        }
    }
}

/// Why bytes or values are not an item table.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ItemTableError {
    /// Not the magic bytes, or too short for a header.
    #[error("not an item table: expected {expected}, found {found}")]
    Header {
        /// What should stand there.
        expected: String,
        /// What stands there.
        found: String,
    },
    /// The header promises another length.
    #[error("item table of {rows} rows x {dim} needs {expected} bytes, found {found}")]
    Length {
        /// Rows in the header.
        rows: u64,
        /// Dimension in the header.
        dim: u32,
        /// Bytes that follow from them.
        expected: u64,
        /// Bytes there are.
        found: u64,
    },
    /// A value that is not finite.
    #[error("row {row} of the item table has a value that is not finite")]
    NotFinite {
        /// The row, counted from 1.
        row: usize,
    },
}

#[derive(Clone, Debug, PartialEq)]
enum Rows {
    F32(Vec<f32>),
    F16(Vec<f16>),
    Int8 { values: Vec<i8>, scales: Vec<f32> },
}

/// Embeddings of the catalog, N rows of D values.
#[derive(Clone, Debug, PartialEq)]
pub struct ItemTable {
    dim: usize,
    items: usize,
    rows: Rows,
}

impl ItemTable {
    /// Stores `values` (row-major `[N, D]`, first row = item row 1) as `row_type`.
    ///
    /// # Errors
    /// A length that is no multiple of `dim`, a dimension of 0 or above [`MAX_DIM`], or a value
    /// that is not finite (or not finite as f16).
    pub fn from_f32(values: &[f32], dim: usize, row_type: RowType) -> Result<Self, ItemTableError> {
        if dim == 0 || dim > MAX_DIM || !values.len().is_multiple_of(dim) {
            return Err(ItemTableError::Header {
                expected: format!("rows of 1..={MAX_DIM} values"),
                found: format!("{} values with dimension {dim}", values.len()),
            });
        }
        let rows = match row_type {
            RowType::F32 => Rows::F32(values.to_vec()),
            RowType::F16 => Rows::F16(values.iter().map(|&v| f16::from_f32(v)).collect()),
            RowType::Int8 => quantize_rows(values, dim),
        };
        let table = Self {
            dim,
            items: values.len() / dim,
            rows,
        };
        table.check_finite()?;
        Ok(table)
    }

    /// Embedding dimension D.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Number of items N.
    #[must_use]
    pub fn len(&self) -> usize {
        self.items
    }

    /// Whether there is no item.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items == 0
    }

    /// How rows are stored.
    #[must_use]
    pub fn row_type(&self) -> RowType {
        match self.rows {
            Rows::F32(_) => RowType::F32,
            Rows::F16(_) => RowType::F16,
            Rows::Int8 { .. } => RowType::Int8,
        }
    }

    /// Appends the rows of another table.
    ///
    /// # Errors
    /// Another dimension or row type; nothing is appended then.
    pub fn append(&mut self, other: Self) -> Result<(), ItemTableError> {
        let same_dim = self.dim == other.dim;
        match (&mut self.rows, other.rows) {
            (Rows::F32(rows), Rows::F32(more)) if same_dim => rows.extend(more),
            (Rows::F16(rows), Rows::F16(more)) if same_dim => rows.extend(more),
            (
                Rows::Int8 { values, scales },
                Rows::Int8 {
                    values: v,
                    scales: s,
                },
            ) if same_dim => {
                values.extend(v);
                scales.extend(s);
            }
            (_, rows) => {
                let other = Self { rows, ..other };
                let describe = |t: &Self| format!("{:?} rows of {}", t.row_type(), t.dim);
                return Err(ItemTableError::Header {
                    expected: describe(self),
                    found: describe(&other),
                });
            }
        }
        self.items += other.items;
        Ok(())
    }

    /// Appends the embedding of an item to `out`; `false` (and nothing appended) for the padding
    /// and for rows past the end.
    pub fn append_row(&self, item: ItemIndex, out: &mut Vec<f32>) -> bool {
        let Some(row) = item.row().checked_sub(1).filter(|&row| row < self.items) else {
            return false;
        };
        let range = row * self.dim..(row + 1) * self.dim;
        match &self.rows {
            Rows::F32(values) => out.extend_from_slice(&values[range]),
            Rows::F16(values) => out.extend(values[range].iter().map(|v| v.to_f32())),
            Rows::Int8 { values, scales } => {
                let scale = scales[row];
                out.extend(values[range].iter().map(|&v| scale * f32::from(v)));
            }
        }
        true
    }

    /// The whole table as f32, row-major `[N, D]`.
    #[must_use]
    pub fn to_f32(&self) -> Vec<f32> {
        let mut out = Vec::with_capacity(self.items * self.dim);
        for row in 1..=self.items as u32 {
            self.append_row(ItemIndex(row), &mut out);
        }
        out
    }

    /// Scores every item against a user vector of D values: `scores[i]` is the dot product with
    /// row `i + 1`. For int8 rows the user vector is rounded to 16 bits.
    ///
    /// # Panics
    /// When `user_vector` has not D values: a caller's mistake, not a file's.
    #[must_use]
    pub fn scores(&self, user_vector: &[f32]) -> Vec<f32> {
        dispatch(ScoreRows {
            table: self,
            user: self.user_vector(user_vector),
            rows: self.items,
            row: |at| at,
        })
    }

    /// Scores some items, in their order; each score is that of [`Self::scores`].
    ///
    /// # Errors
    /// [`RankingError::OutOfRange`] for the padding and rows past the end.
    ///
    /// # Panics
    /// As [`Self::scores`].
    pub fn scores_of(
        &self,
        user_vector: &[f32],
        items: &[ItemIndex],
    ) -> Result<Vec<f32>, RankingError> {
        let stranger = |item: &&ItemIndex| item.row() == 0 || item.row() > self.items;
        if let Some(item) = items.iter().find(stranger) {
            return Err(RankingError::OutOfRange {
                row: item.0,
                items: self.items,
            });
        }
        Ok(dispatch(ScoreRows {
            table: self,
            user: self.user_vector(user_vector),
            rows: items.len(),
            row: |at: usize| items[at].row() - 1,
        }))
    }

    /// A user vector as the rows' kernel reads it.
    pub(crate) fn user_vector<'a>(&self, values: &'a [f32]) -> UserVector<'a> {
        assert_eq!(values.len(), self.dim, "user vector length");
        match self.rows {
            Rows::F32(_) | Rows::F16(_) => UserVector::floats(values),
            Rows::Int8 { .. } => UserVector::integers(values),
        }
    }

    /// Scores of four rows, counted from 0.
    #[inline(always)]
    pub(crate) fn score_rows<K: Kernel>(
        &self,
        kernel: K,
        at: [usize; ROWS],
        user: &UserVector<'_>,
    ) -> [f32; ROWS] {
        let range = |row: usize| row * self.dim..(row + 1) * self.dim;
        match &self.rows {
            Rows::F32(values) => score_floats(kernel, at.map(|row| &values[range(row)]), user),
            Rows::F16(values) => score_floats(kernel, at.map(|row| &values[range(row)]), user),
            Rows::Int8 { values, scales } => {
                let rows = at.map(|row| &values[range(row)]);
                score_int8(kernel, rows, at.map(|row| scales[row]), user)
            }
        }
    }

    /// Bytes of the rows, for deciding how much there is to do.
    pub(crate) fn row_bytes(&self) -> usize {
        self.dim * self.row_type().width()
    }

    /// The byte form described at the top of the module.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let row_type = self.row_type();
        let mut out = Vec::with_capacity(HEADER + self.items * (self.dim * row_type.width() + 4));
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&row_type.code().to_le_bytes());
        out.extend_from_slice(&(self.dim as u32).to_le_bytes());
        out.extend_from_slice(&(self.items as u64).to_le_bytes());
        match &self.rows {
            Rows::F32(values) => out.extend(values.iter().flat_map(|v| v.to_le_bytes())),
            Rows::F16(values) => out.extend(values.iter().flat_map(|v| v.to_le_bytes())),
            Rows::Int8 { values, scales } => {
                out.extend(scales.iter().flat_map(|v| v.to_le_bytes()));
                out.extend(values.iter().map(|&v| v.cast_unsigned()));
            }
        }
        out
    }

    /// Reads what [`Self::to_bytes`] wrote; the bytes are not trusted.
    ///
    /// # Errors
    /// A wrong header, a length that does not follow from it, values that are not finite.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ItemTableError> {
        let (row_type, dim, items) = parse_header(bytes)?;
        let scales_len = if row_type == RowType::Int8 {
            items * 4
        } else {
            0
        };
        let (scales, values) = bytes[HEADER..].split_at(scales_len);
        let rows = match row_type {
            RowType::F32 => Rows::F32(read_f32(values)),
            RowType::F16 => Rows::F16(
                values
                    .chunks_exact(2)
                    .map(|b| f16::from_le_bytes([b[0], b[1]]))
                    .collect(),
            ),
            RowType::Int8 => Rows::Int8 {
                values: values.iter().map(|&b| b.cast_signed()).collect(),
                scales: read_f32(scales),
            },
        };
        let table = Self { dim, items, rows };
        table.check_finite()?;
        Ok(table)
    }

    fn check_finite(&self) -> Result<(), ItemTableError> {
        let bad = match &self.rows {
            Rows::F32(values) => values.iter().position(|v| !v.is_finite()),
            Rows::F16(values) => values.iter().position(|v| !v.is_finite()),
            Rows::Int8 { scales, .. } => scales
                .iter()
                .position(|v| !v.is_finite())
                .map(|row| row * self.dim),
        };
        match bad {
            Some(at) => Err(ItemTableError::NotFinite {
                row: at / self.dim + 1,
            }),
            None => Ok(()),
        }
    }
}

/// Scores of `rows` rows; `row` says which one stands where.
struct ScoreRows<'a, F> {
    table: &'a ItemTable,
    user: UserVector<'a>,
    rows: usize,
    row: F,
}

impl<F: Fn(usize) -> usize> Work for ScoreRows<'_, F> {
    type Output = Vec<f32>;

    #[inline(always)]
    fn run<K: Kernel>(self, kernel: K) -> Vec<f32> {
        let mut scores = Vec::with_capacity(self.rows.next_multiple_of(ROWS));
        for from in (0..self.rows).step_by(ROWS) {
            // The last group repeats its last row.
            let at = std::array::from_fn(|i| (self.row)((from + i).min(self.rows - 1)));
            scores.extend(self.table.score_rows(kernel, at, &self.user));
        }
        scores.truncate(self.rows);
        scores
    }
}

fn parse_header(bytes: &[u8]) -> Result<(RowType, usize, usize), ItemTableError> {
    let bad = |expected: &str, found: String| ItemTableError::Header {
        expected: expected.to_owned(),
        found,
    };
    if bytes.len() < HEADER || &bytes[..8] != MAGIC {
        return Err(bad(
            "the magic bytes SLMITEMS",
            format!("{} bytes of something else", bytes.len()),
        ));
    }
    let word =
        |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let row_type = match word(8) {
        0 => RowType::F32,
        1 => RowType::F16,
        2 => RowType::Int8,
        other => return Err(bad("row type 0, 1 or 2", other.to_string())),
    };
    let dim = word(12);
    if dim == 0 || dim as usize > MAX_DIM {
        return Err(bad("a dimension of 1..=16384", dim.to_string()));
    }
    let rows = u64::from(word(16)) | u64::from(word(20)) << 32;
    let scale = if row_type == RowType::Int8 { 4 } else { 0 };
    let row_bytes = u64::from(dim) * row_type.width() as u64 + scale;
    let expected = rows
        .checked_mul(row_bytes)
        .and_then(|n| n.checked_add(HEADER as u64))
        .unwrap_or(u64::MAX);
    let found = bytes.len() as u64;
    if expected != found {
        return Err(ItemTableError::Length {
            rows,
            dim,
            expected,
            found,
        });
    }
    Ok((row_type, dim as usize, rows as usize))
}

fn read_f32(bytes: &[u8]) -> Vec<f32> {
    bytes
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
        .collect()
}

fn quantize_rows(values: &[f32], dim: usize) -> Rows {
    let mut scales = Vec::with_capacity(values.len() / dim);
    let mut quantized = Vec::with_capacity(values.len());
    for row in values.chunks_exact(dim) {
        // A NaN must reach the scale, so that it is refused and not rounded away.
        let max = row.iter().fold(
            0.0f32,
            |m, v| {
                if v.is_nan() { f32::NAN } else { m.max(v.abs()) }
            },
        );
        let scale = if row.iter().any(|v| v.is_nan()) {
            f32::NAN
        } else {
            max / 127.0
        };
        let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
        scales.push(scale);
        quantized.extend(
            row.iter()
                .map(|v| (v * inverse).round().clamp(-127.0, 127.0) as i8),
        );
    }
    Rows::Int8 {
        values: quantized,
        scales,
    }
}

#[cfg(test)]
mod tests;
