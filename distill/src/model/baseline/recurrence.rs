//! The recurrence of a gated recurrent unit (Cho et al., EMNLP 2014, in PyTorch's form) as one
//! operation. candle's backward pass would copy the gradient of all steps once for each step.
//!
//! ```text
//! r = sigmoid(x_r + h W_r + b_r)    z = sigmoid(x_z + h W_z + b_z)
//! n = tanh(x_n + r (h W_n + b_n))   h' = (1 - z) n + z h
//! ```
//! Everything is in order of time: step 0 of all rows, then step 1. The backward pass finds the gates
//! again from the states that the forward pass gave.

use candle_core::{CpuStorage, CustomOp3, D, Layout, Result, Shape, Tensor};
use candle_nn::ops::sigmoid;

use crate::model::ops::{cpu_slice, fused};

/// States `[S * B, H]` of a recurrence over S steps of B rows, from the inputs' part of the gates
/// `gates [S * B, 3H]` (r, z, n), `weight [3H, H]` and `bias [3H]`. The first state is zero.
///
/// # Errors
/// Shapes that do not fit.
pub(super) fn recurrence(
    gates: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    steps: usize,
) -> Result<Tensor> {
    let (tokens, width) = gates.dims2()?;
    let (rows, hidden) = weight.dims2()?;
    if steps == 0 || tokens % steps != 0 || width != rows || rows != 3 * hidden {
        candle_core::bail!(
            "a recurrence of {steps} steps over gates {:?}, weight {:?}",
            gates.dims(),
            weight.dims()
        );
    }
    let batch = tokens / steps;
    if fused(gates) && fused(weight) {
        let (gates, weight) = (gates.contiguous()?, weight.contiguous()?);
        return gates.apply_op3(&weight, bias, Recurrence { steps, batch });
    }
    slow(gates, weight, bias, (steps, batch))
}

/// The same in tensor operations, for other devices.
fn slow(
    gates: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    (steps, batch): (usize, usize),
) -> Result<Tensor> {
    let hidden = weight.dims2()?.1;
    let mut state = Tensor::zeros((batch, hidden), gates.dtype(), gates.device())?;
    let mut states = Vec::with_capacity(steps);
    for step in 0..steps {
        let x = gates.narrow(0, step * batch, batch)?;
        let h = state.matmul(&weight.t()?)?.broadcast_add(bias)?;
        let part = |of: &Tensor, gate: usize| of.narrow(D::Minus1, gate * hidden, hidden);
        let r = sigmoid(&(part(&x, 0)? + part(&h, 0)?)?)?;
        let z = sigmoid(&(part(&x, 1)? + part(&h, 1)?)?)?;
        let n = (part(&x, 2)? + (r * part(&h, 2)?)?)?.tanh()?;
        state = ((&n + (&z * &state)?)? - (z * n)?)?;
        states.push(state.clone());
    }
    Tensor::cat(&states, 0)
}

struct Recurrence {
    steps: usize,
    batch: usize,
}

/// The gates of one value.
struct Gates {
    r: f32,
    z: f32,
    n: f32,
}

impl Gates {
    /// Of value `at` of a row, from both parts of its gates `[3H]`.
    fn of(x: &[f32], h: &[f32], at: usize) -> Self {
        let hidden = x.len() / 3;
        let sigmoid = |v: f32| 1.0 / (1.0 + (-v).exp());
        let (z_at, n_at) = (hidden + at, 2 * hidden + at);
        let r = sigmoid(x[at] + h[at]);
        Self {
            r,
            z: sigmoid(x[z_at] + h[z_at]),
            n: (x[n_at] + r * h[n_at]).tanh(),
        }
    }
}

impl Recurrence {
    fn forward(&self, gates: &[f32], weight: &Tensor, bias: &Tensor) -> Result<Vec<f32>> {
        let hidden = weight.dims2()?.1;
        let transposed = weight.t()?;
        let mut states = Vec::with_capacity(self.steps * self.batch * hidden);
        let mut state = vec![0f32; self.batch * hidden];
        for x in gates.chunks(self.batch * 3 * hidden) {
            let h = Tensor::from_slice(&state, (self.batch, hidden), weight.device())?;
            let h = h.matmul(&transposed)?.broadcast_add(bias)?;
            let h: Vec<f32> = h.flatten_all()?.to_vec1()?;
            let rows =
                (state.chunks_mut(hidden).zip(x.chunks(3 * hidden))).zip(h.chunks(3 * hidden));
            for ((state, x), h) in rows {
                for (at, value) in state.iter_mut().enumerate() {
                    let Gates { z, n, .. } = Gates::of(x, h, at);
                    *value = (1.0 - z) * n + z * *value;
                }
            }
            states.extend_from_slice(&state);
        }
        Ok(states)
    }

