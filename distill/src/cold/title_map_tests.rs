use candle_core::{Device, Tensor};

use super::{ColdError, MapChoice, MapKind, TitleMap};

fn tensor(rows: &[&[f32]]) -> Tensor {
    let width = rows[0].len();
    Tensor::from_vec(rows.concat(), (rows.len(), width), &Device::Cpu).expect("a table")
}

fn values(tensor: &Tensor) -> Vec<Vec<f32>> {
    tensor.to_vec2().expect("a table")
}

fn fit(map: MapKind, same_length: bool, titles: &Tensor, items: &Tensor) -> TitleMap {
    TitleMap::fit(MapChoice { map, same_length }, titles, items).expect("fits")
}

fn close(found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() < 1e-5, "{found} is not {expected}");
    }
}

/// Some numbers without a pattern.
fn table(rows: usize, columns: usize, salt: u32) -> Tensor {
    let value = |at: u32| ((at * 7919 + salt * 104_729) % 1013) as f32 / 500.0 - 1.0;
    let values: Vec<f32> = (1..=(rows * columns) as u32).map(value).collect();
    Tensor::from_vec(values, (rows, columns), &Device::Cpu).expect("a table")
}

#[test]
fn one_dimensional_ridge_by_hand() {
    // x = 1, 2, 3 and y = 10, 20, 60: X^T X = 2 = g, X^T Y = 50. With strength 1 the slope is 50 / 4.
    let map = fit(
        MapKind::Ridge { strength: 1.0 },
        false,
        &tensor(&[&[1.0], &[2.0], &[3.0]]),
        &tensor(&[&[10.0], &[20.0], &[60.0]]),
    );
    let found = values(&map.embeddings(&tensor(&[&[2.0], &[4.0]])).expect("maps"));
    close(&found.concat(), &[30.0, 30.0 + 2.0 * 12.5]);
}

/// Where the sum of squares plus penalty is least, no direction changes it.
#[test]
fn ridge_is_the_minimum_of_its_objective() {
    let (titles, items) = (table(12, 4, 1), table(12, 3, 2));
    let (x, y) = (values(&titles), values(&items));
    let mean = |rows: &[Vec<f32>], at: usize| {
        rows.iter().map(|row| f64::from(row[at])).sum::<f64>() / rows.len() as f64
    };
    let centred = |rows: &[Vec<f32>]| -> Vec<Vec<f64>> {
        let of = |row: &Vec<f32>| -> Vec<f64> {
            let less = |at: usize| f64::from(row[at]) - mean(rows, at);
            (0..row.len()).map(less).collect()
        };
        rows.iter().map(of).collect()
    };
    let (x_c, y_c) = (centred(&x), centred(&y));
    let penalty = 0.3 * x_c.iter().flatten().map(|v| v * v).sum::<f64>() / 4.0;
    let map = fit(MapKind::Ridge { strength: 0.3 }, false, &titles, &items);
    // The weights, from answers at a point and at one step from it.
    let steps: Vec<Vec<f32>> = (0..4)
        .map(|axis| {
            (0..4)
                .map(|at| if at == axis { 2.0 } else { 1.0 })
                .collect()
        })
        .collect();
    let rows: Vec<&[f32]> = steps.iter().map(Vec::as_slice).collect();
    let at_one = values(&map.embeddings(&tensor(&[&[1.0; 4]])).expect("maps"));
    let stepped = values(&map.embeddings(&tensor(&rows)).expect("maps"));
    for column in 0..3 {
        let weight = |axis: usize| f64::from(stepped[axis][column] - at_one[0][column]);
        for axis in 0..4 {
            let gradient: f64 = (x_c.iter().zip(&y_c))
                .map(|(x, y)| {
                    let predicted: f64 = (0..4).map(|at| x[at] * weight(at)).sum();
                    x[axis] * (predicted - y[column])
                })
                .sum();
            let gradient = gradient + penalty * weight(axis);
            assert!(gradient.abs() < 1e-4, "{axis} {column}: {gradient}");
        }
    }
}

#[test]
fn neighbours_are_nearest_by_cosine_and_the_first_of_equals() {
    let titles = tensor(&[&[1.0, 0.0], &[0.0, 5.0], &[10.0, 0.0], &[1.0, 1.0]]);
    let items = tensor(&[&[1.0, 1.0], &[2.0, 2.0], &[4.0, 4.0], &[8.0, 8.0]]);
    let asked = tensor(&[&[3.0, 0.0], &[0.1, 9.0]]);
    let mean = |k| {
        let map = fit(MapKind::Neighbours { k }, false, &titles, &items);
        values(&map.embeddings(&asked).expect("maps")).concat()
    };
    close(&mean(1), &[1.0, 1.0, 2.0, 2.0]);
    close(&mean(2), &[2.5, 2.5, 5.0, 5.0]);
    close(&mean(4), &[3.75; 4]);
}

#[test]
fn stretched_vectors_have_the_mean_length_and_the_same_direction() {
    let (titles, items) = (table(9, 3, 3), table(9, 2, 4));
    let length = |row: &[f32]| row.iter().map(|v| v * v).sum::<f32>().sqrt();
    let mean = values(&items).iter().map(|row| length(row)).sum::<f32>() / 9.0;
    for map in [
        MapKind::Ridge { strength: 1.0 },
        MapKind::Neighbours { k: 3 },
    ] {
        let asked = table(5, 3, 5);
        let answer = |same| {
            values(
                &fit(map, same, &titles, &items)
                    .embeddings(&asked)
                    .expect("maps"),
            )
        };
        for (plain, stretched) in answer(false).iter().zip(&answer(true)) {
            close(&[length(stretched)], &[mean]);
            let scaled: Vec<f32> = plain.iter().map(|v| v * mean / length(plain)).collect();
            close(stretched, &scaled);
        }
    }
}

#[test]
fn what_cannot_be_fitted_is_refused() {
    let fit = |map, titles: &Tensor, items: &Tensor| {
        let choice = MapChoice {
            map,
            same_length: false,
        };
        let refused = TitleMap::fit(choice, titles, items).expect_err("refused");
        refused.to_string()
    };
    let (titles, items) = (table(4, 3, 6), table(4, 2, 7));
    for strength in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let said = fit(MapKind::Ridge { strength }, &titles, &items);
        assert!(said.contains("expected a strength above 0"), "{said}");
    }
    for k in [0, 5] {
        let said = fit(MapKind::Neighbours { k }, &titles, &items);
        assert!(said.contains("expected 1..=4 neighbours"), "{said}");
    }
    let one = MapKind::Ridge { strength: 1.0 };
    let same = tensor(&[&[1.0, 2.0, 3.0][..]; 4]);
    assert!(fit(one, &same, &items).contains("the same vector"));
    let zero = tensor(&[&[1.0, 0.0], &[0.0, 0.0], &[0.0, 1.0], &[1.0, 1.0]]);
    assert!(fit(one, &zero, &items).contains("row 1 has no title"));
    assert!(fit(one, &table(5, 3, 6), &items).contains("embeddings of 5 items, found 4"));
}

#[test]
fn titles_of_another_size_or_of_zeros_are_refused() {
    let (titles, items) = (table(4, 3, 6), table(4, 2, 7));
    let map = fit(MapKind::Neighbours { k: 1 }, false, &titles, &items);
    let other = map.embeddings(&table(1, 2, 8)).expect_err("refused");
    assert!(other.to_string().contains("title vectors of 3 values"));
    let zero = map.embeddings(&tensor(&[&[0.0; 3]])).expect_err("refused");
    assert!(matches!(zero, ColdError::NoTitle { row: 0 }));
}
