//! Keys and signatures from attackers.

use curve25519_dalek::Scalar;
use ed25519_dalek::Verifier as _;
use qed_core::hash::note_key_id;
use qed_core::tlog::key::{KeyId, KeyKind, VerifierKey, checkpoint_message};
use qed_core::tlog::note::Line;
use qed_core::tlog::signing::{SigningKey, parse_file};
use qed_core::tlog::text::{MAX_NUMBER, Name, from_base64, to_base64};
use sha2::Digest as _;

use crate::model::{TIME, body, checkpoint, digest_of, log_key, ml_dsa_key, sign, signing_key, witness_key};

#[test]
fn keys_that_are_not_what_they_say_are_refused() {
    let good = log_key().verifier().to_string();
    let (name, rest) = good.split_once('+').unwrap();
    let encoded = rest.split_once('+').unwrap().1;
    let bytes = from_base64(encoded).unwrap();
    let of_kind = |kind: u8| {
        let id = KeyId(note_key_id(name, kind, &bytes[1..]));
        format!("{name}+{id}+{}", to_base64([&[kind], &bytes[1..]].concat()))
    };
    assert_eq!(of_kind(1), good);
    of_kind(4).parse::<VerifierKey>().unwrap();
    for bad in [
        good.replace("a11f5d1b", "a11f5d1c"),
        good.replace("a11f5d1b", "A11F5D1B"),
        good.replace("a11f5d1b", "a11f5d1"),
        good.replace("a11f5d1b", "+11f5d1b"),
        good.replace(name, "other"),
        format!("{name}+a11f5d1b"),
        format!("{name}+a11f5d1b+"),
        of_kind(2),
        of_kind(5),
        of_kind(6),
        of_kind(255),
        format!("{good}AAAA"),
        format!(" {good}"),
        format!("{good}\n"),
        String::new(),
    ] {
        assert!(bad.parse::<VerifierKey>().is_err(), "{bad}");
    }
    let long = format!("{good}{}", "A".repeat(4000)).parse::<VerifierKey>().unwrap_err();
    assert!(long.0.contains("at most 2017 bytes"), "{long}");
    let longest = signing_key(&"n".repeat(255), KeyKind::MlDsa44, crate::model::text("/own/mldsa/seed"));
    assert_eq!(longest.verifier().to_string().len(), 2017);
    longest.verifier().to_string().parse::<VerifierKey>().unwrap();
    let name = Name::parse("n").unwrap();
    let ml_dsa = ml_dsa_key();
    VerifierKey::new(name.clone(), KeyKind::MlDsa44, ml_dsa.verifier().public_key()).unwrap();
    for length in [0, 32, 1311] {
        VerifierKey::new(name.clone(), KeyKind::MlDsa44, &ml_dsa.verifier().public_key()[..length]).unwrap_err();
    }
    for length in [0, 31] {
        VerifierKey::new(name.clone(), KeyKind::Ed25519, &bytes[1..=length]).unwrap_err();
    }
}

#[test]
fn ed25519_points_of_small_order_and_second_encodings_are_refused() {
    let name = Name::parse("n").unwrap();
    let refused = |bytes: &[u8; 32]| {
        [KeyKind::Ed25519, KeyKind::Cosignature]
            .iter()
            .all(|kind| VerifierKey::new(name.clone(), *kind, bytes).is_err())
    };
    let (mut small, mut second) = (0, 0);
    // y = 0, 1 and p - 1, and all y that have a second encoding as y + p, with both signs.
    let low = [0_u8, 1].map(|y| (y, 0_u8, 0_u8));
    let high = (0xec..=0xff).map(|y| (y, 0xff, 0x7f));
    for ((first, middle, last), sign) in low.into_iter().chain(high).flat_map(|y| [(y, 0), (y, 0x80)]) {
        let mut bytes = [middle; 32];
        (bytes[0], bytes[31]) = (first, last | sign);
        if let Ok(key) = ed25519_dalek::VerifyingKey::from_bytes(&bytes) {
            small += i32::from(key.is_weak());
            second += i32::from(!key.is_weak());
            assert!(refused(&bytes), "{bytes:02x?}");
        }
    }
    assert!(small >= 8 && second >= 8, "{small} {second}");
}

