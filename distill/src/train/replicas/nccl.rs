//! Gradients added up by NCCL, from GPU to GPU. Compiled by `cargo xtask check-cuda`; it has not been
//! run, for want of a machine with two GPUs.

use std::fmt::Debug;

use candle_core::cuda_backend::cudarc::nccl::safe::{Comm, ReduceOp, group_end, group_start};
use candle_core::{CpuStorage, CudaStorage, Device, InplaceOp1, Layout, Result, Tensor};

use super::GradientExchange;

/// The GPUs of one machine.
#[derive(Debug)]
pub struct NcclExchange {
    /// One for each replica, in their order.
    communicators: Vec<Comm>,
}

impl NcclExchange {
    /// Connects `devices`, which are those of the replicas in their order.
    ///
    /// # Errors
    /// A device that is no NVIDIA GPU, or GPUs that NCCL cannot connect.
    pub fn new(devices: &[Device]) -> Result<Self> {
        let streams = (devices.iter())
            .map(|device| Ok(device.as_cuda_device()?.cuda_stream()))
            .collect::<Result<_>>()?;
        let communicators = Comm::from_devices(streams).map_err(|e| failed("connect", &e))?;
        Ok(Self { communicators })
    }
}

impl GradientExchange for NcclExchange {
    fn sum(&self, parts: Vec<Tensor>) -> Result<Vec<Tensor>> {
        if parts.len() != self.communicators.len() {
            candle_core::bail!(
                "NCCL: {} parts for {} GPUs",
                parts.len(),
                self.communicators.len()
            );
        }
        // The sum takes the place of the part, whose memory must therefore be its own.
        let sums = parts.iter().map(Tensor::copy).collect::<Result<Vec<_>>>()?;
        // Calls of one thread on several GPUs wait for each other unless they are one group.
        group_start().map_err(|e| failed("begin", &e))?;
        let queued = sums
            .iter()
            .zip(&self.communicators)
            .try_for_each(|(sum, communicator)| sum.inplace_op1(&SumInPlace { communicator }));
        group_end().map_err(|e| failed("add up", &e))?;
        queued?;
        Ok(sums)
    }
}

/// Adds a tensor to those of the other GPUs.
struct SumInPlace<'a> {
    communicator: &'a Comm,
}

impl InplaceOp1 for SumInPlace<'_> {
    fn name(&self) -> &'static str {
        "nccl-sum"
    }

    fn cpu_fwd(&self, _: &mut CpuStorage, _: &Layout) -> Result<()> {
        candle_core::bail!("NCCL: a tensor in CPU memory")
    }

    fn cuda_fwd(&self, storage: &mut CudaStorage, layout: &Layout) -> Result<()> {
        let slice = storage.as_cuda_slice_mut::<f32>()?;
        if layout.contiguous_offsets() != Some((0, slice.len())) {
            candle_core::bail!("NCCL: a tensor that does not fill its memory");
        }
        let done = (self.communicator).all_reduce_in_place(slice, &ReduceOp::Sum);
        done.map(drop).map_err(|e| failed("add up", &e))
    }
}

fn failed(what: &str, error: &impl Debug) -> candle_core::Error {
    candle_core::Error::Msg(format!("NCCL could not {what}: {error:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::DType;

    /// A group of one: NCCL is found, connects, and runs on the stream of candle's tensors. What
    /// several GPUs do takes several.
    #[test]
    fn a_gpu_alone_keeps_its_gradients() {
        let device = match Device::new_cuda(0) {
            Ok(device) => device,
            Err(error) => {
                eprintln!("NCCL: NOT run: {error}");
                return;
            }
        };
        let exchange = NcclExchange::new(std::slice::from_ref(&device)).expect("a group of one");
        let part = Tensor::arange(0f32, 1000.0, &device).expect("part");
        let part = part.to_dtype(DType::F32).expect("f32");
        let sums = exchange.sum(vec![part.clone()]).expect("sum");
        let (found, expected) = (sums[0].to_vec1::<f32>(), part.to_vec1::<f32>());
        assert_eq!(found.expect("sum"), expected.expect("part"));
        let other = exchange.sum(vec![part.clone(), part]);
        assert!(other.is_err(), "one part for each GPU");
    }
}
