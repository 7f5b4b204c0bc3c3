//! Notes from attackers.

use qed_core::tlog::key::{KeyKind, VerifierKey};
use qed_core::tlog::note::{Line, Note};
use qed_core::tlog::policy::Policy;
use qed_core::tlog::signing::SigningKey;
use qed_core::tlog::text::from_base64;

use crate::model::{
    TIME, assert_malformed, body, checkpoint, honest, line, log_key, ml_dsa_key, sign, sign_anything, signing_key,
    verify, witness_key,
};

#[test]
fn unknown_lines_are_ignored_whatever_they_hold() {
    let garbage: String = (0..50).map(|i| line(&format!("n{i}"), [i; 4], &[i; 30])).collect();
    let verified = verify(&format!("{}{garbage}", honest())).unwrap();
    assert_eq!(verified.lines().len(), 1);
    assert_eq!(verified.to_string(), honest());
}

#[test]
fn one_unknown_line_that_is_malformed_spoils_the_note() {
    for bad in [
        "— other AAAAAAB=\n",
        "— other AAAAAA\n",
        "— other AAAAAAA=\n ",
        "— other AAAA_A==\n",
        "— other AAAA AA==\n",
        "— other AAAAAA==\n",
        "— other \n",
        "—  AAAAAAAA\n",
        "- other AAAAAAAA\n",
        "—other AAAAAAAA\n",
        "— oth+er AAAAAAAA\n",
        "— oth\u{a0}er AAAAAAAA\n",
        "other\n",
        "\n",
    ] {
        assert_malformed(&format!("{}{bad}", honest()));
    }
    verify(&format!("{}— other AAAAAAA=\n", honest())).unwrap();
}

#[test]
fn a_known_key_signs_once() {
    let (_, signature) = honest().split_once("\n\n").unwrap();
    let error = verify(&format!("{}{signature}", honest())).unwrap_err();
    assert_eq!(error.check, "signature lines");
    let line = Line::parse(signature.trim_end()).unwrap();
    assert!(Note::new(&body(), vec![line.clone(), line]).is_err());
}

#[test]
fn an_invalid_line_of_a_known_key_refuses_the_whole_note() {
    let witness = witness_key();
    let valid = sign(&witness, &body(), TIME);
    verify(&format!("{}{valid}\n", honest())).unwrap();
    let other = sign(&witness, &body().replace("\n5\n", "\n6\n"), TIME);
    assert_eq!(verify(&format!("{}{other}\n", honest())).unwrap_err().check, "signature");
    // It comes first, or beside a valid line of the same key.
    let (_, signature) = honest().split_once("\n\n").unwrap();
    assert_eq!(verify(&format!("{}\n{other}\n{signature}", body())).unwrap_err().check, "signature");
    assert_eq!(verify(&format!("{}{valid}\n{valid}\n", honest())).unwrap_err().check, "signature lines");
}

#[test]
fn a_line_is_of_a_key_only_if_both_name_and_id_are() {
    let log = log_key();
    let signed = sign(&log, &body(), TIME).to_string();
    let id = log.verifier().id().0;
    let signature = from_base64(signed.rsplit_once(' ').unwrap().1).unwrap();
    for line in [line("another", id, &signature[4..]), line(log.verifier().name().as_str(), [9; 4], &signature[4..])] {
        assert_eq!(verify(&format!("{}\n{line}", body())).unwrap_err().check, "signature lines");
    }
}

#[test]
fn a_colliding_key_id_makes_a_nuisance_and_no_trust() {
    let log = log_key();
    let forged = line(log.verifier().name().as_str(), log.verifier().id().0, &[1; 64]);
    assert_eq!(verify(&format!("{}\n{forged}", body())).unwrap_err().check, "signature");
    let short = line(log.verifier().name().as_str(), log.verifier().id().0, &[1; 63]);
    assert_eq!(verify(&format!("{}\n{short}", body())).unwrap_err().check, "signature");
}

