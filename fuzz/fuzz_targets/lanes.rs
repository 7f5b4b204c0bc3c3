//! Any states and messages: each lane is compressed as by the `sha2` crate, whatever the number of lanes and of blocks.
#![no_main]

use libfuzzer_sys::fuzz_target;
use qed_sha256::{Block, State, compress};

/// Compress as many lanes as there are bytes for, each a state and `BLOCKS` blocks.
fn check<const BLOCKS: usize>(data: &[u8]) {
    let (words, _) = data.as_chunks::<4>();
    let words: Vec<_> = words.iter().map(|word| u32::from_be_bytes(*word)).collect();
    let (mut found, mut messages) = (Vec::<State>::new(), Vec::<[Block; BLOCKS]>::new());
    for lane in words.chunks_exact(8 + 16 * BLOCKS) {
        let (state, message) = lane.split_at(8);
        found.push(std::array::from_fn(|i| state[i]));
        let byte = |i: usize| message[i / 4].to_be_bytes()[i % 4];
        messages.push(std::array::from_fn(|block| std::array::from_fn(|i| byte(64 * block + i))));
    }
    let mut expected = found.clone();
    for (state, message) in expected.iter_mut().zip(&messages) {
        sha2::block_api::compress256(state, message);
    }
    compress(&mut found, &messages);
    assert_eq!(found, expected);
}

fuzz_target!(|data: &[u8]| {
    let Some((blocks, data)) = data.split_first() else { return };
    match blocks % 4 {
        0 => check::<1>(data),
        1 => check::<2>(data),
        2 => check::<3>(data),
        _ => check::<7>(data),
    }
});
