//! Requests to witnesses: the recorded run, requests from attackers, and what a witness signs.

use std::sync::LazyLock;

use proptest::collection::vec;
use proptest::prelude::*;
use qed_core::hash::Digest;
use qed_core::tlog::add_checkpoint::{
    AddCheckpoint, Growth, MAX_REQUEST_BYTES, MAX_REQUEST_HASHES, Submission, log_keys as parse_keys, submitter_keys,
};
use qed_core::tlog::key::{KeyKind, VerifierKey};
use qed_core::tlog::merkle::{TreeHead, consistency, root_at};
use qed_core::tlog::note::Note;
use qed_core::tlog::signing::SigningKey;
use qed_core::tlog::text::{Name, to_base64};
use serde_json::Value;

use crate::edits::{damage, damaged, damaging};
use crate::model::{
    Leaves, TIME, VECTORS, body, checkpoint, honest, line, log_key, ml_dsa_key, sign, sign_anything, signing_key, text,
    vkey, witness_key,
};

const ZERO: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

fn parse(request: &str) -> AddCheckpoint {
    let parsed = AddCheckpoint::parse(request.as_bytes()).unwrap();
    assert_eq!(parsed.to_string(), request);
    parsed
}

fn log_keys() -> [VerifierKey; 2] {
    [log_key().verifier().clone(), ml_dsa_key().verifier().clone()]
}

fn signed(request: &str) -> Submission {
    parse(request).verify(&log_keys()).unwrap()
}

fn first() -> Growth {
    signed(&format!("old 0\n\n{}", honest())).growth(None).unwrap()
}

/// Return a request over `body`, signed with the Ed25519 key of the log even if the text is nonsense.
fn request(old: &str, proof: &[&str], body: &str) -> String {
    let hashes: String = proof.iter().map(|hash| hash.to_string() + "\n").collect();
    format!("old {old}\n{hashes}\n{body}\n{}\n", sign_anything(&log_key(), body, 0))
}

fn assert_malformed(request: &str) {
    assert!(AddCheckpoint::parse(request.as_bytes()).is_err(), "{request:?}");
}

/// Answer a request as a witness does, but keep what was cosigned in `last`.
fn answer(last: &mut Option<TreeHead>, key: &VerifierKey, request: &str) -> u64 {
    let parsed = parse(request);
    if parsed.claimed_origin() != key.name() {
        return 404;
    }
    let Ok(submission) = parsed.verify(std::slice::from_ref(key)) else { return 403 };
    let (old, size, root) = (submission.old(), submission.size(), *submission.root());
    if old > size {
        return 400;
    }
    if old != last.map_or(0, |head| head.size()) {
        return 409;
    }
    if submission.growth(last.as_ref()).is_err() {
        return 422;
    }
    *last = Some(TreeHead::new(size, root).unwrap());
    200
}

#[test]
fn a_submitter_has_a_key_of_a_witness_and_a_name_below_that_of_the_log() {
    let origin = Name::parse("log.example.com/x").unwrap();
    let seed = |byte: u8| Digest::new([byte; 32]).to_string();
    let of = |name: &str, kind, byte| signing_key(name, kind, &seed(byte)).verifier().to_string();
    let first = of("log.example.com/x/m/1", KeyKind::Cosignature, 1);
    let second = of("log.example.com/x/m/2", KeyKind::MlDsa44, 2);
    let keys = submitter_keys(&[&first, &second], &origin).unwrap();
    assert_eq!(keys.iter().map(ToString::to_string).collect::<Vec<_>>(), [first.clone(), second]);
    let wrong = [
        of("log.example.com/x", KeyKind::Cosignature, 1),
        of("log.example.com/xy", KeyKind::Cosignature, 1),
        of("log.example.com", KeyKind::Cosignature, 1),
        of("witness.example.com/x", KeyKind::Cosignature, 1),
        of("log.example.com/x/m/1", KeyKind::Ed25519, 1),
        first.clone(),
        "nonsense".into(),
    ];
    for vkey in wrong {
        assert!(submitter_keys(&[&first, &vkey], &origin).is_err(), "{vkey}");
    }
    assert!(submitter_keys::<&str>(&[], &origin).unwrap_err().0.contains("found none"));
}

