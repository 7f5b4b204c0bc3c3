//! Hyper trees that no honest log has: even with a forged tree, a server cannot show an event to be both present and absent.
//!
//! Each world is a short log of events whose digests share at least 24 bits, with its honest history roots and a hyper root over a
//! leaf of any version, or over an empty subtree. In each world every well-formed claim about every event is tried, at every
//! requested version. `QED_TRIES` sets the number of claims; a long run uses a million.

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use qed_core::bulk_proof::{BulkKeys, BulkProof, End, KeyEnd, history_siblings};
use qed_core::bulk_verify::{Shown, verify_bulk_proof};
use qed_core::hash::{Digest, history_inner, history_leaf, history_partial, hyper_default, hyper_inner, hyper_leaf};
use qed_core::position::{HistoryPosition, HyperPosition};
use qed_core::proof::{AbsenceProof, LaterOccurrence, MembershipProof, Neighbour, membership_positions};
use qed_core::roots::{HistoryRoot, HyperRoot};
use qed_core::verify::{verify_absence, verify_membership};

use crate::seeds;

/// Events that share 24, 25, 30 and 200 bits with the first: a shortcut leaf may belong to any of several of them.
fn keys() -> Vec<Digest> {
    let first = *Digest::of_event(b"first").as_bytes();
    let diverged = [24_usize, 25, 30, 200].map(|bit| {
        let mut bytes = first;
        bytes[bit / 8] ^= 0x80 >> (bit % 8);
        Digest::new(bytes)
    });
    [vec![Digest::new(first)], diverged.to_vec()].concat()
}

#[derive(Debug)]
struct World {
    /// The events of the log, by version.
    log: Vec<Digest>,
    /// Siblings of the dishonest path, root down.
    path: Vec<Digest>,
    hyper: HyperRoot,
    history: Vec<HistoryRoot>,
}

impl World {
    fn new(log: Vec<Digest>, depth: u16, leaf: Option<u64>, empty: &[bool]) -> Self {
        let sibling = |d: u16| {
            if empty[usize::from(d) % empty.len()] {
                hyper_default(256 - d)
            } else {
                Digest::of_event(&d.to_be_bytes())
            }
        };
        let path: Vec<_> = (1..=depth).map(sibling).collect();
        // All keys share the whole path, so any of them leads to the same root.
        let key = keys()[0];
        let end = leaf.map_or(hyper_default(256 - depth), |version| {
            hyper_leaf(version, &HyperPosition::on_path(&key, depth).to_bytes())
        });
        let digest = (1..=depth).rev().zip(path.iter().rev()).fold(end, |below, (d, sibling)| {
            let (left, right) = if key.bit(d - 1) { (sibling, &below) } else { (&below, sibling) };
            hyper_inner(left, right, &HyperPosition::on_path(&key, d - 1).to_bytes())
        });
        let history = (0..log.len() as u64)
            .map(|version| HistoryRoot { version, digest: node(&log, HistoryPosition::root(version), version) })
            .collect();
        let hyper = HyperRoot { version: log.len() as u64 - 1, digest };
        Self { log, path, hyper, history }
    }

    fn history_path(&self, actual: u64, query: u64) -> Vec<Digest> {
        membership_positions(actual, query).into_iter().map(|position| node(&self.log, position, query)).collect()
    }

    fn memberships(&self, key: Digest, query: u64) -> Vec<MembershipProof> {
        let current = self.hyper.version;
        let later = |version| LaterOccurrence { version, history_path: self.history_path(version, current) };
        let laters = || std::iter::once(None).chain((query + 1..=current).map(later).map(Some));
        let proof = |actual: u64, later| MembershipProof {
            key_digest: key,
            current_version: current,
            query_version: query,
            actual_version: actual,
            hyper_path: self.path.clone(),
            history_path: self.history_path(actual, query),
            later,
        };
        (0..=query).flat_map(|actual| laters().map(move |later| proof(actual, later))).collect()
    }

    fn absences(&self, key: Digest, query: u64) -> Vec<AbsenceProof> {
        let current = self.hyper.version;
        let others = (0..=current)
            .flat_map(|version| keys().into_iter().map(move |key_digest| (key_digest, version)).collect::<Vec<_>>());
        let neighbours = others.map(|(key_digest, version)| {
            Some(Neighbour { key_digest, version, history_path: self.history_path(version, current) })
        });
        let proof = |neighbour| AbsenceProof {
            key_digest: key,
            current_version: current,
            query_version: query,
            hyper_path: self.path.clone(),
            neighbour,
        };
        std::iter::once(None).chain(neighbours).map(proof).collect()
    }
}

/// The hash of a node in the history tree at a version, by its definition.
fn node(log: &[Digest], position: HistoryPosition, version: u64) -> Digest {
    let Some((left, right)) = position.children() else {
        return history_leaf(&log[usize::try_from(position.index).unwrap()], &position.to_bytes());
    };
    let left = node(log, left, version);
    if right.index > version {
        return history_partial(&left, &position.to_bytes());
    }
    history_inner(&left, &node(log, right, version), &position.to_bytes())
}

