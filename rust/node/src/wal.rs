//! The Raft log on disk: everything that this member must not forget, in frames that are written and synced one at a time.
//!
//! A frame holds everything that one step of Raft decides (entries, term and vote, start of the log), so a crash leaves a step whole
//! or not at all. Frames are numbered and checksummed. Only the last one can be torn, because each is synced before the next is
//! written. A bad frame is therefore damage if a good one follows it or if it was recorded as synced, and then the member must not
//! start.
//!
//! Segments are files that are filled with zeros in advance, so that a sync need not record a new file length or block. The first frame
//! of a segment repeats the state, so that the segments before it can be deleted as soon as their entries are not needed.
//! FORMATS.md, "Raft log", gives the bytes.

use std::fmt;
use std::ops::Range;

use prost::Message as _;
use raft::eraftpb::{Entry, HardState};

use crate::segments::SegmentStore;

const MAGIC: u32 = u32::from_be_bytes(*b"qedW");
/// Magic, CRC-32C, number, length.
const HEADER_BYTES: usize = 4 + 4 + 8 + 4;
/// Frames begin at multiples of this, so that a frame after a damaged one can be found.
const ALIGNMENT: usize = 8;

/// Why the Raft log cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WalError {
    /// Its files contradict themselves.
    #[error("the Raft log is damaged: {0}")]
    Corrupt(String),
    /// A frame or an entry does not fit into the format.
    #[error("{0} bytes are too many for the Raft log, which holds up to 4 GiB in a frame")]
    TooLarge(usize),
    /// The operating system reported an error.
    #[error("cannot {action} the Raft log: {cause}")]
    Io {
        /// What was attempted.
        action: &'static str,
        /// The error of the operating system.
        cause: String,
    },
}

/// The content of one frame.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Frame {
    /// Term, vote and commit index from here on.
    pub hard_state: HardState,
    /// If given, the log starts after this index and term, and the entries up to it are deleted.
    pub bounds: Option<Bounds>,
    /// Entries to append; they replace the existing ones from the index of the first one on.
    pub entries: Vec<Entry>,
}

/// The start of a log: the entry before its first one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bounds {
    /// Index of the last deleted entry.
    pub index: u64,
    /// Its term.
    pub term: u64,
    /// Whether the entries after it are deleted too: the log was replaced by a snapshot, not only shortened.
    pub is_reset: bool,
}

/// The recovered contents of a Raft log.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Recovered {
    /// Term, vote and commit index.
    pub hard_state: HardState,
    /// The entry before the first one.
    pub bounds: Bounds,
    /// The entries, with consecutive indices.
    pub entries: Vec<Entry>,
    /// Entries up to here were in segments that are deleted; a later frame must show that they are not needed.
    missing_to: u64,
}

/// The Raft log in a segment store.
pub struct Wal<M> {
    store: M,
    segments: Vec<Segment>,
    /// Number of the next frame.
    next_frame: u64,
    /// Position of the next frame in the last segment.
    position: usize,
    /// Repeated in the first frame of each segment.
    bounds: Bounds,
    /// Why no more frames may be appended.
    failure: Option<WalError>,
}

#[derive(Debug, Clone, Copy)]
struct Segment {
    number: u64,
    size_bytes: usize,
    /// Greatest index of an entry in it, 0 if there is none.
    last_index: u64,
}

impl<M> fmt::Debug for Wal<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wal")
            .field("segments", &self.segments)
            .field("next_frame", &self.next_frame)
            .finish_non_exhaustive()
    }
}