#[test]
fn an_answer_has_signature_lines_and_cannot_change_the_text() {
    let line = format!("{}\n", sign(&log_key(), &body(), 0));
    let note = Note::answered(&body(), line.as_bytes()).unwrap();
    assert_eq!(note, Note::parse(format!("{}\n{line}", body()).as_bytes()).unwrap());
    let hidden = sign_anything(&log_key(), &format!("{}\n{line}", body()), 0);
    for wrong in ["", "\n", "x\n", line.trim_end(), &format!("\n{line}"), &format!("{line}\n{hidden}\n")] {
        assert!(Note::answered(&body(), wrong.as_bytes()).is_err(), "{wrong:?}");
    }
}

#[test]
fn the_recorded_run_of_a_witness_ends_as_recorded() {
    let key = vkey("/witness_run/vkey");
    let mut last = None;
    let steps = VECTORS["witness_run"]["steps"].as_array().unwrap();
    assert_eq!(steps.len(), 12);
    for (number, step) in steps.iter().enumerate() {
        let status = answer(&mut last, &key, step["request"].as_str().unwrap());
        assert_eq!(Value::from(status), step["status"], "step {}", number + 1);
    }
    assert_eq!(last.unwrap().size(), 5);
}

#[test]
fn a_cosignature_is_the_recorded_one_and_beside_the_line_of_the_log() {
    let cosigned = first().cosign(&[witness_key()], TIME).unwrap();
    let [own] = cosigned.lines() else { panic!("one key") };
    assert_eq!(*own, sign(&witness_key(), &body(), TIME));
    assert_eq!(cosigned.note().to_string(), format!("{}{own}\n", honest()));
}

#[test]
fn the_recorded_cosignature_of_another_witness_is_made_again() {
    let (name, _) = text("/cosigned/witness_vkey").split_once('+').unwrap();
    let witness = signing_key(name, KeyKind::Cosignature, text("/cosigned/witness_seed"));
    assert_eq!(witness.verifier().to_string(), text("/cosigned/witness_vkey"));
    let (body, lines) = text("/cosigned/checkpoint").split_once("\n\n").unwrap();
    let log = signing_key(text("/cosigned/origin"), KeyKind::Ed25519, text("/own/log/seed"));
    let body = format!("{body}\n");
    let request = format!("old 0\n\n{body}\n{}\n", sign_anything(&log, &body, 0));
    let growth = parse(&request).verify(&[log.verifier().clone()]).unwrap().growth(None).unwrap();
    let cosigned = growth.cosign(&[witness], 1_767_139_200).unwrap();
    assert_eq!(cosigned.lines()[0].to_string(), lines.lines().last().unwrap());
}

#[test]
fn both_keys_of_a_witness_sign_and_lines_of_the_request_are_dropped() {
    let second = signing_key("witness.example.com/w", KeyKind::MlDsa44, text("/own/mldsa/seed"));
    let forged = line(text("/own/witness/name"), witness_key().verifier().id().0, &[7; 72]);
    let foreign = line("somebody", [1; 4], &[7; 64]);
    let submission = signed(&format!("old 0\n\n{}{forged}{foreign}", honest()));
    assert_eq!(submission.signed_note(), honest());
    let cosigned = submission.growth(None).unwrap().cosign(&[witness_key(), second.clone()], TIME).unwrap();
    assert_eq!(cosigned.lines().len(), 2);
    let own: String = cosigned.lines().iter().map(|line| line.to_string() + "\n").collect();
    assert_eq!(cosigned.note().to_string(), format!("{}{own}", honest()));
    let verified = cosigned.note().verify(&[witness_key().verifier().clone(), second.verifier().clone()]).unwrap();
    assert!(verified.lines().iter().all(|line| line.time() == Some(TIME)));
}

