//! Fused blocks and embeddings against the same in candle's operations, with the same masks.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor, Var};
use slmrec_core::ItemIndex;

use super::block::{Block, BlockTensors, NormWeights, Pass};
use super::{SasRec, SasRecSettings};
use crate::model::ops::attention::Segments;
use crate::model::ops::tests::{self, assert_same};
use crate::model::tests::largest_difference;
use crate::model::{HistoryBatch, MaskRng, Mode, ReadAt, SequentialModel};

/// f32 sums in another order.
const TOLERANCE: f32 = 1e-5;

fn random(shape: &[usize], seed: u64) -> Var {
    tests::random(shape, seed, &Device::Cpu)
}

/// Width, heads, and width of the MLP.
type Shape = (usize, usize, usize);

/// Odd sizes: one head, a width of no whole registers, heads of one value, a wide and a narrow MLP.
const SHAPES: [Shape; 4] = [(8, 2, 12), (37, 1, 70), (6, 6, 5), (66, 3, 33)];

fn block((width, heads, inner): Shape) -> (Block, Vec<Var>) {
    let mut vars = Vec::new();
    let mut tensor = |shape: &[usize], shift: f64| {
        let values = random(shape, vars.len() as u64).as_detached_tensor();
        let values = ((values * 0.3).expect("scaled") + shift).expect("shifted");
        let var = Var::from_tensor(&values).expect("variable");
        vars.push(var.clone());
        var.as_tensor().clone()
    };
    let mut norm = || NormWeights {
        weight: tensor(&[width], 1.0),
        bias: tensor(&[width], 0.0),
    };
    let (attention_norm, mlp_norm) = (norm(), norm());
    let tensors = BlockTensors {
        attention_norm,
        query: tensor(&[width, width], 0.0),
        key: tensor(&[width, width], 0.0),
        value: tensor(&[width, width], 0.0),
        output: tensor(&[width, width], 0.0),
        mlp_norm,
        up: (tensor(&[inner, width], 0.0), tensor(&[inner], 0.0)),
        down: (tensor(&[width, inner], 0.0), tensor(&[width], 0.0)),
    };
    (Block::new(tensors, heads).expect("block"), vars)
}

fn run(
    block: &Block,
    x: &Tensor,
    lengths: &[usize],
    reads: Option<&[u32]>,
    dropout: f64,
) -> Tensor {
    let mut rng = MaskRng::new(1, 1);
    let mut pass = Pass {
        segments: Arc::new(Segments {
            prefix: 0,
            lengths: lengths.to_vec(),
        }),
        mode: &mut Mode::Train(&mut rng),
        dropout,
    };
    let reads = reads.map(|reads| Arc::new(reads.to_vec()));
    block.forward(x, reads, &mut pass).expect("forward")
}

/// Outputs, and the gradients of the input and of every tensor.
fn assert_block(shape: Shape, lengths: &[usize], reads: Option<&[u32]>, dropout: f64) {
    let name = format!("{shape:?} {lengths:?} {reads:?} {dropout}");
    let (mut block, vars) = block(shape);
    let x = random(&[lengths.iter().sum(), shape.0], 50);
    let fused = run(&block, &x, lengths, reads, dropout);
    assert!(block.fused.take().is_some(), "it was fused");
    let slow = run(&block, &x, lengths, reads, dropout);
    let mut inputs = vec![x];
    inputs.extend(vars);
    assert_same(&name, &inputs, &fused, &slow);
}

#[test]
fn a_fused_block_is_the_block() {
    for shape in SHAPES {
        for lengths in [vec![1], (1..8).collect(), vec![40], vec![3, 1, 33, 2]] {
            for dropout in [0.0, 0.3] {
                assert_block(shape, &lengths, None, dropout);
            }
        }
    }
}

#[test]
fn a_block_that_is_read_here_and_there() {
    for shape in SHAPES {
        for dropout in [0.0, 0.3] {
            assert_block(shape, &[4, 1, 7], Some(&[3, 4, 11]), dropout);
            assert_block(shape, &[4, 1, 7], Some(&[7]), dropout);
            assert_block(shape, &[1], Some(&[0]), dropout);
        }
    }
}

#[test]
fn each_of_the_masks_drops_something() {
    let (block, _) = block((8, 2, 12));
    let x = random(&[6, 8], 50);
    let still = run(&block, &x, &[6], None, 0.0);
    let dropped = run(&block, &x, &[6], None, 0.3);
    assert!(largest_difference(&still, &dropped) > 0.01);
    // The first token sees itself alone: the weight 1 is kept and scaled, or dropped.
    let again = run(&block, &x, &[6], None, 0.3);
    assert_eq!(largest_difference(&again, &dropped), 0.0);
}

