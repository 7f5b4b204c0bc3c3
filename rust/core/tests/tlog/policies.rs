//! Policies with mistakes, and what a policy asks for.

use std::fmt::Write as _;

use qed_core::hash::{Digest, note_key_id};
use qed_core::tlog::checkpoint::Checkpoint;
use qed_core::tlog::key::{KeyId, KeyKind, VerifierKey, checkpoint_message};
use qed_core::tlog::note::{Line, Note};
use qed_core::tlog::policy::{Policy, PolicyError, Quorum};
use qed_core::tlog::signing::SigningKey;
use qed_core::tlog::text::{MAX_NUMBER, to_base64};

use crate::model::{
    TIME, body, checkpoint, digest_of, honest, line, log_key, ml_dsa_key, sign, sign_anything, signing_key, text,
    witness_key,
};

const SEED: &str = "0101010101010101010101010101010101010101010101010101010101010101";

fn key(name: &str, kind: KeyKind) -> SigningKey {
    signing_key(name, kind, SEED)
}

/// The lines of a policy: two logs, three witnesses, and groups.
fn policy_lines() -> Vec<String> {
    let seeds = [3_u8, 4, 5].map(|i| Digest::new([i; 32]).to_string());
    let witness = |i: usize| signing_key(&format!("w{i}.example.com"), KeyKind::Cosignature, &seeds[i]);
    vec![
        "# comment # with more".into(),
        String::new(),
        format!("log {} https://log.example.com/", log_key().verifier()),
        format!("  log\t{}  ", ml_dsa_key().verifier()),
        format!("witness A {} https://a.example.com/w", witness(0).verifier()),
        format!("witness B {}", witness(1).verifier()),
        format!("witness C {}", witness(2).verifier()),
        "group inner any B C".into(),
        "group outer 2 A inner".into(),
        "quorum outer".into(),
    ]
}

fn read(lines: &[String]) -> Result<Policy, PolicyError> {
    Policy::parse(format!("{}\n", lines.join("\n")).as_bytes())
}

/// A quorum that one witness meets.
fn met_at(time: u64) -> Quorum {
    Quorum::Met { existed_at: time, confirmed_at: time }
}

fn key_of(name: &str, i: u8, kind: KeyKind, seed: &str) -> VerifierKey {
    signing_key(&format!("{name}{i}"), kind, seed).verifier().clone()
}

#[test]
fn a_policy_is_read() {
    let policy = read(&policy_lines()).unwrap();
    assert_eq!((policy.logs().len(), policy.witnesses().len(), policy.has_quorum()), (2, 3, true));
    assert_eq!(policy.logs()[0].url.as_deref(), Some(b"https://log.example.com/".as_slice()));
    assert_eq!(policy.witnesses()[0].name, b"A");
    let bytes = ["witness", "\u{e9}\u{2603}", &policy.witnesses()[0].key.to_string()].join(" ");
    let policy = Policy::parse(format!("{bytes}\nquorum \u{e9}\u{2603}\n").as_bytes()).unwrap();
    assert!(policy.logs().is_empty());
    let mut many = String::new();
    for i in 0..40 {
        let seed = Digest::new([i; 32]).to_string();
        let (log, witness) = (key_of("l", i, KeyKind::Ed25519, &seed), key_of("w", i, KeyKind::Cosignature, &seed));
        writeln!(many, "log {log}\nwitness w{i} {witness}\ngroup g{i} any w{i}").unwrap();
    }
    assert_eq!(Policy::parse(format!("{many}quorum g39\n").as_bytes()).unwrap().witnesses().len(), 40);
}

/// The text of a key with any bytes, under its correct id.
fn vkey_of(kind: u8, public_key: &[u8]) -> String {
    let id = KeyId(note_key_id("n", kind, public_key));
    format!("n+{id}+{}", to_base64([&[kind], public_key].concat()))
}

/// Check that a policy with another line is refused, with the number of that line.
fn assert_refused(line: usize, replacement: &str) {
    let mut lines = policy_lines();
    lines.truncate(line.max(10));
    match lines.get_mut(line - 1) {
        Some(text) => replacement.clone_into(text),
        None => lines.push(replacement.into()),
    }
    match read(&lines) {
        Err(error) => assert_eq!(error.line, line, "{replacement}: {error}"),
        Ok(_) => panic!("{replacement}"),
    }
}

