//! Reading fields from bytes that others wrote.

use crate::hash::Digest;
use crate::log_id::LogId;

/// The bytes that are left. A field that they end before gives nothing.
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Return what `read` makes of `bytes`, or nothing unless it reads all of them.
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

    /// Read as many bytes as the array has.
    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*bytes)
    }

    /// Read eight bytes as a number, the most significant first.
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

    /// Read how many things of at least `bytes` bytes follow: never more than there can be.
    pub(crate) fn count(&mut self, bytes: usize) -> Option<usize> {
        let count = self.array().map(u32::from_be_bytes)? as usize;
        (count <= self.0.len() / bytes).then_some(count)
    }

    /// Read how many things of at least `bytes` bytes follow, and each of them.
    pub(crate) fn many<T>(&mut self, bytes: usize, read: impl Fn(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let count = self.count(bytes)?;
        (0..count).map(|_| read(self)).collect()
    }
}
