//! The memory plan against counted bytes: every allocation of a real step and a real validation is
//! counted. This file has one test, since a test beside it would be counted, too.
//!
//! Parts of a batch run side by side, and how much of them is there at once is for the scheduler to
//! say: parts that never meet at their peaks take as little as one of them. So what a whole batch takes
//! is held to the plan from both sides, and what parts take from above; from below, to one part.

use std::fmt::Write as _;

use candle_core::{DType, Device, Tensor};
use peak_alloc::PeakAlloc;
use slmrec_core::ItemIndex;
use slmrec_core::manifest::Readout;
use slmrec_distill::model::{
    BodyTraining, HistoryBatch, LlmRecommender, LlmSettings, LoraSettings, Mode, Parameters,
    PretrainedBase, SasRec, SasRecSettings, Scores, SequentialModel,
};
use slmrec_distill::plan::Work;
use slmrec_distill::plan::decoder::{DecoderRun, DecoderShape};
use slmrec_distill::plan::sasrec::SasRecRun;
use slmrec_distill::train::adamw::AdamW;
use slmrec_distill::train::parts::{self, Parts};
use slmrec_distill::train::replicas::Replica;
use slmrec_distill::train::{
    CatalogLoss, CrossEntropy, DistillSettings, Distillation, LiveTeacher, Objective,
    OnlineTeacher, SampledSoftmax, Targets, TrainSettings, TrainingData,
};
use slmrec_export::checkpoint::{LlamaConfig, Prompt};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

const ITEMS: usize = 600;
const DIM: usize = 32;
const BATCH: usize = 12;
/// Between plan and count: the plan leaves out what is small, and rounds up what varies.
const FACTOR: f64 = 1.4;

fn config(layers: usize) -> LlamaConfig {
    let json = serde_json::json!({
        "model_type": "llama", "hidden_size": 96, "intermediate_size": 256,
        "num_hidden_layers": layers, "num_attention_heads": 6, "num_key_value_heads": 2,
        "rms_norm_eps": 1e-5, "vocab_size": 1,
    });
    serde_json::from_value(json).expect("configuration")
}

/// Training with batches in so many parts.
struct Divided {
    train: TrainSettings,
    parts: Parts,
    count: u64,
}

impl Divided {
    fn new(train: TrainSettings, data: &TrainingData) -> Self {
        let count = parts::count(train.parts, &Device::Cpu, data);
        Self {
            train,
            parts: Parts::new(count).expect("threads"),
            count: count as u64,
        }
    }

    fn work(&self, data: &TrainingData) -> Work {
        Work::of(data, &self.train, &Device::Cpu)
    }
}

fn train(parts: usize) -> TrainSettings {
    TrainSettings {
        batch_size: BATCH,
        epochs: 1,
        parts,
        ..TrainSettings::default()
    }
}

fn data(targets: Targets) -> TrainingData {
    let sequence = |user: u32| {
        let len = 21 + user % 20;
        (0..len)
            .map(|at| ItemIndex(1 + (7 * user + at) % ITEMS as u32))
            .collect()
    };
    let sequences = (0..40).map(sequence).collect();
    TrainingData::from_sequences(sequences, ITEMS, 40, targets).expect("data")
}

fn settings(training: BodyTraining, readout: Readout) -> LlmSettings {
    LlmSettings {
        readout,
        max_history: 40,
        training,
        ..LlmSettings::default()
    }
}

/// A model behind a prompt of so many tokens before and after the items.
fn recommender(layers: usize, settings: &LlmSettings, prompt: (u64, u64)) -> LlmRecommender {
    let mut base = PretrainedBase::random(&config(layers), 1, &Device::Cpu).expect("base");
    let ones = |rows: usize, columns: usize| {
        let ones = Tensor::ones((rows, columns), DType::F32, &Device::Cpu).expect("ones");
        (ones * 0.1).expect("table")
    };
    let (prefix, suffix) = (prompt.0 as usize, prompt.1 as usize);
    if prefix + suffix > 0 {
        base.prompt = Prompt {
            prefix: "p".repeat(prefix),
            suffix: "s".repeat(suffix),
            prefix_tokens: vec![0; prefix],
            suffix_tokens: vec![0; suffix],
        };
        base.prompt_embeddings = Some(ones(prefix + suffix, base.config.hidden_size));
    }
    LlmRecommender::new(&base, &ones(ITEMS + 1, DIM), settings, 1, &Device::Cpu).expect("model")
}

/// Bytes that `work` takes beyond what is held before it, at its peak.
fn taken<T>(work: impl FnOnce() -> T) -> (u64, T) {
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    let result = work();
    (MEMORY.peak_usage().saturating_sub(before) as u64, result)
}

