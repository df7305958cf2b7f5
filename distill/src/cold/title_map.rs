//! The maps from title vectors to item embeddings.
//!
//! ```text
//! ridge        e(t) = mean(E) + (t - mean(T)) W,  W = (X^T X + s g I)^-1 X^T Y
//! neighbours   e(t) = mean of the embeddings of the k items whose titles are nearest by cosine
//! ```
//! X and Y are titles and embeddings less their means, s the strength, g the mean of X^T X's diagonal
//! (so that a strength means the same on every set). Both shrink: what they give is shorter than what
//! they were fitted on, and loses to it in dot products. `same_length` stretches each vector to the
//! mean length of the embeddings.

use candle_core::{D, DType, Device, Result as TensorResult, Tensor};
use serde::{Deserialize, Serialize};

use super::{ColdError, cholesky};

/// Cosines held at once (64 MiB of f32).
const COSINES_AT_ONCE: usize = 1 << 24;

/// Which function, with its one setting.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum MapKind {
    /// A linear map with a penalty on its weights.
    Ridge {
        /// Penalty, in units of the mean variance of the titles; above 0.
        strength: f64,
    },
    /// The mean of the nearest.
    Neighbours {
        /// How many.
        k: usize,
    },
}

/// A map before it is fitted.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MapChoice {
    /// The function.
    pub map: MapKind,
    /// Whether its vectors are stretched to the mean length of the embeddings.
    pub same_length: bool,
}

impl std::fmt::Display for MapChoice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.map {
            MapKind::Ridge { strength } => write!(f, "ridge, strength {strength}")?,
            MapKind::Neighbours { k } => write!(f, "mean of {k} neighbours")?,
        }
        f.write_str(if self.same_length { ", stretched" } else { "" })
    }
}

impl MapChoice {
    /// Every map that is tried.
    #[must_use]
    pub fn grid() -> Vec<Self> {
        let ridge = [0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0];
        let ridge = ridge.map(|strength| MapKind::Ridge { strength });
        let neighbours = [1, 3, 5, 10, 20, 50].map(|k| MapKind::Neighbours { k });
        let maps = ridge.into_iter().chain(neighbours);
        maps.flat_map(|map| [false, true].map(|same_length| Self { map, same_length }))
            .collect()
    }

    /// Whether it can be fitted on so many items.
    ///
    /// # Errors
    /// [`ColdError::Choice`].
    pub fn check(&self, items: usize) -> Result<(), ColdError> {
        let (right, expected, found) = match self.map {
            MapKind::Ridge { strength } => (
                strength.is_finite() && strength > 0.0,
                "a strength above 0".to_owned(),
                strength.to_string(),
            ),
            MapKind::Neighbours { k } => (
                (1..=items).contains(&k),
                format!("1..={items} neighbours"),
                k.to_string(),
            ),
        };
        if right {
            return Ok(());
        }
        Err(ColdError::Choice { expected, found })
    }
}

/// What a map remembers of the items that it was fitted on; all f32, on the CPU.
#[derive(Clone, Debug)]
pub(super) enum Fitted {
    Ridge {
        /// W `[T, D]`
        weight: Tensor,
        /// `[T]`
        title_mean: Tensor,
        /// `[D]`
        item_mean: Tensor,
    },
    Neighbours {
        /// Of length 1, `[n, T]`
        titles: Tensor,
        /// `[n, D]`
        items: Tensor,
        /// How many are read.
        k: usize,
    },
}

/// A fitted map.
#[derive(Clone, Debug)]
pub struct TitleMap {
    pub(super) choice: MapChoice,
    /// Mean length of the embeddings that it was fitted on.
    pub(super) length: f64,
    pub(super) fitted: Fitted,
}

impl TitleMap {
    /// Fits a map on title vectors `[n, T]` and embeddings `[n, D]` of the same items.
    ///
    /// # Errors
    /// Shapes that do not fit, no items, a zero title, a choice that [`MapChoice::check`] refuses, or
    /// titles that are all the same.
    pub fn fit(choice: MapChoice, titles: &Tensor, items: &Tensor) -> Result<Self, ColdError> {
        let titles = titles.to_device(&Device::Cpu)?.to_dtype(DType::F32)?;
        let items = items.to_device(&Device::Cpu)?.to_dtype(DType::F32)?;
        let (rows, others) = (titles.dims2()?.0, items.dims2()?.0);
        if rows != others {
            let expected = format!("embeddings of {rows} items");
            let found = others.to_string();
            return Err(ColdError::Choice { expected, found });
        }
        choice.check(rows)?;
        let unit = unit_rows(&titles)?;
        let lengths = items.sqr()?.sum(D::Minus1)?.sqrt()?;
        let length = f64::from(lengths.mean_all()?.to_scalar::<f32>()?);
        let fitted = match choice.map {
            MapKind::Neighbours { k } => Fitted::Neighbours {
                titles: unit,
                items,
                k,
            },
            MapKind::Ridge { strength } => ridge(strength, &titles, &items)?,
        };
        Ok(Self {
            choice,
            length,
            fitted,
        })
    }

