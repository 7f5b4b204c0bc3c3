//! Random damage to every format: it ends in an error, or in what was signed.

use std::fmt::Debug;

use proptest::collection::vec;
use proptest::prelude::*;
use qed_core::hash::merkle_leaf;
use qed_core::tlog::entry::Entry;
use qed_core::tlog::key::{KeyKind, VerifierKey};
use qed_core::tlog::note::{Note, VerifiedNote};
use qed_core::tlog::policy::Policy;
use qed_core::tlog::proof_file::TlogProof;
use qed_core::tlog::tile::{bundle_from_bytes, tile_from_bytes};
use qed_core::verify::VerifyError;

use crate::edits::damage;
use crate::model::{TIME, log_key, ml_dsa_key, text, witness_key};
use crate::seeds::searching;

fn keys() -> [VerifierKey; 2] {
    [log_key().verifier().clone(), witness_key().verifier().clone()]
}

/// Check that a note verifies only as a part of the honest one: lines that are among its lines, and the same checkpoint.
///
/// The text is the same too, unless ML-DSA-44 alone signs it: a signature line that is moved into the text becomes an extension line.
fn assert_part(verified: &VerifiedNote, honest: &VerifiedNote) {
    assert!(verified.lines().iter().all(|line| honest.lines().contains(line)));
    let signs_all = verified.lines().iter().any(|line| line.key().kind() != KeyKind::MlDsa44);
    assert!(!signs_all || verified.text() == honest.text());
    let [log, _] = keys();
    let logs = [log, ml_dsa_key().verifier().clone()];
    if let Ok(checkpoint) = verified.checkpoint(&logs) {
        assert_eq!(checkpoint, honest.checkpoint(&logs).unwrap());
    }
}

/// Check that what is read is written as it was.
fn assert_same<T: ToString + Debug>(value: &T, bytes: &[u8]) {
    assert_eq!(value.to_string().as_bytes(), bytes);
}

proptest! {
    #![proptest_config(searching(2_000))]

    #[test]
    fn a_damaged_note_says_nothing_new(damages in vec(damage(), 1..4)) {
        let note = witnessed();
        let honest = Note::parse(note.as_bytes()).unwrap().verify(&keys()).unwrap();
        let damaged = damages.iter().fold(note.into_bytes(), |bytes, damage| damage.apply(&bytes));
        if let Ok(read) = Note::parse(&damaged) {
            assert_same(&read, &damaged);
            if let Ok(verified) = read.verify(&keys()) {
                assert_part(&verified, &honest);
            }
        }
    }

    #[test]
    fn a_damaged_proof_file_proves_nothing_else(damages in vec(damage(), 1..4)) {
        let file = text("/own/tlog_proof");
        let honest = TlogProof::parse(file.as_bytes()).unwrap();
        let [log, witness] = keys();
        let policy = format!("log {log}\nwitness w {witness}\nquorum none\n");
        let policy = Policy::parse(policy.as_bytes()).unwrap();
        let verified = policy.verify(honest.note(), TIME).unwrap();
        let entry = merkle_leaf(honest.extra().unwrap());
        let damaged = damages.iter().fold(file.as_bytes().to_vec(), |bytes, damage| damage.apply(&bytes));
        if let Ok(read) = TlogProof::parse(&damaged) {
            assert_same(&read, &damaged);
            if let Ok(signed) = policy.verify(read.note(), TIME) {
                assert_part(signed.note(), verified.note());
                let same = (read.index(), read.path()) == (honest.index(), honest.path());
                assert_eq!(read.verify(&entry, &signed).is_ok(), same);
            }
        }
    }

    #[test]
    fn a_damaged_policy_is_refused_or_another_policy(damages in vec(damage(), 1..4)) {
        let [log, witness] = keys();
        let policy = format!("# ours\nlog {log} https://x.example.com\nwitness w {witness}\ngroup g all w\nquorum g\n");
        let honest = Policy::parse(policy.as_bytes()).unwrap();
        let damaged = damages.iter().fold(policy.into_bytes(), |bytes, damage| damage.apply(&bytes));
        match Policy::parse(&damaged) {
            Err(error) => assert!(error.line >= 1 && error.line <= 10, "{error}"),
            Ok(read) => {
                // A vkey has a check of its own: no damage leads to another key.
                for party in read.logs() {
                    assert!(honest.logs().iter().any(|honest| honest.key == party.key));
                }
                let _ = read.verify(&Note::parse(witnessed().as_bytes()).unwrap(), TIME);
            }
        }
    }

    #[test]
    fn a_damaged_key_is_no_key(damages in vec(damage(), 1..3)) {
        for key in keys() {
            let good = key.to_string();
            let damaged = damages.iter().fold(good.clone().into_bytes(), |bytes, damage| damage.apply(&bytes));
            if let Ok(read) = String::from_utf8(damaged).unwrap_or_default().parse::<VerifierKey>() {
                assert_eq!(read.to_string(), good);
            }
        }
    }

    #[test]
    fn any_bytes_end_in_a_value_or_an_error(bytes in vec(any::<u8>(), 0..300), width in 0_u16..=256) {
        let _ = (Note::parse(&bytes), TlogProof::parse(&bytes), Policy::parse(&bytes), Entry::from_bytes(&bytes));
        let _ = (bundle_from_bytes(&bytes, width), tile_from_bytes(&bytes, width));
    }
}

