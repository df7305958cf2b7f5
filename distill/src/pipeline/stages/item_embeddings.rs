//! The item embeddings that teacher and student begin with, from wherever the settings say.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::{D, DType, Tensor};

use super::super::settings::ItemSource;
use super::super::{PipelineError, WorkDir};
use super::teach::base_path;
use super::titles::{self, TitleVectors};
use super::{Context, input_hash, vocabulary_hash};
use crate::model::base::{BaseHeader, token_means};
use crate::model::init::named_seed;
use crate::model::parameters::normal;
use crate::model::sasrec::SasRec;
use crate::model::{PromptText, SequentialModel};

/// Root mean square of the values of item embeddings that no SASRec has trained: what trained ones
/// have, so that the rates that suit these suit those.
const SIZE_OF_VALUES: f64 = 0.05;

/// Those of the teacher.
pub(super) fn of_teacher(context: &Context<'_>) -> ItemSource {
    context.settings.teach.item_embeddings
}

/// Those of the student: the teacher's, unless the settings give it others.
pub(super) fn of_student(context: &Context<'_>) -> ItemSource {
    (context.settings.distill.item_embeddings).unwrap_or_else(|| of_teacher(context))
}

/// Hashes of what the embeddings are made of, beside the pretrained model.
pub(super) fn inputs(
    context: &Context<'_>,
    source: ItemSource,
) -> Result<BTreeMap<String, String>, PipelineError> {
    let input = match source {
        ItemSource::SasRec | ItemSource::Titles => (
            "sasrec".to_owned(),
            input_hash(&sasrec_dir(context, source)?)?,
        ),
        ItemSource::Encoder => ("titles".to_owned(), title_vectors(context)?.sha256),
        ItemSource::Words | ItemSource::Random => return Ok(BTreeMap::new()),
    };
    Ok(BTreeMap::from([input]))
}

/// Length D of one embedding.
pub(super) fn size(context: &Context<'_>, source: ItemSource) -> Result<usize, PipelineError> {
    Ok(match source {
        ItemSource::SasRec | ItemSource::Titles | ItemSource::Random => {
            context.settings.pretrain.model.hidden_size
        }
        ItemSource::Encoder => match (titles::finished(context), &context.settings.pretrain.titles)
        {
            // A plan is made before there are any.
            (Err(_), Some(encoder)) => titles::size(context, encoder)?,
            (vectors, _) => vectors?.size(),
        },
        ItemSource::Words => {
            let header = BaseHeader::read(&base_path(context)?, &PromptText::default())?;
            header.config.hidden_size
        }
    })
}

/// `[N + 1, D]`, row 0 for the padding.
pub(super) fn load(context: &Context<'_>, source: ItemSource) -> Result<Tensor, PipelineError> {
    match source {
        ItemSource::SasRec | ItemSource::Titles => of_sasrec(context, source),
        ItemSource::Encoder => Ok(centred(&title_vectors(context)?.load(&context.device)?)?),
        ItemSource::Words => of_words(context),
        ItemSource::Random => random(context),
    }
}

fn sasrec_dir(context: &Context<'_>, source: ItemSource) -> Result<PathBuf, PipelineError> {
    match source {
        ItemSource::Titles => {
            WorkDir::finished(context.work.sasrec_titles(), "pretrain --titles minilm")
        }
        _ => WorkDir::finished(context.work.sasrec(), "pretrain"),
    }
}

/// Those of a SASRec, with what titles add to them.
fn of_sasrec(context: &Context<'_>, source: ItemSource) -> Result<Tensor, PipelineError> {
    let dir = sasrec_dir(context, source)?;
    let (sasrec, config) = SasRec::load(&dir, &context.device)?;
    of_this_vocabulary(context, &dir, config.vocabulary_sha256)?;
    Ok(sasrec.item_embeddings()?.detach())
}

fn title_vectors(context: &Context<'_>) -> Result<TitleVectors, PipelineError> {
    let vectors = titles::finished(context)?;
    of_this_vocabulary(context, vectors.dir(), vectors.vocabulary.clone())?;
    Ok(vectors)
}

