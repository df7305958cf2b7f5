//! Low-rank adapters: `y = x Wᵀ + (alpha / r) · dropout(x) Aᵀ Bᵀ` with `W` frozen.

use std::fmt;

use candle_core::{DType, Device, Result, Tensor, Var};
use serde::{Deserialize, Serialize};

use super::init::{named_seed, uniform};
use super::ops::linear::{frozen_linear, linear};
use super::parameters::Parameters;

/// Which parts of the body are trained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum BodyTraining {
    /// Low-rank adapters beside frozen weights.
    Lora(LoraSettings),
    /// Every weight.
    Full,
    /// Nothing: only the projections around the body.
    Frozen,
}

/// Size and place of the adapters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LoraSettings {
    /// Rank r.
    pub r: usize,
    /// The adapter's output is scaled by `alpha / r`.
    pub alpha: f64,
    /// Dropout probability on the adapter's input. Modules that read the same input share a mask.
    pub dropout: f64,
    /// Which linear layers get an adapter.
    pub target_modules: Vec<TargetModule>,
}

impl Default for LoraSettings {
    fn default() -> Self {
        Self {
            r: 16,
            alpha: 16.0,
            dropout: 0.05,
            target_modules: TargetModule::ALL.to_vec(),
        }
    }
}

/// The seven linear layers of a decoder layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names are those of the checkpoint")]
pub enum TargetModule {
    QProj,
    KProj,
    VProj,
    OProj,
    GateProj,
    UpProj,
    DownProj,
}

impl TargetModule {
    /// All seven.
    pub const ALL: [Self; 7] = [
        Self::QProj,
        Self::KProj,
        Self::VProj,
        Self::OProj,
        Self::GateProj,
        Self::UpProj,
        Self::DownProj,
    ];

    /// Name within a decoder layer, `self_attn.q_proj` and so on.
    #[must_use]
    pub fn path(self) -> &'static str {
        match self {
            Self::QProj => "self_attn.q_proj",
            Self::KProj => "self_attn.k_proj",
            Self::VProj => "self_attn.v_proj",
            Self::OProj => "self_attn.o_proj",
            Self::GateProj => "mlp.gate_proj",
            Self::UpProj => "mlp.up_proj",
            Self::DownProj => "mlp.down_proj",
        }
    }
}

/// A weight `[out, in]` without bias, in one of the three ways of training.
pub struct Linear {
    weight: Tensor,
    /// The weights of this layer and its neighbours in one piece of memory, where they are stacked.
    stacked: Tensor,
    trained: bool,
    adapter: Option<Adapter>,
}

struct Adapter {
    /// `[r, in]`
    a: Var,
    /// `[out, r]`
    b: Var,
    scale: f64,
}

impl Linear {
    /// Wraps `weight`, named `name` (without `.weight`), and registers what is trained of it.
    ///
    /// # Errors
    /// A rank of 0, or a name that is taken.
    pub fn new(
        weight: &Tensor,
        name: &str,
        module: TargetModule,
        training: &BodyTraining,
        seed: u64,
        parameters: &mut Parameters,
    ) -> Result<Self> {
        let frozen = Self {
            weight: weight.detach(),
            stacked: weight.detach(),
            trained: false,
            adapter: None,
        };
        match training {
            BodyTraining::Full => {
                let var = parameters.insert(format!("{name}.weight"), weight)?;
                Ok(Self {
                    weight: var.as_tensor().clone(),
                    stacked: var.as_tensor().clone(),
                    trained: true,
                    adapter: None,
                })
            }
            BodyTraining::Lora(lora) if lora.target_modules.contains(&module) => {
                let adapter = Adapter::new(weight, name, lora, seed, parameters)?;
                Ok(Self {
                    adapter: Some(adapter),
                    ..frozen
                })
            }
            BodyTraining::Lora(_) | BodyTraining::Frozen => Ok(frozen),
        }
    }