#[test]
fn a_log_or_witness_with_a_mistake_is_refused_with_its_line() {
    let lines = policy_lines();
    let other = key("w9.example.com", KeyKind::Cosignature).verifier().to_string();
    let of_log = key("l9.example.com", KeyKind::Ed25519).verifier().to_string();
    let same_as_a = signing_key("again.example.com", KeyKind::Cosignature, &Digest::new([3; 32]).to_string());
    let same_as_log = signing_key("again.example.com", KeyKind::Ed25519, text("/own/log/seed"));
    let own_witness = key("log.example.com/qed-spec", KeyKind::Cosignature);
    for (line, replacement) in [
        (1, "\u{1}".into()),
        (1, "# comment\r".into()),
        (1, "\u{7f}".into()),
        (3, format!("log {other}")),
        (3, "log".into()),
        (3, format!("log {of_log} ftp://x")),
        (3, format!("log {of_log} https://")),
        (3, format!("log {of_log} https://x y")),
        (3, format!("log {of_log} # mine")),
        (3, format!("log {of_log} #mine")),
        (3, format!("log {}", of_log.replace("l9", "l8"))),
        (3, "log \u{e9}".into()),
        (3, format!("log {}", vkey_of(1, &[0; 32]))),
        (5, format!("witness A {}", vkey_of(4, &[0; 32]))),
        (5, format!("witness A {}", vkey_of(6, &ml_dsa_key().verifier().public_key()[..1311]))),
        (4, lines[2].clone()),
        (4, format!("log {}", same_as_log.verifier())),
        (5, format!("witness A {of_log}")),
        (5, format!("witness none {other}")),
        (5, format!("witness {other}")),
        (5, format!("witness A {}", own_witness.verifier())),
        (5, "witness A x y z".into()),
        (5, format!("witness #A {other}")),
        (6, format!("witness A {other}")),
        (6, format!("witness B {}", same_as_a.verifier())),
    ] {
        assert_refused(line, &replacement);
    }
}

#[test]
fn a_group_or_quorum_with_a_mistake_is_refused_with_its_line() {
    for (line, replacement) in [
        (8, "group inner any B D"),
        (8, "group inner any B none"),
        (8, "group inner any B B"),
        (8, "group inner any"),
        (8, "group inner all"),
        (8, "group inner 0 B C"),
        (8, "group inner 3 B C"),
        (8, "group inner 02 B C"),
        (8, "group inner some B C"),
        (8, "group inner 18446744073709551617 B C"),
        (8, "group A any B C"),
        (8, "group none any B C"),
        (8, "group inner any B C # both"),
        (8, "group inner any B inner"),
        (9, "group outer 2 A B inner"),
        (9, "group outer 2 A later"),
        (10, "quorum later"),
        (10, "quorum"),
        (10, "quorum outer none"),
        (10, "quorum outer #"),
        (10, "quorums outer"),
        (11, "quorum none"),
        (11, "unknown keyword"),
    ] {
        assert_refused(line, replacement);
    }
    let mut lines = policy_lines();
    lines.pop();
    assert_eq!(read(&lines).unwrap_err().line, 10);
    let no_end = Policy::parse(policy_lines().join("\n").as_bytes()).unwrap_err();
    assert_eq!(no_end.line, 10, "{no_end}");
    Policy::parse(b"").unwrap_err();
    Policy::parse(&vec![b'\n'; 10 << 20]).unwrap_err();
}

#[test]
fn a_quorum_is_met_by_the_right_witnesses_at_the_right_time() {
    let policy = read(&policy_lines()).unwrap();
    let text = body();
    let signers = [3_u8, 4, 5].map(|i| {
        let seed = Digest::new([i; 32]).to_string();
        signing_key(&format!("w{}.example.com", i - 3), KeyKind::Cosignature, &seed)
    });
    let endorsed = |times: [u64; 3]| {
        let cosigned = signers.iter().zip(times).filter(|(_, time)| *time > 0);
        let cosigned = cosigned.map(|(signer, time)| sign(signer, &text, time));
        let lines = std::iter::once(sign(&log_key(), &text, 0)).chain(cosigned).collect();
        let note = Note::new(&text, lines).unwrap();
        let endorsed = policy.verify_log(&note, 1000).unwrap();
        // A missing quorum is an error, unless the caller wants to collect cosignatures.
        match endorsed.quorum() {
            Quorum::Missing => assert_eq!(policy.verify(&note, 1000).unwrap_err().check, "quorum"),
            _ => assert_eq!(policy.verify(&note, 1000).unwrap(), endorsed),
        }
        endorsed
    };
    let met = |existed_at, confirmed_at| Quorum::Met { existed_at, confirmed_at };
    for (times, quorum) in [
        ([10, 20, 0], met(20, 10)),
        ([10, 20, 15], met(15, 10)),
        ([30, 20, 15], met(30, 20)),
        ([0, 20, 15], Quorum::Missing),
        ([10, 0, 0], Quorum::Missing),
        ([0, 0, 0], Quorum::Missing),
        ([10, 1001, 0], Quorum::Missing),
        ([10, 1000, 0], met(1000, 10)),
    ] {
        let endorsed = endorsed(times);
        assert_eq!(endorsed.quorum(), quorum, "{times:?}");
        assert_eq!(endorsed.is_met_since(0), quorum != Quorum::Missing, "{times:?}");
        assert!(!endorsed.is_met_since(1001));
    }
    let fresh = endorsed([10, 20, 15]);
    assert!(fresh.is_met_since(10) && !fresh.is_met_since(11));
    let none = Policy::parse(format!("log {}\nquorum none\n", log_key().verifier()).as_bytes()).unwrap();
    let signed = none.verify(&Note::parse(honest().as_bytes()).unwrap(), 0).unwrap();
    assert_eq!(signed.quorum(), Quorum::NotRequired);
    assert!(signed.is_met_since(u64::MAX));
}

