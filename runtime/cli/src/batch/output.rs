//! The answers of a part as a file, and the files of all parts as one.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context;
use slmrec_core::atomic;

use super::input::UserType;
use super::{Answer, FileFormat, parquet_output};

/// Takes the next answers of a part.
pub(crate) type Write<'a> = dyn FnMut(&[Answer]) -> anyhow::Result<()> + 'a;

/// What atomic writing needs of an error.
#[derive(Debug)]
struct Failed(anyhow::Error);

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self(error.into())
    }
}

/// Writes a part's file, whole or not at all; `fill` gives the answers.
///
/// # Errors
/// What `fill` and writing give.
pub(crate) fn write_part(
    path: &Path,
    format: FileFormat,
    users: UserType,
    fill: impl FnOnce(&mut Write<'_>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let written = atomic::write_with(path, |file| {
        let filled = match format {
            FileFormat::Parquet => parquet_output::write(file, users, fill),
            FileFormat::JsonLines => fill(&mut |answers| write_lines(file, answers)),
        };
        filled.map_err(Failed)
    });
    written.map_err(|Failed(error)| error)
}

fn write_lines(file: &mut impl io::Write, answers: &[Answer]) -> anyhow::Result<()> {
    for answer in answers {
        serde_json::to_writer(&mut *file, answer).map_err(io::Error::from)?;
        file.write_all(b"\n")?;
    }
    Ok(())
}

/// Writes the output from the parts' files, whole or not at all.
///
/// # Errors
/// What reading and writing give.
pub(crate) fn merge(
    path: &Path,
    format: FileFormat,
    users: UserType,
    parts: &[PathBuf],
) -> anyhow::Result<()> {
    let written = atomic::write_with(path, |file| match format {
        FileFormat::Parquet => parquet_output::merge(file, users, parts).map_err(Failed),
        FileFormat::JsonLines => {
            for part in parts {
                io::copy(&mut File::open(part)?, file)?;
            }
            Ok(())
        }
    });
    written
        .map_err(|Failed(error)| error)
        .with_context(|| path.display().to_string())
}
