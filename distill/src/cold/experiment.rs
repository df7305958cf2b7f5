//! The experiment: which map is best, and how high it brings items that training never saw.

use std::collections::BTreeSet;

use candle_core::{D, DType, Device, Tensor};
use serde::{Deserialize, Serialize};
use slmrec_core::bootstrap::{Interval, intervals_of_means};
use slmrec_core::{Dataset, ItemIndex};

use super::cases::{self, Case, Places};
use super::{ColdError, MapChoice, TitleMap, held_out};
use crate::evaluate::user_vectors;
use crate::model::SequentialModel;

/// Most targets that choose the map.
const CHOOSING: usize = 4000;

/// What was found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ColdReport {
    /// Items of the catalog.
    pub items: usize,
    /// Items that were kept out of training.
    pub held_out: usize,
    /// Interactions with them that have a history: the targets.
    pub targets: usize,
    /// Users with a target.
    pub users: usize,
    /// Interactions with them as a user's first, which are left out.
    pub without_history: usize,
    /// Trained items that chose the map, and their targets.
    pub choosing: [usize; 2],
    /// Every map, best first.
    pub tried: Vec<Tried>,
    /// The systems.
    pub systems: Vec<ColdRow>,
    /// The map less the cosine of titles, on the same users.
    pub difference: ColdRow,
    /// What was fitted for use.
    pub shipped: Shipped,
}

impl ColdReport {
    /// What was ranked, in a sentence.
    #[must_use]
    pub fn summary(&self) -> String {
        format!(
            "{} of {} items kept out of training: {} targets of {} users ({} without a history left out)",
            self.held_out, self.items, self.targets, self.users, self.without_history
        )
    }
}

/// A map on trained items that it was not fitted on.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tried {
    /// The map.
    pub choice: MapChoice,
    /// HR@10 of these items as targets among all.
    pub hr_10: f64,
    /// Mean cosine of what it gives and what training gave.
    pub cosine: f64,
}

/// How often one system has the target among the first: mean over users of each one's share of
/// targets, with 95 % intervals over users.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ColdRow {
    /// What a person calls it.
    pub system: String,
    /// HR@10 among all items.
    pub all_10: Interval,
    /// HR@50 among all items.
    pub all_50: Interval,
    /// HR@10 among the cold items.
    pub cold_10: Interval,
    /// HR@50 among the cold items.
    pub cold_50: Interval,
}

/// The map that was fitted on the table in use.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shipped {
    /// Whose items: `student` or `sasrec`.
    pub table: String,
    /// Items that it was fitted on.
    pub items: usize,
}

/// The experiment's material.
pub struct Experiment<'a> {
    /// Trained without the items that are kept out.
    pub model: &'a dyn SequentialModel,
    /// Everything.
    pub dataset: &'a Dataset,
    /// The same without the items that are kept out.
    pub warm: &'a Dataset,
    /// The items that are kept out, ascending.
    pub held_out: &'a [ItemIndex],
    /// Title vectors `[N + 1, T]`; zero where there is none.
    pub titles: &'a Tensor,
    /// Of everything random.
    pub seed: u64,
}

/// Rows with a title whose item occurs in the training sequences: what a map can be fitted on.
///
/// # Errors
/// Only what candle reports.
pub fn fittable(dataset: &Dataset, titles: &Tensor) -> Result<Vec<ItemIndex>, ColdError> {
    let sizes: Vec<f32> = titles.abs()?.sum(D::Minus1)?.to_vec1()?;
    let counts = dataset.training_counts();
    let there = |row: &usize| counts[*row] > 0 && sizes[*row] > 0.0;
    let rows = (1..counts.len().min(sizes.len())).filter(there);
    Ok(rows.map(|row| ItemIndex(row as u32)).collect())
}

/// Some rows of a table, as f32 on the CPU.
///
/// # Errors
/// A row that is not there.
pub fn rows_of(table: &Tensor, rows: &[ItemIndex]) -> Result<Tensor, ColdError> {
    let table = table.to_device(&Device::Cpu)?.to_dtype(DType::F32)?;
    let rows: Vec<u32> = rows.iter().map(|item| item.0).collect();
    Ok(table.index_select(&Tensor::new(rows, &Device::Cpu)?, 0)?)
}

