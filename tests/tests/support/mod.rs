//! What several tests need: our programs, ONNX Runtime, generated data, a tiny pretrained model.

#![expect(dead_code, reason = "each test file uses a part of it")]

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use safetensors::tensor::{Dtype, TensorView};
use slmrec_runtime::LibrarySearch;

/// A program of the workspace, built by `cargo test --workspace`.
pub(crate) fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("path of this test");
    let folder = test.ancestors().nth(2).expect("target folder");
    let path = folder.join(format!("{name}{}", std::env::consts::EXE_SUFFIX));
    assert!(
        path.is_file(),
        "{} is not built; run the tests through `cargo xtask test` or `cargo test --workspace`",
        path.display()
    );
    path
}

/// Runs a program in a folder and gives what it printed, whatever its exit code.
pub(crate) fn run(name: &str, folder: &Path, arguments: &[&str]) -> Output {
    Command::new(program(name))
        .args(arguments)
        .current_dir(folder)
        .env("ORT_DISABLE_TELEMETRY", "1")
        .output()
        .expect("the program starts")
}

/// As [`run`], but a failure ends the test with what the program said. Gives stdout.
pub(crate) fn run_well(name: &str, folder: &Path, arguments: &[&str]) -> String {
    let output = run(name, folder, arguments);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{name} {arguments:?}: {}\n{stderr}",
        output.status
    );
    String::from_utf8(output.stdout).expect("UTF-8 on stdout")
}

/// Where ONNX Runtime is: `ORT_DYLIB_PATH`, or what `cargo xtask setup` left.
pub(crate) fn libraries() -> LibrarySearch {
    let test = std::env::current_exe().ok();
    LibrarySearch::new(None, std::env::var_os("ORT_DYLIB_PATH"), test.as_deref())
}

/// A small deterministic generator of numbers below `n`.
pub(crate) struct Numbers(u64);

impl Numbers {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }

    /// Roughly normal, by adding up uniform numbers.
    pub(crate) fn normal(&mut self) -> f32 {
        let sum: u64 = (0..12).map(|_| self.below(1 << 20)).sum();
        (sum as f32 / (1u64 << 20) as f32) - 6.0
    }
}

/// Number of items of the generated catalog.
pub(crate) const ITEMS: u64 = 60;

/// Writes `ratings.csv` and `movies.csv` in GroupLens' form: in most cases the next item follows
/// from the last one, so a sequential model has something to learn.
pub(crate) fn write_interactions(folder: &Path, users: u64) {
    let mut numbers = Numbers::new(1);
    let mut ratings = String::from("userId,movieId,rating,timestamp\n");
    for user in 1..=users {
        let mut item = numbers.below(ITEMS);
        for step in 0..8 + numbers.below(10) {
            let time = 1_000_000 + step * 60;
            writeln!(ratings, "u{user},m{item},{}.0,{time}", 1 + numbers.below(5)).expect("text");
            item = match numbers.below(10) {
                0..=7 => (item * 7 + 3) % ITEMS,
                _ => numbers.below(ITEMS),
            };
        }
    }
    fs::write(folder.join("ratings.csv"), ratings).expect("ratings");
    let mut movies = String::from("movieId,title,genres\n");
    for item in 0..ITEMS {
        writeln!(
            movies,
            "m{item},\"Film {item}, \"\"the\"\" é (1999)\",Drama"
        )
        .expect("text");
    }
    fs::write(folder.join("movies.csv"), movies).expect("movies");
}

/// Writes a Hugging Face directory with a random Llama of four small layers.
pub(crate) fn write_tiny_llama(folder: &Path) {
    let (hidden, intermediate, heads, kv_heads, layers, words) = (32, 64, 4, 2, 4, 8);
    fs::create_dir_all(folder).expect("folder");
    let config = serde_json::json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama",
        "hidden_size": hidden, "intermediate_size": intermediate, "num_hidden_layers": layers,
        "num_attention_heads": heads, "num_key_value_heads": kv_heads, "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0, "vocab_size": words, "max_position_embeddings": 256,
        "tie_word_embeddings": true, "hidden_act": "silu",
    });
    fs::write(folder.join("config.json"), config.to_string()).expect("config");
    let head = hidden / heads;
    let mut shapes = vec![
        ("model.embed_tokens.weight".to_owned(), vec![words, hidden]),
        ("model.norm.weight".to_owned(), vec![hidden]),
    ];
    for layer in 0..layers {
        let mut add = |name: &str, shape: Vec<usize>| {
            shapes.push((format!("model.layers.{layer}.{name}.weight"), shape));
        };
        add("input_layernorm", vec![hidden]);
        add("post_attention_layernorm", vec![hidden]);
        add("self_attn.q_proj", vec![hidden, hidden]);
        add("self_attn.k_proj", vec![kv_heads * head, hidden]);
        add("self_attn.v_proj", vec![kv_heads * head, hidden]);
        add("self_attn.o_proj", vec![hidden, hidden]);
        add("mlp.gate_proj", vec![intermediate, hidden]);
        add("mlp.up_proj", vec![intermediate, hidden]);
        add("mlp.down_proj", vec![hidden, intermediate]);
    }
    write_safetensors(&folder.join("model.safetensors"), &shapes);
    fs::write(folder.join("tokenizer.json"), tokenizer_json(0)).expect("tokenizer");
}

