//! How much of the student's step is matrix products, and how fast they are beside the fastest
//! product of this machine. The list of a step's products follows from its shapes; PyTorch's own
//! counter of operations has to agree with it. Whole steps, the products alone and the fastest
//! product take turns in one process with one thread.

use std::error::Error;

use candle_core::{DType, Device, Tensor};
use slmrec_distill::model::parameters::normal;
use slmrec_distill::train::CrossEntropy;
use slmrec_tests::bench::Row;
use slmrec_tests::bench::process::{Cost, Process, cpu, serve};

use super::models::{
    HIDDEN, HISTORY, ITEM_DIM, ITEMS, KEY_VALUE, MLP, RANK, Stepper, language_model, lora,
};
use super::worker::full_histories;
use super::{python, worker};

const TITLE: &str = "products of the 4-layer student's step";
const BATCH: usize = 16;
const TOKENS: usize = BATCH * HISTORY;
const LAYERS: usize = 4;
const WARM_UP: usize = 2;
const ROUNDS: usize = 9;
/// Sizes of square matrices, one of which has the fastest product.
const PEAKS: [usize; 3] = [512, 1024, 1536];
/// Operations of one measurement of a square product, at least.
const PEAK_FLOP: f64 = 8e9;
/// Rows and candidates that the loss over the catalog multiplies at a time.
const LOSS_ROWS: usize = 200;
const LOSS_TILE: usize = 1024;
/// Largest share of a step that may go elsewhere, and the slowest rate beside the peak.
const GOAL_ELSEWHERE: f64 = 0.20;
const GOAL_SLOWNESS: f64 = 1.0 / 0.85;

/// Where a product belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Group {
    Weights,
    Adapters,
    Ends,
}

const GROUPS: [(Group, &str); 3] = [
    (Group::Weights, "frozen weights"),
    (Group::Adapters, "adapters"),
    (Group::Ends, "projections and loss over the catalog"),
];

/// Which operand stands transposed in memory.
#[derive(Clone, Copy, Debug)]
enum Form {
    Plain,
    Left,
    Right,
}

/// A product `[m, k] · [k, n]`.
#[derive(Clone, Copy, Debug)]
struct Product {
    group: Group,
    form: Form,
    m: usize,
    n: usize,
    k: usize,
}

impl Product {
    fn flop(&self) -> f64 {
        2.0 * (self.m * self.n * self.k) as f64
    }
}

/// The weights `[out, in]` of a layer as they are multiplied, and the modules stacked in them.
const STACKS: [(&[usize], usize); 5] = [
    (&[HIDDEN], HIDDEN),
    (&[KEY_VALUE, KEY_VALUE], HIDDEN),
    (&[HIDDEN], HIDDEN),
    (&[MLP, MLP], HIDDEN),
    (&[HIDDEN], MLP),
];

/// All products of a step that go through candle's matrix product.
fn products() -> Vec<Product> {
    let mut all = Vec::new();
    let mut add = |group, form, [m, n, k]: [usize; 3]| {
        all.push(Product {
            group,
            form,
            m,
            n,
            k,
        });
    };
    for (modules, width) in (0..LAYERS).flat_map(|_| STACKS) {
        let out = modules.iter().sum();
        add(Group::Weights, Form::Right, [TOKENS, out, width]);
        add(Group::Weights, Form::Plain, [TOKENS, width, out]);
        for out in modules {
            add(Group::Adapters, Form::Right, [TOKENS, RANK, width]);
            add(Group::Adapters, Form::Plain, [TOKENS, RANK, *out]);
            add(Group::Adapters, Form::Left, [*out, RANK, TOKENS]);
            add(Group::Adapters, Form::Left, [RANK, width, TOKENS]);
        }
    }
    for (out, width) in [(HIDDEN, ITEM_DIM), (ITEM_DIM, HIDDEN)] {
        add(Group::Ends, Form::Right, [TOKENS, out, width]);
        add(Group::Ends, Form::Plain, [TOKENS, width, out]);
        add(Group::Ends, Form::Left, [out, width, TOKENS]);
    }
    for _ in 0..TOKENS / LOSS_ROWS {
        for first in (0..ITEMS).step_by(LOSS_TILE) {
            let len = LOSS_TILE.min(ITEMS - first);
            add(Group::Ends, Form::Right, [LOSS_ROWS, len, ITEM_DIM]);
            add(Group::Ends, Form::Plain, [LOSS_ROWS, ITEM_DIM, len]);
        }
    }
    all
}

/// Operations of the adapters' other products, which loops of our own do.
fn adapter_loops() -> f64 {
    let modules = STACKS.iter().flat_map(|(modules, width)| {
        (modules.iter()).map(move |out| 2.0 * (TOKENS * RANK * (out + width)) as f64)
    });
    LAYERS as f64 * modules.sum::<f64>()
}

/// Operations that PyTorch does not do: the gradient of the frozen item embeddings.
fn beyond_torch() -> f64 {
    2.0 * (TOKENS * ITEM_DIM * HIDDEN) as f64
}

/// A product with its operands.
struct Ready {
    group: Group,
    left: Tensor,
    right: Tensor,
}

impl Ready {
    fn new(product: &Product) -> candle_core::Result<Self> {
        let Product {
            group,
            form,
            m,
            n,
            k,
        } = *product;
        let matrix = |rows, columns| normal((rows, columns), 1.0, 1, DType::F32, &Device::Cpu);
        let (left, right) = match form {
            Form::Plain => (matrix(m, k)?, matrix(k, n)?),
            Form::Left => (matrix(k, m)?.t()?, matrix(k, n)?),
            Form::Right => (matrix(m, k)?, matrix(n, k)?.t()?),
        };
        Ok(Self { group, left, right })
    }

