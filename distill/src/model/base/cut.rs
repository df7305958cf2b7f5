//! A narrower body: fewer channels of the residual stream, fewer groups of heads, fewer neurons of
//! the MLP, chosen by the size of their weights.
//!
//! ```text
//! channel c        sum over layers of  g1_c^2 |[Wq; Wk; Wv] e_c|^2 + g2_c^2 |[Wgate; Wup] e_c|^2
//!                                      + |row c of Wo|^2 + |row c of Wdown|^2
//! group of heads   |its rows of Wq, Wk, Wv|^2 + |its columns of Wo|^2          (a layer by itself)
//! neuron j         |row j of Wgate|^2 + |row j of Wup|^2 + |column j of Wdown|^2 (a layer by itself)
//! ```
//! `g1` and `g2` are the gains of a layer's two norms, `e_c` the unit vector of channel c. The largest
//! are kept, in their old order; among equals the first. Channels are the same in all layers, since
//! the residual stream connects them. A group is a key/value head with the query heads that share it.
//! The size of a head stays, so that rotary positions mean the same. Groups and neurons are chosen
//! after the channels, by what is left of their weights.

use candle_core::{Device, Result, Tensor};
use slmrec_export::checkpoint::LlamaConfig;

use super::PretrainedBase;
use crate::model::llama::Tensors;
use crate::model::recommender::{ITEM_PROJECTION, ITEM_PROJECTION_BIAS, USER_PROJECTION};

/// Widths of a body; `None` leaves one as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Widths {
    /// Hidden size H.
    pub hidden_size: Option<usize>,
    /// Width of the MLP.
    pub intermediate_size: Option<usize>,
    /// Key/value heads; each keeps the query heads that share it.
    pub key_value_heads: Option<usize>,
}

/// Why a body cannot be cut.
#[derive(Debug, thiserror::Error)]
pub enum CutError {
    /// A width that the body does not have.
    #[error(
        "setting {name}: expected 1 to {most}, the width of the pretrained model, found {found}"
    )]
    Width {
        /// Field of [`Widths`].
        name: &'static str,
        /// The body's width.
        most: usize,
        /// What was asked for.
        found: usize,
    },
    /// A tensor operation failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

impl Widths {
    /// The configuration of a body after the cut.
    ///
    /// # Errors
    /// [`CutError::Width`] for a width outside 1 to the body's own.
    pub fn of(&self, config: &LlamaConfig) -> std::result::Result<LlamaConfig, CutError> {
        let width = |name, asked: Option<usize>, most: usize| match asked {
            Some(found) if !(1..=most).contains(&found) => {
                Err(CutError::Width { name, most, found })
            }
            asked => Ok(asked.unwrap_or(most)),
        };
        let heads = width("key_value_heads", self.key_value_heads, config.kv_heads())?;
        let shared = config.num_attention_heads / config.kv_heads().max(1);
        Ok(LlamaConfig {
            hidden_size: width("hidden_size", self.hidden_size, config.hidden_size)?,
            intermediate_size: width(
                "intermediate_size",
                self.intermediate_size,
                config.intermediate_size,
            )?,
            num_attention_heads: heads * shared,
            num_key_value_heads: Some(heads),
            head_dim: Some(config.head_size()),
            ..config.clone()
        })
    }

    /// Cuts a body, its prompt, and the projections around it (named as in a checkpoint), where they
    /// are given.
    ///
    /// # Errors
    /// [`CutError::Width`], or tensors that are missing.
    pub fn cut(
        &self,
        base: PretrainedBase,
        own: Option<Tensors>,
    ) -> std::result::Result<(PretrainedBase, Option<Tensors>), CutError> {
        let config = self.of(&base.config)?;
        if *self == Self::default() {
            return Ok((base, own));
        }
        let mut cut = Cut {
            tensors: base.tensors,
            layers: config.num_hidden_layers,
        };
        let channels = cut.channels(config.hidden_size)?;
        cut.keep_channels(&channels)?;
        for layer in 0..config.num_hidden_layers {
            cut.heads(layer, &base.config, config.kv_heads())?;
            cut.neurons(layer, config.intermediate_size)?;
        }
        let prompt = base.prompt_embeddings;
        let prompt = prompt.map(|rows| rows.index_select(&channels, 1)?.contiguous());
        let own = own.map(|own| around(own, &channels)).transpose()?;
        let base = PretrainedBase {
            name: format!(
                "{}, cut to {} of {} channels, {} of {} key/value heads, {} of {} neurons",
                base.name,
                config.hidden_size,
                base.config.hidden_size,
                config.kv_heads(),
                base.config.kv_heads(),
                config.intermediate_size,
                base.config.intermediate_size,
            ),
            tensors: cut.tensors,
            prompt_embeddings: prompt.transpose()?,
            config,
            ..base
        };
        Ok((base, own))
    }
}

