//! Evidence: the recorded files both ways, each verdict, and every damage.

use std::sync::LazyLock;

use proptest::collection::vec;
use proptest::prelude::*;
use qed_core::hash::Digest;
use qed_core::tlog::checkpoint::Checkpoint;
use qed_core::tlog::entry::BatchEnd;
use qed_core::tlog::evidence::{Charge, Evidence, Judgement, Leaf, ProvenLeaf, Replay, Verdict};
use qed_core::tlog::evidence_file::MAX_EVIDENCE_BYTES;
use qed_core::tlog::key::KeyKind;
use qed_core::tlog::merkle::{TreeHead, inclusion};
use qed_core::tlog::note::Note;
use qed_core::tlog::trust_file::TrustFile;
use qed_core::verify::VerifyError;
use serde_json::Value;

use crate::claims;
use crate::edits::{damage, damaged, damaging, lines_of};
use crate::model::{Leaves, VECTORS, hashes, log_key, signing_key, text};

fn trust() -> TrustFile {
    TrustFile::parse(format!("log {}\nquorum none\n", log_key().verifier()).as_bytes()).unwrap()
}

fn recorded(name: &str) -> Evidence {
    Evidence::from_json(VECTORS["own"][name].to_string().as_bytes()).unwrap()
}

fn recorded_note(size: &str) -> Note {
    Note::parse(text(&format!("/own/checkpoints/{size}/note")).as_bytes()).unwrap()
}

fn of(charge: Charge) -> Evidence {
    let key = log_key().verifier().clone();
    Evidence { origin: key.name().clone(), vkeys: vec![key], charge, found_at: None, sources: Vec::new() }
}

fn verdict(charge: Charge) -> Verdict {
    let evidence = of(charge);
    assert_eq!(Evidence::from_json(evidence.to_json().as_bytes()).unwrap(), evidence);
    evidence.judge(&trust()).unwrap().verdict
}

/// Return a leaf of a tree that the log has signed.
fn proven(leaves: &[Vec<u8>], index: u64) -> ProvenLeaf {
    let tree = Leaves(leaves.iter().map(|entry| qed_core::hash::merkle_leaf(entry)).collect());
    let head = TreeHead::new(leaves.len() as u64, tree.root(0, leaves.len())).unwrap();
    let checkpoint = Checkpoint::new(log_key().verifier().name().clone(), head);
    let note = Note::new(&checkpoint.to_string(), vec![log_key().sign(&checkpoint, 0).unwrap()]).unwrap();
    let entry = leaves[usize::try_from(index).unwrap()].clone();
    ProvenLeaf { note, leaf: Leaf::Entry(entry), proof: inclusion(&tree, index, leaves.len() as u64).unwrap() }
}

fn honest_entries() -> Vec<Vec<u8>> {
    (0..claims::SIZE).map(|version| claims::entry(version).to_bytes()).collect()
}

fn on_entry(index: u64, change: impl FnOnce(&mut Vec<Vec<u8>>), replay: Option<Replay>) -> Verdict {
    let mut entries = honest_entries();
    change(&mut entries);
    verdict(Charge::InvalidEntry { index, a: proven(&entries, index), replay })
}

#[test]
fn recorded_evidence_is_read_convicts_and_is_written() {
    for name in ["evidence_same_size", "evidence_same_index"] {
        let evidence = recorded(name);
        assert_eq!(serde_json::from_str::<Value>(&evidence.to_json()).unwrap(), VECTORS["own"][name], "{name}");
        let judgement = evidence.judge(&trust()).unwrap();
        assert_eq!(judgement.verdict, Verdict::Convicted, "{name}");
        let [a, b] = judgement.signed.as_slice() else { panic!("{name}: two checkpoints") };
        assert_eq!(a.keys, [log_key().verifier().clone()]);
        assert_eq!(b.checkpoint.head.size(), 2);
        let roots = [a, b].map(|side| *side.checkpoint.head.root().as_bytes()).concat();
        assert_eq!(evidence.name().unwrap(), Digest::of_event(&roots));
    }
}

#[test]
fn recorded_evidence_is_made_of_its_parts() {
    let fork = Note::parse(text("/own/fork_checkpoint_2").as_bytes()).unwrap();
    let same_size = Charge::SameSize { a: recorded_note("2"), b: fork.clone() };
    assert_eq!(of(same_size), recorded("evidence_same_size"));
    let leaves = Leaves(hashes(&VECTORS["own"]["leaf_hashes"]));
    let leaf = Leaf::Hash(leaves.0[1]);
    let a = ProvenLeaf { note: recorded_note("5"), leaf, proof: inclusion(&leaves, 1, 5).unwrap() };
    let forged = Leaves(vec![leaves.0[0], crate::model::digest_of(text("/own/fork_leaf_1"))]);
    let b = ProvenLeaf { note: fork, leaf: Leaf::Hash(forged.0[1]), proof: inclusion(&forged, 1, 2).unwrap() };
    assert_eq!(of(Charge::SameIndex { index: 1, a, b }), recorded("evidence_same_index"));
}

