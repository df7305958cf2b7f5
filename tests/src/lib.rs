//! Tests that cross crates live in `tests/tests`, benches in `tests/benches`.

pub mod bench;
