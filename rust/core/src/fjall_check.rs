//! Checks that fjall does not make itself: its folder is checked before it is opened, and a panic while it opens becomes an error.
//!
//! fjall ends the process over a damaged manifest, and treats a folder that lost a file as one that was never filled, which it then
//! deletes. Both can be seen from outside: fjall writes a checksum beside each manifest, which is read here. It also never opens a
//! folder again whose first start was interrupted, although nothing can have been stored in it.

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
/// Magic and version.
const VERSION_BYTES: u64 = 4;
const JOURNAL_SUFFIX: &str = ".jnl";
const LOCK_FILE: &str = "lock";
const KEYSPACES_FOLDER: &str = "keyspaces";
const CURRENT_FILE: &str = "current";
const TABLES_FOLDER: &str = "tables";
/// The number of the manifest and its XXH3, both little-endian, and the kind of checksum.
const CURRENT_BYTES: usize = 8 + 16 + 1;
const KIND_XXH3: u8 = 0;

/// Check the engine's folder `store`, if there is one, then open it with `open`; a panic of `open` is an error and prints nothing.
///
/// # Errors
///
/// [`LogError::Corrupt`] if a file is missing, if a manifest is not the one whose checksum was noted, or if `open` panics;
/// [`LogError::Store`] if a file cannot be read; what `open` fails with.
pub fn open<T>(store: &Path, open: impl FnOnce() -> Result<T, LogError>) -> Result<T, LogError> {
    check(store)?;
    install_hook();
    read(store, open)
}

/// Read the store with `read`, which calls nothing but fjall. fjall asserts where its files contradict themselves; such a panic is an
/// error and prints nothing.
///
/// # Errors
///
/// [`LogError::Corrupt`] if `read` panics; what it fails with.
pub fn read<T>(store: &Path, read: impl FnOnce() -> Result<T, LogError>) -> Result<T, LogError> {
    IS_READING.set(true);
    // What fjall leaves behind when it panics while reading, it has only read.
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

/// Keep the panics that [`read`] catches off stderr. All others are shown as they were, also a second one while the first is being
/// unwound: that one ends the process, and must not end it silently.
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
    text.and_then(|text| text.lines().next()).unwrap_or("it contradicts itself")
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

/// Remove the leftovers of an interrupted first start, which fjall cannot resume from. It creates its lock, the folder of keyspaces, a
/// journal of zeros and, last, the file by which it recognises its own folder; it creates no table and writes no row before all of that
/// is synced. So a folder that holds anything else, or a journal that is not zeros, was once a log.
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
            let reason = format!("{} is missing or cut off: take it, or the folder, from a backup", file.display());
            return Err(LogError::Corrupt(reason));
        }
        leftovers.push(path);
    }
    let remove = |path: &PathBuf| fs::remove_file(path).map_err(|error| unremovable(path, &error));
    leftovers.iter().try_for_each(remove)
}

/// Whether a file holds nothing but zeros. A journal is 64 MiB of them when it is made.
#[expect(clippy::indexing_slicing, reason = "no more is read than there is room for")]
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

/// Require that the manifest of a keyspace is the one that was noted. What is not noted in the form known here is left to the engine.
fn check_manifest(keyspace: &Path) -> Result<(), LogError> {
    let file = keyspace.join(CURRENT_FILE);
    let note = match fs::read(&file) {
        Ok(note) => note,
        Err(error) => {
            let tables = keyspace.join(TABLES_FOLDER);
            let has_none = is_empty(&tables).map_err(|error| unreadable(&tables, &error))?;
            // Without tables it is what a crash left of making it, and fjall makes it again.
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
    Err(LogError::Corrupt(format!("{} is not what was written: its checksum differs", file.display())))
}

fn entries(folder: &Path) -> Result<Vec<fs::DirEntry>, LogError> {
    let entries = fs::read_dir(folder).and_then(Iterator::collect);
    entries.map_err(|error| unreadable(folder, &error))
}

/// Whether a folder holds nothing, or does not exist.
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
