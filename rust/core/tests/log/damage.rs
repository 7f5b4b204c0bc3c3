//! Damaged data folders: opening one gives a typed error or the whole log; it never panics, and no acknowledged event is missing.

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use qed_core::error::LogError;
use qed_core::hash::Digest;
use qed_core::log::{Log, Request};
use tempfile::TempDir;

use crate::seeds;

const EVENTS: u64 = 300;

fn filled() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let log = Log::open(folder.path()).unwrap();
    for bulk in 0..EVENTS / 10 {
        let digests = (0..10).map(|i| Digest::of_event(&(bulk * 10 + i).to_be_bytes())).collect();
        log.append(&[Request { digests, if_absent: false }]).unwrap();
    }
    folder
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The allowed outcomes of opening a damaged folder: the whole log, which passes its check, or a typed error.
fn require_whole_or_refused(folder: &Path) {
    match Log::open(folder) {
        Ok(log) => {
            assert_eq!(log.len(), EVENTS);
            assert!(log.check(&mut |_| ControlFlow::<()>::Continue(())).unwrap().is_continue());
        }
        Err(LogError::Corrupt(_) | LogError::Store { .. } | LogError::UnsupportedFormat { .. }) => {}
        Err(other) => panic!("{other}"),
    }
}

proptest! {
    #![proptest_config(seeds::searching(60))]

    #[test]
    fn a_flipped_bit_is_found_or_harmless(file: prop::sample::Index, place: prop::sample::Index, bit in 0..8_u8) {
        let folder = filled();
        let paths = files(folder.path());
        let path = file.get(&paths);
        let mut bytes = fs::read(path).unwrap();
        // The journal is sparse, 64 MiB long: damage only the part that was written.
        let written = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
        prop_assume!(written > 0);
        bytes[place.index(written)] ^= 1 << bit;
        fs::write(path, bytes).unwrap();
        require_whole_or_refused(folder.path());
    }

    #[test]
    fn a_truncated_file_is_found_or_harmless(file: prop::sample::Index, place: prop::sample::Index) {
        let folder = filled();
        let paths = files(folder.path());
        let path = file.get(&paths);
        let bytes = fs::read(path).unwrap();
        let written = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
        prop_assume!(written > 0);
        fs::File::options().write(true).open(path).unwrap().set_len(place.index(written) as u64).unwrap();
        require_whole_or_refused(folder.path());
    }
}

#[test]
fn a_newer_format_and_a_foreign_folder_are_refused() {
    let folder = filled();
    fs::write(folder.path().join("FORMAT"), "qed log, format 2\n").unwrap();
    assert!(matches!(Log::open(folder.path()), Err(LogError::UnsupportedFormat { known: 1, .. })));
    let foreign = tempfile::tempdir().unwrap();
    fs::write(foreign.path().join("letter.txt"), "dear").unwrap();
    assert!(matches!(Log::open(foreign.path()), Err(LogError::Store { .. })));
    assert_eq!(files(foreign.path()).len(), 1, "nothing was written into a folder that is not a log");
}

/// The folder of the table of digests, as fjall numbers it: fjall's own keyspace comes first.
const DIGESTS_KEYSPACE: &str = "store/keyspaces/1";

fn filled_and_flushed() -> (TempDir, PathBuf) {
    let folder = filled();
    // Opening the log replays the journal, and closing it then leaves tables.
    drop(Log::open(folder.path()).unwrap());
    let keyspace = folder.path().join(DIGESTS_KEYSPACE);
    (folder, keyspace)
}

#[test]
fn a_damaged_manifest_of_the_engine_is_refused() {
    let (folder, keyspace) = filled_and_flushed();
    let number = u64::from_le_bytes(fs::read(keyspace.join("current")).unwrap()[..8].try_into().unwrap());
    let manifest = keyspace.join(format!("v{number}"));
    let written = fs::read(&manifest).unwrap();
    for place in 0..written.len() {
        let mut damaged = written.clone();
        damaged[place] ^= 1 << (place % 8);
        fs::write(&manifest, damaged).unwrap();
        assert!(matches!(Log::open(folder.path()), Err(LogError::Corrupt(_))), "byte {place}");
    }
    fs::write(&manifest, written).unwrap();
    require_whole_or_refused(folder.path());
}

