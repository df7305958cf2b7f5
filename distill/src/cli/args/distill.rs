//! `distill`, and the objective that it shares with the commands which ask the same of the teacher.

use clap::Args;

use crate::pipeline::settings::{
    Online, OnlineStart, StudentStart, TeacherChoice, TeacherStatesChoice, Tuning,
};
use crate::train::BlockMap;

/// The objective of `distill`, which decides what is asked of the teacher.
#[derive(Debug, Args)]
pub struct ObjectiveFlags {
    /// Who teaches
    #[arg(long, value_enum)]
    pub teacher: Option<TeacherChoice>,
    /// Number of aligned blocks b; must divide both layer counts
    #[arg(long)]
    pub blocks: Option<usize>,
    /// Where the blocks end instead: pairs of a teacher's and a student's layer, such as 2:1,4:2,8:4
    #[arg(long, value_name = "PAIRS", conflicts_with = "blocks")]
    pub block_map: Option<BlockMap>,
    /// Weight of the cosine alignment
    #[arg(long)]
    pub lambda_cos: Option<f64>,
    /// Weight of the norm alignment
    #[arg(long)]
    pub lambda_norm: Option<f64>,
    /// Weight of the multiple supervision
    #[arg(long)]
    pub lambda_ms: Option<f64>,
    /// Weight of the logit distillation
    #[arg(long)]
    pub lambda_kd: Option<f64>,
    /// Weight of the distillation of what each inner block recommends
    #[arg(long)]
    pub lambda_block_kl: Option<f64>,
}

/// `distill`.
#[derive(Debug, Args)]
#[command(after_help = "Example: slmrec-distill distill --layers 4 --blocks 4 --lambda-ms 0.01")]
pub struct Distill {
    /// Number of decoder layers L
    #[arg(long)]
    pub layers: Option<usize>,
    /// What the student begins as
    #[arg(long, value_enum)]
    pub start: Option<StudentStart>,
    /// What of the student's layers is trained
    #[arg(long, value_enum)]
    pub tuning: Option<Tuning>,
    /// Hidden size of a student that is cut narrower than the layers it begins with
    #[arg(long, value_name = "H")]
    pub hidden_size: Option<usize>,
    /// Width of its MLP
    #[arg(long, value_name = "WIDTH")]
    pub intermediate_size: Option<usize>,
    /// Its key/value heads, each with the query heads that share it
    #[arg(long, value_name = "HEADS")]
    pub key_value_heads: Option<usize>,
    /// Whether the teacher learns beside the student
    #[arg(long, value_enum)]
    pub online: Option<Online>,
    /// What such a teacher begins as
    #[arg(long, value_enum)]
    pub online_start: Option<OnlineStart>,
    /// What the student is taught by.
    #[command(flatten)]
    pub objective: ObjectiveFlags,
    /// Where the teacher's states come from
    #[arg(long, value_enum)]
    pub teacher_states: Option<TeacherStatesChoice>,
    /// Do not train the same student without the teacher for comparison
    #[arg(long)]
    pub no_ce_only: bool,
    /// Most passes over the data
    #[arg(long)]
    pub epochs: Option<usize>,
    /// Peak learning rate
    #[arg(long)]
    pub learning_rate: Option<f64>,
}
