//! What other languages see: the objects, the C example, the generated sources.

mod bindings;
mod c_example;
#[cfg(target_os = "linux")]
mod linked;
mod recommender;
mod shared_bundle;
mod support;
