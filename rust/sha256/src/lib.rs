//! The compression function of SHA-256 (FIPS 180-4, section 6.2.2) on independent lanes.
//!
//! Each round of SHA-256 needs the result of the round before it. Processors with instructions for SHA-256 can start the next
//! instruction long before that result is there, so one message leaves most of the unit idle. [`compress`] works on two messages at
//! once, which takes about as long as one. More lanes gain nothing: two fill the unit.
//!
//! Whether the processor has the instructions is detected once, at run time. Without them, and for the last of an odd number of
//! lanes, the `sha2` crate does the work. If the environment variable `QED_SHA256_LANES` is `1` at the first call, it does all of
//! it. The tests run both ways.
//!
//! This crate is the only one of qed with unsafe code: the calls of functions that need those instructions.

#![deny(unsafe_code)]
#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test fails by panicking")
)]

#[cfg(target_arch = "aarch64")]
#[path = "aarch64.rs"]
mod two_lanes;
#[cfg(target_arch = "x86_64")]
#[path = "x86_64.rs"]
mod two_lanes;
#[cfg(not(any(target_arch = "aarch64", target_arch = "x86_64")))]
#[path = "portable.rs"]
mod two_lanes;

use std::sync::LazyLock;

/// The state of a hash: eight words, `H0` to `H7`.
pub type State = [u32; 8];

/// A block of a message.
pub type Block = [u8; 64];

/// Whether two lanes are compressed at once.
static HAS_TWO_LANES: LazyLock<bool> = LazyLock::new(|| {
    let is_off = std::env::var_os("QED_SHA256_LANES").is_some_and(|lanes| lanes == "1");
    !is_off && two_lanes::is_supported()
});

/// Compress the blocks of each message into the state of the same index. The result of a lane does not depend on the other lanes.
///
/// # Panics
///
/// Unless there are as many messages as states.
pub fn compress<const BLOCKS: usize>(states: &mut [State], messages: &[[Block; BLOCKS]]) {
    assert_eq!(states.len(), messages.len(), "each lane is a state and a message");
    if !*HAS_TWO_LANES {
        return one_by_one(states, messages);
    }
    let ((pairs, rest), (messages, last)) = (states.as_chunks_mut::<2>(), messages.as_chunks::<2>());
    for (states, messages) in pairs.iter_mut().zip(messages) {
        two_lanes::compress_pair(states, messages);
    }
    one_by_one(rest, last);
}

/// Return how many lanes [`compress`] works on at once: two, or one without the instructions.
#[must_use]
pub fn lanes() -> usize {
    if *HAS_TWO_LANES { 2 } else { 1 }
}

fn one_by_one<const BLOCKS: usize>(states: &mut [State], messages: &[[Block; BLOCKS]]) {
    for (state, message) in states.iter_mut().zip(messages) {
        sha2::block_api::compress256(state, message);
    }
}

/// The round constants (FIPS 180-4, section 4.2.2), four to a group.
#[cfg(any(target_arch = "aarch64", target_arch = "x86_64"))]
#[rustfmt::skip]
const ROUND_CONSTANTS: [[u32; 4]; 16] = [
    [0x428a_2f98, 0x7137_4491, 0xb5c0_fbcf, 0xe9b5_dba5],
    [0x3956_c25b, 0x59f1_11f1, 0x923f_82a4, 0xab1c_5ed5],
    [0xd807_aa98, 0x1283_5b01, 0x2431_85be, 0x550c_7dc3],
    [0x72be_5d74, 0x80de_b1fe, 0x9bdc_06a7, 0xc19b_f174],
    [0xe49b_69c1, 0xefbe_4786, 0x0fc1_9dc6, 0x240c_a1cc],
    [0x2de9_2c6f, 0x4a74_84aa, 0x5cb0_a9dc, 0x76f9_88da],
    [0x983e_5152, 0xa831_c66d, 0xb003_27c8, 0xbf59_7fc7],
    [0xc6e0_0bf3, 0xd5a7_9147, 0x06ca_6351, 0x1429_2967],
    [0x27b7_0a85, 0x2e1b_2138, 0x4d2c_6dfc, 0x5338_0d13],
    [0x650a_7354, 0x766a_0abb, 0x81c2_c92e, 0x9272_2c85],
    [0xa2bf_e8a1, 0xa81a_664b, 0xc24b_8b70, 0xc76c_51a3],
    [0xd192_e819, 0xd699_0624, 0xf40e_3585, 0x106a_a070],
    [0x19a4_c116, 0x1e37_6c08, 0x2748_774c, 0x34b0_bcb5],
    [0x391c_0cb3, 0x4ed8_aa4a, 0x5b9c_ca4f, 0x682e_6ff3],
    [0x748f_82ee, 0x78a5_636f, 0x84c8_7814, 0x8cc7_0208],
    [0x90be_fffa, 0xa450_6ceb, 0xbef9_a3f7, 0xc671_78f2],
];

#[cfg(test)]
#[path = "../../core/tests/seeds/mod.rs"]
mod seeds;
#[cfg(test)]
mod tests;
