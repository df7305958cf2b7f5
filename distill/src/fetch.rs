//! Fetching demo data and weights.
