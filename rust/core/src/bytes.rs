//! Reading fields from untrusted bytes.

use crate::hash::Digest;
use crate::log_id::LogId;

/// The bytes not read yet. Reading a field beyond their end returns `None`.
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Return the value that `read` decodes from `bytes`, or `None` if it does not read all of them.
    pub(crate) fn whole<T>(bytes: &'a [u8], read: impl FnOnce(&mut Self) -> Option<T>) -> Option<T> {
        let mut reader = Self(bytes);
        read(&mut reader).filter(|_| reader.0.is_empty())
    }

    /// Read `count` bytes.
    pub(crate) fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(bytes)
    }

    /// Read `N` bytes.
    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*bytes)
    }

    /// Read eight bytes as a big-endian number.
    pub(crate) fn number(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    /// Read a digest.
    pub(crate) fn digest(&mut self) -> Option<Digest> {
        self.array().map(Digest::new)
    }

    /// Read a log id.
    pub(crate) fn log_id(&mut self) -> Option<LogId> {
        LogId::from_slice(self.bytes(LogId::BYTES)?)
    }

    /// Read the number of items that follow, each at least `bytes` bytes long. Returns `None` if the rest cannot hold that many.
    pub(crate) fn count(&mut self, bytes: usize) -> Option<usize> {
        let count = self.array().map(u32::from_be_bytes)? as usize;
        (count <= self.0.len() / bytes).then_some(count)
    }

    /// Read the number of items that follow, each at least `bytes` bytes long, and then the items.
    pub(crate) fn many<T>(&mut self, bytes: usize, read: impl Fn(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let count = self.count(bytes)?;
        (0..count).map(|_| read(self)).collect()
    }
}
