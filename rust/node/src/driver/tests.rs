use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use qed_core::acts::ActBody;
use qed_core::error::LogError;
use qed_core::hash::Digest;
use qed_core::store::{MemoryStore, Row, Store, Table, Visit, WriteBatch};
use tempfile::TempDir;

use super::*;
use crate::consensus::Settings;
use crate::folder::{Beginning, Timing};
use crate::member;
use crate::membership::MemberInfo;
use crate::message_check::MAX_TERM_JUMP;
use crate::outbox::{Outcome, Success};
use crate::recovery::recover;
use crate::segments::SegmentFolder;
use crate::segments::memory::Memory;
use crate::wal::Wal;

/// Size of the entries that are kept: small, so that entries are deleted soon.
const KEPT_BYTES: usize = 20_000;
const ONE: MemberId = MemberId::of(1);
const PATIENCE: Duration = Duration::from_mins(1);

/// A store whose writes fail after a number of successes.
struct FailingStore(MemoryStore, AtomicUsize);

impl Store for FailingStore {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, LogError> {
        self.0.get(table, key)
    }

    fn first_in(&self, table: Table, from: &[u8], to: &[u8]) -> Result<Option<Row>, LogError> {
        self.0.first_in(table, from, to)
    }

    fn last_in(&self, table: Table, from: &[u8], to: &[u8]) -> Result<Option<Row>, LogError> {
        self.0.last_in(table, from, to)
    }

    fn scan(&self, table: Table, from: &[u8], visit: &mut Visit<'_>) -> Result<(), LogError> {
        self.0.scan(table, from, visit)
    }

    fn write(&self, batch: WriteBatch) -> Result<(), LogError> {
        let left = self.1.load(Ordering::SeqCst);
        let failed = || LogError::Store { action: "write".into(), cause: "the disk is full".into() };
        self.1.store(left.checked_sub(1).ok_or_else(failed)?, Ordering::SeqCst);
        self.0.write(batch)
    }

    fn sync(&self) -> Result<(), LogError> {
        Ok(())
    }

    fn note_durable(&self, _len: u64) -> Result<(), LogError> {
        Ok(())
    }

    fn noted_durable(&self) -> u64 {
        0
    }
}

/// A folder with small segments.
struct Small(SegmentFolder, usize);

impl SegmentStore for Small {
    fn segment_bytes(&self) -> usize {
        self.1
    }

    fn list(&mut self) -> Result<Vec<u64>, String> {
        self.0.list()
    }

    fn read(&mut self, segment: u64) -> Result<Vec<u8>, String> {
        self.0.read(segment)
    }

    fn create(&mut self, segment: u64, size_bytes: usize) -> Result<(), String> {
        self.0.create(segment, size_bytes)
    }

    fn write(&mut self, segment: u64, position: usize, bytes: &[u8]) -> Result<(), String> {
        self.0.write(segment, position, bytes)
    }

    fn sync(&mut self, segment: u64) -> Result<(), String> {
        self.0.sync(segment)
    }

    fn delete(&mut self, segment: u64) -> Result<(), String> {
        self.0.delete(segment)
    }

    fn note(&mut self, frames: u64) -> Result<(), String> {
        self.0.note(frames)
    }

    fn noted(&mut self) -> u64 {
        self.0.noted()
    }
}

fn limits(queue_events: usize) -> Limits {
    Limits { queue_events, proof_threads: 1, tick: Duration::from_millis(10), grace: PATIENCE }
}

fn description() -> MemberInfo {
    let [name, raft_addr, http_addr, mgmt_addr, metrics_addr] = ["a", "b", "c", "d", "e"].map(String::from);
    MemberInfo { name, raft_addr, http_addr, mgmt_addr, metrics_addr, key: None }
}

/// Start a single voter.
fn alone<M: SegmentStore + Send + 'static>(store: M, log: Log, batch_events: usize, queue_events: usize) -> Driver {
    let founded = Membership::of_one("cluster".into(), ONE, description());
    let settings = Settings {
        id: ONE,
        election_ticks: 10,
        dead_ticks: 20,
        heartbeat_ticks: 1,
        patience_ticks: Some(10),
        seed: 1,
        pre_vote: true,
        check_quorum: true,
        kept_bytes: KEPT_BYTES,
    };
    let of_member = member::Limits { batch_events, election_ticks: 10, first_read: 0 };
    let (member, state) = recover(Arc::new(log), store, Some(founded), settings, of_member).unwrap();
    Driver::start(Identity::draw("a", false).unwrap(), member, state, limits(queue_events), Arc::default()).unwrap()
}

