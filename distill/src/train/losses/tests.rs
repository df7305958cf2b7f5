//! The losses in fused form against tensor operations on every device, finite differences and PyTorch.

use candle_core::{DType, Device, Tensor, Var};

use super::catalog;
use super::negatives::{NegativeSampler, Negatives};
use super::offsets::Offsets;
use super::sampled::Candidates;
use super::smoothing;
use crate::model::MaskRng;
use crate::model::parameters::normal;
use crate::model::testing::assert_same_everywhere;
use crate::train::SampledSoftmax;

/// Sums of a few hundred f32 terms in another order.
const TOLERANCE: f32 = 1e-5;

fn matrix(rows: usize, columns: usize, seed: u64) -> Tensor {
    normal((rows, columns), 0.7, seed, DType::F32, &Device::Cpu).expect("matrix")
}

fn values(tensor: &Tensor) -> Vec<f32> {
    let flat = tensor.flatten_all().expect("flat");
    flat.to_vec1().expect("values")
}

fn assert_close(what: &str, found: &Tensor, expected: &Tensor) {
    assert_eq!(found.dims(), expected.dims(), "{what}");
    let expected = values(expected);
    let size = expected.iter().fold(0f32, |a, b| a.max(b.abs()));
    for (f, e) in values(found).iter().zip(expected) {
        assert!(
            (f - e).abs() <= TOLERANCE * size,
            "{what}: {f}, expected {e}"
        );
    }
}

/// The loss and its gradients with respect to both variables.
fn run(users: &Var, items: &Var, loss: impl Fn(&Tensor, &Tensor) -> Tensor) -> [Tensor; 3] {
    let loss = loss(users.as_tensor(), items.as_tensor());
    let gradients = loss.backward().expect("backward");
    let of = |var: &Var| gradients.get(var).expect("gradient").clone();
    [loss, of(users), of(items)]
}

fn compare(what: &str, found: &[Tensor; 3], expected: &[Tensor; 3]) {
    let parts = ["loss", "users", "items"];
    for ((part, found), expected) in parts.iter().zip(found).zip(expected) {
        assert_close(&format!("{what}, {part}"), found, expected);
    }
}

fn targets(rows: usize, items: usize) -> Vec<u32> {
    (0..rows).map(|row| (row * 37 % items) as u32 + 1).collect()
}

/// Additions to some scores of each row, its target's among them at times.
fn offsets(rows: usize, items: usize) -> Offsets {
    Offsets::from_rows((0..rows).map(|row| {
        let some = (1..=items as u32).filter(|item| (*item as usize * 5 + row) % 7 < 2);
        some.map(|item| (item, (item % 3) as f32 - 0.5)).collect()
    }))
}

/// The loss and both gradients under their names.
fn named(figures: [Tensor; 3]) -> Vec<(String, Tensor)> {
    let names = ["loss", "users", "items"].map(str::to_owned);
    names.into_iter().zip(figures).collect()
}

fn var(rows: usize, columns: usize, seed: u64, device: &Device) -> Var {
    let values = matrix(rows, columns, seed).to_device(device);
    Var::from_tensor(&values.expect("device")).expect("variable")
}

/// A table whose scores are far apart, which makes the highest logit rise from tile to tile.
fn table(items: usize, width: usize, device: &Device) -> Var {
    let table = (var(items + 1, width, 2, device).as_tensor() * 3.0).expect("table");
    Var::from_tensor(&table.detach()).expect("variable")
}

/// One row, one item, borders of tiles and blocks, and what lies beside them.
#[test]
fn the_loss_is_the_same_everywhere() {
    for (rows, width, items) in [
        (1, 1, 1),
        (3, 5, 7),
        (2, 3, 1024),
        (257, 4, 1025),
        (300, 9, 2100),
    ] {
        let what = format!("{rows} x {width} x {items}");
        assert_same_everywhere(&what, TOLERANCE, |device| {
            let users = var(rows, width, 1, device);
            let table = table(items, width, device);
            let targets = targets(rows, items);
            let added = offsets(rows, items);
            let with = run(&users, &table, |users, items| {
                catalog::cross_entropy(users, items, &targets, Some(&added)).expect("loss")
            });
            let found = run(&users, &table, |users, items| {
                catalog::cross_entropy(users, items, &targets, None).expect("loss")
            });
            assert!(items == 1 || values(&with[0]) != values(&found[0]));
            // A frozen table gives the users the same gradient.
            let frozen = table.as_detached_tensor();
            let loss = catalog::cross_entropy(users.as_tensor(), &frozen, &targets, None);
            let gradients = loss.and_then(|loss| loss.backward()).expect("backward");
            assert_close(&what, gradients.get(&users).expect("users"), &found[1]);
            assert!(gradients.get(&frozen).is_none());
            let with = named(with).into_iter();
            let with = with.map(|(name, value)| (format!("{name} with offsets"), value));
            named(found).into_iter().chain(with).collect()
        });
    }
}

