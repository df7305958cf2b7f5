//! What a run leaves for the next one.

use ndarray::{Array4, Axis, Slice};

/// Keys and values of the positions of a prompt prefix and of some items, layer by layer.
///
/// Bounded by the longest history: `2 * layers * kv_heads * head_dim` values a position.
#[derive(Clone, Debug, PartialEq)]
pub struct KeyValues {
    /// Keys and values in turn, each `[kv_heads, 1, positions, head_dim]`.
    tensors: Vec<Array4<f32>>,
    /// Number of items among the positions; they stand at the end.
    items: usize,
}

impl KeyValues {
    /// Keys and values in turn, layer by layer, each `[kv_heads, 1, positions, head_dim]`, with
    /// `items` items at the end of the positions. `None` when they do not have the same positions
    /// or fewer than `items`.
    #[must_use]
    pub fn new(tensors: Vec<Array4<f32>>, items: usize) -> Option<Self> {
        let positions = tensors.first()?.len_of(Axis(2));
        let same = tensors.iter().all(|t| t.len_of(Axis(2)) == positions);
        (same && items <= positions).then_some(Self { tensors, items })
    }

    /// Keys and values in turn, layer by layer.
    #[must_use]
    pub fn tensors(&self) -> &[Array4<f32>] {
        &self.tensors
    }

    /// Number of items.
    #[must_use]
    pub fn items(&self) -> usize {
        self.items
    }

    /// What a run over the oldest `items` of the items would have left: under a causal mask a
    /// position depends on nothing after it.
    #[must_use]
    pub fn oldest(&self, items: usize) -> Self {
        let items = items.min(self.items);
        let cut = |tensor: &Array4<f32>| {
            let positions = tensor.len_of(Axis(2)) - (self.items - items);
            let kept = tensor.slice_axis(Axis(2), Slice::from(..positions));
            kept.as_standard_layout().into_owned()
        };
        Self {
            tensors: self.tensors.iter().map(cut).collect(),
            items,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_are_the_first_positions() {
        let tensor =
            Array4::from_shape_fn((2, 1, 5, 3), |(h, _, p, d)| (h * 100 + p * 10 + d) as f32);
        let all = KeyValues::new(vec![tensor.clone(), tensor.clone()], 3).expect("valid");
        let two = all.oldest(1);
        assert_eq!((two.items(), two.tensors()[1].dim()), (1, (2, 1, 3, 3)));
        assert_eq!(two.tensors()[0][[1, 0, 2, 1]], 121.0);
        assert!(two.tensors()[0].is_standard_layout());
        assert_eq!(all.oldest(9), all);
    }

    #[test]
    fn positions_that_differ_are_refused() {
        let of = |positions| Array4::<f32>::zeros((1, 1, positions, 2));
        assert!(KeyValues::new(vec![of(3), of(2)], 1).is_none());
        assert!(KeyValues::new(vec![of(3), of(3)], 4).is_none());
        assert!(KeyValues::new(vec![], 0).is_none());
    }
}
