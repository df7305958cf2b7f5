//! The real weights of SmolLM2 and all-MiniLM-L6-v2 against transformers' numbers
//! (`reference/smollm2.py`, `reference/bert.py`).
//!
//! Their paths come in `SLMREC_TEST_GGUF` and `SLMREC_TEST_MINILM`, which `cargo xtask test` sets after
//! fetching them.
//! With `SLMREC_TEST_CHECKPOINT` set to a folder, a checkpoint is left there for
//! `reference/load_checkpoint.py`.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use candle_core::quantized::gguf_file::Content;
use candle_core::{DType, Device, IndexOp, Tensor};
use serde::Deserialize;
use slmrec_distill::model::base::token_means;
use slmrec_distill::model::llama::LlamaBody;
use slmrec_distill::model::ops::attention::Segments;
use slmrec_distill::model::{
    BodyTraining, CheckpointInfo, LayerSelection, LlmRecommender, LlmSettings, LoraSettings, Mode,
    PretrainedBase, PromptText, SequentialModel, TextEncoder, write_checkpoint,
};

/// Mean over a few dozen tokens, 30 layers in f32. The wrong rotary form is off by 0.4.
const NLL_TOLERANCE: f64 = 1e-3;

fn gguf() -> PathBuf {
    let path = std::env::var_os("SLMREC_TEST_GGUF");
    PathBuf::from(path.expect("SLMREC_TEST_GGUF names SmolLM2's GGUF (cargo xtask test sets it)"))
}

#[derive(Deserialize)]
struct Sentence {
    text: String,
    tokens: Vec<u32>,
    nll_per_token: f64,
}

/// A base whose prompt is `text`, so that its tokens' embeddings come with it.
fn load(path: &Path, layers: &LayerSelection, text: &str) -> PretrainedBase {
    let prompt = PromptText {
        prefix: text.to_owned(),
        suffix: String::new(),
    };
    PretrainedBase::load(path, layers, &prompt, &Device::Cpu).expect("base")
}

/// The whole tied embedding table `[vocabulary, H]`, which the product itself never reads.
fn vocabulary(path: &Path) -> Tensor {
    let mut file = File::open(path).expect("file");
    let content = Content::read(&mut file).expect("header");
    let table = content
        .tensor(&mut file, "token_embd.weight", &Device::Cpu)
        .expect("table");
    table.dequantize(&Device::Cpu).expect("table")
}

/// States after the final norm `[tokens, H]`.
fn run(base: &PretrainedBase, embeddings: &Tensor) -> Tensor {
    let tokens = embeddings.dims()[0];
    let body = LlamaBody::new(
        &base.config,
        &base.tensors,
        &BodyTraining::Frozen,
        tokens,
        0,
    );
    let segments = Segments {
        prefix: 0,
        lengths: vec![tokens],
    };
    body.expect("body")
        .forward(embeddings, segments, None, &mut Mode::Eval, &[])
        .expect("forward")
        .0
}

fn nll_per_token(states: &Tensor, table: &Tensor, tokens: &[u32]) -> f64 {
    let predicted = tokens.len() - 1;
    let states = states.i(0..predicted).expect("states");
    let logits = states
        .matmul(&table.t().expect("transpose"))
        .expect("logits");
    let targets = Tensor::new(&tokens[1..], &Device::Cpu).expect("targets");
    let nll = candle_nn::loss::cross_entropy(&logits, &targets).expect("nll");
    f64::from(nll.to_scalar::<f32>().expect("scalar"))
}

#[test]
fn real_weights_make_sentences_as_likely_as_transformers_finds_them() {
    let path = gguf();
    let golden = include_str!("../reference/golden/smollm2.json");
    let sentences: Vec<Sentence> = serde_json::from_str(golden).expect("golden numbers");
    let table = vocabulary(&path);
    for sentence in sentences {
        let base = load(&path, &LayerSelection::All, &sentence.text);
        assert_eq!(base.prompt.prefix_tokens, sentence.tokens, "tokenizer");
        assert_eq!(base.layers.len(), 30);
        let embeddings = base.prompt_embeddings.as_ref().expect("embeddings");
        // The same tokens, read as words: no special tokens in this model.
        let words = token_means(&path, &[&sentence.text], &Device::Cpu).expect("words");
        let mean = embeddings.mean_keepdim(0).expect("mean");
        let difference = (words - mean).and_then(|d| d.abs()?.max_all()?.to_scalar::<f32>());
        assert!(difference.expect("difference") < 1e-6);
        let states = run(&base, embeddings);
        let nll = nll_per_token(&states, &table, &sentence.tokens);
        assert!(
            (nll - sentence.nll_per_token).abs() < NLL_TOLERANCE,
            "{nll} {}",
            sentence.nll_per_token
        );
    }
}