/// The peak of two steps on the largest batch, the optimizer's moments and the best values included.
fn step(
    divided: &Divided,
    model: &dyn SequentialModel,
    objective: &dyn Objective,
    data: &TrainingData,
) -> u64 {
    let mut largest: Vec<usize> = (0..data.len()).collect();
    largest.sort_by_key(|&window| std::cmp::Reverse(data.window(window).len));
    let (bytes, ()) = taken(|| {
        let mut parameters = Parameters::default();
        parameters
            .extend("model.", model.parameters())
            .expect("names");
        parameters
            .extend("objective.", objective.parameters())
            .expect("names");
        let mut optimizer = AdamW::new(&parameters, &TrainSettings::default()).expect("optimizer");
        let best = |var: &candle_core::Var| var.as_detached_tensor().copy().expect("copy");
        let _best: Vec<_> = parameters.iter().map(|(_, var)| best(var)).collect();
        for number in 1..3 {
            let replica = Replica { model, objective };
            let windows = &largest[..BATCH];
            let found = divided
                .parts
                .gradients(&replica, &optimizer, data, windows, (1, number));
            let (_, gradients) = found.expect("gradients");
            (optimizer.apply(&gradients, 1e-3)).expect("update");
        }
    });
    bytes
}

/// The peak of a batch of the validation.
fn validation(model: &dyn SequentialModel) -> u64 {
    let history: Vec<ItemIndex> = (1..=40).map(ItemIndex).collect();
    let histories = vec![history.as_slice(); 64];
    let (bytes, ()) = taken(|| {
        let batch = HistoryBatch::new(&histories, &Device::Cpu).expect("batch");
        model.forward(&batch, Mode::Eval, &[]).expect("forward");
    });
    bytes
}

struct Report(String, bool);

impl Report {
    /// Of work that nothing runs beside.
    fn compare(&mut self, what: &str, planned: u64, counted: u64) {
        self.compare_parts(what, 1, planned, counted);
    }

    /// Of a step whose batch is in so many parts.
    fn compare_parts(&mut self, what: &str, parts: u64, planned: u64, counted: u64) {
        let ratio = planned as f64 / counted as f64;
        let fits = (1.0 / FACTOR..FACTOR * parts as f64).contains(&ratio);
        writeln!(
            self.0,
            "{what}, parts {parts}: planned {planned}, counted {counted}, ratio {ratio:.2}"
        )
        .expect("text");
        self.1 &= fits;
    }
}

/// A language model that is planned and trained.
struct Case {
    name: &'static str,
    training: BodyTraining,
    layers: usize,
    distilled: bool,
    /// Whether the teacher learns, too.
    online: bool,
    readout: Readout,
    /// Tokens before and after the items.
    prompt: (u64, u64),
}

fn cases() -> Vec<Case> {
    let lora = || BodyTraining::Lora(LoraSettings::default());
    let case = |name, training, layers, distilled, readout, prompt| Case {
        name,
        training,
        layers,
        distilled,
        online: false,
        readout,
        prompt,
    };
    let (item, response) = (Readout::Item, Readout::Response);
    let online = Case {
        online: true,
        ..case("student and teacher", lora(), 2, true, item, (0, 0))
    };
    vec![
        online,
        case("adapters", lora(), 4, false, item, (0, 0)),
        case("all weights", BodyTraining::Full, 4, false, item, (0, 0)),
        case("student", lora(), 2, true, item, (0, 0)),
        case("prompt", lora(), 4, false, item, (60, 0)),
        case("response", lora(), 4, false, response, (60, 15)),
        case("student, response", lora(), 2, true, response, (60, 15)),
    ]
}

impl Case {
    fn compare(&self, divided: &Divided, report: &mut Report) {
        let targets = match self.readout {
            Readout::Item => Targets::All,
            Readout::Response => Targets::Last,
        };
        let data = data(targets);
        let settings = settings(self.training.clone(), self.readout);
        let objective = DistillSettings {
            blocks: 2,
            ..DistillSettings::default()
        };
        let teacher = self.distilled.then(|| {
            let frozen = self::settings(BodyTraining::Frozen, self.readout);
            let learns = if self.online { &settings } else { &frozen };
            recommender(6, learns, self.prompt)
        });
        let (weights, model) = taken(|| recommender(self.layers, &settings, self.prompt));
        let run = DecoderRun {
            stage: "teach",
            shape: DecoderShape::new(&config(self.layers), self.layers),
            settings: &settings,
            checkpointing: false,
            items: (ITEMS as u64, DIM as u64),
            prompt: self.prompt,
            batch_size: BATCH as u64,
            targets,
            work: divided.work(&data),
            distillation: (self.distilled).then(|| (DecoderShape::new(&config(6), 6), &objective)),
            teachers: 1,
            online: self.online.then_some(&settings),
        };
        let memory = run.memory();
        let counted = match &teacher {
            Some(teacher) if self.online => {
                let teacher = OnlineTeacher::new(teacher, "teacher", true).expect("teacher");
                let objective = Distillation::online(objective.clone(), &model, teacher, 1);
                step(divided, &model, &objective.expect("objective"), &data)
            }
            Some(teacher) => {
                let teacher = LiveTeacher::new(teacher, "teacher").expect("teacher");
                let objective = Distillation::new(objective.clone(), &model, Some(&teacher), 1);
                step(divided, &model, &objective.expect("objective"), &data)
            }
            None => step(divided, &model, &CrossEntropy::default(), &data),
        };
        // Weights are loaded beside the variables that are copied from them.
        assert!(
            weights >= memory.weights * 9 / 10,
            "{weights} of {}",
            memory.weights
        );
        let planned = memory.optimizer + memory.activations + memory.loss;
        report.compare_parts(
            &format!("{}, step", self.name),
            divided.count,
            planned,
            counted,
        );
        let what = format!("{}, validation", self.name);
        report.compare(&what, memory.validation, validation(&model));
        let heads = if self.distilled { 32 * 96 } else { 0 };
        let learns = teacher.as_ref().filter(|_| self.online);
        let objective = heads + learns.map_or(0, |teacher| teacher.parameters().count() as u64);
        assert_eq!(
            run.parameters().trainable,
            model.parameters().count() as u64 + objective,
            "{}",
            self.name
        );
    }
}

