//! Files that appear whole or not at all: temporary file, fsync, rename.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

/// How the names of temporary files begin: a killed process may leave one behind.
pub const TEMPORARY_PREFIX: &str = ".partial-";

/// Writes a file atomically: `write` fills a temporary file in the same folder, which is synced
/// and then renamed over `path`. A reader sees the old content or the new one, never a part.
///
/// # Errors
/// The first error of creating, writing, syncing or renaming; the old file is then untouched.
pub fn write_with<E: From<io::Error>>(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<&mut File>) -> Result<(), E>,
) -> Result<(), E> {
    replace_with(path, None, write)
}

/// As [`write_with`], but the old file, if there is one, is kept as `previous` (in the same folder)
/// in place of what was there. A process that ends between the two renames leaves the old file as
/// `previous` and none at `path`.
///
/// # Errors
/// As [`write_with`].
pub fn write_keeping<E: From<io::Error>>(
    path: &Path,
    previous: &Path,
    write: impl FnOnce(&mut BufWriter<&mut File>) -> Result<(), E>,
) -> Result<(), E> {
    replace_with(path, Some(previous), write)
}

/// Removes the temporary files that a killed process left in `folder`. Only for a folder in which
/// no other process writes. Gives how many there were; a folder that is not there has none.
///
/// # Errors
/// A folder that cannot be read, or a file that cannot be removed.
pub fn remove_leftovers(folder: &Path) -> io::Result<usize> {
    let entries = match fs::read_dir(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(0),
        other => other?,
    };
    let mut removed = 0;
    for entry in entries {
        let entry = entry?;
        if entry
            .file_name()
            .to_string_lossy()
            .starts_with(TEMPORARY_PREFIX)
            && entry.file_type()?.is_file()
        {
            fs::remove_file(entry.path())?;
            removed += 1;
        }
    }
    Ok(removed)
}

fn replace_with<E: From<io::Error>>(
    path: &Path,
    previous: Option<&Path>,
    write: impl FnOnce(&mut BufWriter<&mut File>) -> Result<(), E>,
) -> Result<(), E> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut temporary = tempfile::Builder::new()
        .prefix(TEMPORARY_PREFIX)
        .tempfile_in(folder)?;
    {
        let mut writer = BufWriter::new(temporary.as_file_mut());
        write(&mut writer)?;
        writer.flush()?;
    }
    temporary.as_file().sync_all()?;
    make_readable_like_a_new_file(temporary.as_file())?;
    if let Some(previous) = previous {
        match fs::rename(path, previous) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e.into()),
            _ => {}
        }
    }
    temporary.persist(path).map_err(|e| e.error)?;
    sync_folder(folder)?;
    Ok(())
}

/// Writes `bytes` to `path` atomically.
///
/// # Errors
/// As [`write_with`].
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_with(path, |file| file.write_all(bytes))
}

/// Temporary files are private to their owner; the finished file should be what
/// `File::create` would have made.
#[cfg(unix)]
fn make_readable_like_a_new_file(file: &File) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(fs::Permissions::from_mode(0o644))
}

#[cfg(not(unix))]
fn make_readable_like_a_new_file(_file: &File) -> io::Result<()> {
    Ok(())
}

/// The rename itself is durable only once the folder is synced.
#[cfg(unix)]
fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(not(unix))]
fn sync_folder(_folder: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_the_old_file() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let path = dir.path().join("f");
        write(&path, b"old").expect("first write");
        let failed: io::Result<()> = write_with(&path, |file| {
            file.write_all(b"half of the ne")?;
            Err(io::Error::other("disk full"))
        });
        assert!(failed.is_err());
        assert_eq!(fs::read(&path).expect("still there"), b"old");
        assert_eq!(fs::read_dir(dir.path()).expect("folder").count(), 1);
    }

    #[test]
    fn the_old_file_is_kept_and_leftovers_go() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let (path, previous) = (dir.path().join("f"), dir.path().join("f.previous"));
        for text in ["one", "two", "three"] {
            let written: io::Result<()> =
                write_keeping(&path, &previous, |file| file.write_all(text.as_bytes()));
            written.expect("written");
        }
        assert_eq!(fs::read(&path).expect("newest"), b"three");
        assert_eq!(fs::read(&previous).expect("the one before"), b"two");
        fs::write(dir.path().join(".partial-abc"), b"half").expect("leftover");
        assert_eq!(remove_leftovers(dir.path()).expect("removed"), 1);
        assert_eq!(fs::read_dir(dir.path()).expect("folder").count(), 2);
        assert_eq!(remove_leftovers(&dir.path().join("none")).expect("none"), 0);
    }
}
