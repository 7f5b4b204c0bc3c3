//! Any bytes as a receipt, bundle or trust file: no panic, and what is read is written so that it is read again. An honest receipt with
//! bytes of it changed: it shows nothing but what it showed.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use qed_core::entry_prover::EntryProver;
use qed_core::hash::Digest;
use qed_core::log::{Log, Request};
use qed_core::tlog::bundle::{Saved, SignedBundle};
use qed_core::tlog::checkpoint::Checkpoint;
use qed_core::tlog::entry::Entry;
use qed_core::tlog::key::KeyKind;
use qed_core::tlog::note::Note;
use qed_core::tlog::receipt::SignedReceipt;
use qed_core::tlog::signing::SigningKey;
use qed_core::tlog::text::Name;
use qed_core::tlog::trust_file::TrustFile;

struct Honest {
    receipt: Vec<u8>,
    bundle: Vec<u8>,
    entries: Vec<Entry>,
    trust: TrustFile,
}

static HONEST: LazyLock<Honest> = LazyLock::new(|| {
    let key = |name: &str, kind, seed| {
        SigningKey::from_seed(Name::parse(name).expect("a name"), kind, &[seed; 32]).expect("a key")
    };
    let (log_key, witness) = (key("log.example.com", KeyKind::Ed25519, 1), key("w", KeyKind::Cosignature, 2));
    let log = Log::in_memory().expect("a log");
    for batch in [0..1_u8, 1..4, 4..6] {
        let digests = batch.map(|event| Digest::of_event(&[event])).collect();
        log.append(&[Request { digests, if_absent: false }]).expect("an append");
    }
    let checkpoint = Checkpoint::new(log_key.verifier().name().clone(), log.tree_head().expect("a head"));
    let lines = || vec![log_key.sign(&checkpoint, 0).expect("a line"), witness.sign(&checkpoint, 1).expect("a line")];
    let receipts = log.receipts(&checkpoint, lines()).expect("what makes receipts");
    let receipt = receipts.receipt(1..3).expect("a receipt").to_json().into_bytes();
    let digest = Digest::of_event(&[0]);
    let answer = log.prove(&digest, None).expect("an answer");
    let saved = Saved::Membership { digest, version: None, answer };
    let note = Note::new(&checkpoint.to_string(), lines()).expect("a note");
    let runs = vec![EntryProver::new(&log, 6).and_then(|prover| prover.run(&(5..6))).expect("a run")];
    let bundle = SignedBundle::new(saved, runs, note).expect("a bundle").to_json().into_bytes();
    let trust = format!("log {}\nwitness w {}\nquorum w\n", log_key.verifier(), witness.verifier());
    let entries = log.entries(0..6).expect("entries");
    Honest { receipt, bundle, entries, trust: TrustFile::parse(trust.as_bytes()).expect("a trust file") }
});

fn check(data: &[u8]) {
    if let Ok(receipt) = SignedReceipt::from_json(data) {
        assert_eq!(SignedReceipt::from_json(receipt.to_json().as_bytes()).expect("what was written"), receipt);
        let _ = receipt.to_proof();
        if let Ok(shown) = receipt.verify(None, &HONEST.trust, 1) {
            assert!(shown.entries().iter().chain(shown.batch_end()).all(|entry| HONEST.entries.contains(entry)));
        }
    }
    if let Ok(bundle) = SignedBundle::from_json(data) {
        assert_eq!(SignedBundle::from_json(bundle.to_json().as_bytes()).expect("what was written"), bundle);
        let _ = bundle.to_proof();
        if let Ok(shown) = bundle.verify(&HONEST.trust, 1) {
            assert!(shown.entries().iter().all(|entry| HONEST.entries.contains(entry)));
        }
    }
    let _ = TrustFile::parse(data);
}

fuzz_target!(|input: (Vec<(u16, u8)>, Vec<u8>)| {
    let (edits, data) = input;
    check(&data);
    for honest in [&HONEST.receipt, &HONEST.bundle] {
        let mut changed = honest.clone();
        for (place, value) in &edits {
            let place = usize::from(*place) % changed.len();
            changed[place] = *value;
        }
        check(&changed);
    }
});
