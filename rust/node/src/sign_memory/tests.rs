use std::fs;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

fn row(size: u64) -> Remembered {
    Remembered { size, root: Digest::of_event(&size.to_be_bytes()), time: 1_000 + size }
}

fn memory_of(sizes: impl IntoIterator<Item = u64>) -> (TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("memory");
    drop(SignMemory::create(&path).unwrap());
    // As `note` would write them, without a thousand syncs.
    let mut bytes = fs::read(&path).unwrap();
    for (number, size) in sizes.into_iter().enumerate() {
        bytes[number % ROWS * ROW_BYTES..][..ROW_BYTES].copy_from_slice(&row(size).to_row());
    }
    fs::write(&path, bytes).unwrap();
    (folder, path)
}

#[test]
fn the_newest_row_is_remembered_however_many_there_are() {
    for count in [0, 1, 2, 1023, 1024, 1025, 2047, 2048, 2500] {
        let (_folder, path) = memory_of(1..=count);
        let mut memory = SignMemory::open(&path).unwrap();
        assert_eq!(memory.newest(), (count > 0).then(|| row(count)), "{count} rows");
        memory.note(row(count + 1)).unwrap();
        drop(memory);
        assert_eq!(SignMemory::open(&path).unwrap().newest(), Some(row(count + 1)), "{count} rows");
        assert_eq!(fs::metadata(&path).unwrap().len(), (ROWS * ROW_BYTES) as u64);
    }
}

#[test]
fn what_contradicts_the_newest_row_is_refused_and_changes_nothing() {
    let (_folder, path) = memory_of([5, 9]);
    let mut memory = SignMemory::open(&path).unwrap();
    let other = Remembered { root: Digest::of_event(b"another"), ..row(9) };
    for refused in [row(8), row(5), other] {
        assert!(matches!(memory.note(refused), Err(SignMemoryError::Contradiction { .. })), "{refused}");
    }
    let before = fs::read(&path).unwrap();
    assert_eq!(memory.note(row(9)).unwrap(), row(9));
    assert_eq!(fs::read(&path).unwrap(), before, "the same again needs no row");
}

#[test]
fn time_never_goes_back() {
    let (_folder, path) = memory_of([9]);
    let mut memory = SignMemory::open(&path).unwrap();
    let early = Remembered { time: 3, ..row(10) };
    assert_eq!(memory.note(early).unwrap().time, row(9).time);
    let late = Remembered { time: 9_999, ..row(10) };
    assert_eq!(memory.note(late).unwrap(), late, "the same size, at a later time");
    drop(memory);
    assert_eq!(SignMemory::open(&path).unwrap().newest(), Some(late));
}

#[test]
fn a_row_that_was_torn_between_two_sectors_is_dropped_and_written_again() {
    // Rows 9 and 19 lie across the first and the second border; the third memory has filled its file once before.
    for (count, border) in [(9, 512), (19, 1024), (1024 + 9, 512)] {
        let (_folder, path) = memory_of(1..=count);
        let bytes = fs::read(&path).unwrap();
        let next = usize::try_from(count).unwrap() % ROWS * ROW_BYTES;
        let whole = row(count + 1).to_row();
        for written in [next..border, border..next + ROW_BYTES] {
            let mut torn = bytes.clone();
            torn[written.clone()].copy_from_slice(&whole[written.start - next..written.end - next]);
            fs::write(&path, &torn).unwrap();
            let mut memory = SignMemory::open(&path).unwrap();
            assert_eq!(memory.newest(), Some(row(count)), "{written:?} after {count} rows");
            memory.note(row(count + 1)).unwrap();
            drop(memory);
            assert_eq!(SignMemory::open(&path).unwrap().newest(), Some(row(count + 1)));
        }
    }
}

#[test]
fn a_newest_row_that_is_damaged_is_not_forgotten() {
    // The first one, one across a border, the last of the file, and one where another was before.
    for count in [1, 7, 10, 1024, 1025] {
        let (_folder, path) = memory_of(1..=count);
        let mut bytes = fs::read(&path).unwrap();
        let newest = (usize::try_from(count).unwrap() - 1) % ROWS * ROW_BYTES;
        for bit in 0..ROW_BYTES * 8 {
            bytes[newest + bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, &bytes).unwrap();
            let opened = SignMemory::open(&path);
            assert!(matches!(opened, Err(SignMemoryError::Damaged(_))), "bit {bit} of row {count}");
            bytes[newest + bit / 8] ^= 1 << (bit % 8);
        }
    }
}

#[test]
fn a_memory_of_which_anything_else_is_damaged_is_refused() {
    let (_folder, path) = memory_of([3, 5, 9]);
    let bytes = fs::read(&path).unwrap();
    for bit in 0..3 * ROW_BYTES * 8 {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        fs::write(&path, damaged).unwrap();
        assert!(matches!(SignMemory::open(&path), Err(SignMemoryError::Damaged(_))), "bit {bit}");
    }
    // A part of a row inside one sector is nothing that a crash leaves.
    for written in [1, 8, 40, 48, 51] {
        let mut partial = bytes.clone();
        partial[3 * ROW_BYTES..][..written].copy_from_slice(&row(11).to_row()[..written]);
        fs::write(&path, partial).unwrap();
        let is_refused = matches!(SignMemory::open(&path), Err(SignMemoryError::Damaged(_)));
        // The size begins with zeros.
        assert_eq!(is_refused, written >= 8, "{written} bytes");
    }
    let mut zeroed = bytes.clone();
    zeroed[ROW_BYTES..2 * ROW_BYTES].fill(0);
    let longer = [bytes.as_slice(), &[0]].concat();
    for damaged in [&bytes[1..], &longer, &zeroed, b""] {
        fs::write(&path, damaged).unwrap();
        assert!(matches!(SignMemory::open(&path), Err(SignMemoryError::Damaged(_))));
    }
}

#[test]
fn a_memory_that_is_missing_or_in_use_is_not_opened_and_one_that_exists_not_created() {
    let (folder, path) = memory_of([3]);
    let missing = folder.path().join("other");
    assert!(matches!(SignMemory::open(&missing), Err(SignMemoryError::Io(_))));
    assert!(!missing.exists());
    assert!(matches!(SignMemory::create(&path), Err(SignMemoryError::Io(_))));
    let held = SignMemory::open(&path).unwrap();
    assert!(matches!(SignMemory::open(&path), Err(SignMemoryError::InUse)));
    drop(held);
    assert_eq!(SignMemory::open(&path).unwrap().newest(), Some(row(3)));
}

proptest! {
    #![proptest_config(crate::seeds::searching(64))]

    #[test]
    fn a_memory_with_any_bytes_opens_or_is_refused(
        mut edits in prop::collection::vec((0..ROWS * ROW_BYTES, any::<u8>()), 0..8),
        count in 0_u64..1100,
    ) {
        let (_folder, path) = memory_of(1..=count);
        let mut bytes = fs::read(&path).unwrap();
        for (at, byte) in edits.drain(..) {
            bytes[at] = byte;
        }
        fs::write(&path, &bytes).unwrap();
        // A row that is read is one that was written.
        if let Ok(memory) = SignMemory::open(&path) {
            prop_assert!(memory.newest().is_none_or(|newest| newest == row(newest.size) && newest.size <= count));
        }
    }
}
