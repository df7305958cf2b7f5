//! What this machine can do at best: products and reading memory.

use std::error::Error;
use std::hint::black_box;

use slmrec_tests::bench::clock::cpu_ms;
use slmrec_tests::bench::machine::Memory;
use slmrec_tests::bench::process::Process;
use slmrec_tests::bench::{Row, Samples};

/// More than any cache holds.
const BYTES: usize = 512 << 20;
const ROUNDS: usize = 9;
/// Operations of the worker's product of two square matrices of 1,024.
const GFLOP: f64 = 2.0 * 1.024 * 1.024 * 1.024;

/// Rates of the machine.
#[derive(Clone, Copy)]
pub(super) struct Floors {
    /// Fastest f32 product, GFLOP a second.
    pub(super) f32_gflops: f64,
    /// Fastest int8 product.
    pub(super) int8_gflops: f64,
}

/// Measures the rates in turns, each at its best, since they are to be floors.
pub(super) fn measure(python: &mut Process) -> Result<(Floors, Vec<Row>), Box<dyn Error>> {
    let memory = Memory::of(BYTES);
    let products = ["f32", "u8u8", "u8s8"];
    let mut times = vec![Vec::new(); products.len() + 1];
    for _ in 0..ROUNDS {
        for (product, times) in products.iter().zip(&mut times) {
            times.push(python.tell(&format!("product {product}"))?.cpu_ms);
        }
        let start = cpu_ms();
        black_box(memory.read());
        times[products.len()].push(cpu_ms() - start);
    }
    let times: Vec<Samples> = times.into_iter().map(Samples::new).collect();
    let rate = |times: &Samples, amount: f64| amount / (times.quantile(0.0) / 1e3);
    let row = |what: &str, unit: &str, times: &Samples, amount: f64| {
        let rates = [0.9, 0.1].map(|q| amount / (times.quantile(q) / 1e3));
        let mut row = Row::new(
            format!("this machine, one thread: {what}"),
            unit,
            rate(times, amount),
        );
        row.spread = Some(rates);
        row
    };
    let square = |name: &str| format!("{name} product of 1024 x 1024 in ONNX Runtime");
    let mut rows: Vec<Row> = (products.iter().zip(&times))
        .map(|(name, times)| row(&square(name), "GFLOP/s, best", times, GFLOP))
        .collect();
    let gigabytes = BYTES as f64 / 1e9;
    rows.push(row(
        "reading 512 MiB",
        "GB/s, best",
        &times[products.len()],
        gigabytes,
    ));
    let floors = Floors {
        f32_gflops: rate(&times[0], GFLOP),
        int8_gflops: rate(&times[1], GFLOP).max(rate(&times[2], GFLOP)),
    };
    Ok((floors, rows))
}
