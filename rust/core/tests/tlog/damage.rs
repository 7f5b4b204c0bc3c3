//! Random damage to every format: it ends in an error, or in what was signed.

use std::fmt::Debug;
use std::sync::LazyLock;

use proptest::collection::vec;
use proptest::prelude::*;
use qed_core::hash::merkle_leaf;
use qed_core::tlog::checkpoint::Checkpoint;
use qed_core::tlog::entry::Entry;
use qed_core::tlog::key::{KeyKind, VerifierKey};
use qed_core::tlog::note::{Note, VerifiedNote};
use qed_core::tlog::policy::{Endorsed, Policy};
use qed_core::tlog::proof_file::TlogProof;
use qed_core::tlog::receipt::SignedReceipt;
use qed_core::tlog::tile::{bundle_from_bytes, tile_from_bytes};
use qed_core::tlog::trust_file::TrustFile;
use qed_core::verify::VerifyError;

use crate::edits::{damage, damaged, damaging, lines_of};
use crate::model::{TIME, VECTORS, log_key, ml_dsa_key, signing_key, text, witness_key};

/// The keys of the log, Ed25519 and ML-DSA-44, and of its witness.
static KEYS: LazyLock<[VerifierKey; 3]> =
    LazyLock::new(|| [log_key(), ml_dsa_key(), witness_key()].map(|key| key.verifier().clone()));

fn keys() -> [VerifierKey; 2] {
    [KEYS[0].clone(), KEYS[2].clone()]
}

/// Check that a note verifies only as a part of an honest one: lines that are among its lines, and the same checkpoint.
///
/// So a note may lose lines, and have lines of unknown keys. The text is the same too, unless ML-DSA-44 alone signs it: a signature line that is moved into the text becomes an extension line.
fn assert_part(verified: &VerifiedNote, honest: &[VerifiedNote]) {
    let logs = &KEYS[..2];
    let is_part = |honest: &VerifiedNote| {
        let signs_all = verified.lines().iter().any(|line| line.key().kind() != KeyKind::MlDsa44);
        verified.lines().iter().all(|line| honest.lines().contains(line))
            && (!signs_all || verified.text() == honest.text())
            && verified.checkpoint(logs).ok().is_none_or(|found| found == honest.checkpoint(logs).unwrap())
    };
    assert!(honest.iter().any(is_part), "{}", verified.text());
}

/// Check that what is read is written as it was.
fn assert_same<T: ToString + Debug>(value: &T, bytes: &[u8]) {
    assert_eq!(value.to_string().as_bytes(), bytes);
}

/// Return a recorded note and the line of its witness.
fn witnessed(size: &str) -> String {
    let [note, line] = ["note", "cosignature_line"].map(|part| text(&format!("/own/checkpoints/{size}/{part}")));
    format!("{note}{line}")
}

fn verified(note: &str) -> VerifiedNote {
    Note::parse(note.as_bytes()).unwrap().verify(&*KEYS).unwrap()
}

/// Two notes of one log, with the newer one first, and what they say.
static NOTES: LazyLock<([String; 2], [VerifiedNote; 2])> = LazyLock::new(|| {
    let notes = ["5", "2"].map(witnessed);
    let honest = notes.each_ref().map(|note| verified(note));
    (notes, honest)
});

/// The newer one with all kinds of signatures.
static WITH_ML_DSA: LazyLock<[VerifiedNote; 2]> =
    LazyLock::new(|| [verified(text("/own/checkpoint_5_all_lines")), NOTES.1[1].clone()]);

static TRUST: LazyLock<TrustFile> = LazyLock::new(|| {
    let [log, witness] = keys();
    TrustFile::parse(format!("log {log}\nwitness w {witness}\nquorum none\n").as_bytes()).unwrap()
});

