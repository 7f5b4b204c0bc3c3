//! What the threads of a replica have done, and how long each step of an entry took: counted while they work, read at any time.
//!
//! An entry is *queued* from the arrival of its oldest request until it is proposed, *replicated* until it is known to be committed,
//! *applied* until its results are known, and *answered* until the caller takes them. Its frame is written and *synced* within the
//! second of these.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper ends of the parts of a histogram of durations, in nanoseconds: from 50 µs to 10 s.
pub const NANOSECONDS: [u64; 17] = [
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
];

/// Upper ends of the parts of a histogram of numbers of events.
pub const EVENTS: [u64; 13] = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000];

/// What queries are about, by name.
pub const QUERIES: [&str; 9] =
    ["membership", "absence", "incremental", "snapshot", "receipts", "tile", "page", "backup", "bulk"];

/// How often values were in each of some parts, and their sum. Any thread may add to it.
#[derive(Debug)]
pub struct Histogram {
    ends: &'static [u64],
    /// One more than there are ends: the last one is for values above all of them.
    counts: Vec<AtomicU64>,
    sum: AtomicU64,
}

/// The content of a [`Histogram`] at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Distribution {
    /// Upper ends of the parts, in the unit of the values.
    pub ends: &'static [u64],
    /// How many values were in each part; the last one has those above all ends.
    pub counts: Vec<u64>,
    /// Sum of the values.
    pub sum: u64,
}

impl Histogram {
    fn of(ends: &'static [u64]) -> Self {
        let counts = std::iter::repeat_with(AtomicU64::default).take(ends.len() + 1).collect();
        Self { ends, counts, sum: AtomicU64::new(0) }
    }

    /// Count a value.
    pub fn add(&self, value: u64) {
        let part = self.ends.partition_point(|end| *end < value);
        if let Some(count) = self.counts.get(part) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// Count a duration.
    pub fn add_duration(&self, duration: Duration) {
        self.add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Return what was counted. Values that are added meanwhile may be in the sum alone, or in a part alone.
    #[must_use]
    pub fn distribution(&self) -> Distribution {
        let counts = self.counts.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        Distribution { ends: self.ends, counts, sum: self.sum.load(Ordering::Relaxed) }
    }
}

/// A histogram of durations.
impl Default for Histogram {
    fn default() -> Self {
        Self::of(&NANOSECONDS)
    }
}

/// What a replica counts.
#[derive(Debug)]
pub struct Metrics {
    /// From the arrival of the oldest request of an entry until the entry was proposed here.
    pub queue: Histogram,
    /// From then until it was known to be committed.
    pub replicate: Histogram,
    /// From then, on every member, until it was applied.
    pub apply: Histogram,
    /// From the first result that is ready until the caller takes all that are.
    pub answer: Histogram,
    /// Events of the entries that were proposed here.
    pub entry_events: Histogram,
    /// How long each kind of query took, without its wait, in the order of [`QUERIES`].
    pub queries: Vec<Histogram>,
    /// How often this member has learned of another leader.
    pub leader_changes: AtomicU64,
    /// Messages from other members that were dropped because too many waited.
    pub dropped_messages: AtomicU64,
    /// Images of the trees that could not be written.
    pub failed_images: AtomicU64,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            queue: Histogram::default(),
            replicate: Histogram::default(),
            apply: Histogram::default(),
            answer: Histogram::default(),
            entry_events: Histogram::of(&EVENTS),
            queries: std::iter::repeat_with(Histogram::default).take(QUERIES.len()).collect(),
            leader_changes: AtomicU64::new(0),
            dropped_messages: AtomicU64::new(0),
            failed_images: AtomicU64::new(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_counted_in_the_first_part_that_does_not_end_below_it() {
        let histogram = Histogram::of(&EVENTS);
        for value in [0, 1, 2, 3, 10_000, 10_001, u64::from(u32::MAX)] {
            histogram.add(value);
        }
        let found = histogram.distribution();
        assert_eq!(found.counts, [2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!(found.sum, 20_007 + u64::from(u32::MAX));
        assert_eq!(found.counts.len(), found.ends.len() + 1);
    }

    #[test]
    fn durations_are_counted_in_nanoseconds() {
        let histogram = Histogram::default();
        histogram.add_duration(Duration::from_micros(50));
        histogram.add_duration(Duration::from_micros(51));
        histogram.add_duration(Duration::from_hours(1));
        let found = histogram.distribution();
        assert_eq!((found.counts.first(), found.counts.get(1), found.counts.last()), (Some(&1), Some(&1), Some(&1)));
        assert_eq!(found.sum, 3_600_000_101_000);
    }
}