#[test]
fn a_private_key_is_refused_without_showing_its_seed() {
    let good = log_key().to_secret_text();
    let secret = good.rsplit_once('+').unwrap().1.to_owned();
    // What stands in the place of the id of this key is its seed, if the id is left out.
    let without_id = "PRIVATE+KEY+witness.example.com/w1+BLVTLLnztTGh1rOw3luKa86OUuMHWpq/JHnj7+6i/ygW";
    let error = SigningKey::parse(without_id).unwrap_err().to_string();
    assert!(!error.contains("BLVT") && !error.contains("JHnj"), "{error}");
    // The first byte of a seed stands in the place of the kind, if the kind is left out.
    let without_kind = to_base64(&from_base64(&secret).unwrap()[1..]);
    let error = SigningKey::parse(&good.replace(&secret, &without_kind)).unwrap_err().to_string();
    let first = from_base64(&without_kind).unwrap()[0];
    assert!(!error.contains(&format!("{first:02x}")), "{error} {first:02x}");
    for bad in [
        good.replace("a11f5d1b", "a11f5d1c"),
        good.replace("PRIVATE+", "private+"),
        good.replace("qed-spec", "qed-other"),
        format!("{good}AAAA"),
        format!("{good}\n"),
        good[..good.len() - 4].to_owned(),
        log_key().verifier().to_string(),
    ] {
        let error = SigningKey::parse(&bad).unwrap_err().to_string();
        assert!(!error.contains(&secret[..12]), "{error}");
    }
    let debug = format!("{:?}", log_key());
    assert!(!debug.contains(&secret[..12]), "{debug}");
}

#[test]
fn a_key_file_has_the_keys_of_one_log_each_once() {
    let (first, second) = (log_key().to_secret_text(), ml_dsa_key().to_secret_text());
    let read = parse_file(format!("{first}\n{second}\n").as_bytes()).unwrap();
    assert_eq!(read.iter().map(SigningKey::to_secret_text).collect::<Vec<_>>(), [first.clone(), second.clone()]);
    let other = witness_key().to_secret_text();
    for bad in [
        String::new(),
        "\n".into(),
        first.clone(),
        format!("{first}\r\n"),
        format!("{first}\n\n"),
        format!("\n{first}\n"),
        format!("{first}\n{second}"),
        format!("{first}\n{first}\n"),
        format!("{first}\n{other}\n"),
        format!("{first}\n").repeat(17),
        format!("# key\n{first}\n"),
    ] {
        assert!(parse_file(bad.as_bytes()).is_err(), "{bad:?}");
    }
    parse_file(b"\xff\n").unwrap_err();
}

#[test]
fn a_qed_log_has_a_plain_origin() {
    for good in ["log.example.com/qed/payments", "localhost", "a/b/2", "x_y-z.0"] {
        assert_eq!(Name::of_log(good).unwrap().as_str(), good);
    }
    let long = "o".repeat(201);
    for bad in ["", "/", "a/", "/a", "a//b", "A", "a b", "a+b", "https://a", "a?b", "\u{e9}", "a\n", &long] {
        assert!(Name::of_log(bad).is_err(), "{bad}");
    }
    Name::of_log(&long[1..]).unwrap();
}

