//! The durable store: an LSM tree (fjall) in a data folder, next to two small files (FORMATS.md, "Data folder").

use std::error::Error as StdError;
use std::fs::{self, File, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use fjall::config::{BlockSizePolicy, CompressionPolicy, FilterPolicy};
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use crate::durable;
use crate::error::LogError;
use crate::fjall_check;
use crate::store::{Row, Store, Table, Visit, WriteBatch};
use crate::watermark::Watermark;

/// The format this build reads and writes.
pub const FORMAT: u64 = 1;

const FORMAT_FILE: &str = "FORMAT";
const FORMAT_DRAFT_FILE: &str = "FORMAT.new";
const FORMAT_PREFIX: &str = "qed log, format ";
/// What stands in place of the format while a backup is read into the folder.
const UNFINISHED: &str = "qed log, being restored\n";
const DURABLE_FILE: &str = "durable";
const IMAGE_FILE: &str = "trees";
const STORE_FOLDER: &str = "store";

/// Rows are large, few and mostly read in order, so a small cache is enough.
const CACHE_BYTES: u64 = 32 << 20;
/// Rows are rewritten until their tile is full; a memtable of this size holds some 100,000 events before it is flushed.
const MEMTABLE_BYTES: u64 = 8 << 20;
/// The minimum that fjall allows. Journals are replayed at start, so a larger one would only slow down the start.
const JOURNAL_BYTES: u64 = 64 << 20;
/// A row of digests is 2 KiB.
const BLOCK_BYTES: u32 = 4 << 10;

/// A store in a folder of the file system, which only one process at a time can have open.
pub struct DiskStore {
    path: PathBuf,
    database: Database,
    tables: [Keyspace; Table::ALL.len()],
    durable: Watermark,
}

impl std::fmt::Debug for DiskStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DiskStore").field("path", &self.path).finish_non_exhaustive()
    }
}

impl DiskStore {
    /// Open the data folder at `path`, creating it if it does not exist.
    ///
    /// # Errors
    ///
    /// [`LogError::Locked`] if another process has it open, [`LogError::Unprotected`] if other users may write to it,
    /// [`LogError::UnsupportedFormat`] if it was written in another format, [`LogError::Corrupt`] if its files contradict themselves,
    /// [`LogError::Store`] if it cannot be created, read or written, or holds files that are not a log.
    pub fn open(path: &Path) -> Result<Self, LogError> {
        prepare(path)?;
        Self::open_prepared(path)
    }

    /// Open the store in a folder that is being filled.
    pub(crate) fn open_prepared(path: &Path) -> Result<Self, LogError> {
        let store = path.join(STORE_FOLDER);
        // The permissions of fjall's files depend on the umask, so their folder must keep others out.
        durable::make_folder(&store).map_err(|error| io_error(format!("create {}", store.display()), &error))?;
        // What a killed process left of a tree image: of no use, and perhaps large.
        let _ = fs::remove_file(path.join(IMAGE_FILE).with_extension("new"));
        let opened = fjall_check::open(&store, || open_database(&store).map_err(|error| opening_error(path, &error)));
        let (database, tables) = opened?;
        let watermark = Watermark::open(&path.join(DURABLE_FILE))
            .map_err(|error| io_error(format!("open {}", path.join(DURABLE_FILE).display()), &error))?;
        // fjall syncs its own folder, but not the folder above it, which holds its name.
        durable::sync_folder(path).map_err(|error| io_error(format!("sync {}", path.display()), &error))?;
        Ok(Self { path: path.to_path_buf(), database, tables, durable: watermark })
    }

    fn table(&self, table: Table) -> &Keyspace {
        let [digests, roots, occurrences, repeats, members, applied, acts, tiles] = &self.tables;
        match table {
            Table::Digests => digests,
            Table::Roots => roots,
            Table::Occurrences => occurrences,
            Table::Repeats => repeats,
            Table::Members => members,
            Table::Applied => applied,
            Table::Acts => acts,
            Table::Tiles => tiles,
        }
    }

    fn read<T>(&self, read: impl FnOnce() -> fjall::Result<T>) -> Result<T, LogError> {
        fjall_check::read(&self.path, || read().map_err(|error| self.failed("read", &error)))
    }

    fn failed(&self, action: &str, error: &fjall::Error) -> LogError {
        store_error(format!("{action} {}", self.path.display()), error)
    }
}

fn open_database(store: &Path) -> fjall::Result<(Database, [Keyspace; Table::ALL.len()])> {
    let database = Database::builder(store)
        .cache_size(CACHE_BYTES)
        .max_journaling_size(JOURNAL_BYTES)
        .worker_threads(1)
        .manual_journal_persist(true)
        .open()?;
    let open_table = |table: Table| database.keyspace(table.name(), table_options);
    let [digests, roots, occurrences, repeats, members, applied, acts, tiles] = Table::ALL.map(open_table);
    Ok((database, [digests?, roots?, occurrences?, repeats?, members?, applied?, acts?, tiles?]))
}

