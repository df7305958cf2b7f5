//! `evaluate`: the student beside everything simpler, and the exported bundle through the very code
//! that a phone runs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;
use slmrec_core::evaluation::{Protocol, Ranks};
use slmrec_core::{Dataset, Evaluation, atomic};

use super::super::stage::{Stage, StageRecord, hash_input, io_error};
use super::super::{Outcome, PipelineError, WorkDir};
use super::{Context, input_hash, to_json};
use crate::evaluate::{
    Comparison, Cooccurrence, MarkovChain, ModelScorer, Popularity, Scorer, evaluate,
};
use crate::model::sasrec::SasRec;
use crate::model::{LlmRecommender, SequentialModel};

/// The comparison for machines.
pub const COMPARISON_FILE: &str = "comparison.json";
/// The comparison for people.
pub const TABLE_FILE: &str = "comparison.txt";

const STUDENT: &str = "student, distilled";
const CE_ONLY: &str = "student, CE only";

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
        settings: to_json(
            &serde_json::json!({ "split": section.split, "bundle": section.bundle }),
        )?,
        inputs: systems.inputs(context)?,
    };
    let outcome = stage.run(context.force, context.reporter, |dir| {
        let (dataset, _) = context.dataset()?;
        let evaluations = systems.evaluate(context, &dataset)?;
        let comparison = compare(&evaluations)?;
        write(
            dir,
            COMPARISON_FILE,
            to_json(&comparison)?.to_string().as_bytes(),
        )?;
        write(dir, TABLE_FILE, comparison.to_string().as_bytes())?;
        let ranks = dir.join("ranks");
        std::fs::create_dir_all(&ranks).map_err(|e| io_error(&ranks, e))?;
        for evaluation in &evaluations {
            let name = format!("{}.json", evaluation.name.replace([',', ' ', '/'], "-"));
            write(&ranks, &name, to_json(evaluation)?.to_string().as_bytes())?;
        }
        Ok(serde_json::json!({ "systems": evaluations.len() }))
    })?;
    Ok((read_comparison(&stage.dir)?, outcome))
}

fn write(dir: &Path, name: &str, bytes: &[u8]) -> Result<(), PipelineError> {
    let path = dir.join(name);
    atomic::write(&path, bytes).map_err(|e| io_error(&path, e))
}

fn read_comparison(dir: &Path) -> Result<Comparison, PipelineError> {
    let path = dir.join(COMPARISON_FILE);
    let bytes = std::fs::read(&path).map_err(|e| io_error(&path, e))?;
    serde_json::from_slice(&bytes).map_err(|e| PipelineError::Content {
        path,
        expected: "a comparison".into(),
        found: e.to_string(),
        hint: "run `slmrec-distill evaluate --force`".into(),
    })
}

/// Paired against the systems that matter for the decision to ship.
fn compare(evaluations: &[Evaluation]) -> Result<Comparison, PipelineError> {
    let wanted = [
        "popularity",
        "co-occurrence, window 5",
        "co-occurrence, tuned",
        "SASRec",
        CE_ONLY,
        STUDENT,
    ];
    let there = |name: &&str| evaluations.iter().any(|e| e.name == *name);
    let references: Vec<&str> = wanted.into_iter().filter(there).collect();
    Ok(Comparison::new(evaluations, &references)?)
}

/// What there is to evaluate.
struct Systems {
    dataset: PathBuf,
    sasrec: Option<PathBuf>,
    models: Vec<(&'static str, PathBuf)>,
    bundle: Option<ExportedBundle>,
}

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
        let section = &context.settings.evaluate;
        let exported = work.root().join("export");
        let bundle = match section.bundle.then(|| there(exported, "export")).flatten() {
            Some(dir) => bundle_of(&dir)?,
            None => None,
        };
        Ok(Self {
            dataset: WorkDir::finished(work.dataset(), "prepare")?,
            sasrec: there(work.sasrec(), "pretrain"),
            models,
            bundle,
        })
    }

    fn inputs(&self, context: &Context<'_>) -> Result<BTreeMap<String, String>, PipelineError> {
        let mut inputs = BTreeMap::from([("dataset".to_owned(), input_hash(&self.dataset)?)]);
        if let Some(dir) = &self.sasrec {
            inputs.insert("SASRec".to_owned(), input_hash(dir)?);
        }
        for (name, dir) in &self.models {
            inputs.insert((*name).to_owned(), input_hash(dir)?);
        }
        if let Some(bundle) = &self.bundle {
            inputs.insert(bundle.name.clone(), hash_input(&bundle.path)?);
            inputs.insert("slmrec-run".to_owned(), hash_input(&runner(context)?)?);
        }
        Ok(inputs)
    }

    fn evaluate(
        &self,
        context: &Context<'_>,
        dataset: &Dataset,
    ) -> Result<Vec<Evaluation>, PipelineError> {
        let mut evaluations = Vec::new();
        let mut add = |scorer: &mut dyn Scorer| -> Result<(), PipelineError> {
            evaluations.push(evaluate_one(context, dataset, scorer)?);
            Ok(())
        };
        add(&mut Popularity::fit(dataset))?;
        add(&mut MarkovChain::fit(dataset))?;
        add(&mut Cooccurrence::window_5(dataset))?;
        add(&mut Cooccurrence::tuned(dataset))?;
        if let Some(dir) = &self.sasrec {
            let (model, _) = SasRec::load(dir, &context.device)?;
            add(&mut ModelScorer::new(
                "SASRec",
                &model as &dyn SequentialModel,
            )?)?;
        }
        for (name, dir) in &self.models {
            let model = LlmRecommender::load(dir, &context.device)?;
            add(&mut ModelScorer::new(
                *name,
                &model as &dyn SequentialModel,
            )?)?;
        }
        if let Some(bundle) = &self.bundle {
            evaluations.push(evaluate_bundle(context, dataset, bundle)?);
        }
        Ok(evaluations)
    }
}

