//! One state file: safetensors with the progress and a digest in the metadata.
//!
//! The digest is the SHA-256 of the whole file with 64 zeros in its own place, so it can be taken
//! while the tensors are written one after the other, and put into the header at the end.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::Path;

use candle_core::{DType, Device, Storage, Tensor};
use safetensors::tensor::{Dtype, Metadata, View as _};
use slmrec_core::hash::Sha256Stream;

use super::{FORMAT_VERSION, Progress};
use crate::train::TrainError;
use crate::train::adamw::Slot;

const PROGRESS_KEY: &str = "progress";
/// What stands before the digest in the header. A quote within a JSON string is escaped, so this is
/// found only where it belongs.
const DIGEST_FIELD: &[u8] = b"\"digest\":\"";
const DIGEST_LEN: usize = 64;
const NO_DIGEST: [u8; DIGEST_LEN] = [b'0'; DIGEST_LEN];
/// Headers stay far below this: some hundred bytes a tensor.
const HEADER_LIMIT: u64 = 64 << 20;
/// Bytes that are read or converted at a time.
const BLOCK: usize = 1 << 16;

/// A tensor of the file: its name and what is in it.
pub(super) type Entry<'a> = (String, &'a Tensor);

/// The four tensors that are kept of each slot.
pub(super) fn entries<'a>(slots: &'a [Slot], best: &'a [Tensor]) -> Vec<Entry<'a>> {
    let of_slot = |(slot, best): (&'a Slot, &'a Tensor)| {
        [
            ("parameter", slot.var.as_tensor()),
            ("best", best),
            ("first_moment", slot.first_moment.as_tensor()),
            ("second_moment", slot.second_moment.as_tensor()),
        ]
        .map(|(role, tensor)| (format!("{role}.{}", slot.name), tensor))
    };
    slots.iter().zip(best).flat_map(of_slot).collect()
}

