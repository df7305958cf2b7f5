//! What is kept must not show.

use super::*;

/// Loss and gradients, `beside` with the first candidates as the targets' vectors.
fn run(kept: usize, beside: bool) -> (f64, [Vec<f32>; 3]) {
    let (rows, count, width) = (300, 1100, 3);
    let wave = |len: usize, step: f32| {
        let values = (0..len).map(|at| (at as f32 * step).sin() * 2.0);
        CpuStorage::F32(values.collect())
    };
    let (users, candidates) = (wave(rows * width, 0.37), wave(count * width, 1.3));
    let matrix = |storage, rows| {
        Matrix::new(storage, &Layout::contiguous((rows, width)), 0, rows).expect("matrix")
    };
    let numbers: Vec<usize> = (0..rows).map(|row| row * 7 % count).collect();
    let items: Vec<u32> = (0..rows as u32).collect();
    let names: Vec<u32> = (0..count as u32).rev().collect();
    let corrections: Vec<f32> = (0..count).map(|at| (at % 5) as f32 * 0.1).collect();
    let targets = if beside {
        Targets::Beside {
            vectors: Matrix {
                values: &matrix(&candidates, count).values[..rows * width],
                ..matrix(&candidates, count)
            },
            items: &items,
            candidates: &names,
            corrections: &corrections,
        }
    } else {
        Targets::Among(&numbers)
    };
    let mut gradient = vec![0f32; count * width];
    let mut own = vec![0f32; if beside { rows * width } else { 0 }];
    let gradients = CandidateGradients {
        candidates: &mut gradient,
        targets: &mut own,
    };
    let (users, candidates) = (matrix(&users, rows), matrix(&candidates, count));
    let added = Offsets::from_rows((0..rows).map(|row| vec![(1 + row as u32, 1.5), (901, -2.0)]));
    let targets = (&targets, Some(&added));
    let result = cross_entropy_within(kept, users, candidates, targets, Some(gradients));
    let (loss, users) = result.expect("loss");
    (loss, [users, gradient, own])
}

/// Whether exponentials are kept or made again, and how many rows are kept, must not show.
#[test]
fn kept_and_repeated_exponentials_give_the_same() {
    for beside in [false, true] {
        let (loss, gradients) = run(KEPT, beside);
        for kept in [0, 150 * 1100] {
            let (again, others) = run(kept, beside);
            assert!((loss - again).abs() < 1e-5, "{loss} and {again}");
            for (gradient, other) in gradients.iter().zip(&others) {
                let size = gradient.iter().fold(0f32, |a, b| a.max(b.abs()));
                for (a, b) in gradient.iter().zip(other) {
                    assert!((a - b).abs() <= 1e-5 * size, "{a} and {b}");
                }
            }
        }
    }
}
