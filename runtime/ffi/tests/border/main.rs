//! What other languages see: the objects, the C example, the generated sources.

mod bindings;
mod c_example;
mod recommender;
mod shared_bundle;
mod support;
