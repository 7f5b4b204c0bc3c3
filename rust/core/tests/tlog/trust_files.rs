//! Trust files: what is read, and what is refused with its line.

use qed_core::tlog::key::KeyKind;
use qed_core::tlog::text::to_base64;
use qed_core::tlog::trust_file::{MAX_TRUST_FILE_BYTES, TrustFile, TrustFileError};

use crate::claims::policy_text;
use crate::model::{log_key, signing_key};

fn file(policy: &str, fields: &str) -> String {
    let policy = serde_json::Value::String(policy.to_owned());
    format!("{{\n\"Format\": \"qed-trust-1\",\n\"Policy\": {policy}\n{fields}}}\n")
}

fn refused(content: &str) -> String {
    TrustFile::parse(content.as_bytes()).unwrap_err().to_string()
}

#[test]
fn a_bare_policy_is_a_trust_file_with_the_usual_demands() {
    let bare = TrustFile::parse(policy_text().as_bytes()).unwrap();
    assert_eq!(bare.max_age_s(), None);
    assert_eq!(bare, TrustFile::parse(file(&policy_text(), "").as_bytes()).unwrap());
    let usual = r#","Retired":[],"MaxAge":null,"Skew":300,"RequirePq":false,"Pins":[]"#;
    assert_eq!(bare, TrustFile::parse(file(&policy_text(), usual).as_bytes()).unwrap());
    let strict = TrustFile::parse(file(&policy_text(), ",\"MaxAge\":7").as_bytes()).unwrap();
    assert_eq!((strict.max_age_s(), strict.policy()), (Some(7), bare.policy()));
}

#[test]
fn a_mistake_is_named_with_its_line() {
    let policy = policy_text();
    assert!(refused(&policy.replace("quorum both", "quorum three")).starts_with("line 6 of the policy: "));
    assert!(refused(&file(&policy.replace("quorum both", "quorum three"), "")).starts_with("line 6 of the policy: "));
    for (fields, line) in [
        (",\"Skew\": \"300\"", 4),
        (",\n\"Skew\": null", 5),
        (",\"Skew\": -1", 4),
        (",\"More\": 1", 4),
        (",\"Skew\": 1,\n\"Skew\": 1", 5),
        (",\"Policy\": \"\"", 4),
        (",\"RequirePq\": 1", 4),
        (",\n\n\"MaxAge\": 1.5", 6),
        (",\"Retired\": [{\"Vkey\": \"x\", \"MaxSize\": 1}]", 4),
        (",\"Pins\": [\n{\"Size\": 1, \"Root\": \"x\"}]", 5),
        (",\"Pins\": [{\"Size\": 1}]", 4),
        (",\"Pins\": [[1, 2]]", 4),
        (",", 4),
    ] {
        let message = refused(&file(&policy, fields));
        assert!(message.starts_with(&format!("line {line} of the trust file: ")), "{fields}: {message}");
    }
    assert!(refused("{").starts_with("line 1 of the trust file: "));
    assert!(refused(&file(&policy, "").replace("trust-1", "trust-2")).starts_with("line 2 of the trust file: "));
    assert!(refused("").starts_with("line 1 of the policy: "));
}

#[test]
fn demands_that_could_never_be_checked_are_refused() {
    let policy = policy_text();
    let alone = policy.replace("quorum both", "quorum none");
    assert!(TrustFile::parse(file(&alone, "").as_bytes()).is_ok());
    assert!(refused(&file(&alone, ",\"MaxAge\":1")).contains("quorum"));

    let (root, other) = (to_base64([1; 32]), to_base64([2; 32]));
    let pins = |size: u64, root: &str| {
        format!(",\"Pins\":[{{\"Size\":2,\"Root\":\"{other}\"}},{{\"Size\":{size},\"Root\":\"{root}\"}}]")
    };
    assert!(TrustFile::parse(file(&policy, &pins(1, &root)).as_bytes()).is_ok());
    assert!(TrustFile::parse(file(&policy, &pins(2, &other)).as_bytes()).is_ok());
    assert!(refused(&file(&policy, &pins(2, &root))).contains("size 2"));
    // The empty tree has one root only, and no tree is larger than 2^63 - 1.
    assert!(refused(&file(&policy, &pins(0, &root))).contains("without leaves"));
    assert!(refused(&file(&policy, &pins(1 << 63, &root))).contains("leaves"));
    let second = signing_key("second.example.com", KeyKind::Ed25519, &"07".repeat(32));
    let two = format!("log {}\n{policy}", second.verifier());
    assert!(TrustFile::parse(file(&two, "").as_bytes()).is_ok());
    assert!(refused(&file(&two, &pins(1, &root))).contains("one log"));
}

#[test]
fn retired_keys_are_those_of_logs_of_the_policy() {
    let policy = policy_text();
    let retired =
        |key: &str, size: &str| file(&policy, &format!(",\"Retired\":[{{\"Vkey\":\"{key}\",\"MaxSize\":{size}}}]"));
    let old = signing_key(log_key().verifier().name().as_str(), KeyKind::Ed25519, &"08".repeat(32));
    let old = old.verifier().to_string();
    assert!(TrustFile::parse(retired(&old, "9223372036854775807").as_bytes()).is_ok());
    assert!(refused(&retired(&old, "9223372036854775808")).contains("9223372036854775808"));
    let other = signing_key("other.example.com", KeyKind::Ed25519, &"08".repeat(32));
    assert!(refused(&retired(&other.verifier().to_string(), "1")).contains("log of the policy"));
    assert!(refused(&retired(&log_key().verifier().to_string(), "1")).contains("once"));
}

#[test]
fn the_size_of_a_file_is_limited() {
    let long = file(&policy_text(), &" ".repeat(MAX_TRUST_FILE_BYTES));
    assert!(matches!(TrustFile::parse(long.as_bytes()), Err(TrustFileError::Whole(_))));
}

#[test]
fn witnesses_below_the_name_of_the_log_are_doubtful() {
    let origin = log_key().verifier().name().to_string();
    let witness = |i: u8, name: &str| {
        let key = signing_key(name, KeyKind::Cosignature, &format!("{i:02x}").repeat(32));
        format!("witness x{i} {}\n", key.verifier())
    };
    let names = [format!("{origin}/w"), format!("{origin}2/w"), format!("x/{origin}/w"), format!("{origin}/m/n")];
    let more: String = (20..).zip(&names).map(|(i, name)| witness(i, name)).collect();
    let trust = TrustFile::parse(format!("{more}{}", policy_text()).as_bytes()).unwrap();
    let found: Vec<_> = trust.doubtful_witnesses().iter().map(|key| key.name().to_string()).collect();
    assert_eq!(found, [names[0].as_str(), names[3].as_str()]);
    assert!(TrustFile::parse(policy_text().as_bytes()).unwrap().doubtful_witnesses().is_empty());
}

#[test]
fn every_cut_of_a_trust_file_is_refused() {
    let file = file(&policy_text(), ",\"MaxAge\":86400,\"RequirePq\":true");
    for length in 0..file.trim_end().len() {
        assert!(TrustFile::parse(&file.as_bytes()[..length]).is_err(), "{length}");
    }
}
