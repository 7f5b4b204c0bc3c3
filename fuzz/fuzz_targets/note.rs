//! Any bytes as a note, proof file, request to a witness, policy or key: no panic, and what is read is written back as it was. An honest note with bytes
//! of it changed: only its own checkpoint is ever accepted.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use qed_core::hash::Digest;
use qed_core::tlog::add_checkpoint::AddCheckpoint;
use qed_core::tlog::checkpoint::Checkpoint;
use qed_core::tlog::key::{KeyKind, VerifierKey};
use qed_core::tlog::merkle::TreeHead;
use qed_core::tlog::note::Note;
use qed_core::tlog::policy::Policy;
use qed_core::tlog::proof_file::TlogProof;
use qed_core::tlog::signing::SigningKey;
use qed_core::tlog::text::Name;

struct Honest {
    text: String,
    note: Vec<u8>,
    keys: Vec<VerifierKey>,
    policy: Policy,
}

static HONEST: LazyLock<Honest> = LazyLock::new(|| {
    let key = |name: &str, kind, seed| SigningKey::from_seed(Name::parse(name).expect("a name"), kind, &[seed; 32]);
    let signers = [
        key("log.example.com", KeyKind::Ed25519, 1).expect("a key"),
        key("log.example.com", KeyKind::MlDsa44, 2).expect("a key"),
        key("witness.example.com", KeyKind::Cosignature, 3).expect("a key"),
    ];
    let head = TreeHead::new(1, Digest::of_event(b"leaf")).expect("a head");
    let checkpoint = Checkpoint::new(signers[0].verifier().name().clone(), head);
    let text = checkpoint.to_string();
    let lines = signers.iter().map(|signer| signer.sign(&checkpoint, 1).expect("a line")).collect();
    let note = Note::new(&text, lines).expect("a note").to_string().into_bytes();
    let keys: Vec<_> = signers.iter().map(|signer| signer.verifier().clone()).collect();
    let policy = format!("log {}\nlog {}\nwitness w {}\nquorum w\n", keys[0], keys[1], keys[2]);
    Honest { text, note, keys, policy: Policy::parse(policy.as_bytes()).expect("a policy") }
});

fn verify(note: &Note) {
    if let Ok(verified) = note.verify(&HONEST.keys) {
        // ML-DSA-44 does not sign extension lines, which signature lines become when they are moved into the text.
        let signs_all = verified.lines().iter().any(|line| line.key().kind() != KeyKind::MlDsa44);
        assert!(!signs_all || verified.text() == HONEST.text);
        if let Ok(checkpoint) = verified.checkpoint(&HONEST.keys[..2]) {
            assert_eq!(checkpoint.to_string(), HONEST.text);
        }
    }
    let _ = HONEST.policy.verify(note, 1);
}

fuzz_target!(|input: (Vec<(u16, u8)>, Vec<u8>)| {
    let (edits, data) = input;
    if let Ok(note) = Note::parse(&data) {
        assert_eq!(note.to_string().as_bytes(), data);
        verify(&note);
    }
    if let Ok(proof) = TlogProof::parse(&data) {
        assert_eq!(proof.to_string().as_bytes(), data);
    }
    if let Ok(request) = AddCheckpoint::parse(&data) {
        assert_eq!(request.to_string().as_bytes(), data);
        if let Ok(submission) = request.verify(&HONEST.keys[..2]) {
            assert!(submission.signed_note().starts_with(&HONEST.text));
            let _ = submission.growth(None);
        }
    }
    let _ = Policy::parse(&data);
    if let Ok(text) = std::str::from_utf8(&data) {
        if let Ok(key) = text.parse::<VerifierKey>() {
            assert_eq!(key.to_string(), text);
        }
        if let Ok(key) = SigningKey::parse(text) {
            assert_eq!(key.to_secret_text(), text);
        }
        if let Ok(checkpoint) = Checkpoint::parse(text) {
            assert_eq!(checkpoint.to_string(), text);
        }
    }
    let mut note = HONEST.note.clone();
    for (place, value) in edits {
        let place = usize::from(place) % note.len();
        note[place] = value;
    }
    if let Ok(note) = Note::parse(&note) {
        verify(&note);
    }
});
