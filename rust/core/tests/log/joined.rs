//! Requests that were combined into one commit batch: each gets its own answer.

use qed_core::hash::Digest;
use qed_core::log::{Added, Log, Request};
use qed_core::log_id::LogId;

fn request(events: &[&str], if_absent: bool) -> Request {
    Request { digests: events.iter().map(|event| Digest::of_event(event.as_bytes())).collect(), if_absent }
}

fn versions(added: &Added) -> Vec<u64> {
    added.snapshots.iter().map(|snapshot| snapshot.version).collect()
}

#[test]
fn a_request_that_placed_nothing_is_not_new_though_its_batch_is() {
    let log = Log::in_memory().unwrap();
    let added = log.append(&[request(&["a"], true), request(&["a", "a"], true), request(&["a", "b"], true)]).unwrap();
    let outcomes: Vec<_> = added.iter().map(|added| (versions(added), added.added.clone())).collect();
    assert_eq!(outcomes, [(vec![0], 0..1), (vec![0, 0], 1..1), (vec![0, 1], 1..2)]);
}

#[test]
fn the_first_occurrence_in_a_batch_answers_for_an_event_added_again_in_it() {
    let log = Log::in_memory().unwrap();
    let added = log
        .append(&[request(&["a", "a"], false), request(&["a"], false), request(&["b"], false), request(&["a"], true)])
        .unwrap();
    assert_eq!((versions(&added[3]), added[3].added.clone()), (vec![0], 4..4));
}

#[test]
fn an_entry_applied_silently_leaves_the_same_log() {
    let (log, silent) = (Log::in_memory().unwrap(), Log::in_memory().unwrap());
    for (index, if_absent) in [(1, false), (2, true)] {
        let (log_id, requests) = (LogId { index, term: 1 }, [request(&["a"], if_absent)]);
        log.apply(log_id, &requests).unwrap();
        silent.apply_silently(log_id, &requests).unwrap();
        assert_eq!(silent.applied(), log.applied());
        assert_eq!(silent.extent_at(1).unwrap(), log.extent_at(1).unwrap());
    }
    assert_eq!(silent.len(), 1);
}
