//! What training and the device must agree on.
//!
//! Everything here is used by both sides of a bundle: the item vocabulary, the way a history
//! becomes a sequence of item rows, the dataset directory, the bundle container and its manifest,
//! the item table, ranking with its tie rule, and the metrics. Nothing here trains, runs a graph,
//! prints, or touches the network.
//!
//! The order in which to read: [`vocabulary`] → [`categories`] → [`history`] → [`dataset`] → [`item_table`] →
//! [`prior`] → [`certificate`] → [`manifest`] → [`container`] → [`bundle`] → [`pack`] → [`ranking`] → [`scan`] → [`metrics`] → [`bootstrap`] → [`sampled`].

pub mod atomic;
pub mod bootstrap;
pub mod bundle;
pub mod categories;
pub mod certificate;
pub mod container;
pub mod dataset;
pub mod evaluation;
pub mod hash;
pub mod history;
pub mod item_table;
pub mod manifest;
pub mod metrics;
pub mod pack;
pub mod prior;
pub mod ranking;
pub mod sampled;
pub mod scan;
pub mod vocabulary;

pub use bundle::{Bundle, BundleError, BundleWriter};
pub use categories::Categories;
pub use certificate::{Certificate, Quantization};
pub use dataset::{Dataset, DatasetError, Split};
pub use evaluation::{Evaluation, EvaluationError};
pub use history::{EncodedHistory, History, HistoryEntry, HistoryError};
pub use item_table::{ItemTable, ItemTableError, RowType};
pub use manifest::Manifest;
pub use pack::{NewItems, Pack, PackManifest};
pub use prior::{PriorError, PriorSettings, PriorWeights, TransitionPrior};
pub use ranking::{ItemMask, RankingError, ScoredItem};
pub use scan::CatalogQuery;
pub use vocabulary::{Item, ItemIndex, ItemVocabulary, VocabularyError};
