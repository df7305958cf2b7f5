//! Typed flags as changes of settings: dotted name and value.

use std::path::Path;

use clap::ValueEnum;
use toml::Value;

use super::args::{
    Baselines, Command, Common, Distill, Evaluate, Export, ObjectiveFlags, Prepare, Pretrain, Teach,
};
use super::items::ItemsCommand;
use crate::train::BlockMap;

/// Changes in the order of typing precedence: `--set` first, named flags over it.
#[derive(Debug, Default)]
pub(super) struct Changes(Vec<(String, Value)>);

impl Changes {
    /// All changes of a command line.
    ///
    /// # Errors
    /// A `--set` without `=`.
    pub(super) fn of(common: &Common, command: &Command) -> anyhow::Result<Vec<(String, Value)>> {
        let mut changes = Self::default();
        for text in &common.set {
            changes.0.push(parse_set(text)?);
        }
        changes.path("work_dir", common.work_dir.as_deref());
        changes.integer("seed", common.seed);
        changes.choice("device", common.device);
        match command {
            Command::Prepare(args) => changes.prepare(args),
            Command::Pretrain(args) => changes.pretrain(args),
            Command::Teach(args) => changes.teach(args),
            Command::Baselines(args) => changes.baselines(args),
            Command::Blend(args) => {
                changes.integer("blend.more_decoders", args.more_decoders);
                changes.integer("blend.more_sasrecs", args.more_sasrecs);
                let titled = args.more_sasrecs_with_titles;
                changes.integer("blend.more_sasrecs_with_titles", titled);
                changes.path("pretrain.titles", args.titles.as_deref());
                changes.flag("blend.decoder", args.no_decoder, false);
            }
            Command::Refit => changes.flag("refit.models", true, true),
            Command::Cold(args) => {
                changes.path("pretrain.titles", args.titles.as_deref());
                changes.float("cold.held_out", args.held_out);
            }
            Command::Items(args) => {
                if let ItemsCommand::Add(add) = &args.command {
                    changes.path("pretrain.titles", add.titles.as_deref());
                }
            }
            Command::Distill(args) => changes.distill(args),
            Command::Evaluate(args) => changes.evaluate(args),
            Command::Export(args) => changes.export(args),
            Command::Plan(args) => {
                changes.path("teach.base", args.base.as_deref());
                changes.flag("plan.calibrate", args.no_calibration, false);
            }
            Command::Run(args) => {
                if args.settings().is_none() {
                    changes.path("prepare.source", Some(&args.input));
                }
                changes.path("prepare.read.items", args.items.as_deref());
            }
            Command::Study(_)
            | Command::Tune(_)
            | Command::Prior(_)
            | Command::Fetch(_)
            | Command::Compare(_)
            | Command::Seeds(_)
            | Command::Report(_)
            | Command::Settings
            | Command::VerifyResume(_)
            | Command::Completions { .. } => {}
        }
        Ok(changes.0)
    }

    fn prepare(&mut self, args: &Prepare) {
        self.path("prepare.source", args.source.as_deref());
        self.text("prepare.read.user_column", args.user_column.as_deref());
        self.text("prepare.read.item_column", args.item_column.as_deref());
        self.text("prepare.read.time_column", args.time_column.as_deref());
        self.text("prepare.read.rating_column", args.rating_column.as_deref());
        self.path("prepare.read.items", args.items.as_deref());
        let categories = args.categories_column.as_deref();
        self.text("prepare.read.items_categories_column", categories);
        self.float("prepare.read.min_rating", args.min_rating);
        self.integer("prepare.read.k_core", args.k_core);
        self.text("prepare.read.format", args.format.as_deref());
        self.flag("prepare.read.skip_bad_lines", args.skip_bad_lines, true);
    }

    fn pretrain(&mut self, args: &Pretrain) {
        self.path("pretrain.titles", args.titles.as_deref());
        self.integer("pretrain.train.epochs", args.epochs);
        self.float("pretrain.train.learning_rate", args.learning_rate);
    }

    fn baselines(&mut self, args: &Baselines) {
        if !args.models.is_empty() {
            let names = args.models.iter().map(|model| Value::from(model.folder()));
            let models = ("baselines.models".to_owned(), Value::Array(names.collect()));
            self.0.push(models);
        }
    }

