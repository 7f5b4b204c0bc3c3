//! Signed bundles: those of a log, what they must have, and every damage.

use std::sync::LazyLock;

use proptest::collection::vec;
use proptest::prelude::*;
use qed_core::entry_prover::EntryProver;
use qed_core::hash::Digest;
use qed_core::log::{Log, Request};
use qed_core::proof::{Answer, Snapshot};
use qed_core::tlog::bundle::{MAX_BUNDLE_BYTES, Saved, SignedBundle};
use qed_core::tlog::checkpoint::Checkpoint;
use qed_core::tlog::claim::{Run, Shown};
use qed_core::tlog::entry::Entry;
use qed_core::tlog::key::KeyKind;
use qed_core::tlog::note::Note;
use qed_core::tlog::signing::SigningKey;
use qed_core::tlog::trust_file::TrustFile;

use crate::edits::{damage, damaged, damaging, lines_of};
use crate::model::{TIME, log_key, signing_key, witness_key};

fn digest(number: u64) -> Digest {
    Digest::of_event(format!("event {number}").as_bytes())
}

struct World {
    log: Log,
    start: u64,
    note: Note,
    trust: TrustFile,
}

impl World {
    /// A log of batches that end at versions 1, 4 and 5. Event 0 is at versions 0 and 3.
    fn new() -> Self {
        Self::of(0, &log_key())
    }

    /// The same with other events, `start` and so on in place of 0 and so on, signed by any key.
    fn of(start: u64, key: &SigningKey) -> Self {
        let log = Log::in_memory().unwrap();
        for batch in [vec![0, 1], vec![2, 0, 3], vec![4]] {
            let digests = batch.into_iter().map(|number| digest(start + number)).collect();
            log.append(&[Request { digests, if_absent: false }]).unwrap();
        }
        let checkpoint = Checkpoint::new(key.verifier().name().clone(), log.tree_head().unwrap());
        let lines = vec![key.sign(&checkpoint, 0).unwrap(), witness_key().sign(&checkpoint, TIME).unwrap()];
        let policy = format!("log {}\nwitness w {}\nquorum w\n", log_key().verifier(), witness_key().verifier());
        let note = Note::new(&checkpoint.to_string(), lines).unwrap();
        Self { log, start, note, trust: TrustFile::parse(policy.as_bytes()).unwrap() }
    }

    fn run(&self, version: u64) -> Run {
        EntryProver::new(&self.log, self.log.len()).unwrap().run(&(version..version + 1)).unwrap()
    }

    fn bundle(&self, saved: Saved, versions: &[u64]) -> SignedBundle {
        let runs = versions.iter().map(|version| self.run(*version)).collect();
        SignedBundle::new(saved, runs, self.note.clone()).unwrap()
    }

    fn membership(&self, event: u64, version: Option<u64>) -> Saved {
        let digest = digest(self.start + event);
        Saved::Membership { digest, version, answer: self.log.prove(&digest, version).unwrap() }
    }

    /// Bundles of every kind, with the versions whose roots they show.
    fn bundles(&self) -> Vec<(SignedBundle, Vec<u64>)> {
        let incremental = Saved::Incremental { start: 1, end: 4, answer: self.log.prove_incremental(1, 4).unwrap() };
        let inclusion = |version, event| Saved::Inclusion { digest: digest(self.start + event), version };
        vec![
            (self.bundle(self.membership(0, None), &[5]), vec![5]),
            (self.bundle(self.membership(0, Some(1)), &[1, 5]), vec![1, 5]),
            (self.bundle(self.membership(9, None), &[5]), vec![5]),
            (self.bundle(incremental, &[1, 4]), vec![1, 4]),
            (self.bundle(inclusion(4, 3), &[4]), vec![4]),
            (self.bundle(inclusion(2, 2), &[2]), Vec::new()),
        ]
    }
}

#[test]
fn bundles_show_the_roots_that_their_answers_rest_on() {
    let world = World::new();
    for (bundle, versions) in world.bundles() {
        let read = SignedBundle::from_json(bundle.to_json().as_bytes()).unwrap();
        assert_eq!(read, bundle);
        let expected: Vec<_> = versions.iter().map(|version| world.log.snapshot(*version).unwrap()).collect();
        let shown = read.verify(&world.trust, TIME).unwrap();
        assert_eq!((shown.snapshots(), read.snapshots()), (expected.clone(), expected.as_slice()));
        let proof = read.to_proof().unwrap();
        assert_eq!(
            proof.verify_entry(None, &world.trust, TIME).unwrap().entries(),
            &shown.entries()[versions.len().max(1) - 1..]
        );
    }
}

#[test]
fn an_answer_rests_on_ends_of_batches_of_its_own_versions() {
    let world = World::new();
    let new = |saved, versions: &[u64]| {
        let runs = versions.iter().map(|version| world.run(*version)).collect();
        SignedBundle::new(saved, runs, world.note.clone())
    };
    for versions in [&[][..], &[1], &[4], &[5, 1], &[1, 5, 5], &[1, 4, 5]] {
        assert!(new(world.membership(0, Some(1)), versions).is_err(), "{versions:?}");
    }
    // Version 2 is inside its batch, so no root is proven for it.
    let inside = Saved::Incremental { start: 2, end: 4, answer: world.log.prove_incremental(2, 4).unwrap() };
    assert!(new(inside, &[2, 4]).is_err());
    let two = Run { entries: world.log.entries(4..6).unwrap(), ..world.run(4) };
    let inclusion = Saved::Inclusion { digest: digest(3), version: 4 };
    assert!(SignedBundle::new(inclusion, vec![two], world.note.clone()).is_err());
}

