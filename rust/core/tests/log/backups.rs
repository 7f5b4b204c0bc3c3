//! Backups: a stream that is continued anywhere gives the same log, and no changed byte in it goes unnoticed.

use std::fs;
use std::io::Write as _;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::slice::from_ref;

use proptest::prelude::*;
use qed_core::acts::ActBody;
use qed_core::applied::Members;
use qed_core::audit::Audit;
use qed_core::backup::{
    BackupError, BackupFile, BackupReader, Cursor, Header, Origin, Part, Reach, Summary, beginning, continuation,
    read_all,
};
use qed_core::error::LogError;
use qed_core::hash::Digest;
use qed_core::log::{Log, Request};
use qed_core::log_id::LogId;
use qed_core::page::PageError;
use qed_core::restoration::Restoration;

use crate::seeds;

fn origin() -> Origin {
    Origin { log: "log".into(), node_id: "node".into(), software: "1".into(), created_s: 1 }
}

fn header(base: Option<Cursor>) -> Header {
    Header { start: base.map(|end| end.reach).unwrap_or_default(), base: base.map(|end| end.chain), origin: origin() }
}

fn request(events: &[u8], if_absent: bool) -> Request {
    // Some of them alike in their first 64 bits and more.
    let digest = |event: &u8| {
        let mut bytes = *Digest::of_event(&[event / 4]).as_bytes();
        bytes[31] = event % 4;
        Digest::new(bytes)
    };
    Request { digests: events.iter().map(digest).collect(), if_absent }
}

fn apply(log: &Log, index: u64, events: &[u8]) {
    let log_id = LogId { index, term: 1 + index / 5 };
    let act = |text: &str| ActBody::new(format!("{text} {index}").into_bytes()).unwrap();
    if events.is_empty() {
        log.apply_members(
            &Members { log_id, bytes: format!("members {index}").into_bytes() },
            Some(act("with members")),
        )
        .unwrap();
    } else if events == [0] {
        log.apply_act(log_id, act("alone")).unwrap();
    } else {
        log.apply_silently(log_id, &[request(events, false), request(&events[..1], index.is_multiple_of(2))]).unwrap();
    }
}

/// Write the rest of a backup of `log` into the file at `path`.
fn write_rest(log: &Log, path: &Path, base: Option<Cursor>, events: u64, parts: usize) -> bool {
    let mut file = BackupFile::open(path).unwrap();
    if file.cursor().is_none() {
        file.write(&beginning(log, &header(base)).unwrap()).unwrap();
    }
    for _ in 0..parts {
        if file.is_whole() {
            break;
        }
        file.write(&continuation(log, file.cursor().unwrap(), events, None).unwrap()).unwrap();
    }
    file.is_whole()
}

fn write_whole(log: &Log, path: &Path, base: Option<Cursor>, events: u64) -> Cursor {
    assert!(write_rest(log, path, base, events, usize::MAX));
    let file = BackupFile::open(path).unwrap();
    let end = file.cursor().unwrap();
    file.finish(path, path).unwrap();
    end
}

fn audit(paths: &[PathBuf]) -> Result<Cursor, BackupError> {
    let mut audit = Audit::default();
    let read = read_all(paths, &mut |page| Ok(ControlFlow::<()>::Continue(audit.append(page)?)));
    read.map(|end| end.continue_value().unwrap())
}

fn restore(paths: &[PathBuf], folder: &Path) -> Result<Cursor, BackupError> {
    let mut restoration = Restoration::begin(folder)?;
    let read = read_all(paths, &mut |page| Ok(ControlFlow::<()>::Continue(restoration.append(page)?)));
    let end = read?.continue_value().unwrap();
    restoration.complete()?;
    restoration.publish()?;
    Ok(end)
}

fn require_equal(one: &Log, other: &Log) {
    assert_eq!((one.len(), one.applied()), (other.len(), other.applied()));
    assert_eq!(one.members().unwrap(), other.members().unwrap());
    assert_eq!((one.acts(0, 99).unwrap(), one.acts_end()), (other.acts(0, 99).unwrap(), other.acts_end()));
    for version in 0..one.len() {
        assert_eq!(one.snapshot(version).unwrap(), other.snapshot(version).unwrap());
        let digest = one.snapshot(version).unwrap().event_digest;
        assert_eq!(one.prove(&digest, Some(version)).unwrap(), other.prove(&digest, Some(version)).unwrap());
    }
    assert!(other.check(&mut |_| ControlFlow::<()>::Continue(())).unwrap().is_continue());
}

