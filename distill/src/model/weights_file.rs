//! Single tensors out of a safetensors file, without reading the rest of it.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use safetensors::tensor::{Dtype, Metadata, TensorInfo};

use super::file_error::ModelFileError;

/// Headers of real models stay far below this.
const HEADER_LIMIT: u64 = 100 << 20;

/// A safetensors file whose header has been read and checked.
#[derive(Debug)]
pub struct WeightsFile {
    path: PathBuf,
    file: File,
    metadata: Metadata,
    /// First byte of the tensors' data, and number of bytes after it.
    data: (u64, u64),
}

impl WeightsFile {
    /// Opens a file and reads its header.
    ///
    /// # Errors
    /// A file that cannot be read, is cut off, or whose header is not sound.
    pub fn open(path: &Path) -> Result<Self, ModelFileError> {
        let io = || ModelFileError::io(path);
        let malformed =
            |found: String| ModelFileError::malformed(path, "a whole safetensors file", found);
        let mut file = File::open(path).map_err(io())?;
        let size = file.metadata().map_err(io())?.len();
        let mut length = [0u8; 8];
        if size < 8 {
            return Err(malformed(format!("{size} bytes")));
        }
        file.read_exact(&mut length).map_err(io())?;
        let header = u64::from_le_bytes(length);
        if header > HEADER_LIMIT || header > size - 8 {
            return Err(malformed(format!(
                "a header of {header} bytes in a file of {size}"
            )));
        }
        let mut bytes = vec![0u8; header as usize];
        file.read_exact(&mut bytes).map_err(io())?;
        let metadata: Metadata =
            serde_json::from_slice(&bytes).map_err(ModelFileError::json(path))?;
        let data = (8 + header, size - 8 - header);
        for (name, info) in metadata.tensors() {
            let (start, end) = info.data_offsets;
            if start > end || end as u64 > data.1 {
                return Err(malformed(format!(
                    "{name} at bytes {start} to {end} of {}",
                    data.1
                )));
            }
        }
        Ok(Self {
            path: path.to_owned(),
            file,
            metadata,
            data,
        })
    }

    /// Whether there is a tensor of that name.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.metadata.info(name).is_some()
    }

    fn info(&self, name: &str) -> Result<TensorInfo, ModelFileError> {
        self.metadata
            .info(name)
            .cloned()
            .ok_or_else(|| ModelFileError::MissingTensor {
                path: self.path.clone(),
                tensor: name.to_owned(),
                hint: "the names must be those of Hugging Face's own files",
            })
    }

    /// Reads a tensor of the given shape as f32.
    ///
    /// # Errors
    /// A tensor that is missing, of another shape or element type, or not finite.
    pub fn tensor(
        &mut self,
        name: &str,
        shape: &[usize],
        device: &Device,
    ) -> Result<Tensor, ModelFileError> {
        let info = self.info(name)?;
        if info.shape != shape {
            return Err(ModelFileError::Shape {
                path: self.path.clone(),
                tensor: name.to_owned(),
                expected: shape.to_vec(),
                found: info.shape,
            });
        }
        let rows = shape.first().copied().unwrap_or(1);
        self.read(name, &info, 0..rows as u64, device)
    }

    /// Reads some rows of a table with `width` columns, in the order asked for, as f32 `[rows, width]`.
    ///
    /// # Errors
    /// As [`Self::tensor`], and rows that the table does not have.
    pub fn rows(
        &mut self,
        name: &str,
        rows: &[u32],
        width: usize,
        device: &Device,
    ) -> Result<Tensor, ModelFileError> {
        let info = self.info(name)?;
        let table = info.shape.first().copied().unwrap_or(0);
        let highest = rows.iter().copied().max().map_or(0, |row| row as usize + 1);
        if info.shape.len() != 2 || info.shape[1] != width || table < highest {
            return Err(ModelFileError::Shape {
                path: self.path.clone(),
                tensor: name.to_owned(),
                expected: vec![table.max(highest), width],
                found: info.shape,
            });
        }
        let parts = (rows.iter())
            .map(|&row| self.read(name, &info, u64::from(row)..u64::from(row) + 1, device))
            .collect::<Result<Vec<_>, _>>()?;
        Tensor::cat(&parts, 0).map_err(ModelFileError::tensor(&self.path))
    }

    /// Reads rows (of the first dimension) as f32.
    fn read(
        &mut self,
        name: &str,
        info: &TensorInfo,
        rows: std::ops::Range<u64>,
        device: &Device,
    ) -> Result<Tensor, ModelFileError> {
        let (dtype, size) =
            element_type(info.dtype).ok_or_else(|| ModelFileError::Unsupported {
                path: self.path.clone(),
                what: format!("element type {:?} of {name}", info.dtype),
                hint: "convert the weights to F32, F16 or BF16",
            })?;
        let stored = (info.data_offsets.1 - info.data_offsets.0) as u64;
        let count = (info.shape.iter()).try_fold(size, |n, &dim| n.checked_mul(dim as u64));
        if count != Some(stored) {
            let expected = format!("{name} {:?} {:?}", info.dtype, info.shape);
            return Err(ModelFileError::malformed(
                &self.path,
                expected,
                format!("{stored} bytes"),
            ));
        }
        let table = info.shape.first().copied().unwrap_or(1).max(1);
        let row = stored / table as u64;
        let start = self.data.0 + info.data_offsets.0 as u64 + rows.start * row;
        let mut bytes = vec![0u8; ((rows.end - rows.start) * row) as usize];
        let mut shape = info.shape.clone();
        if let Some(first) = shape.first_mut() {
            *first = (rows.end - rows.start) as usize;
        }
        self.file
            .seek(SeekFrom::Start(start))
            .and_then(|_| self.file.read_exact(&mut bytes))
            .map_err(ModelFileError::io(&self.path))?;
        let tensor = Tensor::from_raw_buffer(&bytes, dtype, &shape, &Device::Cpu)
            .and_then(|t| t.to_dtype(DType::F32))
            .map_err(ModelFileError::tensor(&self.path))?;
        check_finite(&self.path, name, &tensor)?;
        tensor
            .to_device(device)
            .map_err(ModelFileError::tensor(&self.path))
    }
}

fn element_type(dtype: Dtype) -> Option<(DType, u64)> {
    match dtype {
        Dtype::F32 => Some((DType::F32, 4)),
        Dtype::F16 => Some((DType::F16, 2)),
        Dtype::BF16 => Some((DType::BF16, 2)),
        _ => None,
    }
}

/// Refuses NaN and infinity. `tensor` is f32.
pub(crate) fn check_finite(path: &Path, name: &str, tensor: &Tensor) -> Result<(), ModelFileError> {
    // A sum of absolute values is finite only if all of them are (weights are far from f32's limit).
    let sum = (tensor.abs().and_then(|t| t.sum_all())).and_then(|t| t.to_scalar::<f32>());
    match sum {
        Ok(sum) if sum.is_finite() => Ok(()),
        Ok(_) => Err(ModelFileError::NotFinite {
            path: path.to_owned(),
            tensor: name.to_owned(),
        }),
        Err(source) => Err(ModelFileError::Tensor {
            path: path.to_owned(),
            source,
        }),
    }
}
