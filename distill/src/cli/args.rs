//! What a person may type, and how it becomes settings.

mod distill;
mod export;

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

use super::cold::Cold;
use super::compare::Compare;
use super::items::Items;
use super::report::Report;
use super::seeds::Seeds;
use super::study::StudyArgs;
use super::tune::Tune;
use crate::pipeline::settings::{Baseline, DeviceChoice, ItemSource, LayerChoice};
use crate::train::teacher_cache::FillPart;

pub use distill::{Distill, ObjectiveFlags};
pub use export::Export;

/// Train a sequential recommender on a small language model, distil it, and export it for phones
#[derive(Debug, Parser)]
#[command(
    name = "slmrec-distill",
    version,
    after_help = "Example, from logs to a bundle:\n  \
        slmrec-distill prepare ratings.csv --items movies.csv\n  \
        slmrec-distill prior fit\n  \
        slmrec-distill pretrain\n  \
        slmrec-distill fetch smollm2-135m\n  \
        slmrec-distill teach --base smollm2-135m --layers 8\n  \
        slmrec-distill distill --layers 4 --blocks 4\n  \
        slmrec-distill export --int8\n  \
        slmrec-distill evaluate\n\n\
        Exit codes: 0 fine, 1 something to correct, 2 a fault of this program, 130 interrupted."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Flags of every command.
    #[command(flatten)]
    pub common: Common,
}

/// Flags of every command.
#[derive(Debug, Args)]
pub struct Common {
    /// Where stages read and write [default: slmrec-work]
    #[arg(long, global = true, value_name = "DIR")]
    pub work_dir: Option<PathBuf>,
    /// Settings file; what is typed here wins over it
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Change one setting by its dotted name, for example --set distill.train.epochs=3
    #[arg(long = "set", global = true, value_name = "NAME=VALUE")]
    pub set: Vec<String>,
    /// Seed of everything random [default: 42]
    #[arg(long, global = true)]
    pub seed: Option<u64>,
    /// Where tensors live [default: cpu]
    #[arg(long, global = true, value_enum)]
    pub device: Option<DeviceChoice>,
    /// Run even if the stage is up to date, and even if the machine has no room for its plan
    #[arg(long, global = true)]
    pub force: bool,
    /// Print results only, no progress
    #[arg(long, short, global = true)]
    pub quiet: bool,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Read interaction logs into a dataset
    Prepare(Prepare),
    /// Count which items stand near which, for the prior beside the model; refresh it in a bundle
    Prior(Prior),
    /// Train SASRec, whose item embeddings every later stage uses
    Pretrain(Pretrain),
    /// Train what the comparison needs beside SASRec: GRU4Rec and BERT4Rec
    Baselines(Baselines),
    /// Train the teacher on a pretrained language model
    Teach(Teach),
    /// Weigh several models as one teacher, and train what is missing of them
    Blend(Blend),
    /// Distil the teacher into a student of a few layers
    Distill(Distill),
    /// Train SASRecs and student once more with the validation items, for the bundle
    #[command(after_help = "Example: slmrec-distill refit --config slmrec-work/pipeline.toml")]
    Refit,
    /// Answer one question about the student by training it several times
    Study(StudyArgs),
    /// Search the settings of one model within a budget of minutes
    Tune(Tune),
    /// Give items that training never saw a vector from their titles, and measure it
    Cold(Cold),
    /// Add items to a bundle by their titles, or retire some: a small pack, no training
    Items(Items),
    /// Compare the student with everything simpler
    Evaluate(Evaluate),
    /// Set two runs against each other on the same users: intervals, who gained, who lost
    Compare(Compare),
    /// Runs with other seeds as one table: means, and intervals over users
    Seeds(Seeds),
    /// Write one HTML page about a work directory: is the student worth shipping, and why
    Report(Report),
    /// Write the bundle that slmrec-run and apps load
    Export(Export),
    /// Run all stages of a settings file, skipping what is up to date
    Run(Run),
    /// Fetch demo data or a pretrained model
    Fetch(Fetch),
    /// Say what training will take (memory, disk, time) and whether this machine has it
    Plan(Plan),
    /// Kill training at random instants and check that it ends with the same bits
    VerifyResume(VerifyResume),
    /// Print every setting with its default, as a settings file
    #[command(after_help = "Example: slmrec-distill settings > pipeline.toml")]
    Settings,
    /// Print a shell completion script
    #[command(
        after_help = "Example: slmrec-distill completions bash > /etc/bash_completion.d/slmrec-distill"
    )]
    Completions {
        /// Which shell
        shell: Shell,
    },
}

