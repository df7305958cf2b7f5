//! Matrices in CPU memory between the steps of a fused operation: candle's matrix products on
//! buffers that we own, so that results can be changed in place.

use candle_core::backend::BackendStorage as _;
use candle_core::{CpuStorage, Layout, Result, Storage, Tensor};

/// A row-major f32 matrix.
#[derive(Debug)]
pub(super) struct Matrix {
    storage: CpuStorage,
    pub(super) rows: usize,
    pub(super) columns: usize,
}

/// A row-major f32 matrix somewhere in a buffer of candle's.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    storage: &'a CpuStorage,
    start: usize,
    /// Distance between the starts of two rows.
    stride: usize,
    pub(super) rows: usize,
    pub(super) columns: usize,
}

impl Matrix {
    pub(super) fn new(values: Vec<f32>, columns: usize) -> Self {
        Self {
            rows: values.len() / columns.max(1),
            columns,
            storage: CpuStorage::F32(values),
        }
    }

    pub(super) fn zeros(rows: usize, columns: usize) -> Self {
        Self::new(vec![0f32; rows * columns], columns)
    }

    pub(super) fn view(&self) -> View<'_> {
        View {
            storage: &self.storage,
            start: 0,
            stride: self.columns,
            rows: self.rows,
            columns: self.columns,
        }
    }

    /// Columns `first..first + columns`.
    pub(super) fn columns(&self, first: usize, columns: usize) -> View<'_> {
        View {
            start: first,
            columns,
            ..self.view()
        }
    }

    /// The rows that are asked for.
    pub(super) fn gather(&self, rows: &[u32]) -> Self {
        gather(self.values(), self.columns, rows)
    }

    pub(super) fn values(&self) -> &[f32] {
        match &self.storage {
            CpuStorage::F32(values) => values,
            _ => &[],
        }
    }

    pub(super) fn values_mut(&mut self) -> &mut [f32] {
        match &mut self.storage {
            CpuStorage::F32(values) => values,
            _ => &mut [],
        }
    }

    pub(super) fn into_values(self) -> Vec<f32> {
        match self.storage {
            CpuStorage::F32(values) => values,
            _ => Vec::new(),
        }
    }

    pub(super) fn tensor(self, device: &candle_core::Device) -> Result<Tensor> {
        let shape = (self.rows, self.columns);
        Tensor::from_vec(self.into_values(), shape, device)
    }
}

impl<'a> View<'a> {
    /// `rows x columns` values from `start` on, in a contiguous f32 buffer.
    pub(super) fn new(
        storage: &'a CpuStorage,
        start: usize,
        rows: usize,
        columns: usize,
    ) -> Result<Self> {
        match storage {
            CpuStorage::F32(values) if start + rows * columns <= values.len() => Ok(Self {
                storage,
                start,
                stride: columns,
                rows,
                columns,
            }),
            _ => candle_core::bail!(
                "a fused operation expected {rows} x {columns} values of f32 from {start} on"
            ),
        }
    }

    /// The values of a view of whole rows.
    pub(super) fn values(&self) -> &'a [f32] {
        debug_assert_eq!(self.stride, self.columns);
        match self.storage {
            CpuStorage::F32(values) => &values[self.start..][..self.rows * self.columns],
            _ => &[],
        }
    }

    /// The transpose, written out.
    pub(super) fn transposed(&self) -> Matrix {
        let mut out = Matrix::zeros(self.columns, self.rows);
        let rows = self.rows;
        for (at, row) in self.values().chunks(self.columns.max(1)).enumerate() {
            for (i, value) in row.iter().enumerate() {
                out.values_mut()[i * rows + at] = *value;
            }
        }
        out
    }

    fn layout(&self) -> Layout {
        Layout::new(
            (self.rows, self.columns).into(),
            vec![self.stride, 1],
            self.start,
        )
    }

    /// `self [m, k] · other [k, n]`.
    pub(super) fn times(&self, other: View<'_>) -> Result<Matrix> {
        let (m, k, n) = (self.rows, self.columns, other.columns);
        product(
            self.storage,
            other.storage,
            (m, n, k),
            &self.layout(),
            &other.layout(),
        )
    }

    /// `self [m, k] · other [n, k]ᵀ`.
    pub(super) fn times_transposed(&self, other: View<'_>) -> Result<Matrix> {
        let (m, k, n) = (self.rows, self.columns, other.rows);
        let layout = other.layout().transpose(0, 1)?;
        product(
            self.storage,
            other.storage,
            (m, n, k),
            &self.layout(),
            &layout,
        )
    }

    /// `self [k, m]ᵀ · other [k, n]`.
    pub(super) fn transposed_times(&self, other: View<'_>) -> Result<Matrix> {
        let (m, k, n) = (self.columns, self.rows, other.columns);
        let layout = self.layout().transpose(0, 1)?;
        product(
            self.storage,
            other.storage,
            (m, n, k),
            &layout,
            &other.layout(),
        )
    }
}

fn product(
    a: &CpuStorage,
    b: &CpuStorage,
    (m, n, k): (usize, usize, usize),
    a_layout: &Layout,
    b_layout: &Layout,
) -> Result<Matrix> {
    if a_layout.shape().dims2()?.1 != k || b_layout.shape().dims2()?.0 != k {
        candle_core::bail!(
            "a product of {:?} and {:?}",
            a_layout.shape(),
            b_layout.shape()
        );
    }
    let storage = a.matmul(b, (1, m, n, k), a_layout, b_layout)?;
    Ok(Matrix {
        storage,
        rows: m,
        columns: n,
    })
}

/// Rows of `values [_, columns]`.
pub(super) fn gather(values: &[f32], columns: usize, rows: &[u32]) -> Matrix {
    let mut out = Vec::with_capacity(rows.len() * columns);
    for row in rows {
        out.extend_from_slice(&values[*row as usize * columns..][..columns]);
    }
    Matrix::new(out, columns)
}

/// Runs `f` on a contiguous f32 tensor in CPU memory: its buffer and where its values start.
pub(super) fn with_buffer<T>(
    x: &Tensor,
    f: impl FnOnce(&CpuStorage, usize) -> Result<T>,
) -> Result<T> {
    let (storage, layout) = x.storage_and_layout();
    let Some((start, _)) = layout.contiguous_offsets() else {
        candle_core::bail!("a fused operation got a tensor that is not contiguous")
    };
    match &*storage {
        Storage::Cpu(storage) => f(storage, start),
        _ => candle_core::bail!("a fused operation got a tensor that is not in CPU memory"),
    }
}