fn table_options() -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default()
        .max_memtable_size(MEMTABLE_BYTES)
        .data_block_size_policy(BlockSizePolicy::all(BLOCK_BYTES))
        // Digests do not compress.
        .data_block_compression_policy(CompressionPolicy::disabled())
        // The log only reads rows that exist, so a Bloom filter would never rule a file out.
        .filter_policy(FilterPolicy::disabled())
}

/// Create the data folder, or check that it is one and has this format. The format file is written first, so a folder that a crash
/// left half created either names its format or contains only a draft of that file.
fn prepare(path: &Path) -> Result<(), LogError> {
    let failed = |action: &str, error: &io::Error| io_error(format!("{action} {}", path.display()), error);
    durable::make_folder(path).map_err(|error| failed("create the data folder", &error))?;
    if let Some(mode) = durable::close_to_others(path).map_err(|error| failed("protect", &error))? {
        return Err(LogError::Unprotected { path: path.to_path_buf(), mode });
    }
    let file = path.join(FORMAT_FILE);
    match fs::read_to_string(&file) {
        Ok(text) => check_format(path, &text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if holds_others(path).map_err(|error| failed("read", &error))? {
                let cause = io::Error::other(format!(
                    "it is not empty but has no file {FORMAT_FILE}, so it is not the data folder of a log"
                ));
                return Err(failed("use", &cause));
            }
            write_format(path).map_err(|error| failed("write to", &error))
        }
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            Err(LogError::Corrupt(format!("{} is not text", file.display())))
        }
        Err(error) => Err(failed("read", &error)),
    }
}

fn write_format(path: &Path) -> io::Result<()> {
    durable::replace(&path.join(FORMAT_FILE), |out| writeln!(out, "{FORMAT_PREFIX}{FORMAT}"))
}

/// A folder that one process fills, and that no build opens as a log before it is published.
#[derive(Debug)]
pub(crate) struct Claim {
    path: PathBuf,
    /// Locked as long as this exists.
    format: File,
    is_published: bool,
}

impl Claim {
    /// Claim the folder at `path`, made if it does not exist, and empty it if what it holds is an unfinished restoration.
    pub(crate) fn new(path: &Path) -> Result<Self, LogError> {
        let failed = |error: io::Error| io_error(format!("restore into {}", path.display()), &error);
        durable::make_folder(path).map_err(failed)?;
        if let Some(mode) = durable::close_to_others(path).map_err(failed)? {
            return Err(LogError::Unprotected { path: path.to_path_buf(), mode });
        }
        let occupied = || LogError::Occupied { path: path.to_path_buf() };
        let file = path.join(FORMAT_FILE);
        if !file.exists() && holds_others(path).map_err(failed)? {
            return Err(occupied());
        }
        let mut format = durable::open_file(&file).map_err(failed)?;
        match format.try_lock() {
            Err(TryLockError::WouldBlock) => return Err(LogError::Locked { path: path.to_path_buf() }),
            outcome => outcome.map_err(|error| failed(error.into()))?,
        }
        let mut text = String::new();
        format.read_to_string(&mut text).map_err(|_| occupied())?;
        // A crash can come between making the file and writing it.
        if text != UNFINISHED && !text.is_empty() {
            return Err(occupied());
        }
        let claim = Self { path: path.to_path_buf(), format, is_published: false };
        claim.mark().map_err(failed)?;
        claim.empty().map_err(failed)?;
        Ok(claim)
    }

    fn mark(&self) -> io::Result<()> {
        self.format.write_all_at(UNFINISHED.as_bytes(), 0)?;
        self.format.sync_all()?;
        durable::sync_folder(&self.path)
    }

