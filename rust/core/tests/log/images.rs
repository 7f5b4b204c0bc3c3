//! The tree image: a log opens with the roots that its events lead to, or not at all, whatever is in the file.

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use proptest::prelude::*;
use qed_core::disk::DiskStore;
use qed_core::error::LogError;
use qed_core::hash::Digest;
use qed_core::log::{Log, Request};
use qed_core::store::{Store as _, Table, WriteBatch};
use qed_core::tree_image::ImageUse;
use tempfile::TempDir;

use crate::seeds;

fn event(number: u64) -> Digest {
    Digest::of_event(&number.to_be_bytes())
}

fn append(log: &Log, events: impl IntoIterator<Item = u64>) {
    log.append(&[Request { digests: events.into_iter().map(event).collect(), if_absent: false }]).unwrap();
}

/// A folder with a log that has an image of its first 200 events, of which some were added again.
fn imaged() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let log = Log::open_from_image(folder.path()).unwrap();
    append(&log, 0..150);
    append(&log, (100..150).rev());
    assert!(log.write_image(&|| true).unwrap());
    append(&log, 140..180);
    folder
}

fn image(folder: &Path) -> PathBuf {
    folder.join("trees")
}

fn audit(log: &Log) -> Result<(), LogError> {
    log.audit(&mut |_| ControlFlow::<()>::Continue(())).map(drop)
}

/// Require that two logs answer alike, and that the first is as its rows say.
fn require_same(log: &Log, other: &Log) {
    assert_eq!(log.len(), other.len());
    assert_eq!(log.tree_head().unwrap(), other.tree_head().unwrap());
    for number in 0..200 {
        assert_eq!(log.prove(&event(number), None).unwrap(), other.prove(&event(number), None).unwrap());
    }
    assert!(log.check(&mut |_| ControlFlow::<()>::Continue(())).unwrap().is_continue());
    audit(log).unwrap();
}

/// The log of [`imaged`], without its image.
fn plain() -> Log {
    let log = Log::in_memory().unwrap();
    append(&log, 0..150);
    append(&log, (100..150).rev());
    append(&log, 140..180);
    log
}

#[test]
fn a_log_opens_from_its_image_and_the_events_after_it() {
    let folder = imaged();
    let log = Log::open_from_image(folder.path()).unwrap();
    assert_eq!(log.image_use(), &ImageUse::Used(192));
    require_same(&log, &plain());
    append(&log, 170..200);
    let other = plain();
    append(&other, 170..200);
    require_same(&log, &other);
}

#[test]
fn an_image_that_is_not_as_it_was_written_is_not_used() {
    let folder = imaged();
    let written = fs::read(image(folder.path())).unwrap();
    let other = plain();
    let step = written.len() / 12;
    let flipped = |place: usize| {
        let mut bytes = written.clone();
        bytes[place] ^= 1 << (place % 8);
        bytes
    };
    let flips = [0, 15, 16, 23, 24, 31].into_iter().chain((32..written.len()).step_by(step)).map(flipped);
    let cuts = [0, 1, 24].into_iter().chain((30..written.len()).step_by(step)).map(|len| written[..len].to_vec());
    let longer = [written.as_slice(), &[0]].concat();
    for bytes in flips.chain(cuts).chain([longer]) {
        fs::write(image(folder.path()), bytes).unwrap();
        let log = Log::open_from_image(folder.path()).unwrap();
        assert!(matches!(log.image_use(), ImageUse::Unfit(_)), "{:?}", log.image_use());
        require_same(&log, &other);
    }
    fs::write(image(folder.path()), &written).unwrap();
    assert_eq!(Log::open_from_image(folder.path()).unwrap().image_use(), &ImageUse::Used(192));
    fs::remove_file(image(folder.path())).unwrap();
    require_same(&Log::open_from_image(folder.path()).unwrap(), &other);
}

#[test]
fn an_image_of_another_log_or_of_another_time_is_not_used() {
    let (folder, other) = (imaged(), plain());
    let written = fs::read(image(folder.path())).unwrap();

    let another = tempfile::tempdir().unwrap();
    let log = Log::open(another.path()).unwrap();
    append(&log, 1000..1200);
    log.write_image(&|| true).unwrap();
    drop(log);
    fs::copy(image(another.path()), image(folder.path())).unwrap();
    let log = Log::open_from_image(folder.path()).unwrap();
    assert!(matches!(log.image_use(), ImageUse::Unfit(_)));
    require_same(&log, &other);

    // A later image, then the earlier one in its place.
    log.write_image(&|| true).unwrap();
    drop(log);
    let later = fs::read(image(folder.path())).unwrap();
    fs::write(image(folder.path()), &written).unwrap();
    let log = Log::open_from_image(folder.path()).unwrap();
    assert!(matches!(log.image_use(), ImageUse::Unfit(_)));
    drop(log);
    fs::write(image(folder.path()), later).unwrap();
    let log = Log::open_from_image(folder.path()).unwrap();
    assert_eq!(log.image_use(), &ImageUse::Used(192));
    require_same(&log, &other);
}