#[test]
fn a_request_is_written_as_it_is_read() {
    let leaves = Leaves::numbered(9);
    let proof = consistency(&leaves, 3, 9).unwrap();
    let note = Note::parse(honest().as_bytes()).unwrap();
    let request = AddCheckpoint::new(3, &proof, &note).unwrap();
    let lines: String = proof.iter().map(|hash| to_base64(hash.as_bytes()) + "\n").collect();
    assert_eq!(request.to_string(), format!("old 3\n{lines}\n{}", honest()));
    assert_eq!(parse(&request.to_string()), request);
    assert!(AddCheckpoint::new(3, &vec![proof[0]; MAX_REQUEST_HASHES], &note).is_ok());
    assert!(AddCheckpoint::new(3, &vec![proof[0]; MAX_REQUEST_HASHES + 1], &note).is_err());
}

#[test]
fn what_is_not_a_request_is_refused() {
    let good = request("0", &[], &body());
    parse(&good);
    for bad in [
        good.replacen("old 0\n", "", 1),
        good.replacen("old 0", "old  0", 1),
        good.replacen("old 0", "Old 0", 1),
        good.replacen("old 0", "old 00", 1),
        good.replacen("old 0", "old +0", 1),
        good.replacen("old 0", "old -1", 1),
        good.replacen("old 0", "old ", 1),
        good.replacen("old 0", "old 0 ", 1),
        good.replacen("old 0", "old 9223372036854775808", 1),
        good.replacen("old 0", "old 18446744073709551616", 1),
        good.replacen("old 0", &format!("old 1{}", "0".repeat(30)), 1),
        good.replacen("old 0\n\n", "old 0\n", 1),
        good.replacen("old 0\n\n", "old 0\n\n\n", 1),
        good.replacen("old 0\n", &format!("old 0\n{}\n", &ZERO[1..]), 1),
        good.replacen("old 0\n", &format!("old 0\n {ZERO}\n"), 1),
        good.replacen("old 0\n", &format!("old 0\n{}\n", ZERO.replace("AA=", "AB=")), 1),
        good.replace('\n', "\r\n"),
        format!("\u{feff}{good}"),
        format!("{good}\n"),
        good.trim_end().to_owned(),
        String::new(),
        "old 0\n\n".to_owned(),
        request("0", &[], &body().replace("\n5\n", "\n05\n")),
        request("0", &[], &body().replace("\n5\n", "\n9223372036854775808\n")),
        request("0", &[], "only one line\n"),
        request("0", &[], &format!("{}\nlater\n", body())),
    ] {
        assert_malformed(&bad);
    }
    parse(&request("9223372036854775807", &[], &body()));
}

#[test]
fn a_request_is_bounded_before_it_is_decoded() {
    parse(&request("3", &[ZERO; MAX_REQUEST_HASHES], &body()));
    assert_malformed(&request("3", &[ZERO; MAX_REQUEST_HASHES + 1], &body()));
    let padded = |bytes: usize| {
        let good = request("0", &[], &body());
        let start = line("n", [1; 4], b"x");
        let room = bytes - good.len() - start.len();
        // Three bytes are four characters of base64, so the name makes up for the rest.
        let name = "n".repeat(room % 4 + 1);
        let padding = line(&name, [1; 4], &vec![b'x'; 1 + (room - room % 4) / 4 * 3]);
        let request = format!("{good}{padding}");
        assert!(request.len().abs_diff(bytes) <= 4, "{}", request.len());
        request
    };
    let largest = padded(MAX_REQUEST_BYTES - 8);
    parse(&largest);
    assert_malformed(&padded(MAX_REQUEST_BYTES + 8));
}

#[test]
fn only_the_keys_of_the_log_count_and_all_of_them_must_verify() {
    let request = request("0", &[], &body());
    let verify = |request: &str, keys: &[VerifierKey]| parse(request).verify(keys).map(drop);
    verify(&request, &log_keys()).unwrap();
    assert_eq!(verify(&request, &[ml_dsa_key().verifier().clone()]).unwrap_err().check, "signature lines");
    assert_eq!(verify(&request, &[]).unwrap_err().check, "signature lines");
    let id = ml_dsa_key().verifier().id().0;
    let failing = format!("{request}{}", line(text("/own/origin"), id, &[0; 2428]));
    verify(&failing, &[log_key().verifier().clone()]).unwrap();
    assert_eq!(verify(&failing, &log_keys()).unwrap_err().check, "signature");
}

