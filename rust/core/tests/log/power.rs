//! Power cuts and failing disks: a store that forgets everything that was not synced, and fails at each of its writes and syncs in
//! turn.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use qed_core::error::LogError;
use qed_core::hash::Digest;
use qed_core::log::{Added, Log, Request};
use qed_core::proof::{Answer, Snapshot};
use qed_core::store::{MemoryStore, Row, Store, Table, Visit, WriteBatch};
use qed_core::verify::{verify_incremental, verify_membership};

/// A disk: its durable content, and the content that a power cut would lose.
#[derive(Default)]
struct Platter {
    synced: Vec<WriteBatch>,
    unsynced: Vec<WriteBatch>,
    noted: u64,
}

/// A store on a platter that fails for good after a number of writes and syncs.
struct Unreliable {
    platter: Arc<Mutex<Platter>>,
    rows: MemoryStore,
    steps_left: AtomicUsize,
    /// A table that cannot be read.
    unreadable: Option<Table>,
}

impl Unreliable {
    fn over(platter: &Arc<Mutex<Platter>>, steps: usize) -> Self {
        let rows = MemoryStore::new();
        for batch in &platter.lock().synced {
            rows.write(batch.clone()).unwrap();
        }
        Self { platter: Arc::clone(platter), rows, steps_left: AtomicUsize::new(steps), unreadable: None }
    }

    fn step(&self) -> Result<(), LogError> {
        let left = self.steps_left.load(Ordering::SeqCst);
        let failed = || LogError::Store { action: "write".into(), cause: "the power is out".into() };
        self.steps_left.store(left.checked_sub(1).ok_or_else(failed)?, Ordering::SeqCst);
        Ok(())
    }
}

impl Store for Unreliable {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, LogError> {
        self.rows.get(table, key)
    }

    fn first_in(&self, table: Table, from: &[u8], to: &[u8]) -> Result<Option<Row>, LogError> {
        if self.unreadable == Some(table) {
            return Err(LogError::Store { action: "read".into(), cause: "a bad sector".into() });
        }
        self.rows.first_in(table, from, to)
    }

    fn last_in(&self, table: Table, from: &[u8], to: &[u8]) -> Result<Option<Row>, LogError> {
        self.rows.last_in(table, from, to)
    }

    fn scan(&self, table: Table, from: &[u8], visit: &mut Visit<'_>) -> Result<(), LogError> {
        self.rows.scan(table, from, visit)
    }

    fn write(&self, batch: WriteBatch) -> Result<(), LogError> {
        self.step()?;
        self.platter.lock().unsynced.push(batch.clone());
        self.rows.write(batch)
    }

    fn sync(&self) -> Result<(), LogError> {
        self.step()?;
        let mut platter = self.platter.lock();
        let written = std::mem::take(&mut platter.unsynced);
        platter.synced.extend(written);
        Ok(())
    }

    fn note_durable(&self, len: u64) -> Result<(), LogError> {
        self.platter.lock().noted = len;
        Ok(())
    }

    fn noted_durable(&self) -> u64 {
        self.platter.lock().noted
    }
}

/// Cut the power: unsynced batches are lost, except for the first `kept` of them, which happen to have reached the disk.
fn cut(platter: &Arc<Mutex<Platter>>, kept: usize) {
    let mut platter = platter.lock();
    let unsynced = std::mem::take(&mut platter.unsynced);
    platter.synced.extend(unsynced.into_iter().take(kept));
}

fn request(round: u64) -> Request {
    // Some events repeat, within a request and across requests.
    let digests = (0..=round % 5).map(|i| Digest::of_event(&[(round % 7) as u8, (i % 3) as u8])).collect();
    Request { digests, if_absent: round % 4 == 3 }
}

fn require_proven(log: &Log, acknowledged: &[Snapshot]) {
    let Some(last) = acknowledged.last() else { return };
    let current = log.snapshot(log.len() - 1).unwrap();
    for snapshot in acknowledged {
        assert_eq!(log.snapshot(snapshot.version).unwrap(), *snapshot);
        let proof = log.prove_incremental(snapshot.version, current.version).unwrap();
        verify_incremental(&proof, &snapshot.history_root(), &current.history_root()).unwrap();
        let asked = Some(snapshot.version);
        let Answer::Member(proof) = log.prove(&snapshot.event_digest, asked).unwrap() else {
            panic!("{last:?} was acknowledged but is absent")
        };
        let history = [snapshot.history_root(), current.history_root()];
        verify_membership(&snapshot.event_digest, &proof, asked, &current.hyper_root(), &history).unwrap();
    }
}

