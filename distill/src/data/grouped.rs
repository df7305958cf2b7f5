//! Interactions grouped by user and ordered by time, and what is dropped from them.

use super::Duplicates;
use super::log::Log;
use super::report::{KCoreRound, LengthQuantiles, Ties};

/// Marks an item that no user has had yet.
const NOBODY: u32 = u32::MAX;

/// The interactions of each user, one user after the other.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Grouped {
    /// User number of each group.
    pub(super) users: Vec<u32>,
    /// Where each group begins; the last entry is the end.
    pub(super) offsets: Vec<usize>,
    /// Item number of each interaction.
    pub(super) items: Vec<u32>,
    /// Whole units of each time; empty where the source has no times.
    pub(super) times: Vec<i64>,
    /// Billionths of each time; empty unless one has them.
    pub(super) billionths: Vec<u32>,
}

impl Grouped {
    /// Takes the columns out of a log; what ties in time stays in the order of the file.
    pub(super) fn from_log(log: &mut Log) -> Self {
        let mut offsets = vec![0usize; log.users.len() + 1];
        for &user in &log.user {
            offsets[user as usize + 1] += 1;
        }
        for at in 1..offsets.len() {
            offsets[at] += offsets[at - 1];
        }
        let mut next = offsets.clone();
        let mut order = vec![0u32; log.user.len()];
        for (&user, at) in std::mem::take(&mut log.user).iter().zip(0u32..) {
            order[next[user as usize]] = at;
            next[user as usize] += 1;
        }
        drop(next);
        if !log.time.is_empty() {
            let key = |&at: &u32| {
                let billionths = log.billionths.get(at as usize).copied().unwrap_or(0);
                (log.time[at as usize], billionths)
            };
            for group in offsets.windows(2) {
                order[group[0]..group[1]].sort_by_key(key);
            }
        }
        Self {
            users: (0u32..).take(log.users.len()).collect(),
            items: permuted(std::mem::take(&mut log.item), &order),
            times: permuted(std::mem::take(&mut log.time), &order),
            billionths: permuted(std::mem::take(&mut log.billionths), &order),
            offsets,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    /// Applies the rule for repeated items; gives how many interactions repeat an earlier one of
    /// the same user, whether they were dropped or not.
    pub(super) fn drop_duplicates(&mut self, rule: Duplicates, num_items: usize) -> u64 {
        let mut last_user = vec![NOBODY; num_items];
        let mut repeats = vec![false; self.len()];
        for group in 0..self.users.len() {
            let range = self.offsets[group]..self.offsets[group + 1];
            let mut visit = |at: usize| {
                let seen = &mut last_user[self.items[at] as usize];
                repeats[at] = *seen == self.users[group];
                *seen = self.users[group];
            };
            match rule {
                Duplicates::Last => range.rev().for_each(&mut visit),
                Duplicates::First | Duplicates::Keep => range.for_each(&mut visit),
            }
        }
        let count = repeats.iter().filter(|&&r| r).count() as u64;
        if rule != Duplicates::Keep && count > 0 {
            self.retain(|_, at| !repeats[at]);
        }
        count
    }

    /// Drops users and items with fewer than `k` interactions until all have so many.
    pub(super) fn keep_core(&mut self, k: usize, num_items: usize) -> Vec<KCoreRound> {
        let mut rounds = Vec::new();
        if k <= 1 {
            return rounds;
        }
        loop {
            let before = self.len();
            let mut counts = vec![0usize; num_items];
            for &item in &self.items {
                counts[item as usize] += 1;
            }
            let rare = |count: &&usize| (1..k).contains(*count);
            let items = counts.iter().filter(rare).count() as u64;
            let users = self.shorter_than(k);
            if items + users == 0 {
                return rounds;
            }
            let offsets = self.offsets.clone();
            let item_of = self.items.clone();
            self.retain(|group, at| {
                offsets[group + 1] - offsets[group] >= k && counts[item_of[at] as usize] >= k
            });
            rounds.push(KCoreRound {
                users,
                items,
                interactions: (before - self.len()) as u64,
            });
        }
    }

    /// Keeps what `keep(group, place)` says, and the users who have something left.
    fn retain(&mut self, keep: impl Fn(usize, usize) -> bool) {
        let mut kept = 0;
        let mut groups = 0;
        let mut start = 0;
        for group in 0..self.users.len() {
            let end = self.offsets[group + 1];
            let first = kept;
            for at in start..end {
                if keep(group, at) {
                    self.items[kept] = self.items[at];
                    move_to(&mut self.times, at, kept);
                    move_to(&mut self.billionths, at, kept);
                    kept += 1;
                }
            }
            start = end;
            if kept > first {
                self.users[groups] = self.users[group];
                self.offsets[groups] = first;
                groups += 1;
            }
        }
        self.users.truncate(groups);
        self.offsets.truncate(groups);
        self.offsets.push(kept);
        self.items.truncate(kept);
        self.times.truncate(kept);
        self.billionths.truncate(kept);
    }

    /// How often neighbours have the same time; `None` without times.
    pub(super) fn ties(&self) -> Option<Ties> {
        if self.times.is_empty() {
            return None;
        }
        let mut ties = Ties::default();
        let tie = |at: usize| {
            self.times[at] == self.times[at - 1]
                && (self.billionths.is_empty() || self.billionths[at] == self.billionths[at - 1])
        };
        for group in self.offsets.windows(2).filter(|w| w[1] - w[0] >= 2) {
            ties.neighbours += (group[1] - group[0] - 1) as u64;
            ties.neighbours_tied += (group[0] + 1..group[1]).filter(|&at| tie(at)).count() as u64;
            ties.users_last_two_tied += u64::from(tie(group[1] - 1));
        }
        Some(ties)
    }

    /// Users with fewer than so many interactions.
    pub(super) fn shorter_than(&self, length: usize) -> u64 {
        let short = |w: &&[usize]| w[1] - w[0] < length;
        self.offsets.windows(2).filter(short).count() as u64
    }

    /// How long the sequences are; all zero without users.
    pub(super) fn lengths(&self) -> LengthQuantiles {
        let mut lengths: Vec<usize> = self.offsets.windows(2).map(|w| w[1] - w[0]).collect();
        lengths.sort_unstable();
        // Nearest rank: the smallest length that so many per cent of the users do not exceed.
        let quantile = |per_cent: usize| {
            let rank = (lengths.len() * per_cent).div_ceil(100).max(1);
            lengths.get(rank - 1).copied().unwrap_or(0)
        };
        LengthQuantiles {
            min: quantile(0),
            p5: quantile(5),
            p25: quantile(25),
            median: quantile(50),
            p75: quantile(75),
            p95: quantile(95),
            max: quantile(100),
            mean: self.len() as f64 / lengths.len().max(1) as f64,
        }
    }
}

fn permuted<T: Copy>(values: Vec<T>, order: &[u32]) -> Vec<T> {
    if values.is_empty() {
        return values;
    }
    order.iter().map(|&at| values[at as usize]).collect()
}

fn move_to<T: Copy>(column: &mut [T], from: usize, to: usize) {
    if let Some(&value) = column.get(from) {
        column[to] = value;
    }
}
