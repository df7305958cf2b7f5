//! The trainable values of a layer as one flat vector.

use std::ops::Range;

use candle_core::{CpuStorage, Result, Tensor};

use super::matrix::View;

/// Where a matrix `[rows, columns]` stands among the flat trainable values of its layer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    pub(crate) start: usize,
    pub(crate) rows: usize,
    pub(crate) columns: usize,
}

impl Span {
    pub(crate) fn range(&self) -> Range<usize> {
        self.start..self.start + self.rows * self.columns
    }
}

/// The tensors of a layer as they come to stand in its flat vector.
#[derive(Default)]
pub(crate) struct Flat {
    pub(crate) tensors: Vec<Tensor>,
    len: usize,
}

impl Flat {
    /// Appends a tensor of `rows x columns` values.
    pub(crate) fn push(&mut self, tensor: &Tensor, rows: usize, columns: usize) -> Span {
        let start = self.len;
        self.len += rows * columns;
        self.tensors.push(tensor.clone());
        Span {
            start,
            rows,
            columns,
        }
    }

    /// Appends a vector.
    pub(crate) fn push_vector(&mut self, tensor: &Tensor) -> Span {
        self.push(tensor, 1, tensor.elem_count())
    }
}

/// The flat trainable values of a layer.
#[derive(Clone, Copy)]
pub(super) struct Theta<'a> {
    storage: &'a CpuStorage,
    start: usize,
}

impl<'a> Theta<'a> {
    pub(super) fn new(storage: &'a CpuStorage, start: usize) -> Self {
        Self { storage, start }
    }

    pub(super) fn view(&self, span: Span) -> Result<View<'a>> {
        View::new(
            self.storage,
            self.start + span.start,
            span.rows,
            span.columns,
        )
    }
}
