//! What the machine itself needs: reading memory once.

/// Bytes that are read once in a go, to know how long that takes at least.
pub struct Memory(Vec<u64>);

impl Memory {
    /// As many bytes, rounded down to whole words, that are all there.
    #[must_use]
    pub fn of(bytes: usize) -> Self {
        Self(vec![1; bytes / 8])
    }

    /// Reads everything once, with as little else to do as there can be: four places take turns, so
    /// that the processor reads ahead at all of them. Gives something that depends on every word.
    #[must_use]
    pub fn read(&self) -> u64 {
        let quarter = self.0.len() / 4;
        let quarters: [_; 4] =
            std::array::from_fn(|n| self.0[n * quarter..][..quarter].as_chunks::<8>());
        let mut sums = [[0u64; 8]; 4];
        for at in 0..quarter / 8 {
            for (sums, (chunks, _)) in sums.iter_mut().zip(quarters) {
                for (sum, word) in sums.iter_mut().zip(chunks[at]) {
                    *sum ^= word;
                }
            }
        }
        let rests = quarters.iter().flat_map(|(_, rest)| *rest);
        let rest = rests.chain(&self.0[4 * quarter..]);
        (sums.iter().flatten().chain(rest)).fold(0, |all, word| all ^ word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_read() {
        let mut memory = Memory::of(8 * 37);
        assert_eq!(memory.read(), 1);
        for at in [0, 17, 36] {
            memory.0[at] = 3;
            assert_eq!(memory.read(), 3, "{at}");
            memory.0[at] = 1;
        }
    }
}
