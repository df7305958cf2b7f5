//! The rows of a trained item table that one step reads, where a step reads few of them.
//!
//! With a sampled softmax over hundreds of thousands of items, a step reads some thousand rows of the
//! table. Its gradient as one dense tensor is nearly all zeros, yet as large as the table, and so is
//! the optimizer's work. So each lookup of such a step becomes a leaf of its own, and what arrives at
//! the leaves is added up row by row.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Result, Tensor, TensorId, Var};

use super::title_projection::TitleProjection;

/// Lookups of one step, made by its forward pass and read after its backward pass.
#[derive(Debug, Default)]
pub struct ItemLookups(Mutex<Vec<Lookup>>);

#[derive(Debug)]
struct Lookup {
    table: TensorId,
    rows: Vec<u32>,
    /// `[rows, D]`
    leaf: Var,
}

/// A gradient that is zero but for some rows of its parameter.
#[derive(Clone, Debug)]
pub struct RowGradient {
    /// The rows, ascending, each once.
    pub rows: Vec<u32>,
    /// Their gradients `[rows, D]`, f32.
    pub values: Tensor,
}

impl ItemLookups {
    /// `table[rows]`, `[rows, D]`. Where the table is trained, the gradient goes to [`Self::gradient`]
    /// instead of the table.
    ///
    /// # Errors
    /// A row that the table does not have; a table that is computed from what is trained, since the
    /// gradient would end here.
    pub fn lookup(&self, table: &Tensor, rows: &[u32]) -> Result<Tensor> {
        if table.track_op() && !table.is_variable() {
            candle_core::bail!("a lookup in a table that is computed from what is trained");
        }
        let places = Tensor::new(rows, table.device())?;
        let found = table.detach().index_select(&places, 0)?;
        if !table.track_op() {
            return Ok(found);
        }
        let leaf = Var::from_tensor(&found)?;
        let tensor = leaf.as_tensor().clone();
        self.lookups().push(Lookup {
            table: table.id(),
            rows: rows.to_vec(),
            leaf,
        });
        Ok(tensor)
    }

    /// Takes out the gradient of `table`, or `None` where no lookup of it was on the way to the loss.
    /// Lookups are added up in their order.
    ///
    /// # Errors
    /// Only what candle reports.
    pub fn gradient(&self, table: &Tensor, gradients: &GradStore) -> Result<Option<RowGradient>> {
        let of_table = |lookup: &mut Lookup| lookup.table == table.id();
        let lookups: Vec<Lookup> = self.lookups().extract_if(.., of_table).collect();
        let mut parts = Vec::new();
        for lookup in &lookups {
            if let Some(gradient) = gradients.get(&lookup.leaf) {
                parts.push((&lookup.rows, gradient.to_dtype(DType::F32)?));
            }
        }
        if parts.is_empty() {
            return Ok(None);
        }
        let mut places: BTreeMap<u32, u32> = (parts.iter())
            .flat_map(|(rows, _)| rows.iter().map(|row| (*row, 0)))
            .collect();
        for (place, at) in places.values_mut().zip(0..) {
            *place = at;
        }
        let width = table.dims2()?.1;
        let mut values = Tensor::zeros((places.len(), width), DType::F32, table.device())?;
        for (rows, part) in parts {
            let at: Vec<u32> = rows.iter().map(|row| places[row]).collect();
            values = values.index_add(&Tensor::new(at, table.device())?, &part.contiguous()?, 0)?;
        }
        Ok(Some(RowGradient {
            rows: places.into_keys().collect(),
            values,
        }))
    }

    fn lookups(&self) -> MutexGuard<'_, Vec<Lookup>> {
        // A list stays a list, whoever panicked while holding it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The item embeddings as the loss of a step sees them: a table, and what titles add to it.
#[derive(Clone, Copy, Debug)]
pub struct ItemTable<'a> {
    /// `[N + 1, D]`, row 0 for the padding.
    pub weight: &'a Tensor,
    /// What is added to each row.
    pub titles: Option<&'a TitleProjection>,
    /// Whether each row is then scaled to length 1.
    pub unit_rows: bool,
    /// Takes the gradient of single rows; `None` for one dense gradient.
    pub lookups: Option<&'a ItemLookups>,
}

impl<'a> From<&'a Tensor> for ItemTable<'a> {
    fn from(weight: &'a Tensor) -> Self {
        Self {
            weight,
            titles: None,
            unit_rows: false,
            lookups: None,
        }
    }
}

impl<'a> ItemTable<'a> {
    /// The same with other lookups.
    #[must_use]
    pub fn with(self, lookups: Option<&'a ItemLookups>) -> Self {
        Self { lookups, ..self }
    }

    /// Number of rows N + 1, and D.
    ///
    /// # Errors
    /// A table that is no matrix.
    pub fn dims(&self) -> Result<(usize, usize)> {
        self.weight.dims2()
    }

    /// Where it lies.
    #[must_use]
    pub fn device(&self) -> &'a Device {
        self.weight.device()
    }

    /// The whole table `[N + 1, D]` with its gradient, dense.
    ///
    /// # Errors
    /// Only what candle reports.
    pub fn all(&self) -> Result<Tensor> {
        let all = match self.titles {
            Some(titles) => (self.weight + titles.all()?)?,
            None => self.weight.clone(),
        };
        self.scaled(all)
    }

    /// Some rows `[rows, D]` with their gradient.
    ///
    /// # Errors
    /// A row that the table does not have.
    pub fn rows(&self, rows: &[u32]) -> Result<Tensor> {
        let places = Tensor::new(rows, self.device())?;
        let found = match self.lookups {
            Some(lookups) => lookups.lookup(self.weight, rows)?,
            None => self.weight.index_select(&places, 0)?,
        };
        let found = match self.titles {
            Some(titles) => (found + titles.rows(&places)?)?,
            None => found,
        };
        self.scaled(found)
    }

    fn scaled(&self, rows: Tensor) -> Result<Tensor> {
        match self.unit_rows {
            true => unit_rows(&rows),
            false => Ok(rows),
        }
    }
}