#[test]
fn a_key_may_have_another_name_than_the_log() {
    let key = signing_key("key.example.com", KeyKind::Ed25519, text("/own/log/seed"));
    let request = format!("old 0\n\n{}\n{}\n", body(), sign_anything(&key, &body(), 0));
    let submission = parse(&request).verify(&[key.verifier().clone()]).unwrap();
    assert_eq!(submission.origin().as_str(), text("/own/origin"));
    submission.growth(None).unwrap().cosign(&[witness_key()], TIME).unwrap();
}

#[test]
fn a_tree_of_size_0_has_one_root_and_any_tree_extends_it() {
    let empty = to_base64(qed_core::hash::merkle_empty().as_bytes());
    let of = |size: &str, root: &str| format!("{}\n{size}\n{root}\n", text("/own/origin"));
    let growth = |request: &str, last: Option<&TreeHead>| signed(request).growth(last).map(drop);
    growth(&request("0", &[], &of("0", &empty)), None).unwrap();
    assert_eq!(growth(&request("0", &[], &of("0", ZERO)), None).unwrap_err().check, "shape");
    let head = TreeHead::new(0, qed_core::hash::merkle_empty()).unwrap();
    growth(&request("0", &[], &of("0", &empty)), Some(&head)).unwrap();
    growth(&request("0", &[], &body()), Some(&head)).unwrap();
    assert_eq!(growth(&request("0", &[ZERO], &body()), Some(&head)).unwrap_err().check, "number of hashes");
    assert_eq!(growth(&request("0", &[ZERO], &body()), None).unwrap_err().check, "number of hashes");
}

#[test]
fn nonsense_that_an_ml_dsa_key_signed_is_signed_and_no_growth() {
    let claim = format!("{}\n0\n{ZERO}\n", text("/own/origin"));
    let name = ml_dsa_key().verifier().name().clone();
    let length = u8::try_from(name.as_str().len()).unwrap();
    let start = [b"subtree/v1\n\0".as_slice(), &[length], name.as_str().as_bytes(), &TIME.to_be_bytes()].concat();
    let message = [start.as_slice(), &[length], name.as_str().as_bytes(), &[0; 48]].concat();
    let key = ml_dsa::SigningKey::<ml_dsa::MlDsa44>::from_seed(
        &crate::model::digest_of(text("/own/mldsa/seed")).as_bytes().to_owned().into(),
    );
    let signature = key.expanded_key().sign_deterministic(&message, &[]).unwrap().encode().to_vec();
    let bytes = [TIME.to_be_bytes().to_vec(), signature].concat();
    let request = format!("old 0\n\n{claim}\n{}", line(name.as_str(), ml_dsa_key().verifier().id().0, &bytes));
    assert_eq!(signed(&request).growth(None).unwrap_err().check, "shape");
    // The message is the one that is verified: another root fails.
    let other = request.replace(ZERO, &format!("B{}", &ZERO[1..]));
    assert_eq!(parse(&other).verify(&log_keys()).unwrap_err().check, "signature");
}

#[test]
fn the_same_size_has_the_same_root_and_no_proof() {
    let last = checkpoint().head;
    let growth = |request: &str, last: &TreeHead| signed(request).growth(Some(last)).map(drop);
    growth(&request("5", &[], &body()), &last).unwrap();
    assert_eq!(growth(&request("5", &[ZERO], &body()), &last).unwrap_err().check, "number of hashes");
    let other = TreeHead::new(5, *root_head(4).root()).unwrap();
    assert_eq!(growth(&request("5", &[], &body()), &other).unwrap_err().check, "root");
}

fn root_head(size: u64) -> TreeHead {
    TreeHead::new(size, root_at(&Leaves::numbered(size), size).unwrap()).unwrap()
}