impl Experiment<'_> {
    /// Chooses a map and measures it; [`ColdReport::shipped`] is given.
    ///
    /// # Errors
    /// Too few items or no targets; what the model reports.
    pub fn run(&self, shipped: Shipped) -> Result<ColdReport, ColdError> {
        let table = self.table()?;
        let warm = fittable(self.warm, self.titles)?;
        let (tried, choosing) = self.choose(&table, &warm)?;
        let best = tried[0].choice;
        let sequences = (0..self.dataset.num_users()).map(|user| self.dataset.sequence(user));
        let (cases, without_history) = cases::find(sequences, self.held_out);
        if cases.is_empty() {
            let items = self.held_out.len();
            return Err(ColdError::NoTargets { items });
        }
        let map = TitleMap::fit(
            best,
            &rows_of(self.titles, &warm)?,
            &rows_of(&table, &warm)?,
        )?;
        let filled = self.filled(&table, &map, self.held_out)?;
        let by_map = cases::places(&self.users(&cases)?, &filled, &cases, self.held_out)?;
        let titles = self.titles.to_dtype(DType::F32)?;
        let by_title = self.mean_titles(&cases)?;
        let by_title = cases::places(&by_title, &titles, &cases, self.held_out)?;
        let by_map: Vec<[f64; 4]> = by_map.iter().map(hits).collect();
        let by_title: Vec<[f64; 4]> = by_title.iter().map(hits).collect();
        let chance: Vec<[f64; 4]> = cases.iter().map(|case| self.chance(case)).collect();
        let less = |(a, b): (&[f64; 4], &[f64; 4])| std::array::from_fn(|at| a[at] - b[at]);
        let difference: Vec<[f64; 4]> = by_map.iter().zip(&by_title).map(less).collect();
        let row = |system: &str, values: &[[f64; 4]]| self.row(system, &cases, values);
        let users: BTreeSet<usize> = cases.iter().map(|case| case.user).collect();
        Ok(ColdReport {
            items: self.dataset.num_items(),
            held_out: self.held_out.len(),
            targets: cases.len(),
            users: users.len(),
            without_history,
            choosing,
            tried,
            systems: vec![
                row("at random (expected)", &chance),
                row("cosine to the history's titles", &by_title),
                row("map from titles, SASRec", &by_map),
            ],
            difference: row("map - cosine", &difference),
            shipped,
        })
    }

    /// Ranks trained items by maps that were fitted without them: every map, best first, and how many
    /// items and targets chose.
    fn choose(
        &self,
        table: &Tensor,
        warm: &[ItemIndex],
    ) -> Result<(Vec<Tried>, [usize; 2]), ColdError> {
        let second = held_out::sample(warm, self.held_out.len(), self.seed.wrapping_add(1));
        let rest: Vec<ItemIndex> = (warm.iter().copied())
            .filter(|item| second.binary_search(item).is_err())
            .collect();
        let sequences = (0..self.warm.num_users()).map(|user| self.warm.training_sequence(user));
        let (found, _) = cases::find(sequences, &second);
        let cases = cases::spread(found, CHOOSING);
        if cases.is_empty() {
            let items = second.len();
            return Err(ColdError::NoTargets { items });
        }
        let users = self.users(&cases)?;
        let (titles, items) = (rows_of(self.titles, &rest)?, rows_of(table, &rest)?);
        let trained = rows_of(table, &second)?;
        let mut tried = Vec::new();
        for choice in MapChoice::grid() {
            if choice.check(rest.len()).is_err() {
                continue; // More neighbours than items.
            }
            let map = TitleMap::fit(choice, &titles, &items)?;
            let filled = self.filled(table, &map, &second)?;
            let places = cases::places(&users, &filled, &cases, &second)?;
            let hits = places.iter().filter(|place| place.all <= 10).count();
            tried.push(Tried {
                choice,
                hr_10: hits as f64 / cases.len() as f64,
                cosine: mean_cosine(&rows_of(&filled, &second)?, &trained)?,
            });
        }
        // Stable: the first of equals stays first.
        tried.sort_by(|a, b| {
            b.hr_10
                .total_cmp(&a.hr_10)
                .then(b.cosine.total_cmp(&a.cosine))
        });
        Ok((tried, [second.len(), cases.len()]))
    }

    fn table(&self) -> Result<Tensor, ColdError> {
        let table = self.model.item_embeddings()?.detach();
        Ok(table.to_device(&Device::Cpu)?.to_dtype(DType::F32)?)
    }

    /// The table with what the map gives for some rows.
    fn filled(
        &self,
        table: &Tensor,
        map: &TitleMap,
        rows: &[ItemIndex],
    ) -> Result<Tensor, ColdError> {
        let new: Vec<Vec<f32>> = map.embeddings(&rows_of(self.titles, rows)?)?.to_vec2()?;
        let (count, size) = table.dims2()?;
        let mut values: Vec<f32> = table.flatten_all()?.to_vec1()?;
        for (item, new) in rows.iter().zip(&new) {
            values[item.row() * size..][..size].copy_from_slice(new);
        }
        Ok(Tensor::from_vec(values, (count, size), &Device::Cpu)?)
    }

    /// User vectors `[cases, D]`.
    fn users(&self, cases: &[Case]) -> Result<Tensor, ColdError> {
        let histories: Vec<&[ItemIndex]> = cases.iter().map(|case| &case.history[..]).collect();
        let vectors = user_vectors(self.model, &histories)?;
        let size = vectors.first().map_or(0, Vec::len);
        let shape = (vectors.len(), size);
        Ok(Tensor::from_vec(vectors.concat(), shape, &Device::Cpu)?)
    }

    /// Mean title vector of each history, `[cases, T]`. Its length does not change an order, and the
    /// titles have length 1, so its products rank as cosines do.
    fn mean_titles(&self, cases: &[Case]) -> Result<Tensor, ColdError> {
        let titles: Vec<Vec<f32>> = self.titles.to_dtype(DType::F32)?.to_vec2()?;
        let size = self.titles.dims2()?.1;
        let mut means = vec![0f32; cases.len() * size];
        for (case, mean) in cases.iter().zip(means.chunks_mut(size.max(1))) {
            for item in &case.history {
                for (sum, value) in mean.iter_mut().zip(&titles[item.row()]) {
                    *sum += value / case.history.len() as f32;
                }
            }
        }
        Ok(Tensor::from_vec(means, (cases.len(), size), &Device::Cpu)?)
    }

    /// What a random order is expected to have.
    fn chance(&self, case: &Case) -> [f64; 4] {
        let seen: BTreeSet<&ItemIndex> = case.history.iter().collect();
        let all = (self.dataset.num_items() - seen.len()) as f64;
        let cold = self.held_out.len() as f64;
        [10.0 / all, 50.0 / all, 10.0 / cold, 50.0 / cold].map(|share| share.min(1.0))
    }

    fn row(&self, system: &str, cases: &[Case], values: &[[f64; 4]]) -> ColdRow {
        let means = mean_of_users(cases, values);
        let [all_10, all_50, cold_10, cold_50] = intervals_of_means(&means, self.seed);
        ColdRow {
            system: system.to_owned(),
            all_10,
            all_50,
            cold_10,
            cold_50,
        }
    }
}

