//! The pack: what changes a bundle's answers without a new model. It is bound to one bundle by its
//! hash, and small enough to be sent every day.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::bundle::{Bundle, BundleError, read_prior};
use crate::container::{Container, ContainerManifest, MANIFEST_MEMBER};
use crate::manifest::{MemberEntry, PriorEntry};
use crate::prior::TransitionPrior;

/// Name of the prior inside bundles and packs.
pub const PRIOR_MEMBER: &str = "prior.safetensors";

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
    /// Size and SHA-256 of every member but the manifest.
    pub members: BTreeMap<String, MemberEntry>,
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
    /// Number of items of the bundle.
    items: usize,
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
            items: bundle.manifest().items.count,
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
        let read = |entry: PriorEntry| read_prior(&mut self.container, &entry, self.items);
        entry.map(read).transpose()
    }
}
