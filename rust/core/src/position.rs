//! Positions of nodes in both trees: the bytes that are hashed, and the text used as a JSON key.

use std::fmt;

use crate::hash::{Digest, HYPER_LEVELS};
use crate::integers::height_from;

/// Return the height of the history tree at `version`: 0 for version 0, otherwise the bit length of `version`, at most 64.
#[must_use]
pub const fn history_height(version: u64) -> u16 {
    match version.checked_ilog2() {
        Some(highest) => height_from(highest) + 1,
        None => 0,
    }
}

/// A node of the history tree: the version of its leftmost leaf, a multiple of `2^height`, and its height.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HistoryPosition {
    /// Version of the leftmost leaf below this node.
    pub index: u64,
    /// Levels below this node, 0 for a leaf; at most 64.
    pub height: u16,
}

impl HistoryPosition {
    /// Return the node at `height` above the leaf `version`.
    #[must_use]
    pub const fn above(version: u64, height: u16) -> Self {
        let index = match version.checked_shr(height as u32) {
            Some(shifted) => shifted << height,
            None => 0,
        };
        Self { index, height }
    }

    /// Return the root of the tree at `version`.
    #[must_use]
    pub const fn root(version: u64) -> Self {
        Self { index: 0, height: history_height(version) }
    }

    /// Return whether this node is the leaf `version` or an ancestor of it.
    #[must_use]
    pub const fn is_above(self, version: u64) -> bool {
        Self::above(version, self.height).index == self.index
    }

    /// Return the left and the right child, or `None` for a leaf.
    #[must_use]
    pub const fn children(self) -> Option<(Self, Self)> {
        let Some(height) = self.height.checked_sub(1) else { return None };
        let left = Self { index: self.index, height };
        Some((left, Self { index: self.index | 1 << height, height }))
    }

    /// Return the sibling of this node, whose height must be less than 64.
    #[must_use]
    pub const fn sibling(self) -> Self {
        Self { index: self.index ^ 1 << self.height, height: self.height }
    }

    /// Return `be64(index) ‖ be16(height)`, as it is hashed.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 10] {
        let mut bytes = [0; 10];
        let (index, height) = bytes.split_at_mut(8);
        index.copy_from_slice(&self.index.to_be_bytes());
        height.copy_from_slice(&self.height.to_be_bytes());
        bytes
    }

    /// Parse a position written as `index|height`. Returns `None` unless the text is exactly what [`fmt::Display`] writes.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (index, height) = text.split_once('|')?;
        Some(Self { index: parse_decimal(index)?, height: u16::try_from(parse_decimal(height)?).ok()? })
    }
}

impl fmt::Display for HistoryPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}|{}", self.index, self.height)
    }
}

/// A node of the hyper tree: its height, and the bits that all keys below it share; the low `height` bits are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HyperPosition {
    prefix: Digest,
    height: u16,
}

impl HyperPosition {
    /// Return the node at `depth` on the path of `key`, `0 <= depth <= 256`.
    ///
    /// # Panics
    ///
    /// If `depth` is greater than 256.
    #[must_use]
    pub fn on_path(key: &Digest, depth: u16) -> Self {
        assert!(depth <= HYPER_LEVELS, "a key has no more bits");
        let mut prefix = *key.as_bytes();
        let (words, _) = prefix.as_chunks_mut::<8>();
        // A word at a time, because a node is hashed in little more time than bytes are cleared.
        for (word, before) in words.iter_mut().zip([0, 64, 128, 192]) {
            let kept = depth.saturating_sub(before);
            let others = u64::MAX.checked_shr(kept.into()).unwrap_or(0);
            *word = (u64::from_be_bytes(*word) & !others).to_be_bytes();
        }
        Self { prefix: Digest::new(prefix), height: HYPER_LEVELS - depth }
    }

    /// Return the node at `depth`, at most 64, on the path of the keys that begin with these 64 bits.
    ///
    /// # Panics
    ///
    /// If `depth` is greater than 64.
    #[must_use]
    pub fn of_prefix(prefix: u64, depth: u16) -> Self {
        assert!(depth <= 64, "the other bits are not known");
        let others = u64::MAX.checked_shr(depth.into()).unwrap_or(0);
        let mut bytes = [0; 32];
        let (start, _) = bytes.split_at_mut(8);
        start.copy_from_slice(&(prefix & !others).to_be_bytes());
        Self { prefix: Digest::new(bytes), height: HYPER_LEVELS - depth }
    }

    /// Return the node above this one, which must not be the root.
    #[must_use]
    #[expect(clippy::indexing_slicing, reason = "the root has no parent, and this would return the root itself")]
    pub fn parent(&self) -> Self {
        let mut prefix = *self.prefix.as_bytes();
        let last_bit = HYPER_LEVELS - self.height - 1;
        prefix[usize::from(last_bit / 8)] &= !(0x80 >> (last_bit % 8));
        Self { prefix: Digest::new(prefix), height: self.height + 1 }
    }

