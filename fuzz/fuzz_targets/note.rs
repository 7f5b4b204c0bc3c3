//! Any bytes as a note, proof file, request to a witness, policy or key: no panic, and what is read is written back as it was. Honest files with bytes
//! of them changed: only their own checkpoint is ever accepted, and only their own leaf is in its tree.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use qed_core::hash::{Digest, merkle_leaf};
use qed_core::tlog::add_checkpoint::AddCheckpoint;
use qed_core::tlog::checkpoint::Checkpoint;
use qed_core::tlog::key::{KeyKind, VerifierKey};
use qed_core::tlog::merkle::{TreeHead, root_of};
use qed_core::tlog::note::Note;
use qed_core::tlog::policy::Policy;
use qed_core::tlog::proof_file::TlogProof;
use qed_core::tlog::signing::SigningKey;
use qed_core::tlog::text::{Name, to_base64};

/// A log of three leaves. The proof is of the second one.
struct Honest {
    text: String,
    files: [Vec<u8>; 3],
    leaves: [Digest; 3],
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
    let leaves = [b"a", b"b", b"c"].map(|leaf| merkle_leaf(leaf));
    let checkpoint =
        Checkpoint::new(signers[0].verifier().name().clone(), TreeHead::new(3, root_of(&leaves)).expect("a head"));
    let text = checkpoint.to_string();
    let lines = signers.iter().map(|signer| signer.sign(&checkpoint, 1).expect("a line")).collect();
    let note = Note::new(&text, lines).expect("a note").to_string();
    let [first, _, third] = leaves.each_ref().map(|leaf| to_base64(leaf.as_bytes()));
    let proof = format!("c2sp.org/tlog-proof@v1\nindex 1\n{first}\n{third}\n\n{note}");
    let files = [note.clone(), proof, format!("old 0\n\n{note}")].map(String::into_bytes);
    let keys: Vec<_> = signers.iter().map(|signer| signer.verifier().clone()).collect();
    let policy = format!("log {}\nlog {}\nwitness w {}\nquorum w\n", keys[0], keys[1], keys[2]);
    Honest { text, files, leaves, keys, policy: Policy::parse(policy.as_bytes()).expect("a policy") }
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

fn check(data: &[u8]) {
    if let Ok(note) = Note::parse(data) {
        assert_eq!(note.to_string().as_bytes(), data);
        verify(&note);
    }
    if let Ok(proof) = TlogProof::parse(data) {
        assert_eq!(proof.to_string().as_bytes(), data);
        if let Ok(endorsed) = HONEST.policy.verify(proof.note(), 1) {
            for (index, leaf) in (0..).zip(&HONEST.leaves) {
                assert!(proof.verify(leaf, &endorsed).is_err() || proof.index() == index);
            }
        }
    }
    if let Ok(request) = AddCheckpoint::parse(data) {
        assert_eq!(request.to_string().as_bytes(), data);
        if let Ok(submission) = request.verify(&HONEST.keys[..2]) {
            assert!(submission.signed_note().starts_with(&HONEST.text));
            let _ = submission.growth(None);
        }
    }
    let _ = Policy::parse(data);
    if let Ok(text) = std::str::from_utf8(data) {
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
