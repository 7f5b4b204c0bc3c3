//! After a panic interrupts a batch, no more batches are written until the log is opened again.

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use qed_core::error::LogError;
use qed_core::hash::Digest;
use qed_core::log::{Log, Request};
use qed_core::store::{MemoryStore, Row, Store, Table, Visit, WriteBatch};

/// A store in memory whose next sync can be made to panic.
#[derive(Clone, Default)]
struct Panicking(Arc<(MemoryStore, AtomicBool)>);

impl Store for Panicking {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, LogError> {
        self.0.0.get(table, key)
    }

    fn first_in(&self, table: Table, from: &[u8], to: &[u8]) -> Result<Option<Row>, LogError> {
        self.0.0.first_in(table, from, to)
    }

    fn last_in(&self, table: Table, from: &[u8], to: &[u8]) -> Result<Option<Row>, LogError> {
        self.0.0.last_in(table, from, to)
    }

    fn scan(&self, table: Table, from: &[u8], visit: &mut Visit<'_>) -> Result<(), LogError> {
        self.0.0.scan(table, from, visit)
    }

    fn write(&self, batch: WriteBatch) -> Result<(), LogError> {
        self.0.0.write(batch)
    }

    fn sync(&self) -> Result<(), LogError> {
        assert!(!self.0.1.swap(false, Ordering::Relaxed), "the panic that this test planned");
        Ok(())
    }

    fn note_durable(&self, len: u64) -> Result<(), LogError> {
        self.0.0.note_durable(len)
    }

    fn noted_durable(&self) -> u64 {
        self.0.0.noted_durable()
    }
}

fn request(event: &[u8]) -> [Request; 1] {
    [Request { digests: vec![Digest::of_event(event)], if_absent: false }]
}

#[test]
fn nothing_is_written_after_a_panic_between_rows_and_trees() {
    let store = Panicking::default();
    let log = Log::over(Box::new(store.clone())).unwrap();
    log.append(&request(b"first")).unwrap();
    store.0.1.store(true, Ordering::Relaxed);
    catch_unwind(AssertUnwindSafe(|| log.append(&request(b"second")))).unwrap_err();
    // The rows of the interrupted batch are stored, but the trees do not contain it: another batch would get the same versions.
    assert!(matches!(log.append(&request(b"third")), Err(LogError::WriteRefused { .. })));
    assert_eq!(log.len(), 1);
    let again = Log::over(Box::new(store)).unwrap();
    assert_eq!(again.len(), 2);
    again.append(&request(b"third")).unwrap();
    assert!(again.check(&mut |_| ControlFlow::<()>::Continue(())).unwrap().is_continue());
}