/// `prepare`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    slmrec-distill prepare ratings.csv\n  \
    slmrec-distill prepare log.tsv --user-column who --item-column what --time-column when --items items.csv\n  \
    slmrec-distill prepare ratings.csv --min-rating 3 --k-core 5\n  \
    slmrec-distill prepare log.csv --items items.csv --categories-column tags --set prepare.read.category_separator=,\n  \
    slmrec-distill prepare ml-100k        # after `slmrec-distill fetch ml-100k`")]
pub struct Prepare {
    /// CSV, TSV, MovieLens, RecBole, JSON lines, Parquet, or one user a line; or a fetched name
    pub source: Option<PathBuf>,
    /// Column of the user id
    #[arg(long, value_name = "NAME")]
    pub user_column: Option<String>,
    /// Column of the item id
    #[arg(long, value_name = "NAME")]
    pub item_column: Option<String>,
    /// Column of the time
    #[arg(long, value_name = "NAME")]
    pub time_column: Option<String>,
    /// Column of the rating
    #[arg(long, value_name = "NAME")]
    pub rating_column: Option<String>,
    /// File with item titles and categories
    #[arg(long, value_name = "FILE")]
    pub items: Option<PathBuf>,
    /// Column of the categories in the file of items; the empty name leaves them out
    #[arg(long, value_name = "NAME")]
    pub categories_column: Option<String>,
    /// Drop interactions rated lower
    #[arg(long, value_name = "RATING")]
    pub min_rating: Option<f64>,
    /// Drop users and items with fewer interactions, until all have so many
    #[arg(long, value_name = "K")]
    pub k_core: Option<usize>,
    /// How the file is written: auto, csv, tsv, movielens, recbole, jsonlines, parquet, sequences
    #[arg(long)]
    pub format: Option<String>,
    /// Leave unreadable lines out (counted in the report) instead of stopping
    #[arg(long)]
    pub skip_bad_lines: bool,
}

/// `prior`.
#[derive(Debug, Args)]
pub struct Prior {
    /// What to do.
    #[command(subcommand)]
    pub command: PriorCommand,
}

/// What can be done with the transition prior.
#[derive(Debug, Subcommand)]
pub enum PriorCommand {
    /// Count the training sequences, in the way that ranks the validation targets best
    Fit(PriorFit),
    /// Count newer interactions into the prior of a bundle; the model stays as it is
    Update(PriorUpdate),
}

/// `prior fit`.
#[derive(Debug, Args)]
#[command(after_help = "Example: slmrec-distill prior fit")]
pub struct PriorFit {
    /// table or json
    #[arg(long, value_enum, default_value_t)]
    pub format: OutputFormat,
}

/// `prior update`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    slmrec-distill prior update --bundle student.slmrec today.csv -o student.delta\n  \
    slmrec-distill prior update --bundle student.slmrec all.csv --since 1764028800 -o student.delta\n  \
    slmrec-run history.json --pack student.delta\n\n\
    The file is read as `prepare` reads one; its settings apply ([prepare.read], --set prepare.read.NAME=VALUE).")]
pub struct PriorUpdate {
    /// The interactions: all of them count, unless --since says otherwise
    pub interactions: PathBuf,
    /// The bundle whose prior is refreshed; it is not changed
    #[arg(long, value_name = "FILE")]
    pub bundle: PathBuf,
    /// Only what happened at this time (in the file's unit) or later is new; what is older gives
    /// the pairs their other half
    #[arg(long, value_name = "TIME")]
    pub since: Option<i64>,
    /// Where to write the pack
    #[arg(long, short, value_name = "FILE")]
    pub output: PathBuf,
    /// table or json
    #[arg(long, value_enum, default_value_t)]
    pub format: OutputFormat,
}

