//! The container of bundles and packs: a ZIP file with zstd members, described by `manifest.json`.
//!
//! Integrity is a chain: the archive comment carries the SHA-256 of the manifest, the manifest the
//! size and SHA-256 of every member. A reader trusts no length in the file before it has checked
//! it, and hands out no byte before its hash fits; a flipped bit is refused unless it lies in
//! container fields that nothing reads.
//!
//! Members that the manifest names but this reader does not know are ignored, unless
//! `required_features` says that ignoring them would change answers.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

use crate::manifest::{FORMAT_VERSION, KNOWN_FEATURES, MemberEntry};
use crate::{atomic, hash};

/// Name of the manifest inside the container.
pub const MANIFEST_MEMBER: &str = "manifest.json";
const MAX_MANIFEST_BYTES: u64 = 16 << 20;
const MAX_MEMBERS: usize = 10_000;
/// Largest uncompressed member that is read: 10 million int8 rows of 384 values fit.
pub const MAX_MEMBER_BYTES: u64 = 4 << 30;

/// Why a bundle could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// The file cannot be opened, read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Not a bundle's container, or a damaged one.
    #[error("{path}: not a readable bundle: {reason}")]
    Container {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Written by a newer version.
    #[error(
        "{path}: bundle format version {found}, this program reads {FORMAT_VERSION}; hint: update slmrec-run"
    )]
    FormatVersion {
        /// The file.
        path: PathBuf,
        /// The version in the manifest.
        found: u64,
    },
    /// Needs something that this reader does not know.
    #[error(
        "{path}: the bundle requires the feature {feature:?}, which this program does not know; hint: update slmrec-run"
    )]
    Feature {
        /// The file.
        path: PathBuf,
        /// The feature.
        feature: String,
    },
    /// A member is missing, damaged or of the wrong kind.
    #[error("{path}: member {member:?}: expected {expected}, found {found}")]
    Member {
        /// The file.
        path: PathBuf,
        /// The member.
        member: String,
        /// What would have been right.
        expected: String,
        /// What was found.
        found: String,
    },
}

/// What a manifest says about its container.
pub trait ContainerManifest: Serialize + DeserializeOwned {
    /// What kind of file it is; part of the archive's comment.
    const KIND: &'static str;

    /// Features that a reader must understand.
    fn required_features(&self) -> &[String];

    /// Size and hash of every member.
    fn members(&self) -> &BTreeMap<String, MemberEntry>;

    /// The same, for the writer.
    fn members_mut(&mut self) -> &mut BTreeMap<String, MemberEntry>;
}

fn comment_prefix<M: ContainerManifest>() -> String {
    format!("slmrec-{} manifest sha256 ", M::KIND)
}

/// Collects members and writes them with their manifest as one file.
#[derive(Debug, Default)]
pub struct BundleWriter {
    members: BTreeMap<String, Vec<u8>>,
}

impl BundleWriter {
    /// An empty file.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a member, or replaces one of the same name.
    pub fn add(&mut self, name: impl Into<String>, bytes: Vec<u8>) {
        self.members.insert(name.into(), bytes);
    }

    /// Writes the file atomically, after filling the manifest's members. Equal input gives equal
    /// bytes.
    ///
    /// # Errors
    /// What writing gives.
    pub fn write<M: ContainerManifest>(
        self,
        path: &Path,
        mut manifest: M,
    ) -> Result<M, BundleError> {
        *manifest.members_mut() = self
            .members
            .iter()
            .map(|(name, bytes)| {
                let entry = MemberEntry {
                    bytes: bytes.len() as u64,
                    sha256: hash::sha256_hex(bytes),
                };
                (name.clone(), entry)
            })
            .collect();
        let written = serde_json::to_vec_pretty(&manifest)
            .map_err(io::Error::from)
            .and_then(|json| {
                let comment = format!("{}{}", comment_prefix::<M>(), hash::sha256_hex(&json));
                atomic::write_with(path, |file| self.write_zip(file, comment, &json))
            });
        written.map_err(|source| BundleError::Io {
            path: path.to_owned(),
            source,
        })?;
        Ok(manifest)
    }

    fn write_zip(
        &self,
        file: impl Write + Seek,
        comment: String,
        manifest: &[u8],
    ) -> io::Result<()> {
        let mut zip = ZipWriter::new(file);
        zip.set_comment(comment)?;
        let options = SimpleFileOptions::default().compression_method(CompressionMethod::Zstd);
        let manifest = (MANIFEST_MEMBER, manifest);
        let members = self.members.iter().map(|(n, b)| (n.as_str(), b.as_slice()));
        for (name, bytes) in std::iter::once(manifest).chain(members) {
            let large = bytes.len() as u64 >= u64::from(u32::MAX);
            zip.start_file(name, options.large_file(large))?;
            zip.write_all(bytes)?;
        }
        zip.finish()?;
        Ok(())
    }
}

/// An opened container: its manifest is verified, members are verified as they are read.
#[derive(Debug)]
pub(crate) struct Container<M> {
    path: PathBuf,
    pub(crate) manifest: M,
    pub(crate) manifest_sha256: String,
    archive: ZipArchive<BufReader<File>>,
}

