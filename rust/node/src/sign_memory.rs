//! The sign memory: what a member knows outside its data folder of the checkpoints that its log has signed (FORMATS.md, "Sign memory").
//!
//! A log that lost entries could sign other entries in their place, and then two checkpoints contradict each other. So what is to be
//! signed is written here first and synced, and a log that does not continue the newest row signs nothing.
//!
//! The file has a fixed length, so that a sync need not record a new one. Rows are written one after the other and begin at the start
//! again when the file is full: only the newest one counts. A crash can tear the row that was being written, whose checkpoint was not
//! signed then, where it lies across two sectors of the disk. Any other row that cannot be read is damage: the newest one, above all, must
//! not be forgotten.

use std::fs::{File, TryLockError};
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use qed_core::durable::{open_file, replace};
use qed_core::hash::{DIGEST_BYTES, Digest};

/// Size, root, time and checksum of a row.
const ROW_BYTES: usize = 8 + DIGEST_BYTES + 8 + 4;
const SUM_BYTES: usize = 4;
/// Number of rows of a file.
const ROWS: usize = 1024;
/// A disk writes this much whole or not at all. Many have larger sectors, of a multiple of this.
const SECTOR_BYTES: usize = 512;

/// Why a sign memory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SignMemoryError {
    /// The operating system reported an error.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Another process uses it.
    #[error("another process uses it: each member needs a sign memory of its own")]
    InUse,
    /// It is not what this or another build has written.
    #[error("it is damaged: {0}")]
    Damaged(String),
    /// A checkpoint contradicts what is remembered.
    #[error("{remembered} is remembered, which {found} contradicts")]
    Contradiction {
        /// The newest row.
        remembered: Remembered,
        /// What was to be written.
        found: Remembered,
    },
}

/// What is remembered of a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remembered {
    /// Number of entries of its tree.
    pub size: u64,
    /// Root of the tree.
    pub root: Digest,
    /// The time of the signature, in seconds since 1970.
    pub time: u64,
}

/// A sign memory, locked while it is open.
#[derive(Debug)]
pub struct SignMemory {
    file: File,
    newest: Option<Remembered>,
    /// The row that is written next.
    next: usize,
    /// Whether a write or sync has failed: what the file holds is then unknown.
    has_failed: bool,
}

impl std::fmt::Display for Remembered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the root {} of {} entries", self.root, self.size)
    }
}

impl Remembered {
    /// Return whether a log that continues this one may have signed `later`.
    fn may_precede(&self, later: &Self) -> bool {
        self.size < later.size || (self.size == later.size && self.root == later.root)
    }

    fn to_row(self) -> [u8; ROW_BYTES] {
        let mut row = [0; ROW_BYTES];
        let fields = [&self.size.to_be_bytes(), self.root.as_bytes().as_slice(), &self.time.to_be_bytes()].concat();
        let (checked, sum) = row.split_at_mut(ROW_BYTES - SUM_BYTES);
        checked.copy_from_slice(&fields);
        sum.copy_from_slice(&crc32c::crc32c(checked).to_be_bytes());
        row
    }

    fn from_row(row: &[u8; ROW_BYTES]) -> Option<Self> {
        let (checked, sum) = row.split_last_chunk::<SUM_BYTES>()?;
        let (size, rest) = checked.split_first_chunk()?;
        let (root, time) = rest.split_at_checked(DIGEST_BYTES)?;
        let row = Self {
            size: u64::from_be_bytes(*size),
            root: Digest::from_slice(root)?,
            time: u64::from_be_bytes(time.try_into().ok()?),
        };
        (crc32c::crc32c(checked) == u32::from_be_bytes(*sum)).then_some(row)
    }
}

impl SignMemory {
    /// Create the memory of a log that has signed nothing, durably.
    ///
    /// # Errors
    ///
    /// [`SignMemoryError::Io`], also if the file exists; otherwise as [`Self::open`].
    pub fn create(path: &Path) -> Result<Self, SignMemoryError> {
        if path.try_exists()? {
            return Err(io::Error::from(io::ErrorKind::AlreadyExists).into());
        }
        replace(path, |file| io::Write::write_all(file, &vec![0; ROWS * ROW_BYTES]))?;
        Self::open(path)
    }

