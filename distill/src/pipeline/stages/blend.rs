//! `blend`: several models as one teacher, their weights by the validation targets.

mod again;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use slmrec_core::prior::PriorWeights;
use slmrec_core::{Dataset, atomic};

pub(super) use self::again::refit;
use super::super::stage::{Stage, io_error};
use super::super::{Outcome, PipelineError, WorkDir};
use super::pretrain::{self, Sasrec, WITH_TITLES};
use super::titles::{self, TitleVectors};
use super::{Context, input_hash, prior, teach, to_json};
use crate::evaluate::{ModelScorer, validation_ndcg_of, weigh};
use crate::model::sasrec::SasRec;
use crate::model::{Blend, LlmRecommender, Member, SequentialModel};
use crate::prior::{WithPrior, likeliest_beside};

/// Name of the stage that trains a decoder for the blend alone.
pub(super) const BLEND_DECODER: &str = "blend-decoder";
/// Name of the stage that trains a SASRec for the blend alone.
pub(super) const BLEND_SASREC: &str = "blend-sasrec";
/// The same of a SASRec with titles.
pub(super) const BLEND_SASREC_TITLES: &str = "blend-sasrec-titles";

const DESCRIPTION_FILE: &str = "blend.json";
/// Between the seeds of the members, so that no member's stream is another one's.
const SEED_STEP: u64 = 1000;
/// Added to the seeds of members with titles.
const TITLES_SEED: u64 = 500;
/// Added to the seeds of decoders.
const DECODER_SEED: u64 = 250;

/// `blend.json`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Description {
    members: Vec<MemberEntry>,
    /// The transition prior as a member.
    prior: Option<PriorEntry>,
}

/// The transition prior and how it stands beside the others.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PriorEntry {
    sha256: String,
    weights: PriorWeights,
}

/// A member, the decoder of `teach` first where it is one.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct MemberEntry {
    kind: Kind,
    /// Its folder within the work directory.
    folder: String,
    /// Hash of the folder's files.
    sha256: String,
    weight: f64,
    /// Members of one group differ by their seed alone and share a weight.
    #[serde(skip)]
    group: usize,
}

const DECODER: usize = 0;
const PLAIN: usize = 1;
const TITLED: usize = 2;

/// What a member's folder holds.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    Decoder,
    SasRec,
}

/// Trains the members that are missing and weighs all. Gives what became of each training, then of
/// the blend.
///
/// # Errors
/// Missing earlier stages, a blend of nothing, or training that fails.
pub fn run(context: &Context<'_>) -> Result<(Vec<Outcome>, Outcome), PipelineError> {
    let section = &context.settings.blend;
    let titles = title_vectors(context)?;
    let mut trainings = (own_sasrecs(context, titles.as_ref()).iter())
        .map(|sasrec| sasrec.train(context))
        .collect::<Result<Vec<_>, _>>()?;
    for number in 1..=section.more_decoders {
        trainings.push(train_decoder(context, number)?);
    }
    let members = members(context)?;
    let mut inputs: BTreeMap<String, String> = (members.iter())
        .map(|member| (member.folder.clone(), member.sha256.clone()))
        .collect();
    let dataset_dir = WorkDir::finished(context.work.dataset(), "prepare")?;
    inputs.insert("dataset".to_owned(), input_hash(&dataset_dir)?);
    if section.prior {
        inputs.insert("prior".to_owned(), prior_hash(context)?);
    }
    let stage = Stage {
        name: "blend",
        dir: context.work.blend(),
        settings: settings(context)?,
        inputs,
    };
    let blend = stage.run(context.force, context.reporter, |dir| {
        let (dataset, _) = context.dataset()?;
        let models = members
            .iter()
            .map(|member| load_member(context, member))
            .collect::<Result<Vec<_>, _>>()?;
        let borrowed: Vec<&dyn SequentialModel> = models.iter().map(AsRef::as_ref).collect();
        let groups: Vec<usize> = members.iter().map(|member| member.group).collect();
        let found = weigh(&borrowed, &groups, &dataset, context.settings.seed)?;
        let mut weighed = members.clone();
        for (member, weight) in weighed.iter_mut().zip(&found.weights) {
            member.weight = *weight;
        }
        let mut figures = serde_json::json!({
            "validation_ndcg_10": found.ndcg_10,
            "validation_users": found.users,
            "members": weighed.iter().zip(&found.alone).map(|(member, alone)| serde_json::json!({
                "folder": member.folder, "weight": member.weight, "validation_ndcg_10": alone,
            })).collect::<Vec<_>>(),
        });
        // A member without a weight would only cost time, but the first decoder gives hidden states.
        let first = weighed.iter().position(|m| m.kind == Kind::Decoder);
        let mut place = 0..;
        weighed.retain(|member| {
            let here = place.next();
            member.weight > 0.0 || here == first
        });
        let mut description = Description {
            members: weighed,
            prior: None,
        };
        if section.prior {
            let (weights, figures_of_prior) = weigh_prior(context, &dataset, &description)?;
            figures["prior"] = figures_of_prior;
            description.prior = Some(PriorEntry {
                sha256: prior_hash(context)?,
                weights,
            });
        }
        let json = to_json(&description)?.to_string();
        let path = dir.join(DESCRIPTION_FILE);
        atomic::write(&path, json.as_bytes()).map_err(|e| io_error(&path, e))?;
        Ok(figures)
    })?;
    Ok((trainings, blend))
}

