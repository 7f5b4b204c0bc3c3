//! Collecting cosignatures: which lines of an answer count, and the note that they make.

use std::sync::LazyLock;

use proptest::collection::vec;
use proptest::prelude::*;
use qed_core::tlog::add_checkpoint::AddCheckpoint;
use qed_core::tlog::cosigning::{Collected, Cosigning, MAX_ANSWER_BYTES};
use qed_core::tlog::key::KeyKind;
use qed_core::tlog::note::Note;
use qed_core::tlog::signing::SigningKey;
use qed_core::tlog::trust_file::TrustFile;

use crate::edits::{damage, damaged, damaging};
use crate::model::{TIME, body, honest, log_key, ml_dsa_key, sign, signing_key};

const SKEW_S: u64 = 300;

fn witness(number: u8, kind: KeyKind) -> SigningKey {
    signing_key(&format!("w{number}.example.com"), kind, &format!("{number:02}").repeat(32))
}

/// Two witnesses, the first with two keys.
fn witnesses() -> [SigningKey; 3] {
    [witness(1, KeyKind::Cosignature), witness(1, KeyKind::MlDsa44), witness(2, KeyKind::Cosignature)]
}

fn trust() -> TrustFile {
    let [first, pq, second] = witnesses().map(|key| key.verifier().to_string());
    let witnesses = format!("witness w0 {first}\nwitness w1 {pq}\nwitness w2 {second}\n");
    TrustFile::parse(format!("log {}\n{witnesses}quorum none\n", log_key().verifier()).as_bytes()).unwrap()
}

fn note_of(lines: &[String]) -> String {
    format!("{}\n{}", body(), lines.concat())
}

fn line(key: &SigningKey, time: u64) -> String {
    format!("{}\n", sign(key, &body(), time))
}

fn begin(note: &str) -> Cosigning {
    Cosigning::begin(&trust(), &Note::parse(note.as_bytes()).unwrap(), TIME).unwrap()
}

fn own() -> String {
    line(&log_key(), 0)
}

fn read(witnesses: &[usize], answer: &str) -> Vec<Collected> {
    begin(&note_of(&[own()])).read(witnesses, answer.as_bytes(), TIME).unwrap()
}

fn found(witnesses: &[usize], answer: &str) -> Vec<(usize, u64)> {
    read(witnesses, answer).iter().map(|one| (one.witness(), one.time())).collect()
}

#[test]
fn lines_count_for_the_witnesses_that_were_asked_and_are_put_in_the_order_of_the_policy() {
    let [first, pq, second] = witnesses();
    let answer = [line(&second, TIME), line(&pq, TIME + 1), line(&first, TIME - 1)].concat();
    assert_eq!(found(&[0, 1, 2], &answer), [(0, TIME - 1), (1, TIME + 1), (2, TIME)]);
    assert_eq!(found(&[0, 1], &answer), [(0, TIME - 1), (1, TIME + 1)]);
    assert_eq!(found(&[], &answer), []);
    assert_eq!(found(&[3], &answer), []);
    let cosigning = begin(&note_of(&[own()]));
    let collected = cosigning.read(&[2, 1, 0], answer.as_bytes(), TIME).unwrap();
    let expected = note_of(&[own(), line(&first, TIME - 1), line(&pq, TIME + 1), line(&second, TIME)]);
    assert_eq!(cosigning.note(&collected).unwrap().to_string(), expected);
    assert_eq!(cosigning.note(&[]).unwrap().to_string(), note_of(&[own()]));
}

#[test]
fn a_time_counts_unless_it_is_0_or_beyond_what_clocks_differ_by() {
    let [first, pq, _] = witnesses();
    assert_eq!(found(&[0], &line(&first, TIME + SKEW_S)), [(0, TIME + SKEW_S)]);
    assert_eq!(found(&[0], &line(&first, TIME + SKEW_S + 1)), []);
    assert_eq!(found(&[0, 1], &line(&pq, 1)), [(1, 1)]);
    let latest = begin(&note_of(&[own()])).read(&[0], line(&first, TIME).as_bytes(), u64::MAX).unwrap();
    assert_eq!(latest.len(), 1);
}

