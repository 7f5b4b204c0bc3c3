//! Two lanes with the instructions of x86-64 ("Intel SHA Extensions", 2013).
//!
//! An instruction does two rounds on a state that is split over two registers: words A, B, E, F and words C, D, G, H. Each step below
//! is done for both lanes before the next, which is all that it takes to overlap them.

use std::arch::x86_64::{
    __m128i, _mm_add_epi32, _mm_alignr_epi8, _mm_extract_epi32, _mm_set_epi32, _mm_setzero_si128, _mm_sha256msg1_epu32,
    _mm_sha256msg2_epu32, _mm_sha256rnds2_epu32, _mm_shuffle_epi32,
};

use crate::{Block, ROUND_CONSTANTS, State};

/// Return whether the processor has the instructions.
pub fn is_supported() -> bool {
    is_x86_feature_detected!("sha") && is_x86_feature_detected!("sse4.1") && is_x86_feature_detected!("ssse3")
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
    abef: __m128i,
    cdgh: __m128i,
}

#[target_feature(enable = "sha,sse4.1,ssse3")]
fn with_instructions(states: &mut [State; 2], first: &[Block], second: &[Block]) {
    let mut lanes = [halves(&states[0]), halves(&states[1])];
    for (first, second) in first.iter().zip(second) {
        let before = lanes;
        rounds(&mut lanes, [words(first), words(second)]);
        for (lane, before) in lanes.iter_mut().zip(before) {
            lane.abef = _mm_add_epi32(lane.abef, before.abef);
            lane.cdgh = _mm_add_epi32(lane.cdgh, before.cdgh);
        }
    }
    for (state, lane) in states.iter_mut().zip(lanes) {
        *state = state_of(lane);
    }
}

/// Do the 64 rounds of one block on both lanes.
#[inline]
#[target_feature(enable = "sha,sse4.1,ssse3")]
fn rounds(lanes: &mut [Halves; 2], mut words: [[__m128i; 4]; 2]) {
    for (group, constants) in ROUND_CONSTANTS.iter().enumerate() {
        let constants = vector(constants);
        for (lane, words) in lanes.iter_mut().zip(&mut words) {
            let [w0, w1, w2, w3] = *words;
            // The words of the group after the next three; the last groups do not use them.
            let w4 = if group < 12 {
                let sum = _mm_add_epi32(_mm_sha256msg1_epu32(w0, w1), _mm_alignr_epi8(w3, w2, 4));
                _mm_sha256msg2_epu32(sum, w3)
            } else {
                w0
            };
            *words = [w1, w2, w3, w4];
            four_rounds(lane, _mm_add_epi32(w0, constants));
        }
    }
}

#[target_feature(enable = "sha,sse4.1,ssse3")]
fn four_rounds(lane: &mut Halves, words: __m128i) {
    // Two rounds turn A, B, E, F into the next C, D, G, H, so the halves change places.
    lane.cdgh = _mm_sha256rnds2_epu32(lane.cdgh, lane.abef, words);
    lane.abef = _mm_sha256rnds2_epu32(lane.abef, lane.cdgh, _mm_shuffle_epi32(words, 0b_00_00_11_10));
}

/// Return the sixteen words of a block, four to a register.
#[target_feature(enable = "sha,sse4.1,ssse3")]
fn words(block: &Block) -> [__m128i; 4] {
    let mut words = [_mm_setzero_si128(); 4];
    for (words, bytes) in words.iter_mut().zip(block.as_chunks::<4>().0.as_chunks::<4>().0) {
        *words = vector(&bytes.map(u32::from_be_bytes));
    }
    words
}

/// Return a register with four words, the first one lowest.
#[target_feature(enable = "sha,sse4.1,ssse3")]
fn vector(words: &[u32; 4]) -> __m128i {
    let [a, b, c, d] = words.map(u32::cast_signed);
    _mm_set_epi32(d, c, b, a)
}

#[target_feature(enable = "sha,sse4.1,ssse3")]
#[expect(clippy::many_single_char_names, reason = "they are the names in FIPS 180-4")]
fn halves(state: &State) -> Halves {
    let [a, b, c, d, e, f, g, h] = *state;
    Halves { abef: vector(&[f, e, b, a]), cdgh: vector(&[h, g, d, c]) }
}

#[target_feature(enable = "sha,sse4.1,ssse3")]
#[expect(clippy::many_single_char_names, reason = "they are the names in FIPS 180-4")]
fn state_of(lane: Halves) -> State {
    let [f, e, b, a] = words_of(lane.abef);
    let [h, g, d, c] = words_of(lane.cdgh);
    [a, b, c, d, e, f, g, h]
}

#[target_feature(enable = "sha,sse4.1,ssse3")]
fn words_of(vector: __m128i) -> [u32; 4] {
    [
        _mm_extract_epi32(vector, 0),
        _mm_extract_epi32(vector, 1),
        _mm_extract_epi32(vector, 2),
        _mm_extract_epi32(vector, 3),
    ]
    .map(i32::cast_unsigned)
}