/// Put an image in place, with its checksum in the row of the log: what only somebody who can change all files can do.
fn plant(folder: &Path, bytes: &[u8]) {
    fs::write(image(folder), bytes).unwrap();
    let store = DiskStore::open(folder).unwrap();
    let mut batch = WriteBatch::default();
    batch.put(Table::Applied, *b"image", &bytes[bytes.len() - 16..]);
    store.write(batch).unwrap();
    store.sync().unwrap();
}

#[test]
fn a_planted_image_of_another_log_does_not_change_what_is_true() {
    let (folder, another) = (imaged(), tempfile::tempdir().unwrap());
    let log = Log::open(another.path()).unwrap();
    append(&log, 1000..1128);
    log.write_image(&|| true).unwrap();
    drop(log);
    plant(folder.path(), &fs::read(image(another.path())).unwrap());
    let log = Log::open_from_image(folder.path()).unwrap();
    assert!(
        matches!(log.image_use(), ImageUse::Unfit(reason) if reason.contains("hyper root")),
        "{:?}",
        log.image_use()
    );
    require_same(&log, &plain());
    drop(log);

    // From the future: of more events than the log has.
    let log = Log::open(another.path()).unwrap();
    append(&log, 2000..3000);
    log.write_image(&|| true).unwrap();
    drop(log);
    plant(folder.path(), &fs::read(image(another.path())).unwrap());
    let log = Log::open_from_image(folder.path()).unwrap();
    assert!(
        matches!(log.image_use(), ImageUse::Unfit(reason) if reason.contains("more events")),
        "{:?}",
        log.image_use()
    );
    require_same(&log, &plain());
}

#[test]
fn events_that_a_start_did_not_read_are_audited() {
    let folder = imaged();
    let store = DiskStore::open(folder.path()).unwrap();
    let row = store.get(Table::Digests, &0_u64.to_be_bytes()).unwrap().unwrap();
    let mut damaged = row.clone();
    damaged[40 * 32 + 31] ^= 1;
    let mut batch = WriteBatch::default();
    batch.put(Table::Digests, 0_u64.to_be_bytes(), damaged);
    store.write(batch).unwrap();
    drop(store);
    let log = Log::open_from_image(folder.path()).unwrap();
    assert_eq!(log.image_use(), &ImageUse::Used(192));
    let found = audit(&log).unwrap_err();
    assert!(found.to_string().contains("versions 32 to 47"), "{found}");
    drop(log);
    // Without the image, a start finds what changes the hyper root, which has the first bits of each digest.
    let store = DiskStore::open(folder.path()).unwrap();
    let mut other = row;
    other[40 * 32] ^= 1;
    let mut batch = WriteBatch::default();
    batch.put(Table::Digests, 0_u64.to_be_bytes(), other);
    store.write(batch).unwrap();
    drop(store);
    fs::remove_file(image(folder.path())).unwrap();
    assert!(matches!(Log::open_from_image(folder.path()), Err(LogError::Corrupt(_))));
}