#[test]
fn consistent_checkpoints_convict_nobody() {
    let (two, five) = (recorded_note("2"), recorded_note("5"));
    let suspicion = |consistency| Charge::Suspicion { a: two.clone(), b: five.clone(), consistency };
    assert_eq!(verdict(suspicion(None)), Verdict::Suspected);
    let mut proof = hashes(&VECTORS["own"]["consistency"]["2 to 5"]);
    assert_eq!(verdict(suspicion(Some(proof.clone()))), Verdict::Innocent);
    assert_eq!(
        verdict(Charge::Suspicion { a: five.clone(), b: two.clone(), consistency: Some(proof.clone()) }),
        Verdict::Innocent
    );
    proof.swap(0, 1);
    assert!(of(suspicion(Some(proof))).judge(&trust()).is_err());
    assert_eq!(verdict(Charge::SameSize { a: two.clone(), b: two.clone() }), Verdict::Innocent);
    assert_eq!(verdict(Charge::Suspicion { a: two.clone(), b: two.clone(), consistency: None }), Verdict::Innocent);
    assert!(of(Charge::SameSize { a: two, b: five }).judge(&trust()).is_err());
    let same = proven(&honest_entries(), 4);
    assert_eq!(verdict(Charge::SameIndex { index: 4, a: same.clone(), b: same }), Verdict::Innocent);
}

#[test]
fn a_fork_never_becomes_a_suspicion_that_convicts() {
    let Charge::SameSize { a, b } = recorded("evidence_same_size").charge else { panic!("the recorded kind") };
    assert_eq!(verdict(Charge::Suspicion { a, b, consistency: None }), Verdict::Suspected);
}

#[test]
fn keys_that_nobody_trusts_convict_nobody() {
    let check =
        |trust: &TrustFile, evidence: &Evidence| evidence.judge(trust).map_err(|VerifyError { check, .. }| check);
    let other = signing_key(log_key().verifier().name().as_str(), KeyKind::Ed25519, &"09".repeat(32));
    let stranger = TrustFile::parse(format!("log {}\nquorum none\n", other.verifier()).as_bytes()).unwrap();
    assert_eq!(check(&stranger, &recorded("evidence_same_size")), Err("unknown key"));
    let mut evidence = recorded("evidence_same_size");
    evidence.vkeys = vec![other.verifier().clone()];
    assert_eq!(check(&trust(), &evidence), Err("unknown key"));
    let mut evidence = recorded("evidence_same_size");
    evidence.origin = qed_core::tlog::text::Name::parse("log.example.com/other").unwrap();
    assert_eq!(check(&trust(), &evidence), Err("unknown key"));
}

#[test]
fn a_retired_key_convicts_at_any_size() {
    let current = signing_key(log_key().verifier().name().as_str(), KeyKind::Ed25519, &"09".repeat(32));
    let retired = format!(
        "{{\"Format\":\"qed-trust-1\",\"Policy\":\"log {}\\nquorum none\\n\",\"Retired\":[{{\"Vkey\":\"{}\",\"MaxSize\":1}}]}}",
        current.verifier(),
        log_key().verifier()
    );
    let trust = TrustFile::parse(retired.as_bytes()).unwrap();
    assert_eq!(recorded("evidence_same_size").judge(&trust).unwrap().verdict, Verdict::Convicted);
}

#[test]
fn an_entry_that_is_wrong_by_itself_convicts() {
    let unchanged = |_: &mut Vec<Vec<u8>>| {};
    assert_eq!(on_entry(4, unchanged, None), Verdict::Innocent);
    assert_eq!(on_entry(4, |entries| entries[4] = entries[3].clone(), None), Verdict::Convicted);
    assert_eq!(on_entry(4, |entries| entries[4][1] |= 4, None), Verdict::Convicted);
    assert_eq!(on_entry(4, |entries| entries[4][0] = 2, None), Verdict::Convicted);
    assert_eq!(on_entry(4, |entries| entries[4][1] |= 1, None), Verdict::Convicted);
    assert_eq!(on_entry(5, |entries| entries[5][1] = 0, None), Verdict::Convicted);
    assert_eq!(on_entry(4, |entries| entries[4].push(0), None), Verdict::Convicted);
    assert_eq!(on_entry(0, |entries| entries[0].clear(), None), Verdict::Convicted);
    // The last entry of the tree ends no batch.
    assert_eq!(on_entry(7, |entries| entries.truncate(8), None), Verdict::Convicted);
    assert_eq!(on_entry(7, unchanged, None), Verdict::Innocent);
}

