//! The command line, as typed.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use slmrec_core::Split;
use slmrec_runtime::{EngineChoice, LibrarySearch, OpenOptions, Provider};

use crate::machine;

const EXAMPLES: &str = "\
Examples:
  slmrec-run history.json
  echo '[\"50\",\"181\"]' | slmrec-run - -k 5 --format json
  slmrec-run history.json --bundle student.slmrec --block 100 --block 127 --include-seen
  slmrec-run history.json --category Comedy --category Romance --block-category Horror
  slmrec-run history.json --score 98 --score 127
  slmrec-run history.json --explain
  slmrec-run batch --input histories.parquet --output recs.parquet
  slmrec-run evaluate --dataset slmrec-work/dataset
  slmrec-run verify
  slmrec-run watch

A history is [\"50\",\"181\"], {\"history\": [\"50\",\"181\"]}, {\"history\": [{\"item\":\"50\",\"time\":881250949}]},
or a list of {\"user\": \"..\", \"history\": [..]}. A history file that is called like a command: ./evaluate

Exit codes: 0 fine, 1 a mistake in what was given or a failed check, 2 a fault of this program.";

/// Recommends items for a history, from a bundle
#[derive(Debug, Parser)]
#[command(
    name = "slmrec-run",
    version,
    after_help = EXAMPLES,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) recommend: RecommendArguments,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Recommend for a file of histories, in bounded memory; goes on where it was cut
    Batch(BatchArguments),
    /// Measure the bundle on the held-out items of a dataset directory
    Evaluate(EvaluateArguments),
    /// Show what is in a bundle
    Inspect(InspectArguments),
    /// Check every member of a bundle and replay its sample histories
    Verify(VerifyArguments),
    /// Pick items by their titles and see what is recommended after each pick
    Watch(WatchArguments),
    /// Print a completion script for a shell
    #[command(after_help = "Example:\n  slmrec-run completions bash > slmrec-run.bash")]
    Completions {
        /// The shell
        shell: Shell,
    },
}

#[derive(Debug, Args)]
pub(crate) struct RecommendArguments {
    /// History file, or - for standard input
    #[arg(value_name = "HISTORY", required = true)]
    pub(crate) history: Option<PathBuf>,
    /// How many items to recommend
    #[arg(short = 'k', long = "top", value_name = "N", default_value = "10")]
    pub(crate) top: NonZeroUsize,
    #[command(flatten)]
    pub(crate) filter: FilterArguments,
    #[command(flatten)]
    pub(crate) score: ScoreArguments,
    /// Say which items of the history speak for each recommendation
    #[arg(long)]
    pub(crate) explain: bool,
    /// Offer popular items, marked as such, when a history is empty or entirely unknown
    #[arg(long)]
    pub(crate) popular: bool,
    #[command(flatten)]
    pub(crate) bundle: BundleArguments,
    #[command(flatten)]
    pub(crate) engine: EngineArguments,
    #[command(flatten)]
    pub(crate) format: FormatArguments,
}

