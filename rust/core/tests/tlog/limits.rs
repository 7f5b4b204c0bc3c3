//! What is refused before it is decoded, and text that nobody may write.

use qed_core::hash::{Digest, merkle_empty, merkle_inner};
use qed_core::proof::Malformed;
use qed_core::tlog::checkpoint::Checkpoint;
use qed_core::tlog::entry::Entry;
use qed_core::tlog::merkle::{
    MAX_CONSISTENCY_HASHES, MAX_PATH_HASHES, Subtrees, TreeHead, consistency, inclusion, root_at, verify_consistency,
    verify_inclusion, verify_range,
};
use qed_core::tlog::note::{MAX_NOTE_BYTES, Note};
use qed_core::tlog::proof_file::{MAX_PROOF_FILE_BYTES, TlogProof};
use qed_core::tlog::text::{MAX_NUMBER, Name, decimal, to_base64};

use crate::model::{assert_malformed, body, checkpoint, honest, line, log_key, text, verify};

#[test]
fn limits_hold_before_anything_is_decoded() {
    let line_of = |i: usize| line(&format!("n{i}"), [1; 4], &[7; 10]);
    let with = |count| -> String { format!("{}{}", honest(), (0..count).map(line_of).collect::<String>()) };
    verify(&with(99)).unwrap();
    assert_malformed(&with(100));
    let of_length = |bytes: usize| format!("{}{}", "x".repeat(bytes - honest().len()), honest());
    Note::parse(of_length(MAX_NOTE_BYTES).as_bytes()).unwrap();
    let long = Note::parse(of_length(MAX_NOTE_BYTES + 1).as_bytes()).unwrap_err();
    assert!(long.0.contains("at most 262144 bytes, found 262145"), "{long}");
    // The lines are counted before one of them is decoded.
    let many = Note::parse(format!("{}{}", honest(), "— n !\n".repeat(100)).as_bytes()).unwrap_err();
    assert!(many.0.contains("at most 100"), "{many}");
    let proof = text("/own/tlog_proof");
    let hash = format!("{}\n", to_base64([0; 32]));
    let with = |count| proof.replace("index 3\n", &format!("index 3\n{}", hash.repeat(count)));
    TlogProof::parse(with(60).as_bytes()).unwrap();
    assert!(TlogProof::parse(with(61).as_bytes()).unwrap_err().0.contains("63"));
    let long = TlogProof::parse(format!("{proof}{}\n", "x".repeat(MAX_PROOF_FILE_BYTES)).as_bytes()).unwrap_err();
    assert!(long.0.contains("proof of at most"), "{long}");
    let rest = proof.split_once("index").unwrap().1;
    let extra = |bytes| format!("c2sp.org/tlog-proof@v1\nextra {}\nindex{rest}", to_base64(vec![0; bytes]));
    assert_eq!(TlogProof::parse(extra(65_535).as_bytes()).unwrap().extra().unwrap().len(), 65_535);
    let long = TlogProof::parse(extra(65_536).as_bytes()).unwrap_err();
    assert!(long.0.contains("at most 65535 bytes"), "{long}");
    Name::parse(&"o".repeat(255)).unwrap();
    Name::parse(&"o".repeat(256)).unwrap_err();
    Checkpoint::parse(&format!("{}\n{}", "o".repeat(256), body().split_once('\n').unwrap().1)).unwrap_err();
}

#[test]
fn text_that_is_not_plain_is_malformed() {
    for (from, to) in [("\n", "\r\n"), ("\n5\n", "\n5\t\n"), ("\n5\n", "\n5\0\n"), ("\n\n", "\n")] {
        assert_malformed(&honest().replace(from, to));
    }
    assert_malformed(&format!("\u{feff}{}", honest()));
    assert_malformed(honest().trim_end());
    assert_malformed(&body());
    assert_malformed("");
    assert_malformed("\n\n");
    assert!(Note::parse(b"\xff\n\n").is_err());
    for size in ["007", "+5", "5 ", " 5", "", "-1", "5.0", "0x5", "٥"] {
        Checkpoint::parse(&body().replace("\n5\n", &format!("\n{size}\n"))).unwrap_err();
    }
    for bad in [
        body().trim_end().to_owned(),
        format!("{}\n", body()),
        format!("{}\nextension\n", body()),
        body().replace('=', ""),
        body().replace("A=\n", "B=\n"),
        body().replace("\n5\n", "\n"),
        format!("\n{}", body()),
        format!("{} \n", body()).replacen('\n', " \n", 1),
        format!("{}a\u{1}b\n", body()),
    ] {
        Checkpoint::parse(&bad).unwrap_err();
    }
}