fn of_this_vocabulary(
    context: &Context<'_>,
    dir: &Path,
    found: String,
) -> Result<(), PipelineError> {
    let expected = vocabulary_hash(context)?;
    if found == expected {
        return Ok(());
    }
    Err(PipelineError::Content {
        path: dir.to_owned(),
        expected: format!("the output of a dataset with vocabulary {expected}"),
        found,
        hint: "run `slmrec-distill pretrain` again, with --titles where titles are read".into(),
    })
}

/// The mean of the base's own vectors of a title's tokens; zero for items without a title.
fn of_words(context: &Context<'_>) -> Result<Tensor, PipelineError> {
    let (dataset, _) = context.dataset()?;
    let items = dataset.vocabulary.items().iter();
    let padding = std::iter::once("");
    let titles: Vec<&str> = padding
        .chain(items.map(|item| item.title.as_deref().map_or("", str::trim)))
        .collect();
    if titles.iter().all(|title| title.is_empty()) {
        return Err(PipelineError::Settings(format!(
            "item embeddings from words: none of the {} items has a title\n\
             hint: `slmrec-distill prepare --items FILE` reads them",
            dataset.num_items()
        )));
    }
    let means = token_means(&base_path(context)?, &titles, &context.device)?;
    Ok(centred(&means)?)
}

fn random(context: &Context<'_>) -> Result<Tensor, PipelineError> {
    if !context.settings.model.train_item_embeddings {
        context.reporter.say(
            "item embeddings are random and stay so\n\
             hint: --set model.train_item_embeddings=true has them trained",
        );
    }
    let (dataset, _) = context.dataset()?;
    let shape = (dataset.num_items(), size(context, ItemSource::Random)?);
    let seed = named_seed(context.settings.seed, "random item embeddings");
    let rows = normal(shape, SIZE_OF_VALUES, seed, DType::F32, &context.device)?;
    Ok(rows.pad_with_zeros(0, 1, 0)?)
}

/// Rows of texts, `[N + 1, D]`, without what all of them have in common, and stretched alike to values
/// of [`SIZE_OF_VALUES`]: such vectors lie in a narrow cone, where dot products hardly differ. Rows of
/// zeros stay.
fn centred(rows: &Tensor) -> candle_core::Result<Tensor> {
    let given = rows.sqr()?.sum_keepdim(D::Minus1)?.gt(0.0)?;
    let given = given.to_dtype(rows.dtype())?; // [N + 1, 1]
    let count = given.sum_all()?.to_scalar::<f32>()?.max(1.0);
    let mean = (rows.sum_keepdim(0)? / f64::from(count))?;
    let centred = rows.broadcast_sub(&mean)?.broadcast_mul(&given)?;
    let squares = centred.sqr()?.sum_all()?.to_scalar::<f32>()?;
    let values = count * centred.dim(D::Minus1)? as f32;
    let size = f64::from(squares / values).sqrt();
    match size > 0.0 {
        true => centred * (SIZE_OF_VALUES / size),
        false => Ok(centred),
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn rows_of_texts_lose_what_they_share_and_empty_ones_stay_empty() {
        let rows = [[0f32, 0.0], [3.0, 1.0], [0.0, 0.0], [5.0, 1.0]];
        let rows = Tensor::new(&rows, &Device::Cpu).expect("rows");
        let found: Vec<Vec<f32>> = centred(&rows).and_then(|t| t.to_vec2()).expect("centred");
        let expected = [[0.0, 0.0], [-1.0, 0.0], [0.0, 0.0], [1.0, 0.0]];
        let size = SIZE_OF_VALUES as f32 * 2f32.sqrt();
        for (found, expected) in found.iter().zip(expected) {
            for (found, expected) in found.iter().zip(expected) {
                assert!((found - size * expected).abs() < 1e-6, "{found} {expected}");
            }
        }
        let nothing = Tensor::zeros((3, 2), DType::F32, &Device::Cpu).expect("zeros");
        let found = centred(&nothing).and_then(|t| t.flatten_all()?.to_vec1::<f32>());
        assert_eq!(found.expect("centred"), [0.0; 6]);
    }
}