impl<M: SegmentStore> Wal<M> {
    /// Open the log on `store` and return it with its contents, all of them durable. A torn frame at the end is removed.
    ///
    /// # Errors
    ///
    /// [`WalError::Corrupt`] if anything but the last frame is damaged or missing; [`WalError::Io`] if it cannot be read.
    pub fn open(store: M) -> Result<(Self, Recovered), WalError> {
        let mut wal =
            Self { store, segments: Vec::new(), next_frame: 0, position: 0, bounds: Bounds::default(), failure: None };
        let mut recovered = Recovered::default();
        let mut last_frame = None;
        let numbers = wal.store.list().map_err(|cause| WalError::Io { action: "list", cause })?;
        for (at, &number) in numbers.iter().enumerate() {
            let bytes = wal.store.read(number).map_err(|cause| WalError::Io { action: "read", cause })?;
            let is_last = at + 1 == numbers.len();
            if let Some(last) = wal.recover_segment(number, &bytes, is_last, &mut recovered)? {
                #[expect(clippy::indexing_slicing, reason = "the frame was read from these bytes")]
                let frame = bytes[last.clone()].to_vec();
                last_frame = Some((number, last.start, frame));
            }
        }
        let noted = wal.store.noted();
        if noted > wal.next_frame && !wal.is_new() {
            return Err(WalError::Corrupt(format!("frame {} was synced, but is missing", noted - 1)));
        }
        if recovered.missing_to > recovered.bounds.index {
            return Err(WalError::Corrupt(format!("the entries before {} are missing", recovered.missing_to + 1)));
        }
        // Segments are deleted only when a later one holds a frame.
        if let Some(first) = wal.segments.first()
            && wal.is_new()
            && first.number > 0
        {
            return Err(WalError::Corrupt(format!("there is no frame in segment {}", first.number)));
        }
        // A process that was killed during a sync may have left a frame that exists only in the page cache, or that the system failed
        // to write and will drop. So the last frame is written once more.
        if let Some((number, position, bytes)) = last_frame {
            wal.harden(number, position, &bytes)?;
        }
        Ok((wal, recovered))
    }

    /// Write bytes of a recovered segment, and make them durable.
    fn harden(&mut self, number: u64, position: usize, bytes: &[u8]) -> Result<(), WalError> {
        self.store
            .write(number, position, bytes)
            .and_then(|()| self.store.sync(number))
            .map_err(|cause| WalError::Io { action: "write to", cause })
    }

    /// Return whether no frame was ever appended.
    #[must_use]
    pub const fn is_new(&self) -> bool {
        self.next_frame == 0
    }

