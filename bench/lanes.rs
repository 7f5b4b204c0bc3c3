//! The cost of a block of SHA-256, one lane against two: `cargo bench -p qed-sha256 --bench lanes`.
//!
//! The two are measured in turn in one run, because the speed of a shared machine changes from second to second. Each line has the
//! medians of all turns.

#![allow(
    missing_docs,
    clippy::pedantic,
    clippy::indexing_slicing,
    reason = "a benchmark may stop at the first thing that goes wrong"
)]

use std::hint::black_box;
use std::time::Instant;

use qed_sha256::{Block, State, compress, lanes};

const TURNS: usize = 101;
const PAIRS: u32 = 20_000;

fn main() {
    println!("{} at once on this processor; ns a block", lanes());
    let ratios = ("ratio to chain", "to neighbours");
    println!("blocks {:>14} {:>14} {:>14} {:>14} {:>14}", "sha2, chain", "neighbours", "two lanes", ratios.0, ratios.1);
    compare::<1>();
    compare::<2>();
    compare::<4>();
    compare::<16>();
}

/// Compare messages of `BLOCKS` blocks, made of the states before them as a node is made of its children: each depending on the one
/// before, two independent ones in turn, and two at once.
fn compare<const BLOCKS: usize>() {
    let mut states = [[1; 8], [2; 8]];
    let mut costs = [const { Vec::new() }; 3];
    for _ in 0..TURNS {
        costs[0].push(ns_a_block::<BLOCKS>(|| {
            for _ in 0..2 {
                let message = message_of::<BLOCKS>(&states[0]);
                sha2::block_api::compress256(&mut states[0], &message);
            }
        }));
        costs[1].push(ns_a_block::<BLOCKS>(|| {
            for state in &mut states {
                let message = message_of::<BLOCKS>(state);
                sha2::block_api::compress256(state, &message);
            }
        }));
        costs[2].push(ns_a_block::<BLOCKS>(|| {
            let messages = [message_of::<BLOCKS>(&states[0]), message_of(&states[1])];
            compress(&mut states, &messages);
        }));
    }
    black_box(states);
    let [chain, neighbours, lanes] = costs.map(median);
    let (of_chain, of_neighbours) = (lanes / chain, lanes / neighbours);
    println!("{BLOCKS:>6} {chain:>14.1} {neighbours:>14.1} {lanes:>14.1} {of_chain:>14.2} {of_neighbours:>14.2}");
}

/// Return a padded message that begins with a state.
fn message_of<const BLOCKS: usize>(state: &State) -> [Block; BLOCKS] {
    let mut message = [[0; 64]; BLOCKS];
    let bytes = message.as_flattened_mut();
    for (bytes, word) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(state) {
        *bytes = word.to_be_bytes();
    }
    bytes[32] = 0x80;
    bytes[BLOCKS * 64 - 8..].copy_from_slice(&256_u64.to_be_bytes());
    message
}

fn ns_a_block<const BLOCKS: usize>(mut pair: impl FnMut()) -> f64 {
    let start = Instant::now();
    for _ in 0..PAIRS {
        pair();
    }
    start.elapsed().as_secs_f64() * 1e9 / f64::from(PAIRS) / (2 * BLOCKS) as f64
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
