//! Whole runs of the command, on a tiny exported model.

mod batch;
mod evaluate;
mod failures;
mod fixture;
mod packs;
mod recommend;
mod watch;