    /// What was chosen.
    #[must_use]
    pub fn choice(&self) -> MapChoice {
        self.choice
    }

    /// T and D.
    ///
    /// # Errors
    /// Only what candle reports.
    pub fn sizes(&self) -> TensorResult<(usize, usize)> {
        match &self.fitted {
            Fitted::Ridge { weight, .. } => weight.dims2(),
            Fitted::Neighbours { titles, items, .. } => Ok((titles.dims2()?.1, items.dims2()?.1)),
        }
    }

    /// Embeddings f32 `[m, D]` of items with these title vectors `[m, T]`.
    ///
    /// # Errors
    /// A title vector of zeros, or of another size.
    pub fn embeddings(&self, titles: &Tensor) -> Result<Tensor, ColdError> {
        let titles = titles.to_device(&Device::Cpu)?.to_dtype(DType::F32)?;
        let (found, expected) = (titles.dims2()?.1, self.sizes()?.0);
        if found != expected {
            let expected = format!("title vectors of {expected} values");
            let found = found.to_string();
            return Err(ColdError::Choice { expected, found });
        }
        let unit = unit_rows(&titles)?;
        let plain = match &self.fitted {
            Fitted::Neighbours {
                titles: known,
                items,
                k,
            } => mean_of_nearest(&unit, known, items, *k)?,
            Fitted::Ridge {
                weight,
                title_mean,
                item_mean,
            } => (titles.broadcast_sub(title_mean)?.matmul(weight)?).broadcast_add(item_mean)?,
        };
        if !self.choice.same_length {
            return Ok(plain);
        }
        let lengths = plain.sqr()?.sum_keepdim(D::Minus1)?.sqrt()?;
        // A vector of zeros has no direction and stays.
        let lengths = lengths.maximum(f32::MIN_POSITIVE)?;
        Ok((plain.broadcast_div(&lengths)? * self.length)?)
    }
}

/// Rows of length 1.
fn unit_rows(titles: &Tensor) -> Result<Tensor, ColdError> {
    let lengths = titles.sqr()?.sum_keepdim(D::Minus1)?.sqrt()?;
    let flat: Vec<f32> = lengths.flatten_all()?.to_vec1()?;
    match flat.iter().position(|length| *length == 0.0) {
        Some(row) => Err(ColdError::NoTitle { row }),
        None => Ok(titles.broadcast_div(&lengths)?),
    }
}

fn ridge(strength: f64, titles: &Tensor, items: &Tensor) -> Result<Fitted, ColdError> {
    let (titles, items) = (titles.to_dtype(DType::F64)?, items.to_dtype(DType::F64)?);
    let (title_mean, item_mean) = (titles.mean(0)?, items.mean(0)?);
    let x = titles.broadcast_sub(&title_mean)?; // [n, T]
    let y = items.broadcast_sub(&item_mean)?; // [n, D]
    let (size, columns) = (x.dims2()?.1, y.dims2()?.1);
    let transposed = x.t()?.contiguous()?;
    let mut gram: Vec<f64> = transposed.matmul(&x)?.flatten_all()?.to_vec1()?;
    let right: Vec<f64> = transposed.matmul(&y)?.flatten_all()?.to_vec1()?;
    let diagonal = || (0..size).map(|at| at * size + at);
    let mean = diagonal().map(|at| gram[at]).sum::<f64>() / size as f64;
    diagonal().for_each(|at| gram[at] += strength * mean);
    let weight = cholesky::solve(gram, right, size)
        .ok_or_else(|| ColdError::SameTitles { items: x.dims()[0] })?;
    let weight = Tensor::from_vec(weight, (size, columns), &Device::Cpu)?;
    Ok(Fitted::Ridge {
        weight: weight.to_dtype(DType::F32)?,
        title_mean: title_mean.to_dtype(DType::F32)?,
        item_mean: item_mean.to_dtype(DType::F32)?,
    })
}

/// Equal cosines: the row that comes first is nearer.
fn mean_of_nearest(
    asked: &Tensor,
    titles: &Tensor,
    items: &Tensor,
    k: usize,
) -> TensorResult<Tensor> {
    let (rows, known) = (asked.dims2()?.0, titles.dims2()?.0);
    let columns = titles.t()?;
    let batch = (COSINES_AT_ONCE / known.max(1)).max(1);
    let mut nearest = Vec::with_capacity(rows * k);
    for start in (0..rows).step_by(batch) {
        let asked = asked.narrow(0, start, batch.min(rows - start))?;
        for cosines in asked.matmul(&columns)?.to_vec2::<f32>()? {
            let mut order: Vec<u32> = (0..known as u32).collect();
            order.sort_by(|&a, &b| cosines[b as usize].total_cmp(&cosines[a as usize]));
            nearest.extend_from_slice(&order[..k]);
        }
    }
    let nearest = Tensor::from_vec(nearest, rows * k, &Device::Cpu)?;
    let size = items.dims2()?.1;
    (items.index_select(&nearest, 0)?)
        .reshape((rows, k, size))?
        .mean(1)
}