fn alone_in_memory(batch_events: usize, queue_events: usize) -> Driver {
    alone(Memory::default(), Log::in_memory().unwrap(), batch_events, queue_events)
}

fn open(path: &Path, beginning: Beginning) -> Driver {
    let timing = Timing { heartbeat_ticks: 1, election_ticks: 10, dead_ticks: 20 };
    Driver::of(Opened::open(path, &description(), beginning, timing, 10_000).unwrap(), limits(100_000)).unwrap()
}

fn request(text: &str) -> Request {
    Request { digests: vec![Digest::of_event(text.as_bytes())], if_absent: false }
}

/// Wait for `count` completions, and return them by ticket; no ticket may complete twice.
fn wait(driver: &Driver, count: usize) -> BTreeMap<u64, Outcome> {
    let (mut found, begun) = (BTreeMap::new(), Instant::now());
    while found.len() < count {
        for Completion { ticket, outcome } in driver.drain().unwrap().completions {
            assert!(found.insert(ticket.get(), outcome).is_none(), "ticket {ticket} was completed twice");
        }
        assert!(begun.elapsed() < PATIENCE, "{} of {count} are complete", found.len());
        thread::yield_now();
    }
    found
}

fn is_added(outcome: &Outcome) -> bool {
    matches!(outcome, Ok(Success::Added(_)))
}

#[test]
fn every_request_gets_its_own_result_once() {
    let driver = alone_in_memory(7, 1000);
    for ticket in 0..100 {
        driver.submit(Ticket::new(ticket), request(&ticket.to_string())).unwrap();
    }
    for (ticket, outcome) in wait(&driver, 100) {
        let Ok(Success::Added(added)) = outcome else { panic!("{outcome:?}") };
        assert_eq!(added.snapshots[0].event_digest, Digest::of_event(ticket.to_string().as_bytes()));
        assert_eq!(added.snapshots[0].version, ticket);
    }
    assert_eq!(driver.log().len(), 100);
    driver.close();
    assert!(driver.drain().unwrap().completions.is_empty());
}

#[test]
fn what_was_accepted_is_finished_on_close() {
    let driver = alone_in_memory(3, 1000);
    for ticket in 0..50 {
        driver.submit(Ticket::new(ticket), request("again")).unwrap();
    }
    driver.close();
    let completions = wait(&driver, 50);
    assert!(completions.values().all(is_added));
    assert!(matches!(driver.submit(Ticket::new(50), request("late")), Err(SubmitError::Refused { .. })));
}

#[test]
fn a_failed_sync_fails_everyone_who_waits_and_all_who_come() {
    for good in 8..20 {
        let store = Memory::default();
        store.0.lock().good_changes = Some(good);
        let driver = alone(store.clone(), Log::in_memory().unwrap(), 1, 1000);
        let submitted =
            (0..50).filter(|&ticket| driver.submit(Ticket::new(ticket), request(&ticket.to_string())).is_ok()).count();
        let outcomes = wait(&driver, submitted);
        let added = outcomes.values().filter(|outcome| is_added(outcome)).count();
        let is_failed = |outcome: &Outcome| matches!(outcome, Err(Failure::WriteFailed(reason)) if reason.contains("the disk has failed"));
        assert_eq!(outcomes.values().filter(|outcome| is_failed(outcome)).count(), submitted - added);
        assert!(driver.failure().unwrap().contains("the disk has failed"));
        assert!(matches!(driver.submit(Ticket::new(99), request("late")), Err(SubmitError::Refused { .. })));
        // Events of a failed write are not shown, although they may be on disk.
        assert_eq!(driver.log().len(), added as u64);
        driver.close();
        assert_eq!(store.0.lock().changes, good + 1, "nothing may be changed after a failure");
        store.0.lock().good_changes = None;
        let (_, recovered) = Wal::open(store).unwrap();
        let entries = recovered.entries.iter().filter(|entry| !entry.data.is_empty()).count();
        assert!(added <= entries, "{added} events were acknowledged, but only {entries} entries are stored");
    }
}

