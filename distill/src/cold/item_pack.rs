//! Item packs: new items and retired ones for a bundle that is on the devices already.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use serde::Serialize;
use slmrec_core::manifest::{FORMAT_VERSION, ITEM_PACK_FEATURE};
use slmrec_core::pack::{
    NEW_ITEMS_MEMBER, NEW_TABLE_MEMBER, NewItemsEntry, PackManifest, RETIRED_MEMBER,
};
use slmrec_core::{
    Bundle, BundleError, BundleWriter, Item, ItemTable, ItemTableError, ItemVocabulary, Pack,
    VocabularyError,
};

use crate::data::{self, DataError, PrepareSettings};

/// Why there is no item pack.
#[derive(Debug, thiserror::Error)]
pub enum ItemPackError {
    /// The bundle or a pack.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The file of items.
    #[error(transparent)]
    Data(#[from] DataError),
    /// Items that are no vocabulary.
    #[error("new items: {0}")]
    Vocabulary(#[from] VocabularyError),
    /// Vectors that are no rows of the bundle's table.
    #[error("new items: {0}")]
    Table(#[from] ItemTableError),
    /// Nothing of the file is new.
    #[error(
        "{path}: expected new items with a title, found none ({known} are in the bundle, \
         {without_title} have no title)"
    )]
    Nothing {
        /// The file.
        path: PathBuf,
        /// Items that the catalog has already.
        known: usize,
        /// Others, without a title.
        without_title: usize,
    },
    /// Something to retire that is not there.
    #[error(
        "{bundle}: expected an item of its catalog or of the packs that were given, found {id:?}"
    )]
    Unknown {
        /// The bundle.
        bundle: PathBuf,
        /// The id.
        id: String,
    },
}

/// A bundle with the packs that devices have applied before.
#[derive(Debug)]
pub struct Catalog {
    path: PathBuf,
    bundle: Bundle,
    vocabulary: ItemVocabulary,
}

/// What a file of items says beyond the catalog.
#[derive(Clone, Debug, PartialEq)]
pub struct NewTitles {
    /// New items with a title, in the order of the file.
    pub items: Vec<Item>,
    /// Items of the file that the catalog has already; they are left out.
    pub known: usize,
    /// New items without a title; they are left out.
    pub without_title: usize,
}

/// A pack that was written.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WrittenPack {
    /// The pack.
    pub path: PathBuf,
    /// Size of the file.
    pub bytes: u64,
    /// SHA-256 of the manifest of the bundle that it belongs to.
    pub bundle_sha256: String,
    /// Items that it adds.
    pub added: usize,
    /// Items that it retires.
    pub retired: usize,
}

impl Catalog {
    /// Opens a bundle and reads which items it has, those of `packs` among them.
    ///
    /// # Errors
    /// Files that are no bundle and packs of it, or packs that are not given in their order.
    pub fn open(bundle: &Path, packs: &[PathBuf]) -> Result<Self, ItemPackError> {
        let path = bundle.to_owned();
        let mut bundle = Bundle::open(bundle)?;
        let mut vocabulary = bundle.vocabulary()?;
        for pack in packs {
            if let Some(new) = Pack::open(pack, &bundle)?.new_items()? {
                vocabulary.append(new.items)?;
            }
        }
        Ok(Self {
            path,
            bundle,
            vocabulary,
        })
    }

    /// The bundle.
    #[must_use]
    pub fn bundle(&self) -> &Bundle {
        &self.bundle
    }

    /// Reads a file of ids, titles and categories and leaves out what the catalog has already.
    ///
    /// # Errors
    /// A file that cannot be read as one of items, or nothing new in it.
    pub fn new_titles(
        &self,
        file: &Path,
        read: &PrepareSettings,
    ) -> Result<NewTitles, ItemPackError> {
        let mut new = NewTitles {
            items: Vec::new(),
            known: 0,
            without_title: 0,
        };
        for item in data::items(file, read)? {
            if self.vocabulary.index_of(&item.id).is_some() {
                new.known += 1;
            } else if item.title.is_none() {
                new.without_title += 1;
            } else {
                new.items.push(item);
            }
        }
        if new.items.is_empty() {
            let (known, without_title) = (new.known, new.without_title);
            let path = file.to_owned();
            return Err(ItemPackError::Nothing {
                path,
                known,
                without_title,
            });
        }
        Ok(new)
    }