impl<M: ContainerManifest> Container<M> {
    /// Opens a file of this kind and verifies its manifest.
    ///
    /// # Errors
    /// Anything that is not such a file, of a version and with features that this reader knows.
    pub(crate) fn open(path: &Path) -> Result<Self, BundleError> {
        let file = File::open(path).map_err(|source| BundleError::Io {
            path: path.to_owned(),
            source,
        })?;
        let container = |reason: String| BundleError::Container {
            path: path.to_owned(),
            reason,
        };
        let mut archive =
            ZipArchive::new(BufReader::new(file)).map_err(|e| container(e.to_string()))?;
        if archive.len() > MAX_MEMBERS {
            let found = archive.len();
            return Err(container(format!("{found} members, at most {MAX_MEMBERS}")));
        }
        let comment = String::from_utf8_lossy(archive.comment()).into_owned();
        let Some(expected) = comment.strip_prefix(&comment_prefix::<M>()) else {
            return Err(container(format!(
                "a ZIP file, but not a slmrec {}",
                M::KIND
            )));
        };
        let json = read_zip_member(&mut archive, MANIFEST_MEMBER, MAX_MANIFEST_BYTES)
            .map_err(|e| container(format!("{MANIFEST_MEMBER}: {e}")))?;
        let found = hash::sha256_hex(&json);
        if found != expected {
            return Err(BundleError::Member {
                path: path.to_owned(),
                member: MANIFEST_MEMBER.into(),
                expected: format!("SHA-256 {expected}"),
                found,
            });
        }
        let manifest = parse_manifest(path, &json)?;
        Ok(Self {
            path: path.to_owned(),
            manifest,
            manifest_sha256: found,
            archive,
        })
    }

    /// Reads a member; its size and hash are checked.
    ///
    /// # Errors
    /// A member that is missing, damaged, or larger than [`MAX_MEMBER_BYTES`].
    pub(crate) fn member(&mut self, name: &str) -> Result<Vec<u8>, BundleError> {
        let Some(entry) = self.manifest.members().get(name).cloned() else {
            return Err(self.member_error(name, "an entry in the manifest", "none"));
        };
        if entry.bytes > MAX_MEMBER_BYTES {
            return Err(self.member_error(
                name,
                format!("at most {MAX_MEMBER_BYTES} bytes"),
                entry.bytes,
            ));
        }
        let bytes = match read_zip_member(&mut self.archive, name, entry.bytes) {
            Ok(bytes) => bytes,
            Err(e) => return Err(self.member_error(name, format!("{} bytes", entry.bytes), e)),
        };
        let found = hash::sha256_hex(&bytes);
        if found != entry.sha256 {
            return Err(self.member_error(name, format!("SHA-256 {}", entry.sha256), found));
        }
        Ok(bytes)
    }

    /// Reads and checks every member, also those that this reader does not know.
    ///
    /// # Errors
    /// The first member that [`Self::member`] refuses.
    pub(crate) fn verify_members(&mut self) -> Result<(), BundleError> {
        let names: Vec<String> = self.manifest.members().keys().cloned().collect();
        names
            .iter()
            .try_for_each(|name| self.member(name).map(drop))
    }

    pub(crate) fn member_error(
        &self,
        member: &str,
        expected: impl Into<String>,
        found: impl std::fmt::Display,
    ) -> BundleError {
        BundleError::Member {
            path: self.path.clone(),
            member: member.to_owned(),
            expected: expected.into(),
            found: found.to_string(),
        }
    }
}

/// The version is looked at before the rest, so that a future layout gives the right message.
fn parse_manifest<M: ContainerManifest>(path: &Path, json: &[u8]) -> Result<M, BundleError> {
    let wrong = |found: String| BundleError::Member {
        path: path.to_owned(),
        member: MANIFEST_MEMBER.into(),
        expected: "a manifest".into(),
        found,
    };
    let value: serde_json::Value =
        serde_json::from_slice(json).map_err(|e| wrong(e.to_string()))?;
    match value
        .get("format_version")
        .and_then(serde_json::Value::as_u64)
    {
        Some(version) if version == u64::from(FORMAT_VERSION) => {}
        Some(found) => {
            return Err(BundleError::FormatVersion {
                path: path.to_owned(),
                found,
            });
        }
        None => return Err(wrong("no format_version".into())),
    }
    let manifest: M = serde_json::from_value(value).map_err(|e| wrong(e.to_string()))?;
    match manifest
        .required_features()
        .iter()
        .find(|f| !KNOWN_FEATURES.contains(&f.as_str()))
    {
        Some(feature) => Err(BundleError::Feature {
            path: path.to_owned(),
            feature: feature.clone(),
        }),
        None => Ok(manifest),
    }
}

/// Reads at most `limit` bytes of a member; more is an error. Memory grows with what is really
/// there, not with what a header claims.
fn read_zip_member<R: Read + Seek>(
    archive: &mut ZipArchive<R>,
    name: &str,
    limit: u64,
) -> io::Result<Vec<u8>> {
    let member = archive.by_name(name)?;
    let mut bytes = Vec::new();
    member
        .take(limit.saturating_add(1))
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("more than {limit} bytes"),
        ));
    }
    Ok(bytes)
}
