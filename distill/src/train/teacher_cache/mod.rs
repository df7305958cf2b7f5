//! What a teacher says about every training example, stored once: the states that the student's
//! blocks are compared with, the user vectors (from which all scores follow), and on request the best
//! items. Students then train with no teacher in memory.
//!
//! A directory of f16 safetensors shards ([`shard_file`]), each a range of windows ([`layout`]) and
//! named by a key over all that the values depend on ([`spec`]). Machines fill it without locks
//! ([`fill`]): a shard appears whole or not at all, and whoever finds a sound one leaves it alone.
//! [`directory`] says which are sound, [`reader`] is the teacher that a student asks.

pub mod directory;
pub mod error;
pub mod fill;
pub mod layout;
pub mod reader;
pub mod shard_file;
pub mod spec;
#[cfg(test)]
mod tests;

pub use directory::{ShardState, TeacherCache};
pub use error::CacheError;
pub use fill::{BATCH_ITEMS, FillPart, Filler};
pub use layout::{CacheLayout, cache_bytes, stored_rows};
pub use reader::CachedTeacher;
pub use spec::{CacheSpec, RowShape};

/// Version of shards and manifest; part of the key.
pub const FORMAT_VERSION: u32 = 1;

/// Stored values are within this relative distance of the live ones: half a step of f16. Below
/// 2^-14 the steps no longer shrink, so values there are within 2^-25 absolutely.
pub const STATE_TOLERANCE: f32 = 1.0 / 2048.0;
