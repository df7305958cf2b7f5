//! The pack: what changes a bundle's answers without a new model. It is bound to one bundle by its
//! hash, and small enough to be sent every day.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::bundle::{Bundle, BundleError, read_prior};
use crate::container::{Container, ContainerManifest, MANIFEST_MEMBER};
use crate::item_table::ItemTable;
use crate::manifest::{ItemsEntry, MemberEntry, PriorEntry};
use crate::prior::TransitionPrior;
use crate::vocabulary::{Item, ItemVocabulary};

/// Name of the prior inside bundles and packs.
pub const PRIOR_MEMBER: &str = "prior.safetensors";
/// Name of the ids, titles and categories of new items inside a pack.
pub const NEW_ITEMS_MEMBER: &str = "new-items.json";
/// Name of the table of new items inside a pack.
pub const NEW_TABLE_MEMBER: &str = "new-items.bin";
/// Name of the list of retired items inside a pack.
pub const RETIRED_MEMBER: &str = "retired.json";

/// `manifest.json` of a pack.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PackManifest {
    /// Container version, [`crate::manifest::FORMAT_VERSION`].
    pub format_version: u32,
    /// Features that a reader must understand to read this pack rightly.
    #[serde(default)]
    pub required_features: Vec<String>,
    /// Program and version that wrote it.
    pub created_by: String,
    /// SHA-256 of the manifest of the bundle that it changes.
    pub bundle_sha256: String,
    /// Takes the place of the bundle's prior.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prior: Option<PriorEntry>,
    /// Items that the bundle does not have, with the feature
    /// [`crate::manifest::ITEM_PACK_FEATURE`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new_items: Option<NewItemsEntry>,
    /// Member with the ids of items that are no longer recommended, a JSON list; with the feature
    /// [`crate::manifest::ITEM_PACK_FEATURE`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retired: Option<String>,
    /// Size and SHA-256 of every member but the manifest.
    pub members: BTreeMap<String, MemberEntry>,
}

/// New items of a pack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewItemsEntry {
    /// Member with ids, titles and categories, in the form of a bundle's vocabulary.
    pub vocabulary: String,
    /// Member with their rows, in the form, dimension and row type of the bundle's item table.
    pub table: String,
    /// Number of items.
    pub count: usize,
}

/// New items, row by row.
#[derive(Clone, Debug)]
pub struct NewItems {
    /// Ids, titles and categories.
    pub items: Vec<Item>,
    /// Their rows.
    pub table: ItemTable,
}

impl ContainerManifest for PackManifest {
    const KIND: &'static str = "pack";

    fn required_features(&self) -> &[String] {
        &self.required_features
    }

    fn members(&self) -> &BTreeMap<String, MemberEntry> {
        &self.members
    }

    fn members_mut(&mut self) -> &mut BTreeMap<String, MemberEntry> {
        &mut self.members
    }
}

/// An opened pack.
#[derive(Debug)]
pub struct Pack {
    container: Container<PackManifest>,
    /// The item table of the bundle.
    bundle_items: ItemsEntry,
}

impl Pack {
    /// Opens a pack of `bundle`.
    ///
    /// # Errors
    /// Anything that is not a pack that this reader knows, or one of another bundle.
    pub fn open(path: &Path, bundle: &Bundle) -> Result<Self, BundleError> {
        let container: Container<PackManifest> = Container::open(path)?;
        let of = &container.manifest.bundle_sha256;
        if of != bundle.sha256() {
            let expected = format!("a pack of the bundle {}", bundle.sha256());
            return Err(container.member_error(MANIFEST_MEMBER, expected, format!("one of {of}")));
        }
        Ok(Self {
            container,
            bundle_items: bundle.manifest().items.clone(),
        })
    }

    /// The manifest.
    #[must_use]
    pub fn manifest(&self) -> &PackManifest {
        &self.container.manifest
    }

    /// The prior in it.
    ///
    /// # Errors
    /// A damaged member, or one that does not fit the manifest.
    pub fn prior(&mut self) -> Result<Option<TransitionPrior>, BundleError> {
        let entry = self.container.manifest.prior.clone();
        let read =
            |entry: PriorEntry| read_prior(&mut self.container, &entry, self.bundle_items.count);
        entry.map(read).transpose()
    }

    /// SHA-256 of the manifest, which by the chain of hashes names the whole content.
    #[must_use]
    pub fn sha256(&self) -> &str {
        &self.container.manifest_sha256
    }

    /// The new items in it.
    ///
    /// # Errors
    /// A damaged member, or one that fits neither manifest nor bundle.
    pub fn new_items(&mut self) -> Result<Option<NewItems>, BundleError> {
        let Some(entry) = self.container.manifest.new_items.clone() else {
            return Ok(None);
        };
        let bytes = self.container.member(&entry.vocabulary)?;
        let vocabulary = ItemVocabulary::from_json(&bytes)
            .map_err(|e| (self.container).member_error(&entry.vocabulary, "a vocabulary", e))?;
        let bytes = self.container.member(&entry.table)?;
        let table = ItemTable::from_bytes(&bytes)
            .map_err(|e| (self.container).member_error(&entry.table, "an item table", e))?;
        let (dim, row_type) = (self.bundle_items.dim, self.bundle_items.row_type);
        if (table.len(), table.dim(), table.row_type()) != (entry.count, dim, row_type) {
            let expected = format!("{} x {dim} {row_type:?}", entry.count);
            let found = format!("{} x {} {:?}", table.len(), table.dim(), table.row_type());
            return Err((self.container).member_error(&entry.table, expected, found));
        }
        if vocabulary.len() != entry.count {
            let expected = format!("{} items", entry.count);
            let found = vocabulary.len();
            return Err((self.container).member_error(&entry.vocabulary, expected, found));
        }
        let items = vocabulary.into_items();
        Ok(Some(NewItems { items, table }))
    }

    /// Ids of items that are no longer recommended.
    ///
    /// # Errors
    /// A damaged member.
    pub fn retired(&mut self) -> Result<Vec<String>, BundleError> {
        let Some(member) = self.container.manifest.retired.clone() else {
            return Ok(Vec::new());
        };
        let bytes = self.container.member(&member)?;
        serde_json::from_slice(&bytes)
            .map_err(|e| (self.container).member_error(&member, "a list of item ids", e))
    }

    /// That a member of the pack does not fit what it is applied to.
    #[must_use]
    pub fn misfit(&self, member: &str, expected: &str, found: String) -> BundleError {
        self.container.member_error(member, expected, found)
    }
}