    /// The states before each step `[S * B, H]`.
    fn before(&self, states: &Tensor) -> Result<Tensor> {
        let (_, hidden) = states.dims2()?;
        let first = Tensor::zeros((self.batch, hidden), states.dtype(), states.device())?;
        let rest = states.narrow(0, 0, (self.steps - 1) * self.batch)?;
        Tensor::cat(&[&first, &rest], 0)
    }

    /// Gradients of both parts of the gates, the inputs' and the states', each `[S * B, 3H]`.
    fn gate_gradients(
        &self,
        [gates, from_states, before, grad]: [&[f32]; 4],
        weight: &Tensor,
    ) -> Result<[Vec<f32>; 2]> {
        let hidden = weight.dims2()?.1;
        let (row, block) = (3 * hidden, self.batch * hidden);
        let mut inputs = vec![0f32; gates.len()];
        let mut states = vec![0f32; gates.len()];
        // The gradient that later steps send to the state before them.
        let mut carried = vec![0f32; block];
        for step in (0..self.steps).rev() {
            for place in 0..self.batch {
                let token = step * self.batch + place;
                let of = token * row..(token + 1) * row;
                let (x, h) = (&gates[of.clone()], &from_states[of.clone()]);
                let (to_x, to_h) = (&mut inputs[of.clone()], &mut states[of]);
                for at in 0..hidden {
                    let Gates { r, z, n } = Gates::of(x, h, at);
                    let (value, own) = (token * hidden + at, place * hidden + at);
                    let d = grad[value] + carried[own];
                    let dn = d * (1.0 - z) * (1.0 - n * n);
                    let dz = d * (before[value] - n) * z * (1.0 - z);
                    let dr = dn * h[2 * hidden + at] * r * (1.0 - r);
                    carried[own] = d * z;
                    (to_x[at], to_x[hidden + at], to_x[2 * hidden + at]) = (dr, dz, dn);
                    (to_h[at], to_h[hidden + at], to_h[2 * hidden + at]) = (dr, dz, dn * r);
                }
            }
            let sent = &states[step * self.batch * row..(step + 1) * self.batch * row];
            let sent = Tensor::from_slice(sent, (self.batch, row), weight.device())?;
            let sent: Vec<f32> = sent.matmul(weight)?.flatten_all()?.to_vec1()?;
            for (carried, sent) in carried.iter_mut().zip(sent) {
                *carried += sent;
            }
        }
        Ok([inputs, states])
    }
}

impl CustomOp3 for Recurrence {
    fn name(&self) -> &'static str {
        "gru-recurrence"
    }

    fn cpu_fwd(
        &self,
        gates: &CpuStorage,
        gates_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let tensor = |storage, layout: &Layout| {
            Tensor::from_slice(
                cpu_slice(storage, layout)?,
                layout.shape(),
                &candle_core::Device::Cpu,
            )
        };
        let hidden = weight_layout.shape().dims2()?.1;
        let gates = cpu_slice(gates, gates_layout)?;
        let (weight, bias) = (tensor(weight, weight_layout)?, tensor(bias, bias_layout)?);
        let states = self.forward(gates, &weight, &bias)?;
        let shape = (self.steps * self.batch, hidden).into();
        Ok((CpuStorage::F32(states), shape))
    }

    fn bwd(
        &self,
        gates: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        states: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (weight, bias) = (weight.detach(), bias.detach());
        let before = self.before(&states.detach())?;
        let from_states = before.matmul(&weight.t()?)?.broadcast_add(&bias)?;
        let values = |x: &Tensor| x.flatten_all()?.to_vec1::<f32>();
        let [inputs, sent] = self.gate_gradients(
            [
                &values(gates)?,
                &values(&from_states)?,
                &values(&before)?,
                &values(grad)?,
            ],
            &weight,
        )?;
        let tensor = |values| Tensor::from_vec(values, gates.shape(), gates.device());
        let (inputs, sent) = (tensor(inputs)?, tensor(sent)?);
        let to_weight = sent.t()?.matmul(&before)?;
        Ok((Some(inputs), Some(to_weight), Some(sent.sum(0)?)))
    }
}
