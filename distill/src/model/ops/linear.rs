//! `x · Wᵀ` for frozen and for trained weights.

use candle_core::backend::BackendStorage;
use candle_core::{
    CpuStorage, CudaStorage, CustomOp1, CustomOp2, Layout, MetalStorage, Result, Shape, Storage,
    Tensor,
};

/// `x [tokens, in] · Wᵀ`, `W [out, in]` frozen: no gradient of `W` is computed or kept.
///
/// # Errors
/// Shapes that do not fit, or tensors on different devices.
pub fn frozen_linear(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let weight = weight.detach();
    x.apply_op1(FrozenLinear { weight })
}

/// `x [tokens, in] · Wᵀ`, `W [out, in]`, with the gradients of both.
///
/// # Errors
/// Shapes that do not fit, or tensors on different devices.
pub fn linear(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    x.apply_op2(weight, Linear)
}

struct FrozenLinear {
    weight: Tensor,
}

struct Linear;

fn matmul_transposed<S: BackendStorage>(
    x: &S,
    x_layout: &Layout,
    w: &S,
    w_layout: &Layout,
) -> Result<(S, Shape)> {
    let (tokens, features) = x_layout.shape().dims2()?;
    let (out, weight_features) = w_layout.shape().dims2()?;
    if features != weight_features {
        candle_core::bail!(
            "linear: the input has {features} features, the weight {weight_features}"
        );
    }
    let w_layout = w_layout.transpose(0, 1)?;
    let y = x.matmul(w, (1, tokens, out, features), x_layout, &w_layout)?;
    Ok((y, (tokens, out).into()))
}

fn elsewhere<T>() -> Result<T> {
    candle_core::bail!("linear: input and weight are on different devices")
}

impl CustomOp1 for FrozenLinear {
    fn name(&self) -> &'static str {
        "frozen-linear"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        match self.weight.storage_and_layout() {
            (w, w_layout) => match &*w {
                Storage::Cpu(w) => matmul_transposed(x, layout, w, w_layout),
                _ => elsewhere(),
            },
        }
    }

    fn cuda_fwd(&self, x: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        match self.weight.storage_and_layout() {
            (w, w_layout) => match &*w {
                Storage::Cuda(w) => matmul_transposed(x, layout, w, w_layout),
                _ => elsewhere(),
            },
        }
    }

    fn metal_fwd(&self, x: &MetalStorage, layout: &Layout) -> Result<(MetalStorage, Shape)> {
        match self.weight.storage_and_layout() {
            (w, w_layout) => match &*w {
                Storage::Metal(w) => matmul_transposed(x, layout, w, w_layout),
                _ => elsewhere(),
            },
        }
    }

    fn bwd(&self, _x: &Tensor, _y: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        grad.contiguous()?.matmul(&self.weight).map(Some)
    }
}

impl CustomOp2 for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        w: &CpuStorage,
        w_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        matmul_transposed(x, x_layout, w, w_layout)
    }

    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        x_layout: &Layout,
        w: &CudaStorage,
        w_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        matmul_transposed(x, x_layout, w, w_layout)
    }

    fn metal_fwd(
        &self,
        x: &MetalStorage,
        x_layout: &Layout,
        w: &MetalStorage,
        w_layout: &Layout,
    ) -> Result<(MetalStorage, Shape)> {
        matmul_transposed(x, x_layout, w, w_layout)
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        _y: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        Ok((Some(grad.matmul(w)?), Some(grad.t()?.matmul(x)?)))
    }
}