#[test]
fn a_retired_key_counts_up_to_its_size() {
    let (old, new) = (log_key(), ml_dsa_key());
    let policy = format!("log {}\nwitness w {}\nquorum none\n", new.verifier(), witness_key().verifier());
    let policy = Policy::parse(policy.as_bytes()).unwrap();
    let note = Note::parse(honest().as_bytes()).unwrap();
    assert_eq!(policy.verify(&note, TIME).unwrap_err().check, "signature lines");
    let with = |max_size| policy.clone().with_retired(old.verifier().clone(), max_size).unwrap();
    assert_eq!(with(5).verify(&note, TIME).unwrap().checkpoint(), &checkpoint());
    assert_eq!(with(4).verify(&note, TIME).unwrap_err().check, "origin");
    // Beside a line of the new key it is not needed, but must not fail.
    let both = Note::new(&body(), vec![sign(&old, &body(), TIME), sign(&new, &body(), TIME)]).unwrap();
    with(4).verify(&both, TIME).unwrap();
    let other = body().replace("\n5\n", "\n6\n");
    let other = Note::new(&body(), vec![sign(&old, &other, TIME), sign(&new, &body(), TIME)]).unwrap();
    assert_eq!(with(4).verify(&other, TIME).unwrap_err().check, "signature");
    for wrong in [new, witness_key(), key("other.example.com", KeyKind::Ed25519)] {
        policy.clone().with_retired(wrong.verifier().clone(), 5).unwrap_err();
    }
    with(5).with_retired(old.verifier().clone(), 6).unwrap_err();
}

#[test]
fn a_url_is_any_bytes_behind_a_scheme() {
    for url in
        [b"HTTPS://log.example.com/".as_slice(), b"Http://x", "https://\u{e9}.example.com".as_bytes(), b"https://\xff"]
    {
        let line = [b"log ", log_key().verifier().to_string().as_bytes(), b" ", url, b"\nquorum none\n"].concat();
        assert_eq!(Policy::parse(&line).unwrap().logs()[0].url.as_deref(), Some(url));
    }
}

#[test]
fn a_policy_has_a_limited_number_of_parties() {
    let logs = |count: u32| -> String {
        let log =
            |i| format!("log {}\n", signing_key(&format!("l{i}"), KeyKind::Ed25519, &format!("{i:064x}")).verifier());
        (0..count).map(log).collect()
    };
    Policy::parse(format!("{}quorum none\n", logs(1000)).as_bytes()).unwrap();
    assert_eq!(Policy::parse(format!("{}quorum none\n", logs(1001)).as_bytes()).unwrap_err().line, 1001);
}

#[test]
fn two_keys_with_one_name_and_id_are_refused() {
    // Seeds found by trying: the ids of both keys are 23e1703c.
    let keys =
        [26_678, 37_223].map(|seed| signing_key("n", KeyKind::Ed25519, &format!("{seed:064x}")).verifier().to_string());
    let policy = format!("log {}\nlog {}\nquorum none\n", keys[0], keys[1]);
    assert_eq!(Policy::parse(policy.as_bytes()).unwrap_err().line, 2);
}

#[test]
fn groups_nest_as_deep_as_a_policy_is_long() {
    let witness = witness_key();
    let mut policy = format!("log {}\nwitness g0 {}\n", log_key().verifier(), witness.verifier());
    for i in 1..=40_000 {
        writeln!(policy, "group g{i} any g{}", i - 1).unwrap();
    }
    policy.push_str("quorum g40000\n");
    let policy = Policy::parse(policy.as_bytes()).unwrap();
    let text = body();
    let lines = vec![sign(&log_key(), &text, 0), sign(&witness, &text, TIME)];
    let endorsed = policy.verify(&Note::new(&text, lines).unwrap(), TIME).unwrap();
    assert_eq!(endorsed.quorum(), met_at(TIME));
}