/// The projections for the channels that are kept.
fn around(mut own: Tensors, channels: &Tensor) -> Result<Tensors> {
    for (name, axis) in [
        (ITEM_PROJECTION, 0),
        (ITEM_PROJECTION_BIAS, 0),
        (USER_PROJECTION, 1),
    ] {
        let Some(tensor) = own.get_mut(name) else {
            candle_core::bail!("{name}: missing");
        };
        *tensor = tensor.index_select(channels, axis)?;
    }
    Ok(own)
}

/// A body on the way.
struct Cut {
    tensors: Tensors,
    layers: usize,
}

impl Cut {
    fn tensor(&self, layer: usize, name: &str) -> Result<&Tensor> {
        let name = name_of(layer, name);
        match self.tensors.get(&name) {
            Some(tensor) => Ok(tensor),
            None => candle_core::bail!("{name}: missing"),
        }
    }

    /// Sums of squares along `axis` of some weights, added up.
    fn squares(&self, layer: usize, names: &[&str], axis: usize) -> Result<Tensor> {
        let mut sum: Option<Tensor> = None;
        for name in names {
            let squares = self.tensor(layer, name)?.sqr()?.sum(axis)?;
            sum = Some(match sum {
                Some(sum) => (sum + squares)?,
                None => squares,
            });
        }
        match sum {
            Some(sum) => Ok(sum),
            None => candle_core::bail!("no weights"),
        }
    }

    /// The `keep` largest channels.
    fn channels(&self, keep: usize) -> Result<Tensor> {
        let mut scores: Option<Tensor> = None;
        for layer in 0..self.layers {
            let reads = [
                (
                    "input_layernorm",
                    &["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"][..],
                ),
                (
                    "post_attention_layernorm",
                    &["mlp.gate_proj", "mlp.up_proj"],
                ),
            ];
            let mut of_layer = self.squares(layer, &["self_attn.o_proj", "mlp.down_proj"], 1)?;
            for (norm, weights) in reads {
                let gain = self.tensor(layer, norm)?.sqr()?;
                of_layer = (of_layer + (gain * self.squares(layer, weights, 0)?)?)?;
            }
            scores = Some(match scores {
                Some(sum) => (sum + of_layer)?,
                None => of_layer,
            });
        }
        match scores {
            Some(scores) => index(&largest(&scores.to_vec1()?, keep), scores.device()),
            None => candle_core::bail!("a body without layers"),
        }
    }

    fn keep_channels(&mut self, channels: &Tensor) -> Result<()> {
        for (name, tensor) in &mut self.tensors {
            // Norms are vectors; what writes to the residual stream has a row for each channel.
            let writes = name.contains("o_proj") || name.contains("down_proj");
            let axis = usize::from(tensor.rank() > 1 && !writes);
            *tensor = tensor.index_select(channels, axis)?.contiguous()?;
        }
        Ok(())
    }

    fn heads(&mut self, layer: usize, config: &LlamaConfig, keep: usize) -> Result<()> {
        let (groups, dim) = (config.kv_heads(), config.head_size());
        let shared = config.num_attention_heads / groups.max(1) * dim;
        let by_group = |squares: Tensor, rows: usize| squares.reshape((groups, rows))?.sum(1);
        let queries = (self.squares(layer, &["self_attn.q_proj"], 1)?
            + self.squares(layer, &["self_attn.o_proj"], 0)?)?;
        let keys = self.squares(layer, &["self_attn.k_proj", "self_attn.v_proj"], 1)?;
        let scores = (by_group(queries, shared)? + by_group(keys, dim)?)?;
        let kept = largest(&scores.to_vec1()?, keep);
        let rows = |width: usize| {
            let width = width as u32;
            let of_group = |group: &u32| group * width..(group + 1) * width;
            let rows: Vec<u32> = kept.iter().flat_map(of_group).collect();
            index(&rows, scores.device())
        };
        let (queries, keys) = (rows(shared)?, rows(dim)?);
        self.select(layer, "self_attn.q_proj", &queries, 0)?;
        self.select(layer, "self_attn.k_proj", &keys, 0)?;
        self.select(layer, "self_attn.v_proj", &keys, 0)?;
        self.select(layer, "self_attn.o_proj", &queries, 1)
    }

