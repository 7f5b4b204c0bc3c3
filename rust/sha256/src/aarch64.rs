//! Two lanes with the instructions of AArch64 (FEAT_SHA256).
//!
//! An instruction does four rounds on one half of a state: words A to D, or words E to H. Each step below is done for both lanes before
//! the next, which is all that it takes to overlap them.

use std::arch::aarch64::{
    uint32x4_t, vaddq_u32, vcombine_u32, vcreate_u32, vdupq_n_u32, vgetq_lane_u32, vsha256h2q_u32, vsha256hq_u32,
    vsha256su0q_u32, vsha256su1q_u32,
};
use std::arch::is_aarch64_feature_detected;

use crate::{Block, ROUND_CONSTANTS, State};

/// Return whether the processor has the instructions.
pub fn is_supported() -> bool {
    is_aarch64_feature_detected!("sha2") && is_aarch64_feature_detected!("neon")
}

/// Compress the blocks of two messages, both at once. Requires [`is_supported`].
#[inline]
pub fn compress_pair<const BLOCKS: usize>(states: &mut [State; 2], messages: &[[Block; BLOCKS]; 2]) {
    debug_assert!(is_supported());
    let [first, second] = messages;
    // SAFETY: the caller has checked that the processor has these instructions.
    #[expect(unsafe_code, reason = "a function that needs instructions of some processors only")]
    unsafe {
        with_instructions(states, first, second);
    }
}

/// The two halves of a state.
#[derive(Clone, Copy)]
struct Halves {
    abcd: uint32x4_t,
    efgh: uint32x4_t,
}

#[target_feature(enable = "neon,sha2")]
fn with_instructions(states: &mut [State; 2], first: &[Block], second: &[Block]) {
    let mut lanes = [halves(&states[0]), halves(&states[1])];
    for (first, second) in first.iter().zip(second) {
        let before = lanes;
        rounds(&mut lanes, [words(first), words(second)]);
        for (lane, before) in lanes.iter_mut().zip(before) {
            lane.abcd = vaddq_u32(lane.abcd, before.abcd);
            lane.efgh = vaddq_u32(lane.efgh, before.efgh);
        }
    }
    for (state, lane) in states.iter_mut().zip(lanes) {
        *state = state_of(lane);
    }
}

/// Do the 64 rounds of one block on both lanes.
#[inline]
#[target_feature(enable = "neon,sha2")]
fn rounds(lanes: &mut [Halves; 2], mut words: [[uint32x4_t; 4]; 2]) {
    for (group, constants) in ROUND_CONSTANTS.iter().enumerate() {
        let constants = vector(constants);
        for (lane, words) in lanes.iter_mut().zip(&mut words) {
            let [w0, w1, w2, w3] = *words;
            // The words of the group after the next three; the last groups do not use them.
            let w4 = if group < 12 { vsha256su1q_u32(vsha256su0q_u32(w0, w1), w2, w3) } else { w0 };
            *words = [w1, w2, w3, w4];
            let current = vaddq_u32(w0, constants);
            let abcd = lane.abcd;
            lane.abcd = vsha256hq_u32(abcd, lane.efgh, current);
            lane.efgh = vsha256h2q_u32(lane.efgh, abcd, current);
        }
    }
}

/// Return the sixteen words of a block, four to a register.
#[target_feature(enable = "neon,sha2")]
fn words(block: &Block) -> [uint32x4_t; 4] {
    let mut words = [vdupq_n_u32(0); 4];
    for (words, bytes) in words.iter_mut().zip(block.as_chunks::<4>().0.as_chunks::<4>().0) {
        *words = vector(&bytes.map(u32::from_be_bytes));
    }
    words
}

/// Return a register with four words, the first one lowest.
#[target_feature(enable = "neon,sha2")]
fn vector(words: &[u32; 4]) -> uint32x4_t {
    let [a, b, c, d] = words.map(u64::from);
    vcombine_u32(vcreate_u32(a | b << 32), vcreate_u32(c | d << 32))
}

#[target_feature(enable = "neon,sha2")]
#[expect(clippy::many_single_char_names, reason = "they are the names in FIPS 180-4")]
fn halves(state: &State) -> Halves {
    let [a, b, c, d, e, f, g, h] = *state;
    Halves { abcd: vector(&[a, b, c, d]), efgh: vector(&[e, f, g, h]) }
}

#[target_feature(enable = "neon,sha2")]
#[expect(clippy::many_single_char_names, reason = "they are the names in FIPS 180-4")]
fn state_of(lane: Halves) -> State {
    let [a, b, c, d] = words_of(lane.abcd);
    let [e, f, g, h] = words_of(lane.efgh);
    [a, b, c, d, e, f, g, h]
}

#[target_feature(enable = "neon,sha2")]
fn words_of(vector: uint32x4_t) -> [u32; 4] {
    [vgetq_lane_u32::<0>(vector), vgetq_lane_u32::<1>(vector), vgetq_lane_u32::<2>(vector), vgetq_lane_u32::<3>(vector)]
}