/// Proofs of two entries in two trees of one log.
static PROOFS: LazyLock<[(TlogProof, Endorsed); 2]> = LazyLock::new(|| {
    let receipt = SignedReceipt::from_json(VECTORS["own"]["receipt_1_at_2"].to_string().as_bytes()).unwrap();
    [TlogProof::parse(text("/own/tlog_proof").as_bytes()).unwrap(), receipt.to_proof().unwrap()].map(|proof| {
        let endorsed = TRUST.endorse(proof.note(), TIME).unwrap();
        (proof, endorsed)
    })
});

/// Two policies and their keys.
static POLICIES: LazyLock<([String; 2], Vec<VerifierKey>)> = LazyLock::new(|| {
    let [log, other, witness] = KEYS.each_ref();
    let policy = format!("# ours\nlog {log} https://x.example.com\nwitness w {witness}\ngroup g all w\nquorum g\n");
    let second = signing_key("v.example.com", KeyKind::Cosignature, &"05".repeat(32)).verifier().clone();
    let lines = format!("log {log}\nlog {other}\nwitness w {witness} http://w/\nwitness v {second}\n");
    let keys = [KEYS.as_slice(), &[second]].concat();
    ([policy, format!("{lines}group g 1 w v\nquorum g\n")], keys)
});

/// The same policies as trust files.
static TRUST_FILES: LazyLock<[Vec<u8>; 2]> = LazyLock::new(|| {
    POLICIES.0.each_ref().map(|policy| {
        let policy = serde_json::Value::String(policy.clone());
        let file = format!("{{\"Format\":\"qed-trust-1\",\"Policy\":{policy},\"MaxAge\":60,\"Skew\":5,\"Pins\":[]}}");
        TrustFile::parse(file.as_bytes()).unwrap();
        lines_of(&file)
    })
});