    /// Open the memory in a file.
    ///
    /// # Errors
    ///
    /// [`SignMemoryError`]. A file that does not exist is an error of the operating system.
    pub fn open(path: &Path) -> Result<Self, SignMemoryError> {
        // Opening would create an empty file otherwise.
        path.metadata()?;
        let mut file = open_file(path)?;
        file.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => SignMemoryError::InUse,
            TryLockError::Error(error) => error.into(),
        })?;
        let mut bytes = Vec::with_capacity(ROWS * ROW_BYTES);
        (&mut file).take(1 + (ROWS * ROW_BYTES) as u64).read_to_end(&mut bytes)?;
        let (newest, next) = newest_in(&bytes).map_err(SignMemoryError::Damaged)?;
        Ok(Self { file, newest, next, has_failed: false })
    }

    /// Return the newest row, or nothing if there is none.
    #[must_use]
    pub const fn newest(&self) -> Option<Remembered> {
        self.newest
    }

    /// Add a row, durably. The time is raised to that of the newest row. Nothing is written if exactly this is remembered already.
    ///
    /// # Errors
    ///
    /// [`SignMemoryError::Contradiction`] unless the row continues the newest one, and then nothing has changed. After
    /// [`SignMemoryError::Io`] no further row is accepted.
    pub fn note(&mut self, found: Remembered) -> Result<Remembered, SignMemoryError> {
        if self.has_failed {
            return Err(io::Error::other("an earlier write failed; fix the cause, then restart this member").into());
        }
        let time = self.newest.map_or(found.time, |newest| newest.time.max(found.time));
        let row = Remembered { time, ..found };
        match self.newest {
            Some(newest) if newest == row => return Ok(row),
            Some(remembered) if !remembered.may_precede(&row) => {
                return Err(SignMemoryError::Contradiction { remembered, found });
            }
            _ => {}
        }
        self.has_failed = true;
        self.file.write_all_at(&row.to_row(), (self.next * ROW_BYTES) as u64)?;
        self.file.sync_data()?;
        self.has_failed = false;
        (self.newest, self.next) = (Some(row), (self.next + 1) % ROWS);
        Ok(row)
    }
}

/// Return the newest row in the content of a file, and where the next one goes; or what is wrong with it.
fn newest_in(bytes: &[u8]) -> Result<(Option<Remembered>, usize), String> {
    let (rows, rest) = bytes.as_chunks::<ROW_BYTES>();
    if rows.len() != ROWS || !rest.is_empty() {
        return Err(format!("expected {} bytes, found {}", ROWS * ROW_BYTES, bytes.len()));
    }
    let read: Vec<_> = rows.iter().map(Remembered::from_row).collect();
    let newest =
        (0..).zip(&read).filter_map(|(number, row)| Some((row.as_ref()?, number))).max_by_key(|(row, number)| {
            // Of equal rows that were written one after the other, the later one.
            (row.size, row.time, *number)
        });
    let next = newest.map_or(0, |(_, number): (_, usize)| (number + 1) % ROWS);
    let had_another = rows.get((next + 1) % ROWS).is_some_and(|row| !is_empty(row));
    let unread = (0..).zip(rows).zip(&read).filter(|((_, row), read)| read.is_none() && !is_empty(*row));
    for ((number, row), _) in unread {
        if number != next || !may_be_torn(row, number * ROW_BYTES, had_another) {
            return Err(format!("row {number} of {ROWS} cannot be read, and a crash does not leave it like that"));
        }
    }
    require_order(&read, next)?;
    Ok((newest.map(|(row, _)| *row), next))
}

fn is_empty(bytes: &[u8]) -> bool {
    bytes.iter().all(|&byte| byte == 0)
}

/// Return whether a crash may have left this row, which begins at `start` in the file: only one of the two sectors in which it lies was
/// written. The other part is still zero, unless `had_another` row been there before.
fn may_be_torn(row: &[u8; ROW_BYTES], start: usize, had_another: bool) -> bool {
    let border = start.next_multiple_of(SECTOR_BYTES) - start;
    row.split_at_checked(border).is_some_and(|(before, after)| {
        !before.is_empty() && !after.is_empty() && (had_another || is_empty(before) || is_empty(after))
    })
}

/// Require that the rows, read from the oldest on, continue each other, without a gap between them.
fn require_order(rows: &[Option<Remembered>], next: usize) -> Result<(), String> {
    let (newer, older) = rows.split_at_checked(next).unwrap_or((rows, &[]));
    let in_order: Vec<_> = older.iter().chain(newer).skip_while(|row| row.is_none()).collect();
    for pair in in_order.windows(2) {
        match pair {
            [Some(earlier), Some(later)] if earlier.may_precede(later) => {}
            [Some(earlier), Some(later)] => return Err(format!("{earlier} is followed by {later}")),
            // The row that would be written next may be torn or empty, and is the oldest.
            [None, _] | [_, None] => return Err("a row is missing".into()),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