/// SASRec with titles, alike but for vectors of size 48 beside its items.
fn compare_with_titles(
    divided: &Divided,
    report: &mut Report,
    shape: &SasRecSettings,
    data: &TrainingData,
) {
    let vectors = Tensor::ones((ITEMS + 1, 48), DType::F32, &Device::Cpu).expect("vectors");
    let model = SasRec::with_titles(shape.clone(), &vectors, 1, &Device::Cpu).expect("SASRec");
    let run = SasRecRun {
        settings: shape,
        items: ITEMS as u64,
        title_size: Some(48),
        batch_size: BATCH as u64,
        targets: Targets::All,
        work: divided.work(data),
    };
    let trained = model.parameters().count() as u64;
    assert_eq!(run.parameters().trainable, trained);
    let memory = run.memory();
    let planned = memory.optimizer + memory.activations + memory.loss;
    let counted = step(divided, &model, &CrossEntropy::default(), data);
    report.compare_parts("SASRec with titles, step", divided.count, planned, counted);
    let what = "SASRec with titles, validation";
    report.compare(what, memory.validation, validation(&model));
}

fn compare_sasrecs(divided: &Divided, report: &mut Report, data: &TrainingData) {
    let shape = SasRecSettings {
        hidden_size: 64,
        max_history: 40,
        ..SasRecSettings::default()
    };
    let model = SasRec::new(shape.clone(), ITEMS, 1, &Device::Cpu).expect("SASRec");
    let run = SasRecRun {
        settings: &shape,
        items: ITEMS as u64,
        title_size: None,
        batch_size: BATCH as u64,
        targets: Targets::All,
        work: divided.work(data),
    };
    assert_eq!(run.parameters().total, model.parameters().count() as u64);
    let mut compare = |what: &str, run: &SasRecRun<'_>, divided: &Divided, model: &SasRec, data| {
        let memory = run.memory();
        let planned = memory.optimizer + memory.activations + memory.loss;
        let counted = step(divided, model, &CrossEntropy::default(), data);
        report.compare_parts(what, divided.count, planned, counted);
    };
    compare("SASRec, step", &run, divided, &model, data);
    let by_cosine = SasRecSettings {
        scores: Scores::Cosine,
        ..shape.clone()
    };
    let directions = SasRec::new(by_cosine.clone(), ITEMS, 1, &Device::Cpu).expect("SASRec");
    let run_by_cosine = SasRecRun {
        settings: &by_cosine,
        ..run.clone()
    };
    let what = "SASRec by cosine, step";
    compare(what, &run_by_cosine, divided, &directions, data);
    let sampled = TrainSettings {
        catalog_loss: CatalogLoss::Sampled(SampledSoftmax {
            negatives: 32,
            ..SampledSoftmax::default()
        }),
        ..divided.train.clone()
    };
    let drawn = data.clone().with_settings(&sampled).expect("data");
    let whole = Divided::new(sampled, &drawn);
    let run_drawn = SasRecRun {
        work: whole.work(&drawn),
        ..run.clone()
    };
    let what = "SASRec, step with drawn items";
    compare(what, &run_drawn, &whole, &model, &drawn);
    let planned = run.memory().validation;
    report.compare("SASRec, validation", planned, validation(&model));
    compare_with_titles(divided, report, &shape, data);
}

#[test]
fn the_plan_is_near_what_is_counted() {
    let data = data(Targets::All);
    let divisions =
        [1, TrainSettings::default().parts].map(|parts| Divided::new(train(parts), &data));
    assert_eq!(divisions.each_ref().map(|divided| divided.count), [1, 2]);
    // The threads of the matrix products keep buffers of their own from the first use on.
    let frozen = settings(BodyTraining::Frozen, Readout::Item);
    let warm = recommender(1, &frozen, (0, 0));
    for divided in &divisions {
        step(divided, &warm, &CrossEntropy::default(), &data);
    }
    drop(warm);
    let mut report = Report(String::new(), true);
    for divided in &divisions {
        for case in cases() {
            case.compare(divided, &mut report);
        }
        compare_sasrecs(divided, &mut report, &data);
    }
    assert!(report.1, "{}", report.0);
    println!("{}", report.0);
}