/// Writes a state.
pub(super) fn write(
    writer: &mut (impl Write + Seek),
    progress: &Progress,
    tensors: &[Entry<'_>],
) -> io::Result<()> {
    let header = header(progress, tensors)?;
    let place = digest_place(&header)
        .ok_or_else(|| io::Error::other("no place for the digest in the header"))?;
    let mut hash = Sha256Stream::default();
    let mut put = |bytes: &[u8]| {
        hash.update(bytes);
        writer.write_all(bytes)
    };
    put(&(header.len() as u64).to_le_bytes())?;
    put(&header)?;
    for (_, tensor) in tensors {
        put_tensor(tensor, &mut put)?;
    }
    writer.seek(SeekFrom::Start(8 + place.start as u64))?;
    writer.write_all(hash.finish().as_bytes())?;
    writer.flush()
}

fn header(progress: &Progress, tensors: &[Entry<'_>]) -> io::Result<Vec<u8>> {
    let mut header = serde_json::Map::new();
    let mut offset = 0;
    for (name, tensor) in tensors {
        let end = offset + tensor.data_len();
        let dtype: Dtype = tensor.dtype();
        let info = serde_json::json!({
            "dtype": dtype, "shape": tensor.dims(), "data_offsets": [offset, end],
        });
        header.insert(name.clone(), info);
        offset = end;
    }
    let digest = String::from_utf8_lossy(&NO_DIGEST);
    let metadata = serde_json::json!({
        "digest": digest, PROGRESS_KEY: serde_json::to_string(progress)?,
    });
    header.insert("__metadata__".to_owned(), metadata);
    let mut bytes = serde_json::to_vec(&header)?;
    // Tensors begin at a multiple of 8, as safetensors asks for.
    bytes.resize(bytes.len().next_multiple_of(8), b' ');
    Ok(bytes)
}

/// Where the digest stands in a header.
fn digest_place(header: &[u8]) -> Option<Range<usize>> {
    let field = header
        .windows(DIGEST_FIELD.len())
        .position(|window| window == DIGEST_FIELD)?;
    let start = field + DIGEST_FIELD.len();
    let end = start + DIGEST_LEN;
    (header.get(end) == Some(&b'"')).then_some(start..end)
}

/// Hands out a tensor's bytes in pieces.
fn put_tensor(tensor: &Tensor, put: &mut impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    {
        let (storage, layout) = tensor.storage_and_layout();
        if let (Storage::Cpu(storage), Some((start, end)), DType::F32) =
            (&*storage, layout.contiguous_offsets(), tensor.dtype())
        {
            let values = storage.as_slice::<f32>().map_err(io::Error::other)?;
            let mut bytes = Vec::with_capacity(BLOCK);
            for values in values[start..end].chunks(BLOCK / 4) {
                bytes.clear();
                bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
                put(&bytes)?;
            }
            return Ok(());
        }
    }
    put(&tensor.contiguous().map_err(io::Error::other)?.data())
}

/// Reads a state into the slots and gives progress and best parameters; `None` without a file. The
/// slots change only after the file was found sound.
pub(super) fn read(
    path: &Path,
    settings_hash: &str,
    slots: &[Slot],
) -> Result<Option<(Progress, Vec<Tensor>)>, TrainError> {
    let opened = match File::open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(|e| io_error(path, e))?,
    };
    let mut reader = StateReader::open(path, opened)?;
    let progress = reader.progress(settings_hash)?;
    let tensors: Vec<&Tensor> = slots.iter().map(|slot| slot.var.as_tensor()).collect();
    let best: Vec<Tensor> = tensors.iter().map(|&tensor| tensor.clone()).collect();
    let expected = entries(slots, &best);
    let places = (expected.iter())
        .map(|(name, like)| reader.place(name, like))
        .collect::<Result<Vec<_>, _>>()?;
    let mut best = Vec::with_capacity(slots.len());
    for ((place, slot), like) in places.chunks_exact(4).zip(slots).zip(&tensors) {
        let moment = slot.first_moment.as_tensor();
        slot.var.set(&reader.tensor(place[0], like)?)?;
        best.push(reader.tensor(place[1], like)?);
        slot.first_moment.set(&reader.tensor(place[2], moment)?)?;
        slot.second_moment.set(&reader.tensor(place[3], moment)?)?;
    }
    Ok(Some((progress, best)))
}

/// A file whose digest is right.
struct StateReader<'a> {
    path: &'a Path,
    file: BufReader<File>,
    metadata: Metadata,
    /// First byte of the tensors' data and number of bytes.
    data: (u64, u64),
}

impl<'a> StateReader<'a> {
    fn open(path: &'a Path, file: File) -> Result<Self, TrainError> {
        let io = |e| io_error(path, e);
        let size = file.metadata().map_err(io)?.len();
        let mut file = BufReader::with_capacity(BLOCK, file);
        let mut length = [0u8; 8];
        if size < 8 {
            return Err(corrupt(path, "a header", format!("{size} bytes")));
        }
        file.read_exact(&mut length).map_err(io)?;
        let header_len = u64::from_le_bytes(length);
        if header_len > HEADER_LIMIT || header_len > size - 8 {
            let found = format!("one of {header_len} bytes in a file of {size}");
            return Err(corrupt(path, "a header", found));
        }
        let mut header = vec![0u8; header_len as usize];
        file.read_exact(&mut header).map_err(io)?;
        check_digest(path, &mut file, &length, &mut header)?;
        let metadata = serde_json::from_slice(&header)
            .map_err(|e| corrupt(path, "a safetensors header", e.to_string()))?;
        Ok(Self {
            path,
            file,
            metadata,
            data: (8 + header_len, size - 8 - header_len),
        })
    }

