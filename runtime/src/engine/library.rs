//! Finding and loading ONNX Runtime, once a process.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ort::environment::{Environment, EnvironmentBuilder};
use ort::logging::LogLevel;

use crate::error::RuntimeError;
use crate::options::LibrarySearch;

/// Oldest ONNX Runtime whose interface is asked for.
const MINIMUM_VERSION: u32 = ort::MINOR_VERSION;

/// A loaded ONNX Runtime.
#[derive(Clone)]
pub(crate) struct Library {
    /// Where it came from; a bare name when the system's loader found it.
    pub(crate) path: PathBuf,
    /// Its environment; there can be one a process.
    pub(crate) environment: Environment,
}

impl Library {
    /// Its version by the name of its file, as in `libonnxruntime.so.1.31.1`; where the name has
    /// none, the commit it was built from. The binding has no safe call that tells the version.
    pub(crate) fn version(&self) -> String {
        let path = self.path.canonicalize().unwrap_or_default();
        let name = path.file_name().and_then(|name| name.to_str());
        match name.and_then(version_in) {
            Some(version) if !version.is_empty() => {
                let parts: Vec<String> = version.iter().map(u32::to_string).collect();
                parts.join(".")
            }
            _ => build_commit(ort::info()),
        }
    }
}

/// `.. git-commit-id=6af1a93, ..` -> `commit 6af1a93`.
fn build_commit(build_info: &str) -> String {
    let id = build_info.split("git-commit-id=").nth(1);
    let id = id.and_then(|rest| rest.split(',').next());
    format!("commit {}", id.unwrap_or("unknown").trim())
}

/// The one that this process has loaded. The binding allows one environment a process and does
/// not give it back, so it is kept.
static LOADED: Mutex<Option<Library>> = Mutex::new(None);

/// What stands for the path of a library that is a part of the program.
const LINKED: &str = "(linked into the program)";

/// Takes the ONNX Runtime that is linked into the program, where nothing can be loaded: its
/// interface must have been given to the binding (`ort::set_api`). Recommenders that name no
/// library run on it from then on. May be called again.
///
/// # Errors
/// Another library that is loaded already, or one that does not start.
pub fn use_linked_library() -> Result<(), RuntimeError> {
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    let linked = Path::new(LINKED);
    match loaded.as_ref() {
        Some(library) if library.path == linked => Ok(()),
        Some(library) => Err(RuntimeError::LibraryConflict {
            asked: linked.to_owned(),
            loaded: library.path.clone(),
        }),
        None => {
            let environment = start(ort::init()).map_err(|reason| unusable(linked, reason))?;
            *loaded = Some(Library {
                path: linked.to_owned(),
                environment,
            });
            Ok(())
        }
    }
}

/// Loads the named library or the first of the places that works; later calls get the loaded one.
///
/// # Errors
/// A named library that does not load, is too old, or is another one than the one already loaded;
/// no library in any place.
pub(crate) fn load(search: &LibrarySearch) -> Result<Library, RuntimeError> {
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(library) = loaded.as_ref() {
        return match &search.named {
            Some(asked) if !same_file(asked, &library.path) => Err(RuntimeError::LibraryConflict {
                asked: asked.clone(),
                loaded: library.path.clone(),
            }),
            _ => Ok(library.clone()),
        };
    }
    let library = match &search.named {
        Some(path) => load_file(path).map_err(|reason| unusable(path, reason))?,
        None => load_first(search)?,
    };
    Ok(loaded.insert(library).clone())
}

fn load_first(search: &LibrarySearch) -> Result<Library, RuntimeError> {
    let (mut tried, mut unusable) = (Vec::new(), Vec::new());
    for folder in &search.folders {
        tried.push(folder.display().to_string());
        let Some(path) = newest_in(folder) else {
            continue;
        };
        match load_file(&path) {
            Ok(library) => return Ok(library),
            Err(reason) => unusable.push(format!("{}: {reason}", path.display())),
        }
    }
    for name in &search.system_names {
        // The loader's own message says only that there is none, in many words.
        if let Ok(library) = load_file(Path::new(name)) {
            return Ok(library);
        }
        tried.push(name.clone());
    }
    Err(RuntimeError::LibraryNotFound { tried, unusable })
}

