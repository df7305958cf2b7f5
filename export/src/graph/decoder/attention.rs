//! The attention of one decoder layer.

use super::{Decoder, Form, Kept, Normed, Past, Shared, fold};
use crate::error::ExportError;
use crate::graph::builder::{Axis, int, ints};
use crate::graph::linear::Weight;
use crate::model::Layer;

/// What one layer's attention is made of.
pub(super) struct Attention<'a> {
    pub(super) scope: String,
    pub(super) layer: &'a Layer,
    pub(super) shared: &'a Shared,
    pub(super) past: Option<&'a Past>,
    pub(super) only_read: bool,
}

impl Attention<'_> {
    /// The positions that ask: T, or the last one.
    fn run(&self) -> Axis<'static> {
        match self.only_read {
            true => Axis::Fixed(1),
            false => self.shared.positions,
        }
    }
}

impl Decoder<'_> {
    /// `[T, H]` to `[T, heads * head_dim]` and through the output projection to `[T, H]`; `[1, H]` where
    /// only the last position is read.
    pub(super) fn attention(
        &mut self,
        a: &Attention<'_>,
        x: &Normed,
    ) -> Result<String, ExportError> {
        let (kv, head_dim) = (self.model.config.kv_heads(), self.model.config.head_size());
        let heads = self.model.config.num_attention_heads;
        let group = heads / kv;
        let name = |part: &str| format!("{}.{part}", a.scope);
        // Query heads stand in groups that share one key/value head: [kv, group, T, head_dim].
        let queries = self.queries(a, x, [kv, group, head_dim])?;
        let keys = self.project(&name("k_proj"), &a.layer.k_proj, x)?;
        let positions = a.shared.positions;
        let keys = self.heads(&name("keys"), &keys, positions, [kv, 1, head_dim]);
        let keys = self.rotate(&name("keys"), &keys, &a.shared.cos, &a.shared.sin);
        let values = self.project(&name("v_proj"), &a.layer.v_proj, x)?;
        let values = self.heads(&name("values"), &values, positions, [kv, 1, head_dim]);
        let keys = self.behind_past(&keys, a.past.map(|past| &past.keys));
        let values = self.behind_past(&values, a.past.map(|past| &past.values));

        let swap = vec![ints("perm", &[0, 1, 3, 2])];
        let keys = self
            .b
            .node_with("Transpose", &name("keys_t"), &[&keys], swap);
        let mut scores = self.b.node("MatMul", &name("scores"), &[&queries, &keys]);
        if self.form == Form::Plain {
            let scale = [1.0 / (head_dim as f32).sqrt()];
            let scale = self.b.floats(&name("scale"), &[1], &scale);
            scores = self.b.node("Mul", &name("scaled"), &[&scores, &scale]);
        }
        if !a.only_read {
            scores = self
                .b
                .node("Add", &name("masked"), &[&scores, &a.shared.mask]);
        }
        let over_keys = vec![int("axis", -1)];
        let weights = self
            .b
            .node_with("Softmax", &name("weights"), &[&scores], over_keys);
        let mixed = self.b.node("MatMul", &name("mixed"), &[&weights, &values]);
        let back = vec![ints("perm", &[2, 0, 1, 3])]; // [T, kv, group, head_dim]
        let mixed = self
            .b
            .node_with("Transpose", &name("mixed_t"), &[&mixed], back);
        let flat = self
            .b
            .integers(&name("flat_shape"), &[-1, (heads * head_dim) as i64]);
        let mixed = self.b.node("Reshape", &name("merged"), &[&mixed, &flat]);
        let width = Axis::Fixed(heads * head_dim);
        self.b.shape(&mixed, &[a.run(), width]);
        let weight = Weight::new(&name("o_proj"), &a.layer.o_proj);
        self.linears.apply_uneven(&mut self.b, &mixed, &weight)
    }

    /// Rotated queries `[kv, group, T or 1, head_dim]`.
    fn queries(
        &mut self,
        a: &Attention<'_>,
        x: &Normed,
        shape: [usize; 3],
    ) -> Result<String, ExportError> {
        let name = |part: &str| format!("{}.{part}", a.scope);
        let mut weight = fold(
            Weight::new(&name("q_proj"), &a.layer.q_proj),
            x.gain.as_ref(),
        );
        if self.form == Form::Folded {
            weight = weight.scale(1.0 / (shape[2] as f32).sqrt());
        }
        let (mut input, mut cos, mut sin) =
            (x.value.clone(), a.shared.cos.clone(), a.shared.sin.clone());
        if a.only_read {
            input = self.last_row(&name("read"), &input, self.model.config.hidden_size);
            cos = self.last_row(&name("read_cos"), &cos, shape[2]);
            sin = self.last_row(&name("read_sin"), &sin, shape[2]);
        }
        let queries = self.linears.apply(&mut self.b, &input, &weight)?;
        let queries = self.heads(&name("queries"), &queries, a.run(), shape);
        Ok(self.rotate(&name("queries"), &queries, &cos, &sin))
    }

    /// `[T, kv * group * head_dim]` to `[kv, group, T, head_dim]`.
    fn heads(
        &mut self,
        name: &str,
        x: &str,
        positions: Axis<'static>,
        shape: [usize; 3],
    ) -> String {
        let [kv, group, head_dim] = shape.map(|n| n as i64);
        let split = self
            .b
            .integers(&format!("{name}.shape"), &[-1, kv, group, head_dim]);
        let x = self
            .b
            .node("Reshape", &format!("{name}.split"), &[x, &split]);
        let [kv, group, head_dim] = shape.map(Axis::Fixed);
        self.b.shape(&x, &[positions, kv, group, head_dim]);
        let perm = vec![ints("perm", &[1, 2, 0, 3])];
        self.b
            .node_with("Transpose", &format!("{name}.heads"), &[&x], perm)
    }

    /// `x * cos + swap_halves(x) * sin`, with the sign of the rotation in `sin`.
    fn rotate(&mut self, name: &str, x: &str, cos: &str, sin: &str) -> String {
        let part = |part: &str| format!("{name}.{part}");
        let half = (self.model.config.head_size() / 2) as i64;
        let sizes = self.b.integers(&part("halves"), &[half, half]);
        let (first, second) = (part("first"), part("second"));
        let axis = || vec![int("axis", -1)];
        let outputs = [first.as_str(), second.as_str()];
        self.b
            .node_outputs("Split", &part("halve"), &[x, &sizes], axis(), &outputs);
        let swapped = self
            .b
            .node_with("Concat", &part("swapped"), &[&second, &first], axis());
        let straight = self.b.node("Mul", &part("by_cos"), &[x, cos]);
        let crossed = self.b.node("Mul", &part("by_sin"), &[&swapped, sin]);
        self.b.node("Add", &part("rotated"), &[&straight, &crossed])
    }

    /// Puts what is kept of earlier positions before `[kv, 1, T, head_dim]`.
    fn behind_past(&mut self, x: &str, kept: Option<&Kept>) -> String {
        let Some(Kept { past, present }) = kept else {
            return x.to_owned();
        };
        let axis = vec![int("axis", 2)];
        self.b.node_with("Concat", present, &[past, x], axis)
    }
}