    fn progress(&self, settings_hash: &str) -> Result<Progress, TrainError> {
        let metadata = self.metadata.metadata().as_ref();
        let text = metadata
            .and_then(|metadata| metadata.get(PROGRESS_KEY))
            .ok_or_else(|| corrupt(self.path, "a progress record", "none".to_owned()))?;
        let progress: Progress = serde_json::from_str(text)
            .map_err(|e| corrupt(self.path, "a progress record", e.to_string()))?;
        if progress.format_version != FORMAT_VERSION {
            let found = format!("version {}", progress.format_version);
            let expected = format!("version {FORMAT_VERSION}");
            return Err(corrupt(self.path, &expected, found));
        }
        if progress.settings_hash != settings_hash {
            return Err(TrainError::OtherSettings {
                path: self.path.to_owned(),
                expected: settings_hash.to_owned(),
                found: progress.settings_hash,
            });
        }
        Ok(progress)
    }

    /// First byte of a tensor that has the shape and the element type of `like`.
    fn place(&self, name: &str, like: &Tensor) -> Result<u64, TrainError> {
        let dtype: Dtype = like.dtype().into();
        let expected = || format!("{name} as {dtype:?} {:?}", like.dims());
        let Some(info) = self.metadata.info(name) else {
            return Err(corrupt(self.path, &expected(), "none".to_owned()));
        };
        let (start, end) = info.data_offsets;
        let fits = info.dtype == dtype
            && info.shape == like.dims()
            && start.checked_add(like.data_len()) == Some(end)
            && end as u64 <= self.data.1;
        if !fits {
            let found = format!("{:?} {:?} at {start}..{end}", info.dtype, info.shape);
            return Err(corrupt(self.path, &expected(), found));
        }
        Ok(self.data.0 + start as u64)
    }

    fn tensor(&mut self, place: u64, like: &Tensor) -> Result<Tensor, TrainError> {
        let io = |e| io_error(self.path, e);
        self.file.seek(SeekFrom::Start(place)).map_err(io)?;
        let tensor = if like.dtype() == DType::F32 {
            let mut values = vec![0f32; like.elem_count()];
            let mut bytes = vec![0u8; BLOCK];
            for values in values.chunks_mut(BLOCK / 4) {
                let bytes = &mut bytes[..4 * values.len()];
                self.file.read_exact(bytes).map_err(io)?;
                for (value, bytes) in values.iter_mut().zip(bytes.chunks_exact(4)) {
                    *value = f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
                }
            }
            Tensor::from_vec(values, like.shape(), &Device::Cpu)?
        } else {
            let mut bytes = vec![0u8; like.data_len()];
            self.file.read_exact(&mut bytes).map_err(io)?;
            Tensor::from_raw_buffer(&bytes, like.dtype(), like.dims(), &Device::Cpu)?
        };
        Ok(tensor.to_device(like.device())?)
    }
}

/// Compares the digest in `header` with that of the file; zeros stand in its place afterwards.
fn check_digest(
    path: &Path,
    rest: &mut impl Read,
    length: &[u8],
    header: &mut [u8],
) -> Result<(), TrainError> {
    let Some(place) = digest_place(header) else {
        return Err(corrupt(path, "a digest", "none".to_owned()));
    };
    let expected = String::from_utf8_lossy(&header[place.clone()]).into_owned();
    header[place].copy_from_slice(&NO_DIGEST);
    let mut hash = Sha256Stream::default();
    hash.update(length);
    hash.update(header);
    let mut block = vec![0u8; BLOCK];
    loop {
        match rest.read(&mut block).map_err(|e| io_error(path, e))? {
            0 => break,
            n => hash.update(&block[..n]),
        }
    }
    let found = hash.finish();
    if found != expected {
        let found = format!("a file of digest {found}");
        return Err(corrupt(path, &format!("the digest {expected}"), found));
    }
    Ok(())
}

fn corrupt(path: &Path, expected: &str, found: String) -> TrainError {
    TrainError::CorruptState {
        path: path.to_owned(),
        expected: expected.to_owned(),
        found,
    }
}

fn io_error(path: &Path, source: io::Error) -> TrainError {
    TrainError::Io {
        path: path.to_owned(),
        source,
    }
}
