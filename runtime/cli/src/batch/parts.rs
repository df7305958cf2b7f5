//! What is finished: a folder beside the output with a file for each part, and a line that says so
//! with the file's hash. It goes when the output is there.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use slmrec_core::{atomic, hash};

use super::FileFormat;

/// What the answers depend on; parts of another job are not used.
const JOB: &str = "job.json";
/// Held by the process at work.
const LOCK: &str = "lock";

/// What a part's answers add up to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Counts {
    pub(crate) rows: u64,
    /// Rows of whose history nothing is known: their lists are empty.
    pub(crate) nothing_known: u64,
    /// Other rows with ids that the catalog does not have.
    pub(crate) some_unknown: u64,
    /// Other rows whose lists are shorter than asked for.
    pub(crate) short: u64,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.rows += other.rows;
        self.nothing_known += other.nothing_known;
        self.some_unknown += other.some_unknown;
        self.short += other.short;
    }
}

/// Written once the part's file is on the disk.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Finished {
    sha256: String,
    counts: Counts,
}

/// The folder of a job.
pub(crate) struct Parts {
    folder: PathBuf,
    format: FileFormat,
    /// Released with the process, however that ends.
    _lock: File,
}

impl Parts {
    /// Opens the folder that belongs to `output`, or makes it. What another job has left there is
    /// refused, or with `restart` removed.
    ///
    /// # Errors
    /// Parts of another job; another process at work; what the system gives.
    pub(crate) fn open(
        output: &Path,
        format: FileFormat,
        job: &Map<String, Value>,
        restart: bool,
    ) -> anyhow::Result<Self> {
        let folder = beside(output, "parts");
        remove(&beside(output, "parts-done")).with_context(|| output.display().to_string())?;
        let place = || folder.display().to_string();
        match fs::create_dir(&folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(error).with_context(place);
            }
            _ => {}
        }
        let lock = lock(&folder)?;
        let mut wanted = restart;
        if !wanted {
            match fs::read(folder.join(JOB)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => wanted = true,
                found => check_job(&folder, &found.with_context(place)?, job)?,
            }
        }
        if wanted {
            clear(&folder).with_context(place)?;
            let json = serde_json::to_vec_pretty(job)?;
            atomic::write(&folder.join(JOB), &json).with_context(place)?;
        }
        atomic::remove_leftovers(&folder).with_context(place)?;
        Ok(Self {
            folder,
            format,
            _lock: lock,
        })
    }

    /// Where a part's file belongs.
    pub(crate) fn file(&self, part: usize) -> PathBuf {
        self.folder
            .join(format!("{part:08}.{}", self.format.ending()))
    }

    fn record(&self, part: usize) -> PathBuf {
        self.folder.join(format!("{part:08}.finished.json"))
    }

    /// What a part's answers add up to, if its file is there and has the right hash.
    pub(crate) fn finished(&self, part: usize) -> Option<Counts> {
        let record = fs::read(self.record(part)).ok()?;
        let finished: Finished = serde_json::from_slice(&record).ok()?;
        let found = hash::sha256_file(&self.file(part)).ok()?;
        (found == finished.sha256).then_some(finished.counts)
    }

    /// Says that a part's file is complete.
    ///
    /// # Errors
    /// What the system gives.
    pub(crate) fn finish(&self, part: usize, counts: Counts) -> anyhow::Result<()> {
        let file = self.file(part);
        let sha256 = hash::sha256_file(&file).with_context(|| file.display().to_string())?;
        let record = serde_json::to_vec(&Finished { sha256, counts })?;
        let path = self.record(part);
        atomic::write(&path, &record).with_context(|| path.display().to_string())
    }

    /// Removes the folder: from one instant to the next it no longer counts.
    ///
    /// # Errors
    /// What the system gives.
    pub(crate) fn remove(self, output: &Path) -> anyhow::Result<()> {
        let done = beside(output, "parts-done");
        let removed = fs::rename(&self.folder, &done).and_then(|()| remove(&done));
        removed.with_context(|| self.folder.display().to_string())
    }
}

/// `recs.parquet` -> `recs.parquet.parts`
fn beside(output: &Path, what: &str) -> PathBuf {
    let mut name = output.file_name().unwrap_or_default().to_owned();
    name.push(".");
    name.push(what);
    output.with_file_name(name)
}

fn lock(folder: &Path) -> anyhow::Result<File> {
    let path = folder.join(LOCK);
    let opened = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path);
    let lock = opened.with_context(|| path.display().to_string())?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => {
            anyhow::bail!("{}: another process writes this output", folder.display())
        }
        Err(TryLockError::Error(error)) => Err(error).with_context(|| path.display().to_string()),
    }
}

fn check_job(folder: &Path, found: &[u8], job: &Map<String, Value>) -> anyhow::Result<()> {
    let hint = "; hint: --restart begins anew, another --output leaves them";
    let found: Map<String, Value> = serde_json::from_slice(found)
        .with_context(|| format!("{}: {JOB} is damaged{hint}", folder.display()))?;
    let keys = job.keys().chain(found.keys());
    for key in keys {
        let (before, now) = (found.get(key), job.get(key));
        anyhow::ensure!(
            before == now,
            "{}: holds parts of another run: {key} was {}, is {}{hint}",
            folder.display(),
            before.unwrap_or(&Value::Null),
            now.unwrap_or(&Value::Null)
        );
    }
    Ok(())
}

/// Removes all files but the lock.
fn clear(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name() != LOCK {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(k: u32) -> Map<String, Value> {
        Map::from_iter([("k".to_owned(), Value::from(k))])
    }

    #[test]
    fn a_part_counts_once_its_hash_is_written() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let output = folder.path().join("recs.jsonl");
        let open = || Parts::open(&output, FileFormat::JsonLines, &job(3), false);
        let parts = open().expect("opens");
        let counts = Counts {
            rows: 2,
            ..Counts::default()
        };
        fs::write(parts.file(1), "{}").expect("part");
        assert_eq!(parts.finished(1), None);
        parts.finish(1, counts).expect("finished");
        assert_eq!(parts.finished(1), Some(counts));
        let busy = open().err().expect("locked").to_string();
        assert!(busy.contains("another process"), "{busy}");
        drop(parts);
        let parts = open().expect("opens again");
        assert_eq!(parts.finished(1), Some(counts));
        fs::write(parts.file(1), "{]").expect("damaged");
        assert_eq!(parts.finished(1), None);
        parts.remove(&output).expect("removed");
        assert_eq!(fs::read_dir(folder.path()).expect("folder").count(), 0);
    }

    #[test]
    fn parts_of_another_job_are_not_used() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let output = folder.path().join("recs.jsonl");
        let open = |k, restart| Parts::open(&output, FileFormat::JsonLines, &job(k), restart);
        let parts = open(3, false).expect("opens");
        fs::write(parts.file(0), "{}").expect("part");
        parts.finish(0, Counts::default()).expect("finished");
        drop(parts);
        let error = open(4, false).err().expect("refused").to_string();
        assert!(error.contains("k was 3, is 4"), "{error}");
        assert!(error.contains("hint: --restart"), "{error}");
        let parts = open(4, true).expect("anew");
        assert_eq!(parts.finished(0), None);
    }
}