#[test]
fn signatures_that_not_everybody_accepts_are_refused() {
    let log = log_key();
    let text = body();
    let signed = sign(&log, &text, TIME).to_string();
    let mut raised = from_base64(signed.rsplit_once(' ').unwrap().1).unwrap()[4..].to_vec();
    log.verifier().verify(&text, &raised).unwrap();
    // S plus the order of the group: the same equation holds.
    let order = Scalar::ZERO - Scalar::ONE;
    let mut carry = 1_u16;
    for (byte, added) in raised[32..].iter_mut().zip(order.as_bytes()) {
        let sum = u16::from(*byte) + u16::from(*added) + carry;
        (*byte, carry) = (sum.to_le_bytes()[0], sum >> 8);
    }
    assert_eq!(log.verifier().verify(&text, &raised).unwrap_err().check, "signature");

    // R of order one: the equation without a cofactor holds, and a lax verifier accepts it.
    let secret = ed25519_dalek::SigningKey::from_bytes(&[1; 32]);
    let lax = secret.verifying_key();
    let strict = VerifierKey::new(Name::parse("n").unwrap(), KeyKind::Ed25519, lax.as_bytes()).unwrap();
    let mut r = [0; 32];
    r[0] = 1;
    let challenge = [&r, lax.as_bytes().as_slice(), text.as_bytes()].concat();
    let challenge = Scalar::from_bytes_mod_order_wide(&sha2::Sha512::digest(challenge).into());
    let s = challenge * secret.to_scalar();
    let signature = [r, s.to_bytes()].concat();
    lax.verify(text.as_bytes(), &ed25519_dalek::Signature::from_slice(&signature).unwrap()).unwrap();
    assert_eq!(strict.verify(&text, &signature).unwrap_err().check, "signature");
}

#[test]
fn a_time_is_part_of_what_is_signed() {
    let witness = witness_key();
    let signed = sign(&witness, &body(), TIME).to_string();
    let mut bytes = from_base64(signed.rsplit_once(' ').unwrap().1).unwrap()[4..].to_vec();
    assert_eq!(witness.verifier().verify(&body(), &bytes), Ok(Some(TIME)));
    bytes[7] ^= 1;
    assert_eq!(witness.verifier().verify(&body(), &bytes).unwrap_err().check, "signature");
}

#[test]
fn ml_dsa_signs_the_signer_the_origin_and_an_empty_context() {
    let (own, text) = (ml_dsa_key(), body());
    let signature = |line: Line| from_base64(line.to_string().rsplit_once(' ').unwrap().1).unwrap()[4..].to_vec();
    let good = signature(sign(&own, &text, TIME));
    assert_eq!(own.verifier().verify(&text, &good), Ok(Some(TIME)));
    let seed = crate::model::text("/own/mldsa/seed");
    let cosigner = signing_key("another.example.com", KeyKind::MlDsa44, seed);
    assert_eq!(cosigner.verifier().public_key(), own.verifier().public_key());
    cosigner.verifier().verify(&text, &good).unwrap_err();
    own.verifier().verify(&text.replace("qed-spec", "qed-other"), &good).unwrap_err();
    own.verifier().verify("not a checkpoint\n", &good).unwrap_err();
    // With another name than the log it is a witness, which always says when.
    cosigner.sign(&checkpoint(), 0).unwrap_err();
    cosigner.sign(&checkpoint(), TIME).unwrap();
    own.sign(&checkpoint(), 0).unwrap();
    own.sign(&checkpoint(), MAX_NUMBER + 1).unwrap_err();
    let message = checkpoint_message(own.verifier().name(), TIME, &checkpoint());
    let secret = ml_dsa::SigningKey::<ml_dsa::MlDsa44>::from_seed(&(*digest_of(seed).as_bytes()).into());
    let with = |context: &[u8]| {
        let signature = secret.expanded_key().sign_deterministic(&message, context).unwrap().encode();
        [TIME.to_be_bytes().as_slice(), &signature].concat()
    };
    assert_eq!(with(b""), good);
    own.verifier().verify(&text, &with(b"context")).unwrap_err();
    own.verifier().verify(&text, &good[..good.len() - 1]).unwrap_err();
    own.verifier().verify(&text.replace("\n5\n", "\n6\n"), &good).unwrap_err();
    own.verifier().verify(&text.replace("j4Vx", "k4Vx"), &good).unwrap_err();
    let mut other_time = good.clone();
    other_time[7] ^= 1;
    own.verifier().verify(&text, &other_time).unwrap_err();
    // Signed correctly, at a time that no reader with signed integers has.
    let message = checkpoint_message(own.verifier().name(), MAX_NUMBER + 1, &checkpoint());
    let late = secret.expanded_key().sign_deterministic(&message, &[]).unwrap().encode();
    own.verifier().verify(&text, &[(MAX_NUMBER + 1).to_be_bytes().as_slice(), &late].concat()).unwrap_err();
}
