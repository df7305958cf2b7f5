//! The desktop side: data, models, losses, training, evaluation and the command line.
//!
//! Follow the data: [`data`] (files to a dataset directory) → [`model`] (SASRec and the decoder) →
//! [`train`] (objectives and the loop) → [`evaluate`] (ranking against the floors) and [`prior`] (counts beside a model), [`cold`] (items that training never saw) → `slmrec_export`.
//! [`plan`] says beforehand what a run will take, [`report`] afterwards what it gave. [`pipeline`] strings the stages together under one work directory; [`cli`] is what a person types.

pub mod cli;
pub mod cold;
pub mod data;
pub mod evaluate;
pub mod fetch;
pub mod model;
pub mod pipeline;
pub mod plan;
pub mod prior;
pub mod report;
pub mod train;
