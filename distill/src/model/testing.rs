//! Running the body of a test where no fused kernel runs: in candle's own operations, on the CPU and
//! on the GPU that this build and this machine have.

use std::cell::Cell;

use candle_core::{Device, Result, Tensor};

thread_local! {
    static KERNELS_OFF: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread does without fused kernels.
pub(crate) fn kernels_off() -> bool {
    KERNELS_OFF.get()
}

/// Runs `body` on the CPU with the fused kernels off, then on each GPU.
pub(crate) fn in_tensor_operations(body: impl Fn(&Device)) {
    KERNELS_OFF.set(true);
    body(&Device::Cpu);
    KERNELS_OFF.set(false);
    for (_, device) in gpus() {
        if let Ok(device) = device {
            body(&device);
        }
    }
}

/// Compares what `figures` gives with fused kernels to what it gives without, value by value.
/// `tolerance` is relative to the largest value of a tensor.
pub(crate) fn assert_same_everywhere(
    what: &str,
    tolerance: f32,
    figures: impl Fn(&Device) -> Vec<(String, Tensor)>,
) {
    let expected = figures(&Device::Cpu);
    in_tensor_operations(|device| {
        let found = figures(device);
        assert_eq!(found.len(), expected.len(), "{what}");
        for ((name, found), (_, expected)) in found.iter().zip(&expected) {
            assert_eq!(found.dims(), expected.dims(), "{what}, {name}");
            let (found, expected) = (values(found), values(expected));
            let size = expected.iter().fold(0f32, |a, b| a.max(b.abs()));
            for (f, e) in found.iter().zip(expected) {
                assert!(
                    (f - e).abs() <= tolerance * size.max(f32::MIN_POSITIVE),
                    "{what}, {name} on {:?}: {f}, expected {e}",
                    device.location()
                );
            }
        }
    });
}

fn values(tensor: &Tensor) -> Vec<f32> {
    let flat = tensor.flatten_all().expect("flat");
    flat.to_vec1().expect("f32 values")
}

/// The GPU of each kind that this build knows, or why it cannot be used.
pub(crate) fn gpus() -> Vec<(&'static str, Result<Device>)> {
    let mut found = Vec::new();
    if cfg!(feature = "cuda") {
        found.push(("cuda", Device::new_cuda(0)));
    }
    if cfg!(feature = "metal") {
        found.push(("metal", Device::new_metal(0)));
    }
    found
}
