//! BERT (Devlin et al., NAACL 2019), as small text encoders are: tokens to one vector a text, the mean
//! over its tokens at unit length. It is never trained here.
//!
//! Texts run packed, token after token without padding; only attention looks at them one by one.

use candle_core::{D, Device, Result, Tensor};
use candle_nn::ops::softmax_last_dim;
use serde::Deserialize;

use super::ops::linear::frozen_linear;
use super::ops::norm::layer_norm;

/// Largest value of any size in a configuration: a guard against absurd files.
const MAX_SIZE: usize = 1 << 20;

/// The parts of `config.json` that decide what is computed.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct BertConfig {
    /// `bert`.
    pub model_type: String,
    /// Size H of the hidden states and of the vectors.
    pub hidden_size: usize,
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// Heads of the attention; divides `hidden_size`.
    pub num_attention_heads: usize,
    /// Width of the MLP.
    pub intermediate_size: usize,
    /// Rows of the word embeddings.
    pub vocab_size: usize,
    /// Rows of the position embeddings: the longest text in tokens.
    pub max_position_embeddings: usize,
    /// Rows of the embeddings of segments, of which only the first is read.
    pub type_vocab_size: usize,
    /// Added to the variance in the norms.
    pub layer_norm_eps: f64,
    /// The MLP's activation; `gelu`, the exact one, is what there is.
    pub hidden_act: String,
    /// How positions enter; `absolute` is what there is.
    #[serde(default = "absolute")]
    pub position_embedding_type: String,
}

fn absolute() -> String {
    "absolute".to_owned()
}

impl BertConfig {
    /// Says what of it is outside its range or not supported, or `None`.
    #[must_use]
    pub fn fault(&self) -> Option<String> {
        let sizes = [
            self.hidden_size,
            self.num_hidden_layers,
            self.num_attention_heads,
            self.intermediate_size,
            self.vocab_size,
            self.max_position_embeddings,
            self.type_vocab_size,
        ];
        let kind = [
            &self.model_type,
            &self.hidden_act,
            &self.position_embedding_type,
        ];
        if kind != ["bert", "gelu", "absolute"] {
            return Some(format!("{kind:?}"));
        }
        if sizes.iter().any(|size| !(1..=MAX_SIZE).contains(size)) {
            return Some(format!("sizes {sizes:?}"));
        }
        if !self.hidden_size.is_multiple_of(self.num_attention_heads) {
            let (heads, width) = (self.num_attention_heads, self.hidden_size);
            return Some(format!("{heads} heads for a width of {width}"));
        }
        let epsilon = self.layer_norm_eps;
        let positive = epsilon.is_finite() && epsilon > 0.0;
        (!positive).then(|| format!("layer_norm_eps {epsilon}"))
    }
}

/// A product with a bias, or a norm: `[out, in]` or `[H]`, and `[out]` or `[H]`.
#[derive(Debug)]
struct Pair {
    weight: Tensor,
    bias: Tensor,
}

impl Pair {
    fn linear(&self, x: &Tensor) -> Result<Tensor> {
        frozen_linear(x, &self.weight)?.broadcast_add(&self.bias)
    }

    fn norm(&self, x: &Tensor, eps: f64) -> Result<Tensor> {
        layer_norm(x, &self.weight, &self.bias, eps)
    }
}

#[derive(Debug)]
struct Layer {
    query: Pair,
    key: Pair,
    value: Pair,
    attended: Pair,
    attention_norm: Pair,
    up: Pair,
    down: Pair,
    output_norm: Pair,
}

/// The encoder.
#[derive(Debug)]
pub struct Bert {
    config: BertConfig,
    /// `[vocabulary, H]`
    words: Tensor,
    /// `[positions, H]`, that of the first segment added.
    positions: Tensor,
    embedding_norm: Pair,
    layers: Vec<Layer>,
}

