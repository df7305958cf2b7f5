//! How the students of a study rank.

use slmrec_core::evaluation::Protocol;
use slmrec_core::{Dataset, Evaluation, Split};

use super::super::super::PipelineError;
use super::super::prior::{self, Known};
use super::super::{Context, input_hash};
use crate::evaluate::{ModelScorer, evaluate, measure, names};
use crate::model::SequentialModel;

/// Users, targets and counts that are the same for all systems of a study.
pub(super) struct Measure<'a> {
    pub(super) context: &'a Context<'a>,
    dataset: &'a Dataset,
    split: Split,
    /// Where `prior fit` has run.
    known: Option<Known>,
}

impl<'a> Measure<'a> {
    /// # Errors
    /// Counts that cannot be read.
    pub(super) fn new(
        context: &'a Context<'a>,
        dataset: &'a Dataset,
        split: Split,
    ) -> Result<Self, PipelineError> {
        let training = prior::read(context)?;
        let known = training.map(|training| Known::before(split, context, dataset, &training));
        Ok(Self {
            context,
            dataset,
            split,
            known: known.transpose()?,
        })
    }

    /// Hash of the counts, as an input.
    ///
    /// # Errors
    /// A record that cannot be read.
    pub(super) fn prior_hash(&self) -> Result<Option<(String, String)>, PipelineError> {
        let hash = |_: &Known| input_hash(&self.context.work.prior());
        let hash = self.known.as_ref().map(hash).transpose()?;
        Ok(hash.map(|hash| ("prior".to_owned(), hash)))
    }

    /// A model as it is.
    ///
    /// # Errors
    /// A model that cannot be run.
    pub(super) fn alone(
        &self,
        name: &str,
        model: &dyn SequentialModel,
    ) -> Result<Evaluation, PipelineError> {
        let mut scorer = ModelScorer::new(name, model)?;
        let (split, protocol) = (self.split, Protocol::default());
        let silent = &mut |_, _| {};
        Ok(evaluate(
            &mut scorer,
            self.dataset,
            split,
            protocol,
            silent,
        )?)
    }

    /// A model as it is, and with the prior, whose weights the validation targets choose for it.
    ///
    /// # Errors
    /// A model that cannot be run.
    pub(super) fn with_prior(
        &self,
        name: &str,
        model: &dyn SequentialModel,
    ) -> Result<Vec<Evaluation>, PipelineError> {
        let Some(known) = &self.known else {
            return Ok(vec![self.alone(name, model)?]);
        };
        let mut scorer = ModelScorer::new(name, model)?;
        let mixture = known.mixture(self.context, self.dataset, &mut scorer, false)?;
        let priors = [(names::with_prior(name), known.counts.clone())];
        let measured = measure(
            &mut scorer,
            self.dataset,
            self.split,
            Protocol::default(),
            (&priors, mixture.weights),
            &mut |_, _| {},
        )?;
        Ok(measured.into_iter().map(|m| m.evaluation).collect())
    }
}
