//! The rank files that an evaluation leaves behind, and where they are found.
//!
//! `evaluation/ranks/`, and `ranks/` in the folder of a study, hold one [`Evaluation`] a system. Which of them belong together, and in
//! which order, says `evaluation/comparison.json`; a file that it does not name is of an earlier
//! run and is not read.

use std::fs;
use std::path::{Path, PathBuf};

use slmrec_core::Evaluation;
use slmrec_core::evaluation::EvaluationError;

use super::Comparison;

/// The comparison for machines, in the folder of an evaluation.
pub const COMPARISON_FILE: &str = "comparison.json";
/// The folder of the rank files beside it.
pub const RANKS_DIR: &str = "ranks";
/// The folder of an evaluation in a work directory.
const EVALUATION_DIR: &str = "evaluation";
/// The folder of the data in a work directory.
const DATASET_DIR: &str = "dataset";

/// Why the ranks of a run could not be read.
#[derive(Debug, thiserror::Error)]
pub enum RankFileError {
    /// Nothing of an evaluation at a path.
    #[error(
        "{path}: expected {expected}, found {found}\n\
         hint: run `slmrec-distill evaluate` in that work directory first"
    )]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
        /// What would have been right.
        expected: &'static str,
        /// What is there.
        found: &'static str,
    },
    /// A file that cannot be read.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file that is not the ranks of a system.
    #[error(
        "{path}: expected the ranks of a system, found {source}\n\
         hint: rank files lie in evaluation/ranks of a work directory; `slmrec-distill evaluate --force` writes them again"
    )]
    Ranks {
        /// Which.
        path: PathBuf,
        /// What was wrong.
        source: EvaluationError,
    },
    /// A comparison that is none.
    #[error(
        "{path}: expected a comparison, found {found}\n\
         hint: `slmrec-distill evaluate --force` writes it again"
    )]
    Comparison {
        /// Which.
        path: PathBuf,
        /// What was wrong.
        found: String,
    },
}

/// The systems of one run.
#[derive(Clone, Debug)]
pub struct RankedRun {
    /// What was asked for.
    pub path: PathBuf,
    /// The systems, in the order of the comparison.
    pub evaluations: Vec<Evaluation>,
    /// The data that they were evaluated on, where it lies in its usual place.
    pub dataset: Option<PathBuf>,
}

/// Name of the file with the ranks of a system.
#[must_use]
pub fn rank_file_name(system: &str) -> String {
    format!("{}.json", system.replace([',', ' ', '/'], "-"))
}

/// Reads a work directory, the folder of an evaluation or of a study, its folder of rank files, or one
/// rank file.
///
/// # Errors
/// Nothing of an evaluation there, or a file that is damaged.
pub fn read_run(path: &Path) -> Result<RankedRun, RankFileError> {
    let run = |evaluations| RankedRun {
        path: path.to_owned(),
        evaluations,
        // An evaluation lies in its work directory, the ranks of a study three folders deeper.
        dataset: (path.ancestors().take(5).map(|root| root.join(DATASET_DIR)))
            .find(|dataset| dataset.is_dir()),
    };
    if path.is_file() {
        return Ok(run(vec![read_ranks(path)?]));
    }
    if !path.is_dir() {
        return Err(missing(path, "nothing"));
    }
    let work = path.join(EVALUATION_DIR);
    if work.is_dir() {
        return Ok(run(read_evaluation(&work)?));
    }
    if path.join(COMPARISON_FILE).is_file() || path.join(RANKS_DIR).is_dir() {
        return Ok(run(read_evaluation(path)?));
    }
    Ok(run(read_folder(path)?))
}

/// Reads the comparison in the folder of an evaluation.
///
/// # Errors
/// No such file, or one of another kind.
pub fn read_comparison(dir: &Path) -> Result<Comparison, RankFileError> {
    let path = dir.join(COMPARISON_FILE);
    let bytes = fs::read(&path).map_err(|source| match source.kind() {
        std::io::ErrorKind::NotFound => missing(&path, "nothing"),
        _ => RankFileError::Io {
            path: path.clone(),
            source,
        },
    })?;
    serde_json::from_slice(&bytes).map_err(|e| RankFileError::Comparison {
        path,
        found: e.to_string(),
    })
}

