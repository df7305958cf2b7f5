//! Whole runs of the command, on a tiny exported model.

mod evaluate;
mod failures;
mod fixture;
mod recommend;