#[test]
fn the_newest_line_of_each_key_is_kept() {
    let [first, _, second] = witnesses();
    let twice = [line(&first, TIME - 9), line(&first, TIME - 5), line(&first, TIME - 7)].concat();
    assert_eq!(found(&[0], &twice), [(0, TIME - 5)]);
    let cosigning = begin(&note_of(&[own(), line(&first, TIME - 6), line(&second, TIME - 6)]));
    let collected = cosigning.read(&[0, 2], &[line(&second, TIME - 7), twice].concat().into_bytes(), TIME).unwrap();
    let expected = note_of(&[own(), line(&first, TIME - 5), line(&second, TIME - 6)]);
    assert_eq!(cosigning.note(&collected).unwrap().to_string(), expected);
}

#[test]
fn all_lines_of_the_log_are_kept_and_sent_and_no_others() {
    let [first, _, second] = witnesses();
    let (stranger, pq) = (line(&witness(7, KeyKind::Cosignature), TIME), line(&ml_dsa_key(), TIME));
    let note = note_of(&[stranger, pq.clone(), line(&second, TIME), own(), line(&first, TIME)]);
    let cosigning = begin(&note);
    let request = cosigning.request(0, &[]).unwrap();
    assert_eq!(request.to_string(), format!("old 0\n\n{}", note_of(&[pq.clone(), own()])));
    let expected = note_of(&[pq, own(), line(&first, TIME), line(&second, TIME)]);
    assert_eq!(cosigning.note(&[]).unwrap().to_string(), expected);
    assert!(AddCheckpoint::parse(request.to_string().as_bytes()).is_ok());
}

#[test]
fn a_note_that_the_log_has_not_signed_is_no_beginning() {
    let [first, ..] = witnesses();
    for lines in [vec![line(&first, TIME)], vec![line(&ml_dsa_key(), TIME)]] {
        let note = Note::parse(note_of(&lines).as_bytes()).unwrap();
        assert!(Cosigning::begin(&trust(), &note, TIME).is_err());
    }
    assert_eq!(begin(honest()).checkpoint().to_string(), body());
}

#[test]
fn an_answer_has_only_signature_lines_and_a_limited_length() {
    let [first, ..] = witnesses();
    let cosigning = begin(&note_of(&[own()]));
    let good = line(&first, TIME);
    let hidden = format!("{good}\n{}\n", sign(&first, &body(), TIME));
    let other = format!("{}\n{good}", body());
    for wrong in ["", "\n", "x\n", good.trim_end(), &hidden, &other, &format!("\n{good}")] {
        assert!(cosigning.read(&[0], wrong.as_bytes(), TIME).is_err(), "{wrong:?}");
    }
    let fill = |length: usize| format!("{good}\u{2014} x {}\n", "A".repeat(length));
    let room = MAX_ANSWER_BYTES - fill(0).len();
    assert_eq!(cosigning.read(&[0], fill(room - room % 4).as_bytes(), TIME).unwrap().len(), 1);
    assert!(cosigning.read(&[0], fill(room - room % 4 + 4).as_bytes(), TIME).is_err());
}

/// An honest answer, another one, and the checkpoint that they are about.
static HONEST: LazyLock<([String; 2], Cosigning, TrustFile)> = LazyLock::new(|| {
    let [first, pq, second] = witnesses();
    let answer = [line(&second, TIME), line(&pq, TIME), line(&first, TIME)].concat();
    let other = [line(&first, TIME + 1), line(&second, 1), own()].concat();
    ([answer, other], begin(&note_of(&[own()])), trust())
});

proptest! {
    #![proptest_config(damaging(64))]

    /// Whatever a witness answers, the note that is published verifies, and has nothing but cosignatures of this checkpoint.
    #[test]
    fn a_damaged_answer_never_makes_a_note_that_fails(damages in vec(damage(), 1..3)) {
        let ([answer, other], cosigning, trust) = &*HONEST;
        let damaged = damaged(answer.as_bytes(), other.as_bytes(), &damages);
        if let Ok(collected) = cosigning.read(&[0, 1, 2], &damaged, TIME) {
            let note = cosigning.note(&collected).unwrap();
            let endorsed = trust.endorse(&note, TIME).unwrap();
            prop_assert_eq!(endorsed.cosignatures().len(), collected.len());
            prop_assert_eq!(note.to_string(), endorsed.note().to_string());
        }
    }
}