proptest! {
    #![proptest_config(seeds::searching(16))]

    #[test]
    fn a_restored_log_is_the_log_that_was_backed_up(
        before in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..9), 0..3),
        entries in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 1..30),
        split in 0_usize..30,
        events in 1_u64..60,
        parts in 0_usize..5,
    ) {
        let log = Log::in_memory().unwrap();
        // The log may be older than its cluster.
        for events in before {
            log.append(&[request(&events, false)]).unwrap();
        }
        let folder = tempfile::tempdir().unwrap();
        let paths = [folder.path().join("1"), folder.path().join("2")];
        for (index, events) in (2..).zip(&entries[..split.min(entries.len())]) {
            apply(&log, index, events);
        }
        // Interrupted, and continued when the log has grown.
        write_rest(&log, &paths[0], None, events, parts);
        for (index, events) in (2 + split.min(entries.len()) as u64..).zip(&entries[split.min(entries.len())..]) {
            apply(&log, index, events);
        }
        let first = write_whole(&log, &paths[0], None, events);
        apply(&log, 100, &[1, 2, 3, 2]);
        let second = write_whole(&log, &paths[1], Some(first), events);
        prop_assert_eq!(second.reach, Reach { extent: log.extent_at(log.len()).unwrap(), log_id: log.applied(), acts: log.acts_end() });
        prop_assert_eq!(audit(&paths).unwrap(), second);
        prop_assert_eq!(restore(&paths, &folder.path().join("data")).unwrap(), second);
        require_equal(&log, &Log::open(&folder.path().join("data")).unwrap());
    }
}

fn small() -> (tempfile::TempDir, PathBuf, Log) {
    let log = Log::in_memory().unwrap();
    for (index, events) in (2..).zip([[7, 1, 7].as_slice(), &[], &[2, 3], &[0], &[7]]) {
        apply(&log, index, events);
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("1");
    write_whole(&log, &path, None, 2);
    (folder, path, log)
}

#[test]
fn every_changed_bit_is_found_and_leaves_the_folder_empty() {
    let (folder, path, _) = small();
    let whole = fs::read(&path).unwrap();
    let data = folder.path().join("data");
    for bit in 0..8 * whole.len() {
        let mut changed = whole.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        fs::write(&path, changed).unwrap();
        assert!(audit(from_ref(&path)).is_err(), "bit {bit}");
        // Restoring makes folders, so not for each bit.
        if bit % 401 == 0 {
            assert!(restore(from_ref(&path), &data).is_err(), "bit {bit}");
            assert_eq!(fs::read_dir(&data).unwrap().count(), 0);
        }
    }
}

#[test]
fn a_backup_that_is_cut_off_anywhere_is_refused_and_can_be_continued() {
    let (_folder, path, log) = small();
    let whole = fs::read(&path).unwrap();
    for length in 0..whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        let error = audit(from_ref(&path)).unwrap_err().to_string();
        assert!(length < 21 || error.contains("cut off"), "{length}: {error}");
        assert!(Summary::of(&path).is_err());
        write_whole(&log, &path, None, 2);
        assert_eq!(fs::read(&path).unwrap(), whole, "{length}");
    }
    fs::write(&path, [whole.as_slice(), b"x"].concat()).unwrap();
    assert!(audit(&[path]).unwrap_err().to_string().contains("it follows the end"));
}

#[test]
fn what_a_power_cut_left_is_dropped_before_the_backup_is_continued() {
    let (_folder, path, log) = small();
    let whole = fs::read(&path).unwrap();
    for at in (22..whole.len()).step_by(7) {
        let mut torn = whole.clone();
        torn[at..].fill(0);
        fs::write(&path, torn).unwrap();
        write_whole(&log, &path, None, 2);
        assert_eq!(fs::read(&path).unwrap(), whole, "{at}");
    }
}

#[test]
fn a_page_that_was_changed_with_all_its_hashes_does_not_lead_to_its_roots() {
    let (folder, path, _) = small();
    let mut log = Vec::new();
    let mut reader = BackupReader::open(fs::File::open(&path).unwrap()).unwrap();
    while let Part::Page(page) = reader.part().unwrap() {
        log.push(*page);
    }
    for change in 0..4 {
        let mut pages = log.clone();
        match change {
            0 => pages[0].digests[0] = Digest::of_event(b"another"),
            1 => pages[0].batches[0].hyper_digest = Digest::of_event(b"another"),
            2 => pages[0].history_digest = Digest::of_event(b"another"),
            _ => pages[0].repeats.clear(),
        }
        let mut audit = Audit::default();
        let error = pages.iter().try_for_each(|page| audit.append(page)).unwrap_err();
        assert!(matches!(error, LogError::Corrupt(_)), "{change}: {error}");
        let mut restoration = Restoration::begin(&folder.path().join("data")).unwrap();
        for page in &pages {
            restoration.append(page).unwrap();
        }
        // Hyper roots before the last are compared by a check only.
        assert_eq!(restoration.complete().is_err(), change % 2 == 0, "{change}");
    }
}

