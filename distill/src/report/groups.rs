//! The main systems on parts of the users: by how popular the target is, by how long the history.

use rayon::prelude::*;
use slmrec_core::bootstrap::{Interval, intervals};
use slmrec_core::metrics::Metric;
use slmrec_core::{Dataset, Evaluation};

use super::Gathered;
use crate::evaluate::names::{CE_ONLY, COOCCURRENCE_TUNED, SASREC, STUDENT, with_prior};
use crate::evaluate::{EvaluateError, PopularItems, held_out_cases};

/// A target with at most so many training interactions is cold.
pub const COLD: u32 = 5;

/// One way to part the users.
#[derive(Clone, Debug)]
pub struct GroupTable {
    /// By what.
    pub title: &'static str,
    /// What the groups are.
    pub note: String,
    /// Their names and sizes.
    pub groups: Vec<(String, usize)>,
    /// A system and its HR@10 and NDCG@10 in each group.
    pub rows: Vec<(String, Vec<[Interval; 2]>)>,
}

/// The systems that the page follows through the groups, as far as they were evaluated.
#[must_use]
pub fn main_systems(gathered: &Gathered, shipped: Option<&str>) -> Vec<String> {
    let student = with_prior(&gathered.served(STUDENT));
    let sasrec = with_prior(&gathered.served(SASREC));
    let wanted = [
        COOCCURRENCE_TUNED,
        SASREC,
        &sasrec,
        CE_ONLY,
        STUDENT,
        &student,
    ];
    let mut systems: Vec<String> = wanted.map(str::to_owned).to_vec();
    if let Some(shipped) = shipped
        && !systems.iter().any(|name| name == shipped)
    {
        systems.push(shipped.to_owned());
    }
    systems.retain(|name| gathered.ranks_of(name).is_some());
    systems
}

/// Both ways, for the systems of [`main_systems`].
///
/// # Errors
/// Ranks of users that the dataset does not have.
pub fn of(
    gathered: &Gathered,
    dataset: &Dataset,
    systems: &[String],
) -> Result<Vec<GroupTable>, EvaluateError> {
    let evaluations: Vec<&Evaluation> = (systems.iter())
        .filter_map(|name| gathered.ranks_of(name))
        .collect();
    let Some(first) = evaluations.first() else {
        return Ok(Vec::new());
    };
    let users: Vec<usize> = first.users.iter().map(|&user| user as usize).collect();
    let cases = held_out_cases(dataset, first.split, Some(&users))?;
    let popular = PopularItems::of(dataset);
    let by_target: Vec<usize> = (cases.iter())
        .map(|case| match popular.count(case.target) {
            count if count <= COLD => 0,
            _ if popular.contains(case.target) => 2,
            _ => 1,
        })
        .collect();
    let mut lengths: Vec<usize> = cases.iter().map(|case| case.history.len()).collect();
    let by_length = lengths.clone();
    lengths.sort_unstable();
    let third = lengths[lengths.len() / 3];
    let two_thirds = lengths[2 * lengths.len() / 3];
    let by_length: Vec<usize> = (by_length.iter())
        .map(|&length| usize::from(length > third) + usize::from(length > two_thirds))
        .collect();
    let target_note = format!(
        "Cold: at most {COLD} training interactions. Popular: one of the {} items that together have half of all training interactions. Medium: the rest.",
        popular.len()
    );
    let length_note = "Cut so that each group has about a third of the users.".to_owned();
    Ok(vec![
        table(
            "Popularity of the target",
            target_note,
            ["cold", "medium", "popular"].map(str::to_owned),
            &by_target,
            &evaluations,
        ),
        table(
            "Length of the history",
            length_note,
            [
                format!("short (up to {third})"),
                format!("middle (up to {two_thirds})"),
                format!("long (over {two_thirds})"),
            ],
            &by_length,
            &evaluations,
        ),
    ])
}

fn table(
    title: &'static str,
    note: String,
    names: [String; 3],
    group_of: &[usize],
    evaluations: &[&Evaluation],
) -> GroupTable {
    let size = |group: usize| group_of.iter().filter(|&&g| g == group).count();
    let row = |evaluation: &&Evaluation| {
        let of_group = |group: usize| {
            let ranks = evaluation.ranks.seen_removed.iter().zip(group_of);
            let ranks: Vec<u32> = ranks
                .filter(|&(_, &g)| g == group)
                .map(|(&rank, _)| rank)
                .collect();
            let metrics = [Metric::HitRate(10), Metric::Ndcg(10)];
            intervals(&ranks, metrics, evaluation.protocol.seed)
        };
        (
            evaluation.name.clone(),
            (0..names.len()).map(of_group).collect(),
        )
    };
    let rows = evaluations.par_iter().map(row).collect();
    GroupTable {
        title,
        note,
        groups: names
            .into_iter()
            .enumerate()
            .map(|(at, name)| (name, size(at)))
            .collect(),
        rows,
    }
}