/// A decoder as that of `teach`, with a seed of its own.
fn train_decoder(context: &Context<'_>, number: usize) -> Result<Outcome, PipelineError> {
    let mut settings = context.settings.clone();
    settings.seed = seed(context, number).wrapping_add(DECODER_SEED);
    let own = context.with(settings, context.work().clone());
    teach::train(&own, BLEND_DECODER, context.work().blend_decoder(number))
}

/// The seed of the members with this number.
fn seed(context: &Context<'_>, number: usize) -> u64 {
    let step = SEED_STEP.wrapping_mul(number as u64);
    context.settings.seed.wrapping_add(step)
}

fn settings(context: &Context<'_>) -> Result<serde_json::Value, PipelineError> {
    let blend = to_json(&context.settings.blend)?;
    Ok(serde_json::json!({ "blend": blend, "seed": context.settings.seed }))
}

/// How the prior stands beside the other members: a student learns from probabilities, so it has the
/// weights under which all together make the validation targets likeliest.
fn weigh_prior(
    context: &Context<'_>,
    dataset: &Dataset,
    description: &Description,
) -> Result<(PriorWeights, serde_json::Value), PipelineError> {
    let members = (description.members.iter())
        .map(|member| {
            let model = load_member(context, member)?;
            let weight = member.weight;
            Ok(Member { model, weight })
        })
        .collect::<Result<_, PipelineError>>()?;
    let blend = Blend::new(members)?;
    let mut scorer = ModelScorer::new("the blend", &blend)?;
    let counts = prior::required(context)?;
    let users = prior::validation_users(context, dataset);
    let users = users.as_deref();
    let (weights, cross_entropy) =
        likeliest_beside(&mut scorer, dataset, &counts, users, &mut |_, _| ())?;
    let mut both = WithPrior::new("the blend and the prior", &mut scorer, &counts, weights);
    let figures = serde_json::json!({
        "weights": to_json(&weights)?,
        "cross_entropy": cross_entropy,
        "ndcg_10_with": validation_ndcg_of(&mut both, dataset, users)?,
        "users": users.map_or(dataset.num_users(), <[usize]>::len),
    });
    Ok((weights, figures))
}

fn prior_hash(context: &Context<'_>) -> Result<String, PipelineError> {
    input_hash(&WorkDir::finished(context.work.prior(), "prior fit")?)
}

/// How the prior stands beside the members of the blend; `None` where it is no member, or of no use.
///
/// # Errors
/// A stage that has not run, or another prior than the one that was weighed.
pub(super) fn prior_weights(context: &Context<'_>) -> Result<Option<PriorWeights>, PipelineError> {
    let (path, description) = describe(context)?;
    let Some(entry) = description.prior else {
        return Ok(None);
    };
    if entry.sha256 != prior_hash(context)? {
        return Err(wrong(&path, "another transition prior".to_owned()));
    }
    Ok((entry.weights.alpha > 0.0).then_some(entry.weights))
}

fn describe(context: &Context<'_>) -> Result<(PathBuf, Description), PipelineError> {
    let dir = WorkDir::finished(context.work.blend(), "blend")?;
    let path = dir.join(DESCRIPTION_FILE);
    let bytes = std::fs::read(&path).map_err(|e| io_error(&path, e))?;
    let description: Description =
        serde_json::from_slice(&bytes).map_err(|e| wrong(&path, e.to_string()))?;
    if let Some(entry) = &description.prior {
        entry.weights.check()?;
    }
    Ok((path, description))
}

/// The SASRecs that only the blend has; `titles` are the vectors of those with titles.
pub(super) fn own_sasrecs<'a>(
    context: &Context<'_>,
    titles: Option<&'a TitleVectors>,
) -> Vec<Sasrec<'a>> {
    let (section, work) = (&context.settings.blend, context.work());
    let seed = |number| seed(context, number);
    let plain = (1..=section.more_sasrecs).map(|number| Sasrec {
        name: BLEND_SASREC,
        dir: work.blend_sasrec(number),
        seed: seed(number),
        titles: None,
        beside_prior: false,
        held_out: None,
    });
    let with_titles = (1..=section.more_sasrecs_with_titles).map(|number| Sasrec {
        name: BLEND_SASREC_TITLES,
        dir: work.blend_sasrec_titles(number),
        seed: seed(number).wrapping_add(TITLES_SEED),
        titles,
        beside_prior: false,
        held_out: None,
    });
    plain.chain(with_titles).collect()
}