/// The rows of a matrix, each scaled to length 1; one of zeros stays so.
///
/// # Errors
/// Only what candle reports.
pub fn unit_rows(rows: &Tensor) -> Result<Tensor> {
    // Below any length that training leaves, and enough to divide a row of zeros by.
    const LEAST: f64 = 1e-12;
    let lengths = (rows.sqr()?.sum_keepdim(candle_core::D::Minus1)? + LEAST)?.sqrt()?;
    rows.broadcast_div(&lengths)
}

impl RowGradient {
    /// The same as a tensor of the table's shape.
    ///
    /// # Errors
    /// A table without these rows.
    pub fn dense(&self, table: &Tensor) -> Result<Tensor> {
        let zeros = Tensor::zeros(table.shape(), DType::F32, table.device())?;
        let rows = Tensor::new(self.rows.as_slice(), table.device())?;
        zeros.index_add(&rows, &self.values, 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::parameters::normal;
    use candle_core::{Device, IndexOp};

    fn table() -> Var {
        let values = normal((7, 3), 1.0, 1, DType::F32, &Device::Cpu).expect("values");
        Var::from_tensor(&values).expect("table")
    }

    /// A loss over two lookups with rows in common and rows twice.
    fn loss(table: ItemTable<'_>) -> Tensor {
        let a = table.rows(&[5, 1, 5]).expect("a");
        let b = table.rows(&[2, 5]).expect("b");
        let squares = a.sqr().and_then(|a| a.sum_all()).expect("squares");
        let cubes = b.powf(3.0).and_then(|b| b.sum_all()).expect("cubes");
        (squares + cubes).expect("loss")
    }

    #[test]
    fn rows_get_what_the_dense_gradient_has() {
        let table = table();
        let dense = loss(table.as_tensor().into()).backward().expect("backward");
        let dense = dense.get(&table).expect("gradient");
        let lookups = ItemLookups::default();
        let some = ItemTable::from(table.as_tensor()).with(Some(&lookups));
        let sparse = loss(some).backward().expect("backward");
        assert!(
            sparse.get(&table).is_none(),
            "nothing as large as the table"
        );
        let gradient = lookups.gradient(&table, &sparse).expect("sum");
        let gradient = gradient.expect("some lookup was on the way");
        assert_eq!(gradient.rows, [1, 2, 5]);
        let back = gradient.dense(&table).expect("dense");
        let difference = (back - dense).and_then(|d| d.abs()?.max_all()?.to_scalar::<f32>());
        assert!(difference.expect("difference") < 1e-6);
    }

    #[test]
    fn a_table_that_is_not_trained_has_no_gradient() {
        let table = table().detach();
        let lookups = ItemLookups::default();
        let rows = lookups.lookup(&table, &[3]).expect("rows");
        assert!(!rows.track_op());
        let other = Var::from_tensor(&rows).expect("other");
        let gradients = other.sum_all().and_then(|sum| sum.backward());
        let none = lookups.gradient(&table, &gradients.expect("backward"));
        assert!(none.expect("sum").is_none());
        assert_eq!(
            rows.i(0).and_then(|row| row.to_vec1::<f32>()).expect("row"),
            table
                .i(3)
                .and_then(|row| row.to_vec1::<f32>())
                .expect("row"),
        );
        assert!(
            lookups.lookup(&table, &[7]).is_err(),
            "there are seven rows"
        );
    }

    /// With titles beside the table: both parts get what the dense sum would give them.
    #[test]
    fn rows_with_titles_are_those_of_the_sum() {
        let table = table();
        let vectors = normal((7, 4), 1.0, 2, DType::F32, &Device::Cpu).expect("vectors");
        let weight = normal((3, 4), 1.0, 3, DType::F32, &Device::Cpu).expect("weight");
        let weight = Var::from_tensor(&weight).expect("weight");
        let titles = TitleProjection::new(&vectors, &weight).expect("fits");
        for unit_rows in [false, true] {
            let both = ItemTable {
                titles: Some(&titles),
                unit_rows,
                ..table.as_tensor().into()
            };
            sums_and_rows_agree(&table, &weight, both);
        }
    }

    fn sums_and_rows_agree(table: &Var, weight: &Var, both: ItemTable<'_>) {
        let sum = both.all().expect("sum");
        let expected = loss((&sum).into()).backward().expect("backward");
        let lookups = ItemLookups::default();
        let found = loss(both.with(Some(&lookups)))
            .backward()
            .expect("backward");
        let rows = lookups.gradient(table, &found).expect("sum").expect("some");
        let pairs = [
            (rows.dense(table).expect("dense"), table),
            (found.get(weight).expect("of the weight").clone(), weight),
        ];
        for (found, var) in pairs {
            let expected = expected.get(var).expect("gradient");
            let difference =
                (found - expected).and_then(|d| d.abs()?.max_all()?.to_scalar::<f32>());
            assert!(difference.expect("difference") < 1e-4);
        }
        assert!(
            lookups.lookup(&sum, &[1]).is_err(),
            "its gradient would be lost"
        );
    }
}
