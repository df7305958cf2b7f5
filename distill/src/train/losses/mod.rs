//! The terms of the objectives. Each is a mean over rows, unweighted.
//!
//! [`catalog`] has the terms that score the whole catalog, [`alignment`] those that compare hidden
//! states.

pub mod alignment;
pub mod catalog;