fn load_file(path: &Path) -> Result<Library, String> {
    // Relative names are looked up by the binding beside the executable first, so a path that was
    // given from the working folder is made whole here; bare names are for the system.
    let bare = path.components().count() == 1 && !path.exists();
    let full = if bare {
        path.to_owned()
    } else {
        std::path::absolute(path).map_err(|e| e.to_string())?
    };
    if !bare && !full.is_file() {
        return Err("no such file".into());
    }
    // `init_from` is the only way in that reports a missing library; the others panic.
    let builder = ort::init_from(&full).map_err(|e| one_line(&e.to_string()))?;
    Ok(Library {
        path: full,
        environment: start(builder)?,
    })
}

fn start(builder: EnvironmentBuilder) -> Result<Environment, String> {
    let environment = builder
        .with_name("slmrec")
        .with_telemetry(false)
        .with_logger(Arc::new(|_level, category, _id, _place, message| {
            log::debug!(target: "onnxruntime", "{category}: {message}");
        }))
        .build()
        .map_err(|e| one_line(&e.to_string()))?;
    environment.set_log_level(LogLevel::Warning);
    Ok(environment)
}

/// The library in a folder; of several versions the newest.
fn newest_in(folder: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(folder).ok()?;
    entries
        .filter_map(Result::ok)
        .filter_map(|entry| Some((version_in(entry.file_name().to_str()?)?, entry.path())))
        .filter(|(_, path)| path.is_file())
        .max()
        .map(|(_, path)| path)
}

/// `libonnxruntime.so.1.31.1` -> `[1, 31, 1]`, `libonnxruntime.so` -> `[]`; `None` for other files.
fn version_in(name: &str) -> Option<Vec<u32>> {
    if name == "onnxruntime.dll" {
        return Some(Vec::new());
    }
    let rest = name.strip_prefix("libonnxruntime")?;
    let digits = match rest.strip_prefix(".so") {
        Some(digits) => digits,
        None => rest.strip_suffix(".dylib")?,
    };
    if digits.is_empty() {
        return Some(Vec::new());
    }
    let digits = digits.strip_prefix('.')?;
    digits.split('.').map(|part| part.parse().ok()).collect()
}

fn same_file(a: &Path, b: &Path) -> bool {
    a == b || matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

fn unusable(path: &Path, reason: String) -> RuntimeError {
    RuntimeError::Library {
        path: path.to_owned(),
        reason,
        minimum: format!("1.{MINIMUM_VERSION}"),
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version_in_a_folder() {
        let dir = tempfile::tempdir().expect("temporary folder");
        assert_eq!(newest_in(dir.path()), None);
        for name in [
            "libonnxruntime.so.1.9.2",
            "libonnxruntime.so.1.31.1",
            "libonnxruntime_providers_shared.so",
            "libonnxruntime.so.txt",
            "readme",
        ] {
            fs::write(dir.path().join(name), b"").expect("file");
        }
        let found = newest_in(dir.path()).expect("found");
        assert_eq!(found, dir.path().join("libonnxruntime.so.1.31.1"));
        assert_eq!(
            version_in("libonnxruntime.1.31.1.dylib"),
            Some(vec![1, 31, 1])
        );
        assert_eq!(version_in("onnxruntime.dll"), Some(vec![]));
        assert_eq!(
            build_commit("a, git-commit-id=6af1a93, b=c"),
            "commit 6af1a93"
        );
    }

    #[test]
    fn what_is_no_library_is_refused_with_the_place() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let path = dir.path().join("libonnxruntime.so.9.9.9");
        let error = load_file(&path).err().expect("missing");
        assert_eq!(error, "no such file");
        fs::write(&path, b"not a library").expect("file");
        assert!(load_file(&path).is_err());
        let search = LibrarySearch {
            named: None,
            folders: vec![dir.path().to_owned()],
            system_names: vec!["libno-such-library.so".into()],
        };
        let error = load_first(&search)
            .err()
            .expect("nothing there")
            .to_string();
        assert!(error.contains("libonnxruntime.so.9.9.9"), "{error}");
        assert!(error.contains("libno-such-library.so"), "{error}");
        assert!(error.contains("hint: "), "{error}");
    }
}