proptest! {
    // ML-DSA-44 takes long without optimization.
    #![proptest_config(searching(300))]

    #[test]
    fn a_damaged_note_with_ml_dsa_says_nothing_new(damages in vec(damage(), 1..3)) {
        let note = text("/own/checkpoint_5_all_lines");
        let [log, witness] = keys();
        let keys = [log, witness, ml_dsa_key().verifier().clone()];
        let honest = Note::parse(note.as_bytes()).unwrap().verify(&keys).unwrap();
        let damaged = damages.iter().fold(note.as_bytes().to_vec(), |bytes, damage| damage.apply(&bytes));
        if let Ok(verified) = Note::parse(&damaged).map_err(VerifyError::from).and_then(|read| read.verify(&keys)) {
            assert_part(&verified, &honest);
        }
    }
}

#[test]
fn a_line_that_is_moved_into_the_text_is_not_what_the_log_says() {
    let [log, _] = keys();
    let keys = [log, ml_dsa_key().verifier().clone()];
    let note = Note::parse(text("/own/checkpoint_5_all_lines").as_bytes()).unwrap();
    let honest = note.verify(&keys).unwrap();
    let lines: Vec<_> = honest.lines().iter().map(|line| line.line().to_string()).collect();
    let moved = format!("{}{}\n\n{}\n", honest.text(), lines[0], lines[1]);
    let moved = Note::parse(moved.as_bytes()).unwrap().verify(&keys).unwrap();
    assert_ne!(moved.text(), honest.text());
    assert_part(&moved, &honest);
    assert_eq!(moved.checkpoint(&keys).unwrap(), honest.checkpoint(&keys).unwrap());
}

fn witnessed() -> String {
    format!("{}{}", text("/own/checkpoints/5/note"), text("/own/checkpoints/5/cosignature_line"))
}

#[test]
fn every_single_bit_of_a_note_counts() {
    let note = text("/own/checkpoints/5/note").as_bytes();
    for place in 0..note.len() * 8 {
        let mut damaged = note.to_vec();
        damaged[place / 8] ^= 1 << (place % 8);
        let accepted = Note::parse(&damaged).is_ok_and(|note| note.verify(&keys()).is_ok());
        assert!(!accepted, "bit {place}");
    }
    for length in 0..note.len() {
        assert!(Note::parse(&note[..length]).is_err(), "{length}");
    }
}