#[test]
fn an_entry_that_only_a_replay_contradicts_convicts_nobody() {
    let unchanged = |_: &mut Vec<Vec<u8>>| {};
    let end = claims::entry(5).batch_end.unwrap();
    let other = BatchEnd { hyper_digest: end.history_digest, ..end };
    let replay = |expected| Some(Replay { from: 3, to: 5, expected });
    assert_eq!(on_entry(5, unchanged, replay(Some(other))), Verdict::Unreplayed);
    assert_eq!(on_entry(5, unchanged, replay(None)), Verdict::Unreplayed);
    assert_eq!(on_entry(5, unchanged, replay(Some(end))), Verdict::Innocent);
    let hash = ProvenLeaf { leaf: Leaf::Hash(claims::entry(5).leaf()), ..proven(&honest_entries(), 5) };
    assert!(of(Charge::InvalidEntry { index: 5, a: hash, replay: None }).judge(&trust()).is_err());
}

#[test]
fn fields_of_other_kinds_are_refused() {
    let honest = recorded("evidence_same_size").to_json();
    let refused = |old: &str, new: &str| {
        let changed = honest.replacen(old, new, 1);
        assert_ne!(changed, honest);
        assert!(Evidence::from_json(changed.as_bytes()).is_err(), "{new}");
    };
    refused("\"A\":", "\"Index\":1,\"A\":");
    refused("\"A\":", "\"Replay\":[0,1],\"A\":");
    refused("\"A\":", "\"Consistency\":[],\"A\":");
    refused("\"A\":", "\"A\":{},\"A\":");
    refused("\"A\":", "\"More\":1,\"A\":");
    refused("\"B\":{", "\"B\":{\"Proof\":[],");
    refused("same-size", "same-index");
    refused("same-size", "invalid-entry");
    refused("same-size", "fork");
    refused("qed-fork-1", "qed-fork-2");
    refused("\"Origin\":\"", "\"Origin\":\"a b");
    refused("\"Vkeys\":[\"", "\"Vkeys\":[\"x");
    refused("\"A\":", "\"FoundAt\":-1,\"A\":");
    refused("\"A\":", "\"FoundAt\":9223372036854775808,\"A\":");
    let many = format!("\"Sources\":[{}],\"A\":", vec!["\"s\""; 17].join(","));
    refused("\"A\":", &many);
    let padded = honest.clone() + &" ".repeat(MAX_EVIDENCE_BYTES);
    assert!(Evidence::from_json(padded.as_bytes()).is_err());
}

#[test]
fn times_and_sources_are_kept() {
    let mut evidence = recorded("evidence_same_index");
    (evidence.found_at, evidence.sources) = (Some(7), vec!["http://a \"b\"\n".into(), "c".into()]);
    assert_eq!(Evidence::from_json(evidence.to_json().as_bytes()).unwrap(), evidence);
}

static FORKS: LazyLock<Vec<(String, Judgement)>> = LazyLock::new(|| {
    let judged = |name| (recorded(name).to_json(), recorded(name).judge(&trust()).unwrap());
    ["evidence_same_size", "evidence_same_index"].map(judged).into()
});

/// A suspicion that a proof refutes, and two leaves that are the same: files about an honest log.
static HONEST: LazyLock<[Vec<u8>; 2]> = LazyLock::new(|| {
    let (proof, honest) = (Some(hashes(&VECTORS["own"]["consistency"]["2 to 5"])), honest_entries());
    let suspicion = of(Charge::Suspicion { a: recorded_note("2"), b: recorded_note("5"), consistency: proof });
    let equal = of(Charge::SameIndex { index: 3, a: proven(&honest[..6], 3), b: proven(&honest, 3) });
    [suspicion, equal].map(|evidence| lines_of(&evidence.to_json()))
});

proptest! {
    #![proptest_config(damaging(2_000))]

    #[test]
    fn damaged_evidence_convicts_of_nothing_else(damages in vec(damage(), 1..4), which in 0_usize..2) {
        let [file, other] = [which, 1 - which].map(|which| lines_of(&FORKS[which].0));
        if let Ok(read) = Evidence::from_json(&damaged(&file, &other, &damages))
            && let Ok(judgement) = read.judge(&trust())
            && judgement.verdict == Verdict::Convicted
        {
            for side in &judgement.signed {
                prop_assert!(FORKS.iter().any(|(_, known)| known.signed.contains(side)));
            }
        }
    }

    #[test]
    fn no_damage_makes_a_fork_of_an_honest_log(damages in vec(damage(), 0..4), which in 0_usize..2) {
        if let Ok(read) = Evidence::from_json(&damaged(&HONEST[which], &HONEST[1 - which], &damages))
            && let Ok(judgement) = read.judge(&trust())
        {
            prop_assert_ne!(judgement.verdict, Verdict::Convicted);
        }
    }
}
