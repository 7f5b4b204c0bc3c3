//! Clusters of real members on simulated disks and networks, one seed a run.
//!
//! A run that fails prints its seed and what happened; the same seed leads to the same run on every machine.
//! `QED_SIM_FIRST` and `QED_SIM_SEEDS` say where to begin and how many runs there are.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod client;
mod disk;
mod faults;
mod host;
mod invariants;
mod network;
mod operator;
mod random;
mod runs;
mod weather;
mod world;

use faults::Fault;
use runs::{Runs, run};

#[test]
fn every_invariant_holds_at_every_step() {
    let runs = Runs::from_environment(3000);
    let failed = runs.until_failure();
    if let Some((seed, violation)) = failed {
        panic!("seed {seed}: {violation}\n{}", runs::trace(seed));
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
    for (fault, runs) in Fault::ALL {
        let Some((seed, violation)) = Runs::with(fault, runs).until_failure() else {
            panic!("{fault:?} is not found in {runs} runs")
        };
        println!("{fault:?} is found by seed {seed}: {violation}");
    }
}
