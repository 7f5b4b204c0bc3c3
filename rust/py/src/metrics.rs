//! What a replica counts, as plain values.

use std::sync::atomic::Ordering;

use pyo3::prelude::*;
use qed_node::driver::Driver;
use qed_node::metrics::{Histogram, QUERIES};

const NANOSECONDS_A_SECOND: f64 = 1e9;

/// How often values were in each of some parts.
#[pyclass(frozen, get_all, module = "qed._qed")]
#[derive(Clone)]
pub struct Distribution {
    /// Upper ends of the parts.
    ends: Vec<f64>,
    /// How many values were in each part; the last one has those above all ends.
    counts: Vec<u64>,
    /// Sum of the values.
    sum: f64,
}

/// What a replica has done since it was started.
#[pyclass(frozen, get_all, module = "qed._qed")]
pub struct ReplicaMetrics {
    /// How long each step of an entry took, in seconds, by its name.
    steps: Vec<(&'static str, Distribution)>,
    /// How long answers took, in seconds, by what they are about.
    queries: Vec<(&'static str, Distribution)>,
    /// Events of the entries that this member has proposed.
    entry_events: Distribution,
    /// Events that wait to be added.
    waiting_events: usize,
    /// How often this member has learned of another leader.
    leader_changes: u64,
    /// Messages from other members that were dropped because too many waited.
    dropped_messages: u64,
    /// Events whose trees are in the newest image.
    image_events: u64,
    /// Images of the trees that could not be written.
    failed_images: u64,
    /// Bytes of memory that the trees take, by tree.
    tree_bytes: Vec<(&'static str, u64)>,
}

impl Distribution {
    #[expect(clippy::cast_precision_loss, reason = "a sum of hundreds of days loses some nanoseconds")]
    fn of(histogram: &Histogram, a_unit: f64) -> Self {
        let found = histogram.distribution();
        let scaled = |value: u64| value as f64 / a_unit;
        Self { ends: found.ends.iter().copied().map(scaled).collect(), counts: found.counts, sum: scaled(found.sum) }
    }

    fn of_durations(histogram: &Histogram) -> Self {
        Self::of(histogram, NANOSECONDS_A_SECOND)
    }
}

impl ReplicaMetrics {
    /// Return what a driver has counted.
    pub fn of(driver: &Driver) -> Self {
        let metrics = driver.metrics();
        let steps = [
            ("queue", &metrics.queue),
            ("sync", driver.syncs()),
            ("replicate", &metrics.replicate),
            ("apply", &metrics.apply),
            ("answer", &metrics.answer),
        ];
        let queries = QUERIES.iter().zip(&metrics.queries);
        Self {
            steps: steps.into_iter().map(|(name, times)| (name, Distribution::of_durations(times))).collect(),
            queries: queries.map(|(name, times)| (*name, Distribution::of_durations(times))).collect(),
            entry_events: Distribution::of(&metrics.entry_events, 1.0),
            waiting_events: driver.waiting_events(),
            leader_changes: metrics.leader_changes.load(Ordering::Relaxed),
            dropped_messages: metrics.dropped_messages.load(Ordering::Relaxed),
            image_events: driver.log().image_len(),
            failed_images: metrics.failed_images.load(Ordering::Relaxed),
            tree_bytes: driver.log().tree_bytes().to_vec(),
        }
    }
}
