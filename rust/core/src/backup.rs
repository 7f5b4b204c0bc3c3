//! Backups: the pages of a log as a stream of bytes that any build and any storage engine can read (FORMATS.md, "Backups").
//!
//! A stream is a line that names the format, then frames: a header, pages, an end. The hash of each frame covers all frames before it, so
//! a changed byte is found wherever it is, and the last hash identifies the whole backup. Each frame says how far the log is after it, so
//! whoever has a part of a stream can have it continued, by any member.

mod file;
mod reader;
mod writer;

use std::fs::{self, File, Metadata};
use std::io::{self, BufReader, Read as _, Seek as _, SeekFrom};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::acts::ChainEnd;
use crate::bytes::Reader;
use crate::error::LogError;
use crate::hash::{DIGEST_BYTES, Digest};
use crate::log_id::LogId;
use crate::page::{Extent, Page};

pub use self::file::BackupFile;
pub use self::reader::{BackupReader, Part};
pub use self::writer::{beginning, continuation};

/// The format that this build reads and writes.
pub const FORMAT: u64 = 1;

const FORMAT_PREFIX: &str = "qed backup, format ";
/// Kind and length of a frame.
const HEAD_BYTES: usize = 1 + 4;

const HEADER: u8 = b'H';
const PAGE: u8 = b'P';
const END: u8 = b'E';

/// Why a backup cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The bytes are something else.
    #[error("it is not a backup: its first line is not \"{FORMAT_PREFIX}{FORMAT}\"")]
    NotABackup,
    /// A later build wrote it.
    #[error("it is a backup of format {found}, this build knows format {FORMAT}: use a newer qed")]
    UnsupportedFormat {
        /// The format that it names.
        found: u64,
    },
    /// The bytes end before the backup does.
    #[error("the backup is cut off at byte {offset}, after {events} events: make it again, or use another one")]
    CutOff {
        /// Bytes of the whole frames.
        offset: u64,
        /// Events in them.
        events: u64,
    },
    /// The bytes were changed.
    #[error("the backup is damaged in the frame at byte {offset}: {reason}")]
    Damaged {
        /// Where the frame begins.
        offset: u64,
        /// What differs.
        reason: String,
    },
    /// It continues another backup than the one before it.
    #[error("it continues the backup {wanted}, but the one before it is {found}")]
    NoContinuation {
        /// The identity of the backup that it continues.
        wanted: String,
        /// That of the one before it.
        found: String,
    },
    /// It names another log than the backup that it continues.
    #[error("it is of the log {found:?}, but the backup that it continues is of the log {wanted:?}")]
    OtherLog {
        /// The log of the backup that it continues.
        wanted: String,
        /// The log that it names.
        found: String,
    },
    /// It cannot be read.
    #[error("the backup cannot be read or written: {0}")]
    Io(io::Error),
    /// What is wrong with one of several backups.
    #[error("{}: {cause}", path.display())]
    In {
        /// Its file.
        path: PathBuf,
        /// What is wrong.
        cause: Box<Self>,
    },
    /// The roots in it are not those of its events, or the log that it is read into failed.
    #[error(transparent)]
    Log(#[from] LogError),
}

/// How far a log is: its events, the last entry of the replicated log that is applied, and the acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reach {
    /// Its events.
    pub extent: Extent,
    /// The last applied entry.
    pub log_id: LogId,
    /// Where the chain of acts ends.
    pub acts: ChainEnd,
}

/// Bytes of a reach, as the length of a body.
const REACH_LENGTH: u32 = (8 + 2 * 32) + 16 + (16 + 32);
const _: () = assert!(Reach::BYTES == REACH_LENGTH as usize, "the two are one number");

impl Reach {
    /// Bytes of a reach.
    pub const BYTES: usize = Extent::BYTES + LogId::BYTES + LogId::BYTES + DIGEST_BYTES;

