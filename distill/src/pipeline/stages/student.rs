//! The student before it has learned: which layers it begins with, how wide they are, and what of
//! them is trained.

use super::super::settings::StudentStart;
use super::super::{PipelineError, WorkDir};
use super::teach::base_path;
use super::{Context, item_embeddings};
use crate::model::{LlmRecommender, PretrainedBase};

/// The student that the settings ask for.
pub(super) fn student(context: &Context<'_>) -> Result<LlmRecommender, PipelineError> {
    let section = &context.settings.distill;
    let (seed, device) = (context.settings.seed, &context.device);
    let settings = section.student_model(&context.settings.model);
    let layers = section.layer_choice.select(section.layers);
    let (base, own) = match section.start {
        StudentStart::Base | StudentStart::Random => {
            let prompt = context.settings.prompt_text();
            let base = PretrainedBase::load(&base_path(context)?, &layers, &prompt, device)?;
            (base, None)
        }
        StudentStart::Teacher => {
            let dir = WorkDir::finished(context.work.teacher(), "teach")?;
            let (base, own) = LlmRecommender::parts(&dir, &layers, device)?;
            (base, Some(own))
        }
    };
    let (mut base, own) = section.widths().cut(base, own)?;
    if section.start == StudentStart::Random {
        base = base.randomized(seed, device)?;
    }
    Ok(match own {
        Some(own) => LlmRecommender::from_parts(&base, &own, &settings, seed)?,
        None => {
            let items = item_embeddings::load(context, item_embeddings::of_student(context))?;
            LlmRecommender::new(&base, &items, &settings, seed, device)?
        }
    })
}
