//! Checks that fjall does not make itself: its folder is checked before it is opened, and a panic while opening becomes an error.
//!
//! fjall ends the process if a manifest is damaged, and takes a folder that lost a file for one that was never filled, which it then
//! deletes. Both cases can be detected from outside: fjall stores a checksum with each manifest, and it is compared here. fjall also
//! never reopens a folder whose first start was interrupted, although nothing can have been stored in it.

use std::any::Any;
use std::cell::Cell;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::Once;

use xxhash_rust::xxh3::xxh3_128;

use crate::error::LogError;

const VERSION_FILE: &str = "version";
/// Length of the file: magic and version.
const VERSION_BYTES: u64 = 4;
const JOURNAL_SUFFIX: &str = ".jnl";
const LOCK_FILE: &str = "lock";
const KEYSPACES_FOLDER: &str = "keyspaces";
const CURRENT_FILE: &str = "current";
const TABLES_FOLDER: &str = "tables";
/// Content of the file: the number of the manifest and its XXH3, both little-endian, and the kind of checksum.
const CURRENT_BYTES: usize = 8 + 16 + 1;
const KIND_XXH3: u8 = 0;

/// Check fjall's folder `store`, if it exists, then open it with `open`. A panic in `open` becomes an error and prints nothing.
///
/// # Errors
///
/// [`LogError::Corrupt`] if a file is missing, if a manifest does not match its stored checksum, or if `open` panics;
/// [`LogError::Store`] if a file cannot be read; the errors of `open`.
pub fn open<T>(store: &Path, open: impl FnOnce() -> Result<T, LogError>) -> Result<T, LogError> {
    check(store)?;
    install_hook();
    read(store, open)
}

/// Read the store with `read`, which must call nothing but fjall. If fjall's files contradict each other, its assertions panic; such
/// a panic becomes an error and prints nothing.
///
/// # Errors
///
/// [`LogError::Corrupt`] if `read` panics; the errors of `read`.
pub fn read<T>(store: &Path, read: impl FnOnce() -> Result<T, LogError>) -> Result<T, LogError> {
    IS_READING.set(true);
    // A panic while reading cannot leave anything half changed, because fjall only reads here.
    let found = panic::catch_unwind(AssertUnwindSafe(read));
    IS_READING.set(false);
    found.unwrap_or_else(|cause| {
        let cause = first_line(cause.as_ref());
        Err(LogError::Corrupt(format!("the store in {} cannot be read: {cause}", store.display())))
    })
}

thread_local! {
    /// Whether the next panic of this thread will be caught by [`read`] and reported as an error.
    static IS_READING: Cell<bool> = const { Cell::new(false) };
}

/// Keep the panics that [`read`] catches off stderr. All others are shown as usual, including a second panic while the first one is
/// unwinding: it ends the process, and must not do so silently.
fn install_hook() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let shown = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            if !IS_READING.take() {
                shown(panic);
            }
        }));
    });
}

fn first_line(cause: &(dyn Any + Send)) -> &str {
    let text = cause.downcast_ref::<String>().map(String::as_str).or_else(|| cause.downcast_ref().copied());
    text.and_then(|text| text.lines().next()).unwrap_or("its files contradict each other")
}

fn check(store: &Path) -> Result<(), LogError> {
    // If another process holds the lock it may be writing these files. fjall reports that case clearly, so leave it to fjall.
    let Ok(lock) = File::open(store.join(LOCK_FILE)) else { return Ok(()) };
    if lock.try_lock_shared().is_err() {
        return Ok(());
    }
    let file = store.join(VERSION_FILE);
    match fs::metadata(&file) {
        Ok(version) if version.len() >= VERSION_BYTES => {}
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(unreadable(&file, &error)),
        Ok(_) | Err(_) => return clear_unused(store),
    }
    let keyspaces = entries(&store.join(KEYSPACES_FOLDER))?.into_iter().map(|entry| entry.path());
    keyspaces.filter(|path| path.is_dir()).try_for_each(|path| check_manifest(&path))
}

