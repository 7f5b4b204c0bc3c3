//! `LogId`: the position of an entry in the replicated log.

use std::fmt;

/// Index and term of an entry of the replicated log: they identify and order entries. The default is before the first entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct LogId {
    /// The index of the entry; the first is 1.
    pub index: u64,
    /// The term of the leader that proposed it.
    pub term: u64,
}

impl LogId {
    /// Length of a log id in rows and messages, in bytes.
    pub const BYTES: usize = 16;

    /// Return `be64(index) ‖ be64(term)`, as used in rows and messages.
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        let (index, term) = bytes.split_at_mut(Self::BYTES / 2);
        index.copy_from_slice(&self.index.to_be_bytes());
        term.copy_from_slice(&self.term.to_be_bytes());
        bytes
    }

    /// Return the log id in `bytes`, or `None` unless there are exactly [`Self::BYTES`] bytes.
    #[must_use]
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        let (index, term) = bytes.split_first_chunk()?;
        Some(Self { index: u64::from_be_bytes(*index), term: u64::from_be_bytes(term.try_into().ok()?) })
    }
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of term {}", self.index, self.term)
    }
}