#[test]
fn smoothing_is_the_same_everywhere() {
    for (rows, width, items) in [(1, 1, 1), (3, 5, 7), (40, 9, 130)] {
        let what = format!("{rows} x {width} x {items}");
        assert_same_everywhere(&what, TOLERANCE, |device| {
            let users = var(rows, width, 1, device);
            let table = table(items, width, device);
            let (targets, seen) = (targets(rows, items), offsets(rows, items));
            let with = |seen| {
                run(&users, &table, |users, items| {
                    smoothing::excess(users, items, &targets, seen, 0.2).expect("excess")
                })
            };
            let named_as = |of: &str, figures| {
                let of = of.to_owned();
                let named = named(figures).into_iter();
                named.map(move |(name, value)| (format!("{name}, {of}"), value))
            };
            let some = named_as("some seen", with(Some(&seen)));
            some.chain(named_as("none seen", with(None))).collect()
        });
    }
}

#[test]
fn a_weight_on_the_loss_scales_its_gradients() {
    let users = Var::from_tensor(&matrix(4, 3, 1)).expect("users");
    let items = Var::from_tensor(&matrix(6, 3, 2)).expect("items");
    let loss = |users: &Tensor, items: &Tensor| {
        catalog::cross_entropy(users, items, &[1, 5, 2, 2], None).expect("loss")
    };
    let plain = run(&users, &items, loss);
    let half = run(&users, &items, |users, items| {
        (loss(users, items) * 0.5).expect("half")
    });
    for (plain, half) in plain.iter().zip(&half) {
        assert_close("half", half, &(plain * 0.5).expect("half"));
    }
}

#[test]
fn shapes_that_do_not_fit_and_nan_are_not_hidden() {
    let users = matrix(3, 4, 1);
    let refused = |users: &Tensor, items: &Tensor, targets: &[u32]| {
        let drawn = Candidates::Drawn(Negatives {
            items: vec![1, 2],
            corrections: vec![0.0; 2],
        });
        for candidates in [Candidates::All, drawn] {
            assert!(
                candidates
                    .cross_entropy(users, items.into(), targets, None)
                    .is_err()
            );
        }
    };
    let two_rows = offsets(2, 5);
    assert!(catalog::cross_entropy(&users, &matrix(6, 4, 2), &[1, 2, 3], Some(&two_rows)).is_err());
    refused(&users, &matrix(6, 5, 2), &[1, 2, 3]);
    refused(&users, &matrix(6, 4, 2), &[1, 2]);
    refused(&users, &matrix(6, 4, 2), &[1, 2, 6]);
    refused(&users, &matrix(6, 4, 2), &[1, 2, 0]);
    refused(&users, &matrix(1, 4, 2), &[1, 1, 1]);
    let nan = Tensor::new(&[[f32::NAN, 0.0]], &Device::Cpu).expect("users");
    let loss = catalog::cross_entropy(&nan, &matrix(40, 2, 2), &[3], None).expect("loss");
    assert!(loss.to_scalar::<f32>().expect("scalar").is_nan());
}

fn negatives(items: usize, draws: usize, exponent: f64, step: u64) -> Negatives {
    let counts: Vec<u32> = (0..items as u32).map(|item| 1 + 400 / (item + 1)).collect();
    let settings = SampledSoftmax {
        negatives: draws,
        popularity_exponent: exponent,
    };
    let sampler = NegativeSampler::new(&settings, &counts).expect("sampler");
    sampler.draw(&mut MaskRng::new(5, step))
}

#[test]
fn the_sampled_loss_is_the_same_everywhere() {
    for (rows, width, items, draws) in [(5, 3, 9, 9), (270, 6, 3000, 2500)] {
        let drawn = Candidates::Drawn(negatives(items, draws, 0.7, 1));
        assert_same_everywhere(&format!("{rows} rows"), TOLERANCE, |device| {
            let users = var(rows, width, 1, device);
            let found = run(&users, &table(items, width, device), |users, table| {
                let (targets, added) = (targets(rows, items), offsets(rows, items));
                drawn
                    .cross_entropy(users, table.into(), &targets, Some(&added))
                    .expect("loss")
            });
            named(found)
        });
    }
}

/// The only item is the target: certain, so there is nothing to learn.
#[test]
fn a_catalog_of_one_item_teaches_nothing() {
    let drawn = Candidates::Drawn(negatives(1, 1, 0.7, 1));
    let found = run(
        &var(1, 1, 1, &Device::Cpu),
        &table(1, 1, &Device::Cpu),
        |users, items| {
            drawn
                .cross_entropy(users, items.into(), &[1], None)
                .expect("loss")
        },
    );
    assert_eq!(values(&found[0]), [0.0]);
    assert_eq!(values(&found[1]), [0.0]);
}