    fn neurons(&mut self, layer: usize, keep: usize) -> Result<()> {
        let scores = (self.squares(layer, &["mlp.gate_proj", "mlp.up_proj"], 1)?
            + self.squares(layer, &["mlp.down_proj"], 0)?)?;
        let kept = index(&largest(&scores.to_vec1()?, keep), scores.device())?;
        self.select(layer, "mlp.gate_proj", &kept, 0)?;
        self.select(layer, "mlp.up_proj", &kept, 0)?;
        self.select(layer, "mlp.down_proj", &kept, 1)
    }

    fn select(&mut self, layer: usize, name: &str, kept: &Tensor, axis: usize) -> Result<()> {
        let cut = self
            .tensor(layer, name)?
            .index_select(kept, axis)?
            .contiguous()?;
        self.tensors.insert(name_of(layer, name), cut);
        Ok(())
    }
}

fn name_of(layer: usize, name: &str) -> String {
    format!("model.layers.{layer}.{name}.weight")
}

/// Places of the `keep` largest values, ascending; among equal ones the first.
fn largest(values: &[f32], keep: usize) -> Vec<u32> {
    let mut order: Vec<u32> = (0..values.len() as u32).collect();
    order.sort_by(|a, b| {
        values[*b as usize]
            .total_cmp(&values[*a as usize])
            .then(a.cmp(b))
    });
    order.truncate(keep);
    order.sort_unstable();
    order
}