    fn teach(&mut self, args: &Teach) {
        self.path("teach.base", args.base.as_deref());
        self.integer("teach.layers", args.layers);
        self.choice("teach.layer_choice", args.layer_choice);
        self.choice("teach.item_embeddings", args.item_embeddings);
        self.text("model.readout", args.readout.as_deref());
        if args.readout.as_deref() == Some("response") {
            // This readout gives one vector a history, so there is one target.
            self.text("teach.train.targets", Some("last"));
        }
        self.integer("model.max_history", args.max_history);
        self.integer("teach.train.epochs", args.epochs);
        self.float("teach.train.learning_rate", args.learning_rate);
        self.objective(&args.objective);
    }

    fn distill(&mut self, args: &Distill) {
        self.integer("distill.layers", args.layers);
        self.objective(&args.objective);
        self.choice("distill.start", args.start);
        self.choice("distill.tuning", args.tuning);
        self.integer("distill.hidden_size", args.hidden_size);
        self.integer("distill.intermediate_size", args.intermediate_size);
        self.integer("distill.key_value_heads", args.key_value_heads);
        self.choice("distill.online", args.online);
        self.choice("distill.online_start", args.online_start);
        self.choice("distill.teacher_states", args.teacher_states);
        self.flag("distill.ce_only", args.no_ce_only, false);
        self.integer("distill.train.epochs", args.epochs);
        self.float("distill.train.learning_rate", args.learning_rate);
    }

    fn objective(&mut self, flags: &ObjectiveFlags) {
        self.choice("distill.teacher", flags.teacher);
        self.integer("distill.objective.blocks", flags.blocks);
        if flags.blocks.is_some() {
            // A map of the settings file would win over the number that was typed.
            self.block_map(&BlockMap::default());
        }
        if let Some(map) = &flags.block_map {
            self.block_map(map);
        }
        self.float("distill.objective.lambda_cos", flags.lambda_cos);
        self.float("distill.objective.lambda_norm", flags.lambda_norm);
        self.float("distill.objective.lambda_ms", flags.lambda_ms);
        self.float("distill.objective.lambda_kd", flags.lambda_kd);
        let weight = flags.lambda_block_kl;
        self.float("distill.objective.lambda_block_kl", weight);
    }

    fn block_map(&mut self, map: &BlockMap) {
        let layer = |layer: &usize| Value::Integer(i64::try_from(*layer).unwrap_or(i64::MAX));
        let pairs = map.0.iter().map(|pair| pair.iter().map(layer).collect());
        let name = "distill.objective.block_map".to_owned();
        self.0
            .push((name, Value::Array(pairs.map(Value::Array).collect())));
    }

    fn evaluate(&mut self, args: &Evaluate) {
        self.text("evaluate.split", args.split.as_deref());
        self.path("evaluate.runner", args.runner.as_deref());
        self.flag("evaluate.bundle", args.no_bundle, false);
    }

    fn export(&mut self, args: &Export) {
        let precisions = [
            ("int8", args.int8),
            ("fp16", args.fp16),
            ("fp32", args.fp32),
        ];
        if let Some((name, _)) = precisions.iter().find(|(_, asked)| *asked) {
            self.text("export.precision", Some(name));
        }
        self.float("export.max_ndcg_drop", args.max_ndcg_drop);
        self.flag("export.all_forms", args.all_forms, true);
        self.flag("export.four_bits", args.four_bits, true);
        self.flag("export.certificate", args.no_certificate, false);
        self.choice("export.target", args.target);
        self.path("evaluate.runner", args.runner.as_deref());
        self.flag("export.portable", args.portable, true);
        self.flag("export.prior", args.no_prior, false);
        self.path("export.output", args.output.as_deref());
    }

    fn text(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.0
                .push((name.to_owned(), Value::String(value.to_owned())));
        }
    }

    fn path(&mut self, name: &str, value: Option<&Path>) {
        let value = value.map(|path| path.to_string_lossy().into_owned());
        self.text(name, value.as_deref());
    }

    fn integer(&mut self, name: &str, value: Option<impl TryInto<i64>>) {
        if let Some(value) = value {
            // Out of TOML's range, the largest value keeps the settings' own range checks in charge.
            let value = value.try_into().unwrap_or(i64::MAX);
            self.0.push((name.to_owned(), Value::Integer(value)));
        }
    }

    fn float(&mut self, name: &str, value: Option<f64>) {
        if let Some(value) = value {
            self.0.push((name.to_owned(), Value::Float(value)));
        }
    }

    fn choice(&mut self, name: &str, value: Option<impl ValueEnum>) {
        let value = value.and_then(|value| value.to_possible_value());
        self.text(name, value.as_ref().map(|value| value.get_name()));
    }

    fn flag(&mut self, name: &str, given: bool, value: bool) {
        if given {
            self.0.push((name.to_owned(), Value::Boolean(value)));
        }
    }
}