    /// Return the sibling of the node at `depth` on the path of `key`, `1 <= depth <= 256`.
    ///
    /// # Panics
    ///
    /// If `depth` is greater than 256, or 0: the root has no sibling.
    #[must_use]
    #[expect(clippy::indexing_slicing, reason = "without flipping a bit this would return the node itself")]
    pub fn sibling_on_path(key: &Digest, depth: u16) -> Self {
        let Self { prefix, height } = Self::on_path(key, depth);
        let mut bytes = *prefix.as_bytes();
        let last_bit = depth - 1;
        bytes[usize::from(last_bit / 8)] ^= 0x80 >> (last_bit % 8);
        Self { prefix: Digest::new(bytes), height }
    }

    /// Return `be16(height) ‖ prefix`, as it is hashed.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; 34] {
        let mut bytes = [0; 34];
        let (height, prefix) = bytes.split_at_mut(2);
        height.copy_from_slice(&self.height.to_be_bytes());
        prefix.copy_from_slice(self.prefix.as_bytes());
        bytes
    }

    /// Parse a position written as `0x<64 lower-case hex digits>|height`. Returns `None` unless the text is exactly that.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (prefix, height) = text.strip_prefix("0x")?.split_once('|')?;
        if prefix.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return None;
        }
        let height = u16::try_from(parse_decimal(height)?).ok().filter(|&height| height <= HYPER_LEVELS)?;
        Some(Self { prefix: Digest::from_hex(prefix)?, height })
    }
}

impl fmt::Display for HyperPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{}|{}", self.prefix, self.height)
    }
}

/// Parse a number. Signs, leading zeros and anything else that would give one number two spellings are rejected.
fn parse_decimal(text: &str) -> Option<u64> {
    let is_canonical = text == "0" || (!text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit()));
    if is_canonical { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_have_one_way_to_be_written() {
        for text in ["0|0", "18446744073709551615|64", "8|3"] {
            assert_eq!(HistoryPosition::parse(text).map(|p| p.to_string()).as_deref(), Some(text));
        }
        for text in ["", "|", "00|0", "0|00", "+1|0", "-1|0", " 1|0", "1|0 ", "1|", "18446744073709551616|0", "1|٣"] {
            assert_eq!(HistoryPosition::parse(text), None, "{text:?}");
        }
        let zeros = "0".repeat(64);
        assert!(HyperPosition::parse(&format!("0x{zeros}|255")).is_some());
        for text in [
            format!("{zeros}|255"),
            format!("0X{zeros}|1"),
            format!("0x{zeros}|257"),
            format!("0x{}A|1", &zeros[1..]),
            format!("0x{zeros}|01"),
        ] {
            assert_eq!(HyperPosition::parse(&text), None, "{text:?}");
        }
    }

    #[test]
    fn path_keeps_the_first_bits_and_siblings_flip_the_last() {
        let key = Digest::new([0xff; 32]);
        assert_eq!(HyperPosition::on_path(&key, 0).to_string(), format!("0x{}|256", "0".repeat(64)));
        assert_eq!(HyperPosition::on_path(&key, 9).to_string(), format!("0xff80{}|247", "0".repeat(60)));
        assert_eq!(HyperPosition::on_path(&key, 256).to_string(), format!("0x{}|0", "f".repeat(64)));
        for depth in 1..=HYPER_LEVELS {
            assert_eq!(HyperPosition::on_path(&key, depth).parent(), HyperPosition::on_path(&key, depth - 1));
        }
        assert_eq!(HyperPosition::sibling_on_path(&key, 9).to_string(), format!("0xff{}|247", "0".repeat(62)));
    }

    #[test]
    fn a_position_from_a_prefix_is_that_of_the_whole_key() {
        let key = Digest::of_event(b"event");
        for depth in 0..=64 {
            assert_eq!(HyperPosition::of_prefix(key.prefix64(), depth), HyperPosition::on_path(&key, depth));
        }
        for depth in 0..=256 {
            let found = HyperPosition::on_path(&key, depth).prefix;
            assert!((0..depth).all(|bit| found.bit(bit) == key.bit(bit)));
            assert!((depth..256).all(|bit| !found.bit(bit)), "depth {depth}");
        }
    }

    #[test]
    fn history_positions_reach_the_last_version() {
        assert_eq!(HistoryPosition::root(0), HistoryPosition { index: 0, height: 0 });
        assert_eq!(HistoryPosition::root(u64::MAX), HistoryPosition { index: 0, height: 64 });
        assert!(HistoryPosition::root(u64::MAX).is_above(u64::MAX));
        let (left, right) = HistoryPosition::root(u64::MAX).children().unwrap();
        assert_eq!((left.index, right.index, right.height), (0, 1 << 63, 63));
        assert_eq!(right.sibling(), left);
    }
}
