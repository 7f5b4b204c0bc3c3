//! The trees of a log in one file, so that a start need not read every event (FORMATS.md, "Tree image").
//!
//! It holds what takes long to make: the slots of the hyper tree in the order of their keys, and the lowest nodes of the history tree that are
//! kept. It is written while the log grows, so its slots may be of events after its length; a start adds the events from its length on, and a
//! slot that comes twice counts once. A start hashes all slots and compares the root, and a row of the log has the checksum of the file. So an
//! image that is missing, old, damaged or of another log costs time, and nothing else.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::AtomicU64;

use parking_lot::Mutex;
use xxhash_rust::xxh3::Xxh3;

use crate::error::LogError;
use crate::hash::{DIGEST_BYTES, Digest};
use crate::history::GROUP;
use crate::hyper::{PARTS, Slot};
use crate::integers::usize_from;
use crate::rows::TILE;

const MAGIC: &[u8; 16] = b"qed tree image 1";
const SUM_BYTES: usize = 16;

/// Number of nodes that are written or read at a time.
const NODES_AT_A_TIME: usize = 1 << 14;

/// Number of parts after which what is written is synced.
const PARTS_A_SYNC: usize = 16;

const BUFFER_BYTES: usize = 1 << 18;

/// The checksum of an image, as a row of its log keeps it.
pub(crate) type Sum = [u8; SUM_BYTES];

/// Why an image is not used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ImageError {
    /// It cannot be read.
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
    /// It is not an image of this log.
    #[error("{0}")]
    Unfit(&'static str),
    /// With it, the rows of the log cannot be read, or lead to another root.
    #[error(transparent)]
    Log(#[from] LogError),
}

/// What became of the image of the trees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageUse {
    /// The log has none.
    Missing,
    /// The trees of this many events are from it.
    Used(u64),
    /// It was not used, for this reason.
    Unfit(String),
}

/// What a log knows of its image.
#[derive(Debug)]
pub(crate) struct ImageState {
    /// What became of it when the log was opened.
    pub(crate) opened: ImageUse,
    /// Number of events of the newest one; 0 if there is none.
    pub(crate) len: AtomicU64,
    /// Held while one is written.
    pub(crate) writing: Mutex<()>,
}

impl ImageState {
    pub(crate) fn new(opened: ImageUse) -> Self {
        let len = if let ImageUse::Used(len) = opened { len } else { 0 };
        Self { opened, len: AtomicU64::new(len), writing: Mutex::default() }
    }
}

/// Write an image of the first `len` events, a multiple of [`TILE`]; return its checksum. `part_of` gives the slots of each part of the hyper
/// tree, `nodes_of` the history nodes of the groups in a range, as far as they are among the events.
///
/// # Errors
///
/// Any error of `out` and `part_of`.
pub(crate) fn write(
    out: &mut File,
    len: u64,
    part_of: impl Fn(usize) -> io::Result<Vec<Slot>>,
    nodes_of: impl Fn(Range<usize>) -> Vec<Digest>,
) -> io::Result<Sum> {
    let mut out = Summed { inner: BufWriter::with_capacity(BUFFER_BYTES, out), sum: Xxh3::new() };
    out.write_all(MAGIC)?;
    out.write_all(&len.to_be_bytes())?;
    for part in 0..PARTS {
        let slots = part_of(part)?;
        out.write_all(&(slots.len() as u64).to_be_bytes())?;
        for slot in &slots {
            out.write_all(slot.as_bytes())?;
        }
        if part % PARTS_A_SYNC == 0 {
            // In small steps: the Raft log is on the same disk, and would wait behind all of it.
            out.flush()?;
            out.inner.get_ref().sync_data()?;
        }
    }
    let groups = usize_from(len / GROUP);
    for first in (0..groups).step_by(NODES_AT_A_TIME) {
        for node in nodes_of(first..groups.min(first + NODES_AT_A_TIME)) {
            out.write_all(node.as_bytes())?;
        }
    }
    let sum = out.sum.digest128().to_be_bytes();
    out.inner.write_all(&sum)?;
    out.inner.flush()?;
    Ok(sum)
}

/// An image that is being read.
pub(crate) struct TreeImage {
    input: Summed<BufReader<File>>,
    /// Number of bytes that are left.
    left: u64,
    expected: Sum,
    len: u64,
}

impl TreeImage {
    /// Begin to read the image at `path`, whose checksum is `expected`, for a log of `events`.
    ///
    /// # Errors
    ///
    /// [`ImageError`]: it is not to be used.
    pub fn open(path: &Path, expected: Sum, events: u64) -> Result<Self, ImageError> {
        let file = File::open(path)?;
        let left = file.metadata()?.len();
        let input = Summed { inner: BufReader::with_capacity(BUFFER_BYTES, file), sum: Xxh3::new() };
        let mut image = Self { input, left, expected, len: 0 };
        if image.take::<16>()? != *MAGIC {
            return Err(ImageError::Unfit("it is not in a format that this build reads"));
        }
        image.len = u64::from_be_bytes(image.take()?);
        if image.len > events || !image.len.is_multiple_of(TILE) {
            return Err(ImageError::Unfit("it is of more events than the log has"));
        }
        Ok(image)
    }

