//! Differentiable operations of the decoder, on packed tokens `[tokens, features]`.
//!
//! candle's own backward pass computes the gradient of frozen operands, and several of its fused
//! operations have no gradient at all. Each operation here has a backward pass of its own; those
//! that only run on the CPU in f32 fall back to tensor operations elsewhere.

pub mod attention;
pub(crate) mod exp;
pub mod linear;
pub mod norm;
pub(crate) mod simd;
pub mod swiglu;
#[cfg(test)]
mod tests;

use candle_core::{CpuStorage, DType, Layout, Result, Storage, Tensor};

/// Whether the fused CPU kernels can take this tensor.
fn fused(x: &Tensor) -> bool {
    x.device().is_cpu() && x.dtype() == DType::F32
}

/// The values of a contiguous f32 tensor in CPU memory.
fn cpu_slice<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
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

/// Sum of products, in eight lanes so that the compiler can vectorise it.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0f32; 8];
    let (a_chunks, b_chunks) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f32 = (a_chunks.remainder().iter().zip(b_chunks.remainder()))
        .map(|(a, b)| a * b)
        .sum();
    for (a, b) in a_chunks.zip(b_chunks) {
        for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
            *lane += a * b;
        }
    }
    lanes.iter().sum::<f32>() + rest
}

/// `y += scale * x`.
fn add_scaled(y: &mut [f32], x: &[f32], scale: f32) {
    for (y, x) in y.iter_mut().zip(x) {
        *y += scale * x;
    }
}