    /// Return the bytes that stand for it.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        [self.extent.to_bytes(), self.log_id.to_bytes().to_vec(), self.acts.to_bytes()].concat()
    }

    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let extent = Extent::from_bytes(reader.bytes(Extent::BYTES)?).ok()?;
        Some(Self { extent, log_id: reader.log_id()?, acts: ChainEnd::read(reader)? })
    }
}

/// A place between two frames of a stream, from which it can be continued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// How far the log is after the frames before it.
    pub reach: Reach,
    /// The hash of all frames before it.
    pub chain: Digest,
}

impl Cursor {
    /// Return the bytes that stand for it.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        [self.reach.to_bytes(), self.chain.as_bytes().to_vec()].concat()
    }

    /// Return the cursor that `bytes` stand for, or nothing if they are no cursor.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Reader::whole(bytes, |reader| Some(Self { reach: Reach::read(reader)?, chain: reader.digest()? }))
    }
}

/// What a backup says about itself at its beginning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Where the log that it continues ends: at nothing, or at the end of an earlier backup.
    pub start: Reach,
    /// The last hash of that earlier backup.
    pub base: Option<Digest>,
    /// Who made it, and when.
    pub origin: Origin,
}

/// Who made a backup, and when: nothing depends on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    /// The name of the log.
    pub log: String,
    /// The name of the member.
    pub node_id: String,
    /// The version of its software.
    pub software: String,
    /// Seconds since 1970, by the clock of that member.
    pub created_s: u64,
}

impl Header {
    fn to_bytes(&self) -> Vec<u8> {
        #[expect(clippy::expect_used, reason = "text and a number always become JSON")]
        let origin = serde_json::to_vec(&self.origin).expect("an origin as JSON");
        let base = self.base.unwrap_or_default();
        [self.start.to_bytes().as_slice(), &[self.base.is_some().into()], base.as_bytes(), &origin].concat()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (fields, origin) = bytes.split_at_checked(Reach::BYTES + 1 + DIGEST_BYTES)?;
        let (start, is_based, base) =
            Reader::whole(fields, |reader| Some((Reach::read(reader)?, reader.array::<1>()?, reader.digest()?)))?;
        let base = match is_based {
            [0] if base == Digest::default() => None,
            [1] => Some(base),
            _ => return None,
        };
        Some(Self { start, base, origin: serde_json::from_slice(origin).ok()? })
    }
}

/// Return the first line of a stream.
fn first_line() -> String {
    format!("{FORMAT_PREFIX}{FORMAT}\n")
}

/// Return the hash that the first frame continues.
fn first_chain() -> Digest {
    Digest::of_event(first_line().as_bytes())
}

fn head_of(kind: u8, length: u32) -> [u8; HEAD_BYTES] {
    let [a, b, c, d] = length.to_be_bytes();
    [kind, a, b, c, d]
}

impl Page {
    /// Return how far the log is after the page.
    #[must_use]
    pub fn reach(&self) -> Reach {
        let extent = self.batches.last().map_or(self.start, |last| Extent {
            len: last.last.saturating_add(1),
            history_digest: self.history_digest,
            hyper_digest: last.hyper_digest,
        });
        Reach { extent, log_id: self.end, acts: self.acts_end }
    }
}

/// What a backup says about itself, at its beginning and at its end. Only reading all of it shows whether that is true.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Its beginning.
    pub header: Header,
    /// Its end. The hash identifies the backup.
    pub end: Cursor,
    /// Bytes of the file.
    pub size_bytes: u64,
}

