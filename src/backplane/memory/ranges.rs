//! Ranges of numbers that may be added in any order.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

/// Numbers above a watermark, as ranges that neither overlap nor touch.
#[derive(Debug, Default)]
pub(super) struct Ranges {
    /// The first number of each range, with its last one.
    ends: BTreeMap<u64, u64>,
}

impl Ranges {
    /// Adds the numbers of a range, and returns the watermark raised over all numbers that follow it
    /// without a hole.
    pub fn raise(&mut self, watermark: u64, added: &RangeInclusive<u64>) -> u64 {
        let (start, end) = (*added.start(), *added.end());
        // 0 is no number. A range below the watermark adds nothing.
        let start = start.max(watermark.saturating_add(1));
        if end < start {
            return watermark;
        }
        self.insert(start, end);
        match self.ends.first_key_value() {
            Some((&first, &last)) if first <= watermark.saturating_add(1) => {
                self.ends.pop_first();
                last
            }
            _ => watermark,
        }
    }

    /// The ranges, ascending.
    pub fn to_vec(&self) -> Vec<RangeInclusive<u64>> {
        let ranges = self.ends.iter().map(|(&first, &last)| first..=last);
        ranges.collect()
    }

    pub fn clear(&mut self) {
        self.ends.clear();
    }

    /// Inserts a range, united with those that it overlaps or touches.
    fn insert(&mut self, mut start: u64, mut end: u64) {
        if let Some((&first, &last)) = self.ends.range(..start).next_back()
            && last.saturating_add(1) >= start
        {
            start = first;
            end = end.max(last);
        }
        while let Some((&first, &last)) = self.ends.range(start..).next() {
            if first > end.saturating_add(1) {
                break;
            }
            self.ends.remove(&first);
            end = end.max(last);
        }
        self.ends.insert(start, end);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_largest_number_is_the_end_of_a_range() {
        let mut ranges = Ranges::default();
        assert_eq!(ranges.raise(5, &(7..=u64::MAX)), 5);
        assert_eq!(ranges.raise(5, &(9..=u64::MAX)), 5);
        assert_eq!(ranges.raise(5, &(6..=6)), u64::MAX);
        assert_eq!(ranges.raise(u64::MAX, &(6..=u64::MAX)), u64::MAX);
    }

    proptest! {
        #[test]
        fn a_watermark_ends_before_the_first_missing_number(
            added in prop::collection::vec((0_u64..40, 0_u64..12), 0..30)
        ) {
            let (mut ranges, mut watermark) = (Ranges::default(), 0);
            let mut numbers = BTreeSet::new();
            for (start, length) in added {
                // `length` 0 makes an empty range.
                let range = start + 1..=start + length;
                numbers.extend(range.clone());
                watermark = ranges.raise(watermark, &range);
                let first_missing = (1..).find(|number| !numbers.contains(number));
                prop_assert_eq!(Some(watermark + 1), first_missing);
                let ahead: usize = ranges.ends.iter().map(|(a, b)| (b - a + 1) as usize).sum();
                prop_assert_eq!(ahead, numbers.iter().filter(|n| **n > watermark).count());
            }
        }
    }
}
