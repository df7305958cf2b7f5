//! Newer interactions into the prior of a bundle: what people did since, without training anything.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;
use slmrec_core::manifest::{FORMAT_VERSION, PRIOR_FEATURE, PriorEntry};
use slmrec_core::pack::{PRIOR_MEMBER, PackManifest};
use slmrec_core::{Bundle, BundleError, BundleWriter, Dataset, ItemIndex, PriorError};

use super::counting::{CountedSequence, count};
use crate::data::{self, DataError, PrepareSettings};

/// Why a prior could not be refreshed.
#[derive(Debug, thiserror::Error)]
pub enum UpdateError {
    /// The bundle or the pack.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// A bundle without a prior.
    #[error(
        "{path}: expected a bundle with a transition prior, found none in it\n\
         hint: export it with `slmrec-distill export` after `slmrec-distill prior fit`"
    )]
    NoPrior {
        /// The bundle.
        path: PathBuf,
    },
    /// The interactions.
    #[error(transparent)]
    Data(#[from] DataError),
    /// Only new interactions are to be counted, and the file has no times.
    #[error("{path}: --since needs interactions with times, found none")]
    NoTimes {
        /// The file.
        path: PathBuf,
    },
    /// Nothing of the file can be counted.
    #[error(
        "{path}: expected new interactions with items of the bundle, found none \
         ({interactions} interactions, {unknown_items} items that the bundle does not have)"
    )]
    Nothing {
        /// The file.
        path: PathBuf,
        /// Interactions in it.
        interactions: usize,
        /// Items in it that are not in the bundle.
        unknown_items: usize,
    },
    /// Counting failed.
    #[error(transparent)]
    Prior(#[from] PriorError),
}

/// What an update made.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct UpdateReport {
    /// The pack.
    pub path: PathBuf,
    /// Size of the file.
    pub bytes: u64,
    /// SHA-256 of the manifest of the bundle that it belongs to.
    pub bundle_sha256: String,
    /// Interactions that were added.
    pub new_interactions: usize,
    /// Interactions that the prior knows now.
    pub interactions: usize,
    /// Pairs that the prior has now, and had before.
    pub pairs: (usize, usize),
    /// Items of the file that the bundle does not have; they are left out.
    pub unknown_items: usize,
}

/// Counts the interactions of `source` into the prior of `bundle` and writes the result to `output`,
/// a pack of that bundle. With `since` (the file's unit of time) pairs of two older interactions,
/// which were counted before, are left out, so that the file may hold everything that happened.
/// `most` neighbours of an item are kept, or as many as the bundle's longest row has.
///
/// # Errors
/// Files that cannot be read or written, a bundle without a prior, nothing to count.
pub fn update(
    bundle: &Path,
    source: &Path,
    read: &PrepareSettings,
    since: Option<i64>,
    most: usize,
    output: &Path,
) -> Result<UpdateReport, UpdateError> {
    let mut opened = Bundle::open(bundle)?;
    let entry = opened.manifest().prior.clone();
    let (Some(entry), Some(old)) = (entry, opened.prior()?) else {
        return Err(UpdateError::NoPrior {
            path: bundle.to_owned(),
        });
    };
    let (dataset, _) = data::prepare(source, read, &|_, _| ())?;
    let vocabulary = opened.vocabulary()?;
    let items = dataset.vocabulary.items().iter();
    let rows: Vec<Option<ItemIndex>> = items.map(|i| vocabulary.index_of(&i.id)).collect();
    let unknown_items = rows.iter().filter(|row| row.is_none()).count();
    let sequences =
        known_sequences(&dataset, &rows, since).ok_or_else(|| UpdateError::NoTimes {
            path: source.to_owned(),
        })?;
    let counted: Vec<CountedSequence<'_>> = (sequences.iter())
        .map(|(items, new_from)| CountedSequence {
            items,
            new_from: *new_from,
        })
        .collect();
    let most = most.max(old.longest_row());
    let new = count(&counted, vocabulary.len(), *old.settings(), most)?;
    if new.interactions() == 0 {
        return Err(UpdateError::Nothing {
            path: source.to_owned(),
            interactions: dataset.items.len(),
            unknown_items,
        });
    }
    let both = old.add(&new, most)?.rounded();
    let manifest = PackManifest {
        format_version: FORMAT_VERSION,
        required_features: vec![PRIOR_FEATURE.to_owned()],
        created_by: concat!("slmrec-distill ", env!("CARGO_PKG_VERSION")).to_owned(),
        bundle_sha256: opened.sha256().to_owned(),
        prior: Some(PriorEntry {
            interactions: entry.interactions + new.interactions(),
            ..entry
        }),
        new_items: None,
        retired: None,
        members: BTreeMap::new(),
    };
    let mut writer = BundleWriter::new();
    writer.add(PRIOR_MEMBER, both.to_bytes()?);
    let manifest = writer.write(output, with_member(manifest))?;
    let size = std::fs::metadata(output).map_err(|source| BundleError::Io {
        path: output.to_owned(),
        source,
    })?;
    Ok(UpdateReport {
        path: output.to_owned(),
        bytes: size.len(),
        bundle_sha256: manifest.bundle_sha256,
        new_interactions: new.interactions(),
        interactions: manifest.prior.map_or(0, |prior| prior.interactions),
        pairs: (both.num_pairs(), old.num_pairs()),
        unknown_items,
    })
}

/// The prior under the name that it has in this file.
fn with_member(mut manifest: PackManifest) -> PackManifest {
    if let Some(prior) = &mut manifest.prior {
        prior.member = PRIOR_MEMBER.to_owned();
    }
    manifest
}

/// Every user's known items, and the place of the first new one; `None` without the times that
/// `since` needs.
fn known_sequences(
    dataset: &Dataset,
    rows: &[Option<ItemIndex>],
    since: Option<i64>,
) -> Option<Vec<(Vec<ItemIndex>, usize)>> {
    let mut sequences = Vec::with_capacity(dataset.num_users());
    for bounds in dataset.offsets.windows(2) {
        let (mut known, mut new_from) = (Vec::new(), 0);
        for at in bounds[0]..bounds[1] {
            let Some(item) = rows[dataset.items[at].row() - 1] else {
                continue;
            };
            if let Some(since) = since
                && dataset.times.as_ref()?[at] < since
            {
                new_from = known.len() + 1;
            }
            known.push(item);
        }
        sequences.push((known, new_from));
    }
    Some(sequences)
}