fn hits(places: &Places) -> [f64; 4] {
    let hit = |place: u32, most: u32| f64::from(u8::from(place <= most));
    [
        hit(places.all, 10),
        hit(places.all, 50),
        hit(places.cold, 10),
        hit(places.cold, 50),
    ]
}

/// The mean of each user's cases, which stand one after the other.
fn mean_of_users(cases: &[Case], values: &[[f64; 4]]) -> Vec<[f64; 4]> {
    let mut means = Vec::new();
    let mut start = 0;
    for group in cases.chunk_by(|a, b| a.user == b.user) {
        let mut mean = [0.0; 4];
        for value in &values[start..start + group.len()] {
            for (mean, value) in mean.iter_mut().zip(value) {
                *mean += value / group.len() as f64;
            }
        }
        start += group.len();
        means.push(mean);
    }
    means
}

fn mean_cosine(a: &Tensor, b: &Tensor) -> Result<f64, ColdError> {
    let length = |x: &Tensor| x.sqr()?.sum(D::Minus1)?.sqrt();
    let products = (a * b)?.sum(D::Minus1)?;
    let lengths = (length(a)? * length(b)?)?.maximum(f32::MIN_POSITIVE)?;
    let cosines = (products / lengths)?;
    Ok(f64::from(cosines.mean_all()?.to_scalar::<f32>()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_with_many_targets_counts_once() {
        let case = |user| Case {
            user,
            history: vec![ItemIndex(1)],
            target: ItemIndex(2),
        };
        let cases = [case(3), case(3), case(5)];
        let values = [[1.0, 1.0, 0.0, 1.0], [0.0, 1.0, 0.0, 1.0], [1.0; 4]];
        let means = mean_of_users(&cases, &values);
        assert_eq!(means, [[0.5, 1.0, 0.0, 1.0], [1.0; 4]]);
    }

    #[test]
    fn hits_and_cosines_by_hand() {
        let at = |all, cold| hits(&Places { all, cold });
        assert_eq!(at(10, 11), [1.0, 1.0, 0.0, 1.0]);
        assert_eq!(at(51, 50), [0.0, 0.0, 0.0, 1.0]);
        let table = |rows: [[f32; 2]; 2]| Tensor::new(&rows, &Device::Cpu).expect("a table");
        let (a, b) = (
            table([[3.0, 4.0], [0.0, 0.0]]),
            table([[4.0, 3.0], [1.0, 1.0]]),
        );
        assert!((mean_cosine(&a, &b).expect("a cosine") - 0.48).abs() < 1e-6);
    }
}