proptest! {
    #![proptest_config(damaging(2_000))]

    #[test]
    fn a_damaged_note_says_nothing_new(damages in vec(damage(), 1..4)) {
        let ([note, other], honest) = &*NOTES;
        let damaged = damaged(note.as_bytes(), other.as_bytes(), &damages);
        if let Ok(read) = Note::parse(&damaged) {
            assert_same(&read, &damaged);
            if let Ok(found) = read.verify(&*KEYS) {
                assert_part(&found, honest);
            }
        }
    }

    #[test]
    fn a_damaged_checkpoint_is_another_text_or_none(damages in vec(damage(), 1..4)) {
        let [(body, lines), (other, _)] = NOTES.0.each_ref().map(|note| note.split_once("\n\n").unwrap());
        let damaged = damaged(format!("{body}\n").as_bytes(), format!("{other}\n").as_bytes(), &damages);
        if let Some(read) = str::from_utf8(&damaged).ok().and_then(|text| Checkpoint::parse(text).ok()) {
            assert_same(&read, &damaged);
            // Its signatures are not of another text.
            let signed = Note::parse(format!("{read}\n{lines}").as_bytes()).unwrap();
            assert_eq!(signed.verify(&keys()).is_ok(), damaged == format!("{body}\n").as_bytes());
        }
    }

    #[test]
    fn a_damaged_proof_file_proves_nothing_else(damages in vec(damage(), 1..4)) {
        let [file, other] = PROOFS.each_ref().map(|(proof, _)| proof.to_string());
        let damaged = damaged(file.as_bytes(), other.as_bytes(), &damages);
        let Ok(read) = TlogProof::parse(&damaged) else { return Ok(()) };
        assert_same(&read, &damaged);
        let Ok(found) = TRUST.endorse(read.note(), TIME) else { return Ok(()) };
        assert_part(found.note(), &PROOFS.each_ref().map(|(_, endorsed)| endorsed.note().clone()));
        let shown = read.verify_entry(None, &TRUST, TIME).ok();
        let proves = |(honest, endorsed): &(TlogProof, Endorsed)| {
            let is_same = (found.checkpoint(), read.index(), read.path())
                == (endorsed.checkpoint(), honest.index(), honest.path());
            let extra = honest.extra().unwrap();
            assert_eq!(read.verify(&merkle_leaf(extra), &found).is_ok(), is_same);
            is_same && shown.as_ref().is_none_or(|shown| shown.entries().iter().map(Entry::to_bytes).eq([extra.to_vec()]))
        };
        let proven = PROOFS.each_ref().map(proves);
        assert!(shown.is_none() || proven.contains(&true));
    }

    #[test]
    fn a_damaged_policy_is_refused_or_of_the_same_keys(damages in vec(damage(), 1..4)) {
        let ([policy, other], keys) = &*POLICIES;
        match Policy::parse(&damaged(policy.as_bytes(), other.as_bytes(), &damages)) {
            Err(error) => assert!(error.line >= 1 && error.line <= 10, "{error}"),
            Ok(read) => {
                // A vkey has a check of its own: no damage leads to another key.
                assert!(read.logs().iter().chain(read.witnesses()).all(|party| keys.contains(&party.key)));
                let _ = read.verify(&Note::parse(NOTES.0[0].as_bytes()).unwrap(), TIME);
            }
        }
    }

    #[test]
    fn a_damaged_trust_file_is_refused_or_of_the_same_keys(damages in vec(damage(), 1..4), turn: bool) {
        let ([one, other], keys) = (TRUST_FILES.each_ref(), &POLICIES.1);
        let damaged = if turn { damaged(one, other, &damages) } else { damaged(other, one, &damages) };
        if let Ok(read) = TrustFile::parse(&damaged) {
            let witnesses = read.policy().witnesses().iter().map(|party| &party.key);
            assert!(read.log_keys().chain(witnesses).all(|key| keys.contains(key)));
            let _ = read.endorse(&Note::parse(NOTES.0[0].as_bytes()).unwrap(), TIME);
        }
    }

    #[test]
    fn a_damaged_key_is_no_key(damages in vec(damage(), 1..3)) {
        let [log, _, witness] = KEYS.each_ref().map(ToString::to_string);
        let damaged = damaged(log.as_bytes(), witness.as_bytes(), &damages);
        if let Ok(read) = String::from_utf8(damaged).unwrap_or_default().parse::<VerifierKey>() {
            assert!([log, witness].contains(&read.to_string()));
        }
    }

    #[test]
    fn any_bytes_end_in_a_value_or_an_error(bytes in vec(any::<u8>(), 0..300), width in 0_u16..=256) {
        let _ = (Note::parse(&bytes), TlogProof::parse(&bytes), Policy::parse(&bytes), Entry::from_bytes(&bytes));
        let _ = (bundle_from_bytes(&bytes, width), tile_from_bytes(&bytes, width), TrustFile::parse(&bytes));
    }
}

proptest! {
    // ML-DSA-44 takes long without optimization.
    #![proptest_config(damaging(300))]

    #[test]
    fn a_damaged_note_with_ml_dsa_says_nothing_new(damages in vec(damage(), 1..3)) {
        let note = text("/own/checkpoint_5_all_lines");
        let damaged = damaged(note.as_bytes(), NOTES.0[1].as_bytes(), &damages);
        if let Ok(found) = Note::parse(&damaged).map_err(VerifyError::from).and_then(|read| read.verify(&*KEYS)) {
            assert_part(&found, &*WITH_ML_DSA);
        }
    }
}

#[test]
fn a_line_that_is_moved_into_the_text_is_not_what_the_log_says() {
    let logs = &KEYS[..2];
    let honest = Note::parse(text("/own/checkpoint_5_all_lines").as_bytes()).unwrap().verify(logs).unwrap();
    let lines: Vec<_> = honest.lines().iter().map(|line| line.line().to_string()).collect();
    let moved = format!("{}{}\n\n{}\n", honest.text(), lines[0], lines[1]);
    let moved = Note::parse(moved.as_bytes()).unwrap().verify(logs).unwrap();
    assert_ne!(moved.text(), honest.text());
    assert_part(&moved, std::slice::from_ref(&honest));
    assert_eq!(moved.checkpoint(logs).unwrap(), honest.checkpoint(logs).unwrap());
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
