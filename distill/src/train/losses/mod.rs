//! The terms of the objectives. Each is a mean over rows, unweighted.
//!
//! [`catalog`] has the terms that score the whole catalog, [`sampled`] the one that scores items
//! drawn from it by [`negatives`], [`alignment`] those that compare hidden states, [`mutual`] what a
//! teacher that learns is asked for by those over the catalog; [`offsets`] stand beside scores,
//! [`smoothing`] beside a cross-entropy.

pub mod alignment;
pub mod catalog;
mod known;
mod linear_cross_entropy;
pub mod mutual;
pub mod negatives;
pub mod offsets;
pub mod sampled;
pub mod smoothing;
#[cfg(test)]
mod tests;