    /// Puts two frozen weights that read the same input into one piece of memory, so that one product
    /// serves both.
    ///
    /// # Errors
    /// Weights whose inputs differ.
    pub(super) fn stack(first: &mut Self, second: &mut Self) -> Result<()> {
        if first.trained || second.trained {
            return Ok(());
        }
        let stacked = Tensor::cat(&[&first.weight, &second.weight], 0)?;
        let (rows, more) = (first.weight.dim(0)?, second.weight.dim(0)?);
        first.weight = stacked.narrow(0, 0, rows)?;
        second.weight = stacked.narrow(0, rows, more)?;
        first.stacked = stacked.clone();
        second.stacked = stacked;
        Ok(())
    }

    /// `(out, in)`
    pub(super) fn shape(&self) -> (usize, usize) {
        let out = self.weight.dims().first().copied().unwrap_or(0);
        (out, self.weight.elem_count() / out.max(1))
    }

    pub(super) fn weight(&self) -> &Tensor {
        &self.weight
    }

    pub(super) fn stacked(&self) -> &Tensor {
        &self.stacked
    }

    pub(super) fn trained(&self) -> bool {
        self.trained
    }

    /// The adapter's `A [r, in]`, `B [out, r]` and scale.
    pub(super) fn adapter(&self) -> Option<(&Tensor, &Tensor, f64)> {
        let adapter = self.adapter.as_ref()?;
        Some((adapter.a.as_tensor(), adapter.b.as_tensor(), adapter.scale))
    }

    /// `x [tokens, in]` to `[tokens, out]`. `dropped` is the adapter's input when it differs.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn forward(&self, x: &Tensor, dropped: Option<&Tensor>) -> Result<Tensor> {
        if self.trained {
            return linear(x, &self.weight);
        }
        let y = frozen_linear(x, &self.weight)?;
        let Some(adapter) = &self.adapter else {
            return Ok(y);
        };
        let cast = |var: &Var| var.as_tensor().to_dtype(x.dtype());
        let low_rank = linear(dropped.unwrap_or(x), &cast(&adapter.a)?)?;
        y + linear(&(low_rank * adapter.scale)?, &cast(&adapter.b)?)?
    }

    /// Whether an adapter stands beside the weight.
    #[must_use]
    pub fn has_adapter(&self) -> bool {
        self.adapter.is_some()
    }

    /// The weight `[out, in]` in f32 with its adapter merged: `W + (alpha / r) · B A`.
    ///
    /// # Errors
    /// Only what candle reports.
    pub fn merged(&self) -> Result<Tensor> {
        let weight = self.weight.detach().to_dtype(DType::F32)?;
        match &self.adapter {
            Some(Adapter { a, b, scale }) => weight + (b.detach().matmul(&a.detach())? * *scale)?,
            None => Ok(weight),
        }
    }
}

impl Adapter {
    fn new(
        weight: &Tensor,
        name: &str,
        lora: &LoraSettings,
        seed: u64,
        parameters: &mut Parameters,
    ) -> Result<Self> {
        let (out, features) = weight.dims2()?;
        if lora.r == 0 || !(0.0..1.0).contains(&lora.dropout) {
            candle_core::bail!(
                "LoRA needs a rank of at least 1 and a dropout in [0, 1), got {lora:?}"
            );
        }
        let name_a = format!("{name}.lora_A.weight");
        // Kaiming-uniform with a = sqrt(5), as PEFT has it.
        let bound = (features as f64).powf(-0.5);
        let a = uniform(
            (lora.r, features),
            bound,
            named_seed(seed, &name_a),
            weight.device(),
        )?;
        let b = zeros((out, lora.r), weight.device())?;
        Ok(Self {
            a: parameters.insert(name_a, &a)?,
            b: parameters.insert(format!("{name}.lora_B.weight"), &b)?,
            scale: lora.alpha / lora.r as f64,
        })
    }
}

fn zeros(shape: (usize, usize), device: &Device) -> Result<Tensor> {
    Tensor::zeros(shape, DType::F32, device)
}

impl fmt::Debug for Linear {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.trained { "trained" } else { "frozen" };
        let adapter = if self.has_adapter() { " + adapter" } else { "" };
        write!(f, "Linear({:?} {kind}{adapter})", self.weight.dims())
    }
}
