//! Signed receipts: the recorded ones both ways, those of a log, and every damage.

use std::ops::Range;
use std::sync::LazyLock;

use proptest::collection::vec;
use proptest::prelude::*;
use qed_core::entry_prover::EntryProver;
use qed_core::error::LogError;
use qed_core::hash::Digest;
use qed_core::log::{Log, Request};
use qed_core::receipts::ReceiptError;
use qed_core::tlog::checkpoint::Checkpoint;
use qed_core::tlog::claim::{Level, Shown};
use qed_core::tlog::entry::Entry;
use qed_core::tlog::note::{Line, Note};
use qed_core::tlog::proof_file::TlogProof;
use qed_core::tlog::receipt::{MAX_RECEIPT_BYTES, SignedReceipt};
use qed_core::tlog::trust_file::TrustFile;
use serde_json::Value;

use crate::claims::{Signed, snapshot, trust};
use crate::edits::{damage, damaged, damaging, lines_of};
use crate::model::{TIME, VECTORS, hashes, log_key, sign, text, witness_key};
use crate::seeds::searching;

fn request(events: &[u64]) -> Request {
    let digest = |number: &u64| Digest::of_event(format!("event {number}").as_bytes());
    Request { digests: events.iter().map(digest).collect(), if_absent: false }
}

/// The log of the recorded receipts.
fn recorded_log() -> Log {
    let log = Log::in_memory().unwrap();
    for batch in [vec![request(&[0])], vec![request(&[1])], vec![request(&[2, 2]), request(&[3])]] {
        log.append(&batch).unwrap();
    }
    log
}

fn signed_receipt(
    log: &Log,
    range: Range<u64>,
    checkpoint: &Checkpoint,
    lines: Vec<Line>,
) -> Result<SignedReceipt, ReceiptError> {
    log.receipts(checkpoint, lines)?.receipt(range)
}

fn recorded_trust() -> TrustFile {
    let (log, witness) = (log_key(), witness_key());
    let policy = format!("log {}\nwitness w {}\nquorum w\n", log.verifier(), witness.verifier());
    TrustFile::parse(policy.as_bytes()).unwrap()
}

fn recorded_checkpoint(size: &str) -> Checkpoint {
    let (body, _) = text(&format!("/own/checkpoints/{size}/note")).split_once("\n\n").unwrap();
    Checkpoint::parse(&format!("{body}\n")).unwrap()
}

#[test]
fn recorded_receipts_are_made_and_verified() {
    let log = recorded_log();
    for (name, version, size) in [("receipt_3", 3, "5"), ("receipt_1_at_2", 1, "2")] {
        let recorded = &VECTORS["own"][name];
        let checkpoint = recorded_checkpoint(size);
        let line = log_key().sign(&checkpoint, 0).unwrap();
        let made = signed_receipt(&log, version..version + 1, &checkpoint, vec![line]).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&made.to_json()).unwrap(), *recorded, "{name}");
        let read = SignedReceipt::from_json(recorded.to_string().as_bytes()).unwrap();
        assert_eq!(read, made);
        let event = log.snapshot(version).unwrap().event_digest;
        let shown = read.verify(Some(&event), &recorded_trust(), TIME).unwrap();
        assert_eq!(shown.level(), Level::Signed);
        assert!(!shown.is_end_claimed());
        let end = shown.batch_end().unwrap().version;
        assert_eq!(shown.snapshots(), [log.snapshot(end).unwrap()]);
        assert_eq!(read.snapshots(), [log.snapshot(version).unwrap()]);
    }
}