impl Bert {
    /// Wires up an encoder; `tensor` gives the weight of a name (Hugging Face's, without a prefix)
    /// and a shape.
    ///
    /// # Errors
    /// Whatever `tensor` gives, and what candle reports.
    pub fn new<E: From<candle_core::Error>>(
        config: &BertConfig,
        mut tensor: impl FnMut(&str, &[usize]) -> std::result::Result<Tensor, E>,
    ) -> std::result::Result<Self, E> {
        let (width, inner) = (config.hidden_size, config.intermediate_size);
        let mut table =
            |name: &str, rows| tensor(&format!("embeddings.{name}.weight"), &[rows, width]);
        let words = table("word_embeddings", config.vocab_size)?;
        let positions = table("position_embeddings", config.max_position_embeddings)?;
        let segments = table("token_type_embeddings", config.type_vocab_size)?;
        let positions = positions.broadcast_add(&segments.narrow(0, 0, 1)?)?;
        let mut pair = |name: String, shape: &[usize]| {
            Ok::<_, E>(Pair {
                weight: tensor(&format!("{name}.weight"), shape)?,
                bias: tensor(&format!("{name}.bias"), &shape[..1])?,
            })
        };
        let embedding_norm = pair("embeddings.LayerNorm".to_owned(), &[width])?;
        let layers = (0..config.num_hidden_layers)
            .map(|layer| {
                let mut part = |name: &str, shape: &[usize]| {
                    pair(format!("encoder.layer.{layer}.{name}"), shape)
                };
                Ok(Layer {
                    query: part("attention.self.query", &[width, width])?,
                    key: part("attention.self.key", &[width, width])?,
                    value: part("attention.self.value", &[width, width])?,
                    attended: part("attention.output.dense", &[width, width])?,
                    attention_norm: part("attention.output.LayerNorm", &[width])?,
                    up: part("intermediate.dense", &[inner, width])?,
                    down: part("output.dense", &[width, inner])?,
                    output_norm: part("output.LayerNorm", &[width])?,
                })
            })
            .collect::<std::result::Result<_, E>>()?;
        Ok(Self {
            config: config.clone(),
            words,
            positions,
            embedding_norm,
            layers,
        })
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &BertConfig {
        &self.config
    }

    /// One vector of length 1 a text `[texts, H]`: the mean of the last states of its tokens.
    ///
    /// # Errors
    /// No text, a text without a token or with more than there are positions, an unknown token.
    pub fn encode(&self, texts: &[&[u32]]) -> Result<Tensor> {
        let most = self.config.max_position_embeddings;
        if let Some(text) = texts.iter().find(|text| !(1..=most).contains(&text.len())) {
            candle_core::bail!("a text of {} tokens, expected 1 to {most}", text.len());
        }
        let mut x = self.embed(texts)?;
        for layer in &self.layers {
            x = self.run(layer, &x, texts)?;
        }
        let means = segments(texts)
            .map(|(start, len)| x.narrow(0, start, len)?.mean(0))
            .collect::<Result<Vec<_>>>()?;
        let means = Tensor::stack(&means, 0)?;
        let length = means.sqr()?.sum_keepdim(D::Minus1)?.sqrt()?;
        means.broadcast_div(&length.maximum(1e-12)?)
    }

    /// `[tokens, H]`
    fn embed(&self, texts: &[&[u32]]) -> Result<Tensor> {
        let device = self.device();
        let words = Tensor::new(texts.concat(), device)?;
        let places: Vec<u32> = texts.iter().flat_map(|t| 0..t.len() as u32).collect();
        let positions = Tensor::new(places, device)?;
        let x = self.words.index_select(&words, 0)?;
        let x = (x + self.positions.index_select(&positions, 0)?)?;
        self.embedding_norm.norm(&x, self.config.layer_norm_eps)
    }

    fn run(&self, layer: &Layer, x: &Tensor, texts: &[&[u32]]) -> Result<Tensor> {
        let eps = self.config.layer_norm_eps;
        let [query, key, value] = [&layer.query, &layer.key, &layer.value].map(|p| p.linear(x));
        let (query, key, value) = (query?, key?, value?);
        let mixed = segments(texts)
            .map(|(start, len)| {
                let part = |all: &Tensor| self.heads(&all.narrow(0, start, len)?);
                self.attend(&part(&query)?, &part(&key)?, &part(&value)?)
            })
            .collect::<Result<Vec<_>>>()?;
        let attended = layer.attended.linear(&Tensor::cat(&mixed, 0)?)?;
        let x = layer.attention_norm.norm(&(x + attended)?, eps)?;
        let inner = layer.up.linear(&x)?.gelu_erf()?;
        let output = (&x + layer.down.linear(&inner)?)?;
        layer.output_norm.norm(&output, eps)
    }

    /// `[tokens, H]` as `[heads, tokens, H / heads]`.
    fn heads(&self, x: &Tensor) -> Result<Tensor> {
        let (tokens, width) = x.dims2()?;
        let heads = self.config.num_attention_heads;
        let split = x.reshape((tokens, heads, width / heads))?;
        split.transpose(0, 1)?.contiguous()
    }

    /// Every token of a text looks at all of them: `[tokens, H]`.
    fn attend(&self, query: &Tensor, key: &Tensor, value: &Tensor) -> Result<Tensor> {
        let (heads, tokens, size) = query.dims3()?;
        let scores = (query.matmul(&key.t()?)? * (size as f64).powf(-0.5))?;
        let mixed = softmax_last_dim(&scores)?.matmul(value)?;
        mixed.transpose(0, 1)?.reshape((tokens, heads * size))
    }

    fn device(&self) -> &Device {
        self.words.device()
    }
}

/// First token and number of tokens of each text.
fn segments<'a>(texts: &'a [&[u32]]) -> impl Iterator<Item = (usize, usize)> + 'a {
    texts.iter().scan(0, |end, text| {
        let start = *end;
        *end += text.len();
        Some((start, text.len()))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    /// Two f32 implementations that add in another order.
    const TOLERANCE: f32 = 1e-5;

    fn golden() -> HashMap<String, Tensor> {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../tests/reference/golden/bert.safetensors"
        );
        candle_core::safetensors::load(path, &Device::Cpu).expect("golden numbers")
    }

    fn config() -> BertConfig {
        BertConfig {
            model_type: "bert".to_owned(),
            hidden_size: 8,
            num_hidden_layers: 2,
            num_attention_heads: 2,
            intermediate_size: 12,
            vocab_size: 20,
            max_position_embeddings: 7,
            type_vocab_size: 2,
            layer_norm_eps: 1e-12,
            hidden_act: "gelu".to_owned(),
            position_embedding_type: absolute(),
        }
    }

    fn model(golden: &HashMap<String, Tensor>) -> Bert {
        Bert::new(&config(), |name, shape| {
            let tensor = golden[&format!("parameter.{name}")].clone();
            assert_eq!(tensor.dims(), shape, "{name}");
            Ok::<_, candle_core::Error>(tensor)
        })
        .expect("model")
    }

    /// The texts of the reference.
    const TEXTS: [&[u32]; 3] = [&[2, 5, 7, 11, 3], &[2, 3], &[2, 19, 4, 4, 8, 13, 3]];

    fn rows(tensor: &Tensor) -> Vec<Vec<f32>> {
        tensor.to_vec2().expect("rows")
    }

    #[test]
    fn vectors_are_those_of_transformers() {
        let golden = golden();
        let found = rows(&model(&golden).encode(&TEXTS).expect("vectors"));
        let expected = rows(&golden["vectors"]);
        assert_eq!(found.len(), expected.len());
        for (f, e) in found.iter().flatten().zip(expected.iter().flatten()) {
            assert!((f - e).abs() < TOLERANCE, "{f}, expected {e}");
        }
    }

    #[test]
    fn a_text_alone_is_the_same_as_among_others() {
        let model = model(&golden());
        let together = rows(&model.encode(&TEXTS).expect("vectors"));
        for (text, row) in TEXTS.iter().zip(&together) {
            let alone = rows(&model.encode(&[text]).expect("vector"));
            let length: f32 = row.iter().map(|x| x * x).sum();
            assert!((length - 1.0).abs() < 1e-5);
            for (a, b) in alone[0].iter().zip(row) {
                assert!((a - b).abs() < TOLERANCE, "{a} and {b}");
            }
        }
    }

    #[test]
    fn refuses_texts_and_settings_that_do_not_fit() {
        let model = model(&golden());
        for text in [&[][..], &[2; 8], &[2, 20, 3]] {
            assert!(model.encode(&[text]).is_err(), "{text:?}");
        }
        assert!(model.encode(&[]).is_err());
        assert_eq!(config().fault(), None);
        type Spoil = fn(&mut BertConfig);
        let spoiled: [(&str, Spoil); 5] = [
            ("roberta", |c| c.model_type = "roberta".to_owned()),
            ("relu", |c| c.hidden_act = "relu".to_owned()),
            ("3 heads", |c| c.num_attention_heads = 3),
            ("sizes", |c| c.vocab_size = usize::MAX),
            ("layer_norm_eps", |c| c.layer_norm_eps = 0.0),
        ];
        for (part, spoil) in spoiled {
            let mut config = config();
            spoil(&mut config);
            let fault = config.fault().unwrap_or_default();
            assert!(fault.contains(part), "{part}: {fault}");
        }
    }
}