#[test]
fn extension_lines_are_given_only_if_the_log_signed_them() {
    let text = format!("{}extension one\nextension two\n", body());
    let (log, post_quantum) = (log_key(), ml_dsa_key());
    let keys = [log.verifier().clone(), post_quantum.verifier().clone()];
    let signed = |keys: &[&SigningKey]| {
        let line = |key: &&SigningKey| match key.verifier().kind() {
            KeyKind::MlDsa44 => sign(key, &text, TIME),
            _ => sign_anything(key, &text, TIME),
        };
        Note::new(&text, keys.iter().map(line).collect()).unwrap()
    };
    let assert_unsigned = |note: &Note, keys: &[VerifierKey]| {
        let verified = note.verify(keys).unwrap();
        assert_eq!(verified.text().matches('\n').count(), 5);
        assert_eq!(verified.checkpoint(keys).unwrap(), checkpoint());
    };
    assert_unsigned(&signed(&[&post_quantum]), &keys);
    let other = signed(&[&post_quantum]).to_string().replace("extension one", "extension ONE");
    assert_unsigned(&Note::parse(other.as_bytes()).unwrap(), &keys);
    // Neither a witness nor another log signs in the place of this one.
    for other in
        [witness_key(), signing_key("other.example.com", KeyKind::Ed25519, crate::model::text("/own/log/seed"))]
    {
        assert_unsigned(
            &signed(&[&post_quantum, &other]),
            &[post_quantum.verifier().clone(), other.verifier().clone()],
        );
    }
    let verified = signed(&[&post_quantum, &log]).verify(&keys).unwrap();
    assert_eq!(verified.checkpoint(&keys).unwrap().extensions(), ["extension one", "extension two"]);
    assert_eq!(verified.checkpoint(&keys).unwrap().to_string(), text);
    let other = signed(&[&post_quantum, &log]).to_string().replace("extension one", "extension ONE");
    Note::parse(other.as_bytes()).unwrap().verify(&keys).unwrap_err();
    let policy = format!("log {}\nlog {}\nquorum none\n", log.verifier(), post_quantum.verifier());
    let policy = Policy::parse(policy.as_bytes()).unwrap();
    let is_warned = |note: &Note| policy.verify(note, TIME).unwrap().has_unsigned_extensions();
    assert!(is_warned(&signed(&[&post_quantum])) && !is_warned(&signed(&[&post_quantum, &log])));
    assert!(!is_warned(&Note::parse(honest().as_bytes()).unwrap()));
}

#[test]
fn a_note_that_is_not_verified_shows_no_text() {
    let note = Note::parse(honest().as_bytes()).unwrap();
    assert_eq!(format!("{note:?}"), "Note(72 bytes, 1 lines)");
}

#[test]
fn names_are_shown_without_control_characters() {
    let name = "n\u{9b}31m\u{202e}";
    let key = signing_key(name, KeyKind::Ed25519, crate::model::text("/own/log/seed"));
    let (vkey, text) = (key.verifier().to_string(), body());
    let line = sign_anything(&key, &text, TIME);
    let signed = Note::new(&text, vec![line.clone()]).unwrap();
    let keys = [key.verifier().clone()];
    let id = key.verifier().id().to_string();
    for shown in [
        format!("{:?} {:?} {:?}", key, key.verifier(), key.verifier().name()),
        signed.verify(&keys).unwrap().checkpoint(&keys).unwrap_err().to_string(),
        key.sign(&checkpoint(), TIME).unwrap_err().to_string(),
        signed.verify(&[log_key().verifier().clone()]).unwrap_err().to_string(),
        key.verifier().verify("other\n", &[0; 64]).unwrap_err().to_string(),
        Note::new(&text, vec![line; 2]).unwrap_err().to_string(),
        vkey.replace(&id, "00000000").parse::<VerifierKey>().unwrap_err().to_string(),
        format!("{name}+{id}+").parse::<VerifierKey>().unwrap_err().to_string(),
        format!("{name}+{id}+A").parse::<VerifierKey>().unwrap_err().to_string(),
        format!("{name}+{id}+AAAA").parse::<VerifierKey>().unwrap_err().to_string(),
    ] {
        assert!(shown.contains("\\u{9b}31m\\u{202e}"), "{shown:?}");
        assert!(!shown.contains(['\u{9b}', '\u{202e}']), "{shown:?}");
    }
}

#[test]
fn two_keys_with_one_name_and_id_cannot_be_used_together() {
    // Seeds found by trying: the ids of both keys are 23e1703c.
    let [one, other] = [26_678, 37_223].map(|seed| signing_key("n", KeyKind::Ed25519, &format!("{seed:064x}")));
    assert_eq!((one.verifier().id(), one.verifier() == other.verifier()), (other.verifier().id(), false));
    let note = Note::new("text\n", vec![sign_anything(&one, "text\n", 0)]).unwrap();
    let both = [one.verifier().clone(), other.verifier().clone()];
    assert_eq!(note.verify(&both).unwrap_err().check, "keys");
    note.verify(&[both[0].clone(), both[0].clone()]).unwrap();
    assert_eq!(note.verify(&both[1..]).unwrap_err().check, "signature");
}

#[test]
fn a_note_is_made_only_if_everybody_reads_it_alike() {
    let line = sign(&log_key(), &body(), TIME);
    Note::new(&body(), vec![line.clone()]).unwrap();
    for text in ["", "no line feed", "a\tb\n", "a\rb\n", "\u{feff}a\n"] {
        assert!(Note::new(text, vec![line.clone()]).is_err(), "{text:?}");
    }
    Note::new(&body(), Vec::new()).unwrap_err();
    let text = format!("a\n\n{line}\n");
    let inside = Note::new(&text, vec![line]).unwrap();
    assert_eq!(Note::parse(inside.to_string().as_bytes()).unwrap(), inside);
}