/// The systems that the comparison in `dir` names.
fn read_evaluation(dir: &Path) -> Result<Vec<Evaluation>, RankFileError> {
    let comparison = read_comparison(dir)?;
    let ranks = dir.join(RANKS_DIR);
    (comparison.rows.iter())
        .map(|row| read_ranks(&ranks.join(rank_file_name(&row.system))))
        .collect()
}

/// Every rank file of a folder, by name.
fn read_folder(dir: &Path) -> Result<Vec<Evaluation>, RankFileError> {
    let io = |source| RankFileError::Io {
        path: dir.to_owned(),
        source,
    };
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir).map_err(io)? {
        let path = entry.map_err(io)?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "json")
        {
            paths.push(path);
        }
    }
    if paths.is_empty() {
        return Err(missing(dir, "a folder without any"));
    }
    paths.sort();
    paths.iter().map(|path| read_ranks(path)).collect()
}

fn read_ranks(path: &Path) -> Result<Evaluation, RankFileError> {
    let bytes = fs::read(path).map_err(|source| match source.kind() {
        std::io::ErrorKind::NotFound => missing(path, "nothing"),
        _ => RankFileError::Io {
            path: path.to_owned(),
            source,
        },
    })?;
    Evaluation::from_json(&bytes).map_err(|source| RankFileError::Ranks {
        path: path.to_owned(),
        source,
    })
}

fn missing(path: &Path, found: &'static str) -> RankFileError {
    RankFileError::Missing {
        path: path.to_owned(),
        expected: "a work directory with an evaluation, the folder of an evaluation, or rank files",
        found,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::comparison::tests::evaluation;

    fn write(path: &Path, bytes: &[u8]) {
        fs::create_dir_all(path.parent().expect("a folder")).expect("folder");
        fs::write(path, bytes).expect("file");
    }

    #[test]
    fn a_run_is_found_by_each_of_its_paths() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let root = dir.path();
        let systems = [evaluation("b, late", |_| 2), evaluation("a", |_| 1)];
        let comparison = Comparison::new(&systems, &[]).expect("same targets");
        let evaluation_dir = root.join("evaluation");
        let study = root.join("studies/losses");
        let json = serde_json::to_vec(&comparison).expect("JSON");
        for folder in [&evaluation_dir, &study] {
            write(&folder.join(COMPARISON_FILE), &json);
            for system in &systems {
                let path = folder.join(RANKS_DIR).join(rank_file_name(&system.name));
                write(&path, &system.to_json().expect("JSON"));
            }
        }
        fs::create_dir_all(root.join(DATASET_DIR)).expect("folder");
        let names = |path: &Path| -> Vec<String> {
            let run = read_run(path).expect("a run");
            assert_eq!(
                run.dataset,
                Some(root.join(DATASET_DIR)),
                "{}",
                path.display()
            );
            run.evaluations.into_iter().map(|e| e.name).collect()
        };
        assert_eq!(names(root), ["b, late", "a"]);
        assert_eq!(names(&evaluation_dir), ["b, late", "a"]);
        let ranks = evaluation_dir.join(RANKS_DIR);
        assert_eq!(names(&ranks), ["a", "b, late"], "by file name");
        assert_eq!(names(&ranks.join("b--late.json")), ["b, late"]);
        assert_eq!(names(&study), ["b, late", "a"]);
        assert_eq!(names(&study.join("ranks/a.json")), ["a"]);

        // What the comparison does not name is of an earlier run; what it names must be there.
        write(&ranks.join("old.json"), b"{}");
        assert_eq!(names(root).len(), 2);
        fs::remove_file(ranks.join("a.json")).expect("removed");
        let error = read_run(root).expect_err("ranks are missing").to_string();
        assert!(
            error.contains("a.json") && error.contains("hint:"),
            "{error}"
        );
    }

    #[test]
    fn what_is_no_run_is_refused_with_its_path() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let refused = |path: &Path, part: &str| {
            let error = read_run(path).expect_err("no run").to_string();
            assert!(error.contains(part) && error.contains("hint:"), "{error}");
        };
        refused(&dir.path().join("nowhere"), "nowhere: expected");
        refused(dir.path(), "found a folder without any");
        let file = dir.path().join("x.json");
        write(&file, b"[1]");
        refused(&file, "x.json: expected the ranks of a system");
        write(&dir.path().join(COMPARISON_FILE), b"[1]");
        refused(dir.path(), "expected a comparison");
    }
}