/// Moves single values of both inputs by a little and watches the loss.
#[test]
fn gradients_agree_with_finite_differences() {
    const STEP: f64 = 1e-2;
    let (rows, width, items) = (4, 3, 6);
    let drawn = Candidates::Drawn(negatives(items, 5, 0.5, 3));
    for candidates in [Candidates::All, drawn] {
        let targets = [1, 6, 3, 1];
        let added = offsets(rows, items);
        let loss = |users: &Tensor, items: &Tensor| {
            candidates
                .cross_entropy(users, items.into(), &targets, Some(&added))
                .expect("loss")
        };
        let inputs = [matrix(rows, width, 8), matrix(items + 1, width, 9)];
        let vars = inputs.clone().map(|x| Var::from_tensor(&x).expect("var"));
        let [_, users, table] = run(&vars[0], &vars[1], loss);
        for (which, gradient) in [users, table].iter().enumerate() {
            for (at, expected) in values(gradient).iter().enumerate() {
                let moved = |by: f64| {
                    let mut moved = inputs.clone();
                    let mut all = values(&moved[which]);
                    all[at] += by as f32;
                    let shape = moved[which].shape().clone();
                    moved[which] = Tensor::from_vec(all, shape, &Device::Cpu).expect("moved");
                    let loss = loss(&moved[0], &moved[1]);
                    f64::from(loss.to_scalar::<f32>().expect("scalar"))
                };
                let slope = (moved(STEP) - moved(-STEP)) / (2.0 * STEP);
                let difference = (slope - f64::from(*expected)).abs();
                assert!(
                    difference < 2e-4,
                    "input {which}, {at}: {slope} and {expected}"
                );
            }
        }
    }
}

/// Mean distance of the mean sampled gradient from the full one, relative to its length.
fn distance_from_full(draws: usize, steps: u64, exponent: f64) -> f64 {
    let (rows, width, items) = (6, 4, 60);
    let users = Var::from_tensor(&matrix(rows, width, 1)).expect("users");
    let table = Var::from_tensor(&matrix(items + 1, width, 2)).expect("items");
    let targets = targets(rows, items);
    let gradients = |candidates: &Candidates| {
        let [_, users, table] = run(&users, &table, |users, items| {
            candidates
                .cross_entropy(users, items.into(), &targets, None)
                .expect("loss")
        });
        [values(&users), values(&table)].concat()
    };
    let full = gradients(&Candidates::All);
    let mut mean = vec![0f64; full.len()];
    for step in 0..steps {
        let drawn = Candidates::Drawn(negatives(items, draws, exponent, step));
        for (mean, value) in mean.iter_mut().zip(gradients(&drawn)) {
            *mean += f64::from(value) / steps as f64;
        }
    }
    let length = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
    let full_length = length(&mut full.iter().map(|v| f64::from(*v)));
    let pairs = mean.iter().zip(&full);
    length(&mut pairs.map(|(mean, full)| mean - f64::from(*full))) / full_length
}

/// The estimate is consistent: its bias falls with the number of draws, whatever they follow.
#[test]
fn the_sampled_gradient_approaches_the_full_one() {
    for exponent in [0.0, 0.5, 1.0] {
        let few = distance_from_full(4, 400, exponent);
        let many = distance_from_full(60, 400, exponent);
        let what = format!("{exponent}: {few}, then {many}");
        assert!(many < 0.1 && many < few / 2.0, "{what}");
    }
}

/// `tests/reference/sampled_softmax.py`.
#[test]
fn the_sampled_loss_agrees_with_pytorch() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../tests/reference/golden/sampled_softmax.safetensors"
    );
    let golden = candle_core::safetensors::load(path, &Device::Cpu).expect("golden numbers");
    let ids = |name: &str| {
        let ids = golden[name].to_dtype(DType::U32).expect("ids");
        ids.to_vec1::<u32>().expect("ids")
    };
    let candidates = Candidates::Drawn(Negatives {
        items: ids("drawn"),
        corrections: values(&golden["corrections"]),
    });
    let var = |name: &str| Var::from_tensor(&golden[name]).expect("var");
    let found = run(&var("users"), &var("items"), |users, items| {
        let loss = candidates.cross_entropy(users, items.into(), &ids("targets"), None);
        loss.expect("loss")
    });
    let expected = ["loss", "gradient.users", "gradient.items"];
    compare(
        "PyTorch",
        &found,
        &expected.map(|name| golden[name].clone()),
    );
}
