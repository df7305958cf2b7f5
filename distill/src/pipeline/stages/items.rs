//! `items`: new items for a bundle, by the map from titles that `cold` has left.
//!
//! A map gives rows of one item table. The bundle stores the student's table as it is (only rounded
//! to its precision; nothing is folded into it), so the map belongs to the bundle when it was fitted
//! on the table of the very checkpoint that was exported, over the same vocabulary.

use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use serde::Serialize;
use slmrec_core::Bundle;

use super::super::{PipelineError, StageRecord, WorkDir};
use super::teach::base_hash;
use super::titles::{encode, encoder_dir};
use super::{Context, input_hash, refit};
use crate::cold::item_pack::{Catalog, WrittenPack};
use crate::cold::{MAP_FILE, MapDescription, TitleMap};
use crate::model::TextEncoder;

/// The encoder that is taken where none is named.
const DEFAULT_ENCODER: &str = "minilm";

/// What is added to which bundle.
#[derive(Clone, Debug)]
pub struct NewItemsRequest {
    /// File of ids and titles, with categories where it has them.
    pub file: PathBuf,
    /// The bundle; it is not changed.
    pub bundle: PathBuf,
    /// Packs that devices have applied before.
    pub packs: Vec<PathBuf>,
    /// Where to write the pack.
    pub output: PathBuf,
}

/// A pack of new items.
#[derive(Clone, Debug, Serialize)]
pub struct AddReport {
    /// The pack.
    #[serde(flatten)]
    pub pack: WrittenPack,
    /// Items of the file that the bundle or its packs have already.
    pub known: usize,
    /// Other items without a title.
    pub without_title: usize,
    /// The map that gave the rows.
    pub map: String,
}

/// Encodes titles and writes the pack.
///
/// # Errors
/// No map, or one of another bundle or encoder; nothing new in the file.
pub fn add(context: &Context<'_>, request: &NewItemsRequest) -> Result<AddReport, PipelineError> {
    let catalog = Catalog::open(&request.bundle, &request.packs)?;
    let dir = WorkDir::finished(context.work.cold(), "cold")?;
    let (map, description) = TitleMap::load(&dir)?;
    check_bundle(
        context,
        &dir,
        &description,
        (&request.bundle, catalog.bundle()),
    )?;
    let encoder = the_encoder(context, &dir, &description)?;
    let read = &context.settings.prepare.read;
    let new = catalog.new_titles(&request.file, read)?;
    let texts: Vec<&str> = (new.items.iter())
        .filter_map(|item| item.title.as_deref())
        .map(str::trim)
        .collect();
    let size = encoder.size();
    let mut vectors = vec![0f32; texts.len() * size];
    encode(context, &encoder, &texts, &mut |at, vector| {
        vectors[at * size..][..size].copy_from_slice(vector);
    })?;
    let vectors = Tensor::from_vec(vectors, (texts.len(), size), &Device::Cpu)?;
    let rows: Vec<f32> = map.embeddings(&vectors)?.flatten_all()?.to_vec1()?;
    Ok(AddReport {
        pack: catalog.write_new(new.items, &rows, &request.output)?,
        known: new.known,
        without_title: new.without_title,
        map: map.choice().to_string(),
    })
}

/// That the map gives rows of the bundle's item table.
fn check_bundle(
    context: &Context<'_>,
    dir: &Path,
    map: &MapDescription,
    (path, bundle): (&Path, &Bundle),
) -> Result<(), PipelineError> {
    let wrong = |path: PathBuf, expected: &str, found: String| PipelineError::Content {
        path,
        expected: expected.to_owned(),
        found,
        hint:
            "`slmrec-distill cold` fits the map on the student that was exported; export and cold \
               must be of one student"
                .to_owned(),
    };
    let manifest = bundle.manifest();
    let vocabulary = manifest.members.get(&manifest.vocabulary);
    let vocabulary = vocabulary.map_or("none", |member| &member.sha256);
    if map.source.vocabulary_sha256 != vocabulary {
        let expected = format!(
            "the bundle of the vocabulary {}",
            map.source.vocabulary_sha256
        );
        return Err(wrong(
            path.to_owned(),
            &expected,
            format!("one of {vocabulary}"),
        ));
    }
    let file = dir.join(MAP_FILE);
    if map.source.table != "student" {
        let found = format!("one fitted on the items of {}", map.source.table);
        return Err(wrong(file, "a map fitted on the student's items", found));
    }
    let student = refit::shipped_student(context)?;
    let of = input_hash(&student)?;
    if map.source.table_sha256 != of {
        let expected = format!("a map fitted on the student {of}");
        let found = format!("one on {}", map.source.table_sha256);
        return Err(wrong(file, &expected, found));
    }
    let checkpoint = slmrec_export::checkpoint::sha256(&student)?;
    if manifest.model.checkpoint_sha256 != checkpoint {
        let expected = format!("the bundle of the student {checkpoint}");
        let found = format!("one of {}", manifest.model.checkpoint_sha256);
        return Err(wrong(path.to_owned(), &expected, found));
    }
    if map.item_size != manifest.items.dim {
        let expected = format!("a map to rows of {} values", manifest.items.dim);
        return Err(wrong(file, &expected, map.item_size.to_string()));
    }
    Ok(())
}

/// The encoder that made the vectors which the map was fitted on.
fn the_encoder(
    context: &Context<'_>,
    dir: &Path,
    map: &MapDescription,
) -> Result<TextEncoder, PipelineError> {
    let titles = WorkDir::finished(context.work.titles(), "pretrain --titles")?;
    let of = input_hash(&titles)?;
    let refused = |path: &Path, expected: String, found: String| PipelineError::Content {
        path: path.to_owned(),
        expected,
        found,
        hint: "name the encoder of `cold` with --titles, or run `slmrec-distill cold` again".into(),
    };
    if map.source.titles_sha256 != of {
        let found = format!("one on {}", map.source.titles_sha256);
        let expected = format!("a map fitted on the titles {of}");
        return Err(refused(&dir.join(MAP_FILE), expected, found));
    }
    let asked = context.settings.pretrain.titles.as_deref();
    let folder = encoder_dir(context, asked.unwrap_or(Path::new(DEFAULT_ENCODER)))?;
    let record = StageRecord::read(&titles)?;
    let expected = record.and_then(|record| record.inputs.get("encoder").cloned());
    let (expected, found) = (expected.unwrap_or_default(), base_hash(&folder)?);
    if expected != found {
        let expected = format!("the text encoder {expected} of the map");
        return Err(refused(&folder, expected, found));
    }
    let encoder = TextEncoder::load(&folder, &context.device)?;
    if encoder.size() != map.title_size {
        let expected = format!("an encoder of {} values", map.title_size);
        return Err(refused(&folder, expected, encoder.size().to_string()));
    }
    Ok(encoder)
}
