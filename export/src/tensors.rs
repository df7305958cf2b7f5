//! Tensors of a safetensors file, read with the shape that the configuration promises.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use ndarray::{Array1, Array2};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use crate::error::{ExportError, content, io_error};

/// Reads at most `limit` bytes of a file; a longer file is an error.
pub(crate) fn read_file(path: &Path, limit: u64) -> Result<Vec<u8>, ExportError> {
    let file = File::open(path).map_err(|e| io_error(path, e))?;
    let mut bytes = Vec::new();
    file.take(limit + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| io_error(path, e))?;
    if bytes.len() as u64 > limit {
        return Err(content(path, format!("at most {limit} bytes"), "more"));
    }
    Ok(bytes)
}

/// A parsed safetensors file that knows which of its tensors have been taken.
pub(crate) struct Tensors<'a> {
    path: PathBuf,
    file: SafeTensors<'a>,
    left: BTreeSet<String>,
}

impl<'a> Tensors<'a> {
    pub(crate) fn parse(path: &Path, bytes: &'a [u8]) -> Result<Self, ExportError> {
        let file =
            SafeTensors::deserialize(bytes).map_err(|e| content(path, "a safetensors file", e))?;
        let left = file.names().iter().map(|name| (*name).to_owned()).collect();
        Ok(Self {
            path: path.to_owned(),
            file,
            left,
        })
    }

    /// A matrix `[rows, columns]` as f32; F32, F16 and BF16 are read.
    pub(crate) fn matrix(
        &mut self,
        name: &str,
        rows: usize,
        columns: usize,
    ) -> Result<Array2<f32>, ExportError> {
        let values = self.take(name, &[rows, columns])?;
        Array2::from_shape_vec((rows, columns), values)
            .map_err(|e| content(&self.path, format!("{name}: {rows} x {columns}"), e))
    }

    /// A vector `[len]` as f32.
    pub(crate) fn vector(&mut self, name: &str, len: usize) -> Result<Array1<f32>, ExportError> {
        self.take(name, &[len]).map(Array1::from_vec)
    }

    /// Refuses tensors that nothing took: ignoring an unmerged adapter or a further layer would
    /// change answers.
    pub(crate) fn finish(self) -> Result<(), ExportError> {
        match self.left.first() {
            Some(name) => Err(content(
                &self.path,
                "only the tensors of the configured model",
                format!("{name:?} ({} unknown in all)", self.left.len()),
            )),
            None => Ok(()),
        }
    }

    fn take(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>, ExportError> {
        let view = self
            .file
            .tensor(name)
            .map_err(|_| content(&self.path, format!("the tensor {name:?}"), "none"))?;
        if view.shape() != shape {
            let expected = format!("{name}: shape {shape:?}");
            return Err(content(&self.path, expected, format!("{:?}", view.shape())));
        }
        self.left.remove(name);
        let values = to_f32(&view).ok_or_else(|| {
            let expected = format!("{name}: F32, F16 or BF16");
            content(&self.path, expected, format!("{:?}", view.dtype()))
        })?;
        match values.iter().position(|v| !v.is_finite()) {
            Some(at) => Err(content(
                &self.path,
                format!("{name}: finite values"),
                format!("{} at {at}", values[at]),
            )),
            None => Ok(values),
        }
    }
}

fn to_f32(view: &TensorView<'_>) -> Option<Vec<f32>> {
    let bytes = view.data();
    let halves = || bytes.as_chunks().0.iter();
    Some(match view.dtype() {
        Dtype::F32 => {
            let words = bytes.as_chunks().0.iter();
            words.map(|b| f32::from_le_bytes(*b)).collect()
        }
        Dtype::F16 => halves().map(|b| f16::from_le_bytes(*b).to_f32()).collect(),
        Dtype::BF16 => halves().map(|b| bf16::from_le_bytes(*b).to_f32()).collect(),
        _ => return None,
    })
}