#[test]
fn a_store_that_fails_fails_everyone_who_waits_and_all_who_come() {
    let store = FailingStore(MemoryStore::new(), AtomicUsize::new(5));
    let driver = alone(Memory::default(), Log::over(Box::new(store)).unwrap(), 1, 1000);
    driver.await_events(Ticket::new(100), 1000, usize::MAX / 2);
    let submitted =
        (0..50).filter(|&ticket| driver.submit(Ticket::new(ticket), request(&ticket.to_string())).is_ok()).count();
    let outcomes = wait(&driver, submitted + 1);
    let added = outcomes.values().filter(|outcome| is_added(outcome)).count();
    // The membership is one write, and the leader's first entry another.
    assert_eq!(added, 3);
    let is_failed =
        |outcome: &Outcome| matches!(outcome, Err(Failure::WriteFailed(reason)) if reason.contains("the disk is full"));
    assert_eq!(outcomes.values().filter(|outcome| is_failed(outcome)).count(), submitted + 1 - added);
    assert!(driver.failure().unwrap().contains("the disk is full"));
    driver.read(Ticket::new(101));
    assert!(is_failed(&wait(&driver, 1)[&101]));
}

#[test]
fn a_full_queue_refuses_and_an_empty_request_too() {
    let driver = alone_in_memory(1, 0);
    assert_eq!(driver.submit(Ticket::new(0), request("any")), Err(SubmitError::Overloaded { waiting: 0 }));
    let empty = Request { digests: Vec::new(), if_absent: false };
    assert_eq!(driver.submit(Ticket::new(0), empty), Err(SubmitError::Empty));
}