/// Writes a Hugging Face directory with a random BERT of two small layers that knows the numbers in
/// the titles of [`write_interactions`].
pub(crate) fn write_tiny_bert(folder: &Path) {
    let (width, inner, layers, words, positions) = (16, 24, 2, 8 + ITEMS as usize, 32);
    fs::create_dir_all(folder).expect("folder");
    let config = serde_json::json!({
        "architectures": ["BertModel"], "model_type": "bert", "hidden_act": "gelu",
        "hidden_size": width, "intermediate_size": inner, "num_hidden_layers": layers,
        "num_attention_heads": 2, "layer_norm_eps": 1e-12, "vocab_size": words,
        "max_position_embeddings": positions, "type_vocab_size": 2,
    });
    fs::write(folder.join("config.json"), config.to_string()).expect("config");
    let mut shapes = vec![
        (
            "embeddings.word_embeddings.weight".to_owned(),
            vec![words, width],
        ),
        (
            "embeddings.position_embeddings.weight".to_owned(),
            vec![positions, width],
        ),
        (
            "embeddings.token_type_embeddings.weight".to_owned(),
            vec![2, width],
        ),
    ];
    let mut add = |name: String, shape: Vec<usize>| {
        shapes.push((format!("{name}.bias"), vec![shape[0]]));
        shapes.push((format!("{name}.weight"), shape));
    };
    add("embeddings.LayerNorm".to_owned(), vec![width]);
    for layer in 0..layers {
        let mut part = |name: &str, shape: Vec<usize>| {
            add(format!("encoder.layer.{layer}.{name}"), shape);
        };
        for name in ["self.query", "self.key", "self.value", "output.dense"] {
            part(&format!("attention.{name}"), vec![width, width]);
        }
        part("attention.output.LayerNorm", vec![width]);
        part("intermediate.dense", vec![inner, width]);
        part("output.dense", vec![width, inner]);
        part("output.LayerNorm", vec![width]);
    }
    write_safetensors(&folder.join("model.safetensors"), &shapes);
    fs::write(folder.join("tokenizer.json"), tokenizer_json(ITEMS)).expect("tokenizer");
}

fn write_safetensors(path: &Path, shapes: &[(String, Vec<usize>)]) {
    let mut numbers = Numbers::new(9);
    let values: Vec<Vec<u8>> = shapes
        .iter()
        .map(|(name, shape)| {
            let count = shape.iter().product();
            let value = |_| match name.to_lowercase().contains("norm") {
                true => 1.0f32,
                false => 0.1 * numbers.normal(),
            };
            (0..count).map(value).flat_map(f32::to_le_bytes).collect()
        })
        .collect();
    let views = shapes.iter().zip(&values).map(|((name, shape), bytes)| {
        let view = TensorView::new(Dtype::F32, shape.clone(), bytes).expect("shape");
        (name.clone(), view)
    });
    let bytes = safetensors::serialize(views, None).expect("safetensors");
    fs::write(path, bytes).expect("weights");
}

/// Splits at white space and punctuation; knows some words and the numbers below `numbers`.
fn tokenizer_json(numbers: u64) -> String {
    let words = ["[UNK]", "the", "history", "of", "a", "person", "next", ":"].map(str::to_owned);
    let words = words.into_iter().chain((0..numbers).map(|n| n.to_string()));
    let vocab: serde_json::Map<_, _> = (words.zip(0u64..))
        .map(|(word, id)| (word, id.into()))
        .collect();
    serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
        "normalizer": null, "pre_tokenizer": { "type": "Whitespace" },
        "post_processor": null, "decoder": null,
        "model": {
            "type": "WordLevel", "unk_token": "[UNK]",
            "vocab": vocab,
        },
    })
    .to_string()
}
