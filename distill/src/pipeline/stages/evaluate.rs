//! `evaluate`: the student beside everything simpler, and the exported bundle through the very code
//! that a phone runs.

mod measured;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use slmrec_core::certificate::Quantization;
use slmrec_core::{Evaluation, Split, atomic};

use self::measured::Measured;
use super::super::settings::{Baseline, TeacherChoice};
use super::super::stage::{Stage, StageRecord, hash_input, io_error};
use super::super::{Outcome, PipelineError, WorkDir};
use super::blend::Kind;
use super::runner;
use super::{Context, baselines, blend, input_hash, pretrain, prior, refit, to_json};
use crate::evaluate::names::{
    self, BLEND, CE_ONLY, COOCCURRENCE_TUNED, ONLINE_TEACHER, SASREC, SASREC_TITLES, STUDENT,
    refitted, with_prior,
};
use crate::evaluate::rank_files::{self, COMPARISON_FILE, RANKS_DIR, rank_file_name};
use crate::evaluate::{
    Comparison, Cooccurrence, MarkovChain, Popularity, RECOMMENDATIONS_FILE, RecentPopularity,
    Recommendations,
};
use crate::model::sasrec::SasRec;
use crate::model::{Blend, LlmRecommender, Remembered, SequentialModel};

/// The comparison for people.
pub const TABLE_FILE: &str = "comparison.txt";

/// Runs the stage and gives the comparison.
///
/// # Errors
/// Missing earlier stages, or a system that cannot be evaluated.
pub fn run(context: &Context<'_>) -> Result<(Comparison, Outcome), PipelineError> {
    let section = &context.settings.evaluate;
    let systems = Systems::find(context)?;
    let stage = Stage {
        name: "evaluate",
        dir: context.work.evaluation(),
        settings: to_json(&serde_json::json!({
            "split": section.split,
            "bundle": section.bundle,
            "prior_weigh_with": context.settings.prior.weigh_with,
            "prior_largest_alpha": context.settings.prior.largest_alpha,
        }))?,
        inputs: systems.inputs(context)?,
    };
    let outcome = stage.run(context.force, context.reporter, |dir| {
        let (dataset, _) = context.dataset()?;
        let mut measured = Measured::new(context, &dataset)?;
        systems.evaluate(&mut measured)?;
        let Measured {
            evaluations,
            exposures,
            mixtures,
            bundle_latency,
            ..
        } = measured;
        let comparison = compare(&evaluations)?;
        write(
            dir,
            COMPARISON_FILE,
            to_json(&comparison)?.to_string().as_bytes(),
        )?;
        write(dir, TABLE_FILE, comparison.to_string().as_bytes())?;
        write_ranks(&dir.join(RANKS_DIR), &evaluations)?;
        let recommendations = Recommendations::new(&evaluations[0].users, exposures);
        write(
            dir,
            RECOMMENDATIONS_FILE,
            to_json(&recommendations)?.to_string().as_bytes(),
        )?;
        Ok(serde_json::json!({
            "systems": evaluations.len(),
            "priors": mixtures,
            "bundle_latency_ms": bundle_latency,
        }))
    })?;
    Ok((rank_files::read_comparison(&stage.dir)?, outcome))
}

fn write(dir: &Path, name: &str, bytes: &[u8]) -> Result<(), PipelineError> {
    let path = dir.join(name);
    atomic::write(&path, bytes).map_err(|e| io_error(&path, e))
}

/// One file a system; those of systems that are gone go, too.
pub(super) fn write_ranks(dir: &Path, evaluations: &[Evaluation]) -> Result<(), PipelineError> {
    match std::fs::remove_dir_all(dir) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(io_error(dir, e)),
        _ => std::fs::create_dir_all(dir).map_err(|e| io_error(dir, e))?,
    }
    for evaluation in evaluations {
        let json = to_json(evaluation)?.to_string();
        write(dir, &rank_file_name(&evaluation.name), json.as_bytes())?;
    }
    Ok(())
}