#[test]
fn numbers_beyond_63_bits_are_refused_before_arithmetic() {
    assert_eq!(decimal("9223372036854775807"), Ok(MAX_NUMBER));
    for large in ["9223372036854775808", "18446744073709551616", "1000000000000000000000000000000"] {
        decimal(large).unwrap_err();
        Checkpoint::parse(&body().replace("\n5\n", &format!("\n{large}\n"))).unwrap_err();
        TlogProof::parse(text("/own/tlog_proof").replace("index 3", &format!("index {large}")).as_bytes()).unwrap_err();
    }
    TreeHead::new(MAX_NUMBER, merkle_empty()).unwrap();
    TreeHead::new(MAX_NUMBER + 1, merkle_empty()).unwrap_err();
    let mut entry = Entry { version: MAX_NUMBER, event_digest: merkle_empty(), is_repeat: false, batch_end: None };
    Entry::from_bytes(&entry.to_bytes()).unwrap();
    entry.version += 1;
    Entry::from_bytes(&entry.to_bytes()).unwrap_err();
    let head = TreeHead::new(MAX_NUMBER, merkle_empty()).unwrap();
    assert_eq!(verify_inclusion(&merkle_empty(), u64::MAX, &[], &head).unwrap_err().check, "index");
    assert_eq!(verify_range(u64::MAX, &[merkle_empty()], &[], &head).unwrap_err().check, "range");
    let path = vec![merkle_empty(); 63];
    assert_eq!(verify_inclusion(&merkle_empty(), 0, &path, &head).unwrap_err().check, "root");
    assert_eq!(verify_inclusion(&merkle_empty(), 0, &path[1..], &head).unwrap_err().check, "number of hashes");
    let old = TreeHead::new(MAX_NUMBER - 1, merkle_empty()).unwrap();
    assert!(verify_consistency(&old, &head, &path).is_err());
    assert!(verify_consistency(&head, &old, &path).is_err());
}

/// A tree of any size, all of whose leaves are the same.
struct Alike;

impl Subtrees for Alike {
    type Error = Malformed;

    fn subtree(&self, level: u32, _: u64) -> Result<Digest, Malformed> {
        Ok((0..level).fold(merkle_empty(), |hash, _| merkle_inner(&hash, &hash)))
    }
}

#[test]
fn the_longest_proofs_have_63_and_64_hashes() {
    let head = |size| TreeHead::new(size, root_at(&Alike, size).unwrap()).unwrap();
    let path = inclusion(&Alike, 0, MAX_NUMBER).unwrap();
    assert_eq!((path.len(), MAX_PATH_HASHES), (63, 63));
    verify_inclusion(&merkle_empty(), 0, &path, &head(MAX_NUMBER)).unwrap();
    for (size, hashes) in [(1 << 62, 63), ((1 << 62) + 1, 64), (MAX_NUMBER, MAX_CONSISTENCY_HASHES)] {
        let path = consistency(&Alike, 3, size).unwrap();
        assert_eq!(path.len(), hashes, "{size}");
        verify_consistency(&head(3), &head(size), &path).unwrap();
        verify_consistency(&head(3), &head(size), &path[1..]).unwrap_err();
    }
}

#[test]
fn a_tree_without_leaves_has_one_root() {
    let empty = format!("origin\n0\n{}\n", to_base64(merkle_empty().as_bytes()));
    assert_eq!(Checkpoint::parse(&empty).unwrap().head.size(), 0);
    let other = format!("origin\n0\n{}\n", to_base64([0; 32]));
    Checkpoint::parse(&other).unwrap_err();
    let (none, five) = (TreeHead::new(0, merkle_empty()).unwrap(), checkpoint().head);
    verify_consistency(&none, &five, &[]).unwrap();
    assert_eq!(verify_consistency(&none, &five, &[merkle_empty()]).unwrap_err().check, "number of hashes");
    assert_eq!(verify_inclusion(&merkle_empty(), 0, &[], &none).unwrap_err().check, "index");
    assert_eq!(verify_range(0, &[], &[], &none).unwrap_err().check, "range");
}

#[test]
fn a_proof_file_has_its_lines_in_order() {
    let proof = text("/own/tlog_proof");
    for (from, to) in [
        ("c2sp.org/tlog-proof@v1", "c2sp.org/tlog-proof@v2"),
        ("c2sp.org/tlog-proof@v1\n", ""),
        ("index 3\n", ""),
        ("index 3\n", "index 3\nindex 3\n"),
        ("index 3\n", "index 03\n"),
        ("index 3\n", "index 3\nextra AAAA\n"),
        ("extra ", "extra AAAA\nextra "),
        ("extra ", "extra="),
        ("zKQ=\n", "zKR=\n"),
        ("zKQ=\n", "zKQ=\n\n"),
        ("zKQ=\n", "zKQ= \n"),
        ("\n\n", "\n"),
    ] {
        let changed = proof.replace(from, to);
        let read = TlogProof::parse(changed.as_bytes());
        let verified = read.is_ok_and(|read| read.note().verify(&[log_key().verifier().clone()]).is_ok());
        assert!(changed != proof && !verified, "{from:?} {to:?}");
    }
    TlogProof::parse(proof.replace("W4\n", "W5\n").as_bytes()).unwrap();
    let without = proof.lines().filter(|line| !line.starts_with("extra")).collect::<Vec<_>>().join("\n") + "\n";
    let read = TlogProof::parse(without.as_bytes()).unwrap();
    assert_eq!((read.extra(), read.to_string()), (None, without));
}
