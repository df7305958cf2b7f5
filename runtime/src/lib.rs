//! Loads a bundle, encodes a history and ranks the catalog.
