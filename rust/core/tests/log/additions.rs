//! Snapshots that a server acknowledged are checked before they are kept: if they do not extend the trusted log, they are refused.

use qed_core::hash::Digest;
use qed_core::log::{Log, Request};
use qed_core::proof::Snapshot;
use qed_core::verify::{verify_addition, verify_bulk};

fn digests(numbers: std::ops::Range<u64>) -> Vec<Digest> {
    numbers.map(|number| Digest::of_event(&number.to_be_bytes())).collect()
}

fn append(log: &Log, digests: Vec<Digest>) -> Vec<Snapshot> {
    log.append(&[Request { digests, if_absent: false }]).unwrap()[0].snapshots.clone()
}

#[test]
fn every_pair_of_snapshots_of_one_log_belongs_together() {
    let log = Log::in_memory().unwrap();
    let snapshots: Vec<_> = (0..20).flat_map(|number| append(&log, digests(number..number + 1))).collect();
    for trusted in &snapshots {
        for added in &snapshots {
            let (start, end) = (trusted.version.min(added.version), trusted.version.max(added.version));
            let proof = log.prove_incremental(start, end).unwrap();
            verify_addition(&proof, &trusted.history_root(), added).unwrap();
            let other = Snapshot { event_digest: Digest::of_event(b"another"), ..*added };
            assert!(verify_addition(&proof, &trusted.history_root(), &other).is_err(), "another event, {start} {end}");
            let other = Snapshot { history_digest: Digest::of_event(b"another"), ..*added };
            assert!(verify_addition(&proof, &trusted.history_root(), &other).is_err(), "another root, {start} {end}");
        }
    }
}

#[test]
fn a_snapshot_of_a_log_that_was_rewritten_does_not_belong() {
    let (log, other) = (Log::in_memory().unwrap(), Log::in_memory().unwrap());
    let trusted = append(&log, digests(0..5))[4];
    append(&other, digests(100..105));
    let added = append(&other, digests(5..6))[0];
    for made in [&log, &other] {
        append(made, digests(6..9));
        let proof = made.prove_incremental(trusted.version, added.version).unwrap();
        assert!(verify_addition(&proof, &trusted.history_root(), &added).is_err());
    }
}

#[test]
fn every_history_digest_of_a_bulk_is_computed_again() {
    for before in [0, 1, 2, 3, 7, 8, 21] {
        for count in [1, 2, 3, 8, 33] {
            let log = Log::in_memory().unwrap();
            if before > 0 {
                append(&log, digests(0..before));
            }
            let mut bulk = append(&log, digests(before..before + count));
            let proof = log.prove_incremental(before, before + count - 1).unwrap();
            verify_bulk(&proof, &bulk).unwrap();
            for index in 0..bulk.len() {
                let honest = bulk[index];
                for false_one in [
                    Snapshot { history_digest: Digest::of_event(b"another"), ..honest },
                    Snapshot { event_digest: Digest::of_event(b"another"), ..honest },
                    Snapshot { version: honest.version + 1, ..honest },
                ] {
                    bulk[index] = false_one;
                    assert!(verify_bulk(&proof, &bulk).is_err(), "{before} {count} {index}");
                }
                bulk[index] = honest;
            }
        }
    }
}
