//! What titles add to item embeddings: frozen vectors of the titles through one trained product.
//!
//! ```text
//! E[i] + W t[i]
//! ```
//! An item that was rarely or never seen in training has what its title says.

use candle_core::{Result, Tensor};

use super::ops::linear::frozen_linear;

/// `W t` of every item.
#[derive(Clone, Debug)]
pub struct TitleProjection {
    /// t `[N + 1, T]`, never trained; zero for the padding and for items without a title.
    vectors: Tensor,
    /// W `[D, T]`
    weight: Tensor,
}

impl TitleProjection {
    /// Puts vectors `[N + 1, T]` and a weight `[D, T]` together; no gradient reaches the vectors.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn new(vectors: &Tensor, weight: &Tensor) -> Result<Self> {
        let (found, expected) = (weight.dims2()?.1, vectors.dims2()?.1);
        if found != expected {
            candle_core::bail!("a projection of {found} values, the titles have {expected}");
        }
        Ok(Self {
            vectors: vectors.detach(),
            weight: weight.clone(),
        })
    }

    /// The vectors t `[N + 1, T]`.
    #[must_use]
    pub fn vectors(&self) -> &Tensor {
        &self.vectors
    }

    /// `W t` of some rows (u32 `[rows]`), `[rows, D]`.
    ///
    /// # Errors
    /// A row that is not there.
    pub fn rows(&self, rows: &Tensor) -> Result<Tensor> {
        self.project(&self.vectors.index_select(rows, 0)?)
    }

    /// `W t` of all rows, `[N + 1, D]`.
    ///
    /// # Errors
    /// Only what candle reports.
    pub fn all(&self) -> Result<Tensor> {
        self.project(&self.vectors)
    }

    /// The vectors are the operand that stays as it is, so that no gradient of them is computed.
    fn project(&self, vectors: &Tensor) -> Result<Tensor> {
        frozen_linear(&self.weight, vectors)?.t()
    }
}
