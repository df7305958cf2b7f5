//! The dataset directory: what `prepare` writes and training, evaluation and the device read.
//!
//! ```text
//! dataset.json            name, counts, SHA-256 of the other files, provenance
//! vocabulary.json         item ids and titles in row order
//! users.json              user ids in sequence order
//! sequences.safetensors   items u32 [T], offsets u64 [U + 1], times i64 [T] (where the source had them)
//! ```
//! A user's sequence is `items[offsets[u]..offsets[u + 1]]`, oldest first.
//!
//! The split is leave-one-out by time: the last item of a user is the test target, the one before
//! it the validation target, the rest is for training. A user with fewer than three items is for
//! training only.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};

use crate::vocabulary::{ItemIndex, ItemVocabulary, VocabularyError};
use crate::{atomic, hash};

/// Version of the directory's layout.
pub const FORMAT_VERSION: u32 = 1;
/// The description, written last: a directory without it is not a dataset.
pub const DESCRIPTION_FILE: &str = "dataset.json";
/// Item ids and titles; a checkpoint names its vocabulary by the SHA-256 of this file.
pub const VOCABULARY_FILE: &str = "vocabulary.json";
const USERS_FILE: &str = "users.json";
const SEQUENCES_FILE: &str = "sequences.safetensors";

/// Why a dataset directory could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum DatasetError {
    /// A file that cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file with the wrong content.
    #[error("{path}: expected {expected}, found {found}")]
    Content {
        /// The file.
        path: PathBuf,
        /// What would have been right.
        expected: String,
        /// What stands there.
        found: String,
    },
    /// The vocabulary is not one.
    #[error("{path}: {source}")]
    Vocabulary {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: VocabularyError,
    },
}

/// `dataset.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatasetDescription {
    /// Layout version, [`FORMAT_VERSION`].
    pub format_version: u32,
    /// What a person calls it.
    pub name: String,
    /// Number of users U.
    pub users: usize,
    /// Number of items N.
    pub items: usize,
    /// Number of interactions T.
    pub interactions: usize,
    /// SHA-256 of every other file.
    pub files: BTreeMap<String, String>,
    /// How it was made: source files with hashes, settings, what was dropped and why.
    pub provenance: serde_json::Value,
}

/// Which target of a user is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// The last item but one.
    Validation,
    /// The last item.
    Test,
}

/// A prepared set of sequences with its vocabulary.
#[derive(Clone, Debug)]
pub struct Dataset {
    /// What a person calls it.
    pub name: String,
    /// Item ids and titles.
    pub vocabulary: ItemVocabulary,
    /// User ids, in sequence order.
    pub users: Vec<String>,
    /// All sequences, one after the other.
    pub items: Vec<ItemIndex>,
    /// Where each user's sequence begins in `items`; the last entry is its length.
    pub offsets: Vec<usize>,
    /// Time of each interaction, where the source had times.
    pub times: Option<Vec<i64>>,
    /// How it was made.
    pub provenance: serde_json::Value,
}

impl Dataset {
    /// Number of users.
    #[must_use]
    pub fn num_users(&self) -> usize {
        self.users.len()
    }

    /// Number of items N.
    #[must_use]
    pub fn num_items(&self) -> usize {
        self.vocabulary.len()
    }

    /// The whole sequence of a user, oldest first.
    #[must_use]
    pub fn sequence(&self, user: usize) -> &[ItemIndex] {
        &self.items[self.offsets[user]..self.offsets[user + 1]]
    }

    /// What training may see of a user: everything but the two held-out targets.
    #[must_use]
    pub fn training_sequence(&self, user: usize) -> &[ItemIndex] {
        let sequence = self.sequence(user);
        match sequence.len() {
            0..=2 => sequence,
            n => &sequence[..n - 2],
        }
    }

    /// The history and the target of a user in a split; `None` for users too short to have one.
    #[must_use]
    pub fn held_out(&self, user: usize, split: Split) -> Option<(&[ItemIndex], ItemIndex)> {
        let sequence = self.sequence(user);
        let at = sequence.len()
            - match split {
                _ if sequence.len() < 3 => return None,
                Split::Validation => 2,
                Split::Test => 1,
            };
        Some((&sequence[..at], sequence[at]))
    }