/// `pretrain`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    slmrec-distill pretrain --epochs 20\n  \
    slmrec-distill pretrain --titles minilm     # after `slmrec-distill fetch minilm`")]
pub struct Pretrain {
    /// Also train a SASRec whose items have their titles, by this text encoder: a fetched name such
    /// as minilm, or the folder of a BERT
    #[arg(long, value_name = "ENCODER")]
    pub titles: Option<PathBuf>,
    /// Most passes over the data
    #[arg(long)]
    pub epochs: Option<usize>,
    /// Peak learning rate
    #[arg(long)]
    pub learning_rate: Option<f64>,
}

/// `teach`.
#[derive(Debug, Args)]
#[command(mut_group("ObjectiveFlags", |group| group.requires("cache_states")))]
#[command(after_help = "Examples:\n  \
    slmrec-distill teach --base SmolLM2-135M.gguf --layers 8\n  \
    slmrec-distill teach --base ./SmolLM2-135M --layers 8 --readout response\n  \
    slmrec-distill teach --cache-states                 # store what a finished teacher says\n  \
    slmrec-distill teach --cache-states --shard 3/16    # a part of it; other machines do the others\n  \
    slmrec-distill teach --cache-states --blocks 2      # for `distill --blocks 2`\n  \
    slmrec-distill teach --cache-states --check         # exit code 1 unless all of it is there")]
pub struct Teach {
    /// GGUF file, Hugging Face directory, or a fetched name such as smollm2-135m
    #[arg(long, value_name = "PATH")]
    pub base: Option<PathBuf>,
    /// Number of decoder layers M
    #[arg(long)]
    pub layers: Option<usize>,
    /// Which layers of the base
    #[arg(long, value_enum)]
    pub layer_choice: Option<LayerChoice>,
    /// What item embeddings the teacher begins with, and the student, unless it has its own
    #[arg(long, value_enum)]
    pub item_embeddings: Option<ItemSource>,
    /// Where the user vector is read: item or response
    #[arg(long)]
    pub readout: Option<String>,
    /// Longest history
    #[arg(long)]
    pub max_history: Option<usize>,
    /// Most passes over the data
    #[arg(long)]
    pub epochs: Option<usize>,
    /// Peak learning rate
    #[arg(long)]
    pub learning_rate: Option<f64>,
    /// Train nothing: store the states of the finished teacher that `distill` with the same
    /// settings reads
    #[arg(long, conflicts_with_all = [
        "base", "layers", "layer_choice", "item_embeddings", "readout", "max_history", "epochs", "learning_rate",
    ])]
    pub cache_states: bool,
    /// With --cache-states: of the later `distill`, which of the teacher's states it reads.
    #[command(flatten)]
    pub objective: ObjectiveFlags,
    /// Only shards s of the cache with s = i modulo n
    #[arg(long, value_name = "I/N", requires = "cache_states")]
    pub shard: Option<FillPart>,
    /// Compute nothing: say which shards are missing or damaged and what fills them
    #[arg(long, requires = "cache_states", conflicts_with_all = ["shard", "force"])]
    pub check: bool,
    /// How --cache-states reports: table or json
    #[arg(long, value_enum, default_value_t, requires = "cache_states")]
    pub format: OutputFormat,
}

/// `baselines`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  slmrec-distill baselines\n  slmrec-distill baselines gru4rec --set baselines.gru4rec.train.epochs=50"
)]
pub struct Baselines {
    /// Which ones; all when absent
    #[arg(value_enum)]
    pub models: Vec<Baseline>,
}

