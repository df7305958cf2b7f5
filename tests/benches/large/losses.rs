//! The cross-entropy over the catalog with its gradients, fused and in tensor operations.

use std::error::Error;

use candle_core::{DType, Device, Tensor, Var};
use slmrec_distill::model::parameters::normal;
use slmrec_distill::train::losses::catalog;

use super::{cpu_seconds, figure, mean, print_figure};

const WIDTH: usize = 128;
/// Rows, items, and how often each form runs.
const SIZES: [(usize, usize, usize); 4] = [
    (800, 1_682, 60),
    (6_400, 1_682, 10),
    (800, 20_000, 8),
    (800, 377_000, 1),
];

type Loss = fn(&Tensor, &Tensor, &[u32]) -> candle_core::Result<Tensor>;

fn fused(users: &Tensor, items: &Tensor, targets: &[u32]) -> candle_core::Result<Tensor> {
    catalog::cross_entropy(users, items, targets, None)
}

fn slow(users: &Tensor, items: &Tensor, targets: &[u32]) -> candle_core::Result<Tensor> {
    catalog::cross_entropy_slow(users, items, targets, None)
}

/// CPU time of loss and backward pass, for a table that is trained and for a frozen one.
pub(crate) fn losses() -> Result<(), Box<dyn Error>> {
    let forms: [(&str, Loss); 2] = [("fused", fused), ("tensor operations", slow)];
    for (rows, items, rounds) in SIZES {
        let start = |rows, seed| normal((rows, WIDTH), 0.1, seed, DType::F32, &Device::Cpu);
        let users = Var::from_tensor(&start(rows, 1)?)?;
        let table = Var::from_tensor(&start(items + 1, 2)?)?;
        let targets: Vec<u32> = (0..rows).map(|row| (row * 37 % items) as u32 + 1).collect();
        for (kind, table) in [
            ("trained", table.as_tensor().clone()),
            ("frozen", table.as_detached_tensor()),
        ] {
            let mut times = [Vec::new(), Vec::new()];
            for _ in 0..rounds {
                for ((_, loss), times) in forms.iter().zip(&mut times) {
                    let before = cpu_seconds()?;
                    let loss = loss(users.as_tensor(), &table, &targets)?;
                    std::hint::black_box(loss.backward()?);
                    times.push(cpu_seconds()? - before);
                }
            }
            let [ours, theirs] = times.map(|times| mean(&times));
            let case = format!("cross-entropy, {rows} rows, {items} items, {kind} table");
            let peer = Some((forms[1].0.to_owned(), theirs * 1e3));
            print_figure((case.clone(), "ms CPU, mean".to_owned(), ours * 1e3, peer))?;
            let products = if kind == "trained" { 3.0 } else { 2.0 };
            let work = 2.0 * products * (rows * items * WIDTH) as f64;
            figure(
                &case,
                "ns for 1000 operations of products",
                1e12 * ours / work,
            )?;
        }
    }
    Ok(())
}
