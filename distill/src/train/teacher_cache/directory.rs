//! The directory of a cache: which shards are sound, and the manifest that says they all are.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use slmrec_core::atomic;

use super::{CacheError, CacheLayout, FORMAT_VERSION, shard_file};

/// Name of the manifest.
pub const MANIFEST_FILE: &str = "teacher-states.json";
/// A file that nobody has finished for so long belongs to a process that was killed.
const ABANDONED: Duration = Duration::from_secs(3600);

/// What a shard's file is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase", tag = "state")]
pub enum ShardState {
    /// As it should be.
    Good {
        /// SHA-256 of its tensors.
        sha256: String,
    },
    /// Not there.
    Missing,
    /// Of another teacher, other data or other settings.
    Stale {
        /// The key that it has.
        found: String,
    },
    /// Cut, or with changed bits.
    Damaged {
        /// What would have been right.
        expected: String,
        /// What stands there.
        found: String,
    },
}

impl ShardState {
    /// Whether the shard can be used.
    #[must_use]
    pub fn is_good(&self) -> bool {
        matches!(self, Self::Good { .. })
    }
}

/// A directory and what should be in it.
#[derive(Clone, Debug)]
pub struct TeacherCache {
    dir: PathBuf,
    layout: CacheLayout,
}

/// `teacher-states.json`.
#[derive(Serialize)]
struct Manifest<'a> {
    format_version: u32,
    key: &'a str,
    dtype: &'static str,
    spec: &'a super::CacheSpec,
    rows: u64,
    bytes: u64,
    shards: Vec<ManifestShard<'a>>,
}

#[derive(Serialize)]
struct ManifestShard<'a> {
    file: String,
    /// First window, and the first one after the last.
    windows: [usize; 2],
    rows: u64,
    bytes: u64,
    sha256: &'a str,
}

impl TeacherCache {
    /// The cache of a layout in `dir`; nothing is made or read yet.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>, layout: CacheLayout) -> Self {
        Self {
            dir: dir.into(),
            layout,
        }
    }

    /// The directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What should be in it.
    #[must_use]
    pub fn layout(&self) -> &CacheLayout {
        &self.layout
    }

    /// Path of a shard.
    #[must_use]
    pub fn path(&self, shard: usize) -> PathBuf {
        self.dir.join(self.layout.file_name(shard))
    }

    /// Reads a shard from end to end and says what it is.
    ///
    /// # Errors
    /// [`CacheError::Io`] for a file that is there and cannot be read.
    pub fn inspect(&self, shard: usize) -> Result<ShardState, CacheError> {
        shard_file::inspect(&self.path(shard), &self.layout, shard)
    }

    /// Digests of all shards.
    ///
    /// # Errors
    /// [`CacheError::Incomplete`] unless `states` has every shard and all are good.
    pub fn digests<'s>(&self, states: &'s [ShardState]) -> Result<Vec<&'s str>, CacheError> {
        let total = self.layout.shards().len();
        let good: Vec<&str> = (states.iter())
            .filter_map(|state| match state {
                ShardState::Good { sha256 } => Some(sha256.as_str()),
                _ => None,
            })
            .collect();
        if good.len() == total && states.len() == total {
            return Ok(good);
        }
        Err(CacheError::Incomplete {
            dir: self.dir.clone(),
            bad: total.saturating_sub(good.len()),
            total,
        })
    }

    /// Writes the manifest of a complete cache, unless it is there already, and removes shards of
    /// other layouts and what killed processes left behind.
    ///
    /// # Errors
    /// [`CacheError::Incomplete`], [`CacheError::Io`].
    pub fn finish(&self, states: &[ShardState]) -> Result<(), CacheError> {
        let digests = self.digests(states)?;
        let shard = |(index, sha256)| {
            let windows = &self.layout.shards()[index];
            ManifestShard {
                file: self.layout.file_name(index),
                windows: [windows.start, windows.end],
                rows: self.layout.rows(index),
                bytes: self.layout.file_bytes(index),
                sha256,
            }
        };
        let manifest = Manifest {
            format_version: FORMAT_VERSION,
            key: self.layout.key(),
            dtype: "f16",
            spec: self.layout.spec(),
            rows: self.layout.total_rows(),
            bytes: self.layout.bytes(),
            shards: digests.into_iter().enumerate().map(shard).collect(),
        };
        let path = self.dir.join(MANIFEST_FILE);
        let mut json = serde_json::to_vec_pretty(&manifest)
            .map_err(|e| CacheError::io(path.clone())(e.into()))?;
        json.push(b'\n');
        if !holds(&path, &json) {
            atomic::write(&path, &json).map_err(CacheError::io(path))?;
        }
        self.remove_leftovers()
    }

    /// Number of shards in the directory that are none of this layout: [`Self::finish`] removes them.
    ///
    /// # Errors
    /// [`CacheError::Io`] for a directory that is there and cannot be read.
    pub fn others(&self) -> Result<usize, CacheError> {
        let expected = self.names();
        let other = |name: &String| is_shard_name(name) && !expected.contains(name);
        let entries = self.entries()?;
        let names = (entries.iter()).map(|entry| entry.file_name().to_string_lossy().into_owned());
        Ok(names.filter(other).count())
    }

    fn names(&self) -> BTreeSet<String> {
        (0..self.layout.shards().len())
            .map(|shard| self.layout.file_name(shard))
            .collect()
    }

    fn entries(&self) -> Result<Vec<fs::DirEntry>, CacheError> {
        match fs::read_dir(&self.dir) {
            Ok(entries) => entries
                .collect::<Result<_, _>>()
                .map_err(CacheError::io(&self.dir)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(e) => Err(CacheError::io(&self.dir)(e)),
        }
    }

    fn remove_leftovers(&self) -> Result<(), CacheError> {
        let expected = self.names();
        for entry in self.entries()? {
            let name = entry.file_name().to_string_lossy().into_owned();
            let ours = is_shard_name(&name) && !expected.contains(&name);
            let abandoned = name.starts_with(atomic::TEMPORARY_PREFIX) && is_old(&entry);
            if ours || abandoned {
                match fs::remove_file(entry.path()) {
                    Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                        return Err(CacheError::io(entry.path())(e));
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

/// Whether a file has exactly this content; what cannot be read has not.
fn holds(path: &Path, content: &[u8]) -> bool {
    let same_size = fs::metadata(path).is_ok_and(|file| file.len() == content.len() as u64);
    same_size && fs::read(path).is_ok_and(|found| found == content)
}

/// `states-00001-of-00002.safetensors`, whatever the numbers.
fn is_shard_name(name: &str) -> bool {
    let digits = |text: &str| text.len() >= 5 && text.bytes().all(|b| b.is_ascii_digit());
    (name.strip_prefix("states-"))
        .and_then(|rest| rest.strip_suffix(".safetensors"))
        .and_then(|rest| rest.split_once("-of-"))
        .is_some_and(|(shard, total)| digits(shard) && digits(total))
}

/// Whether nobody has written to a file for long; what cannot be told is left alone.
fn is_old(entry: &fs::DirEntry) -> bool {
    let modified = entry.metadata().and_then(|file| file.modified());
    modified.is_ok_and(|time| time.elapsed().is_ok_and(|age| age > ABANDONED))
}
