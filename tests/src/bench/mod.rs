//! What every bench shares: rows, interleaved timing, quantiles.
//!
//! A bench is a program without the test harness that prints [`to_json`] of its rows on stdout and
//! nothing else there; `cargo xtask bench` runs it and shows the rows.

use serde::Serialize;

pub mod clock;
pub mod machine;
pub mod process;

use clock::cpu_ms;

/// What was measured, beside what it is compared with.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// What ran, for people.
    pub case: String,
    /// What was measured, with its unit; smaller is better.
    pub metric: String,
    /// Our figure.
    pub ours: f64,
    /// Tenth and ninetieth percentile of what our figure is the median of.
    pub spread: Option<[f64; 2]>,
    /// Whom we are compared with.
    pub peer: Option<String>,
    /// The peer's figure.
    pub theirs: Option<f64>,
    /// `ours / theirs`.
    pub ratio: Option<f64>,
    /// Largest ratio that is good enough.
    pub goal: Option<f64>,
}

impl Row {
    /// A figure that is compared with nothing.
    #[must_use]
    pub fn new(case: impl Into<String>, metric: impl Into<String>, ours: f64) -> Self {
        Self {
            case: case.into(),
            metric: metric.into(),
            ours,
            spread: None,
            peer: None,
            theirs: None,
            ratio: None,
            goal: None,
        }
    }

    /// Adds how far our figure scattered.
    #[must_use]
    pub fn spread(mut self, samples: &Samples) -> Self {
        self.spread = Some([0.1, 0.9].map(|q| samples.quantile(q)));
        self
    }

    /// Adds the peer.
    #[must_use]
    pub fn against(mut self, peer: impl Into<String>, theirs: f64) -> Self {
        self.peer = Some(peer.into());
        self.theirs = Some(theirs);
        self.ratio = Some(self.ours / theirs);
        self
    }

    /// Adds the largest ratio that is good enough.
    #[must_use]
    pub fn goal(mut self, ratio: f64) -> Self {
        self.goal = Some(ratio);
        self
    }
}

/// The rows as the JSON list that `cargo xtask bench` reads.
///
/// # Errors
/// A figure that is not finite, which JSON cannot hold.
pub fn to_json(rows: &[Row]) -> Result<String, serde_json::Error> {
    let mut figures = rows.iter().flat_map(|row| {
        let spread = row.spread.into_iter().flatten();
        [row.ours].into_iter().chain(row.theirs).chain(spread)
    });
    if let Some(bad) = figures.find(|figure| !figure.is_finite()) {
        let message = format!("a measured figure is {bad}");
        return Err(serde::ser::Error::custom(message));
    }
    serde_json::to_string_pretty(rows)
}

/// Measured values in ascending order.
#[derive(Clone, Debug, PartialEq)]
pub struct Samples(Vec<f64>);

impl Samples {
    /// Sorts the values.
    #[must_use]
    pub fn new(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        Self(values)
    }

    /// The value below which a share `q` of the values lies (nearest rank); NaN without values.
    #[must_use]
    pub fn quantile(&self, q: f64) -> f64 {
        let rank = (q * self.0.len() as f64).ceil().max(1.0) as usize;
        self.0.get(rank - 1).copied().unwrap_or(f64::NAN)
    }

    /// The values in another unit.
    #[must_use]
    pub fn scaled(&self, by: f64) -> Self {
        Self::new(self.0.iter().map(|value| value * by).collect())
    }

    /// The middle value.
    #[must_use]
    pub fn median(&self) -> f64 {
        self.quantile(0.5)
    }
}

/// Something to time.
pub type Subject<'a, E> = &'a mut dyn FnMut() -> Result<(), E>;

/// Something that tells its own time.
pub type Timed<'a, E> = Box<dyn FnMut() -> Result<f64, E> + 'a>;

/// Times each subject once a round, so that whatever disturbs the machine disturbs all of them;
/// the first `warm_up` rounds are not counted. CPU milliseconds of this process, in the order of
/// the subjects.
///
/// # Errors
/// The first error of a subject.
pub fn interleaved<E>(
    warm_up: usize,
    rounds: usize,
    subjects: &mut [Subject<'_, E>],
) -> Result<Vec<Samples>, E> {
    let timed = subjects.iter_mut().map(|subject| timed(&mut **subject));
    in_turns(warm_up, rounds, &mut timed.collect::<Vec<_>>())
}

/// A subject with the CPU milliseconds of this process.
pub fn timed<'a, E>(mut subject: impl FnMut() -> Result<(), E> + 'a) -> Timed<'a, E> {
    Box::new(move || {
        let start = cpu_ms();
        subject()?;
        Ok(cpu_ms() - start)
    })
}

/// [`interleaved`] for subjects that tell their own time, such as those of other processes.
///
/// # Errors
/// The first error of a subject.
pub fn in_turns<E>(
    warm_up: usize,
    rounds: usize,
    subjects: &mut [Timed<'_, E>],
) -> Result<Vec<Samples>, E> {
    let mut times = vec![Vec::with_capacity(rounds); subjects.len()];
    for round in 0..warm_up + rounds {
        for (subject, times) in subjects.iter_mut().zip(&mut times) {
            let time = subject()?;
            if round >= warm_up {
                times.push(time);
            }
        }
    }
    Ok(times.into_iter().map(Samples::new).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_measured_values() {
        let samples = Samples::new(vec![3.0, 1.0, 2.0, 10.0]);
        assert_eq!(samples.median(), 2.0);
        assert_eq!(samples.quantile(0.0), 1.0);
        assert_eq!(samples.quantile(0.9), 10.0);
        assert_eq!(samples.scaled(2.0).median(), 4.0);
        assert!(Samples::new(vec![]).median().is_nan());
    }

    #[test]
    fn subjects_take_turns() {
        let order = std::cell::RefCell::new(String::new());
        let mut a = || {
            order.borrow_mut().push('a');
            Ok::<(), ()>(())
        };
        let mut b = || {
            order.borrow_mut().push('b');
            Ok::<(), ()>(())
        };
        let times = interleaved(1, 2, &mut [&mut a, &mut b]).expect("no error");
        assert_eq!(order.into_inner(), "ababab");
        assert_eq!(times.iter().map(|t| t.0.len()).collect::<Vec<_>>(), [2, 2]);
    }

    #[test]
    fn rows_have_the_documented_fields() {
        let row = Row::new("c", "ms", 1.0)
            .spread(&Samples::new(vec![0.5, 1.0, 2.0]))
            .against("p", 4.0)
            .goal(0.5);
        let json: serde_json::Value =
            serde_json::from_str(&to_json(&[row]).expect("finite")).expect("JSON");
        let expected = serde_json::json!([{
            "case": "c", "metric": "ms", "ours": 1.0, "spread": [0.5, 2.0], "peer": "p",
            "theirs": 4.0, "ratio": 0.25, "goal": 0.5,
        }]);
        assert_eq!(json, expected);
        let nothing = Row::new("c", "ms", 1.0).spread(&Samples::new(vec![]));
        for bad in [Row::new("c", "ms", f64::NAN), nothing] {
            assert!(to_json(&[bad]).is_err());
        }
    }
}