#[test]
fn an_occurrence_that_is_of_another_event_is_found() {
    for has_image in [true, false] {
        let folder = imaged();
        if !has_image {
            fs::remove_file(image(folder.path())).unwrap();
        }
        let store = DiskStore::open(folder.path()).unwrap();
        let key = |number: u64, version: u64| [event(number).as_bytes().as_slice(), &version.to_be_bytes()].concat();
        assert!(store.get(Table::Occurrences, &key(120, 120)).unwrap().is_some());
        let mut batch = WriteBatch::default();
        // The same version, under an event that the tree shows.
        batch.put(Table::Occurrences, key(121, 120), []);
        store.write(batch).unwrap();
        drop(store);
        match Log::open_from_image(folder.path()) {
            Err(LogError::Corrupt(reason)) if !has_image => assert!(reason.contains("hidden"), "{reason}"),
            Ok(log) if has_image => assert!(audit(&log).unwrap_err().to_string().contains("hidden")),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn no_lock_is_held_while_an_audit_pauses() {
    let folder = imaged();
    let log = Log::open_from_image(folder.path()).unwrap();
    let mut calls = 0;
    let audited = log.audit(&mut |_| {
        calls += 1;
        // Would wait for ever if the trees were locked for reading.
        append(&log, 500..510);
        ControlFlow::<()>::Continue(())
    });
    assert!(audited.unwrap().is_continue());
    assert_eq!(calls, 1);
}

#[test]
fn a_log_that_nobody_audits_later_opens_without_its_image() {
    let folder = imaged();
    let log = Log::open(folder.path()).unwrap();
    assert_eq!(log.image_use(), &ImageUse::Missing);
    require_same(&log, &plain());
}

#[test]
fn an_image_that_is_broken_off_leaves_the_one_before() {
    let folder = imaged();
    let log = Log::open_from_image(folder.path()).unwrap();
    append(&log, 300..400);
    let asked = AtomicU64::new(0);
    assert!(!log.write_image(&|| asked.fetch_add(1, Ordering::Relaxed) < 100).unwrap());
    assert_eq!(log.image_len(), 192);
    drop(log);
    assert!(!folder.path().join("trees.new").exists());
    assert_eq!(Log::open_from_image(folder.path()).unwrap().image_use(), &ImageUse::Used(192));
}

#[test]
fn a_hidden_occurrence_after_the_image_that_is_of_another_event_is_found() {
    let folder = imaged();
    let store = DiskStore::open(folder.path()).unwrap();
    // Version 240 would be the last; of those after the image, 203 is of event 143.
    let key = [event(144).as_bytes().as_slice(), &203_u64.to_be_bytes()].concat();
    let mut batch = WriteBatch::default();
    batch.put(Table::Occurrences, key, []);
    store.write(batch).unwrap();
    drop(store);
    assert!(matches!(Log::open_from_image(folder.path()), Err(LogError::Corrupt(_))));
}

#[test]
fn an_image_can_be_written_while_the_log_grows() {
    let folder = tempfile::tempdir().unwrap();
    let log = Log::open_from_image(folder.path()).unwrap();
    append(&log, 0..200);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..60 {
                append(&log, round * 37..round * 37 + 100);
            }
            is_over.store(true, Ordering::Relaxed);
        });
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                log.write_image(&|| true).unwrap();
            }
        });
    });
    append(&log, 5000..5010);
    let expected = (log.len(), log.tree_head().unwrap());
    drop(log);
    let log = Log::open_from_image(folder.path()).unwrap();
    assert!(matches!(log.image_use(), ImageUse::Used(len) if *len >= 200), "{:?}", log.image_use());
    assert_eq!((log.len(), log.tree_head().unwrap()), expected);
    assert!(log.check(&mut |_| ControlFlow::<()>::Continue(())).unwrap().is_continue());
    audit(&log).unwrap();
}

#[test]
fn a_log_without_a_folder_has_no_image_and_a_small_one_is_not_due() {
    let log = Log::in_memory().unwrap();
    append(&log, 0..10);
    assert!(!log.write_image(&|| true).unwrap());
    assert_eq!(log.image_use(), &ImageUse::Missing);
    assert!(!log.is_image_due() && !log.write_last_image(&|| true).unwrap());
    audit(&log).unwrap();
}

#[test]
fn an_image_that_cannot_be_written_leaves_the_log_as_it_was() {
    let folder = imaged();
    let log = Log::open_from_image(folder.path()).unwrap();
    fs::create_dir(folder.path().join("trees.new")).unwrap();
    assert!(matches!(log.write_image(&|| true), Err(LogError::Store { .. })));
    append(&log, 300..310);
    drop(log);
    assert_eq!(Log::open_from_image(folder.path()).unwrap().image_use(), &ImageUse::Used(192));
}

/// Events of a few kinds, so that many repeat; and digests that share 40 or 56 bits with many others.
fn batch() -> impl Strategy<Value = Vec<Digest>> {
    let digest = (0..400_u64, 0..3_u8).prop_map(|(number, kind)| {
        let mut bytes = *event(number).as_bytes();
        let shared = [0, 5, 7][usize::from(kind)];
        bytes[..shared].fill(7);
        Digest::new(bytes)
    });
    prop::collection::vec(digest, 1..120)
}

proptest! {
    #![proptest_config(seeds::searching(20))]

    #[test]
    fn any_log_opens_from_an_image_as_without(
        before in prop::collection::vec(batch(), 0..6),
        after in prop::collection::vec(batch(), 0..6),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let (log, other) = (Log::open_from_image(folder.path()).unwrap(), Log::in_memory().unwrap());
        let add = |batches: &[Vec<Digest>]| {
            for digests in batches {
                for log in [&log, &other] {
                    log.append(&[Request { digests: digests.clone(), if_absent: false }]).unwrap();
                }
            }
        };
        add(&before);
        log.write_image(&|| true).unwrap();
        add(&after);
        drop(log);
        let log = Log::open_from_image(folder.path()).unwrap();
        prop_assert!(matches!(log.image_use(), ImageUse::Used(_)), "{:?}", log.image_use());
        prop_assert_eq!(log.len(), other.len());
        if !log.is_empty() {
            prop_assert_eq!(log.tree_head().unwrap(), other.tree_head().unwrap());
        }
        for digest in before.iter().chain(&after).flatten() {
            prop_assert_eq!(log.prove(digest, None).unwrap(), other.prove(digest, None).unwrap());
        }
        audit(&log).unwrap();
    }
}
