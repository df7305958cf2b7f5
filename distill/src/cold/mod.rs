//! Cold items: embeddings of items that training never saw, from vectors of their titles.
//!
//! A [`TitleMap`] is fitted on items that have both and then asked for items that have a title only.
//! Whether it is worth anything is measured on items that were kept out of training
//! ([`held_out`]), as targets after histories without them ([`cases`], [`experiment`]). [`item_pack`]
//! brings them to a bundle that is on the devices already.

pub mod cases;
mod cholesky;
pub mod experiment;
pub mod held_out;
pub mod item_pack;
mod map_file;
#[cfg(test)]
mod map_file_tests;
mod title_map;
#[cfg(test)]
mod title_map_tests;

pub use experiment::{ColdReport, ColdRow, Shipped, Tried};
pub use map_file::{MAP_FILE, MapDescription, MapSource, WEIGHTS_FILE};
pub use title_map::{MapChoice, MapKind, TitleMap};

use slmrec_core::ranking::RankingError;

/// Why cold items could not be given vectors, or be measured.
#[derive(Debug, thiserror::Error)]
pub enum ColdError {
    /// Not enough items with a title.
    #[error(
        "cold items: expected at least {expected} items with a title that occur in training, found {found}\n\
         hint: `slmrec-distill prepare --items FILE` reads titles"
    )]
    TooFewItems {
        /// How many it takes.
        expected: usize,
        /// How many there are.
        found: usize,
    },
    /// A share outside its range.
    #[error("setting cold.held_out: expected a number above 0, at most 0.4, found {found}")]
    Share {
        /// What stands there.
        found: f64,
    },
    /// No interaction with a kept out item has a history.
    #[error("cold items: none of the {items} kept out items was chosen after another item")]
    NoTargets {
        /// How many were kept out.
        items: usize,
    },
    /// An item without a title vector was given to a map.
    #[error("cold items: row {row} has no title: its vector is zero")]
    NoTitle {
        /// Row of the vectors that were given.
        row: usize,
    },
    /// A map of other settings than can be fitted.
    #[error("cold items: expected {expected}, found {found}")]
    Choice {
        /// What would have been right.
        expected: String,
        /// What was asked for.
        found: String,
    },
    /// Titles that say nothing, so that there is no map.
    #[error("cold items: the titles of all {items} items have the same vector")]
    SameTitles {
        /// How many.
        items: usize,
    },
    /// A score that is not a number.
    #[error("cold items: {0}")]
    Ranking(#[from] RankingError),
    /// A tensor operation failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}
