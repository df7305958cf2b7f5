//! The bundle: everything that a device needs to recommend, in one container
//! ([`crate::container`]).

use std::path::Path;

use crate::container::Container;
use crate::item_table::{ItemTable, ItemTableError};
use crate::manifest::{Manifest, PriorEntry, Samples};
use crate::prior::{PriorError, TransitionPrior};
use crate::vocabulary::{ItemVocabulary, VocabularyError};

pub use crate::container::{BundleError, BundleWriter, MANIFEST_MEMBER, MAX_MEMBER_BYTES};

/// An opened bundle: its manifest is verified, members are verified as they are read.
#[derive(Debug)]
pub struct Bundle {
    container: Container<Manifest>,
}

impl Bundle {
    /// Opens a bundle and verifies its manifest.
    ///
    /// # Errors
    /// Anything that is not a bundle of a version and with features that this reader knows.
    pub fn open(path: &Path) -> Result<Self, BundleError> {
        let container = Container::open(path)?;
        Ok(Self { container })
    }

    /// The manifest.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.container.manifest
    }

    /// SHA-256 of the manifest, which by the chain of hashes names the whole content.
    #[must_use]
    pub fn sha256(&self) -> &str {
        &self.container.manifest_sha256
    }

    /// Reads a member; its size and hash are checked.
    ///
    /// # Errors
    /// A member that is missing, damaged, or larger than [`MAX_MEMBER_BYTES`].
    pub fn member(&mut self, name: &str) -> Result<Vec<u8>, BundleError> {
        self.container.member(name)
    }

    /// Reads and checks every member, also those that this reader does not know.
    ///
    /// # Errors
    /// The first member that [`Self::member`] refuses.
    pub fn verify_members(&mut self) -> Result<(), BundleError> {
        self.container.verify_members()
    }

    /// The item vocabulary.
    ///
    /// # Errors
    /// A damaged member, or another number of items than the manifest says.
    pub fn vocabulary(&mut self) -> Result<ItemVocabulary, BundleError> {
        let name = self.manifest().vocabulary.clone();
        let bytes = self.member(&name)?;
        let vocabulary = ItemVocabulary::from_json(&bytes)
            .map_err(|e: VocabularyError| self.container.member_error(&name, "a vocabulary", e))?;
        if vocabulary.len() != self.manifest().items.count {
            let expected = format!("{} items", self.manifest().items.count);
            return Err(self
                .container
                .member_error(&name, expected, vocabulary.len()));
        }
        Ok(vocabulary)
    }

    /// The item table.
    ///
    /// # Errors
    /// A damaged member, or another shape than the manifest says.
    pub fn item_table(&mut self) -> Result<ItemTable, BundleError> {
        let entry = self.manifest().items.clone();
        let bytes = self.member(&entry.member)?;
        let table = ItemTable::from_bytes(&bytes).map_err(|e: ItemTableError| {
            self.container
                .member_error(&entry.member, "an item table", e)
        })?;
        if (table.len(), table.dim(), table.row_type()) != (entry.count, entry.dim, entry.row_type)
        {
            let expected = format!("{} x {} {:?}", entry.count, entry.dim, entry.row_type);
            let found = format!("{} x {} {:?}", table.len(), table.dim(), table.row_type());
            return Err(self.container.member_error(&entry.member, expected, found));
        }
        Ok(table)
    }

    /// The sample histories.
    ///
    /// # Errors
    /// A damaged member.
    pub fn samples(&mut self) -> Result<Samples, BundleError> {
        let name = self.manifest().samples.clone();
        let bytes = self.member(&name)?;
        serde_json::from_slice(&bytes).map_err(|e| self.container.member_error(&name, "samples", e))
    }

    /// Ids of popular items, most popular first.
    ///
    /// # Errors
    /// A damaged member.
    pub fn popularity(&mut self) -> Result<Vec<String>, BundleError> {
        let name = self.manifest().popularity.clone();
        let bytes = self.member(&name)?;
        serde_json::from_slice(&bytes)
            .map_err(|e| self.container.member_error(&name, "a list of item ids", e))
    }

    /// The transition prior; `None` for a bundle without one.
    ///
    /// # Errors
    /// A damaged member, or one that does not fit the manifest.
    pub fn prior(&mut self) -> Result<Option<TransitionPrior>, BundleError> {
        let (entry, items) = (self.manifest().prior.clone(), self.manifest().items.count);
        let read = |entry: PriorEntry| read_prior(&mut self.container, &entry, items);
        entry.map(read).transpose()
    }
}

/// Reads and checks the prior that a manifest names.
pub(crate) fn read_prior<M: crate::container::ContainerManifest>(
    container: &mut Container<M>,
    entry: &PriorEntry,
    items: usize,
) -> Result<TransitionPrior, BundleError> {
    let bytes = container.member(&entry.member)?;
    let prior = (entry.weights.check())
        .and_then(|()| TransitionPrior::from_bytes(&bytes, entry.settings, items));
    prior.map_err(|e: PriorError| {
        let expected = format!("{}: {}", e.what, e.expected);
        container.member_error(&entry.member, expected, e.found)
    })
}

#[cfg(test)]
mod tests;
