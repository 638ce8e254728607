//! Order statistics. Means are not used, because on a shared machine outliers dominate them.

use serde::Serialize;

/// The samples of one figure.
#[derive(Debug, Default, Clone, Serialize)]
#[serde(transparent)]
pub(crate) struct Samples(Vec<f64>);

impl Samples {
    pub(crate) fn push(&mut self, sample: f64) {
        self.0.push(sample);
    }

    /// The value that `percent` of the samples do not exceed (nearest rank); NaN without samples.
    pub(crate) fn percentile(&self, percent: usize) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let rank = (percent * sorted.len()).div_ceil(100).max(1);
        sorted.get(rank - 1).copied().unwrap_or(f64::NAN)
    }

    /// The ratio of each sample to the base's sample of the same round, because the speed of the machine differs
    /// between rounds.
    pub(crate) fn ratios_to(&self, base: &Self) -> Self {
        self.0.iter().zip(&base.0).map(|(sample, base)| sample / base).collect()
    }

    pub(crate) fn median(&self) -> f64 {
        self.percentile(50)
    }

    pub(crate) fn min(&self) -> f64 {
        self.percentile(0)
    }

    pub(crate) fn max(&self) -> f64 {
        self.percentile(100)
    }
}

impl Extend<f64> for Samples {
    fn extend<I: IntoIterator<Item = f64>>(&mut self, samples: I) {
        self.0.extend(samples);
    }
}

impl FromIterator<f64> for Samples {
    fn from_iter<I: IntoIterator<Item = f64>>(samples: I) -> Self {
        Self(samples.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let hundred: Samples = (1..=100).rev().map(f64::from).collect();
        assert_eq!((hundred.median(), hundred.percentile(99)), (50.0, 99.0));
        assert_eq!((hundred.min(), hundred.max()), (1.0, 100.0));
        let three: Samples = [5.0, 1.0, 3.0].into_iter().collect();
        assert_eq!((three.median(), three.percentile(99)), (3.0, 5.0));
        assert!(Samples::default().median().is_nan());
    }

    #[test]
    fn ratios_are_of_the_same_round() {
        let ours: Samples = [8.0, 40.0, 9.0].into_iter().collect();
        let base: Samples = [10.0, 50.0, 10.0].into_iter().collect();
        assert_eq!(ours.ratios_to(&base).median(), 0.8);
    }
}
