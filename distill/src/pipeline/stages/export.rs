//! `export`: the student as a bundle.

use std::collections::BTreeMap;
use std::path::Path;

use slmrec_core::manifest::Precision;
use slmrec_core::{Split, atomic, hash};
use slmrec_export::{ExportOptions, ExportedPrior};

use super::super::settings::ExportStage;
use super::super::stage::{Stage, StageRecord, hash_input, io_error};
use super::super::{Outcome, PipelineError, WorkDir};
use super::certify::certify;
use super::{Context, input_hash, prior, refit, runner, to_json};
use crate::evaluate::ModelScorer;
use crate::model::{LlmRecommender, SequentialModel};
use crate::prior::Mixture;

/// The operators of the bundle's graphs, for a build of ONNX Runtime that has nothing else.
pub const OPERATORS_FILE: &str = "required_operators.config";

/// Runs the stage. The bundle lies outside the work directory, so its hash is part of the figures
/// and checked here.
///
/// # Errors
/// No student, or an export that fails.
pub fn run(context: &Context<'_>) -> Result<Outcome, PipelineError> {
    let section = &context.settings.export;
    let validated = WorkDir::finished(context.work.student(), "distill")?;
    let student = refit::shipped_student(context)?;
    let dataset = WorkDir::finished(context.work.dataset(), "prepare")?;
    let mut inputs = BTreeMap::from([
        ("student".to_owned(), input_hash(&student)?),
        ("validated student".to_owned(), input_hash(&validated)?),
        ("dataset".to_owned(), input_hash(&dataset)?),
    ]);
    if section.prior
        && let Ok(prior) = WorkDir::finished(context.work.prior(), "prior fit")
    {
        inputs.insert("prior".to_owned(), input_hash(&prior)?);
    }
    section.check()?;
    if certified(section) {
        // What measures is part of what is measured.
        let program = hash_input(&runner::path(context)?)?;
        inputs.insert("slmrec-run".to_owned(), program);
    }
    let stage = Stage {
        name: "export",
        dir: context.work.root().join("export"),
        settings: to_json(&serde_json::json!({
            "export": section,
            "prior_validation_users": context.settings.prior.validation_users,
            "prior_weigh_with": context.settings.prior.weigh_with,
            "prior_largest_alpha": context.settings.prior.largest_alpha,
            "seed": context.settings.seed,
        }))?,
        inputs,
    };
    let intact = bundle_is_intact(&stage.dir, &section.output)?;
    stage.run(context.force || !intact, context.reporter, |dir| {
        let (prior, mixture) = match exported_prior(context, &validated, student != validated)? {
            Some((prior, mixture)) => (prior, Some(mixture)),
            None => (None, None),
        };
        let certificate = match certified(section) {
            true => Some(certify(context, &validated)?),
            false => None,
        };
        let chosen = certificate.as_ref().map(|found| &found.chosen);
        let options = ExportOptions {
            precision: section.precision,
            quantization: chosen.map(|form| form.quantization).unwrap_or_default(),
            item_rows: chosen.map(|form| form.item_rows),
            certificate: certificate.clone(),
            portable: section.portable,
            prior,
            trained_before: match student == validated {
                true => Split::Validation,
                false => Split::Test,
            },
            ..ExportOptions::default()
        };
        let report = slmrec_export::export(&student, &dataset, &options, &section.output)?;
        let operators = slmrec_export::required_operators(&section.output)?;
        let path = dir.join(OPERATORS_FILE);
        atomic::write(&path, operators.as_bytes()).map_err(|e| io_error(&path, e))?;
        let line = format!("operators for a reduced ONNX Runtime: {}", path.display());
        context.reporter.say(&format!("export: {line}"));
        let mut figures = to_json(&report)?;
        figures["prior"] = to_json(&mixture)?;
        figures["certificate"] = to_json(&certificate)?;
        figures["file_sha256"] = hash_input(&section.output)?.into();
        Ok(figures)
    })
}

/// Whether the bundle's form is measured before it is written.
fn certified(section: &ExportStage) -> bool {
    section.precision == Precision::Int8 && section.certificate
}

/// The prior that goes into the bundle, and what it is worth beside the student on the validation
/// targets; `None` where there is none or none is wanted. A prior that does not help is left out.
/// They are weighed beside the student as it was `validated`; `refit` says whether another one is
/// shipped, which has seen the validation items. The bundle gets the counts of all but the test items, so that it can be measured on them.
fn exported_prior(
    context: &Context<'_>,
    validated: &Path,
    refit: bool,
) -> Result<Option<(Option<ExportedPrior>, Mixture)>, PipelineError> {
    if !context.settings.export.prior {
        return Ok(None);
    }
    let Some(counts) = prior::read(context)? else {
        let line = "export: no output of `slmrec-distill prior fit`, the bundle has no prior";
        context.reporter.say(line);
        return Ok(None);
    };
    let (dataset, _) = context.dataset()?;
    let model = LlmRecommender::load(validated, &context.device)?;
    let mut scorer = ModelScorer::new("the student", &model as &dyn SequentialModel)?;
    let known = prior::Known::before(Split::Test, context, &dataset, &counts)?;
    let mixture = known.mixture(context, &dataset, &mut scorer, refit)?;
    let weights = mixture.weights;
    if weights.alpha == 0.0 {
        let line = "export: the prior does not help on the validation targets and is left out";
        context.reporter.say(line);
        return Ok(Some((None, mixture)));
    }
    let exported = ExportedPrior {
        counts: known.counts,
        weights,
        counted_before: Split::Test,
    };
    Ok(Some((Some(exported), mixture)))
}

/// Whether the bundle is still the file that the record speaks of.
fn bundle_is_intact(dir: &Path, output: &Path) -> Result<bool, PipelineError> {
    let Some(record) = StageRecord::read(dir)? else {
        return Ok(false);
    };
    let found = hash::sha256_file(output).ok();
    let recorded = record.figures["file_sha256"].as_str();
    Ok(found.is_some() && found.as_deref() == recorded)
}