    /// Writes a pack of new items with these rows (row-major `[n, D]`), stored as the bundle stores
    /// its own.
    ///
    /// # Errors
    /// Rows that are not finite or too few, ids that occur twice, and what writing gives.
    pub fn write_new(
        &self,
        items: Vec<Item>,
        rows: &[f32],
        output: &Path,
    ) -> Result<WrittenPack, ItemPackError> {
        let of = &self.bundle.manifest().items;
        let table = ItemTable::from_f32(rows, of.dim, of.row_type)?;
        let vocabulary = ItemVocabulary::new(items)?;
        if table.len() != vocabulary.len() {
            return Err(ItemPackError::Table(ItemTableError::Header {
                expected: format!("{} rows", vocabulary.len()),
                found: table.len().to_string(),
            }));
        }
        let mut writer = BundleWriter::new();
        writer.add(NEW_ITEMS_MEMBER, vocabulary.to_json()?);
        writer.add(NEW_TABLE_MEMBER, table.to_bytes());
        let mut manifest = self.manifest();
        manifest.new_items = Some(NewItemsEntry {
            vocabulary: NEW_ITEMS_MEMBER.to_owned(),
            table: NEW_TABLE_MEMBER.to_owned(),
            count: table.len(),
        });
        self.write(writer, manifest, output)
    }

    /// Writes a pack that retires items; an id that is given twice counts once.
    ///
    /// # Errors
    /// An id that the catalog does not have, and what writing gives.
    pub fn write_retired(
        &self,
        ids: &[String],
        output: &Path,
    ) -> Result<WrittenPack, ItemPackError> {
        if let Some(id) = ids.iter().find(|id| self.vocabulary.index_of(id).is_none()) {
            return Err(ItemPackError::Unknown {
                bundle: self.path.clone(),
                id: id.clone(),
            });
        }
        let mut named = HashSet::new();
        let once: Vec<&String> = ids.iter().filter(|id| named.insert(*id)).collect();
        let json = serde_json::to_vec(&once).map_err(|e| cannot_write(output, e.into()))?;
        let mut writer = BundleWriter::new();
        writer.add(RETIRED_MEMBER, json);
        let mut manifest = self.manifest();
        manifest.retired = Some(RETIRED_MEMBER.to_owned());
        self.write(writer, manifest, output)
    }

    fn manifest(&self) -> PackManifest {
        PackManifest {
            format_version: FORMAT_VERSION,
            required_features: vec![ITEM_PACK_FEATURE.to_owned()],
            created_by: concat!("slmrec-distill ", env!("CARGO_PKG_VERSION")).to_owned(),
            bundle_sha256: self.bundle.sha256().to_owned(),
            prior: None,
            new_items: None,
            retired: None,
            members: BTreeMap::new(),
        }
    }

    /// Writes the pack and reads it back as a device will.
    fn write(
        &self,
        writer: BundleWriter,
        manifest: PackManifest,
        output: &Path,
    ) -> Result<WrittenPack, ItemPackError> {
        let manifest = writer.write(output, manifest)?;
        let mut pack = Pack::open(output, &self.bundle)?;
        let added = pack.new_items()?.map_or(0, |new| new.items.len());
        let retired = pack.retired()?.len();
        let size = std::fs::metadata(output).map_err(|e| cannot_write(output, e))?;
        Ok(WrittenPack {
            path: output.to_owned(),
            bytes: size.len(),
            bundle_sha256: manifest.bundle_sha256,
            added,
            retired,
        })
    }
}

fn cannot_write(output: &Path, source: std::io::Error) -> BundleError {
    BundleError::Io {
        path: output.to_owned(),
        source,
    }
}
