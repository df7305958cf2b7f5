//! Named trainable tensors, in name order.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Result, Shape, Tensor, Var};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};

/// Trainable tensors by name. Clones share storage.
#[derive(Clone, Debug, Default)]
pub struct Parameters {
    vars: BTreeMap<String, Var>,
}

impl Parameters {
    /// Adds a trainable copy of `value`.
    ///
    /// # Errors
    /// A name that is already taken.
    pub fn insert(&mut self, name: impl Into<String>, value: &Tensor) -> Result<Var> {
        let name = name.into();
        let var = Var::from_tensor(value)?;
        if self.vars.insert(name.clone(), var.clone()).is_some() {
            candle_core::bail!("the parameter {name} exists already");
        }
        Ok(var)
    }

    /// Adds all of `other`'s, each name behind `prefix`.
    ///
    /// # Errors
    /// A name that is already taken.
    pub fn extend(&mut self, prefix: &str, other: &Self) -> Result<()> {
        for (name, var) in &other.vars {
            let name = format!("{prefix}{name}");
            if self.vars.insert(name.clone(), var.clone()).is_some() {
                candle_core::bail!("the parameter {name} exists already");
            }
        }
        Ok(())
    }

    /// The parameter of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Var> {
        self.vars.get(name)
    }

    /// Names and tensors, in name order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Var)> {
        self.vars.iter().map(|(name, var)| (name.as_str(), var))
    }

    /// Number of values in all parameters together.
    #[must_use]
    pub fn count(&self) -> usize {
        self.vars.values().map(|v| v.elem_count()).sum()
    }
}

/// Normally distributed values from a seed, the same on every device.
///
/// # Errors
/// Only what candle reports for making a tensor.
pub fn normal(
    shape: impl Into<Shape>,
    std: f64,
    seed: u64,
    dtype: DType,
    device: &Device,
) -> Result<Tensor> {
    let shape = shape.into();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut uniform = || (f64::from(rng.next_u32()) + 0.5) / 4_294_967_296.0;
    let values: Vec<f32> = (0..shape.elem_count())
        .map(|_| {
            // Box-Muller; half of the pairs are thrown away for the sake of a simple line.
            let radius = (-2.0 * uniform().ln()).sqrt();
            (std * radius * (std::f64::consts::TAU * uniform()).cos()) as f32
        })
        .collect();
    Tensor::from_vec(values, shape, device)?.to_dtype(dtype)
}
