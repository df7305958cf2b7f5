//! A log of the size of Amazon's Cloth set, the same for the same number of users.

use std::error::Error;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;

/// Of the paper's set: 377 thousand items for 1.2 million users.
const ITEMS_PER_1000_USERS: u64 = 314;
const SHORTEST: u8 = 5;
/// Users go on with this probability after the shortest sequence; 9.2 items on average.
const GO_ON: f64 = 0.8075;

/// Writes `user,item,time`, in the order of time, the users' lines mixed.
///
/// A few items make up most of the interactions, and every item occurs.
pub(crate) fn write_log(path: &Path, users: u32) -> Result<(), Box<dyn Error>> {
    let items = (u64::from(users) * ITEMS_PER_1000_USERS / 1000).max(1);
    let mut random = Random(0x5eed);
    let lengths: Vec<u8> = (0..users).map(|_| length(&mut random)).collect();
    let total: u64 = lengths.iter().map(|len| u64::from(*len)).sum();
    let every = (total / items).max(1);
    let mut file = BufWriter::new(File::create(path)?);
    writeln!(file, "user_id,item_id,timestamp")?;
    let mut line = 0u64;
    for round in 0..lengths.iter().copied().max().unwrap_or(0) {
        let still = (0..users).filter(|user| lengths[*user as usize] > round);
        for user in still {
            let item = if line.is_multiple_of(every) && line / every < items {
                line / every // so that none is missing
            } else {
                // The density falls with the rank to the power -2/3.
                (items as f64 * random.uniform().powi(3)) as u64
            };
            // Identifiers as long as Amazon's, in no order.
            let (user, item) = (mix(u64::from(user)) >> 8, mix(item ^ 0xb0) >> 28);
            let time = 1_300_000_000 + 20 * line;
            writeln!(file, "A{user:014X},B{item:09X},{time}")?;
            line += 1;
        }
    }
    Ok(file.flush()?)
}

fn length(random: &mut Random) -> u8 {
    let mut length = SHORTEST;
    while length < 200 && random.uniform() < GO_ON {
        length += 1;
    }
    length
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        (mix(self.0) >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// A permutation of the 64-bit numbers.
fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}
