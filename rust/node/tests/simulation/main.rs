//! Clusters of real members on simulated disks and networks, one seed a run.
//!
//! A run that fails prints its seed and what happened; the same seed gives the same run on every machine. `QED_SIM_FIRST` sets the
//! first seed, and `QED_SIM_SEEDS` the number of runs.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod client;
mod counts;
mod disk;
mod faults;
mod host;
mod invariants;
mod network;
mod operator;
mod random;
mod restarts;
mod restore;
mod rollback;
mod runs;
mod sign_disk;
mod signatures;
mod signing;
mod weather;
mod world;

use counts::Counts;
use faults::{Fault, PLANTED, Planted};
use invariants::Violation;
use runs::{Runs, run};

/// What happens at least in a thousand runs: about half of the usual numbers. A run in which nothing happens breaks no invariant
/// either.
const LEAST_OF_THOUSAND: Counts = Counts {
    appends: 9_000,
    reads: 12_000,
    pages: 2_000,
    changes: 2_500,
    crashes: 1_800,
    cuts_after_sending: 70,
    losses: 70,
    partitions: 1_300,
    rollbacks: 160,
    signatures: 7_000,
    receipts: 13_000,
    crashes_signing: [110, 60, 70, 60, 60, 60],
    flips: 90,
    restores: 90,
    halts: 100,
};

#[test]
fn every_invariant_holds_at_every_step() {
    let runs = Runs::from_environment(3000);
    let (failed, totals) = runs.until(|_| true);
    if let Some((seed, violation)) = failed {
        panic!("seed {seed}: {violation}\n{}\n{}", runs::trace(seed), runs::repeat(seed));
    }
    for ((name, count), (_, least)) in totals.named().into_iter().zip(LEAST_OF_THOUSAND.named()) {
        assert!(count >= least * (runs.count() / 1000), "{count} {name} are too few for {} runs", runs.count());
    }
}

#[test]
fn a_seed_leads_to_the_same_run_again() {
    for seed in 0..20 {
        assert_eq!(run(seed, Fault::None), run(seed, Fault::None), "seed {seed}");
    }
}

#[test]
fn every_planted_fault_is_found() {
    for Planted { fault, runs, breaks } in PLANTED {
        let is_its_own = |violation: &Violation| breaks.contains(&violation.invariant);
        let (Some((seed, violation)), _) = Runs::with(fault, runs).until(is_its_own) else {
            panic!("{fault:?} breaks none of {breaks:?} in {runs} runs")
        };
        println!("{fault:?} is found by seed {seed}: {violation}");
    }
}
