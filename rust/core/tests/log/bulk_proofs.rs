//! Bulk proofs: they show of each key what a proof for it alone shows, and nothing else is ever accepted.
//!
//! The events of each log share many bits, so that paths meet, end at neighbours and are up to 256 levels long.

use proptest::collection::vec;
use proptest::prelude::*;
use qed_core::bulk_proof::{BulkKeys, BulkProof, End, KeyEnd};
use qed_core::bulk_verify::{Shown, verify_bulk_proof};
use qed_core::hash::{Digest, hyper_default};
use qed_core::log::{Log, Request};
use qed_core::proof::{Answer, Snapshot};
use qed_core::verify::{verify_absence, verify_membership};

use crate::seeds;

/// One of 4,096 events: those of one family share 20, 24, 25, 30, 200 or 255 bits.
fn event(number: u16) -> Digest {
    let mut bytes = *Digest::of_event(&(number % 512).to_be_bytes()).as_bytes();
    let flipped = [None, Some(20_usize), Some(24), Some(25), Some(30), Some(200), Some(255), Some(254)];
    if let Some(bit) = flipped[usize::from(number / 512) % 8] {
        bytes[bit / 8] ^= 0x80 >> (bit % 8);
    }
    Digest::new(bytes)
}

#[derive(Debug)]
struct World {
    log: Log,
    last: Snapshot,
    keys: BulkKeys,
    proof: BulkProof,
}

impl World {
    fn new(batches: &[Vec<u16>], asked: &[u16]) -> Self {
        let log = Log::in_memory().unwrap();
        for batch in batches {
            log.append(&[Request { digests: batch.iter().copied().map(event).collect(), if_absent: false }]).unwrap();
        }
        let last = log.snapshot(log.len() - 1).unwrap();
        let mut asked: Vec<_> = asked.iter().copied().map(event).collect();
        asked.sort_unstable();
        asked.dedup();
        let keys = BulkKeys::new(asked).unwrap();
        let proof = log.prove_bulk(&keys).unwrap();
        Self { log, last, keys, proof }
    }

    fn verified(&self, keys: &BulkKeys, proof: &BulkProof) -> Option<Vec<Shown>> {
        verify_bulk_proof(keys, proof, &self.last.hyper_root(), Some(&self.last.history_root())).ok()
    }

    /// Return what proofs for keys alone show.
    fn alone(&self, keys: &BulkKeys) -> Vec<Shown> {
        let (hyper, history) = (self.last.hyper_root(), [self.last.history_root()]);
        let shown = |key| match self.log.prove(key, None).unwrap() {
            Answer::Member(proof) => Shown::Present(verify_membership(key, &proof, None, &hyper, &history).unwrap()),
            Answer::Absent(proof) => Shown::Absent(verify_absence(key, &proof, None, &hyper, &history).unwrap()),
        };
        keys.as_slice().iter().map(shown).collect()
    }
}

fn batches() -> impl Strategy<Value = Vec<Vec<u16>>> {
    vec(vec(0_u16..4096, 1..40), 1..8)
}

