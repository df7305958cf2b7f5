//! Positive definite systems of equations, by Cholesky's decomposition in f64.

/// Solves `A X = B` for a symmetric positive definite `a` (`[n, n]`, its lower half is read) and `b`
/// (`[n, columns]`); both row by row. `None` where `a` is not positive definite.
pub(super) fn solve(mut a: Vec<f64>, mut b: Vec<f64>, n: usize) -> Option<Vec<f64>> {
    let columns = b.len() / n.max(1);
    decompose(&mut a, n)?;
    // L Y = B, downwards.
    for row in 0..n {
        for before in 0..row {
            subtract(&mut b, columns, row, before, a[row * n + before]);
        }
        divide(&mut b[row * columns..][..columns], a[row * n + row]);
    }
    // L^T X = Y, upwards.
    for row in (0..n).rev() {
        for after in row + 1..n {
            subtract(&mut b, columns, row, after, a[after * n + row]);
        }
        divide(&mut b[row * columns..][..columns], a[row * n + row]);
    }
    Some(b)
}

/// L with `L L^T = A` in the lower half of `a`.
fn decompose(a: &mut [f64], n: usize) -> Option<()> {
    for row in 0..n {
        for column in 0..=row {
            let (left, right) = (&a[row * n..][..column], &a[column * n..][..column]);
            let products: f64 = left.iter().zip(right).map(|(l, r)| l * r).sum();
            let rest = a[row * n + column] - products;
            a[row * n + column] = if row != column {
                rest / a[column * n + column]
            } else if rest > 0.0 {
                rest.sqrt()
            } else {
                return None;
            };
        }
    }
    Some(())
}

/// Row `to` less `factor` times row `from`.
fn subtract(b: &mut [f64], columns: usize, to: usize, from: usize, factor: f64) {
    for column in 0..columns {
        b[to * columns + column] -= factor * b[from * columns + column];
    }
}

fn divide(row: &mut [f64], by: f64) {
    row.iter_mut().for_each(|value| *value /= by);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn solves_by_hand_and_refuses_what_is_not_positive() {
        // 4x + 2y = 10, 2x + 3y = 9: x = 1.5, y = 2; and the unit vectors' sum.
        let found = solve(vec![4.0, 9.9, 2.0, 3.0], vec![10.0, 6.0, 9.0, 5.0], 2).expect("solved");
        let expected = [1.5, 1.0, 2.0, 1.0];
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-12, "{found} {expected}");
        }
        assert_eq!(solve(vec![1.0, 0.0, 2.0, 1.0], vec![1.0, 1.0], 2), None);
        assert_eq!(solve(vec![f64::NAN], vec![1.0], 1), None);
    }
}