#[test]
fn questions_are_answered_beside_requests_and_before_the_end() {
    let driver = alone_in_memory(1000, 1000);
    driver.submit(Ticket::new(0), request("a")).unwrap();
    wait(&driver, 1);
    for ticket in 1..100 {
        driver.ask(Ticket::new(ticket), Query::Snapshot { version: ticket % 2 });
    }
    driver.close();
    let expected = driver.log().snapshot(0).unwrap().to_json();
    for (ticket, outcome) in wait(&driver, 99) {
        match outcome {
            Ok(Success::Answered(json)) => assert_eq!((ticket % 2, json), (0, expected.clone().into_bytes())),
            Err(Failure::Unanswered(LogError::UnknownVersion { .. })) => assert_eq!(ticket % 2, 1),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn whoever_waits_when_it_ends_is_told() {
    let folder = TempDir::new().unwrap();
    // The member belongs to no cluster, so there is no leader to answer.
    let driver = open(folder.path(), Beginning::Join);
    driver.read(Ticket::new(1));
    driver.await_events(Ticket::new(2), 1000, usize::MAX / 2);
    driver.submit(Ticket::new(3), request("any")).unwrap();
    driver.close();
    driver.read(Ticket::new(4));
    driver.await_events(Ticket::new(5), 0, 1);
    driver.request(Ticket::new(6), ClusterChange::Admit(ONE, description(), None));
    driver.request(Ticket::new(7), ClusterChange::Remove("a".into(), None));
    driver.request(Ticket::new(8), ClusterChange::Transfer(None));
    let page = Log::in_memory().unwrap().page(qed_core::page::Extent::default(), LogId::default(), 1).unwrap();
    driver.install(Ticket::new(9), page);
    driver.act(Ticket::new(10), ActBody::new(b"done".to_vec()).unwrap());
    let outcomes = wait(&driver, 10);
    assert!(outcomes.keys().copied().eq(1..11));
    let untold = |ticket: &u64| matches!(outcomes[ticket], Err(Failure::NotLeader | Failure::Unknown));
    assert!(outcomes.keys().all(untold), "{outcomes:?}");
}

#[test]
fn a_page_of_a_term_far_ahead_is_not_installed() {
    let folder = TempDir::new().unwrap();
    let driver = open(folder.path(), Beginning::Join);
    let mut page = Log::in_memory().unwrap().page(qed_core::page::Extent::default(), LogId::default(), 1).unwrap();
    for (ticket, term) in [(1, u64::MAX), (2, MAX_TERM_JUMP + 1), (3, MAX_TERM_JUMP)] {
        page.end = LogId { index: 9, term };
        driver.install(Ticket::new(ticket), page.clone());
    }
    let outcomes = wait(&driver, 3);
    assert!(matches!(outcomes[&1], Err(Failure::PageRefused(PageError::Malformed(_)))));
    assert!(matches!(outcomes[&2], Err(Failure::PageRefused(PageError::Malformed(_)))));
    assert!(matches!(outcomes[&3], Ok(Success::Done)));
    // When the completion of a page arrives, the status includes the page.
    assert_eq!(driver.status().applied_index, 9);
    assert_eq!(driver.log().applied().term, MAX_TERM_JUMP);
}

/// Add events, and return the snapshots as they were acknowledged.
fn add(driver: &Driver, texts: impl Iterator<Item = String>) -> Vec<qed_core::proof::Snapshot> {
    let count =
        (0..).zip(texts).map(|(ticket, text)| driver.submit(Ticket::new(ticket), request(&text)).unwrap()).count();
    let outcomes = wait(driver, count).into_values();
    let snapshots = outcomes.map(|outcome| match outcome {
        Ok(Success::Added(added)) => added.snapshots[0],
        other => panic!("{other:?}"),
    });
    snapshots.collect()
}

fn require_all(driver: &Driver, acknowledged: &[qed_core::proof::Snapshot]) {
    assert_eq!(driver.log().len(), acknowledged.len() as u64);
    for snapshot in acknowledged {
        assert_eq!(driver.log().snapshot(snapshot.version).unwrap(), *snapshot);
    }
}

/// Wait until the member leads and has applied what was committed before.
fn wait_until_ready(driver: &Driver) {
    driver.read(Ticket::new(u64::MAX));
    assert!(matches!(wait(driver, 1)[&u64::MAX], Ok(Success::Done)));
}

#[test]
fn everything_acknowledged_is_there_after_the_end() {
    let (folder, mut acknowledged) = (TempDir::new().unwrap(), Vec::new());
    for round in 0..4 {
        let driver = open(folder.path(), Beginning::Bootstrap);
        wait_until_ready(&driver);
        require_all(&driver, &acknowledged);
        acknowledged.extend(add(&driver, (0..20).map(|number| format!("{round} {number}"))));
        driver.close();
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

#[test]
fn everything_acknowledged_is_there_after_a_kill() {
    let (folders, mut acknowledged) = (TempDir::new().unwrap(), Vec::new());
    let path = |round: u64| folders.path().join(round.to_string());
    for round in 0..4 {
        let driver = open(&path(round), Beginning::Bootstrap);
        wait_until_ready(&driver);
        require_all(&driver, &acknowledged);
        acknowledged.extend(add(&driver, (0..20).map(|number| format!("{round} {number}"))));
        // The copy holds what the kernel has, as after a killed process: buffers of this process are not in it.
        copy(&path(round), &path(round + 1));
    }
}

#[test]
fn the_raft_log_stays_small_under_load() {
    let folder = TempDir::new().unwrap();
    let segment_bytes = 4096;
    let store = || Small(SegmentFolder::open(&folder.path().join("raft")).unwrap(), segment_bytes);
    let open = || {
        let log = Log::open(folder.path()).unwrap();
        alone(store(), log, 10, 1000)
    };
    let size = || -> u64 {
        let files = fs::read_dir(folder.path().join("raft")).unwrap();
        // A file may be deleted between the listing and the query of its size.
        files.filter_map(|file| Some(file.ok()?.metadata().ok()?.len())).sum()
    };
    let driver = open();
    let (mut acknowledged, mut largest) = (Vec::new(), 0);
    for round in 0..40 {
        acknowledged.extend(add(&driver, (0..100).map(|number| format!("{round} {number}"))));
        largest = largest.max(size());
    }
    // 128 kB of events were added. The log keeps up to twice the configured size of entries, and the rest of a segment at each end.
    assert!(largest < (2 * KEPT_BYTES + 4 * segment_bytes) as u64, "{largest} bytes");
    drop(driver);
    let driver = open();
    wait_until_ready(&driver);
    require_all(&driver, &acknowledged);
}