/// `name=value`, the value in TOML's notation, or else a plain string.
fn parse_set(text: &str) -> anyhow::Result<(String, Value)> {
    let Some((name, value)) = text.split_once('=') else {
        anyhow::bail!("--set {text}: expected NAME=VALUE, for example distill.train.epochs=3");
    };
    let parsed = format!("value = {value}").parse::<toml::Table>();
    let value = match parsed.ok().and_then(|mut table| table.remove("value")) {
        Some(value) => value,
        None => Value::String(value.to_owned()),
    };
    Ok((name.trim().to_owned(), value))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::args::Cli;
    use super::*;

    fn changes(line: &str) -> Vec<(String, Value)> {
        let cli = Cli::try_parse_from(line.split(' ')).expect("parses");
        Changes::of(&cli.common, &cli.command).expect("changes")
    }

    #[test]
    fn flags_become_settings() {
        let change = |name: &str, value: Value| (name.to_owned(), value);
        assert_eq!(
            changes("slmrec-distill distill --layers 4 --blocks 4 --no-ce-only"),
            [
                change("distill.layers", 4.into()),
                change("distill.objective.blocks", 4.into()),
                change("distill.objective.block_map", Value::Array(Vec::new())),
                change("distill.ce_only", false.into()),
            ]
        );
        assert_eq!(
            changes("slmrec-distill export --int8 --set a.b=0.5 --set c=word"),
            [
                change("a.b", 0.5.into()),
                change("c", "word".into()),
                change("export.precision", "int8".into()),
            ]
        );
    }

    #[test]
    fn the_objective_is_the_students_and_belongs_to_the_states() {
        assert_eq!(
            changes("x teach --cache-states --blocks 2 --lambda-kd 1"),
            changes("x distill --blocks 2 --lambda-kd 1")
        );
        let alone = Cli::try_parse_from("x teach --blocks 2".split(' ')).expect_err("refused");
        assert!(alone.to_string().contains("--cache-states"), "{alone}");
    }

    #[test]
    fn every_flag_names_a_setting_that_exists() {
        for line in [
            "x prepare f --user-column u --item-column i --time-column t --rating-column r --items f \
             --categories-column c --min-rating 3 --k-core 5 --format csv --skip-bad-lines",
            "x pretrain --epochs 1 --learning-rate 0.1 --seed 1 --device cpu --work-dir w",
            "x teach --base b --layers 8 --layer-choice interval --readout item --max-history 9 \
             --epochs 1 --learning-rate 0.1",
            "x teach --cache-states --blocks 2 --lambda-cos 1 --lambda-norm 1 --lambda-ms 1 \
             --lambda-kd 1",
            "x distill --block-map 2:1,4:2,8:4 --lambda-block-kl 0.1 --start random --tuning full \
             --hidden-size 9 --intermediate-size 9 --key-value-heads 1 --online joint \
             --online-start base",
            "x distill --layers 4 --blocks 4 --start teacher --lambda-cos 1 --lambda-norm 1 \
             --lambda-ms 1 --lambda-kd 1 --teacher blend --teacher-states live --no-ce-only \
             --epochs 1 --learning-rate 0.1",
            "x evaluate --split validation --runner r --no-bundle",
            "x plan --base b --no-calibration",
            "x export --fp16 --portable --no-prior -o o",
            "x export --max-ndcg-drop 0.1 --all-forms --four-bits --target arm64 --runner r",
            "x export --no-certificate",
            "x blend --more-sasrecs 1 --no-decoder",
            "x cold --titles t --held-out 0.1",
        ] {
            let line = line.split_whitespace().collect::<Vec<_>>().join(" ");
            let changes = changes(&line);
            assert!(!changes.is_empty());
            crate::pipeline::PipelineSettings::load(None, &changes).expect(&line);
        }
    }
}