/// Paired against the systems that matter for the decision to ship.
fn compare(evaluations: &[Evaluation]) -> Result<Comparison, PipelineError> {
    let (sasrec_prior, student_prior) = (with_prior(SASREC), with_prior(STUDENT));
    let titles_prior = with_prior(SASREC_TITLES);
    let [sasrec_refit, titles_refit, student_refit] =
        [SASREC, SASREC_TITLES, STUDENT].map(|name| with_prior(&refitted(name)));
    let wanted = [
        "popularity",
        "co-occurrence, window 5",
        COOCCURRENCE_TUNED,
        SASREC,
        &sasrec_prior,
        SASREC_TITLES,
        &titles_prior,
        CE_ONLY,
        STUDENT,
        &student_prior,
        &sasrec_refit,
        &titles_refit,
        &student_refit,
    ];
    let there = |name: &&str| evaluations.iter().any(|e| e.name == *name);
    let references: Vec<&str> = wanted.into_iter().filter(there).collect();
    Ok(Comparison::new(evaluations, &references)?)
}

/// What there is to evaluate.
struct Systems {
    dataset: PathBuf,
    prior: Option<PathBuf>,
    blend: Option<PathBuf>,
    sasrec: Option<PathBuf>,
    baselines: Vec<(Baseline, PathBuf)>,
    sasrec_titles: Option<PathBuf>,
    models: Vec<(&'static str, PathBuf)>,
    /// Of SASRecs, blend and student, by name: they have seen the validation items.
    refits: BTreeMap<&'static str, PathBuf>,
    /// Part of the student's output.
    online_teacher: Option<PathBuf>,
    bundle: Option<ExportedBundle>,
}

/// Where a work directory has an output.
type Place = fn(&WorkDir) -> PathBuf;

/// A bundle that export wrote.
struct ExportedBundle {
    /// `student, int8 bundle`
    name: String,
    path: PathBuf,
}

impl Systems {
    /// Every stage that has finished. The floors need none; what is missing is said.
    fn find(context: &Context<'_>) -> Result<Self, PipelineError> {
        let work = context.work();
        let there = |dir: PathBuf, stage: &'static str| {
            let found = WorkDir::finished(dir, stage).ok();
            if found.is_none() {
                let text =
                    format!("evaluate: no output of `slmrec-distill {stage}`, its row is missing");
                context.reporter.say(&text);
            }
            found
        };
        let mut models = Vec::new();
        for (name, dir, stage) in [
            ("teacher", work.teacher(), "teach"),
            (CE_ONLY, work.ce_only(), "distill"),
            (STUDENT, work.student(), "distill"),
        ] {
            models.extend(there(dir, stage).map(|dir| (name, dir)));
        }
        let sasrec_titles = pretrain::with_titles(context)?;
        if sasrec_titles.is_none() && context.settings.pretrain.titles.is_some() {
            there(work.sasrec_titles(), "pretrain --titles");
        }
        let section = &context.settings.evaluate;
        let exported = work.root().join("export");
        let bundle = match section.bundle.then(|| there(exported, "export")).flatten() {
            Some(dir) => bundle_of(&dir)?,
            None => None,
        };
        let sasrec = there(work.sasrec(), "pretrain");
        let blend = match context.settings.distill.teacher {
            TeacherChoice::Blend => there(work.blend(), "blend"),
            TeacherChoice::Decoder => None,
        };
        let student = models.iter().find(|(name, _)| *name == STUDENT);
        let refits = refits(
            context,
            [
                (SASREC, sasrec.as_ref(), WorkDir::sasrec),
                (
                    SASREC_TITLES,
                    sasrec_titles.as_ref(),
                    WorkDir::sasrec_titles,
                ),
                (BLEND, blend.as_ref(), WorkDir::blend),
                (STUDENT, student.map(|(_, dir)| dir), WorkDir::student),
            ],
        )?;
        Ok(Self {
            refits,
            dataset: WorkDir::finished(work.dataset(), "prepare")?,
            prior: there(work.prior(), "prior fit"),
            blend,
            sasrec,
            baselines: (context.settings.baselines.models.iter())
                .filter_map(|of| Some((*of, there(work.baseline(*of), "baselines")?)))
                .collect(),
            sasrec_titles,
            models,
            online_teacher: Some(work.online_teacher()).filter(|dir| dir.is_dir()),
            bundle,
        })
    }