#[test]
fn nothing_acknowledged_is_lost_whenever_the_power_goes() {
    for steps in 0..60 {
        for kept in 0..2 {
            let platter = Arc::default();
            let log = Log::over(Box::new(Unreliable::over(&platter, steps))).unwrap();
            let mut acknowledged: Vec<Snapshot> = Vec::new();
            for round in 0..100 {
                let Ok(added) = log.append(&[request(round), request(round + 2)]) else { break };
                acknowledged.extend(added.into_iter().flat_map(|Added { snapshots, .. }| snapshots));
            }
            let refused = log.append(&[request(0)]).unwrap_err();
            assert!(matches!(refused, LogError::WriteRefused { .. }), "{steps}: {refused}");
            assert!(refused.to_string().ends_with("fix the cause, then open the log again"), "{steps}: {refused}");
            // Everything acknowledged is still answered for, and the failed batch is not.
            assert_eq!(log.len(), acknowledged.iter().map(|s| s.version + 1).max().unwrap_or(0));
            require_proven(&log, &acknowledged);
            drop(log);
            cut(&platter, kept);
            let reopened = Log::over(Box::new(Unreliable::over(&platter, usize::MAX))).unwrap();
            require_proven(&reopened, &acknowledged);
            reopened.append(&[request(1)]).unwrap();
            assert!(reopened.check(&mut |_| ControlFlow::<()>::Continue(())).unwrap().is_continue());
        }
    }
}

#[test]
fn a_log_that_lost_its_end_is_refused() {
    let platter = Arc::default();
    let log = Log::over(Box::new(Unreliable::over(&platter, usize::MAX))).unwrap();
    for round in 0..9 {
        log.append(&[request(round)]).unwrap();
    }
    drop(log);
    platter.lock().synced.pop();
    let reopened = Log::over(Box::new(Unreliable::over(&platter, usize::MAX)));
    assert!(matches!(reopened, Err(LogError::Corrupt(text)) if text.contains("were acknowledged")));
}

#[test]
fn a_request_whose_old_snapshot_cannot_be_read_adds_nothing() {
    let platter = Arc::default();
    let log = Log::over(Box::new(Unreliable::over(&platter, usize::MAX))).unwrap();
    let [old, new] = [b"old", b"new"].map(|event| Digest::of_event(event));
    log.append(&[Request { digests: vec![old], if_absent: false }]).unwrap();
    drop(log);
    let store = Unreliable { unreadable: Some(Table::Roots), ..Unreliable::over(&platter, usize::MAX) };
    let log = Log::over(Box::new(store)).unwrap();
    let mixed = log.append(&[Request { digests: vec![old, new], if_absent: true }]);
    assert!(matches!(mixed, Err(LogError::Store { .. })), "{mixed:?}");
    assert_eq!(log.len(), 1);
    // Nothing was written, so the log still accepts writes.
    assert_eq!(log.append(&[Request { digests: vec![new], if_absent: true }]).unwrap()[0].snapshots[0].version, 1);
    drop(log);
    let reopened = Log::over(Box::new(Unreliable::over(&platter, usize::MAX))).unwrap();
    assert_eq!(reopened.len(), 2);
}

#[test]
fn a_surplus_repeat_is_found() {
    let event = Digest::of_event(b"a");
    let request = || Request { digests: vec![event], if_absent: false };
    // No root depends on these rows: version 0 is hidden by version 1 of its own batch, and version 2 does not exist.
    for surplus in [0_u64, 2] {
        let platter = Arc::default();
        let log = Log::over(Box::new(Unreliable::over(&platter, usize::MAX))).unwrap();
        log.append(&[request(), request()]).unwrap();
        assert!(log.check(&mut |_| ControlFlow::<()>::Continue(())).unwrap().is_continue());
        drop(log);
        let store = Unreliable::over(&platter, usize::MAX);
        let mut batch = WriteBatch::default();
        batch.put(Table::Repeats, surplus.to_be_bytes(), []);
        store.write(batch).unwrap();
        let log = Log::over(Box::new(store)).unwrap();
        assert!(
            matches!(log.check(&mut |_| ControlFlow::<()>::Continue(())), Err(LogError::Corrupt(_))),
            "version {surplus}"
        );
    }
}

#[test]
fn a_changed_or_missing_row_is_found() {
    let build = || {
        let platter: Arc<Mutex<Platter>> = Arc::default();
        let log = Log::over(Box::new(Unreliable::over(&platter, usize::MAX))).unwrap();
        for round in 0..60 {
            log.append(&[request(round)]).unwrap();
        }
        platter
    };
    let tables = [Table::Digests, Table::Roots, Table::Occurrences, Table::Repeats];
    for (table, seen_at_open) in tables.into_iter().zip([true, false, true, false]) {
        let store = Unreliable::over(&build(), usize::MAX);
        let (key, value) = store.first_in(table, &[], &[0xff; 40]).unwrap().unwrap();
        let mut batch = WriteBatch::default();
        if value.is_empty() {
            // An invalid occurrence: the first event's, at version 0, where no later occurrence hides it.
            let mut other = key;
            let at = other.len() - 8;
            other[at..].fill(0);
            batch.put(table, other, []);
        } else {
            let mut other = value;
            other[0] ^= 1;
            batch.put(table, key, other);
        }
        store.write(batch).unwrap();
        match Log::over(Box::new(store)) {
            Err(LogError::Corrupt(_)) => {}
            Ok(log) if !seen_at_open => {
                assert!(
                    matches!(log.check(&mut |_| ControlFlow::<()>::Continue(())), Err(LogError::Corrupt(_))),
                    "{table:?}"
                );
            }
            other => panic!("{table:?}: {other:?}"),
        }
    }
}