    fn run(&self) -> candle_core::Result<()> {
        std::hint::black_box(self.left.matmul(&self.right)?);
        Ok(())
    }
}

/// The worker: `step`, the name of a group of products, or the size of a square product.
pub(super) fn work() -> Result<(), Box<dyn Error>> {
    let model = language_model(LAYERS, lora(), HISTORY)?;
    let data = full_histories(BATCH, ITEMS)?;
    let windows: Vec<usize> = (0..BATCH).collect();
    let objective = CrossEntropy::default();
    let mut stepper = Stepper::new(&model, &objective)?;
    let products = (products().iter())
        .map(Ready::new)
        .collect::<candle_core::Result<Vec<_>>>()?;
    let peaks = PEAKS
        .map(square)
        .iter()
        .map(Ready::new)
        .collect::<candle_core::Result<Vec<_>>>()?;
    serve(|line| {
        if line == "step" {
            return stepper.step(&data.batch(&windows, &Device::Cpu)?);
        }
        if let Some((group, _)) = GROUPS.iter().find(|(_, name)| *name == line) {
            for product in products.iter().filter(|product| product.group == *group) {
                product.run()?;
            }
            return Ok(f64::NAN);
        }
        let size: usize = line.parse()?;
        let peak = PEAKS.iter().zip(&peaks).find(|(known, _)| **known == size);
        let (_, product) = peak.ok_or("no such size")?;
        for _ in 0..repeats(size) {
            product.run()?;
        }
        Ok(f64::NAN)
    })
}

fn square(size: usize) -> Product {
    Product {
        group: Group::Weights,
        form: Form::Plain,
        m: size,
        n: size,
        k: size,
    }
}

fn repeats(size: usize) -> usize {
    (PEAK_FLOP / square(size).flop()).ceil() as usize
}

pub(super) fn rows() -> Result<Vec<Row>, Box<dyn Error>> {
    super::say(TITLE);
    check_against_torch()?;
    let mut subject = Process::start("products", worker::command()?.arg("products"), 1)?;
    let names = GROUPS.iter().map(|(_, name)| (*name).to_owned());
    let lines: Vec<String> = (["step".to_owned()].into_iter())
        .chain(names)
        .chain(PEAKS.map(|size| size.to_string()))
        .collect();
    let mut costs: Vec<Vec<Cost>> = vec![Vec::new(); lines.len()];
    for round in 0..WARM_UP + ROUNDS {
        for (line, costs) in lines.iter().zip(&mut costs) {
            let cost = subject.tell(line)?;
            if round >= WARM_UP {
                costs.push(cost);
            }
        }
    }
    Ok(report(&costs))
}

/// PyTorch counts the operations of its products while it runs the same step.
fn check_against_torch() -> Result<(), Box<dyn Error>> {
    let mut command = python()?;
    let output = command
        .args(["count", "student"])
        .env("OMP_NUM_THREADS", "1")
        .stderr(std::process::Stdio::inherit())
        .output()?;
    let theirs: f64 = String::from_utf8(output.stdout)?.trim().parse()?;
    let listed: f64 = products().iter().map(Product::flop).sum();
    let ours = listed + adapter_loops() - beyond_torch();
    if ours != theirs {
        return Err(
            format!("a step's products: {ours} operations, PyTorch counts {theirs}").into(),
        );
    }
    Ok(())
}

/// `costs`: of the step, of each group, of each size.
fn report(costs: &[Vec<Cost>]) -> Vec<Row> {
    let ms: Vec<f64> = costs.iter().map(|costs| cpu(costs).median()).collect();
    let (step, groups, peaks) = (ms[0], &ms[1..=GROUPS.len()], &ms[1 + GROUPS.len()..]);
    let gflop = |group: Option<Group>| {
        let chosen = |product: &&Product| group.is_none_or(|group| product.group == group);
        let all = products();
        all.iter().filter(chosen).map(Product::flop).sum::<f64>() / 1e9
    };
    let per_gflop = |(size, ms): (&usize, &f64)| {
        let gflop = repeats(*size) as f64 * square(*size).flop() / 1e9;
        (*size, ms / gflop)
    };
    let slowest = (0, f64::INFINITY);
    let (size, fastest) = (PEAKS.iter().zip(peaks).map(per_gflop)).fold(slowest, |best, next| {
        if next.1 < best.1 { next } else { best }
    });
    let peak = format!("the product of two {size} x {size} matrices");
    let all: f64 = groups.iter().sum();
    let mut rows = vec![
        Row::new(TITLE, "CPU ms of the step outside them", step - all)
            .against("the whole step", step)
            .goal(GOAL_ELSEWHERE),
        Row::new(TITLE, "CPU ms a GFLOP", all / gflop(None))
            .against(&peak, fastest)
            .goal(GOAL_SLOWNESS),
    ];
    for ((group, name), ms) in GROUPS.iter().zip(groups) {
        let title = format!("{TITLE}: {name}, {:.2} GFLOP", gflop(Some(*group)));
        rows.push(Row::new(&title, "CPU ms", *ms).against("the whole step", step));
        rows.push(
            Row::new(&title, "CPU ms a GFLOP", ms / gflop(Some(*group))).against(&peak, fastest),
        );
    }
    rows
}