#[test]
fn a_lost_file_of_the_engine_is_named_and_nothing_is_deleted() {
    let (folder, _) = filled_and_flushed();
    for name in ["store/version", "store/keyspaces/0/current"] {
        let (file, aside) = (folder.path().join(name), folder.path().join("aside"));
        fs::rename(&file, &aside).unwrap();
        let before = files(folder.path());
        match Log::open(folder.path()) {
            Err(LogError::Corrupt(reason)) => assert!(reason.contains(&format!("{name} is missing")), "{reason}"),
            other => panic!("{other:?}"),
        }
        assert_eq!(files(folder.path()), before);
        fs::rename(&aside, &file).unwrap();
    }
    assert_eq!(Log::open(folder.path()).unwrap().len(), EVENTS);
}

/// A data folder as the first start creates it, up to a number of steps.
fn begun(steps: usize) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let zeros = |name: &str, len: u64| fs::File::create(at(name)).unwrap().set_len(len).unwrap();
    let all: [&dyn Fn(); 13] = [
        &|| fs::write(at("FORMAT.new"), "").unwrap(),
        &|| fs::write(at("FORMAT.new"), "qed log, for").unwrap(),
        &|| fs::write(at("FORMAT.new"), "qed log, format 1\n").unwrap(),
        &|| fs::rename(at("FORMAT.new"), at("FORMAT")).unwrap(),
        &|| fs::create_dir(at("store")).unwrap(),
        &|| fs::write(at("store/lock"), "").unwrap(),
        &|| fs::create_dir(at("store/keyspaces")).unwrap(),
        &|| zeros("store/0.jnl", 0),
        &|| zeros("store/0.jnl", 64 << 20),
        &|| fs::write(at("store/version"), "").unwrap(),
        &|| fs::write(at("store/version"), "FJ").unwrap(),
        &|| fs::write(at("store/version"), "FJL\x03").unwrap(),
        &|| fs::create_dir_all(at("store/keyspaces/0/tables")).unwrap(),
    ];
    all.iter().take(steps).for_each(|step| step());
    folder
}

#[test]
fn a_folder_that_a_crash_left_before_its_first_row_is_opened() {
    for steps in 0..=13 {
        let folder = begun(steps);
        let log = Log::open(folder.path()).unwrap_or_else(|error| panic!("after {steps} steps: {error}"));
        log.append(&[Request { digests: vec![Digest::of_event(b"first")], if_absent: false }]).unwrap();
        drop(log);
        assert_eq!(Log::open(folder.path()).unwrap().len(), 1, "after {steps} steps");
    }
}

#[test]
fn a_store_without_its_version_that_holds_anything_is_refused_and_kept() {
    let written: [(&str, &[u8]); 5] = [
        ("store/0.jnl", &[vec![0; 1 << 20].as_slice(), b"a row"].concat()),
        ("store/1.jnl", b"x"),
        ("store/keyspaces/0", b""),
        ("store/unknown", b""),
        ("store/keyspaces/1", b""),
    ];
    for (name, content) in written {
        for steps in [9, 10, 11] {
            let folder = begun(steps);
            fs::write(folder.path().join(name), content).unwrap();
            let before = files(folder.path());
            match Log::open(folder.path()) {
                Err(LogError::Corrupt(reason)) => assert!(reason.contains("store/version is missing"), "{reason}"),
                other => panic!("{name} after {steps} steps: {other:?}"),
            }
            assert_eq!(files(folder.path()), before);
        }
    }
}

#[test]
fn a_folder_of_tables_that_cannot_be_read_does_not_count_as_empty() {
    for steps in [9, 10, 11] {
        let folder = begun(steps);
        let tables = folder.path().join("store/keyspaces");
        fs::remove_dir(&tables).unwrap();
        fs::write(&tables, "not a folder").unwrap();
        let before = files(folder.path());
        match Log::open(folder.path()) {
            Err(LogError::Store { action, .. }) => assert_eq!(action, format!("read {}", tables.display())),
            other => panic!("after {steps} steps: {other:?}"),
        }
        assert_eq!(files(folder.path()), before);
    }
}

#[test]
fn a_folder_is_open_once() {
    let folder = filled();
    let _log = Log::open(folder.path()).unwrap();
    assert!(matches!(Log::open(folder.path()), Err(LogError::Locked { .. })));
}