    fn sasrecs(&self) -> impl Iterator<Item = (&'static str, &PathBuf)> {
        let with_titles = self.sasrec_titles.iter().map(|dir| (SASREC_TITLES, dir));
        (self.sasrec.iter().map(|dir| ("SASRec", dir))).chain(with_titles)
    }

    fn inputs(&self, context: &Context<'_>) -> Result<BTreeMap<String, String>, PipelineError> {
        let mut inputs = BTreeMap::from([("dataset".to_owned(), input_hash(&self.dataset)?)]);
        if let Some(dir) = &self.prior {
            inputs.insert("prior".to_owned(), input_hash(dir)?);
        }
        for (name, dir) in self.sasrecs() {
            inputs.insert(name.to_owned(), input_hash(dir)?);
        }
        for (name, dir) in &self.refits {
            inputs.insert(refitted(name), input_hash(dir)?);
        }
        for (baseline, dir) in &self.baselines {
            inputs.insert(baseline.folder().to_owned(), input_hash(dir)?);
        }
        if let Some(dir) = &self.blend {
            inputs.insert("blend".to_owned(), input_hash(dir)?);
        }
        for (name, dir) in &self.models {
            inputs.insert((*name).to_owned(), input_hash(dir)?);
        }
        if let Some(bundle) = &self.bundle {
            inputs.insert(bundle.name.clone(), hash_input(&bundle.path)?);
            inputs.insert(
                "slmrec-run".to_owned(),
                hash_input(&runner::path(context)?)?,
            );
        }
        Ok(inputs)
    }

    fn evaluate(&self, measured: &mut Measured<'_>) -> Result<(), PipelineError> {
        let (context, dataset) = (measured.context, measured.dataset);
        let split = context.settings.evaluate.split;
        measured.floor(&mut Popularity::fit(dataset, split))?;
        let users = prior::validation_users(context, dataset);
        match RecentPopularity::fit(dataset, split, users.as_deref())? {
            Some(mut recent) => measured.floor(&mut recent)?,
            None => (context.reporter)
                .say("evaluate: no times in the data, the row of popularity of late is missing"),
        }
        measured.floor(&mut MarkovChain::fit(dataset, split)?)?;
        measured.floor(&mut Cooccurrence::window_5(dataset, split)?)?;
        if let Some(priors) = &measured.priors {
            let mut tuned = Cooccurrence::tuned(dataset, &priors.known.counts);
            measured.floor(&mut tuned)?;
        }
        let mut models = Models::new(context);
        for (name, dir) in self.sasrecs() {
            measured.model(name, &models.get(Kind::SasRec, dir)?)?;
            if let Some(refit) = self.refits.get(name) {
                let model = models.get(Kind::SasRec, dir)?;
                measured.refit(name, &model, &models.get(Kind::SasRec, refit)?)?;
            }
        }
        for (baseline, dir) in &self.baselines {
            let model = baselines::load(context, *baseline, dir)?;
            measured.model(baseline.name(), model.as_ref())?;
        }
        if self.blend.is_some() {
            let blend = models.blend(context)?;
            measured.model(BLEND, &blend)?;
            if self.refits.contains_key(BLEND) {
                let again = context.with(context.settings.clone(), context.work.refit());
                measured.refit(BLEND, &blend, &models.blend(&again)?)?;
            }
        }
        models.keep_only(&self.models.iter().map(|(_, dir)| dir).collect::<Vec<_>>());
        let online = self.online_teacher.iter().map(|dir| (ONLINE_TEACHER, dir));
        let decoders = self.models.iter().map(|(name, dir)| (*name, dir));
        for (name, dir) in decoders.chain(online) {
            let model = models.take(Kind::Decoder, dir)?;
            measured.model(name, &model)?;
            if let Some(refit) = self.refits.get(name) {
                measured.refit(name, &model, &models.take(Kind::Decoder, refit)?)?;
            }
        }
        if let Some(bundle) = &self.bundle {
            measured.bundle(bundle)?;
        }
        Ok(())
    }
}

