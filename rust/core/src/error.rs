//! What operations on a log can fail with. Verification has its own error, [`crate::verify::VerifyError`].

use std::path::PathBuf;

use crate::log_id::LogId;

/// Why a log could not do what was requested. A failed call has changed nothing that a later call on the same open log can see.
///
/// After a failed write or sync, the batch may or may not be on disk. The next open decides: the log then has either the whole batch
/// or nothing of it.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The version is beyond the log.
    #[error("version {asked} is not in the log, which holds {len} events")]
    UnknownVersion {
        /// The version asked for.
        asked: u64,
        /// How many events the log holds.
        len: u64,
    },
    /// An incremental proof was requested for a range whose start is after its end.
    #[error("expected a range whose start is not after its end, found {start} to {end}: swap the two versions")]
    InvalidRange {
        /// First version of the range.
        start: u64,
        /// Last version of the range.
        end: u64,
    },
    /// Nothing can be proven about a log without events.
    #[error("the log holds no events yet, so nothing can be proven: add one first")]
    Empty,
    /// The event is in the log, but was first added after the asked version.
    #[error("the event was first added at version {first}, after the asked version {asked}")]
    AddedLater {
        /// Version of the event's first occurrence.
        first: u64,
        /// The version asked for.
        asked: u64,
    },
    /// A request to append names no event.
    #[error("a request to append must hold at least one event")]
    EmptyRequest,
    /// Another process has the data folder open.
    #[error("{} is in use by another process", path.display())]
    Locked {
        /// The data folder.
        path: PathBuf,
    },
    /// Other users of the machine may write to the data folder, so what it holds proves nothing.
    #[error("{} can be written by others (mode {mode:04o}): make sure that nobody has changed it, then run chmod go-w", path.display())]
    Unprotected {
        /// The data folder.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The data folder was written in a format this build does not know.
    #[error("expected format {known} in {}, found format {found}: open it with the version of qed that wrote it, or with a newer one", path.display())]
    UnsupportedFormat {
        /// The data folder.
        path: PathBuf,
        /// What the folder says.
        found: String,
        /// What this build reads and writes.
        known: u64,
    },
    /// Reading a backup into the data folder was interrupted.
    #[error("{} was not completely restored: run qed restore again", path.display())]
    Unfinished {
        /// The data folder.
        path: PathBuf,
    },
    /// A backup can be read only into an empty folder.
    #[error("{} is not empty: expected a folder that does not exist or is empty", path.display())]
    Occupied {
        /// The folder.
        path: PathBuf,
    },
    /// The hyper tree has no room for another key.
    #[error(
        "the log is full: its hyper tree holds {keys} keys, the most it can; keep this log for proofs and add to a new one in an empty folder"
    )]
    Full {
        /// How many keys it holds.
        keys: u64,
    },
    /// The caller applies an entry again, or after a later one.
    #[error("entry {given} cannot be applied: the log has already applied entry {applied}")]
    OutOfOrder {
        /// The entry to apply.
        given: LogId,
        /// The last entry that was applied.
        applied: LogId,
    },
    /// A bug in qed, not a mistake in its input.
    #[error("a bug in qed: {0}")]
    Bug(&'static str),
    /// This log's own rows are missing, misshapen, or contradict each other.
    #[error("the stored log is damaged: {0}")]
    Corrupt(String),
    /// The store could not be opened, read or written.
    #[error("cannot {action}: {cause}")]
    Store {
        /// What was attempted, as in "open /var/lib/qed".
        action: String,
        /// What the store or the operating system reported.
        cause: String,
    },
    /// An earlier write or sync failed, so what is on disk is unknown until the log is opened again.
    #[error("the log accepts no more events: {reason}")]
    WriteRefused {
        /// The first failure.
        reason: String,
    },
}