    /// What is known of a user before the target of a split is asked for: the training sequence before
    /// the validation target, and that target, too, before the test target.
    #[must_use]
    pub fn known_before(&self, user: usize, split: Split) -> &[ItemIndex] {
        match self.held_out(user, split) {
            Some((history, _)) => history,
            None => self.training_sequence(user),
        }
    }

    /// How often each item occurs in the training sequences; entry 0 is the padding.
    #[must_use]
    pub fn training_counts(&self) -> Vec<u32> {
        let mut counts = vec![0; self.num_items() + 1];
        for user in 0..self.num_users() {
            for item in self.training_sequence(user) {
                counts[item.row()] += 1;
            }
        }
        counts
    }

    /// Writes the directory: the parts first, `dataset.json` last, each atomically.
    ///
    /// # Errors
    /// What writing gives, or lists whose lengths do not fit together.
    pub fn write(&self, dir: &Path) -> Result<DatasetDescription, DatasetError> {
        self.check(dir)?;
        fs::create_dir_all(dir).map_err(|e| io_error(dir, e))?;
        // A description of older parts must never stand beside newer ones.
        let description_path = dir.join(DESCRIPTION_FILE);
        match fs::remove_file(&description_path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                return Err(io_error(&description_path, e));
            }
            _ => {}
        }
        let json = |name: &str, e: serde_json::Error| io_error(&dir.join(name), e.into());
        let parts = [
            (
                VOCABULARY_FILE,
                self.vocabulary
                    .to_json()
                    .map_err(|source| DatasetError::Vocabulary {
                        path: dir.join(VOCABULARY_FILE),
                        source,
                    })?,
            ),
            (
                USERS_FILE,
                serde_json::to_vec(&self.users).map_err(|e| json(USERS_FILE, e))?,
            ),
            (SEQUENCES_FILE, self.sequences_bytes(dir)?),
        ];
        let mut files = BTreeMap::new();
        for (name, bytes) in parts {
            let path = dir.join(name);
            atomic::write(&path, &bytes).map_err(|e| io_error(&path, e))?;
            files.insert(name.to_owned(), hash::sha256_hex(&bytes));
        }
        let description = DatasetDescription {
            format_version: FORMAT_VERSION,
            name: self.name.clone(),
            users: self.num_users(),
            items: self.num_items(),
            interactions: self.items.len(),
            files,
            provenance: self.provenance.clone(),
        };
        let bytes =
            serde_json::to_vec_pretty(&description).map_err(|e| json(DESCRIPTION_FILE, e))?;
        atomic::write(&description_path, &bytes).map_err(|e| io_error(&description_path, e))?;
        Ok(description)
    }

    /// Reads a directory and checks it: hashes, lengths, rows.
    ///
    /// # Errors
    /// Missing files, another format version, a hash or a length that differs, unknown rows.
    pub fn read(dir: &Path) -> Result<Self, DatasetError> {
        let description_path = dir.join(DESCRIPTION_FILE);
        let bytes = fs::read(&description_path).map_err(|e| io_error(&description_path, e))?;
        let description: DatasetDescription = serde_json::from_slice(&bytes)
            .map_err(|e| content(&description_path, "a dataset description", e))?;
        if description.format_version != FORMAT_VERSION {
            return Err(content(
                &description_path,
                format!("format version {FORMAT_VERSION}"),
                description.format_version,
            ));
        }
        let part = |name: &str| read_part(dir, name, &description);
        let vocabulary = ItemVocabulary::from_json(&part(VOCABULARY_FILE)?).map_err(|source| {
            DatasetError::Vocabulary {
                path: dir.join(VOCABULARY_FILE),
                source,
            }
        })?;
        let users = serde_json::from_slice(&part(USERS_FILE)?)
            .map_err(|e| content(&dir.join(USERS_FILE), "a list of user ids", e))?;
        let path = dir.join(SEQUENCES_FILE);
        let (items, offsets, times) = parse_sequences(&path, &part(SEQUENCES_FILE)?)?;
        let dataset = Self {
            name: description.name,
            vocabulary,
            users,
            items,
            offsets,
            times,
            provenance: description.provenance,
        };
        dataset.check(dir)?;
        Ok(dataset)
    }

    fn check(&self, dir: &Path) -> Result<(), DatasetError> {
        let path = dir.join(SEQUENCES_FILE);
        if self.offsets.len() != self.users.len() + 1 {
            return Err(content(
                &path,
                format!(
                    "{} offsets for {} users",
                    self.users.len() + 1,
                    self.users.len()
                ),
                self.offsets.len(),
            ));
        }
        let ascending = self.offsets.windows(2).all(|w| w[0] <= w[1]);
        if !ascending || self.offsets[0] != 0 || self.offsets.last() != Some(&self.items.len()) {
            return Err(content(
                &path,
                format!("offsets ascending from 0 to {}", self.items.len()),
                "others",
            ));
        }
        if let Some(times) = self.times.as_ref().filter(|t| t.len() != self.items.len()) {
            return Err(content(
                &path,
                format!("{} times", self.items.len()),
                times.len(),
            ));
        }
        let known = 1..=self.num_items();
        match self.items.iter().find(|i| !known.contains(&i.row())) {
            Some(item) => Err(content(&path, format!("rows 1..={}", known.end()), item)),
            None => Ok(()),
        }
    }

    fn sequences_bytes(&self, dir: &Path) -> Result<Vec<u8>, DatasetError> {
        let items: Vec<u8> = self.items.iter().flat_map(|i| i.0.to_le_bytes()).collect();
        let offsets: Vec<u8> = self
            .offsets
            .iter()
            .flat_map(|&o| (o as u64).to_le_bytes())
            .collect();
        let times: Option<Vec<u8>> = self
            .times
            .as_ref()
            .map(|times| times.iter().flat_map(|t| t.to_le_bytes()).collect());
        let path = dir.join(SEQUENCES_FILE);
        let wrong = |e| io_error(&path, io::Error::other(e));
        let view = |dtype, len: usize, bytes| TensorView::new(dtype, vec![len], bytes);
        let mut tensors = vec![
            (
                "items",
                view(Dtype::U32, self.items.len(), &items[..]).map_err(wrong)?,
            ),
            (
                "offsets",
                view(Dtype::U64, self.offsets.len(), &offsets[..]).map_err(wrong)?,
            ),
        ];
        if let Some(times) = &times {
            tensors.push((
                "times",
                view(Dtype::I64, self.items.len(), &times[..]).map_err(wrong)?,
            ));
        }
        safetensors::serialize(tensors, None).map_err(wrong)
    }
}