/// Every change of one thing in a proof.
fn changes(proof: &BulkProof) -> Vec<BulkProof> {
    let mut changed = Vec::new();
    let mut change = |edit: &dyn Fn(&mut BulkProof)| {
        let mut other = proof.clone();
        edit(&mut other);
        changed.push(other);
    };
    let other = Digest::of_event(b"another");
    for i in 0..proof.hyper.len() {
        change(&|proof| proof.hyper[i] = if proof.hyper[i].is_some() { None } else { Some(other) });
        change(&|proof| proof.hyper[i] = Some(other));
        change(&|proof| _ = proof.hyper.remove(i));
        change(&|proof| proof.hyper.insert(i, proof.hyper[i]));
        if i > 0 && proof.hyper[i] != proof.hyper[i - 1] {
            change(&|proof| proof.hyper.swap(i - 1, i));
        }
        // An empty subtree whose hash is written out would be a second form of the same proof.
        for height in (0..256).filter(|_| proof.hyper[i].is_none()) {
            change(&|proof| proof.hyper[i] = Some(hyper_default(height)));
        }
    }
    for i in 0..proof.history.len() {
        change(&|proof| proof.history[i] = other);
        change(&|proof| _ = proof.history.remove(i));
        change(&|proof| proof.history.insert(i, proof.history[i]));
        if i > 0 {
            change(&|proof| proof.history.swap(i - 1, i));
        }
    }
    change(&|proof| proof.hyper.push(None));
    change(&|proof| proof.hyper.push(Some(other)));
    change(&|proof| proof.history.push(other));
    change(&|proof| proof.current_version += 1);
    change(&|proof| proof.current_version = proof.current_version.wrapping_sub(1));
    change(&|proof| _ = proof.ends.pop());
    change(&|proof| proof.ends.push(proof.ends[0]));
    for i in 0..proof.ends.len() {
        let KeyEnd { depth, end } = proof.ends[i];
        for depth in [depth - 1, depth + 1, 0, 1, 24, 256, 257].into_iter().filter(|other| *other != depth) {
            change(&|proof| proof.ends[i].depth = depth);
        }
        let version = end.version().unwrap_or(0);
        let ends = [version, version + 1, version.wrapping_sub(1)].into_iter().flat_map(|version| {
            let neighbour = |key_digest| End::Neighbour { key_digest, version };
            [End::Present { version }, End::Empty, neighbour(other), neighbour(event(0))]
        });
        for end in ends.filter(|other| *other != end) {
            change(&|proof| proof.ends[i].end = end);
        }
    }
    changed
}

proptest! {
    #![proptest_config(seeds::searching(200))]

    #[test]
    fn it_shows_of_each_key_what_a_proof_for_it_alone_shows(batches in batches(), asked in vec(0_u16..4096, 1..300)) {
        let world = World::new(&batches, &asked);
        prop_assert_eq!(world.verified(&world.keys, &world.proof), Some(world.alone(&world.keys)));
    }

    #[test]
    fn both_forms_come_back_as_they_were(batches in batches(), asked in vec(0_u16..4096, 1..300)) {
        let world = World::new(&batches, &asked);
        prop_assert_eq!(BulkProof::from_bytes(&world.proof.to_bytes()), Ok(world.proof.clone()));
        prop_assert_eq!(BulkProof::from_json(world.proof.to_json().as_bytes()), Ok(world.proof));
    }

    #[test]
    fn any_bytes_are_read_or_refused(mut bytes in vec(any::<u8>(), 0..400)) {
        for kind in [false, true] {
            if kind && bytes.len() > 1 {
                (bytes[0], bytes[1]) = (2, 4);
            }
            if let Ok(proof) = BulkProof::from_bytes(&bytes) {
                prop_assert_eq!(proof.to_bytes(), bytes.clone());
            }
            let _ = BulkProof::from_json(&bytes);
        }
    }
}