#[derive(Deserialize)]
struct Titles {
    titles: Vec<Title>,
    cosines: Vec<Vec<f32>>,
}

#[derive(Deserialize)]
struct Title {
    text: String,
    tokens: Vec<u32>,
    first_values: Vec<f32>,
}

#[test]
fn real_weights_put_titles_where_transformers_puts_them() {
    let dir = std::env::var_os("SLMREC_TEST_MINILM")
        .expect("SLMREC_TEST_MINILM names all-MiniLM-L6-v2's folder (cargo xtask test sets it)");
    let encoder = TextEncoder::load(Path::new(&dir), &Device::Cpu).expect("encoder");
    let golden = include_str!("../reference/golden/minilm.json");
    let golden: Titles = serde_json::from_str(golden).expect("golden numbers");
    let texts: Vec<&str> = golden.titles.iter().map(|t| t.text.as_str()).collect();
    let vectors = encoder.encode(&texts).expect("vectors");
    let rows: Vec<Vec<f32>> = vectors.to_vec2().expect("rows");
    let near = |found: f32, expected: f32| (found - expected).abs() < 1e-5;
    for (title, row) in golden.titles.iter().zip(&rows) {
        let tokens = encoder.tokens(&title.text).expect("tokens");
        assert_eq!(tokens, title.tokens, "{}", title.text);
        assert_eq!(row.len(), 384);
        for (found, expected) in row.iter().zip(&title.first_values) {
            assert!(
                near(*found, *expected),
                "{}: {found}, {expected}",
                title.text
            );
        }
    }
    let cosines = vectors
        .t()
        .and_then(|t| vectors.matmul(&t)?.to_vec2::<f32>());
    let cosines = cosines.expect("cosines");
    for (found, expected) in cosines
        .iter()
        .flatten()
        .zip(golden.cosines.iter().flatten())
    {
        assert!(near(*found, *expected), "{found}, {expected}");
    }
    let long = encoder.tokens(&"stapler ".repeat(1000)).expect("tokens");
    assert_eq!(long.len(), 256, "what is too long is cut");
    assert_eq!(long.last(), Some(&102), "and ends as every text does");
}

#[test]
fn real_weights_in_a_checkpoint_are_the_model() {
    let temporary = tempfile::tempdir().expect("folder");
    let dir = match std::env::var_os("SLMREC_TEST_CHECKPOINT") {
        Some(dir) => PathBuf::from(dir),
        None => temporary.path().to_owned(),
    };
    let base = load(
        &gguf(),
        &LayerSelection::Interval { step: 10, count: 3 },
        "Recommend: 1994",
    );
    let items = Tensor::rand(-1f32, 1.0, (20, 8), &Device::Cpu).expect("items");
    let settings = LlmSettings {
        training: BodyTraining::Lora(LoraSettings {
            r: 4,
            ..LoraSettings::default()
        }),
        ..LlmSettings::default()
    };
    let model = LlmRecommender::new(&base, &items, &settings, 7, &Device::Cpu).expect("model");
    for (name, var) in model
        .parameters()
        .iter()
        .filter(|(name, _)| name.contains("lora_B"))
    {
        let moved = Tensor::rand(-0.05f32, 0.05, var.shape(), &Device::Cpu);
        var.set(&moved.expect(name)).expect(name);
    }
    let info = CheckpointInfo {
        role: "teacher".to_owned(),
        vocabulary_sha256: String::new(),
        provenance: serde_json::Value::Null,
    };
    write_checkpoint(&model, &dir, &info).expect("write");
    let again = LlmRecommender::load(&dir, &Device::Cpu).expect("load");
    assert_eq!(again.base().layers, [0, 10, 20]);
    let embeddings = (Tensor::randn(0f32, 0.1, (6, 576), &Device::Cpu)).expect("embeddings");
    let states = |model: &LlmRecommender| {
        let segments = Segments {
            prefix: 0,
            lengths: vec![6],
        };
        model
            .body()
            .forward(&embeddings, segments, None, &mut Mode::Eval, &[])
            .expect("forward")
            .0
    };
    let (trained, merged) = (states(&model), states(&again));
    let difference = (&trained - &merged).and_then(|d| d.abs()?.max_all()?.to_scalar::<f32>());
    assert!(difference.expect("difference") < 1e-3);
    let batched = |x: &Tensor| {
        x.unsqueeze(0)
            .and_then(|x| x.to_dtype(DType::F32))
            .expect("batch")
    };
    let expected = HashMap::from([
        ("embeddings", batched(&embeddings)),
        ("states", batched(&trained)),
    ]);
    candle_core::safetensors::save(&expected, dir.join("expected.safetensors")).expect("saved");
}