/// The refitted ones of some validated models, by name; none on the validation targets, which they
/// have learned.
fn refits(
    context: &Context<'_>,
    validated: [(&'static str, Option<&PathBuf>, Place); 4],
) -> Result<BTreeMap<&'static str, PathBuf>, PipelineError> {
    let mut refits = BTreeMap::new();
    if context.settings.evaluate.split != Split::Test {
        return Ok(refits);
    }
    for (name, validated, place) in validated {
        if let Some(validated) = validated
            && let Some(dir) = refit::of(context, validated, place)?
        {
            refits.insert(name, dir);
        }
    }
    Ok(refits)
}

/// The models that more than one system is made of, each loaded once and held as long as it is needed.
struct Models<'a> {
    context: &'a Context<'a>,
    loaded: BTreeMap<PathBuf, Remembered>,
}

impl<'a> Models<'a> {
    fn new(context: &'a Context<'a>) -> Self {
        let loaded = BTreeMap::new();
        Self { context, loaded }
    }

    /// A model that another system asks for later.
    fn get(&mut self, kind: Kind, dir: &Path) -> Result<Remembered, PipelineError> {
        let model = self.take(kind, dir)?;
        self.loaded.insert(dir.to_owned(), model.clone());
        Ok(model)
    }

    /// A model that no other system asks for later.
    fn take(&mut self, kind: Kind, dir: &Path) -> Result<Remembered, PipelineError> {
        if let Some(model) = self.loaded.remove(dir) {
            return Ok(model);
        }
        let device = &self.context.device;
        Ok(match kind {
            Kind::SasRec => Remembered::new(SasRec::load(dir, device)?.0),
            Kind::Decoder => Remembered::new(LlmRecommender::load(dir, device)?),
        })
    }

    /// The blend of a work directory.
    fn blend(&mut self, context: &Context<'_>) -> Result<Blend, PipelineError> {
        blend::load_of(context, |kind, dir| {
            Ok(Box::new(self.get(kind, dir)?) as Box<dyn SequentialModel>)
        })
    }

    /// Lets go of all models but those of some folders.
    fn keep_only(&mut self, dirs: &[&PathBuf]) {
        self.loaded.retain(|dir, _| dirs.contains(&dir));
    }
}

/// The bundle that export's record speaks of, if it is still there.
fn bundle_of(export_dir: &Path) -> Result<Option<ExportedBundle>, PipelineError> {
    let Some(record) = StageRecord::read(export_dir)? else {
        return Ok(None);
    };
    let path = PathBuf::from(record.figures["path"].as_str().unwrap_or_default());
    let name = bundle_name(&record.figures);
    Ok(path.is_file().then_some(ExportedBundle { name, path }))
}

/// A bundle by what an export recorded. One of four bits is int8 by its activations alone.
fn bundle_name(exported: &serde_json::Value) -> String {
    let form = &exported["certificate"]["chosen"]["quantization"];
    let four_bits = serde_json::to_value(Quantization::Blocks4);
    names::bundle(match four_bits.is_ok_and(|four_bits| *form == four_bits) {
        true => "4-bit",
        false => exported["precision"].as_str().unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::bundle_name;

    #[test]
    fn a_bundle_of_four_bits_is_not_called_int8() {
        let named = |precision: &str, certificate: serde_json::Value| {
            bundle_name(&json!({ "precision": precision, "certificate": certificate }))
        };
        let of = |form: &str| json!({ "chosen": { "quantization": form } });
        assert_eq!(named("int8", of("dynamic")), "student, int8 bundle");
        assert_eq!(named("int8", of("blocks-4")), "student, 4-bit bundle");
        assert_eq!(named("fp32", json!(null)), "student, fp32 bundle");
    }
}