#[test]
fn the_recorded_proof_file_is_made_of_a_receipt() {
    let checkpoint = recorded_checkpoint("5");
    let lines = vec![log_key().sign(&checkpoint, 0).unwrap(), sign(&witness_key(), &checkpoint.to_string(), TIME)];
    let receipt = signed_receipt(&recorded_log(), 3..4, &checkpoint, lines).unwrap();
    assert_eq!(receipt.to_proof().unwrap().to_string(), text("/own/tlog_proof"));
    assert_eq!(receipt.to_proof().unwrap().path(), hashes(&VECTORS["own"]["inclusion"]["3 in 5"]));
    let longer =
        receipt.to_json().replacen("\"Proof\":[", "\"Proof\":[\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\",", 1);
    assert!(SignedReceipt::from_json(longer.as_bytes()).unwrap().to_proof().is_err());
    let shown = receipt.verify(None, &recorded_trust(), TIME).unwrap();
    assert_eq!(shown.level(), Level::Witnessed { existed_at: TIME, confirmed_at: TIME });
    let proof = TlogProof::parse(text("/own/tlog_proof").as_bytes()).unwrap();
    let shown = proof.verify_entry(None, &recorded_trust(), TIME).unwrap();
    assert_eq!(shown.entries(), recorded_log().entries(3..4).unwrap());
    let event = recorded_log().snapshot(4).unwrap().event_digest;
    assert_eq!(proof.verify_entry(Some(&event), &recorded_trust(), TIME).unwrap_err().check, "event digest");
}

#[test]
fn a_proof_file_without_a_readable_entry_shows_nothing() {
    let honest = text("/own/tlog_proof");
    let without: String = honest.split_inclusive('\n').filter(|line| !line.starts_with("extra")).collect();
    for file in [without, honest.replace("extra AQIA", "extra AgIA"), honest.replace("extra AQIA", "extra AQEA")] {
        let proof = TlogProof::parse(file.as_bytes()).unwrap();
        assert_eq!(proof.verify_entry(None, &recorded_trust(), TIME).unwrap_err().check, "shape");
    }
}

#[test]
fn every_range_of_a_batch_has_a_receipt_and_no_other_range_has() {
    let log = Log::in_memory().unwrap();
    for batch in [vec![request(&[0, 1])], vec![request(&[2]), request(&[3, 4, 3])], vec![request(&[5, 6, 7])]] {
        log.append(&batch).unwrap();
    }
    let (batches, trust) = ([0..2, 2..6, 6..9], recorded_trust());
    for size in 0..=9 {
        let head = log.tree_head_at(size).unwrap();
        let checkpoint = Checkpoint::new(log_key().verifier().name().clone(), head);
        for (first, end) in (0..10).flat_map(|first| (0..11).map(move |end| (first, end))) {
            let line = log_key().sign(&checkpoint, 0).unwrap();
            let made = signed_receipt(&log, first..end, &checkpoint, vec![line]);
            let inside = |batch: &Range<u64>| batch.start <= first && end <= batch.end && batch.end <= size;
            let wanted = first < end && batches.iter().any(inside);
            assert_eq!(made.is_ok(), wanted, "{first}..{end} of {size}");
            let Ok(receipt) = made else { continue };
            assert_eq!(SignedReceipt::from_json(receipt.to_json().as_bytes()).unwrap(), receipt);
            let ends_tree = batches.iter().any(|batch| batch.end == size);
            let verified = receipt.verify(None, &trust, TIME);
            // A log signs only where a batch ends, but a receipt within another batch does not show it.
            assert!(verified.is_ok(), "{first}..{end} of {size}, {ends_tree}: {verified:?}");
            assert_eq!(verified.unwrap().entries(), log.entries(first..end).unwrap());
        }
    }
}

#[test]
fn a_receipt_is_made_only_for_a_checkpoint_of_the_log() {
    let log = recorded_log();
    let checkpoint = recorded_checkpoint("5");
    let line = || vec![log_key().sign(&checkpoint, 0).unwrap()];
    let fork = Note::parse(text("/own/fork_checkpoint_2").as_bytes()).unwrap();
    let fork = Checkpoint::parse(fork.verify(&[log_key().verifier().clone()]).unwrap().text()).unwrap();
    assert!(matches!(signed_receipt(&log, 1..2, &fork, line()), Err(ReceiptError::Unfit(_))));
    assert!(matches!(signed_receipt(&log, 3..4, &checkpoint, Vec::new()), Err(ReceiptError::Unfit(_))));
    let unknown = signed_receipt(&log, 5..6, &checkpoint, line());
    assert!(matches!(unknown, Err(ReceiptError::Log(LogError::UnknownVersion { asked: 5, len: 5 }))), "{unknown:?}");
    let short = Log::in_memory().unwrap();
    assert!(matches!(EntryProver::new(&short, 1).map(|_| ()), Err(LogError::UnknownVersion { asked: 0, len: 0 })));
    assert!(matches!(signed_receipt(&short, 0..1, &checkpoint, line()), Err(ReceiptError::Log(_))));
}