impl Summary {
    /// Return what the backup in the file at `path` says about itself.
    ///
    /// # Errors
    ///
    /// [`BackupError`] if it does not begin or end as a backup does.
    pub fn of(path: &Path) -> Result<Self, BackupError> {
        const TAIL_BYTES: usize = HEAD_BYTES + Reach::BYTES + DIGEST_BYTES;
        let mut file = open(path)?;
        let size_bytes = file.metadata().map_err(BackupError::Io)?.len();
        let reader = BackupReader::open(BufReader::new(&mut file))?;
        let (header, cut_off) = (reader.header().clone(), BackupError::CutOff { offset: reader.offset(), events: 0 });
        let Some(start) = size_bytes.checked_sub(TAIL_BYTES as u64).filter(|start| *start >= reader.offset()) else {
            return Err(cut_off);
        };
        let mut tail = [0; TAIL_BYTES];
        file.seek(SeekFrom::Start(start)).and_then(|_| file.read_exact(&mut tail)).map_err(BackupError::Io)?;
        let end = tail.strip_prefix(&head_of(END, REACH_LENGTH)).and_then(Cursor::from_bytes).ok_or(cut_off)?;
        Ok(Self { header, end, size_bytes })
    }
}

/// Read backups, each of which continues the one before it, and pass on each page in order. Return their end, or the value that `take`
/// stops with.
///
/// # Errors
///
/// [`BackupError::In`] names the backup that cannot be read, does not continue the one before it, or for which `take` failed.
pub fn read_all<B>(
    paths: &[PathBuf],
    take: &mut dyn FnMut(&Page) -> Result<ControlFlow<B>, BackupError>,
) -> Result<ControlFlow<B, Cursor>, BackupError> {
    let mut last: Option<Ending> = None;
    for path in paths {
        let read = read_one(path, last.as_ref(), take);
        match read.map_err(|cause| BackupError::In { path: path.clone(), cause: Box::new(cause) })? {
            ControlFlow::Continue(ending) => last = Some(ending),
            ControlFlow::Break(value) => return Ok(ControlFlow::Break(value)),
        }
    }
    let none = || BackupError::Io(io::Error::other("no backup was given"));
    last.ok_or_else(none).map(|last| ControlFlow::Continue(last.end))
}

/// Open a backup. A named pipe would wait for a writer, perhaps forever.
fn open(path: &Path) -> Result<File, BackupError> {
    require_regular(&fs::metadata(path).map_err(BackupError::Io)?)?;
    File::open(path).map_err(BackupError::Io)
}

fn require_regular(found: &Metadata) -> Result<(), BackupError> {
    if found.is_file() {
        Ok(())
    } else {
        Err(BackupError::Io(io::Error::other("expected a regular file, found something else")))
    }
}

/// The end of a backup, and the name of its log.
struct Ending {
    end: Cursor,
    log: String,
}

fn read_one<B>(
    path: &Path,
    last: Option<&Ending>,
    take: &mut dyn FnMut(&Page) -> Result<ControlFlow<B>, BackupError>,
) -> Result<ControlFlow<B, Ending>, BackupError> {
    let mut reader = BackupReader::open(BufReader::new(open(path)?))?;
    require_continued(reader.header(), last)?;
    let log = reader.header().origin.log.clone();
    while let Part::Page(page) = reader.part()? {
        if let ControlFlow::Break(value) = take(&page)? {
            return Ok(ControlFlow::Break(value));
        }
    }
    Ok(ControlFlow::Continue(Ending { end: reader.cursor(), log }))
}

fn require_continued(header: &Header, last: Option<&Ending>) -> Result<(), BackupError> {
    let end = last.map(|last| last.end);
    if header.base != end.map(|end| end.chain) || header.start != end.map(|end| end.reach).unwrap_or_default() {
        let name = |chain: Option<Digest>| chain.map_or_else(|| "none".into(), |chain| chain.to_string());
        return Err(BackupError::NoContinuation { wanted: name(header.base), found: name(end.map(|end| end.chain)) });
    }
    match last {
        Some(last) if last.log != header.origin.log => {
            Err(BackupError::OtherLog { wanted: last.log.clone(), found: header.origin.log.clone() })
        }
        _ => Ok(()),
    }
}