#[test]
fn a_backup_continues_only_the_one_that_it_was_made_after() {
    let (folder, path, log) = small();
    let end = Summary::of(&path).unwrap().end;
    apply(&log, 50, &[9]);
    let second = folder.path().join("2");
    write_whole(&log, &second, Some(end), 9);
    assert!(audit(&[path.clone(), second.clone()]).is_ok());
    for wrong in [vec![second.clone()], vec![second.clone(), path.clone()], vec![path.clone(), path.clone()], vec![]] {
        let error = audit(&wrong).unwrap_err().to_string();
        assert!(wrong.is_empty() || error.contains("it continues the backup"), "{error}");
    }
}

#[test]
fn a_backup_that_names_another_log_than_the_one_that_it_continues_is_refused() {
    let (folder, path, log) = small();
    let end = Summary::of(&path).unwrap().end;
    let second = folder.path().join("2");
    let mut file = BackupFile::open(&second).unwrap();
    let renamed = Header { origin: Origin { log: "other".into(), ..origin() }, ..header(Some(end)) };
    file.write(&beginning(&log, &renamed).unwrap()).unwrap();
    file.write(&continuation(&log, file.cursor().unwrap(), 9, None).unwrap()).unwrap();
    assert!(file.is_whole());
    let error = audit(&[path, second]).unwrap_err().to_string();
    assert!(
        error.ends_with("it is of the log \"other\", but the backup that it continues is of the log \"log\""),
        "{error}"
    );
}

#[test]
fn a_log_that_does_not_continue_a_backup_is_not_backed_up_after_it() {
    let (_folder, path, log) = small();
    let end = Summary::of(&path).unwrap().end;
    let other = Log::in_memory().unwrap();
    apply(&other, 2, &[200; 9]);
    apply(&other, 90, &[200]);
    for refused in [beginning(&other, &header(Some(end))).map(drop), continuation(&other, end, 9, None).map(drop)] {
        assert!(matches!(refused, Err(PageError::Diverged { .. })), "{refused:?}");
    }
    assert!(continuation(&log, end, 9, None).is_ok());
}

#[test]
fn a_newer_format_and_other_files_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("1");
    for (text, expected) in [
        ("qed backup, format 2\nanything", "it is a backup of format 2, this build knows format 1: use a newer qed"),
        ("qed backup, format 01\n", "it is not a backup"),
        ("qed log, format 1\n", "it is not a backup"),
        ("", "it is not a backup"),
    ] {
        fs::write(&path, text).unwrap();
        let error = audit(from_ref(&path)).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert!(error.starts_with(path.to_str().unwrap()), "{error}");
        if !text.is_empty() {
            assert!(BackupFile::open(&path).is_err());
            assert_eq!(fs::read_to_string(&path).unwrap(), text, "a file of something else stays as it is");
        }
    }
}

#[test]
fn a_backup_is_written_by_one_process_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("1");
    let _file = BackupFile::open(&path).unwrap();
    assert!(BackupFile::open(&path).unwrap_err().to_string().contains("another process is writing it"));
}

#[test]
fn a_folder_in_use_is_not_restored_into_and_an_unfinished_one_is() {
    let (folder, path, log) = small();
    let data = folder.path().join("data");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("mine"), b"mine").unwrap();
    assert!(matches!(Restoration::begin(&data), Err(LogError::Occupied { .. })));
    assert_eq!(fs::read(data.join("mine")).unwrap(), b"mine");
    fs::remove_file(data.join("mine")).unwrap();
    // What a kill leaves.
    std::mem::forget(Restoration::begin(&data).unwrap());
    assert!(matches!(Log::open(&data), Err(LogError::Unfinished { .. })));
    fs::copy(data.join("FORMAT"), folder.path().join("FORMAT")).unwrap();
    let killed = folder.path().join("killed");
    fs::create_dir_all(killed.join("store")).unwrap();
    fs::File::create(killed.join("store/x")).unwrap().write_all(b"half").unwrap();
    fs::copy(data.join("FORMAT"), killed.join("FORMAT")).unwrap();
    assert!(matches!(Restoration::begin(&data), Err(LogError::Locked { .. })), "it is still being restored");
    restore(from_ref(&path), &killed).unwrap();
    require_equal(&log, &Log::open(&killed).unwrap());
    assert!(matches!(restore(&[path], &killed), Err(BackupError::Log(LogError::Occupied { .. }))));
}