fn read_part(
    dir: &Path,
    name: &str,
    description: &DatasetDescription,
) -> Result<Vec<u8>, DatasetError> {
    let path = dir.join(name);
    let bytes = fs::read(&path).map_err(|e| io_error(&path, e))?;
    let found = hash::sha256_hex(&bytes);
    match description.files.get(name) {
        Some(expected) if *expected == found => Ok(bytes),
        Some(expected) => Err(content(&path, format!("SHA-256 {expected}"), found)),
        None => Err(content(
            &dir.join(DESCRIPTION_FILE),
            format!("a hash of {name}"),
            "none",
        )),
    }
}

type Sequences = (Vec<ItemIndex>, Vec<usize>, Option<Vec<i64>>);

fn parse_sequences(path: &Path, bytes: &[u8]) -> Result<Sequences, DatasetError> {
    let file = SafeTensors::deserialize(bytes).map_err(|e| content(path, "safetensors", e))?;
    let tensor = |name: &str, dtype: Dtype| -> Result<&[u8], DatasetError> {
        let view = file
            .tensor(name)
            .map_err(|e| content(path, format!("the tensor {name:?}"), e))?;
        if view.dtype() != dtype || view.shape().len() != 1 {
            let found = format!("{:?} {:?}", view.dtype(), view.shape());
            return Err(content(
                path,
                format!("{name}: one axis of {dtype:?}"),
                found,
            ));
        }
        Ok(view.data())
    };
    let items = tensor("items", Dtype::U32)?
        .as_chunks()
        .0
        .iter()
        .map(|b| ItemIndex(u32::from_le_bytes(*b)))
        .collect();
    let offsets = tensor("offsets", Dtype::U64)?
        .as_chunks()
        .0
        .iter()
        .map(|b| usize::try_from(u64::from_le_bytes(*b)).unwrap_or(usize::MAX))
        .collect();
    let times = if file.names().contains(&"times") {
        Some(
            tensor("times", Dtype::I64)?
                .as_chunks()
                .0
                .iter()
                .map(|b| i64::from_le_bytes(*b))
                .collect(),
        )
    } else {
        None
    };
    Ok((items, offsets, times))
}

