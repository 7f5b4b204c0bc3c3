//! Processors whose instructions for SHA-256 this crate does not use.

use crate::{Block, State};

/// Return whether the processor has the instructions.
pub const fn is_supported() -> bool {
    false
}

/// Compress the blocks of two messages, one after the other.
pub fn compress_pair<const BLOCKS: usize>(states: &mut [State; 2], messages: &[[Block; BLOCKS]; 2]) {
    crate::one_by_one(states, messages);
}
