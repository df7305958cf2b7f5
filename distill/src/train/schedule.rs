//! Linear warm-up, then half a cosine down to a floor.

/// Learning rate by step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// Highest learning rate, reached at the end of the warm-up.
    pub peak: f64,
    /// The last step has `peak * floor`.
    pub floor: f64,
    /// Steps of warm-up; they count as part of `total_steps`.
    pub warmup_steps: u64,
    /// Steps of the whole run.
    pub total_steps: u64,
}

impl Schedule {
    /// The learning rate of step `step` (from 1). Step `warmup_steps` has the peak, the last step
    /// the floor; after it the floor stays.
    #[must_use]
    pub fn learning_rate(&self, step: u64) -> f64 {
        let warmup = self.warmup_steps.min(self.total_steps);
        if step < warmup {
            return self.peak * step as f64 / warmup as f64;
        }
        let left = self.total_steps.saturating_sub(warmup);
        let done = step.saturating_sub(warmup).min(left);
        let share = if left == 0 {
            0.0
        } else {
            done as f64 / left as f64
        };
        let cosine = 0.5 * (1.0 + (std::f64::consts::PI * share).cos());
        self.peak * (self.floor + (1.0 - self.floor) * cosine)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rises_to_the_peak_and_falls_to_the_floor() {
        let schedule = Schedule {
            peak: 2.0,
            floor: 0.1,
            warmup_steps: 4,
            total_steps: 12,
        };
        let near = |step, expected: f64| {
            let found = schedule.learning_rate(step);
            assert!((found - expected).abs() < 1e-12, "step {step}: {found}");
        };
        near(1, 0.5);
        near(4, 2.0);
        near(8, 2.0 * (0.1 + 0.9 * 0.5));
        near(12, 0.2);
        near(100, 0.2);
    }

    #[test]
    fn a_run_shorter_than_its_warmup_stays_finite() {
        let schedule = Schedule {
            peak: 1.0,
            floor: 0.0,
            warmup_steps: 10,
            total_steps: 3,
        };
        for step in 0..6 {
            assert!((0.0..=1.0).contains(&schedule.learning_rate(step)));
        }
    }
}
