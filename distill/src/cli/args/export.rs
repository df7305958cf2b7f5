//! What `export` takes.

use std::path::PathBuf;

use clap::Args;

use super::OutputFormat;
use crate::pipeline::settings::Target;

/// `export`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    slmrec-distill export --int8                # writes student.slmrec\n  \
    slmrec-distill export --int8 --max-ndcg-drop 0.005 --all-forms\n  \
    slmrec-distill export --int8 --four-bits    # the smallest bundle, if it ranks well enough\n  \
    slmrec-distill export --fp16 -o app/assets/student.slmrec")]
pub struct Export {
    /// 8-bit weights (the default), in the cheapest form that ranks well enough
    #[arg(long, group = "precision")]
    pub int8: bool,
    /// Weights stored as 16-bit floats
    #[arg(long, group = "precision")]
    pub fp16: bool,
    /// 32-bit floats
    #[arg(long, group = "precision")]
    pub fp32: bool,
    /// Largest share of NDCG@10 that int8 may lose on the validation targets [default: 0.01]
    #[arg(long, value_name = "SHARE")]
    pub max_ndcg_drop: Option<f64>,
    /// Measure every form of int8, not only until one passes
    #[arg(long)]
    pub all_forms: bool,
    /// Try weights of four bits first, too: the smallest bundle, but slow over long histories
    #[arg(long)]
    pub four_bits: bool,
    /// Take the cheapest form of int8 and measure nothing
    #[arg(long, conflicts_with_all = ["max_ndcg_drop", "all_forms", "four_bits"])]
    pub no_certificate: bool,
    /// Where the bundle is to run [default: any]
    #[arg(long, value_enum)]
    pub target: Option<Target>,
    /// The slmrec-run that measures [default: beside this program]
    #[arg(long, value_name = "PROGRAM")]
    pub runner: Option<PathBuf>,
    /// Leave the transition prior out
    #[arg(long)]
    pub no_prior: bool,
    /// Put a graph that every engine runs (tract, too) beside the int8 one
    #[arg(long)]
    pub portable: bool,
    /// Where to write [default: student.slmrec]
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// table or json
    #[arg(long, value_enum, default_value_t)]
    pub format: OutputFormat,
}