    /// Remove everything but the mark.
    fn empty(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                fs::remove_dir_all(entry.path())?;
            } else if entry.file_name() != FORMAT_FILE {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    /// Let the folder be opened as a log. Durable when this returns.
    pub(crate) fn publish(mut self) -> Result<(), LogError> {
        let written = write_format(&self.path);
        written.map_err(|error| io_error(format!("write to {}", self.path.display()), &error))?;
        self.is_published = true;
        Ok(())
    }
}

impl Drop for Claim {
    /// Leave the folder empty if it was not published. What cannot be removed is still marked.
    fn drop(&mut self) {
        if !self.is_published && self.empty().is_ok() {
            let _ = fs::remove_file(self.path.join(FORMAT_FILE));
        }
    }
}

/// Whether a folder without a format file contains anything but its draft. A crash or a full disk during the very first start leaves
/// only the draft.
fn holds_others(path: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(path)? {
        if entry?.file_name() != FORMAT_DRAFT_FILE {
            return Ok(true);
        }
    }
    Ok(false)
}

fn check_format(path: &Path, text: &str) -> Result<(), LogError> {
    let found = text.strip_prefix(FORMAT_PREFIX).map(str::trim_end).and_then(|number| number.parse::<u64>().ok());
    match found {
        Some(FORMAT) => Ok(()),
        None if text == UNFINISHED => Err(LogError::Unfinished { path: path.to_path_buf() }),
        Some(other) => {
            Err(LogError::UnsupportedFormat { path: path.to_path_buf(), found: other.to_string(), known: FORMAT })
        }
        None => Err(LogError::Corrupt(format!("{} does not name a format", path.join(FORMAT_FILE).display()))),
    }
}

impl Store for DiskStore {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, LogError> {
        let found = self.read(|| self.table(table).get(key))?;
        Ok(found.map(|value| value.to_vec()))
    }

    fn first_in(&self, table: Table, from: &[u8], to: &[u8]) -> Result<Option<Row>, LogError> {
        let found =
            self.read(|| self.table(table).range(from..=to).next().map(fjall::Guard::into_inner).transpose())?;
        Ok(found.map(|(key, value)| (key.to_vec(), value.to_vec())))
    }

    fn last_in(&self, table: Table, from: &[u8], to: &[u8]) -> Result<Option<Row>, LogError> {
        let last = || self.table(table).range(from..=to).next_back().map(fjall::Guard::into_inner).transpose();
        let found = self.read(last)?;
        Ok(found.map(|(key, value)| (key.to_vec(), value.to_vec())))
    }

    fn scan(&self, table: Table, from: &[u8], visit: &mut Visit<'_>) -> Result<(), LogError> {
        let mut rows = self.read(|| Ok(self.table(table).range(from..)))?;
        while let Some((key, value)) = self.read(|| rows.next().map(fjall::Guard::into_inner).transpose())? {
            if visit(&key, &value)?.is_break() {
                break;
            }
        }
        Ok(())
    }

    fn write(&self, batch: WriteBatch) -> Result<(), LogError> {
        let mut rows = self.database.batch().durability(None);
        for (table, (key, value)) in batch {
            rows.insert(self.table(table), key, value);
        }
        rows.commit().map_err(|error| self.failed("write to", &error))
    }

    fn sync(&self) -> Result<(), LogError> {
        // A background thread of fjall syncs the journal too. If its sync fails while this call waits for the journal's lock, this
        // call finds nothing left to sync and succeeds, because the system reports a failed write-back only once. The background
        // thread then marks the database as failed, but `persist` checks the mark only before it takes the lock, so call it a second
        // time. This misses only a background thread that is delayed between releasing the lock and setting the mark for as long as a
        // sync takes; the next write is refused then.
        let persist = |mode| self.database.persist(mode).map_err(|error| self.failed("sync", &error));
        persist(PersistMode::SyncData)?;
        persist(PersistMode::Buffer)
    }

    fn note_durable(&self, len: u64) -> Result<(), LogError> {
        self.durable.write(len).map_err(|error| io_error(format!("write to {}", self.path.display()), &error))
    }

    fn noted_durable(&self) -> u64 {
        self.durable.read()
    }

    fn image_path(&self) -> Option<PathBuf> {
        Some(self.path.join(IMAGE_FILE))
    }
}

fn opening_error(path: &Path, error: &fjall::Error) -> LogError {
    match error {
        fjall::Error::Locked => LogError::Locked { path: path.to_path_buf() },
        other => store_error(format!("open {}", path.display()), other),
    }
}

/// Distinguish failures reported by the operating system from damage in the files.
fn store_error(action: String, error: &fjall::Error) -> LogError {
    let mut causes = std::iter::successors(Some(error as &(dyn StdError + 'static)), |&error| error.source());
    let system = causes.find_map(|cause| cause.downcast_ref::<io::Error>());
    match (error, system) {
        (fjall::Error::Io(cause), _) if is_of_content(cause) => LogError::Corrupt(format!("cannot {action}: {cause}")),
        (fjall::Error::Io(cause), _) => io_error(action, cause),
        (_, Some(cause)) if !is_of_content(cause) => io_error(action, cause),
        (fjall::Error::Poisoned, _) => {
            LogError::Store { action, cause: "an earlier write in the background failed".into() }
        }
        _ => LogError::Corrupt(format!("cannot {action}: {error}")),
    }
}

/// Whether an I/O error means damaged content: a missing file, an impossible length or an invalid field.
fn is_of_content(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData | io::ErrorKind::NotFound)
}

fn io_error(action: String, error: &io::Error) -> LogError {
    LogError::Store { action, cause: error.to_string() }
}
