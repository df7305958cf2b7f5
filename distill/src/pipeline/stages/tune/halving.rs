//! Successive halving (Jamieson and Talwalkar, 2016): many trials of few epochs, a third of them
//! longer, the best of these to the end. What is decided depends on the metrics alone, so a search
//! that was cut makes the same decisions again.

/// Trials of one round.
pub(super) const TRIALS: usize = 9;
/// What share goes on: one in so many, with as many times the epochs.
const SHARE: usize = 3;

/// One training.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) trial: usize,
    pub(super) epochs: usize,
}

/// The numbers of epochs of a round, ascending; the last is `epochs`.
pub(super) fn rungs(epochs: usize) -> Vec<usize> {
    let epochs = epochs.max(1);
    let mut found = vec![
        epochs.div_ceil(SHARE * SHARE),
        epochs.div_ceil(SHARE),
        epochs,
    ];
    found.dedup();
    found
}

/// What to train next: first the settings as they are (trial 0) to the end, then round by round.
/// `metric` knows what has been trained.
pub(super) fn next(epochs: usize, metric: &dyn Fn(Run) -> Option<f64>) -> Run {
    let start = Run { trial: 0, epochs };
    if metric(start).is_none() {
        return start;
    }
    let rungs = rungs(epochs);
    let mut first = 1;
    loop {
        let mut trials: Vec<usize> = (first..first + TRIALS).collect();
        for &epochs in &rungs {
            let mut measured = Vec::with_capacity(trials.len());
            for &trial in &trials {
                let run = Run { trial, epochs };
                match metric(run) {
                    Some(value) => measured.push((trial, value)),
                    None => return run,
                }
            }
            // Equal ones stay in the order in which they were drawn.
            measured.sort_by(|a, b| b.1.total_cmp(&a.1));
            measured.truncate(measured.len().div_ceil(SHARE));
            trials = measured.into_iter().map(|(trial, _)| trial).collect();
        }
        first += TRIALS;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(epochs: usize, runs: usize) -> Vec<Run> {
        let mut done: Vec<Run> = Vec::new();
        for _ in 0..runs {
            // The later a trial was drawn, the better it is.
            let metric = |run: Run| done.contains(&run).then_some(run.trial as f64);
            let run = next(epochs, &metric);
            done.push(run);
        }
        done
    }

    #[test]
    fn many_short_some_longer_one_to_the_end() {
        let done = order(18, 1 + 9 + 3 + 1 + 2);
        let run = |trial, epochs| Run { trial, epochs };
        assert_eq!(done[0], run(0, 18));
        assert_eq!(
            done[1..10],
            std::array::from_fn::<_, 9, _>(|i| run(i + 1, 2))
        );
        assert_eq!(done[10..14], [run(9, 6), run(8, 6), run(7, 6), run(9, 18)]);
        assert_eq!(done[14..], [run(10, 2), run(11, 2)]);
    }

    #[test]
    fn few_epochs_make_fewer_rungs() {
        assert_eq!(rungs(30), [4, 10, 30]);
        assert_eq!(rungs(4), [1, 2, 4]);
        assert_eq!(rungs(1), [1]);
        assert_eq!(rungs(0), [1]);
    }
}