#[test]
fn extension_lines_are_cosigned_only_if_every_signature_covers_them() {
    let extended = format!("{}more\n", body());
    assert!(parse(&request("0", &[], &extended)).has_extensions());
    assert!(!parse(&request("0", &[], &body())).has_extensions());
    // ML-DSA-44 of the log does not sign them.
    let ml_dsa = format!("old 0\n\n{extended}\n{}\n", sign(&ml_dsa_key(), &body(), TIME));
    assert_eq!(parse(&ml_dsa).verify(&log_keys()).unwrap_err().check, "extension lines");
    let both = format!("{}{}\n", request("0", &[], &extended), sign(&ml_dsa_key(), &body(), TIME));
    let growth = signed(&both).growth(None).unwrap();
    let second = signing_key(text("/own/witness/name"), KeyKind::MlDsa44, text("/own/mldsa/seed"));
    let cosigned = growth.cosign(&[witness_key(), second.clone()], TIME).unwrap();
    let [own] = cosigned.lines() else { panic!("expected the line of kind 04 only") };
    assert_eq!(own.id(), witness_key().verifier().id());
    let note = cosigned.note().to_string();
    assert!(note.starts_with(&extended));
    Note::parse(note.as_bytes()).unwrap().verify(&[witness_key().verifier().clone()]).unwrap();
    growth.cosign(&[second], TIME).unwrap_err();
}

#[test]
fn the_keys_of_a_log_are_of_its_kinds_and_listed_once() {
    let own = log_keys().map(|key| key.to_string());
    assert_eq!(parse_keys(&own).unwrap(), log_keys());
    assert!(parse_keys(&[&own[0], &own[1], &own[0]]).is_err());
    assert!(parse_keys(&[text("/own/witness/vkey")]).is_err());
    assert!(parse_keys(&["nonsense"]).is_err());
}

#[test]
fn what_cannot_be_cosigned_is_an_error() {
    let growth = first();
    growth.cosign(&[], TIME).unwrap_err();
    growth.cosign(&[witness_key()], 0).unwrap_err();
    growth.cosign(&[witness_key()], u64::MAX).unwrap_err();
    growth.cosign(&[witness_key(), witness_key()], TIME).unwrap_err();
    // A key of the log under which the checkpoint is already signed.
    growth.cosign(&[log_key()], TIME).unwrap_err();
    let other: SigningKey = signing_key("other", KeyKind::Ed25519, text("/own/log/seed"));
    growth.cosign(&[other], TIME).unwrap_err();
}

/// Honest requests of one log as it grows: the old size and the new one, and the body.
static HONEST: LazyLock<Vec<([u64; 2], String)>> = LazyLock::new(|| {
    let sizes = [[0, 0], [0, 1], [0, 40], [1, 2], [3, 7], [4, 8], [7, 40], [8, 8], [13, 64], [39, 40]];
    let made = |[old, size]: [u64; 2]| {
        let proof = consistency(&Leaves::numbered(size), old, size).unwrap();
        let proof: Vec<_> = proof.iter().map(|hash| to_base64(hash.as_bytes())).collect();
        let proof: Vec<_> = proof.iter().map(String::as_str).collect();
        let body = format!("{}\n{size}\n{}\n", text("/own/origin"), to_base64(root_head(size).root().as_bytes()));
        let made = request(&old.to_string(), &proof, &body);
        signed(&made).growth((old > 0).then(|| root_head(old)).as_ref()).unwrap();
        ([old, size], made)
    };
    sizes.map(made).into()
});

proptest! {
    #![proptest_config(damaging(2_000))]

    #[test]
    fn a_damaged_request_grows_to_nothing_else(which in 0_usize..10, donor in 0_usize..10, damages in vec(damage(), 1..4)) {
        let ([old, size], honest) = &HONEST[which];
        let damaged = damaged(honest.as_bytes(), HONEST[donor].1.as_bytes(), &damages);
        let Ok(read) = AddCheckpoint::parse(&damaged) else { return Ok(()) };
        prop_assert_eq!(read.to_string().into_bytes(), damaged);
        let Ok(submission) = read.verify(&log_keys()) else { return Ok(()) };
        let found = submission.size();
        prop_assert!(found == *size || found == HONEST[donor].0[1]);
        prop_assert_eq!(*submission.root(), *root_head(found).root());
        let last = (*old > 0).then(|| root_head(*old));
        if submission.old() == *old && let Ok(growth) = submission.growth(last.as_ref()) {
            prop_assert_eq!(growth.cosign(&[witness_key()], TIME).unwrap().lines().len(), 1);
        }
    }
}
