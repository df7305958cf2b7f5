//! Models that ours must beat, beside SASRec: the recurrent and the bidirectional classic, in the
//! forms in which later comparisons found them strong.

pub mod bert4rec;
mod directory;
pub mod gru4rec;
mod recurrence;
#[cfg(test)]
mod tests;

pub use bert4rec::{Bert4Rec, Bert4RecSettings};
pub use gru4rec::{Gru4Rec, Gru4RecSettings};