#[derive(Debug, Args)]
pub(crate) struct FilterArguments {
    /// Recommend items of the history again
    #[arg(long)]
    pub(crate) include_seen: bool,
    /// Never recommend this item; can be given several times
    #[arg(long, value_name = "ID")]
    pub(crate) block: Vec<String>,
    /// Never recommend the items of this file, one id a line
    #[arg(long, value_name = "FILE")]
    pub(crate) block_file: Option<PathBuf>,
    /// Recommend only this item; can be given several times
    #[arg(long, value_name = "ID")]
    pub(crate) allow: Vec<String>,
    /// Recommend only the items of this file, one id a line
    #[arg(long, value_name = "FILE")]
    pub(crate) allow_file: Option<PathBuf>,
    /// Recommend only items of this category, or of others given in the same way
    #[arg(long, value_name = "NAME")]
    pub(crate) category: Vec<String>,
    /// Never recommend items of this category; can be given several times
    #[arg(long, value_name = "NAME")]
    pub(crate) block_category: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ScoreArguments {
    /// Rank this item instead of the catalog, with others given in the same way; filters and -k do
    /// not apply
    #[arg(long, value_name = "ID", conflicts_with_all = RANKS_THE_CATALOG)]
    pub(crate) score: Vec<String>,
    /// Rank the items of this file, one id a line, instead of the catalog
    #[arg(long, value_name = "FILE", conflicts_with_all = RANKS_THE_CATALOG)]
    pub(crate) score_file: Option<PathBuf>,
}

/// What makes no sense beside a list of candidates.
const RANKS_THE_CATALOG: [&str; 9] = [
    "top",
    "include_seen",
    "block",
    "block_file",
    "allow",
    "allow_file",
    "category",
    "block_category",
    "popular",
];

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  slmrec-run batch --input histories.parquet --output recs.parquet
  slmrec-run batch --input histories.jsonl --output recs.jsonl -k 20 --threads 8

Files are Parquet (.parquet) or JSON lines (.jsonl, .ndjson). Input: history (list of ids, oldest
first), and if there, user and times (list of integers). Output: user, items, scores, shortfall,
unknown. A run that was killed goes on with the same command; finished parts lie in OUTPUT.parts.")]
pub(crate) struct BatchArguments {
    /// File of histories: .parquet, .jsonl or .ndjson
    #[arg(long, value_name = "FILE")]
    pub(crate) input: PathBuf,
    /// File of recommendations: .parquet, .jsonl or .ndjson; appears whole or not at all
    #[arg(long, value_name = "FILE")]
    pub(crate) output: PathBuf,
    /// How many items to recommend
    #[arg(short = 'k', long = "top", value_name = "N", default_value = "10")]
    pub(crate) top: NonZeroUsize,
    #[command(flatten)]
    pub(crate) filter: FilterArguments,
    /// Discard what an earlier run has left in OUTPUT.parts
    #[arg(long)]
    pub(crate) restart: bool,
    #[command(flatten)]
    pub(crate) bundle: BundleArguments,
    #[command(flatten)]
    pub(crate) engine: EngineArguments,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  slmrec-run evaluate --dataset slmrec-work/dataset
  slmrec-run evaluate --dataset slmrec-work/dataset --split validation --format json --output int8.json")]
pub(crate) struct EvaluateArguments {
    /// Dataset directory, as `slmrec-distill prepare` writes it
    #[arg(long, value_name = "DIR")]
    pub(crate) dataset: PathBuf,
    /// Which held-out item is the target
    #[arg(long, value_enum, default_value = "test")]
    pub(crate) split: SplitName,
    /// Only N of the users that have a target, evenly spread over the dataset
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<NonZeroUsize>,
    /// Also give the ten best items of every user (with --format json)
    #[arg(long, requires = "format")]
    pub(crate) lists: bool,
    /// Write the result to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) bundle: BundleArguments,
    #[command(flatten)]
    pub(crate) engine: EngineArguments,
    #[command(flatten)]
    pub(crate) format: FormatArguments,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  slmrec-run inspect --bundle student.slmrec --format json")]
pub(crate) struct InspectArguments {
    #[command(flatten)]
    pub(crate) bundle: BundleArguments,
    #[command(flatten)]
    pub(crate) format: FormatArguments,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  slmrec-run verify --bundle student.slmrec --engine onnxruntime"
)]
pub(crate) struct VerifyArguments {
    #[command(flatten)]
    pub(crate) bundle: BundleArguments,
    #[command(flatten)]
    pub(crate) engine: EngineArguments,
    #[command(flatten)]
    pub(crate) format: FormatArguments,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  slmrec-run watch --bundle student.slmrec")]
pub(crate) struct WatchArguments {
    /// How many items to recommend
    #[arg(short = 'k', long = "top", value_name = "N", default_value = "10")]
    pub(crate) top: NonZeroUsize,
    #[command(flatten)]
    pub(crate) filter: FilterArguments,
    #[command(flatten)]
    pub(crate) bundle: BundleArguments,
    #[command(flatten)]
    pub(crate) engine: EngineArguments,
}

#[derive(Debug, Args)]
pub(crate) struct BundleArguments {
    /// The bundle; else SLMREC_BUNDLE, else student.slmrec in the current directory
    #[arg(long, value_name = "FILE")]
    pub(crate) bundle: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct EngineArguments {
    /// A pack of the bundle: newer counts (`slmrec-distill prior update`), new or retired items
    /// (`slmrec-distill items`); can be given several times, applied in order
    #[arg(long, value_name = "FILE")]
    pub(crate) pack: Vec<PathBuf>,
    /// Rank by the model alone, without the transition prior
    #[arg(long)]
    pub(crate) no_prior: bool,
    /// Engine that runs the encoder
    #[arg(long, value_enum, default_value = "auto")]
    pub(crate) engine: EngineName,
    /// Execution provider of ONNX Runtime; auto: of those in the library the one that gives the
    /// bundle's samples rightly and fastest, found out once
    #[arg(long, value_enum, default_value = "auto")]
    pub(crate) provider: ProviderName,
    /// Threads inside one inference; for `batch`, histories that run at a time
    #[arg(long, value_name = "N", default_value = "1")]
    pub(crate) threads: NonZeroUsize,
    /// ONNX Runtime library; else ORT_DYLIB_PATH, beside this program, `cargo xtask setup`, system
    #[arg(long, value_name = "LIBRARY")]
    pub(crate) onnxruntime: Option<PathBuf>,
}

impl EngineArguments {
    pub(crate) fn options(&self) -> OpenOptions {
        let executable = std::env::current_exe().ok();
        OpenOptions {
            engine: match self.engine {
                EngineName::Auto => EngineChoice::Auto,
                EngineName::Onnxruntime => EngineChoice::OnnxRuntime,
                EngineName::Tract => EngineChoice::Tract,
            },
            provider: match self.provider {
                ProviderName::Auto => Provider::Auto,
                ProviderName::Cpu => Provider::Cpu,
                ProviderName::Cuda => Provider::Cuda,
                ProviderName::Coreml => Provider::CoreMl,
                ProviderName::Xnnpack => Provider::Xnnpack,
            },
            threads: self.threads,
            libraries: LibrarySearch::new(
                self.onnxruntime.clone(),
                std::env::var_os("ORT_DYLIB_PATH"),
                executable.as_deref(),
            ),
            prior: !self.no_prior,
            provider_cache: machine::provider_cache(),
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct FormatArguments {
    /// How to print the result
    #[arg(long, value_enum, default_value = "table")]
    pub(crate) format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Table,
    Json,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum EngineName {
    Auto,
    Onnxruntime,
    Tract,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum ProviderName {
    Auto,
    Cpu,
    Cuda,
    Coreml,
    Xnnpack,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum SplitName {
    Test,
    Validation,
}

impl From<SplitName> for Split {
    fn from(name: SplitName) -> Self {
        match name {
            SplitName::Test => Self::Test,
            SplitName::Validation => Self::Validation,
        }
    }
}
