//! Percentiles and medians.

use std::time::Duration;

/// Two points of a distribution.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Distribution {
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
}

impl Distribution {
    pub(crate) fn of(mut samples: Vec<Duration>) -> Self {
        samples.sort_unstable();
        let at = |percent: usize| {
            let index = (samples.len() * percent / 100).min(samples.len().saturating_sub(1));
            samples.get(index).copied().unwrap_or_default()
        };
        Self {
            p50: at(50),
            p99: at(99),
        }
    }
}

/// The middle one of several values.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// A duration in ms.
pub(crate) fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_and_medians_are_picked_from_the_sorted_values() {
        let samples = (1..=100).rev().map(Duration::from_millis).collect();
        let distribution = Distribution::of(samples);
        assert_eq!(distribution.p50, Duration::from_millis(51));
        assert_eq!(distribution.p99, Duration::from_millis(100));
        assert!((median([3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
    }
}