fn worlds() -> impl Strategy<Value = World> {
    let log = proptest::collection::vec(proptest::sample::select(keys()), 1..7);
    let leaf = proptest::option::weighted(0.9, 0..8_u64);
    (log, leaf, proptest::collection::vec(any::<bool>(), 24))
        .prop_map(|(log, leaf, empty)| World::new(log, 24, leaf, &empty))
}

#[test]
fn no_question_is_answered_both_ways() {
    let tries: usize = std::env::var("QED_TRIES").map_or(50_000, |text| text.parse().expect("a number of tries"));
    let mut runner = TestRunner::new(seeds::searching(1));
    let (mut claims, mut present, mut absent, mut traps) = (0, 0, 0, 0);
    while claims < tries {
        let world = worlds().new_tree(&mut runner).unwrap().current();
        for key in keys() {
            for query in 0..=world.hyper.version {
                let (hyper, history, asked) = (&world.hyper, &world.history, Some(query));
                let memberships = world.memberships(key, query);
                let absences = world.absences(key, query);
                claims += memberships.len() + absences.len();
                let shown =
                    memberships.iter().filter(|proof| verify_membership(&key, proof, asked, hyper, history).is_ok());
                let denied = absences.iter().filter(|proof| verify_absence(&key, proof, asked, hyper, history).is_ok());
                let (shown, denied) = (shown.count(), denied.count());
                assert!(shown == 0 || denied == 0, "{key} at {query} both ways in {world:?}");
                present += shown;
                absent += denied;
                // Here the event is in the history, the hyper tree leads to the version of a different event, and an absence proof
                // verifies. Only because a later occurrence needs its own history path does no membership proof of the older
                // occurrence verify as well.
                let stands = world.log[..=usize::try_from(query).unwrap()].contains(&key);
                traps += usize::from(stands && denied > 0);
            }
        }
    }
    println!("{claims} claims, {present} shown present, {absent} absent, {traps} traps");
    assert!(present > 0 && absent > 0 && traps > 0, "the worlds were too tame to show anything");
}

/// Everything that may be claimed of the end of a path: a world has at most 37 such ends.
fn ends(world: &World) -> Vec<End> {
    let versions = 0..=world.hyper.version;
    let neighbours = versions.clone().flat_map(|version| {
        keys().into_iter().map(move |key_digest| End::Neighbour { key_digest, version }).collect::<Vec<_>>()
    });
    std::iter::once(End::Empty).chain(versions.map(|version| End::Present { version })).chain(neighbours).collect()
}

#[test]
fn what_a_bulk_shows_of_a_key_a_proof_of_it_alone_shows() {
    let mut runner = TestRunner::new(seeds::searching(1));
    let (mut present, mut absent) = (0, 0);
    for _ in 0..12 {
        let world = worlds().new_tree(&mut runner).unwrap().current();
        let (hyper, current) = (&world.hyper, world.hyper.version);
        let root = *world.history.last().unwrap();
        // All keys share the path, and its siblings are in order from left to right.
        let side = |is_right: bool| {
            let beside = (1_u16..).zip(&world.path).filter(move |(depth, _)| keys()[0].bit(depth - 1) == is_right);
            beside.map(|(depth, hash)| (*hash != hyper_default(256 - depth)).then_some(*hash)).collect::<Vec<_>>()
        };
        let siblings: Vec<_> = side(true).into_iter().chain(side(false).into_iter().rev()).collect();
        for (first, second) in keys().into_iter().flat_map(|key| keys().into_iter().map(move |other| (key, other))) {
            let Ok(asked) = BulkKeys::new(vec![first, second]) else { continue };
            for (one, other) in ends(&world).into_iter().flat_map(|end| ends(&world).into_iter().map(move |o| (end, o)))
            {
                let ends = [one, other].map(|end| KeyEnd { depth: 24, end }).to_vec();
                let mut proof = BulkProof { current_version: current, ends, hyper: siblings.clone(), history: vec![] };
                let beside = history_siblings(&proof.versions(), current);
                proof.history = beside.into_iter().map(|position| node(&world.log, position, current)).collect();
                let Ok(shown) = verify_bulk_proof(&asked, &proof, hyper, Some(&root)) else { continue };
                for ((key, end), shown) in asked.as_slice().iter().zip([one, other]).zip(shown) {
                    match shown {
                        Shown::Present(found) => {
                            let alone = world.memberships(*key, current).into_iter();
                            let mut alone = alone.filter(|proof| proof.actual_version == found.version);
                            let verifies = |proof| verify_membership(key, &proof, None, hyper, &[root]) == Ok(found);
                            assert!(alone.any(verifies), "{end:?} of {key} in {world:?}");
                            present += 1;
                        }
                        Shown::Absent(found) => {
                            let mut alone = world.absences(*key, current).into_iter();
                            let verifies = |proof| verify_absence(key, &proof, None, hyper, &[root]) == Ok(found);
                            assert!(alone.any(verifies), "{end:?} of {key} in {world:?}");
                            absent += 1;
                        }
                    }
                }
            }
        }
    }
    println!("{present} shown present, {absent} absent");
    assert!(present > 0 && absent > 0, "the worlds were too tame to show anything");
}