    /// Append a frame and make it durable.
    ///
    /// # Errors
    ///
    /// [`WalError::Io`]: it is then unknown whether the frame is on disk, and every later call fails with the same error.
    pub fn append(&mut self, frame: &Frame) -> Result<(), WalError> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        self.try_append(frame).inspect_err(|failure| self.failure = Some(failure.clone()))
    }

    fn try_append(&mut self, frame: &Frame) -> Result<(), WalError> {
        let mut bytes = self.encoded(frame)?;
        let room = self.segments.last().map_or(0, |segment| segment.size_bytes - self.position);
        if room < bytes.len() || self.position == 0 {
            let bounds = frame.bounds.or(Some(Bounds { is_reset: false, ..self.bounds }));
            bytes = self.encoded(&Frame { bounds, ..frame.clone() })?;
        }
        if room < bytes.len() {
            self.begin_segment(bytes.len())?;
        }
        self.write(&bytes, frame.entries.last().map_or(0, |entry| entry.index))?;
        if let Some(bounds) = frame.bounds {
            self.bounds = bounds;
        }
        self.next_frame += 1;
        self.store.note(self.next_frame).map_err(|cause| WalError::Io { action: "record the progress of", cause })?;
        self.delete_needless()
    }

    fn encoded(&self, frame: &Frame) -> Result<Vec<u8>, WalError> {
        let payload = encode(frame)?;
        let [number, length] = [self.next_frame.to_be_bytes().as_slice(), &length_of(&payload)?].map(<[u8]>::to_vec);
        let checked = [number, length, payload].concat();
        let mut bytes = Vec::with_capacity(HEADER_BYTES + checked.len() + ALIGNMENT);
        bytes.extend(MAGIC.to_be_bytes());
        bytes.extend(crc32c::crc32c(&checked).to_be_bytes());
        bytes.extend(checked);
        bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
        Ok(bytes)
    }

    /// Write a frame whose greatest index of an entry is `last_index` to the last segment.
    fn write(&mut self, bytes: &[u8], last_index: u64) -> Result<(), WalError> {
        #[expect(clippy::expect_used, reason = "without a segment there is no room, and one is begun")]
        let segment = self.segments.last_mut().expect("a segment with room for the frame");
        segment.last_index = segment.last_index.max(last_index);
        self.store
            .write(segment.number, self.position, bytes)
            .and_then(|()| self.store.sync(segment.number))
            .map_err(|cause| WalError::Io { action: "write to", cause })?;
        self.position += bytes.len();
        Ok(())
    }

    /// Start a segment with room for a frame of `frame_bytes`.
    fn begin_segment(&mut self, frame_bytes: usize) -> Result<(), WalError> {
        let number = self.segments.last().map_or(0, |last| last.number + 1);
        let size_bytes = self.store.segment_bytes().max(frame_bytes);
        self.store.create(number, size_bytes).map_err(|cause| WalError::Io { action: "extend", cause })?;
        self.segments.push(Segment { number, size_bytes, last_index: 0 });
        self.position = 0;
        Ok(())
    }

    /// Delete the segments all of whose entries are deleted; the last one stays.
    fn delete_needless(&mut self) -> Result<(), WalError> {
        while let [first, _, ..] = self.segments.as_slice()
            && (first.last_index <= self.bounds.index)
        {
            self.store.delete(first.number).map_err(|cause| WalError::Io { action: "shorten", cause })?;
            self.segments.remove(0);
        }
        Ok(())
    }

    /// Apply the frames of a segment; return the position of the last one, if there is one.
    fn recover_segment(
        &mut self,
        number: u64,
        bytes: &[u8],
        is_last: bool,
        recovered: &mut Recovered,
    ) -> Result<Option<Range<usize>>, WalError> {
        if let Some(previous) = self.segments.last()
            && number != previous.number + 1
        {
            return Err(WalError::Corrupt(format!("segment {} is missing", previous.number + 1)));
        }
        // A segment gets its name after its size.
        if bytes.len() < self.store.segment_bytes() || !bytes.len().is_multiple_of(ALIGNMENT) {
            return Err(WalError::Corrupt(format!("segment {number} is truncated to {} bytes", bytes.len())));
        }
        let mut segment = Segment { number, size_bytes: bytes.len(), last_index: 0 };
        let (mut position, mut last) = (0, None);
        while let Some((found, payload)) = frame_at(bytes, position) {
            let begin = position;
            let is_first = self.is_new();
            if found != self.next_frame && !is_first {
                return Err(WalError::Corrupt(format!("frame {} is missing in segment {number}", self.next_frame)));
            }
            let frame = decode(payload).ok_or_else(|| WalError::Corrupt(format!("frame {found} is malformed")))?;
            if is_first && frame.bounds.is_none() {
                return Err(WalError::Corrupt(format!("frame {found} does not begin a segment")));
            }
            segment.last_index = segment.last_index.max(frame.entries.last().map_or(0, |entry| entry.index));
            recovered.apply(frame)?;
            let end = position + HEADER_BYTES + payload.len();
            position = end.next_multiple_of(ALIGNMENT);
            // Bytes that a crash left unwritten are zero.
            if bytes.get(end..position).is_none_or(|padding| padding.iter().any(|&byte| byte != 0)) {
                return Err(WalError::Corrupt(format!("the padding of frame {found} is damaged")));
            }
            self.next_frame = found + 1;
            last = Some(begin..position);
        }
        self.require_end(number, bytes, position, is_last)?;
        (self.position, self.bounds) = (position, recovered.bounds);
        self.segments.push(segment);
        Ok(last)
    }

    /// Remove a torn frame at `position`; fail if it cannot be a torn one.
    fn require_end(&mut self, number: u64, bytes: &[u8], position: usize, is_last: bool) -> Result<(), WalError> {
        #[expect(clippy::indexing_slicing, reason = "the frames before it and their padding are within these bytes")]
        let rest = &bytes[position..];
        if rest.iter().all(|&byte| byte == 0) {
            return Ok(());
        }
        // A frame with an earlier number does not belong here: it may be part of the data of a client.
        let is_later = |at| frame_at(bytes, at).is_some_and(|(found, _)| found > self.next_frame);
        let goes_on = (position..bytes.len()).step_by(ALIGNMENT).skip(1).any(is_later);
        if !is_last || goes_on || self.store.noted() > self.next_frame {
            return Err(WalError::Corrupt(format!("frame {} in segment {number} is damaged", self.next_frame)));
        }
        self.harden(number, position, &vec![0; rest.len()])
    }
}

