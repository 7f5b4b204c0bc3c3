//! Any bytes as evidence: no panic, and what is read is written so that it is read again. Evidence about an honest log with bytes of it
//! changed: it convicts nobody.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use qed_core::hash::Digest;
use qed_core::log::{Log, Request};
use qed_core::tlog::checkpoint::Checkpoint;
use qed_core::tlog::entry::Entry;
use qed_core::tlog::evidence::{Charge, Evidence, Leaf, ProvenLeaf, Verdict};
use qed_core::tlog::key::KeyKind;
use qed_core::tlog::merkle::{consistency, inclusion};
use qed_core::tlog::note::Note;
use qed_core::tlog::signing::SigningKey;
use qed_core::tlog::text::Name;
use qed_core::tlog::trust_file::TrustFile;

struct Honest {
    files: Vec<Vec<u8>>,
    trust: TrustFile,
}

static HONEST: LazyLock<Honest> = LazyLock::new(|| {
    let name = Name::parse("log.example.com").expect("a name");
    let key = SigningKey::from_seed(name.clone(), KeyKind::Ed25519, &[1; 32]).expect("a key");
    let log = Log::in_memory().expect("a log");
    let mut notes = Vec::new();
    for batch in [0..1_u8, 1..4, 4..6] {
        let digests = batch.map(|event| Digest::of_event(&[event])).collect();
        log.append(&[Request { digests, if_absent: false }]).expect("an append");
        let checkpoint = Checkpoint::new(name.clone(), log.tree_head().expect("a head"));
        let line = key.sign(&checkpoint, 0).expect("a line");
        notes.push(Note::new(&checkpoint.to_string(), vec![line]).expect("a note"));
    }
    let [_, four, six] = notes.as_slice() else { panic!("three notes") };
    let proven = |note: &Note, size| {
        let entry = log.entries(2..3).expect("an entry").first().map(Entry::to_bytes).expect("an entry");
        let proof = inclusion(&log, 2, size).expect("a proof");
        ProvenLeaf { note: note.clone(), leaf: Leaf::Entry(entry), proof }
    };
    let proof = Some(consistency(&log, 4, 6).expect("a proof"));
    let charges = [
        Charge::SameSize { a: four.clone(), b: four.clone() },
        Charge::SameIndex { index: 2, a: proven(four, 4), b: proven(six, 6) },
        Charge::InvalidEntry { index: 2, a: proven(four, 4), replay: None },
        Charge::Suspicion { a: four.clone(), b: six.clone(), consistency: proof },
    ];
    let file = |charge| {
        let vkeys = vec![key.verifier().clone()];
        let evidence = Evidence { origin: name.clone(), vkeys, charge, found_at: Some(1), sources: vec!["s".into()] };
        evidence.to_json().into_bytes()
    };
    let trust = TrustFile::parse(format!("log {}\nquorum none\n", key.verifier()).as_bytes()).expect("a trust file");
    Honest { files: charges.into_iter().map(file).collect(), trust }
});

fn check(data: &[u8]) {
    if let Ok(evidence) = Evidence::from_json(data) {
        assert_eq!(Evidence::from_json(evidence.to_json().as_bytes()).expect("what was written"), evidence);
        let _ = evidence.name();
        if let Ok(judgement) = evidence.judge(&HONEST.trust) {
            assert_ne!(judgement.verdict, Verdict::Convicted);
        }
    }
}

fuzz_target!(|input: (Vec<(u16, u8)>, Vec<u8>)| {
    let (edits, data) = input;
    check(&data);
    for honest in &HONEST.files {
        let mut changed = honest.clone();
        for (place, value) in &edits {
            let place = usize::from(*place) % changed.len();
            changed[place] = *value;
        }
        check(&changed);
    }
});