    /// Return the number of events whose slots and nodes are all in it.
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// Read the rest: pass the slots of each part, with the first byte of their keys, to `add`; return the history nodes.
    ///
    /// # Errors
    ///
    /// [`ImageError`]: neither slots nor nodes are to be used.
    pub fn read(mut self, events: u64, mut add: impl FnMut(u8, &mut Vec<Slot>)) -> Result<Vec<Digest>, ImageError> {
        let (mut bytes, mut slots) = (Vec::new(), Vec::new());
        for part in 0..PARTS {
            let count = u64::from_be_bytes(self.take()?);
            self.take_into(&mut bytes, count.checked_mul(Slot::BYTES as u64))?;
            let (found, _) = bytes.as_chunks::<{ Slot::BYTES }>();
            slots.clear();
            slots.extend(found.iter().copied().map(Slot::from_bytes));
            if slots.iter().any(|slot| slot.version() >= events) {
                return Err(ImageError::Unfit("it has an event that the log does not have"));
            }
            let [least, most] = [part % 2, part % 2 + 1].map(|half| half * 128);
            if !slots.iter().all(|slot| (least..most).contains(&slot.as_bytes()[0].into())) {
                return Err(ImageError::Unfit("it has a slot in the wrong place"));
            }
            add(u8::try_from(part / 2).map_err(|_| ImageError::Unfit("it has too many parts"))?, &mut slots);
        }
        let mut nodes = Vec::new();
        self.take_into(&mut nodes, (self.len / GROUP).checked_mul(DIGEST_BYTES as u64))?;
        let computed = self.input.sum.digest128().to_be_bytes();
        let sum = self.take::<SUM_BYTES>()?;
        if computed != sum || self.left != 0 {
            return Err(ImageError::Unfit("it is damaged"));
        }
        if sum != self.expected {
            return Err(ImageError::Unfit("it is not the one that the log was written with"));
        }
        let (nodes, _) = nodes.as_chunks::<DIGEST_BYTES>();
        Ok(nodes.iter().copied().map(Digest::new).collect())
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], ImageError> {
        let mut bytes = [0; N];
        self.left = self.left.checked_sub(N as u64).ok_or(ImageError::Unfit("it is cut"))?;
        self.input.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// Read `count` bytes into `bytes`, in place of what it holds; `None` is more than any file has.
    fn take_into(&mut self, bytes: &mut Vec<u8>, count: Option<u64>) -> Result<(), ImageError> {
        let left = count.and_then(|count| self.left.checked_sub(count));
        let (count, left) = count.zip(left).ok_or(ImageError::Unfit("it is cut"))?;
        bytes.resize(usize_from(count), 0);
        self.left = left;
        Ok(self.input.read_exact(bytes)?)
    }
}

const _: () = assert!(PARTS == 512, "the first byte of a key and a bit of the second give its part");

/// Sums up what passes through.
struct Summed<T> {
    inner: T,
    sum: Xxh3,
}

impl<T: Write> Write for Summed<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.sum.update(bytes.get(..count).unwrap_or_default());
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<T: Read> Read for Summed<T> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(bytes)?;
        self.sum.update(bytes.get(..count).unwrap_or_default());
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Slots with the first bytes of their keys, and nodes.
    type Content = (Vec<(u8, Slot)>, Vec<Digest>);

    fn read(path: &Path, expected: Sum, events: u64) -> Result<Content, ImageError> {
        let mut slots = Vec::new();
        let nodes = TreeImage::open(path, expected, events)?
            .read(events, |first, found| slots.extend(found.iter().map(|slot| (first, *slot))))?;
        Ok((slots, nodes))
    }

    #[test]
    fn every_change_of_a_byte_and_every_cut_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trees");
        let keys: Vec<_> = (0..64_u8).map(|i| Digest::of_event(&[i])).collect();
        let part = |part: usize| {
            let of_part = |key: &&Digest| usize_from(key.prefix64() >> 55) == part;
            let place = |key: &Digest| keys.iter().position(|other| other == key).unwrap() as u64;
            Ok(keys.iter().filter(of_part).map(|key| Slot::new(key, place(key))).collect())
        };
        let sum = write(&mut File::create(&path).unwrap(), 64, part, |range| keys[range].to_vec()).unwrap();
        let (slots, nodes) = read(&path, sum, 64).unwrap();
        assert_eq!((slots.len(), nodes.as_slice()), (64, &keys[..4]));
        let written = fs::read(&path).unwrap();
        for place in 0..written.len() {
            let mut bytes = written.clone();
            bytes[place] ^= 1 << (place % 8);
            fs::write(&path, &bytes).unwrap();
            assert!(read(&path, sum, 64).is_err(), "byte {place}");
            // Not even with its own checksum in the row of the log: the checksum is not that of the file.
            let own = bytes.last_chunk().unwrap();
            assert!(read(&path, *own, 64).is_err(), "byte {place}");
            fs::write(&path, &written[..place]).unwrap();
            assert!(read(&path, sum, 64).is_err(), "{place} bytes");
        }
        fs::write(&path, &written).unwrap();
        assert!(read(&path, sum, 63).is_err(), "it has an event that the log does not have");
        assert!(read(&path, [0; 16], 64).is_err(), "it is another image");
        assert!(read(&path, sum, 64).is_ok());
    }
}
