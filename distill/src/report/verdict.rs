//! Is the distilled student worth shipping?
//!
//! By the paired 95 % interval of NDCG@10 (full ranking, seen items removed) against everything
//! that is simpler. Better than all of it: yes. Level with or worse than any of it: no, and which.

use serde::Serialize;
use slmrec_core::Split;
use slmrec_core::bootstrap::Interval;
use slmrec_core::evaluation::Ranking;

use super::Gathered;
use crate::evaluate::names::{
    CE_ONLY, COOCCURRENCE_TUNED, SASREC, SASREC_TITLES, STUDENT, with_prior,
};
use crate::evaluate::{headline, paired_row};

/// What the page says on top.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// Better than everything simpler.
    Ship,
    /// Level with something simpler.
    NotShown,
    /// Worse than something simpler.
    DoNotShip,
    /// Not everything that is needed was measured.
    Unknown,
}

/// How a system stands to a reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// The interval lies above zero.
    Better,
    /// The interval holds zero.
    Level,
    /// The interval lies below zero.
    Worse,
}

impl Standing {
    /// Of a difference, system minus reference.
    #[must_use]
    pub fn of(interval: Interval) -> Self {
        match interval.excludes_zero() {
            false => Self::Level,
            true if interval.mean > 0.0 => Self::Better,
            true => Self::Worse,
        }
    }

    /// As a word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Better => "better",
            Self::Level => "level",
            Self::Worse => "worse",
        }
    }
}

/// One system against one other.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    /// What is asked.
    pub question: &'static str,
    /// The system.
    pub system: String,
    /// What it is compared with.
    pub reference: String,
    /// The measured difference; `None` where one of them was not evaluated.
    pub measured: Option<Difference>,
    /// Whether the decision goes by it.
    pub decides: bool,
}

/// System minus reference.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Difference {
    /// Of HR@10.
    pub hr_10: Interval,
    /// Of NDCG@10.
    pub ndcg_10: Interval,
    /// By NDCG@10.
    pub standing: Standing,
}

/// The decision and its reasons.
#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    /// The decision.
    pub decision: Decision,
    /// It as one sentence.
    pub sentence: String,
    /// The system that would be shipped.
    pub system: Option<String>,
    /// Against what it was compared.
    pub lines: Vec<Line>,
    /// What to keep in mind.
    pub caveats: Vec<String>,
}

/// Decides.
#[must_use]
pub fn of(gathered: &Gathered) -> Verdict {
    let names: Vec<&str> = gathered
        .evaluations
        .iter()
        .map(|e| e.name.as_str())
        .collect();
    let Some(at) = headline(&names) else {
        return Verdict {
            decision: Decision::Unknown,
            sentence: "Not known: no distilled student was evaluated.".into(),
            system: None,
            lines: Vec::new(),
            caveats: Vec::new(),
        };
    };
    let system = names[at].to_owned();
    let lines = lines(gathered, &system);
    let (decision, sentence) = decide(&lines);
    Verdict {
        decision,
        sentence,
        system: Some(system),
        lines,
        caveats: caveats(gathered),
    }
}

fn lines(gathered: &Gathered, system: &str) -> Vec<Line> {
    let line = |question, system: &str, reference: String, decides| Line {
        question,
        measured: difference(gathered, system, &reference),
        system: system.to_owned(),
        reference,
        decides,
    };
    let prior = gathered.stage("prior").is_some();
    let served = |name: &str| gathered.served(name);
    let beside = |name: &str| match prior && system != STUDENT {
        true => with_prior(name),
        false => name.to_owned(),
    };
    // Its twin without a teacher is not refitted, so it stands against the student that is not either.
    let taught = match served(STUDENT) == STUDENT {
        true => system.to_owned(),
        false => beside(STUDENT),
    };
    let question = "the same student without a teacher";
    let sasrec = served(SASREC);
    let mut lines = vec![
        line(question, &taught, beside(CE_ONLY), true),
        line("the usual neural model", system, sasrec.clone(), true),
    ];
    if prior {
        let sasrec = with_prior(&sasrec);
        lines.push(line("the same with counts beside it", system, sasrec, true));
        let counts = COOCCURRENCE_TUNED.into();
        lines.push(line("counting alone", system, counts, true));
    }
    if gathered.ranks_of(SASREC_TITLES).is_some() {
        let (question, titles) = match prior {
            true => (
                "the usual model with titles, counts beside it",
                with_prior(&served(SASREC_TITLES)),
            ),
            false => ("the usual model with titles", served(SASREC_TITLES)),
        };
        lines.push(line(question, system, titles, true));
    }
    let question = "what distillation adds, without counts";
    lines.push(line(question, STUDENT, CE_ONLY.into(), false));
    let student = with_prior(&served(STUDENT));
    if system != served(STUDENT) && system != student && gathered.ranks_of(&student).is_some() {
        lines.push(line(
            "what the bundle's precision costs",
            system,
            student,
            false,
        ));
    }
    lines
}