fn io_error(path: &Path, source: io::Error) -> DatasetError {
    DatasetError::Io {
        path: path.to_owned(),
        source,
    }
}

fn content(
    path: &Path,
    expected: impl Into<String>,
    found: impl std::fmt::Display,
) -> DatasetError {
    DatasetError::Content {
        path: path.to_owned(),
        expected: expected.into(),
        found: found.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vocabulary::Item;

    fn tiny() -> Dataset {
        let items = ["a", "b", "c", "d"].map(Item::new).to_vec();
        Dataset {
            name: "tiny".into(),
            vocabulary: ItemVocabulary::new(items).expect("valid"),
            users: vec!["u".into(), "v".into()],
            items: [1, 2, 3, 4, 2, 1].map(ItemIndex).to_vec(),
            offsets: vec![0, 4, 6],
            times: Some(vec![5, 6, 7, 8, 1, 2]),
            provenance: serde_json::json!({"source": "test"}),
        }
    }

    #[test]
    fn splits_leave_one_out() {
        let d = tiny();
        let (history, target) = d.held_out(0, Split::Test).expect("long enough");
        assert_eq!((history.len(), target), (3, ItemIndex(4)));
        let (history, target) = d.held_out(0, Split::Validation).expect("long enough");
        assert_eq!((history.len(), target), (2, ItemIndex(3)));
        assert_eq!(d.held_out(1, Split::Test), None);
        assert_eq!(d.training_sequence(0).len(), 2);
        let known = |user, split| d.known_before(user, split).len();
        assert_eq!((known(0, Split::Validation), known(0, Split::Test)), (2, 3));
        assert_eq!((known(1, Split::Validation), known(1, Split::Test)), (2, 2));
        assert_eq!(d.training_sequence(1).len(), 2);
        assert_eq!(d.training_counts(), [0, 2, 2, 0, 0]);
    }

    #[test]
    fn round_trip_and_damage() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let dataset = tiny();
        dataset.write(dir.path()).expect("writes");
        let back = Dataset::read(dir.path()).expect("reads");
        assert_eq!(back.items, dataset.items);
        assert_eq!(back.times, dataset.times);
        assert_eq!(back.users, dataset.users);
        for name in [VOCABULARY_FILE, USERS_FILE, SEQUENCES_FILE] {
            let path = dir.path().join(name);
            let good = fs::read(&path).expect("file");
            let mut bad = good.clone();
            bad[good.len() / 2] ^= 4;
            fs::write(&path, &bad).expect("damage");
            let message = Dataset::read(dir.path()).expect_err("damaged").to_string();
            assert!(
                message.contains("SHA-256") && message.contains(name),
                "{message}"
            );
            fs::write(&path, &good).expect("mend");
        }
        fs::remove_file(dir.path().join(DESCRIPTION_FILE)).expect("remove");
        assert!(matches!(
            Dataset::read(dir.path()),
            Err(DatasetError::Io { .. })
        ));
    }

    #[test]
    fn refuses_rows_outside_the_vocabulary() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let mut dataset = tiny();
        dataset.items[0] = ItemIndex(5);
        assert!(dataset.write(dir.path()).is_err());
        dataset.items[0] = ItemIndex::PADDING;
        assert!(dataset.write(dir.path()).is_err());
    }
}
