//! A reopened log is equal to the log that was closed.

use proptest::prelude::*;
use qed_core::error::LogError;
use qed_core::hash::Digest;
use qed_core::log::{Log, Request};
use qed_core::store::{MemoryStore, Store as _, Table, WriteBatch};
use std::ops::ControlFlow;

use crate::seeds;

/// Only a few different events, so that many repeat: in the same request, in the same batch and later.
fn request() -> impl Strategy<Value = Request> {
    let event = (0_u8..60).prop_map(|event| Digest::of_event(&[event]));
    (prop::collection::vec(event, 1..40), any::<bool>()).prop_map(|(digests, if_absent)| Request { digests, if_absent })
}

fn batches() -> impl Strategy<Value = Vec<Vec<Request>>> {
    prop::collection::vec(prop::collection::vec(request(), 1..4), 0..7)
}

proptest! {
    #![proptest_config(seeds::searching(30))]

    #[test]
    fn an_opened_log_answers_and_grows_as_the_one_that_was_closed(before in batches(), after in batches()) {
        let folder = tempfile::tempdir().unwrap();
        let stays = Log::in_memory().unwrap();
        let opened = Log::open(folder.path()).unwrap();
        for batch in &before {
            prop_assert_eq!(opened.append(batch).unwrap(), stays.append(batch).unwrap());
        }
        drop(opened);
        let opened = Log::open(folder.path()).unwrap();
        prop_assert_eq!(opened.len(), stays.len());
        if !stays.is_empty() {
            for event in 0..60_u8 {
                let digest = Digest::of_event(&[event]);
                prop_assert_eq!(opened.prove(&digest, None).unwrap(), stays.prove(&digest, None).unwrap());
            }
        }
        for batch in &after {
            prop_assert_eq!(opened.append(batch).unwrap(), stays.append(batch).unwrap());
        }
        assert!(opened.check(&mut |_| ControlFlow::<()>::Continue(())).unwrap().is_continue());
    }
}

#[test]
fn a_check_that_is_broken_off_says_what_with() {
    let log = Log::in_memory().unwrap();
    for event in 0..5_u8 {
        log.append(&[Request { digests: vec![Digest::of_event(&[event])], if_absent: false }]).unwrap();
    }
    let checked = log.check(&mut |len| if len == 3 { ControlFlow::Break("enough") } else { ControlFlow::Continue(()) });
    assert_eq!(checked.unwrap(), ControlFlow::Break("enough"));
}

#[test]
fn a_log_whose_roots_do_not_end_with_its_events_says_where_they_end() {
    let damage = |rows: &[(Table, u64, usize)]| {
        let (store, mut batch) = (MemoryStore::new(), WriteBatch::default());
        for &(table, number, len) in rows {
            batch.put(table, number.to_be_bytes(), vec![0; len]);
        }
        store.write(batch).unwrap();
        match Log::over(Box::new(store)) {
            Err(LogError::Corrupt(reason)) => reason,
            other => format!("expected a damaged log, found {other:?}"),
        }
    };
    let events = (Table::Digests, 0, 2 * 32);
    assert_eq!(damage(&[events]), "it holds 2 events, but has no root");
    assert_eq!(damage(&[events, (Table::Roots, 3, 32)]), "it holds 2 events, but its last root is of version 3");
    assert_eq!(damage(&[(Table::Roots, 3, 32)]), "it holds 0 events, but its last root is of version 3");
}
