//! A note of how far something is synced, which is itself not synced: it outlives a process that is killed, and may be older, never
//! newer, after a power cut. Whoever finds less than was noted has lost what it had promised.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// A file with one number.
#[derive(Debug)]
pub struct Note(File);

impl Note {
    /// Open the note at `path`, which is made if there is none.
    ///
    /// # Errors
    ///
    /// What the operating system says.
    pub fn open(path: &Path) -> io::Result<Self> {
        File::options().read(true).write(true).create(true).truncate(false).open(path).map(Self)
    }

    /// Replace the number.
    ///
    /// # Errors
    ///
    /// What the operating system says.
    pub fn write(&self, number: u64) -> io::Result<()> {
        // The complement tells a torn or foreign note from a true one.
        self.0.write_all_at(&[number.to_be_bytes(), (!number).to_be_bytes()].concat(), 0)
    }

    /// Return the number: 0 if none was ever written, or what is there is none.
    #[must_use]
    pub fn read(&self) -> u64 {
        let mut note = [0; 16];
        if self.0.read_exact_at(&mut note, 0).is_err() {
            return 0;
        }
        match note.as_chunks::<8>().0 {
            &[number, complement] if number == complement.map(|byte| !byte) => u64::from_be_bytes(number),
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_read_as_written_and_0_where_there_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("note");
        assert_eq!(Note::open(&path).unwrap().read(), 0);
        for number in [u64::MAX, 7, 0, 1 << 40] {
            Note::open(&path).unwrap().write(number).unwrap();
            assert_eq!(Note::open(&path).unwrap().read(), number);
        }
    }

    #[test]
    fn a_torn_or_damaged_note_counts_as_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("note");
        let note = Note::open(&path).unwrap();
        note.write(0x0102_0304).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for bit in 0..128 {
            let mut damaged = whole.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&path, damaged).unwrap();
            assert_eq!(Note::open(&path).unwrap().read(), 0);
        }
        for length in 0..16 {
            std::fs::write(&path, &whole[..length]).unwrap();
            assert_eq!(Note::open(&path).unwrap().read(), 0);
        }
    }
}
