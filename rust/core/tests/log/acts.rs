//! The chain of acts: replicated beside the log, checked when a log is opened, checked or sent to another replica.

use std::ops::ControlFlow;

use qed_core::acts::{Act, ActBody, ChainEnd};
use qed_core::applied::Members;
use qed_core::disk::DiskStore;
use qed_core::error::LogError;
use qed_core::hash::Digest;
use qed_core::log::{Log, Request};
use qed_core::log_id::LogId;
use qed_core::page::{Page, PageError};
use qed_core::store::{MemoryStore, Row, Store, Table, WriteBatch};

fn body(text: &str) -> ActBody {
    ActBody::new(text.into()).unwrap()
}

fn at(index: u64) -> LogId {
    LogId { index, term: 1 + index / 4 }
}

/// Fill a log: an act, events, a membership by an act, events, an act.
fn fill(log: &Log) {
    let events = |index: u64| vec![Request { digests: vec![Digest::of_event(&[7]); 3], if_absent: index == 4 }];
    log.apply_act(at(1), body("founded")).unwrap();
    log.apply(at(2), &events(2)).unwrap();
    log.apply_members(&Members { log_id: at(3), bytes: b"two".to_vec() }, Some(body("admitted b"))).unwrap();
    log.apply(at(4), &events(4)).unwrap();
    log.apply_act(at(5), body("key made")).unwrap();
}

fn check(log: &Log) -> Result<(), LogError> {
    log.check(&mut |_| ControlFlow::<()>::Continue(())).map(drop)
}

fn filled() -> Log {
    let log = Log::in_memory().unwrap();
    fill(&log);
    log
}

#[test]
fn the_hashes_are_those_of_the_format() {
    // Computed by Python's hashlib from FORMATS.md, "Acts".
    let log = Log::in_memory().unwrap();
    log.apply_act(LogId { index: 1, term: 1 }, body("founded")).unwrap();
    assert_eq!(log.acts_end().hash.to_string(), "6dcde20013f7b66ae104619cfb357454a02f0c3ed9448bc690df060f6e3f2501");
    log.apply_act(LogId { index: 7, term: 3 }, body("removed m2")).unwrap();
    assert_eq!(log.acts_end().hash.to_string(), "4e61db3aed5e403917b32ba75c7dd202b5797412d238b056626a723c4ce9a0d4");
}

#[test]
fn an_act_says_something_and_at_most_64_kib() {
    assert!(ActBody::new(Vec::new()).is_none());
    assert!(ActBody::new(vec![0; 1 + (64 << 10)]).is_none());
    assert!(ActBody::new(vec![0; 64 << 10]).is_some());
}

#[test]
fn acts_are_read_from_any_entry_on_and_each_names_the_one_before() {
    let log = filled();
    let acts = log.acts(0, usize::MAX).unwrap();
    let said: Vec<_> = acts.iter().map(|act| (act.log_id, act.body.as_bytes())).collect();
    let expected = [(at(1), "founded"), (at(3), "admitted b"), (at(5), "key made")];
    assert_eq!(said, expected.map(|(log_id, text)| (log_id, text.as_bytes())));
    assert_eq!(acts[0].previous, Digest::default());
    assert_eq!([acts[1].previous, acts[2].previous], [acts[0].hash(), acts[1].hash()]);
    assert_eq!(ChainEnd::default().after_all(&acts), Some(log.acts_end()));
    assert_eq!(log.acts(1, usize::MAX).unwrap(), acts[1..]);
    assert_eq!(log.acts(0, 2).unwrap(), acts[..2]);
    assert_eq!(log.acts(5, usize::MAX).unwrap(), []);
    assert_eq!(log.acts(u64::MAX, usize::MAX).unwrap(), []);
    check(&log).unwrap();
}

#[test]
fn acts_are_there_when_the_folder_is_opened_again() {
    let folder = tempfile::tempdir().unwrap();
    let log = Log::open(folder.path()).unwrap();
    fill(&log);
    log.sync().unwrap();
    drop(log);
    let opened = Log::open(folder.path()).unwrap();
    assert_eq!(opened.acts_end(), filled().acts_end());
    assert_eq!(opened.acts(0, 9).unwrap(), filled().acts(0, 9).unwrap());
    opened.apply_act(at(6), body("one more")).unwrap();
    check(&opened).unwrap();
}

/// Return all rows of a filled log.
fn rows() -> Vec<(Table, Row)> {
    let folder = tempfile::tempdir().unwrap();
    let log = Log::open(folder.path()).unwrap();
    fill(&log);
    log.sync().unwrap();
    drop(log);
    let (store, mut rows) = (DiskStore::open(folder.path()).unwrap(), Vec::new());
    for table in Table::ALL {
        store
            .scan(table, &[], &mut |key, value| {
                rows.push((table, (key.to_vec(), value.to_vec())));
                Ok(ControlFlow::Continue(()))
            })
            .unwrap();
    }
    rows
}

/// Open and check a log with these rows.
fn audit(rows: Vec<(Table, Row)>) -> Result<(), LogError> {
    let (store, mut batch) = (MemoryStore::new(), WriteBatch::default());
    for (table, (key, value)) in rows {
        batch.put(table, key, value);
    }
    store.write(batch).unwrap();
    check(&Log::over(Box::new(store))?)
}

fn require_found(rows: Vec<(Table, Row)>, what: &str) {
    let audited = audit(rows);
    assert!(matches!(audited, Err(LogError::Corrupt(_))), "{what}: {audited:?}");
}

