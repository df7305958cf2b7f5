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
}