fn difference(gathered: &Gathered, system: &str, reference: &str) -> Option<Difference> {
    let (system, reference) = (gathered.ranks_of(system)?, gathered.ranks_of(reference)?);
    let row = paired_row(system, reference)?;
    let difference = row.difference.get(Ranking::SeenRemoved);
    Some(Difference {
        hr_10: difference.hr_10,
        ndcg_10: difference.ndcg_10,
        standing: Standing::of(difference.ndcg_10),
    })
}

fn decide(lines: &[Line]) -> (Decision, String) {
    let with = |standing: Option<Standing>| -> Vec<&str> {
        let deciding = lines.iter().filter(|line| line.decides);
        deciding
            .filter(|line| line.measured.map(|m| m.standing) == standing)
            .map(|line| line.reference.as_str())
            .collect()
    };
    let worse = with(Some(Standing::Worse));
    let level = with(Some(Standing::Level));
    let unmeasured = with(None);
    let verb = |names: &[&str], one: &'static str, several: &'static str| match names.len() {
        1 => one,
        _ => several,
    };
    if !worse.is_empty() {
        let ranks = verb(
            &worse,
            "ranks better and is simpler",
            "rank better and are simpler",
        );
        let sentence = format!("No: {} {ranks}.", listed(&worse));
        (Decision::DoNotShip, sentence)
    } else if !level.is_empty() {
        let simpler = verb(&level, "which is simpler", "which are simpler");
        let sentence = format!(
            "Not shown: it is level with {}, {simpler}. The 95 % interval of the difference holds zero.",
            listed(&level)
        );
        (Decision::NotShown, sentence)
    } else if !unmeasured.is_empty() {
        let was = verb(&unmeasured, "was", "were");
        let sentence = format!("Not known: {} {was} not evaluated.", listed(&unmeasured));
        (Decision::Unknown, sentence)
    } else {
        let sentence = "Yes: it ranks better than everything simpler that was measured.".to_owned();
        (Decision::Ship, sentence)
    }
}

fn listed(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("“{name}”")).collect();
    quoted.join(" and ")
}

fn caveats(gathered: &Gathered) -> Vec<String> {
    let mut caveats = Vec::new();
    if let Some(comparison) = &gathered.comparison
        && comparison.split == Split::Validation
    {
        caveats.push(
            "These are the validation targets, by which epochs and weights were chosen: the figures flatter every trained system."
                .to_owned(),
        );
    }
    let seed = gathered
        .stage("student")
        .map(|record| &record.settings["seed"]);
    if let Some(seed) = seed {
        caveats.push(format!(
            "One training run (seed {seed}): the intervals are over users, not over seeds."
        ));
    }
    caveats.push(
        "Each comparison stands by itself: the intervals are not corrected for their number."
            .to_owned(),
    );
    caveats
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(reference: &str, interval: Option<[f64; 3]>) -> Line {
        let measured = interval.map(|[low, mean, high]| {
            let ndcg_10 = Interval { mean, low, high };
            Difference {
                hr_10: ndcg_10,
                ndcg_10,
                standing: Standing::of(ndcg_10),
            }
        });
        Line {
            question: "",
            system: "s".into(),
            reference: reference.into(),
            measured,
            decides: true,
        }
    }

    #[test]
    fn one_simpler_system_that_is_as_good_is_enough_for_a_no() {
        let better = line("a", Some([0.1, 0.2, 0.3]));
        let level = line("b", Some([-0.1, 0.2, 0.3]));
        let worse = line("c", Some([-0.3, -0.2, -0.1]));
        let unmeasured = line("d", None);
        let of = |lines: &[&Line]| {
            let lines: Vec<Line> = lines.iter().map(|&line| line.clone()).collect();
            decide(&lines)
        };
        assert_eq!(of(&[&better]).0, Decision::Ship);
        assert_eq!(of(&[&better, &unmeasured]).0, Decision::Unknown);
        let (decision, sentence) = of(&[&better, &level, &unmeasured]);
        assert_eq!(decision, Decision::NotShown);
        assert!(
            sentence.contains("“b”") && !sentence.contains("“a”"),
            "{sentence}"
        );
        let (decision, sentence) = of(&[&better, &level, &worse]);
        assert_eq!(decision, Decision::DoNotShip);
        assert!(sentence.contains("“c”"), "{sentence}");
        let aside = Line {
            decides: false,
            ..worse.clone()
        };
        assert_eq!(of(&[&better, &aside]).0, Decision::Ship);
    }
}