#[test]
fn every_changed_bit_of_an_act_is_found() {
    let rows = rows();
    audit(rows.clone()).unwrap();
    let is_chain = |(table, (key, _)): &(Table, Row)| *table == Table::Acts || key == b"acts";
    let places: Vec<_> = (0..rows.len()).filter(|&row| is_chain(&rows[row])).collect();
    assert_eq!(places.len(), 4);
    for row in places {
        for bit in 0..8 * rows[row].1.1.len() {
            let mut damaged = rows.clone();
            damaged[row].1.1[bit / 8] ^= 1 << (bit % 8);
            require_found(damaged, &format!("row {row}, bit {bit}"));
        }
        for length in 0..rows[row].1.1.len() {
            let mut damaged = rows.clone();
            damaged[row].1.1.truncate(length);
            require_found(damaged, &format!("row {row} with {length} bytes"));
        }
        let mut damaged = rows.clone();
        damaged.remove(row);
        require_found(damaged, &format!("without row {row}"));
    }
}

#[test]
fn acts_that_were_swapped_or_inserted_are_found() {
    let rows = rows();
    let acts: Vec<_> = (0..rows.len()).filter(|&row| rows[row].0 == Table::Acts).collect();
    let mut swapped = rows.clone();
    let (first, second) = (swapped[acts[0]].1.1.clone(), swapped[acts[1]].1.1.clone());
    (swapped[acts[0]].1.1, swapped[acts[1]].1.1) = (second, first);
    require_found(swapped, "swapped");
    for index in [2_u64, 4, 6] {
        let mut inserted = rows.clone();
        let value = [at(index).to_bytes().as_slice(), &[0; 32], b"forged"].concat();
        inserted.push((Table::Acts, (index.to_be_bytes().to_vec(), value)));
        require_found(inserted, &format!("inserted at {index}"));
    }
}

#[test]
fn acts_beyond_what_is_applied_are_found() {
    let mut rows = rows();
    rows.retain(|(table, (key, _))| *table != Table::Applied || key != b"applied");
    require_found(rows, "without the last applied entry");
}

#[test]
fn a_page_whose_acts_are_damaged_changes_nothing() {
    let leader = filled();
    let follower = Log::in_memory().unwrap();
    follower.apply_act(at(1), body("founded")).unwrap();
    let page = leader.page(follower.extent_at(0).unwrap(), follower.applied(), 9).unwrap();
    assert_eq!(page.acts.len(), 2);
    let damages: [fn(&mut Page); 9] = [
        |page| page.acts[0].body = ActBody::new(b"admitted c".to_vec()).unwrap(),
        |page| page.acts[1].body = ActBody::new(b"key lost".to_vec()).unwrap(),
        |page| page.acts[0].previous = Digest::default(),
        |page| page.acts[0].log_id.index += 1,
        |page| page.acts[1].log_id.index += 1,
        |page| page.acts.swap(0, 1),
        |page| drop(page.acts.remove(0)),
        |page| drop(page.acts.pop()),
        |page| page.acts_end = ChainEnd::default(),
    ];
    for damage in damages {
        let mut copy = page.clone();
        damage(&mut copy);
        let refused = follower.install(&copy);
        assert!(matches!(refused, Err(PageError::Inconsistent { .. })), "{copy:?}: {refused:?}");
        assert_eq!((follower.len(), follower.applied()), (0, at(1)));
    }
    follower.install(&Page::from_bytes(&page.to_bytes()).unwrap()).unwrap();
    assert_eq!(follower.acts_end(), leader.acts_end());
    check(&follower).unwrap();
}

#[test]
fn a_page_of_another_chain_is_refused_even_if_it_brings_no_act() {
    let leader = filled();
    leader.apply(at(6), &[Request { digests: vec![Digest::of_event(b"new")], if_absent: false }]).unwrap();
    let other = Log::in_memory().unwrap();
    let mut page = leader.page(other.extent_at(0).unwrap(), LogId::default(), 9).unwrap();
    // Equal in its events up to here, but not in its acts.
    let forged = Act { log_id: at(5), previous: Digest::default(), body: body("forged") };
    (page.acts_end, page.acts) = (forged.end(), vec![forged]);
    other.install(&page).unwrap();
    let page = leader.page(other.extent_at(other.len()).unwrap(), at(5), 9).unwrap();
    assert!(page.acts.is_empty());
    assert!(matches!(other.install(&page), Err(PageError::Inconsistent { .. })));
}

#[test]
fn many_long_acts_come_in_several_pages() {
    let leader = Log::in_memory().unwrap();
    for index in 1..=100_u64 {
        if index.is_multiple_of(10) {
            let digests = vec![Digest::of_event(&index.to_be_bytes())];
            leader.apply(at(index), &[Request { digests, if_absent: false }]).unwrap();
        } else {
            leader.apply_act(at(index), ActBody::new(vec![b'x'; ActBody::MOST_BYTES]).unwrap()).unwrap();
        }
    }
    let (follower, mut pages) = (Log::in_memory().unwrap(), 0);
    while follower.applied() < leader.applied() {
        let start = follower.extent_at(follower.len()).unwrap();
        let bytes = leader.page(start, follower.applied(), 1000).unwrap().to_bytes();
        assert!(bytes.len() < 5 << 20, "{} bytes", bytes.len());
        follower.install(&Page::from_bytes(&bytes).unwrap()).unwrap();
        pages += 1;
    }
    assert_eq!((pages, follower.acts_end()), (2, leader.acts_end()));
    assert_eq!(follower.extent_at(follower.len()).unwrap(), leader.extent_at(leader.len()).unwrap());
    check(&follower).unwrap();
}