#[test]
fn the_number_of_threads_does_not_show() {
    let lengths: Vec<usize> = (1..30).collect();
    let x = random(&[lengths.iter().sum(), 66], 50);
    let bits = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        pool.expect("pool").install(|| {
            let (block, vars) = block((66, 3, 33));
            let y = run(&block, &x, &lengths, None, 0.3);
            let gradients = y.sqr().and_then(|y| y.sum_all()?.backward());
            let gradients = gradients.expect("backward");
            let of = |var: &Var| gradients.get(var).expect("gradient").clone();
            let tensors: Vec<Tensor> = vars.iter().chain([&x]).map(of).chain([y]).collect();
            let flat = |t: &Tensor| t.flatten_all().and_then(|t| t.to_vec1::<f32>());
            let values = tensors.iter().flat_map(|t| flat(t).expect("values"));
            values.map(f32::to_bits).collect::<Vec<u32>>()
        })
    };
    let one = bits(1);
    for threads in [2, 3, 5] {
        assert!(bits(threads) == one, "{threads} threads");
    }
}

fn settings() -> SasRecSettings {
    SasRecSettings {
        hidden_size: 10,
        num_hidden_layers: 2,
        num_attention_heads: 1,
        intermediate_size: 7,
        max_history: 6,
        dropout: 0.25,
        ..SasRecSettings::default()
    }
}

fn batch(read: ReadAt) -> HistoryBatch {
    let item = |row: &[u32]| row.iter().copied().map(ItemIndex).collect::<Vec<_>>();
    let rows = [item(&[3, 1, 4, 1, 5]), item(&[9]), item(&[6, 5, 3])];
    let slices: Vec<&[ItemIndex]> = rows.iter().map(Vec::as_slice).collect();
    let batch = HistoryBatch::new(&slices, &Device::Cpu).expect("batch");
    batch.reading(read)
}

/// Embeddings, blocks and final norm: the whole model against itself without fused blocks, and with
/// embeddings of tensor operations written out here.
#[test]
fn the_fused_embedding_is_the_embedding() {
    let model = SasRec::new(settings(), 11, 5, &Device::Cpu).expect("model");
    let batch = batch(ReadAt::EveryItem);
    let pass = |rng: &mut MaskRng| {
        let mut mode = Mode::Train(rng);
        let mut pass = Pass {
            segments: Arc::new(Segments {
                prefix: 0,
                lengths: batch.lengths.clone(),
            }),
            mode: &mut mode,
            dropout: 0.25,
        };
        model.embed(&batch, &mut pass).expect("embedding")
    };
    let fused = pass(&mut MaskRng::new(1, 1));
    let items = Tensor::new(&[3u32, 1, 4, 1, 5, 9, 6, 5, 3], &Device::Cpu).expect("items");
    let places = Tensor::new(&[0u32, 1, 2, 3, 4, 0, 0, 1, 2], &Device::Cpu).expect("places");
    let items = model
        .item_embeddings
        .index_select(&items, 0)
        .expect("items");
    let positions = model.position_embeddings.index_select(&places, 0);
    let sum = (items * 10f64.sqrt()).and_then(|items| items + positions?);
    let mask = MaskRng::new(1, 1).mask(0.25);
    let slow = mask.apply(&sum.expect("sum")).expect("dropped");
    let variable = |name: &str| model.parameters().get(name).expect("variable").clone();
    let inputs = [super::ITEM_EMBEDDINGS, super::POSITION_EMBEDDINGS].map(variable);
    assert_same("embedding", &inputs, &fused, &slow);
}

#[test]
fn reading_the_last_item_only_changes_nothing() {
    let model = SasRec::new(settings(), 11, 5, &Device::Cpu).expect("model");
    let run = |read| {
        let mut rng = MaskRng::new(1, 1);
        let output = model.forward(&batch(read), Mode::Train(&mut rng), &[1, 2]);
        let output = output.expect("forward");
        [vec![output.user_vectors], output.states].concat()
    };
    let ends = Tensor::new(&[4u32, 5, 12], &Device::Cpu).expect("ends");
    let inputs: Vec<Var> = model.parameters().iter().map(|(_, v)| v.clone()).collect();
    for (at, (every, last)) in
        (run(ReadAt::EveryItem).iter().zip(run(ReadAt::LastItem))).enumerate()
    {
        let every = every.flatten(0, 1).and_then(|x| x.index_select(&ends, 0));
        let last = last.squeeze(1).expect("one position");
        // An inner state reaches only what stands before it.
        let reached: &[Var] = if at == 1 { &[] } else { &inputs };
        assert_same("last item", reached, &every.expect("rows"), &last);
    }
}

#[test]
fn in_evaluation_no_graph_is_kept() {
    let model = SasRec::new(settings(), 11, 5, &Device::Cpu).expect("model");
    let output = model.forward(&batch(ReadAt::EveryItem), Mode::Eval, &[1, 2]);
    let output = output.expect("forward");
    assert_eq!(output.user_vectors.dims(), [3, 5, 10]);
    assert_eq!(output.user_vectors.dtype(), DType::F32);
    for tensor in output.states.iter().chain([&output.user_vectors]) {
        assert!(!tensor.track_op());
    }
    let difference = largest_difference(&output.states[1], &output.user_vectors);
    assert!(difference <= TOLERANCE);
}