#[test]
fn an_inclusion_is_of_the_event_in_its_question() {
    let world = World::new();
    let bundle = world.bundle(Saved::Inclusion { digest: digest(7), version: 4 }, &[4]);
    assert_eq!(bundle.verify(&world.trust, TIME).unwrap_err().check, "event digest");
}

#[test]
fn a_bundle_has_its_fields_once_and_no_others() {
    let world = World::new();
    for (bundle, _) in world.bundles() {
        let file = bundle.to_json();
        let changed = |from: &str, to: &str| file.replacen(from, to, 1);
        for (from, to) in [
            ("{\"Format\"", "{\"More\":1,\"Format\""),
            ("{\"Format\"", "{\"Answer\":null,\"Format\""),
            ("\"qed-bundle-2\"", "\"qed-bundle-1\""),
            ("\"Question\":{", "\"Question\":{\"More\":1,"),
            ("\"Kind\":\"i", "\"Kind\":\"other i"),
            ("\"Kind\":\"m", "\"Kind\":\"other m"),
            ("\"Answer\":{", "\"Answer\":{\"More\":1,"),
            ("\"Answer\":{", "\"Answer\":{\"Key\":\"\","),
            ("\"Answer\":null", "\"Answer\":{}"),
            ("\"Snapshots\":[{", "\"Snapshots\":[{\"More\":1,"),
            ("\"Entries\":[{", "\"Entries\":[{\"More\":1,"),
            ("\"Entries\":[", "\"Entries\":[null,"),
            ("\"Checkpoint\":", "\"Retired\":[\"x\"],\"Checkpoint\":"),
            ("\"Checkpoint\":", "\"Retired\":null,\"Checkpoint\":"),
        ] {
            if file.contains(from) {
                let result = SignedBundle::from_json(changed(from, to).as_bytes());
                assert!(result.is_err(), "{from} {to}");
            }
        }
        let hint = changed("\"Checkpoint\":", &format!("\"Retired\":[\"{}\"],\"Checkpoint\":", log_key().verifier()));
        let hint = SignedBundle::from_json(hint.as_bytes()).unwrap();
        assert_eq!(SignedBundle::from_json(hint.to_json().as_bytes()).unwrap(), hint);
        assert!(hint.verify(&world.trust, TIME).is_ok());
        let padded = format!("{file}{}", " ".repeat(MAX_BUNDLE_BYTES));
        assert!(SignedBundle::from_json(padded.as_bytes()).unwrap_err().to_string().contains("at most"));
    }
}

#[test]
fn every_cut_of_a_bundle_is_refused() {
    for (bundle, _) in World::new().bundles() {
        let file = bundle.to_json();
        for length in 0..file.len() {
            assert!(SignedBundle::from_json(&file.as_bytes()[..length]).is_err(), "{length}");
        }
    }
}

/// Each kind of bundle of one log, and what it shows.
static HONEST: LazyLock<(TrustFile, Vec<(SignedBundle, Shown)>)> = LazyLock::new(|| {
    let world = World::new();
    let shown = |(bundle, _): (SignedBundle, _)| {
        let shown = bundle.verify(&world.trust, TIME).unwrap();
        (bundle, shown)
    };
    let honest = world.bundles().into_iter().map(shown).collect();
    (world.trust, honest)
});

/// The same bundles of a log with other events, under a key that nobody trusts.
static FORGED: LazyLock<Vec<SignedBundle>> = LazyLock::new(|| {
    let stranger = signing_key(log_key().verifier().name().as_str(), KeyKind::Ed25519, &"09".repeat(32));
    World::of(10, &stranger).bundles().into_iter().map(|(bundle, _)| bundle).collect()
});

proptest! {
    #![proptest_config(damaging(5_000))]

    #[test]
    fn a_damaged_bundle_shows_no_other_roots(damages in vec(damage(), 1..6), kind in 0_usize..6, donor in 0_usize..12) {
        let (trust, honest) = &*HONEST;
        let donor = if donor < 6 { &honest[donor].0 } else { &FORGED[kind] };
        let [file, other] = [&honest[kind].0, donor].map(|bundle| lines_of(&bundle.to_json()));
        if let Ok(read) = SignedBundle::from_json(&damaged(&file, &other, &damages))
            && let Ok(found) = read.verify(trust, TIME)
        {
            // The question and the answer are not part of the claim: the one who asks compares them.
            prop_assert_eq!(found.endorsed().checkpoint(), honest[0].1.endorsed().checkpoint());
            let all = |entry: &Entry| honest.iter().any(|(_, shown)| shown.entries().contains(entry));
            prop_assert!(found.entries().iter().all(all));
            let all = |snapshot: &Snapshot| honest.iter().any(|(_, shown)| shown.snapshots().contains(snapshot));
            prop_assert!(found.snapshots().iter().all(all));
            if let Saved::Membership { answer: Answer::Member(_), .. } = read.saved() {
                prop_assert_eq!(read.snapshots(), found.snapshots());
            }
        }
    }
}
