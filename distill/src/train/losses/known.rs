//! A loss whose gradients were computed with it.

use candle_core::{CpuStorage, CustomOp2, DType, Layout, Result, Shape, Tensor};

/// Gradients of a loss with respect to two tensors; `None` for one that needs none.
pub(super) struct Known {
    pub(super) loss: f64,
    pub(super) gradients: (Tensor, Option<Tensor>),
}

impl Known {
    /// The loss as a scalar of `first` and `second`, whose backward pass hands the gradients out as
    /// they are: no copy of a large one is made where the loss has the weight 1.
    pub(super) fn of(self, first: &Tensor, second: &Tensor) -> Result<Tensor> {
        first.apply_op2(second, self)
    }
}

impl CustomOp2 for Known {
    fn name(&self) -> &'static str {
        "loss-with-gradients"
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        Ok((CpuStorage::F32(vec![self.loss as f32]), Shape::from(())))
    }

    fn bwd(
        &self,
        _: &Tensor,
        _: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let weight: f64 = grad.to_dtype(DType::F64)?.to_scalar()?;
        let weighted = |gradient: &Tensor| {
            if weight == 1.0 {
                Ok(gradient.clone())
            } else {
                gradient * weight
            }
        };
        let second = self.gradients.1.as_ref().map(weighted).transpose()?;
        Ok((Some(weighted(&self.gradients.0)?), second))
    }
}
