//! A key as the hyper tree keeps it: a part of it, and its version. The place of a slot in the tree gives what comes before that part,
//! and the log has the whole key at the version.

use crate::error::LogError;
use crate::hash::Digest;

/// Number of bytes of a key before the part in its slot, and in that part.
const FIRST_BYTES: usize = 1;
const PART_BYTES: usize = 5;

/// The depth down to which a slot and the first byte of its key give the path of the key.
pub(super) const KNOWN_BITS: u16 = 48;

/// The versions that a slot has room for.
const VERSIONS: u64 = 1 << 40;

/// Ten bytes of memory an event: 5 of the key, from its second byte on, and 5 of the version, most significant first. So slots whose
/// keys have the same first byte are in the order of their keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Slot([u8; Self::BYTES]);

impl Slot {
    /// Length of a slot.
    pub const BYTES: usize = 10;

    /// Return the slot of a key.
    ///
    /// # Panics
    ///
    /// From version 2^40 on, which a plan refuses.
    #[must_use]
    pub fn new(key: &Digest, version: u64) -> Self {
        assert!(version < VERSIONS, "versions without room in a slot are refused before");
        let (_, part) = key.as_bytes().split_at(FIRST_BYTES);
        let [_, _, _, version @ ..] = version.to_be_bytes();
        let mut bytes = [0; Self::BYTES];
        let (start, end) = bytes.split_at_mut(PART_BYTES);
        start.iter_mut().zip(part).for_each(|(byte, from)| *byte = *from);
        end.copy_from_slice(&version);
        Self(bytes)
    }

    /// Return the slot with these bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        Self(bytes)
    }

    /// Return its bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; Self::BYTES] {
        &self.0
    }

    /// Return the version.
    #[must_use]
    pub const fn version(&self) -> u64 {
        let [_, _, last @ ..] = self.0;
        u64::from_be_bytes(last) % VERSIONS
    }

    /// Return the part of the key as a number below 2^40.
    pub(super) const fn part(&self) -> u64 {
        let [start @ .., _, _] = self.0;
        u64::from_be_bytes(start) >> 24
    }

    /// Return the lowest key with the first byte `first` and this part.
    pub(super) fn key(&self, first: u8) -> Digest {
        let mut key = [0; 32];
        let (start, rest) = key.split_at_mut(FIRST_BYTES);
        start.fill(first);
        rest.iter_mut().zip(self.0).take(PART_BYTES).for_each(|(byte, from)| *byte = from);
        Digest::new(key)
    }

    /// Return the bit of the key that decides the way at `depth`, 8 to 47.
    ///
    /// # Panics
    ///
    /// At any other depth: a slot does not have that bit, and any answer could lead to a wrong root.
    pub(super) fn bit(&self, depth: u16) -> bool {
        assert!((8..KNOWN_BITS).contains(&depth), "two keys of a bucket part within the bits of their slots");
        self.part() >> (KNOWN_BITS - 1 - depth) & 1 == 1
    }
}

/// Return the part of a key that its slot keeps, as a number.
pub(super) const fn part_of(key: &Digest) -> u64 {
    key.prefix64() << 8 >> 24
}

/// Require that a version has room in a slot.
///
/// # Errors
///
/// [`LogError::Full`] from version 2^40 on.
pub(super) const fn require_room(version: u64) -> Result<(), LogError> {
    if version < VERSIONS { Ok(()) } else { Err(LogError::Full { keys: version }) }
}
