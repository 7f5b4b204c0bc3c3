//! Conversions between integers that lose nothing here, each with the reason.

const _: () = assert!(usize::BITS == 64, "versions are used as indices");

/// Return a version, or another number of 64 bits, as an index.
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "usize has 64 bits, as asserted above")]
pub const fn usize_from(number: u64) -> usize {
    number as usize
}

/// Return a number of bits, 0 to 256, as the type of heights and depths.
///
/// # Panics
///
/// If there are more than a digest has.
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "the number is at most 256, as asserted above")]
pub const fn height_from(bits: u32) -> u16 {
    assert!(bits <= 256, "no height or depth is beyond the bits of a digest");
    bits as u16
}