/// `blend`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  slmrec-distill blend\n  slmrec-distill distill --teacher blend --lambda-kd 1 --lambda-cos 0 --lambda-norm 0 --lambda-ms 0"
)]
pub struct Blend {
    /// How many decoders beside that of `teach`, each with a seed of its own
    #[arg(long)]
    pub more_decoders: Option<usize>,
    /// How many SASRecs beside that of `pretrain`, each with a seed of its own
    #[arg(long)]
    pub more_sasrecs: Option<usize>,
    /// How many more SASRecs with titles, each with a seed of its own
    #[arg(long)]
    pub more_sasrecs_with_titles: Option<usize>,
    /// The text encoder of the SASRecs with titles
    #[arg(long, value_name = "ENCODER")]
    pub titles: Option<PathBuf>,
    /// Leave the decoder of `teach` out
    #[arg(long)]
    pub no_decoder: bool,
    /// table or json
    #[arg(long, value_enum, default_value_t)]
    pub format: OutputFormat,
}

/// `evaluate`.
#[derive(Debug, Args)]
#[command(after_help = "Example: slmrec-distill evaluate --split validation --format json")]
pub struct Evaluate {
    /// test or validation
    #[arg(long)]
    pub split: Option<String>,
    /// The slmrec-run that measures the bundle [default: beside this program]
    #[arg(long, value_name = "PROGRAM")]
    pub runner: Option<PathBuf>,
    /// Leave the exported bundle out
    #[arg(long)]
    pub no_bundle: bool,
    /// table or json
    #[arg(long, value_enum, default_value_t)]
    pub format: OutputFormat,
}

/// `run`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  slmrec-distill run ratings.csv     # with the settings that fit the data\n  slmrec-distill run ml-100k         # a fetched set\n  slmrec-distill run pipeline.toml   # with your own\n\nThe settings that were chosen for data are written to pipeline.toml in the work directory."
)]
pub struct Run {
    /// The interactions (a file, or the name of a fetched set), or a file of settings (.toml)
    #[arg(value_name = "DATA|SETTINGS")]
    pub input: PathBuf,
    /// The items' titles
    #[arg(long, value_name = "FILE")]
    pub items: Option<PathBuf>,
}

impl Run {
    /// The settings file, where it is one.
    #[must_use]
    pub fn settings(&self) -> Option<&Path> {
        let extension = self.input.extension();
        let is_toml = extension.is_some_and(|name| name.eq_ignore_ascii_case("toml"));
        is_toml.then_some(&self.input)
    }
}

/// `fetch`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  slmrec-distill fetch ml-100k\n  slmrec-distill fetch smollm2-135m\n  \
    slmrec-distill fetch minilm\n  slmrec-distill fetch --list"
)]
pub struct Fetch {
    /// What to fetch
    #[arg(required_unless_present = "list")]
    pub name: Option<String>,
    /// Show what can be fetched, from where and under which licence
    #[arg(long)]
    pub list: bool,
    /// table or json
    #[arg(long, value_enum, default_value_t)]
    pub format: OutputFormat,
}

/// `plan`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  slmrec-distill plan --config pipeline.toml\n  \
    slmrec-distill plan --base smollm2-135m --set distill.train.batch_size=32 --no-calibration"
)]
pub struct Plan {
    /// GGUF file, Hugging Face directory, or a fetched name such as smollm2-135m
    #[arg(long, value_name = "PATH")]
    pub base: Option<PathBuf>,
    /// Do not time a few steps: no estimate of the time
    #[arg(long)]
    pub no_calibration: bool,
    /// table or json
    #[arg(long, value_enum, default_value_t)]
    pub format: OutputFormat,
}

/// `verify-resume`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    slmrec-distill verify-resume --kills 50\n  \
    slmrec-distill verify-resume teach --own --config pipeline.toml --set teach.train.save_every_steps=10")]
pub struct VerifyResume {
    /// Which training
    #[arg(value_enum, default_value_t)]
    pub stage: TrainingStage,
    /// Processes to kill
    #[arg(long, default_value = "20")]
    pub kills: NonZeroUsize,
    /// Train with the settings and the work directory at hand (in copies of its folders) instead of
    /// small generated data and models
    #[arg(long)]
    pub own: bool,
    /// table or json
    #[arg(long, value_enum, default_value_t)]
    pub format: OutputFormat,
}

/// The stages that train.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum TrainingStage {
    /// SASRec.
    Pretrain,
    /// The teacher.
    Teach,
    /// The student.
    #[default]
    Distill,
}

/// How results are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum OutputFormat {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
}