impl Recovered {
    /// Apply a frame.
    fn apply(&mut self, frame: Frame) -> Result<(), WalError> {
        if let Some(bounds) = frame.bounds {
            if bounds.is_reset {
                self.entries.clear();
            }
            self.entries.drain(..self.entries.partition_point(|entry| entry.index <= bounds.index));
            self.bounds = bounds;
        }
        if let Some(first) = frame.entries.first() {
            let next = self.entries.last().map_or(self.bounds.index, |last| last.index) + 1;
            if first.index <= self.bounds.index || (first.index > next && !self.entries.is_empty()) {
                return Err(WalError::Corrupt(format!("entry {} follows entry {}", first.index, next - 1)));
            }
            if first.index > next {
                self.missing_to = first.index - 1;
            }
            // This is one search per frame: a log of small entries has that many frames.
            self.entries.truncate(self.entries.partition_point(|entry| entry.index < first.index));
        }
        let are_consecutive =
            frame.entries.is_sorted_by(|one, next| next.index == one.index + 1 && next.term >= one.term);
        if !are_consecutive {
            return Err(WalError::Corrupt("the entries of a frame are not in order".into()));
        }
        self.entries.extend(frame.entries);
        self.hard_state = frame.hard_state;
        Ok(())
    }
}

/// Return the number and the payload of the frame that begins at `position`, if there is a whole one.
fn frame_at(bytes: &[u8], position: usize) -> Option<(u64, &[u8])> {
    let (header, rest) = bytes.get(position..)?.split_first_chunk::<HEADER_BYTES>()?;
    let (magic, header) = header.split_first_chunk::<4>()?;
    let (checksum, checked) = header.split_first_chunk::<4>()?;
    let (number, length) = checked.split_first_chunk::<8>()?;
    if *magic != MAGIC.to_be_bytes() {
        return None;
    }
    let length = usize::try_from(u32::from_be_bytes(length.try_into().ok()?)).ok()?;
    let payload = rest.get(..length)?;
    let found = crc32c::crc32c_append(crc32c::crc32c(checked), payload);
    (found == u32::from_be_bytes(*checksum)).then_some((u64::from_be_bytes(*number), payload))
}

/// Return the length of a part of a frame as it is written, or an error if it does not fit: it would be read as shorter.
fn length_of(part: &[u8]) -> Result<[u8; 4], WalError> {
    let too_large = |_| WalError::TooLarge(part.len());
    u32::try_from(part.len()).map(u32::to_be_bytes).map_err(too_large)
}

fn encode(frame: &Frame) -> Result<Vec<u8>, WalError> {
    let mut out = Vec::new();
    let bounds = frame.bounds.map(|bounds| (bounds.index, bounds.term, 1 + u8::from(bounds.is_reset)));
    let (index, term, kind) = bounds.unwrap_or_default();
    out.push(kind);
    for number in [frame.hard_state.term, frame.hard_state.vote, frame.hard_state.commit, index, term] {
        out.extend(number.to_be_bytes());
    }
    for entry in &frame.entries {
        let entry = entry.encode_to_vec();
        out.extend(length_of(&entry)?);
        out.extend(entry);
    }
    Ok(out)
}

fn decode(payload: &[u8]) -> Option<Frame> {
    let (&kind, rest) = payload.split_first()?;
    let (numbers, mut rest) = rest.split_at_checked(5 * 8)?;
    let (numbers, _) = numbers.as_chunks::<8>();
    let &[term, vote, commit, index, bounds_term] = numbers else { return None };
    let number = u64::from_be_bytes;
    let hard_state = HardState { term: number(term), vote: number(vote), commit: number(commit) };
    let bounds = Bounds { index: number(index), term: number(bounds_term), is_reset: kind == 2 };
    let bounds = (kind != 0).then_some(bounds);
    let mut entries = Vec::new();
    while let Some((length, tail)) = rest.split_first_chunk::<4>() {
        let (entry, tail) = tail.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
        entries.push(Entry::decode(entry).ok()?);
        rest = tail;
    }
    (rest.is_empty() && kind <= 2).then_some(Frame { hard_state, bounds, entries })
}

#[cfg(test)]
mod tests;
