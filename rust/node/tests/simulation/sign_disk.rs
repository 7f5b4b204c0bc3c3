//! The disk with the sign memory of a machine, apart from its data folder: an old copy of the folder does not take it back.
//!
//! The memory is the real one, in a real file. A power cut is played by putting bytes back that were not synced.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use qed_node::sign_memory::{SignMemory, SignMemoryError};
use tempfile::TempDir;

use crate::random::Random;

/// Where files are kept in memory: nothing has to survive the test, and syncs are free.
const MEMORY_FOLDER: &str = "/dev/shm";

/// A disk writes this much whole or not at all.
const SECTOR_BYTES: usize = 512;

/// A disk with a sign memory.
pub struct SignDisk {
    /// The folder with all of them, which is deleted with the last one; `None` if nothing is signed.
    folder: Option<Arc<TempDir>>,
    machine: u64,
    /// What the file had when it was opened last: what is left of a memory that is never synced.
    opened_with: Vec<u8>,
}

impl SignDisk {
    /// Return a folder for the disks of a world.
    pub fn folder() -> Arc<TempDir> {
        let made = tempfile::tempdir_in(MEMORY_FOLDER).or_else(|_| tempfile::tempdir());
        Arc::new(made.unwrap())
    }

    /// Return the empty disk of a machine.
    pub const fn new(folder: Option<Arc<TempDir>>, machine: u64) -> Self {
        Self { folder, machine, opened_with: Vec::new() }
    }

    /// Open the memory. If there is none, create it, but only if `may_create`: for a log that has entries, it is missing.
    pub fn open(&mut self, may_create: bool) -> Result<Option<SignMemory>, SignMemoryError> {
        let path = self.path();
        let memory = match (path.exists(), may_create) {
            (true, _) => SignMemory::open(&path)?,
            (false, true) => SignMemory::create(&path)?,
            (false, false) => return Ok(None),
        };
        self.opened_with = self.content();
        Ok(Some(memory))
    }

    /// Return the content of the file.
    pub fn content(&self) -> Vec<u8> {
        fs::read(self.path()).unwrap_or_default()
    }

    /// Lose the disk: the machine is replaced by a new one.
    pub fn lose(&self) {
        let _ = fs::remove_file(self.path());
    }

    /// Put everything back that was written since the memory was opened, as if no write had been synced.
    pub fn forget(&self) {
        if self.path().exists() {
            fs::write(self.path(), &self.opened_with).unwrap();
        }
    }

    /// Cut the power while a row is being written: each sector may or may not have reached the disk.
    pub fn tear(&self, before: &[u8], random: &mut Random) {
        let mut torn = self.content();
        for (sector, earlier) in torn.chunks_mut(SECTOR_BYTES).zip(before.chunks(SECTOR_BYTES)) {
            if sector != earlier && random.is_hit(500) {
                sector.copy_from_slice(earlier);
            }
        }
        fs::write(self.path(), torn).unwrap();
    }

    fn path(&self) -> PathBuf {
        self.folder.as_ref().unwrap().path().join(format!("{}.memory", self.machine))
    }
}
