//! Several models over one catalog as one: its scores are the weighted sum of theirs.
//!
//! ```text
//! sum over m of w_m (u_m . E_m[i])  =  [w_1 u_1 | w_2 u_2 | ..] . [E_1[i] | E_2[i] | ..]
//! ```
//! So a blend is a model like any other, with longer user vectors and item embeddings, and a teacher
//! like any other. It cannot be trained.

use candle_core::{D, Result, Tensor};

use super::{HistoryBatch, ItemTable, Mode, ModelOutput, Parameters, SequentialModel};

/// A model of a blend.
pub struct Member {
    /// The model.
    pub model: Box<dyn SequentialModel>,
    /// Weight of its scores.
    pub weight: f64,
}

/// A weighted sum of models. One of weight 0 is asked for its hidden states only.
pub struct Blend {
    members: Vec<Member>,
    /// `[N + 1, sum of D]`
    item_embeddings: Tensor,
    max_history: usize,
    /// There are none.
    parameters: Parameters,
}

impl Blend {
    /// Blends models. Hidden states are those of the first one.
    ///
    /// # Errors
    /// No member with a weight, catalogs of different sizes, a weight that is no number.
    pub fn new(members: Vec<Member>) -> Result<Self> {
        if members.iter().any(|m| !m.weight.is_finite()) || members.iter().all(|m| m.weight == 0.0)
        {
            candle_core::bail!("a blend needs members, and weights for them");
        }
        let tables: Vec<Tensor> = (members.iter())
            .filter(|member| member.weight != 0.0)
            .map(|member| Ok(member.model.item_embeddings()?.detach()))
            .collect::<Result<_>>()?;
        let max_history = members.iter().map(|m| m.model.max_history()).min();
        Ok(Self {
            item_embeddings: Tensor::cat(&tables, 1)?,
            max_history: max_history.unwrap_or_default(),
            members,
            parameters: Parameters::default(),
        })
    }
}

impl SequentialModel for Blend {
    fn forward(
        &self,
        batch: &HistoryBatch,
        mode: Mode<'_>,
        state_layers: &[usize],
    ) -> Result<ModelOutput> {
        if let Mode::Train(_) = mode {
            candle_core::bail!("a blend cannot be trained");
        }
        let (mut users, mut states) = (Vec::new(), Vec::new());
        for (at, member) in self.members.iter().enumerate() {
            let layers = if at == 0 { state_layers } else { &[] };
            if member.weight == 0.0 && layers.is_empty() {
                continue;
            }
            let output = member.model.forward(batch, Mode::Eval, layers)?;
            if member.weight != 0.0 {
                users.push((output.user_vectors.detach() * member.weight)?);
            }
            states.extend(output.states);
        }
        Ok(ModelOutput {
            user_vectors: Tensor::cat(&users, D::Minus1)?,
            states,
        })
    }

    fn item_table(&self) -> ItemTable<'_> {
        (&self.item_embeddings).into()
    }

    fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    fn num_layers(&self) -> usize {
        self.members.first().map_or(0, |m| m.model.num_layers())
    }

    fn max_history(&self) -> usize {
        self.max_history
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use slmrec_core::ItemIndex;

    use super::*;
    use crate::evaluate::{ModelScorer, Scorer};
    use crate::model::{MaskRng, SasRec, SasRecSettings};

    fn sasrec(hidden_size: usize, max_history: usize, items: usize) -> Box<dyn SequentialModel> {
        let settings = SasRecSettings {
            hidden_size,
            intermediate_size: 8,
            max_history,
            ..SasRecSettings::default()
        };
        Box::new(SasRec::new(settings, items, hidden_size as u64, &Device::Cpu).expect("a model"))
    }

    fn scores(model: &dyn SequentialModel, history: &[ItemIndex]) -> Vec<f32> {
        let mut scorer = ModelScorer::new("model", model).expect("fits");
        scorer.scores(&[history]).expect("runs").swap_remove(0)
    }

    #[test]
    fn scores_are_the_weighted_sum() {
        let (a, b) = (sasrec(8, 5, 20), sasrec(4, 7, 20));
        let history = [3, 1, 4, 1, 5].map(ItemIndex);
        let (of_a, of_b) = (scores(a.as_ref(), &history), scores(b.as_ref(), &history));
        let members = [(a, 0.75), (b, -2.0)].map(|(model, weight)| Member { model, weight });
        let blend = Blend::new(members.into()).expect("blends");
        assert_eq!(blend.max_history(), 5);
        let of_both = scores(&blend, &history);
        for ((both, a), b) in of_both.iter().zip(of_a).zip(of_b) {
            assert!((both - (0.75 * a - 2.0 * b)).abs() < 1e-5);
        }
    }

    #[test]
    fn states_are_the_first_ones_and_training_is_refused() {
        let members = [8, 4].map(|width| Member {
            model: sasrec(width, 5, 20),
            weight: 1.0,
        });
        let blend = Blend::new(members.into()).expect("blends");
        let batch = HistoryBatch::new(&[&[ItemIndex(1)]], &Device::Cpu).expect("batch");
        let output = blend.forward(&batch, Mode::Eval, &[1, 2]).expect("runs");
        assert_eq!(output.states.len(), 2);
        assert_eq!(output.states[0].dims(), [1, 1, 8]);
        let mut rng = MaskRng::new(1, 1);
        assert!(blend.forward(&batch, Mode::Train(&mut rng), &[]).is_err());
    }

    #[test]
    fn a_member_without_weight_gives_states_alone() {
        let [alone, weighed, silent] = [4, 4, 8].map(|width| sasrec(width, 5, 20));
        let members =
            [(silent, 0.0), (weighed, 1.0)].map(|(model, weight)| Member { model, weight });
        let blend = Blend::new(members.into()).expect("blends");
        let history = [3, 1, 4].map(ItemIndex);
        assert_eq!(scores(&blend, &history), scores(alone.as_ref(), &history));
        let batch = HistoryBatch::new(&[&history], &Device::Cpu).expect("batch");
        let output = blend.forward(&batch, Mode::Eval, &[1]).expect("runs");
        assert_eq!(output.states[0].dims(), [1, 3, 8]);
        assert_eq!(
            output.user_vectors.dims()[2],
            blend.item_embeddings().expect("some").dims()[1]
        );
    }

    #[test]
    fn refuses_other_catalogs_and_nothing() {
        let members = [20, 21].map(|items| Member {
            model: sasrec(8, 5, items),
            weight: 1.0,
        });
        assert!(Blend::new(members.into()).is_err());
        assert!(Blend::new(Vec::new()).is_err());
        let nan = Member {
            model: sasrec(8, 5, 20),
            weight: f64::NAN,
        };
        assert!(Blend::new(vec![nan]).is_err());
        let silent = Member {
            model: sasrec(8, 5, 20),
            weight: 0.0,
        };
        assert!(Blend::new(vec![silent]).is_err());
    }
}
