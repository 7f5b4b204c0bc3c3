//! How much is synced, in a file that is not synced itself. The file survives when the process is killed; after a power cut its
//! number may be too low, but never too high. A log that is shorter than its watermark has lost acknowledged events.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use crate::durable::open_file;

/// A number stored in a file.
#[derive(Debug)]
pub struct Watermark(File);

impl Watermark {
    /// Open the watermark at `path`, creating it if it does not exist.
    ///
    /// # Errors
    ///
    /// Any error of the operating system.
    pub fn open(path: &Path) -> io::Result<Self> {
        open_file(path).map(Self)
    }

    /// Replace the number.
    ///
    /// # Errors
    ///
    /// Any error of the operating system.
    pub fn write(&self, number: u64) -> io::Result<()> {
        // The complement distinguishes a torn or foreign file from a valid one.
        self.0.write_all_at(&[number.to_be_bytes(), (!number).to_be_bytes()].concat(), 0)
    }

    /// Return the number: 0 if none was ever written, or if the file is damaged.
    #[must_use]
    pub fn read(&self) -> u64 {
        let mut bytes = [0; 16];
        if self.0.read_exact_at(&mut bytes, 0).is_err() {
            return 0;
        }
        match bytes.as_chunks::<8>().0 {
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
        let path = folder.path().join("watermark");
        assert_eq!(Watermark::open(&path).unwrap().read(), 0);
        for number in [u64::MAX, 7, 0, 1 << 40] {
            Watermark::open(&path).unwrap().write(number).unwrap();
            assert_eq!(Watermark::open(&path).unwrap().read(), number);
        }
    }

    #[test]
    fn a_torn_or_damaged_watermark_counts_as_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("watermark");
        let watermark = Watermark::open(&path).unwrap();
        watermark.write(0x0102_0304).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for bit in 0..128 {
            let mut damaged = whole.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&path, damaged).unwrap();
            assert_eq!(Watermark::open(&path).unwrap().read(), 0);
        }
        for length in 0..16 {
            std::fs::write(&path, &whole[..length]).unwrap();
            assert_eq!(Watermark::open(&path).unwrap().read(), 0);
        }
    }
}
