//! What `evaluate` measures, one system after the other.

use std::collections::BTreeMap;

use slmrec_core::evaluation::Protocol;
use slmrec_core::prior::{PriorWeights, TransitionPrior};
use slmrec_core::{Bundle, Dataset, Evaluation, Split};
use slmrec_export::ExportError;

use super::super::runner::BundleRun;
use super::super::{Context, prior, to_json};
use super::ExportedBundle;
use crate::evaluate::names::{self, STUDENT, refitted, with_prior};
use crate::evaluate::{Exposure, Measurement, ModelScorer, NO_PRIOR, Scorer, measure};
use crate::model::SequentialModel;
use crate::pipeline::{Counter, PipelineError};
use crate::prior::Mixture;

/// The counts beside the models.
pub(super) struct Priors {
    /// Of the training sequences.
    training: TransitionPrior,
    /// Of all that is known before the targets.
    pub(super) known: prior::Known,
}

impl Priors {
    fn read(context: &Context<'_>, dataset: &Dataset) -> Result<Option<Self>, PipelineError> {
        let Some(training) = prior::read(context)? else {
            return Ok(None);
        };
        let split = context.settings.evaluate.split;
        let known = prior::Known::before(split, context, dataset, &training)?;
        Ok(Some(Self { training, known }))
    }
}

/// What has been measured so far.
pub(super) struct Measured<'a> {
    pub(super) context: &'a Context<'a>,
    pub(super) dataset: &'a Dataset,
    pub(super) priors: Option<Priors>,
    pub(super) evaluations: Vec<Evaluation>,
    /// What each showed, but for the bundle.
    pub(super) exposures: Vec<Exposure>,
    /// Of each model, what the prior is worth beside it.
    pub(super) mixtures: BTreeMap<String, Mixture>,
    /// Milliseconds of one recommendation through the bundle as it is.
    pub(super) bundle_latency: serde_json::Value,
}

impl<'a> Measured<'a> {
    /// Nothing yet.
    ///
    /// # Errors
    /// Counts that cannot be read.
    pub(super) fn new(
        context: &'a Context<'a>,
        dataset: &'a Dataset,
    ) -> Result<Self, PipelineError> {
        Ok(Self {
            context,
            dataset,
            priors: Priors::read(context, dataset)?,
            evaluations: Vec::new(),
            exposures: Vec::new(),
            mixtures: BTreeMap::new(),
            bundle_latency: serde_json::Value::Null,
        })
    }

    /// A system as it is.
    pub(super) fn floor(&mut self, scorer: &mut dyn Scorer) -> Result<(), PipelineError> {
        let measured = self.measure(scorer, NO_PRIOR)?;
        self.keep(measured);
        Ok(())
    }

    /// A model alone, with the prior, and the student on the test targets with the prior as it was
    /// before the validation items were counted: what a refresh of the counts is worth.
    pub(super) fn model(
        &mut self,
        name: &str,
        model: &dyn SequentialModel,
    ) -> Result<(), PipelineError> {
        let mut scorer = ModelScorer::new(name, model)?;
        let Some(Priors { training, known }) = &self.priors else {
            return self.floor(&mut scorer);
        };
        let mixture = known.mixture(self.context, self.dataset, &mut scorer, false)?;
        let mut priors = vec![(with_prior(name), known.counts.clone())];
        if self.context.settings.evaluate.split == Split::Test && name == STUDENT {
            priors.push((names::with_older_prior(name), training.clone()));
        }
        let measured = self.measure(&mut scorer, (&priors, mixture.weights))?;
        self.keep(measured);
        self.mixtures.insert(name.to_owned(), mixture);
        Ok(())
    }

    /// A refitted model alone and with the prior, which is weighed beside the model as it was validated.
    pub(super) fn refit(
        &mut self,
        name: &str,
        validated: &dyn SequentialModel,
        model: &dyn SequentialModel,
    ) -> Result<(), PipelineError> {
        let refit = refitted(name);
        let mut scorer = ModelScorer::new(&refit, model)?;
        let Some(Priors { known, .. }) = &self.priors else {
            return self.floor(&mut scorer);
        };
        let mut validated = ModelScorer::new(name, validated)?;
        let mixture = known.mixture(self.context, self.dataset, &mut validated, true)?;
        let priors = [(with_prior(&refit), known.counts.clone())];
        let measured = self.measure(&mut scorer, (&priors, mixture.weights))?;
        self.keep(measured);
        self.mixtures.insert(refit, mixture);
        Ok(())
    }

    /// The bundle as it is, and without its prior where it has one.
    pub(super) fn bundle(&mut self, bundle: &ExportedBundle) -> Result<(), PipelineError> {
        let opened = Bundle::open(&bundle.path).map_err(ExportError::from)?;
        let split = self.context.settings.evaluate.split;
        let reporter = self.context.reporter;
        if !opened.manifest().model.may_rank(split) {
            reporter.say(
                "evaluate: the bundle's student was trained on the validation items, so its row is missing",
            );
            return Ok(());
        }
        let mut runs = vec![(bundle.name.clone(), false)];
        if let Some(prior) = &opened.manifest().prior {
            runs.push((names::without_prior(&bundle.name), true));
            if !prior.may_rank(split) {
                reporter.say(
                    "evaluate: the bundle's prior has counted the validation items, so it is measured without it",
                );
                runs.remove(0);
            }
        }
        for (name, without_prior) in runs {
            reporter.say(&format!("evaluate: {name}, through slmrec-run"));
            let run = BundleRun {
                bundle: &bundle.path,
                split,
                without_prior,
                ..BundleRun::default()
            };
            let measured = run.measure(self.context)?;
            if !without_prior {
                self.bundle_latency = to_json(&measured.latency_ms)?;
            }
            (self.evaluations).push(measured.evaluation(&name, self.dataset, run.split)?);
        }
        Ok(())
    }

    fn measure(
        &self,
        scorer: &mut dyn Scorer,
        priors: (&[(String, TransitionPrior)], PriorWeights),
    ) -> Result<Vec<Measurement>, PipelineError> {
        let counter = begin(self.context, self.dataset, scorer.name())?;
        let mut progress = |done: usize, _total: usize| counter.set(done as u64);
        let split = self.context.settings.evaluate.split;
        let protocol = Protocol::default();
        Ok(measure(
            scorer,
            self.dataset,
            split,
            protocol,
            priors,
            &mut progress,
        )?)
    }

    fn keep(&mut self, measured: Vec<Measurement>) {
        for Measurement {
            evaluation,
            exposure,
        } in measured
        {
            self.evaluations.push(evaluation);
            self.exposures.push(exposure);
        }
    }
}

/// Says what is evaluated now, unless it is time to stop.
fn begin<'a>(
    context: &'a Context<'_>,
    dataset: &Dataset,
    name: &str,
) -> Result<Box<dyn Counter + 'a>, PipelineError> {
    if context.stop.load(std::sync::atomic::Ordering::SeqCst) {
        return Err(PipelineError::Interrupted);
    }
    context.reporter.say(&format!("evaluate: {name}"));
    let total = dataset.num_users() as u64;
    Ok(context.reporter.counter("evaluate", total))
}