proptest! {
    #![proptest_config(seeds::searching(12))]

    #[test]
    fn no_changed_proof_is_accepted(batches in vec(vec(0_u16..4096, 1..12), 1..5), asked in vec(0_u16..4096, 1..8)) {
        // Half of the events asked for are in the log.
        let known = batches.iter().flatten().copied().step_by(3);
        let world = World::new(&batches, &known.chain(asked).collect::<Vec<_>>());
        for changed in changes(&world.proof) {
            if changed != world.proof {
                prop_assert_eq!(world.verified(&world.keys, &changed), None, "{:?}", changed);
            }
        }
    }

    #[test]
    fn no_bit_of_the_compact_form_can_be_flipped(
        batches in vec(vec(0_u16..4096, 1..6), 1..4),
        asked in vec(0_u16..4096, 1..4),
    ) {
        let world = World::new(&batches, &asked.into_iter().chain(batches[0].first().copied()).collect::<Vec<_>>());
        let honest = world.proof.to_bytes();
        for bit in 0..honest.len() * 8 {
            let mut flipped = honest.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let proof = BulkProof::from_bytes(&flipped);
            let verified = proof.ok().and_then(|proof| world.verified(&world.keys, &proof));
            prop_assert_eq!(verified, None, "bit {}", bit);
        }
    }

    #[test]
    fn it_is_not_accepted_for_other_keys_or_roots(
        batches in batches(),
        asked in vec(0_u16..4096, 2..30),
        other in 0_u16..4096,
    ) {
        let world = World::new(&batches, &asked);
        let keys = world.keys.as_slice();
        let other = event(other);
        for i in 0..keys.len() {
            let replaced: Vec<_> = keys.iter().enumerate().map(|(j, key)| if i == j { other } else { *key }).collect();
            let Ok(replaced) = BulkKeys::new(replaced) else { continue };
            // An empty subtree, or the leaf of another event, may be the end of the other key's path, too. Then it is absent, and the
            // proof says so of it.
            if let Some(shown) = world.verified(&replaced, &world.proof) {
                prop_assert_eq!(shown, world.alone(&replaced));
            }
        }
        let (hyper, history) = (world.last.hyper_root(), world.last.history_root());
        let (mut version, mut digest) = (hyper, hyper);
        version.version += 1;
        digest.digest = other;
        for wrong in [version, digest] {
            prop_assert!(verify_bulk_proof(&world.keys, &world.proof, &wrong, Some(&history)).is_err());
        }
        if world.proof.ends.iter().any(|end| end.end != End::Empty) {
            let (mut version, mut digest) = (history, history);
            version.version += 1;
            digest.digest = other;
            for wrong in [None, Some(&version), Some(&digest)] {
                prop_assert!(verify_bulk_proof(&world.keys, &world.proof, &hyper, wrong).is_err());
            }
        }
    }
}

#[test]
fn a_log_without_events_proves_nothing() {
    let keys = BulkKeys::new(vec![event(1)]).unwrap();
    assert!(Log::in_memory().unwrap().prove_bulk(&keys).is_err());
}

#[test]
fn two_events_are_never_at_one_version() {
    // Of two keys that share 200 bits, a leaf at depth 24 may belong to either, so only the history tree tells them apart.
    let world = World::new(&[vec![7]], &[7, 7 + 5 * 512]);
    let mut both = world.proof.clone();
    for end in &mut both.ends {
        assert_eq!(end.depth, 24);
        end.end = End::Present { version: 0 };
    }
    let refused = verify_bulk_proof(&world.keys, &both, &world.last.hyper_root(), Some(&world.last.history_root()));
    assert_eq!(refused.unwrap_err().check, "events");
}

#[test]
fn a_thousand_keys_are_proven_at_once_and_share_their_paths() {
    let log = Log::in_memory().unwrap();
    let digests: Vec<_> = (0..5_000_u16).map(|i| Digest::of_event(&i.to_be_bytes())).collect();
    log.append(&[Request { digests: digests.clone(), if_absent: false }]).unwrap();
    let last = log.snapshot(4_999).unwrap();
    for count in [1, 2, 3, 999, 1_000] {
        let keys = BulkKeys::new(digests[digests.len() - count..].to_vec()).unwrap();
        let proof = log.prove_bulk(&keys).unwrap();
        let shown = verify_bulk_proof(&keys, &proof, &last.hyper_root(), Some(&last.history_root())).unwrap();
        assert!(shown.iter().all(|shown| matches!(shown, Shown::Present(present) if present.as_of == 4_999)));
        // Their versions are consecutive, so hardly any hash of the history tree is beside their paths.
        assert!(proof.history.len() <= 24, "{}", proof.history.len());
    }
}