#[test]
fn a_cosignature_counts_only_with_a_time_that_can_be_true() {
    let (log, witness) = (log_key(), witness_key());
    let policy = format!("log {}\nwitness w {}\nquorum w\n", log.verifier(), witness.verifier());
    let policy = Policy::parse(policy.as_bytes()).unwrap();
    let text = body();
    let with = |line: Line| Note::new(&text, vec![sign(&log, &text, 0), line]).unwrap();
    let met = |line: Line| policy.verify_log(&with(line), TIME).unwrap().quorum();
    assert_eq!(met(sign(&witness, &text, TIME)), met_at(TIME));
    assert_eq!(met(sign(&witness, &text, 1)), met_at(1));
    assert_eq!(met(sign(&witness, &text, TIME + 1)), Quorum::Missing);
    witness.sign(&checkpoint(), 0).unwrap_err();
    witness.sign(&checkpoint(), MAX_NUMBER + 1).unwrap_err();
    // These are signed correctly, by a witness that does what it must not.
    let at = |time| sign_anything(&witness, &text, time);
    assert_eq!(met(at(TIME)), met_at(TIME));
    assert_eq!(met(at(0)), Quorum::Missing);
    assert_eq!(policy.verify(&with(at(MAX_NUMBER + 1)), u64::MAX).unwrap_err().check, "signature");
    // The same with ML-DSA-44, for which a log may leave out the time, but not a witness.
    let seed = crate::model::text("/own/mldsa/seed");
    let witness = signing_key("w.example.com", KeyKind::MlDsa44, seed);
    let policy = format!("log {}\nwitness w {}\nquorum w\n", log.verifier(), witness.verifier());
    let policy = Policy::parse(policy.as_bytes()).unwrap();
    let secret = ml_dsa::SigningKey::<ml_dsa::MlDsa44>::from_seed(&(*digest_of(seed).as_bytes()).into());
    let quorum_at = |time: u64| {
        let message = checkpoint_message(witness.verifier().name(), time, &checkpoint());
        let signature = secret.expanded_key().sign_deterministic(&message, &[]).unwrap().encode();
        let line =
            line("w.example.com", witness.verifier().id().0, &[time.to_be_bytes().as_slice(), &signature].concat());
        policy.verify_log(&with(Line::parse(line.trim_end()).unwrap()), TIME).unwrap().quorum()
    };
    assert_eq!((quorum_at(1), quorum_at(0)), (met_at(1), Quorum::Missing));
}

#[test]
fn a_key_of_one_log_says_nothing_about_another() {
    let log = log_key();
    let text = body().replace("log.example.com/qed-spec", "other.example.com");
    let note = Note::new(&text, vec![sign_anything(&log, &text, TIME)]).unwrap();
    log.sign(&Checkpoint::parse(&text).unwrap(), TIME).unwrap_err();
    let keys = [log.verifier().clone()];
    assert_eq!(note.verify(&keys).unwrap().checkpoint(&keys).unwrap_err().check, "origin");
    let policy = Policy::parse(format!("log {}\nquorum none\n", log.verifier()).as_bytes()).unwrap();
    assert_eq!(policy.verify(&note, TIME).unwrap_err().check, "origin");
    // A log listed with another key of the same policy.
    let other = key("other.example.com", KeyKind::Ed25519);
    let both = format!("log {}\nlog {}\nquorum none\n", log.verifier(), other.verifier());
    assert_eq!(Policy::parse(both.as_bytes()).unwrap().verify(&note, TIME).unwrap_err().check, "origin");
    let cosigner = key("log.example.com/qed-spec", KeyKind::Cosignature);
    let note = Note::new(&body(), vec![sign(&cosigner, &body(), TIME)]).unwrap();
    let keys = [cosigner.verifier().clone()];
    assert_eq!(note.verify(&keys).unwrap().checkpoint(&keys).unwrap_err().check, "origin");
    // A witness with the name of the log, and a kind with which logs sign, whose key the caller knows to be no log's.
    let keys = [ml_dsa_key().verifier().clone()];
    let verified = Note::new(&body(), vec![sign(&ml_dsa_key(), &body(), TIME)]).unwrap().verify(&keys).unwrap();
    assert_eq!(verified.checkpoint(&[log.verifier().clone()]).unwrap_err().check, "origin");
    verified.checkpoint(&keys).unwrap();
}
