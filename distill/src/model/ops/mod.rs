//! Differentiable operations of the models, on packed tokens `[tokens, features]`.
//!
//! candle's own backward pass computes the gradient of frozen operands, and several of its fused
//! operations have no gradient at all. Each operation here has a backward pass of its own; those
//! that only run on the CPU in f32 fall back to tensor operations elsewhere.

pub mod attention;
pub(crate) mod embedding;
pub(crate) mod exp;
pub(crate) mod layer;
pub mod linear;
mod low_rank;
mod matrix;
pub mod norm;
pub(crate) mod product;
mod relu;
mod rows;
pub(crate) mod simd;
mod sums;
pub mod swiglu;
#[cfg(test)]
pub(crate) mod tests;
pub(crate) mod theta;

use candle_core::{CpuStorage, DType, Layout, Result, Storage, Tensor};

#[cfg(test)]
use super::testing::kernels_off;

/// Whether the fused CPU kernels can take this tensor. Everything that has a fused form asks here.
pub(crate) fn fused(x: &Tensor) -> bool {
    x.device().is_cpu() && x.dtype() == DType::F32 && !kernels_off()
}

#[cfg(not(test))]
const fn kernels_off() -> bool {
    false
}

/// The values of a contiguous f32 tensor in CPU memory.
pub(crate) fn cpu_slice<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let Some((start, end)) = layout.contiguous_offsets() else {
        candle_core::bail!("a fused operation got a tensor that is not contiguous")
    };
    Ok(&storage.as_slice::<f32>()?[start..end])
}

/// Runs `f` on the values of an f32 tensor in CPU memory, laid out contiguously.
fn with_slice<T>(x: &Tensor, f: impl FnOnce(&[f32]) -> Result<T>) -> Result<T> {
    let x = x.contiguous()?;
    let (storage, layout) = x.storage_and_layout();
    match &*storage {
        Storage::Cpu(storage) => f(cpu_slice(storage, layout)?),
        _ => candle_core::bail!("a fused operation got a tensor that is not in CPU memory"),
    }
}