fn index(places: &[u32], device: &Device) -> Result<Tensor> {
    Tensor::new(places, device)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::HistoryBatch;
    use crate::model::parameters::normal;
    use crate::model::{BodyTraining, LlmRecommender, LlmSettings, Mode, SequentialModel};
    use candle_core::DType;
    use slmrec_core::ItemIndex;

    fn config() -> LlamaConfig {
        serde_json::from_value(serde_json::json!({
            "model_type": "llama", "hidden_size": 12, "intermediate_size": 10,
            "num_hidden_layers": 2, "num_attention_heads": 6, "num_key_value_heads": 3,
            "head_dim": 4, "rms_norm_eps": 1e-5, "vocab_size": 1,
        }))
        .expect("configuration")
    }

    fn base() -> PretrainedBase {
        PretrainedBase::random(&config(), 5, &Device::Cpu).expect("base")
    }

    /// Makes everything small that is not in the lists.
    fn shrink(base: &mut PretrainedBase, channels: &[u32], groups: &[u32], neurons: &[u32]) {
        for (name, tensor) in &mut base.tensors {
            if tensor.rank() < 2 {
                continue;
            }
            let (rows, columns) = tensor.dims2().expect("a matrix");
            let in_list = |list: &[u32], at: usize| list.contains(&(at as u32));
            let part = |axis: usize, at: usize| {
                let writes = name.contains("o_proj") || name.contains("down_proj");
                let to_stream = usize::from(!writes);
                let other = |at: usize| match name.as_str() {
                    name if name.contains("mlp") => in_list(neurons, at),
                    name if name.contains("k_proj") || name.contains("v_proj") => {
                        in_list(groups, at / 4)
                    }
                    _ => in_list(groups, at / 8),
                };
                if axis == to_stream {
                    in_list(channels, at)
                } else {
                    other(at)
                }
            };
            let factors: Vec<f32> = (0..rows * columns)
                .map(|at| {
                    let kept = part(0, at / columns) && part(1, at % columns);
                    if kept { 1.0 } else { 0.0 }
                })
                .collect();
            let factors = Tensor::from_vec(factors, (rows, columns), &Device::Cpu);
            *tensor = (&*tensor * factors.expect("factors")).expect("product");
        }
    }

    fn recommender(base: &PretrainedBase, own: &Tensors) -> LlmRecommender {
        let settings = LlmSettings {
            max_history: 6,
            training: BodyTraining::Frozen,
            ..LlmSettings::default()
        };
        LlmRecommender::from_parts(base, own, &settings, 1).expect("recommender")
    }

    fn users(model: &LlmRecommender) -> Vec<f32> {
        let history = [3, 1, 4, 1, 5].map(ItemIndex);
        let batch = HistoryBatch::new(&[&history], &Device::Cpu).expect("batch");
        let output = model.forward(&batch, Mode::Eval, &[]).expect("forward");
        output
            .user_vectors
            .flatten_all()
            .and_then(|x| x.to_vec1())
            .expect("values")
    }

    /// What carries nothing goes, and the rest is the same model: the mean of squares in a norm is
    /// over fewer channels, which the factor in the gains makes up for.
    #[test]
    fn a_body_with_nothing_to_lose_computes_the_same() {
        let (channels, groups, neurons) = ([0, 2, 3, 5, 6, 7, 9, 11], [0, 2], [1, 2, 4, 5, 8]);
        let mut whole = base();
        shrink(&mut whole, &channels, &groups, &neurons);
        let random = |shape: &[usize], seed| normal(shape, 1.0, seed, DType::F32, &Device::Cpu);
        let mut own = Tensors::from([
            (
                "item_embeddings.weight".to_owned(),
                random(&[8, 4], 1).expect("items"),
            ),
            (ITEM_PROJECTION.to_owned(), random(&[12, 4], 2).expect("in")),
            (
                ITEM_PROJECTION_BIAS.to_owned(),
                random(&[12], 3).expect("bias"),
            ),
            (
                USER_PROJECTION.to_owned(),
                random(&[4, 12], 4).expect("out"),
            ),
        ]);
        // The other channels carry nothing in or out.
        let mut alive = [0f32; 12];
        for channel in channels {
            alive[channel as usize] = 1.0;
        }
        let alive = Tensor::new(&alive, &Device::Cpu).expect("channels");
        for (name, tensor) in &mut own {
            *tensor = match name.as_str() {
                ITEM_PROJECTION => tensor.broadcast_mul(&alive.unsqueeze(1).expect("column")),
                ITEM_PROJECTION_BIAS | USER_PROJECTION => tensor.broadcast_mul(&alive),
                _ => Ok(tensor.clone()),
            }
            .expect("product");
        }
        let expected = users(&recommender(&whole, &own));
        let widths = Widths {
            hidden_size: Some(8),
            intermediate_size: Some(5),
            key_value_heads: Some(2),
        };
        let (mut cut, own) = widths.cut(whole, Some(own)).expect("cut");
        assert_eq!(
            (cut.config.num_attention_heads, cut.config.kv_heads()),
            (4, 2)
        );
        let factor = (12f64 / 8.0).sqrt();
        for tensor in cut.tensors.values_mut().filter(|tensor| tensor.rank() == 1) {
            *tensor = (&*tensor * factor).expect("gain");
        }
        cut.config.rms_norm_eps *= 12.0 / 8.0;
        let found = users(&recommender(&cut, &own.expect("projections")));
        let farthest = expected
            .iter()
            .zip(&found)
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, f32::max);
        assert!(farthest < 1e-5, "{farthest}");
        assert!(cut.name.contains("cut to 8 of 12 channels"), "{}", cut.name);
    }

    #[test]
    fn widths_have_a_range_and_nothing_asked_is_nothing_done() {
        let wrong = [
            (
                "hidden_size",
                Widths {
                    hidden_size: Some(13),
                    ..Widths::default()
                },
            ),
            (
                "intermediate_size",
                Widths {
                    intermediate_size: Some(0),
                    ..Widths::default()
                },
            ),
            (
                "key_value_heads",
                Widths {
                    key_value_heads: Some(4),
                    ..Widths::default()
                },
            ),
        ];
        for (field, widths) in wrong {
            match widths.cut(base(), None) {
                Err(CutError::Width { name, .. }) => assert_eq!(name, field),
                other => panic!("{field}: {other:?}"),
            }
        }
        let (same, _) = Widths::default().cut(base(), None).expect("uncut");
        assert_eq!(same.name, base().name);
        assert_eq!(same.config, config());
    }

    #[test]
    fn the_largest_are_kept_in_their_order() {
        assert_eq!(largest(&[1.0, 5.0, 5.0, 0.0, 7.0], 3), [1, 2, 4]);
        assert_eq!(largest(&[2.0, 2.0, 2.0], 2), [0, 1]);
    }
}