fn evaluate_one(
    context: &Context<'_>,
    dataset: &Dataset,
    scorer: &mut dyn Scorer,
) -> Result<Evaluation, PipelineError> {
    if context.stop.load(std::sync::atomic::Ordering::SeqCst) {
        return Err(PipelineError::Interrupted);
    }
    let name = scorer.name().to_owned();
    context.reporter.say(&format!("evaluate: {name}"));
    let counter = context
        .reporter
        .counter("evaluate", dataset.num_users() as u64);
    let split = context.settings.evaluate.split;
    let mut progress = |done: usize, _total: usize| counter.set(done as u64);
    Ok(evaluate(
        scorer,
        dataset,
        split,
        Protocol::default(),
        &mut progress,
    )?)
}

/// The bundle that export's record speaks of, if it is still there.
fn bundle_of(export_dir: &Path) -> Result<Option<ExportedBundle>, PipelineError> {
    let Some(record) = StageRecord::read(export_dir)? else {
        return Ok(None);
    };
    let figure = |name: &str| record.figures[name].as_str().unwrap_or_default();
    let path = PathBuf::from(figure("path"));
    let name = format!("student, {} bundle", figure("precision"));
    Ok(path.is_file().then_some(ExportedBundle { name, path }))
}

/// `slmrec-run`: the one in the settings, or the one beside this program.
fn runner(context: &Context<'_>) -> Result<PathBuf, PipelineError> {
    if let Some(runner) = &context.settings.evaluate.runner {
        return Ok(runner.clone());
    }
    let name = format!("slmrec-run{}", std::env::consts::EXE_SUFFIX);
    let beside = context.program_dir.join(name);
    if beside.is_file() {
        return Ok(beside);
    }
    Err(PipelineError::Runner(format!(
        "{}: expected the program that measures the bundle, found none\n\
         hint: build it (cargo build -p slmrec-run), name it (--runner), or leave the bundle out (--no-bundle)",
        beside.display()
    )))
}

/// The part of `slmrec-run evaluate --format json` that a comparison needs.
#[derive(Deserialize)]
struct BundleEvaluation {
    user_indices: Vec<u32>,
    ranks: Ranks,
}

fn evaluate_bundle(
    context: &Context<'_>,
    dataset: &Dataset,
    bundle: &ExportedBundle,
) -> Result<Evaluation, PipelineError> {
    let name = &bundle.name;
    context
        .reporter
        .say(&format!("evaluate: {name}, through slmrec-run"));
    let split = context.settings.evaluate.split;
    let split_name = to_json(&split)?;
    let mut command = Command::new(runner(context)?);
    command
        .args(["evaluate", "--format", "json", "--bundle"])
        .arg(&bundle.path)
        .arg("--dataset")
        .arg(context.work().dataset())
        .args(["--split", split_name.as_str().unwrap_or_default()]);
    let failed = |text: String| PipelineError::Runner(text);
    let output = command.output().map_err(|e| failed(e.to_string()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(failed(format!("{}\n{said}", output.status)));
    }
    let measured: BundleEvaluation = serde_json::from_slice(&output.stdout)
        .map_err(|e| failed(format!("its JSON is not an evaluation: {e}")))?;
    let evaluation = Evaluation::new(
        name.as_str(),
        dataset,
        split,
        Protocol::default(),
        measured.user_indices,
        measured.ranks,
    );
    evaluation.map_err(|e| failed(e.to_string()))
}
