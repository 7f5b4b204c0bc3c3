//! The store of the Raft log's segments: a folder of files, or, in simulations, memory that loses unsynced writes.

use std::fs::{self, File};
use std::io::{self, BufReader, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use qed_core::durable;
use qed_core::watermark::Watermark;

use crate::metrics::Histogram;

/// Numbered files of fixed size. Errors are those of the operating system.
pub trait SegmentStore {
    /// Return the minimum segment size in bytes. It has never changed, so a shorter file was truncated. Zeroing a segment takes some
    /// milliseconds; a frame that does not fit gets a segment of its own size.
    fn segment_bytes(&self) -> usize {
        8 << 20
    }

    /// Return the numbers of the segments, ascending.
    ///
    /// # Errors
    ///
    /// If the folder cannot be read.
    fn list(&mut self) -> Result<Vec<u64>, String>;

    /// Return the bytes of a segment.
    ///
    /// # Errors
    ///
    /// If it cannot be read.
    fn read(&mut self, segment: u64) -> Result<Vec<u8>, String>;

    /// Create a segment of `size_bytes` zeros; durable when this returns.
    ///
    /// # Errors
    ///
    /// If it cannot be created.
    fn create(&mut self, segment: u64, size_bytes: usize) -> Result<(), String>;

    /// Write bytes at a position of a segment; not yet durable.
    ///
    /// # Errors
    ///
    /// If they cannot be written.
    fn write(&mut self, segment: u64, position: usize, bytes: &[u8]) -> Result<(), String>;

    /// Make everything written to a segment durable.
    ///
    /// # Errors
    ///
    /// If the operating system does not confirm it. It must not be tried again: pages that failed to reach the disk may have been
    /// dropped, and a second sync would succeed without them.
    fn sync(&mut self, segment: u64) -> Result<(), String>;

    /// Delete a segment.
    ///
    /// # Errors
    ///
    /// If it cannot be deleted.
    fn delete(&mut self, segment: u64) -> Result<(), String>;

    /// Record how many frames are durable. The record itself need not be durable, but must never be ahead of the frames.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    fn note(&mut self, frames: u64) -> Result<(), String>;

    /// Return the last record of [`Self::note`] that was kept; 0 if there is none.
    fn noted(&mut self) -> u64;
}

/// Segments as files of a folder.
#[derive(Debug)]
pub struct SegmentFolder {
    path: PathBuf,
    /// The segment written last, kept open.
    open: Option<(u64, File)>,
    synced: Watermark,
    /// How long syncs took.
    syncs: Arc<Histogram>,
}

impl SegmentFolder {
    /// Return the folder at `path`, which is created if it does not exist.
    ///
    /// # Errors
    ///
    /// The error of the operating system.
    pub fn open(path: &Path) -> io::Result<Self> {
        durable::make_folder(path)?;
        // A crash during the creation of a segment leaves its draft.
        for entry in fs::read_dir(path)? {
            let entry = entry?.path();
            if entry.extension().is_some_and(|extension| extension == "new") {
                fs::remove_file(entry)?;
            }
        }
        let synced = Watermark::open(&path.join("synced"))?;
        Ok(Self { path: path.to_path_buf(), open: None, synced, syncs: Arc::default() })
    }

    /// Return where the durations of syncs are counted.
    #[must_use]
    pub fn syncs(&self) -> Arc<Histogram> {
        Arc::clone(&self.syncs)
    }

    fn path_of(&self, segment: u64) -> PathBuf {
        self.path.join(format!("{segment:016x}.wal"))
    }

    fn opened(&mut self, segment: u64) -> io::Result<&File> {
        let is_open = self.open.as_ref().is_some_and(|(number, _)| *number == segment);
        if !is_open {
            let file = File::options().read(true).write(true).open(self.path_of(segment))?;
            self.open = Some((segment, file));
        }
        self.open.as_ref().map(|(_, file)| file).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn try_list(&self) -> io::Result<Vec<u64>> {
        let mut numbers = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let name = entry?.file_name();
            let name = name.to_str().and_then(|name| name.strip_suffix(".wal"));
            numbers.extend(name.and_then(|name| u64::from_str_radix(name, 16).ok()));
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    fn try_create(&self, segment: u64, size_bytes: usize) -> io::Result<()> {
        durable::replace(&self.path_of(segment), |file| {
            let zeros = io::repeat(0).take(size_bytes as u64);
            io::copy(&mut BufReader::with_capacity(1 << 20, zeros), file).map(drop)
        })
    }
}

impl SegmentStore for SegmentFolder {
    fn list(&mut self) -> Result<Vec<u64>, String> {
        self.try_list().map_err(|error| error.to_string())
    }

    fn read(&mut self, segment: u64) -> Result<Vec<u8>, String> {
        fs::read(self.path_of(segment)).map_err(|error| error.to_string())
    }

    fn create(&mut self, segment: u64, size_bytes: usize) -> Result<(), String> {
        self.try_create(segment, size_bytes).map_err(|error| error.to_string())
    }

    fn write(&mut self, segment: u64, position: usize, bytes: &[u8]) -> Result<(), String> {
        let written = self.opened(segment).and_then(|file| file.write_all_at(bytes, position as u64));
        written.map_err(|error| error.to_string())
    }

    fn sync(&mut self, segment: u64) -> Result<(), String> {
        let begun = Instant::now();
        let synced = self.opened(segment).and_then(File::sync_data).map_err(|error| error.to_string());
        self.syncs.add_duration(begun.elapsed());
        synced
    }

    fn delete(&mut self, segment: u64) -> Result<(), String> {
        // Sync after each deletion: if two segments are deleted, a power cut must not restore only the first.
        let deleted = fs::remove_file(self.path_of(segment)).and_then(|()| File::open(&self.path)?.sync_all());
        deleted.map_err(|error| error.to_string())
    }

    fn note(&mut self, frames: u64) -> Result<(), String> {
        self.synced.write(frames).map_err(|error| error.to_string())
    }

    fn noted(&mut self) -> u64 {
        self.synced.read()
    }
}

/// Segments in memory, for tests.
#[cfg(test)]
pub(crate) mod memory {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::SegmentStore;

    /// Clones share their contents.
    #[derive(Debug, Clone, Default)]
    pub(crate) struct Memory(pub(crate) Arc<Mutex<Contents>>);

    #[derive(Debug, Default)]
    pub(crate) struct Contents {
        pub(crate) segments: BTreeMap<u64, Vec<u8>>,
        /// Calls that have changed something.
        pub(crate) changes: usize,
        /// How many of them succeed, if there is a limit.
        pub(crate) good_changes: Option<usize>,
        /// The last record of [`SegmentStore::note`].
        pub(crate) noted: u64,
    }

    impl Memory {
        fn change(&self, change: impl FnOnce(&mut BTreeMap<u64, Vec<u8>>)) -> Result<(), String> {
            let mut contents = self.0.lock();
            contents.changes += 1;
            if contents.good_changes.is_some_and(|good| contents.changes > good) {
                return Err("the disk has failed".into());
            }
            change(&mut contents.segments);
            Ok(())
        }
    }

    /// Small, so that the frames fill several segments.
    pub(crate) const SEGMENT_BYTES: usize = 512;

    impl SegmentStore for Memory {
        fn segment_bytes(&self) -> usize {
            SEGMENT_BYTES
        }

        fn list(&mut self) -> Result<Vec<u64>, String> {
            Ok(self.0.lock().segments.keys().copied().collect())
        }

        fn read(&mut self, segment: u64) -> Result<Vec<u8>, String> {
            self.0.lock().segments.get(&segment).cloned().ok_or_else(|| "no such segment".into())
        }

        fn create(&mut self, segment: u64, size_bytes: usize) -> Result<(), String> {
            self.change(|segments| drop(segments.insert(segment, vec![0; size_bytes])))
        }

        fn write(&mut self, segment: u64, position: usize, bytes: &[u8]) -> Result<(), String> {
            self.change(|segments| {
                segments.get_mut(&segment).unwrap()[position..][..bytes.len()].copy_from_slice(bytes);
            })
        }

        fn sync(&mut self, _segment: u64) -> Result<(), String> {
            self.change(|_| {})
        }

        fn delete(&mut self, segment: u64) -> Result<(), String> {
            self.change(|segments| drop(segments.remove(&segment)))
        }

        fn note(&mut self, frames: u64) -> Result<(), String> {
            self.0.lock().noted = frames;
            Ok(())
        }

        fn noted(&mut self) -> u64 {
            self.0.lock().noted
        }
    }
}
