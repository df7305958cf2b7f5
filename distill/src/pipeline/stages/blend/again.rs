//! The blend once more, of members that have learned the validation items.
//!
//! The weights stay: validation chose them, and nothing is left to choose others by. So does the
//! decoder, the dearest member, which knows every item but the newest.

use std::collections::BTreeMap;
use std::path::Path;

use slmrec_core::atomic;

use super::super::super::stage::{Stage, io_error};
use super::super::super::{Outcome, PipelineError, WorkDir};
use super::super::{Context, input_hash, refit, to_json};
use super::{DESCRIPTION_FILE, Kind, MemberEntry, describe, own_sasrecs, title_vectors, unchanged};

/// Trains the blend's own SASRecs again and writes the blend of them and of those that `refit`
/// trained before. Gives what became of each training, then of the blend.
///
/// # Errors
/// No blend, other settings or members than it was made with, or training that fails.
pub(in super::super) fn refit(context: &Context<'_>) -> Result<Vec<Outcome>, PipelineError> {
    let work = context.work();
    let blend = WorkDir::finished(work.blend(), "blend")?;
    let (path, mut description) = describe(context)?;
    let of_blend = refit::again(context, &blend, |_, _| ())?;
    let mut stage = Stage {
        name: of_blend.stage_name("blend"),
        dir: of_blend.work.blend(),
        settings: super::settings(&of_blend)?,
        inputs: BTreeMap::new(),
    };
    // Before anything is trained.
    refit::check(&of_blend, &stage)?;
    for member in &description.members {
        unchanged(context, &path, member)?;
    }
    let is_member = |dir: &Path| {
        let mut members = description.members.iter();
        members.any(|member| work.root().join(&member.folder) == dir)
    };
    let titles = title_vectors(context)?;
    let mut outcomes = Vec::new();
    for (at, sasrec) in own_sasrecs(context, titles.as_ref()).iter().enumerate() {
        // The blend has left out those without a weight.
        if !is_member(&sasrec.dir) {
            continue;
        }
        let again = refit::again(context, &sasrec.dir, refit::sasrec_epochs)?;
        outcomes.push(own_sasrecs(&again, titles.as_ref())[at].train(&again)?);
    }
    for member in &mut description.members {
        *member = in_its_place(context, member)?;
        (stage.inputs).insert(member.folder.clone(), member.sha256.clone());
    }
    if let Some(prior) = &description.prior {
        (stage.inputs).insert("prior".to_owned(), prior.sha256.clone());
    }
    of_blend.insert_refit_of(&mut stage.inputs);
    outcomes.push(stage.run(context.force, context.reporter, |dir| {
        let path = dir.join(DESCRIPTION_FILE);
        let json = to_json(&description)?;
        atomic::write(&path, json.to_string().as_bytes()).map_err(|e| io_error(&path, e))?;
        Ok(serde_json::json!({ "members": json["members"] }))
    })?);
    Ok(outcomes)
}

/// The refitted model with the weight of a validated one; the decoder stays itself.
fn in_its_place(context: &Context<'_>, member: &MemberEntry) -> Result<MemberEntry, PipelineError> {
    if member.kind == Kind::Decoder {
        return Ok(member.clone());
    }
    let root = context.work().root();
    let refit = context.work().refit();
    let dir = WorkDir::finished(refit.again().join(&member.folder), "refit")?;
    let folder = dir.strip_prefix(root).unwrap_or(&dir);
    Ok(MemberEntry {
        folder: folder.to_string_lossy().into_owned(),
        sha256: input_hash(&dir)?,
        ..member.clone()
    })
}
