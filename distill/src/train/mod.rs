//! Objectives and the loop that minimises them.
//!
//! [`batches`] cuts training sequences into windows, [`objective`] turns a batch into named loss
//! terms ([`distillation`] adds those of the teacher, live, learning ([`online`]) or from [`teacher_cache`]), [`adamw`] and [`schedule`] change the
//! parameters, parts of a batch run side by side ([`parts`]), [`replicas`] share batches between devices, [`trainer`] runs the epochs and [`state`] lets a cut run go on as if nothing had
//! happened.

pub mod adamw;
pub mod batches;
pub mod cloze;
pub mod distillation;
pub mod error;
pub mod losses;
pub mod objective;
pub mod online;
pub mod parts;
pub mod replicas;
pub mod report;
pub mod schedule;
pub mod settings;
pub mod state;
pub mod teacher;
pub mod teacher_cache;
pub mod top_scores;
pub mod trainer;
pub mod user_share;

#[cfg(test)]
mod device_tests;
#[cfg(test)]
mod golden;
#[cfg(test)]
mod kill_tests;
#[cfg(test)]
mod online_tests;
#[cfg(test)]
mod sharing_tests;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub use batches::{EpochOrder, Share, TrainingBatch, TrainingData, Window};
pub use cloze::Cloze;
pub use distillation::{BlockMap, DistillSettings, Distillation, Priors};
pub use error::TrainError;
pub use objective::{CrossEntropy, Losses, Objective};
pub use online::OnlineTeacher;
pub use report::{EpochReport, FitReport, StepReport, TrainObserver, Validator};
pub use settings::{CatalogLoss, SampledSoftmax, Targets, TrainSettings};
pub use teacher::{LiveTeacher, TeacherStates, hidden_size};
pub use top_scores::TopScores;
pub use trainer::Trainer;
pub use user_share::share_of_users;
