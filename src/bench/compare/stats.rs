//! What several runs of one measurement say.

/// Values of one kind, in ascending order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample(Vec<f64>);

impl FromIterator<f64> for Sample {
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        Self(values)
    }
}

impl Sample {
    /// The value below which a share of the values lies: one that occurred (nearest rank). NaN of an empty sample.
    pub fn percentile(&self, share: f64) -> f64 {
        let rank = (self.0.len() as f64 * share).ceil() as usize;
        self.0.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
    }

    /// The middle value, or the mean of the two in the middle.
    pub fn median(&self) -> f64 {
        let middle = self.0.len() / 2;
        match (self.0.len().is_multiple_of(2), middle.checked_sub(1).and_then(|below| self.0.get(below))) {
            (true, Some(below)) => (below + self.0[middle]) / 2.0,
            _ => self.0.get(middle).copied().unwrap_or(f64::NAN),
        }
    }

    /// The highest value.
    pub fn highest(&self) -> f64 {
        self.percentile(1.0)
    }

    /// Median, 10th and 90th percentile as cells of a table.
    pub fn cells(&self, decimals: usize) -> [String; 3] {
        [self.median(), self.percentile(0.1), self.percentile(0.9)].map(|value| format!("{value:.decimals$}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_of_values_lies_between_the_two_in_the_middle() {
        assert_eq!([4.0, 1.0, 2.0, 3.0].into_iter().collect::<Sample>().median(), 2.5);
        assert_eq!([3.0, 1.0, 2.0].into_iter().collect::<Sample>().median(), 2.0);
    }

    #[test]
    fn percentiles_are_values_that_occurred() {
        let sample: Sample = (1..=10).map(f64::from).collect();
        assert_eq!([0.1, 0.9, 0.99, 1.0].map(|share| sample.percentile(share)), [1.0, 9.0, 10.0, 10.0]);
        assert_eq!([7.0].into_iter().collect::<Sample>().percentile(0.1), 7.0);
    }

    #[test]
    fn an_empty_sample_has_no_figures() {
        assert!(Sample::default().median().is_nan() && Sample::default().percentile(0.9).is_nan());
    }
}
