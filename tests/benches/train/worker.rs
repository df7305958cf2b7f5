//! Our side: builds the model of a case, then one optimizer step for each line on stdin.

use std::error::Error;
use std::io::BufRead;
use std::time::Instant;

use candle_core::{DType, Device};
use slmrec_core::ItemIndex;
use slmrec_distill::model::parameters::normal;
use slmrec_distill::model::{
    BodyTraining, LlmRecommender, LlmSettings, LoraSettings, MaskRng, Parameters, PretrainedBase,
    SasRec, SasRecSettings, SequentialModel, TargetModule,
};
use slmrec_distill::train::adamw::AdamW;
use slmrec_distill::train::{CrossEntropy, Objective, Targets, TrainSettings, TrainingData};
use slmrec_export::checkpoint::LlamaConfig;

const HISTORY: usize = 50;

/// Answers each line on stdin with a step's wall and CPU milliseconds and the peak memory in KiB.
pub(super) fn run(case: &str) -> Result<(), Box<dyn Error>> {
    let (model, batch, items): (Box<dyn SequentialModel>, usize, usize) = match case {
        "student" => (Box::new(language_model(4, 12_000)?), 16, 12_000),
        "teacher" => (Box::new(language_model(24, 12_000)?), 16, 12_000),
        "sasrec" => {
            let settings = SasRecSettings {
                dropout: 0.0,
                ..SasRecSettings::default()
            };
            let model = SasRec::new(settings, 3400, 1, &Device::Cpu)?;
            (Box::new(model), 128, 3400)
        }
        other => return Err(format!("no case named {other}").into()),
    };
    let sequences = (0..batch)
        .map(|row| {
            let item = |t| ItemIndex((1 + (row * 97 + t * 13) % items) as u32);
            (0..=HISTORY).map(item).collect()
        })
        .collect();
    let data = TrainingData::from_sequences(sequences, items, HISTORY, Targets::All)?;
    let windows: Vec<usize> = (0..batch).collect();
    let objective = CrossEntropy::default();
    let mut parameters = Parameters::default();
    parameters.extend("model.", model.parameters())?;
    let mut optimizer = AdamW::new(&parameters, &TrainSettings::default())?;
    for (step, line) in std::io::stdin().lock().lines().enumerate() {
        line?;
        let (wall, cpu) = (Instant::now(), cpu_ms()?);
        let batch = data.batch(&windows, &Device::Cpu)?;
        let mut rng = MaskRng::new(1, step as u64);
        let losses = objective.loss(model.as_ref(), &batch, &mut rng)?;
        let gradients = losses.total.backward()?;
        optimizer.update(&gradients, 1e-4)?;
        let wall = wall.elapsed().as_secs_f64() * 1e3;
        println!("{wall} {} {}", cpu_ms()? - cpu, peak_kib()?);
    }
    Ok(())
}

fn language_model(layers: usize, items: usize) -> Result<LlmRecommender, Box<dyn Error>> {
    let config = LlamaConfig {
        hidden_size: 576,
        intermediate_size: 1536,
        num_hidden_layers: layers,
        num_attention_heads: 9,
        num_key_value_heads: Some(3),
        ..smollm2()?
    };
    let base = PretrainedBase::random(&config, 1, &Device::Cpu)?;
    let embeddings = normal((items + 1, 128), 0.1, 2, DType::F32, &Device::Cpu)?;
    let lora = LoraSettings {
        r: 16,
        alpha: 16.0,
        dropout: 0.0,
        target_modules: vec![
            TargetModule::QProj,
            TargetModule::KProj,
            TargetModule::VProj,
            TargetModule::OProj,
            TargetModule::GateProj,
            TargetModule::UpProj,
            TargetModule::DownProj,
        ],
    };
    let settings = LlmSettings {
        max_history: HISTORY,
        training: BodyTraining::Lora(lora),
        ..LlmSettings::default()
    };
    Ok(LlmRecommender::new(
        &base,
        &embeddings,
        &settings,
        1,
        &Device::Cpu,
    )?)
}

fn smollm2() -> Result<LlamaConfig, serde_json::Error> {
    serde_json::from_value(serde_json::json!({
        "model_type": "llama", "vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536,
        "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3,
        "rms_norm_eps": 1e-5, "rope_theta": 100000.0, "hidden_act": "silu",
        "max_position_embeddings": 8192
    }))
}

/// CPU time of all threads of this process.
fn cpu_ms() -> Result<f64, Box<dyn Error>> {
    let mut nanoseconds = 0u64;
    for task in std::fs::read_dir("/proc/self/task")? {
        let text = std::fs::read_to_string(task?.path().join("schedstat"))?;
        let first = text.split_whitespace().next().ok_or("empty schedstat")?;
        nanoseconds += first.parse::<u64>()?;
    }
    Ok(nanoseconds as f64 / 1e6)
}

/// Largest resident size so far.
fn peak_kib() -> Result<u64, Box<dyn Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .ok_or("no VmHWM")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse()?)
}