/// The vectors of those members of [`own_sasrecs`] that have titles, if there are any.
///
/// # Errors
/// No encoder is named, or titles that cannot be encoded.
pub(super) fn title_vectors(context: &Context<'_>) -> Result<Option<TitleVectors>, PipelineError> {
    if context.settings.blend.more_sasrecs_with_titles == 0 {
        return Ok(None);
    }
    let Some(encoder) = &context.settings.pretrain.titles else {
        return Err(PipelineError::Settings(
            "setting blend.more_sasrecs_with_titles: expected pretrain.titles to name a text encoder, found none\n\
             hint: --titles minilm, after `slmrec-distill fetch minilm`"
                .into(),
        ));
    };
    Ok(Some(titles::run(context, encoder)?.0))
}

fn members(context: &Context<'_>) -> Result<Vec<MemberEntry>, PipelineError> {
    let (section, work) = (&context.settings.blend, context.work());
    let mut folders = Vec::new();
    if section.decoder {
        folders.push((DECODER, work.teacher(), "teach"));
    }
    let decoders = 1..=section.more_decoders;
    folders.extend(decoders.map(|number| (DECODER, work.blend_decoder(number), "blend")));
    folders.push((PLAIN, work.sasrec(), "pretrain"));
    match pretrain::with_titles(context)? {
        Some(dir) => folders.push((TITLED, dir, WITH_TITLES)),
        None if context.settings.pretrain.titles.is_some() => {
            folders.push((TITLED, work.sasrec_titles(), "pretrain --titles"));
        }
        None => {}
    }
    let plain = 1..=section.more_sasrecs;
    folders.extend(plain.map(|number| (PLAIN, work.blend_sasrec(number), "blend")));
    let titled = 1..=section.more_sasrecs_with_titles;
    folders.extend(titled.map(|number| (TITLED, work.blend_sasrec_titles(number), "blend")));
    let entry = |(group, dir, stage): (usize, PathBuf, &'static str)| {
        let dir = WorkDir::finished(dir, stage)?;
        Ok(MemberEntry {
            kind: match group {
                DECODER => Kind::Decoder,
                _ => Kind::SasRec,
            },
            folder: dir
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
            sha256: input_hash(&dir)?,
            weight: 0.0,
            group,
        })
    };
    folders.into_iter().map(entry).collect()
}

fn load_member(
    context: &Context<'_>,
    member: &MemberEntry,
) -> Result<Box<dyn SequentialModel>, PipelineError> {
    load_model(
        context,
        member.kind,
        &context.work().root().join(&member.folder),
    )
}

fn load_model(
    context: &Context<'_>,
    kind: Kind,
    dir: &Path,
) -> Result<Box<dyn SequentialModel>, PipelineError> {
    Ok(match kind {
        Kind::Decoder => Box::new(LlmRecommender::load(dir, &context.device)?),
        Kind::SasRec => Box::new(SasRec::load(dir, &context.device)?.0),
    })
}

/// The models of the blend that the stage left, without its prior.
///
/// # Errors
/// A stage that has not run, or members that have changed since.
pub(super) fn load(context: &Context<'_>) -> Result<Blend, PipelineError> {
    load_of(context, |kind, dir| load_model(context, kind, dir))
}

/// As [`load`], of models that `member` gives for their folders.
///
/// # Errors
/// As [`load`], and what `member` gives.
pub(super) fn load_of(
    context: &Context<'_>,
    mut member: impl FnMut(Kind, &Path) -> Result<Box<dyn SequentialModel>, PipelineError>,
) -> Result<Blend, PipelineError> {
    let (path, description) = describe(context)?;
    let mut members = Vec::new();
    for entry in &description.members {
        let dir = unchanged(context, &path, entry)?;
        members.push(Member {
            model: member(entry.kind, &dir)?,
            weight: entry.weight,
        });
    }
    Ok(Blend::new(members)?)
}

/// The folder of a member of the blend that `path` describes.
///
/// # Errors
/// Another model there than the one that was weighed.
fn unchanged(
    context: &Context<'_>,
    path: &Path,
    member: &MemberEntry,
) -> Result<PathBuf, PipelineError> {
    let dir = context.work().root().join(&member.folder);
    if input_hash(&dir)? == member.sha256 {
        return Ok(dir);
    }
    let found = format!("{} with other weights", member.folder);
    Err(wrong(path, found))
}

fn wrong(path: &Path, found: String) -> PipelineError {
    PipelineError::Content {
        path: path.to_owned(),
        expected: "members as `slmrec-distill blend` weighed them".into(),
        found,
        hint: "run `slmrec-distill blend` again, and `refit` where it was made of refitted members"
            .into(),
    }
}
