//! One shard: a safetensors file with a header of fixed size. The header follows from layout, number
//! and digest alone, so a reader compares it byte by byte and believes nothing in it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use serde_json::{Map, Value, json};
use slmrec_core::{atomic, hash};

use super::directory::ShardState;
use super::{CacheError, CacheLayout, FORMAT_VERSION};

/// Bytes of the JSON header, padded with spaces; sizes then follow from counts alone.
const HEADER_BYTES: usize = 2040;
/// Where the tensors begin.
pub const HEADER_END: u64 = HEADER_BYTES as u64 + 8;

/// The first [`HEADER_END`] bytes of a shard.
pub(super) fn header(layout: &CacheLayout, shard: usize, sha256: &str) -> Vec<u8> {
    let rows = layout.rows(shard);
    let windows = &layout.shards()[shard];
    let mut entries = Map::new();
    entries.insert(
        "__metadata__".to_owned(),
        json!({
            "format": "slmrec-teacher-states",
            "format_version": FORMAT_VERSION.to_string(),
            "key": layout.key(),
            "shard": format!("{} of {}", shard + 1, layout.shards().len()),
            "windows": format!("{}..{}", windows.start, windows.end),
            "sha256": sha256,
        }),
    );
    let mut start = 0u64;
    for part in layout.spec().shape().parts() {
        let end = start.saturating_add(rows.saturating_mul(part.row_bytes));
        let mut shape = vec![rows];
        shape.extend(part.dims.iter().map(|&dim| dim as u64));
        entries.insert(
            part.name.to_owned(),
            json!({ "dtype": part.dtype, "shape": shape, "data_offsets": [start, end] }),
        );
        start = end;
    }
    let mut bytes = (HEADER_BYTES as u64).to_le_bytes().to_vec();
    bytes.extend(Value::Object(entries).to_string().into_bytes());
    bytes.resize(HEADER_END as usize, b' ');
    bytes
}

/// Writes a shard whole or not at all. `tensors` holds the bytes of its tensors in file order.
pub(super) fn write(
    path: &Path,
    layout: &CacheLayout,
    shard: usize,
    tensors: &[u8],
) -> Result<(), CacheError> {
    let header = header(layout, shard, &hash::sha256_hex(tensors));
    atomic::write_with(path, |file| {
        file.write_all(&header)?;
        file.write_all(tensors)
    })
    .map_err(CacheError::io(path))
}

/// Reads a whole shard and says what it is. Memory is that of a header and a block.
pub(super) fn inspect(
    path: &Path,
    layout: &CacheLayout,
    shard: usize,
) -> Result<ShardState, CacheError> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(ShardState::Missing),
        Err(e) => return Err(CacheError::io(path)(e)),
    };
    let size = file.metadata().map_err(CacheError::io(path))?.len();
    if size < HEADER_END {
        return Ok(damaged(layout.file_bytes(shard), size));
    }
    let mut found = vec![0u8; HEADER_END as usize];
    file.read_exact(&mut found).map_err(CacheError::io(path))?;
    let metadata = metadata(&found);
    let entry = |name: &str| metadata.get(name).and_then(Value::as_str);
    let (key, sha256) = (entry("key"), entry("sha256").unwrap_or_default());
    if key.is_some_and(|key| key != layout.key() && is_digest(key)) {
        return Ok(ShardState::Stale {
            found: key.unwrap_or_default().to_owned(),
        });
    }
    if !is_digest(sha256) || found != header(layout, shard, sha256) {
        return Ok(ShardState::Damaged {
            expected: format!("the header of shard {} of this cache", shard + 1),
            found: "another one".to_owned(),
        });
    }
    if size != layout.file_bytes(shard) {
        return Ok(damaged(layout.file_bytes(shard), size));
    }
    let digest = hash::sha256_read(&mut file).map_err(CacheError::io(path))?;
    if digest == sha256 {
        return Ok(ShardState::Good { sha256: digest });
    }
    Ok(ShardState::Damaged {
        expected: format!("tensors with SHA-256 {sha256}"),
        found: digest,
    })
}

fn damaged(expected: u64, found: u64) -> ShardState {
    ShardState::Damaged {
        expected: format!("{expected} bytes"),
        found: format!("{found}"),
    }
}

/// The metadata of a header, empty where there is none.
fn metadata(header: &[u8]) -> Map<String, Value> {
    match serde_json::from_slice::<Map<String, Value>>(&header[8..]) {
        Ok(mut entries) => match entries.remove("__metadata__") {
            Some(Value::Object(metadata)) => metadata,
            _ => Map::new(),
        },
        Err(_) => Map::new(),
    }
}

/// Whether a text is a SHA-256 as we write it: what goes back into a header must fit there.
fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}