/// What a receipt may say and still be the honest one: everything but history digests inside a batch, and which lines verify.
type Facts = (Vec<Entry>, Option<Entry>, String);

fn facts(shown: &Shown) -> Facts {
    (shown.entries().to_vec(), shown.batch_end().copied(), shown.endorsed().checkpoint().to_string())
}

#[test]
fn every_cut_and_every_flipped_bit_of_a_receipt_is_refused_or_says_the_same() {
    let honest = Signed::honest().receipt();
    let (file, trust) = (honest.to_json(), trust());
    let shown = facts(&honest.verify(None, &trust, TIME).unwrap());
    let mut accepted = 0;
    for length in 0..file.len() {
        assert!(SignedReceipt::from_json(&file.as_bytes()[..length]).is_err(), "{length}");
    }
    for bit in (0..file.len() * 8).step_by(3) {
        let mut bytes = file.clone().into_bytes();
        bytes[bit / 8] ^= 1 << (bit % 8);
        if let Ok(read) = SignedReceipt::from_json(&bytes)
            && let Ok(found) = read.verify(None, &trust, TIME)
        {
            accepted += 1;
            assert_eq!(facts(&found), shown, "{}", String::from_utf8_lossy(&bytes));
        }
    }
    // Only the history digest inside the batch can be another, and lines of unknown keys.
    assert!(accepted > 0);
}

#[test]
fn a_receipt_has_its_fields_once_and_no_others() {
    let file = Signed::honest().receipt().to_json();
    assert!(SignedReceipt::from_json(file.as_bytes()).is_ok());
    let spaced = file.replacen(",\"End\"", " ,\n \"End\"", 1);
    assert!(SignedReceipt::from_json(spaced.as_bytes()).is_ok());
    for (from, to) in [
        ("{\"Format\"", "{\"More\":1,\"Format\""),
        ("{\"Format\"", "{\"First\":3,\"Format\""),
        ("qed-receipt-1", "qed-receipt-2"),
        (",\"First\":3", ""),
        ("\"First\":3", "\"First\":3.0"),
        ("\"First\":3", "\"First\":-3"),
        ("\"First\":3", "\"First\":9223372036854775808"),
        ("\"First\":3", "\"First\":18446744073709551615"),
        ("\"First\":3", "\"First\":18446744073709551616"),
        ("\"End\":{", "\"End\":{\"More\":1,"),
        ("\"End\":{", "\"End\":{\"Version\":5,"),
        ("\"Snapshots\":[{", "\"Snapshots\":[{\"More\":1,"),
        ("\"Snapshots\":[{", "\"Snapshots\":[{\"Version\":3,"),
        ("\"Entries\":[", "\"Entries\":[null,"),
        ("\"Proof\":[", "\"Proof\":[\"\","),
        ("\"Checkpoint\":\"", "\"Checkpoint\":\"\\u0000"),
        ("\"Checkpoint\":", "\"Checkpoint\":null,\"Checkpoint\":"),
    ] {
        let changed = file.replacen(from, to, 1);
        assert_ne!(changed, file);
        assert!(SignedReceipt::from_json(changed.as_bytes()).is_err(), "{from} {to}");
    }
    let end = file.find(",\"End\"").unwrap();
    let without = format!("{}{}", &file[..end], &file[file.find(",\"Snapshots\"").unwrap()..]);
    assert!(SignedReceipt::from_json(without.as_bytes()).is_err());
    assert!(SignedReceipt::from_json(format!("[{file}]").as_bytes()).is_err());
    assert!(SignedReceipt::from_json(format!("{file}{file}").as_bytes()).is_err());
}