/// Remove the leftovers of an interrupted first start, which fjall cannot resume from. fjall creates its lock, the folder of
/// keyspaces, a journal of zeros and, last, the file by which it recognises its own folder. It creates no table and writes no row
/// before all of that is synced. So a folder that contains anything else, or a journal that is not all zeros, was once a log.
fn clear_unused(store: &Path) -> Result<(), LogError> {
    let mut leftovers = Vec::new();
    for entry in entries(store)? {
        let (path, name) = (entry.path(), entry.file_name());
        let is_unused = match name.to_str() {
            Some(LOCK_FILE) => continue,
            Some(KEYSPACES_FOLDER) if is_empty(&path).map_err(|error| unreadable(&path, &error))? => continue,
            Some(VERSION_FILE) => true,
            Some(name) if name.ends_with(JOURNAL_SUFFIX) => {
                is_zeros(&path).map_err(|error| unreadable(&path, &error))?
            }
            _ => false,
        };
        if !is_unused {
            let file = store.join(VERSION_FILE);
            let reason =
                format!("{} is missing or cut off: restore it, or the whole folder, from a backup", file.display());
            return Err(LogError::Corrupt(reason));
        }
        leftovers.push(path);
    }
    let remove = |path: &PathBuf| fs::remove_file(path).map_err(|error| unremovable(path, &error));
    leftovers.iter().try_for_each(remove)
}

/// Whether a file contains only zeros. A new journal consists of 64 MiB of them.
#[expect(clippy::indexing_slicing, reason = "`read` never returns more than the length of the chunk")]
fn is_zeros(path: &Path) -> io::Result<bool> {
    let (mut file, mut chunk) = (File::open(path)?, vec![0; 1 << 16]);
    loop {
        let count = file.read(&mut chunk)?;
        let read = &chunk[..count];
        if read.is_empty() || read.iter().any(|&byte| byte != 0) {
            return Ok(read.is_empty());
        }
    }
}

/// Require that the manifest of a keyspace is the one whose checksum is stored. If the checksum is stored in an unknown form, leave
/// the check to fjall.
fn check_manifest(keyspace: &Path) -> Result<(), LogError> {
    let file = keyspace.join(CURRENT_FILE);
    let note = match fs::read(&file) {
        Ok(note) => note,
        Err(error) => {
            let tables = keyspace.join(TABLES_FOLDER);
            let has_none = is_empty(&tables).map_err(|error| unreadable(&tables, &error))?;
            // Without tables, this is a keyspace whose creation a crash interrupted; fjall creates it again.
            let is_unmade = error.kind() == io::ErrorKind::NotFound && has_none;
            return if is_unmade { Ok(()) } else { Err(unreadable(&file, &error)) };
        }
    };
    let Ok([number @ .., KIND_XXH3]) = <[u8; CURRENT_BYTES]>::try_from(note.as_slice()) else { return Ok(()) };
    let (numbers, checksums) = number.split_at(8);
    let number = numbers.iter().rev().fold(0_u64, |number, &byte| number << 8 | u64::from(byte));
    let file = keyspace.join(format!("v{number}"));
    let manifest = fs::read(&file).map_err(|error| unreadable(&file, &error))?;
    if xxh3_128(&manifest).to_le_bytes() == checksums {
        return Ok(());
    }
    Err(LogError::Corrupt(format!(
        "{} is damaged: its checksum differs; restore the folder from a backup",
        file.display()
    )))
}

fn entries(folder: &Path) -> Result<Vec<fs::DirEntry>, LogError> {
    let entries = fs::read_dir(folder).and_then(Iterator::collect);
    entries.map_err(|error| unreadable(folder, &error))
}

/// Whether a folder is empty or does not exist.
fn is_empty(folder: &Path) -> io::Result<bool> {
    match fs::read_dir(folder) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
    }
}

fn unremovable(path: &Path, error: &io::Error) -> LogError {
    LogError::Store { action: format!("remove {}", path.display()), cause: error.to_string() }
}

fn unreadable(path: &Path, error: &io::Error) -> LogError {
    match error.kind() {
        io::ErrorKind::NotFound => LogError::Corrupt(format!("{} is missing", path.display())),
        _ => LogError::Store { action: format!("read {}", path.display()), cause: error.to_string() },
    }
}
