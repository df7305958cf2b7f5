//! `cold`: embeddings of items that training never saw, from their titles: measured on items that are
//! kept out of a SASRec's training, and fitted on the table in use.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use slmrec_core::{Dataset, ItemIndex, hash};

use super::super::stage::Stage;
use super::super::{Outcome, PipelineError, WorkDir};
use super::pretrain::Sasrec;
use super::titles::{self, TitleVectors};
use super::{Context, input_hash, refit, to_json, vocabulary_hash};
use crate::cold::experiment::{Experiment, fittable, rows_of};
use crate::cold::{ColdReport, MapSource, Shipped, TitleMap, held_out};
use crate::model::checkpoint::read_recommender_config;
use crate::model::sasrec::SasRecConfig;
use crate::model::{LlmRecommender, SasRec, SequentialModel};

/// Name of the training without the items that are kept out.
const TRAINING: &str = "cold-sasrec";

/// Trains without some items and fits and measures the maps.
///
/// # Errors
/// No dataset, encoder or titles; no item table; too few items, or training that fails.
pub fn run(context: &Context<'_>) -> Result<(ColdReport, Vec<Outcome>), PipelineError> {
    let Some(encoder) = &context.settings.pretrain.titles else {
        return Err(PipelineError::Settings(
            "cold: expected pretrain.titles, found none\n\
             hint: after `slmrec-distill fetch minilm`, --titles minilm"
                .to_owned(),
        ));
    };
    let table = Table::find(context)?;
    let (vectors, encoded) = titles::run(context, encoder)?;
    let (dataset, dataset_hash) = context.dataset()?;
    let titles = vectors.load(&Device::Cpu)?;
    let (share, seed) = (context.settings.cold.held_out, context.settings.seed);
    let rows = held_out::draw(&fittable(&dataset, &titles)?, share, seed)?;
    let training = Sasrec {
        name: TRAINING,
        dir: context.work.cold_sasrec(),
        seed,
        titles: None,
        beside_prior: false,
        held_out: Some(&rows),
    };
    let trained = training.train(context)?;
    let stage = Stage {
        name: "cold",
        dir: context.work.cold(),
        settings: serde_json::json!({ "cold": { "held_out": share }, "seed": seed }),
        inputs: BTreeMap::from([
            ("dataset".to_owned(), dataset_hash),
            ("titles".to_owned(), vectors.sha256.clone()),
            (TRAINING.to_owned(), input_hash(&training.dir)?),
            (table.name.to_owned(), input_hash(&table.dir)?),
        ]),
    };
    let outcome = stage.run(context.force, context.reporter, |dir| {
        let work = Work {
            context,
            dataset: &dataset,
            rows: &rows,
            titles: &titles,
        };
        let report = work.measure(&training.dir, table.shipped(&dataset, &titles)?)?;
        work.fit(&report, &table, &vectors, dir)?;
        to_json(&report)
    })?;
    let report = serde_json::from_value(outcome.record.figures.clone())
        .map_err(|e| PipelineError::Settings(format!("the figures of cold: {e}")))?;
    Ok((report, vec![encoded, trained, outcome]))
}

/// The item table that the map is fitted on for use.
struct Table {
    /// `student` or `sasrec`, as their folders.
    name: &'static str,
    dir: PathBuf,
}

impl Table {
    /// The student's, or SASRec's where no student of this vocabulary is there, which is said.
    fn find(context: &Context<'_>) -> Result<Self, PipelineError> {
        let vocabulary = vocabulary_hash(context)?;
        if let Ok(dir) = refit::shipped_student(context) {
            if read_recommender_config(&dir)?.vocabulary_sha256 == vocabulary {
                return Ok(Self {
                    name: "student",
                    dir,
                });
            }
            let line = format!("{}: of another dataset, not used", dir.display());
            context.reporter.say(&line);
        }
        let line = "cold: no student, the map for use is fitted on SASRec's items";
        context.reporter.say(line);
        let dir = WorkDir::finished(context.work.sasrec(), "pretrain")?;
        let found = SasRecConfig::read(&dir)?.vocabulary_sha256;
        if found != vocabulary {
            return Err(PipelineError::Content {
                path: dir,
                expected: format!("a SASRec of the vocabulary {vocabulary}"),
                found,
                hint: "run `slmrec-distill pretrain` again".into(),
            });
        }
        let name = "sasrec";
        Ok(Self { name, dir })
    }

    fn shipped(&self, dataset: &Dataset, titles: &Tensor) -> Result<Shipped, PipelineError> {
        Ok(Shipped {
            table: self.name.to_owned(),
            items: fittable(dataset, titles)?.len(),
        })
    }

    /// `[N + 1, D]`
    fn load(&self, device: &Device) -> Result<Tensor, PipelineError> {
        let table = match self.name {
            "student" => LlmRecommender::load(&self.dir, device)?.item_embeddings()?,
            _ => SasRec::load(&self.dir, device)?.0.item_embeddings()?,
        };
        Ok(table.detach())
    }
}

/// What the two parts of the stage share.
struct Work<'a> {
    context: &'a Context<'a>,
    dataset: &'a Dataset,
    /// The items that are kept out.
    rows: &'a [ItemIndex],
    /// `[N + 1, T]`
    titles: &'a Tensor,
}

impl Work<'_> {
    fn measure(&self, sasrec: &Path, shipped: Shipped) -> Result<ColdReport, PipelineError> {
        let (model, _) = SasRec::load(sasrec, &self.context.device)?;
        let warm = held_out::without(self.dataset, self.rows);
        let experiment = Experiment {
            model: &model,
            dataset: self.dataset,
            warm: &warm,
            held_out: self.rows,
            titles: self.titles,
            seed: self.context.settings.seed,
        };
        Ok(experiment.run(shipped)?)
    }

    /// The map that was best, on all items of the table in use; read back as others will read it.
    fn fit(
        &self,
        report: &ColdReport,
        table: &Table,
        vectors: &TitleVectors,
        dir: &Path,
    ) -> Result<(), PipelineError> {
        let rows = fittable(self.dataset, self.titles)?;
        let items = rows_of(&table.load(&self.context.device)?, &rows)?;
        let choice = report.tried[0].choice;
        let map = TitleMap::fit(choice, &rows_of(self.titles, &rows)?, &items)?;
        let source = MapSource {
            titles_sha256: vectors.sha256.clone(),
            table: table.name.to_owned(),
            table_sha256: input_hash(&table.dir)?,
            vocabulary_sha256: vocabulary_hash(self.context)?,
        };
        map.save(dir, source)?;
        TitleMap::load(dir)?;
        Ok(())
    }
}

/// One hash over the rows that are kept out.
pub(super) fn rows_hash(rows: &[ItemIndex]) -> String {
    let lines: String = rows.iter().map(|row| format!("{}\n", row.0)).collect();
    hash::sha256_hex(lines.as_bytes())
}
