//! One suite for every store: it tests what a log relies on.

use std::ops::ControlFlow;

use qed_core::disk::DiskStore;
use qed_core::store::{MemoryStore, Store, Table, WriteBatch};

fn put(store: &dyn Store, table: Table, rows: &[(&[u8], &[u8])]) {
    let mut batch = WriteBatch::default();
    for (key, value) in rows {
        batch.put(table, *key, *value);
    }
    store.write(batch).unwrap();
}

fn rows_are_found_by_key_and_by_range(store: &dyn Store) {
    put(store, Table::Roots, &[(&[1], b"one"), (&[3], b"three"), (&[5], b"five")]);
    put(store, Table::Occurrences, &[(&[2], b"other table")]);
    assert_eq!(store.get(Table::Roots, &[3]).unwrap().as_deref(), Some(b"three".as_slice()));
    assert_eq!(store.get(Table::Roots, &[2]).unwrap(), None);
    let row = |key: u8, value: &[u8]| Some((vec![key], value.to_vec()));
    assert_eq!(store.first_in(Table::Roots, &[2], &[9]).unwrap(), row(3, b"three"));
    assert_eq!(store.first_in(Table::Roots, &[6], &[9]).unwrap(), None);
    assert_eq!(store.last_in(Table::Roots, &[0], &[4]).unwrap(), row(3, b"three"));
    assert_eq!(store.last_in(Table::Roots, &[0], &[0]).unwrap(), None);
    assert_eq!(store.last_in(Table::Repeats, &[0], &[9]).unwrap(), None);
}

fn a_row_put_again_is_replaced(store: &dyn Store) {
    put(store, Table::Digests, &[(&[7], b"old")]);
    put(store, Table::Digests, &[(&[7], b"new")]);
    assert_eq!(store.get(Table::Digests, &[7]).unwrap().as_deref(), Some(b"new".as_slice()));
}

fn a_scan_shows_one_table_in_order_until_it_breaks_or_fails(store: &dyn Store) {
    put(store, Table::Repeats, &[(&[2], &[]), (&[1], &[]), (&[3], &[]), (&[9], &[]), (&[10], &[])]);
    let mut keys = Vec::new();
    store
        .scan(Table::Repeats, &[], &mut |key, _| {
            keys.push(key[0]);
            Ok(if key[0] == 9 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })
        .unwrap();
    assert_eq!(keys, [1, 2, 3, 9]);
    let stop = || qed_core::error::LogError::Corrupt("stop".into());
    assert!(store.scan(Table::Repeats, &[], &mut |_, _| Err(stop())).is_err());
}

fn suite(store: &dyn Store) {
    rows_are_found_by_key_and_by_range(store);
    a_row_put_again_is_replaced(store);
    a_scan_shows_one_table_in_order_until_it_breaks_or_fails(store);
    store.sync().unwrap();
}

#[test]
fn memory() {
    suite(&MemoryStore::new());
}

#[test]
fn disk_also_after_reopening() {
    let folder = tempfile::tempdir().unwrap();
    suite(&DiskStore::open(folder.path()).unwrap());
    let store = DiskStore::open(folder.path()).unwrap();
    assert_eq!(store.get(Table::Digests, &[7]).unwrap().as_deref(), Some(b"new".as_slice()));
    assert_eq!(store.noted_durable(), 0);
    store.note_durable(77).unwrap();
    drop(store);
    assert_eq!(DiskStore::open(folder.path()).unwrap().noted_durable(), 77);
}
