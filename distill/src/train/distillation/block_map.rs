//! Where the blocks of teacher and student end.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::train::TrainError;

/// Pairs `[layer of the teacher, layer of the student]`, both from 1, whose states are compared; in
/// ascending order, the last layers last. Empty for blocks of equal size.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BlockMap(pub Vec<[usize; 2]>);

const EXPECTED: &str = "pairs of a teacher's and a student's layer from 1 on, both ascending";

impl BlockMap {
    /// Whether there are no pairs.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Number of pairs.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Checks the order; the numbers of layers are not known here.
    ///
    /// # Errors
    /// [`TrainError::Setting`].
    pub fn check(&self) -> Result<(), TrainError> {
        let ascends = |side: usize| {
            let first = self.0.first().is_none_or(|pair| pair[side] > 0);
            first && self.0.is_sorted_by(|a, b| a[side] < b[side])
        };
        if ascends(0) && ascends(1) {
            return Ok(());
        }
        Err(self.wrong(EXPECTED.to_owned()))
    }

    /// Layers of a teacher of `layers` layers.
    ///
    /// # Errors
    /// [`TrainError::Setting`] unless its last layer is in the last pair.
    pub fn of_teacher(&self, layers: usize) -> Result<Vec<usize>, TrainError> {
        self.side(0, "teacher", layers)
    }

    /// Layers of a student of `layers` layers.
    ///
    /// # Errors
    /// [`TrainError::Setting`] unless its last layer is in the last pair.
    pub fn of_student(&self, layers: usize) -> Result<Vec<usize>, TrainError> {
        self.side(1, "student", layers)
    }

    fn side(&self, side: usize, who: &str, layers: usize) -> Result<Vec<usize>, TrainError> {
        self.check()?;
        let found: Vec<usize> = self.0.iter().map(|pair| pair[side]).collect();
        if found.last() == Some(&layers) {
            return Ok(found);
        }
        Err(self.wrong(format!("a last pair with the {who}'s last layer, {layers}")))
    }

    fn wrong(&self, expected: String) -> TrainError {
        TrainError::Setting {
            name: "block_map",
            expected,
            found: self.to_string(),
        }
    }
}

impl fmt::Display for BlockMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, [teacher, student]) in self.0.iter().enumerate() {
            let comma = if at > 0 { "," } else { "" };
            write!(f, "{comma}{teacher}:{student}")?;
        }
        Ok(())
    }
}

impl FromStr for BlockMap {
    type Err = TrainError;

    /// `2:1,4:2,8:4`.
    fn from_str(text: &str) -> Result<Self, TrainError> {
        let pair = |part: &str| {
            let (teacher, student) = part.split_once(':')?;
            Some([teacher.trim().parse().ok()?, student.trim().parse().ok()?])
        };
        let map = text.split(',').map(pair).collect::<Option<_>>().map(Self);
        let map = map.ok_or_else(|| TrainError::Setting {
            name: "block_map",
            expected: format!("{EXPECTED}, for example 2:1,4:2,8:4"),
            found: text.to_owned(),
        })?;
        map.check()?;
        Ok(map)
    }
}

/// Numbers of the layers that end `blocks` blocks of equal size, the last layer last.
pub(super) fn block_ends(
    who: &'static str,
    layers: usize,
    blocks: usize,
) -> Result<Vec<usize>, TrainError> {
    if layers == 0 || !layers.is_multiple_of(blocks) {
        return Err(TrainError::Blocks {
            who,
            layers,
            blocks,
        });
    }
    let size = layers / blocks;
    Ok((1..=blocks).map(|block| block * size).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_end_at_equal_distances_and_with_the_last_layer() {
        assert_eq!(block_ends("teacher", 8, 4).expect("ends"), [2, 4, 6, 8]);
        assert_eq!(block_ends("student", 4, 4).expect("ends"), [1, 2, 3, 4]);
        assert_eq!(block_ends("student", 3, 1).expect("ends"), [3]);
        for (layers, blocks) in [(6, 4), (2, 4), (0, 1)] {
            let refused = block_ends("student", layers, blocks);
            assert!(matches!(refused, Err(TrainError::Blocks { .. })));
        }
    }

    #[test]
    fn maps_are_typed_as_they_are_shown() {
        let map: BlockMap = "2:1, 4:2,8:4".parse().expect("a map");
        assert_eq!(map.0, [[2, 1], [4, 2], [8, 4]]);
        assert_eq!(map.to_string(), "2:1,4:2,8:4");
        for wrong in [
            "", "2", "2:1,4", "2:1,2:2", "4:2,2:4", "0:1,8:4", "2:0,8:4", "a:b",
        ] {
            assert!(wrong.parse::<BlockMap>().is_err(), "{wrong}");
        }
    }
}
