//! Conversions between integer types that are lossless here, each with the reason.

const _: () = assert!(usize::BITS == 64, "versions are used as indices");

/// Return a version, or another 64-bit number, as an index.
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "usize has 64 bits, as asserted above")]
pub const fn usize_from(number: u64) -> usize {
    number as usize
}

/// Return a number of bits, 0 to 256, as the type of heights and depths.
///
/// # Panics
///
/// If `bits` is greater than 256.
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "the number is at most 256, as asserted above")]
pub const fn height_from(bits: u32) -> u16 {
    assert!(bits <= 256, "a height or depth is at most the number of bits in a digest");
    bits as u16
}