#[test]
fn lists_and_texts_are_limited_before_they_are_decoded() {
    let file = Signed::honest().receipt().to_json();
    let hash = format!("\"{}\",", qed_core::tlog::text::to_base64([0; 32]));
    for (from, item, count) in [("\"Proof\":[", hash.as_str(), 127), ("\"Entries\":[", "\"\",", 65_537)] {
        let long = file.replacen(from, &format!("{from}{}", item.repeat(count)), 1);
        assert!(SignedReceipt::from_json(long.as_bytes()).is_err());
    }
    let long = file.replacen("\"Entries\":[\"", &format!("\"Entries\":[\"{}", "A".repeat(400)), 1);
    assert!(SignedReceipt::from_json(long.as_bytes()).unwrap_err().to_string().contains("106 bytes"));
    let padded = format!("{file}{}", " ".repeat(MAX_RECEIPT_BYTES));
    assert!(SignedReceipt::from_json(padded.as_bytes()).unwrap_err().to_string().contains("at most"));
}

/// Honest receipts, and what each shows: one of a newer tree, and of an older one with another batch.
static HONEST: LazyLock<[(SignedReceipt, Facts, Level); 2]> = LazyLock::new(|| {
    let older = Signed { entries: Signed::honest().entries[..6].to_vec(), ..Signed::honest() };
    let whole = SignedReceipt::new(older.run(0, 3), None, (0..3).map(snapshot).collect(), older.note()).unwrap();
    [Signed::honest().receipt(), whole].map(|receipt| {
        let shown = receipt.verify(None, &trust(), TIME + 60).unwrap();
        (receipt, facts(&shown), shown.level())
    })
});

/// Whether a level says no more than another: no earlier beginning, and no later confirmation.
fn is_within(found: Level, honest: Level) -> bool {
    match (found, honest) {
        (Level::Signed, _) => true,
        (Level::Witnessed { existed_at: a, confirmed_at: b }, Level::Witnessed { existed_at, confirmed_at }) => {
            existed_at <= a && b <= confirmed_at
        }
        (Level::Witnessed { .. }, Level::Signed) => false,
    }
}

proptest! {
    #![proptest_config(damaging(2_000))]

    #[test]
    fn a_damaged_receipt_says_nothing_new(damages in vec(damage(), 1..4), turn: bool) {
        let [one, other] = HONEST.each_ref().map(|(receipt, ..)| lines_of(&receipt.to_json()));
        let damaged = if turn { damaged(&one, &other, &damages) } else { damaged(&other, &one, &damages) };
        if let Ok(read) = SignedReceipt::from_json(&damaged)
            && let Ok(found) = read.verify(None, &trust(), TIME + 60)
        {
            let says_so = |(_, shown, level): &(_, Facts, Level)| facts(&found) == *shown && is_within(found.level(), *level);
            prop_assert!(HONEST.iter().any(says_so), "{}", String::from_utf8_lossy(&damaged));
        }
    }
}

proptest! {
    #![proptest_config(searching(2_000))]

    #[test]
    fn a_log_gives_receipts_that_verify(sizes in vec(1_usize..40, 1..12), pick in any::<[prop::sample::Index; 3]>()) {
        let log = Log::in_memory().unwrap();
        let mut next = 0..;
        let mut ends = vec![0];
        for size in &sizes {
            log.append(&[request(&next.by_ref().take(*size).collect::<Vec<_>>())]).unwrap();
            ends.push(log.len());
        }
        let batch = pick[0].index(sizes.len());
        let first = ends[batch] + pick[1].index(sizes[batch]) as u64;
        let end = first + 1 + pick[2].index(usize::try_from(ends[batch + 1] - first).unwrap()) as u64;
        let checkpoint = Checkpoint::new(log_key().verifier().name().clone(), log.tree_head().unwrap());
        let line = log_key().sign(&checkpoint, 0).unwrap();
        let receipt = signed_receipt(&log, first..end, &checkpoint, vec![line]).unwrap();
        let shown = receipt.verify(None, &recorded_trust(), TIME).unwrap();
        prop_assert_eq!(shown.entries(), log.entries(first..end).unwrap());
        prop_assert_eq!(shown.snapshots(), [log.snapshot(ends[batch + 1] - 1).unwrap()]);
        prop_assert_eq!(shown.is_end_claimed(), ends[batch + 1] > end + 1);
    }
}
