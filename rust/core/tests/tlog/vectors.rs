//! Every vector of `tests/vectors/trust.json`, both ways: what others made is accepted, and what we make has the same bytes.

use qed_core::hash::{Digest, merkle_leaf};
use qed_core::tlog::checkpoint::Checkpoint;
use qed_core::tlog::entry::Entry;
use qed_core::tlog::key::{KeyKind, checkpoint_message};
use qed_core::tlog::merkle::{
    TreeHead, consistency, inclusion, range_proof, root_at, root_of, verify_consistency, verify_inclusion, verify_range,
};
use qed_core::tlog::note::{Line, Note};
use qed_core::tlog::policy::{Policy, Quorum};
use qed_core::tlog::proof_file::TlogProof;
use qed_core::tlog::signing::SigningKey;
use qed_core::tlog::text::{from_base64, to_base64};
use qed_core::tlog::tile::{bundle_from_bytes, bundle_to_bytes, rows_of, tile_to_bytes};
use serde_json::Value;

use crate::model::{
    Leaves, TIME, VECTORS, bytes_of_hex, digest_of, hashes, log_key, ml_dsa_key, sign, signing_key, strings, text,
    vkey, witness_key,
};

/// Return the note of a text, after checking that it is written as it was read.
fn note(text: &str) -> Note {
    let note = Note::parse(text.as_bytes()).unwrap();
    assert_eq!(note.to_string(), text);
    note
}

fn json_text(value: &'static Value) -> &'static str {
    value.as_str().unwrap()
}

fn line(text: &str) -> Line {
    Line::parse(text.trim_end()).unwrap()
}

/// Check proofs named "index in size" or "old to size" against a tree, both ways.
fn check_proofs(leaves: &Leaves, inclusions: &'static Value, consistencies: &'static Value) {
    let numbers = |name: &str, word: &str| {
        let (first, size) = name.split_once(word).unwrap();
        (first.parse::<u64>().unwrap(), size.parse::<u64>().unwrap())
    };
    let head = |size| TreeHead::new(size, root_at(leaves, size).unwrap()).unwrap();
    assert!(!inclusions.as_object().unwrap().is_empty() && !consistencies.as_object().unwrap().is_empty());
    for (name, path) in inclusions.as_object().unwrap() {
        let ((index, size), path) = (numbers(name, " in "), hashes(path));
        assert_eq!(inclusion(leaves, index, size).unwrap(), path, "{name}");
        verify_inclusion(&leaves.0[usize::try_from(index).unwrap()], index, &path, &head(size)).unwrap();
    }
    for (name, path) in consistencies.as_object().unwrap() {
        let ((old, size), path) = (numbers(name, " to "), hashes(path));
        assert_eq!(consistency(leaves, old, size).unwrap(), path, "{name}");
        verify_consistency(&head(old), &head(size), &path).unwrap();
    }
}

fn own_entries() -> Vec<Vec<u8>> {
    strings(&VECTORS["own"]["entries"]).into_iter().map(bytes_of_hex).collect()
}

fn own_leaves() -> Leaves {
    Leaves(hashes(&VECTORS["own"]["leaf_hashes"]))
}

#[test]
fn t1_a_note_of_another_implementation_verifies() {
    let key = vkey("/signed_note/vkey");
    assert_eq!(key.to_string(), text("/signed_note/vkey"));
    let verified = note(text("/signed_note/note")).verify(std::slice::from_ref(&key)).unwrap();
    assert_eq!(verified.text(), "This is an example message.\n");
    assert_eq!(verified.lines().len(), 1);
    assert_eq!(verified.lines()[0].key(), &key);
    assert_eq!(verified.to_string(), text("/signed_note/note"));
}

#[test]
fn t2_a_small_log_of_another_implementation_has_the_same_tree() {
    let key = vkey("/small_log/vkey");
    let entries = strings(&VECTORS["small_log"]["leaves"]);
    let leaves = Leaves(entries.iter().map(|entry| merkle_leaf(entry.as_bytes())).collect());
    let checkpoints = strings(&VECTORS["small_log"]["checkpoints"]);
    assert_eq!(checkpoints.len(), 16);
    for (size, text) in checkpoints.into_iter().enumerate() {
        let checkpoint =
            note(text).verify(std::slice::from_ref(&key)).unwrap().checkpoint(std::slice::from_ref(&key)).unwrap();
        assert_eq!(checkpoint.head.size(), size as u64);
        assert_eq!(*checkpoint.head.root(), root_of(&leaves.0[..size]));
        assert_eq!(*checkpoint.head.root(), root_at(&leaves, size as u64).unwrap());
    }
    let bundle = bytes_of_hex(text("/small_log/bundle_000_p_3"));
    assert_eq!(bundle_from_bytes(&bundle, 3).unwrap(), [b"one".as_slice(), b"two", b"three"]);
    assert_eq!(bundle_to_bytes(&entries[..3]).unwrap(), bundle);
    let head = |size: u64| TreeHead::new(size, root_at(&leaves, size).unwrap()).unwrap();
    let path = hashes(&VECTORS["small_log"]["inclusion_6_in_15"]);
    assert_eq!(inclusion(&leaves, 6, 15).unwrap(), path);
    verify_inclusion(&leaves.0[6], 6, &path, &head(15)).unwrap();
    let path = hashes(&VECTORS["small_log"]["consistency_3_15"]);
    assert_eq!(consistency(&leaves, 3, 15).unwrap(), path);
    verify_consistency(&head(3), &head(15), &path).unwrap();
}

#[test]
fn t3_a_cosignature_has_the_bytes_of_another_implementation() {
    let key = signing_key("witness.example.org", KeyKind::Cosignature, text("/cosigned/witness_seed"));
    assert_eq!(key.verifier().to_string(), text("/cosigned/witness_vkey"));
    let note = note(text("/cosigned/checkpoint"));
    let verified = note.verify(&[vkey("/cosigned/witness_vkey")]).unwrap();
    assert_eq!(verified.lines()[0].time(), Some(1_767_139_200));
    assert_eq!(&sign(&key, verified.text(), 1_767_139_200), verified.lines()[0].line());
    // The log signs with a kind that is not supported, so its line is ignored, and nothing says that this is its checkpoint.
    assert_eq!(verified.checkpoint(&[vkey("/cosigned/witness_vkey")]).unwrap_err().check, "origin");
    let checkpoint = Checkpoint::parse(verified.text()).unwrap();
    assert_eq!(checkpoint.origin.as_str(), text("/cosigned/origin"));
    assert_eq!(checkpoint.head.size(), 300);
    let origin_hash = Digest::of_event(checkpoint.origin.as_str().as_bytes());
    assert_eq!(origin_hash.to_string(), text("/cosigned/origin_hash"));
}

#[test]
fn t3_a_mirror_has_the_same_tiles() {
    let leaves = Leaves((0..300).map(|i| merkle_leaf(format!("record {i}").as_bytes())).collect());
    let verified = note(text("/cosigned/mirror_checkpoint")).verify(&[vkey("/cosigned/mirror_vkey")]).unwrap();
    let checkpoint = Checkpoint::parse(verified.text()).unwrap();
    assert_eq!(checkpoint.head, TreeHead::new(300, root_of(&leaves.0)).unwrap());
    let tile = &leaves.tiles().0["tile/1/000.p/1"];
    assert_eq!(*tile, digest_of(text("/cosigned/mirror_tile_1_000_p_1")).as_bytes());
}

#[test]
fn t4_requests_to_a_witness_have_notes_and_proofs_that_verify() {
    let (key, leaves) = (vkey("/witness_run/vkey"), Leaves(hashes(&VECTORS["witness_run"]["leaf_hashes"])));
    let mut statuses = Vec::new();
    for step in VECTORS["witness_run"]["steps"].as_array().unwrap() {
        let (head, body) = step["request"].as_str().unwrap().split_once("\n\n").unwrap();
        let mut lines = head.split('\n');
        let old: u64 = lines.next().unwrap().strip_prefix("old ").unwrap().parse().unwrap();
        let path: Vec<_> = lines.map(digest_of).collect();
        let verified = note(body).verify(std::slice::from_ref(&key));
        statuses.push(step["status"].as_u64().unwrap());
        match statuses[statuses.len() - 1] {
            403 => assert_eq!(verified.unwrap_err().check, "signature"),
            404 => assert_eq!(verified.unwrap_err().check, "signature lines"),
            status => {
                let new = verified.unwrap().checkpoint(std::slice::from_ref(&key)).unwrap().head;
                assert_eq!(*new.root(), root_of(&leaves.0[..usize::try_from(new.size()).unwrap()]));
                let old = TreeHead::new(old, root_at(&leaves, old).unwrap()).unwrap();
                let accepted = verify_consistency(&old, &new, &path).is_ok();
                assert_eq!(accepted, !matches!(status, 400 | 422), "{step}");
            }
        }
    }
    assert_eq!(statuses, [200, 409, 200, 409, 422, 422, 403, 200, 200, 400, 422, 404]);
}

#[test]
fn t5_ml_dsa_of_another_implementation_verifies() {
    let key = vkey("/mldsa/vkey");
    assert_eq!((key.to_string().as_str(), key.kind()), (text("/mldsa/vkey"), KeyKind::MlDsa44));
    let verified = note(text("/mldsa/note")).verify(std::slice::from_ref(&key)).unwrap();
    assert_eq!(verified.lines()[0].time(), Some(0));
    assert_eq!(verified.checkpoint(&[key]).unwrap().head.size(), 1);
}

#[test]
fn t5_ml_dsa_keys_messages_and_signatures_have_the_recorded_bytes() {
    let key = ml_dsa_key();
    assert_eq!(Digest::of_event(key.verifier().public_key()), digest_of(text("/own/mldsa/public_sha256")));
    assert_eq!(key.verifier().id().to_string(), text("/own/mldsa/key_id"));
    assert_eq!(key.verifier().to_string(), text("/own/mldsa_vkey"));
    assert_eq!(Digest::of_event(text("/own/mldsa_vkey").as_bytes()), digest_of(text("/own/mldsa_vkey_sha256")));
    let mut count = 0;
    for case in VECTORS["own"]["checkpoints"].as_object().unwrap().values() {
        let note = note(case["note"].as_str().unwrap());
        let keys = [log_key().verifier().clone()];
        let checkpoint = note.verify(&keys).unwrap().checkpoint(&keys).unwrap();
        let message = checkpoint_message(key.verifier().name(), TIME, &checkpoint);
        assert_eq!(message, bytes_of_hex(case["mldsa_message"].as_str().unwrap()));
        assert_eq!(Digest::of_event(&message), digest_of(case["mldsa_message_sha256"].as_str().unwrap()));
        count += 1;
    }
    assert!(count >= 4, "{count}");
    let checkpoint = note(text("/own/checkpoints/5/note"));
    let text_5 = checkpoint.verify(&[log_key().verifier().clone()]).unwrap().text().to_owned();
    let signed = sign(&key, &text_5, TIME);
    assert_eq!(signed, line(text("/own/mldsa_line_5")));
    assert_eq!(Digest::of_event(format!("{signed}\n").as_bytes()), digest_of(text("/own/mldsa_line_5_sha256")));
    assert_eq!(signed.to_string().len(), "— log.example.com/qed-spec ".len() + 3244);
}

#[test]
fn t6_keys_have_the_recorded_texts() {
    let key = log_key();
    assert_eq!(key.verifier().to_string(), text("/own/log/vkey"));
    assert_eq!(key.verifier().public_key(), bytes_of_hex(text("/own/log/public")));
    assert_eq!(key.verifier().id().to_string(), text("/own/log/key_id"));
    assert_eq!(key.to_secret_text(), text("/own/log/skey"));
    let read = SigningKey::parse(text("/own/log/skey")).unwrap();
    assert_eq!(read.verifier(), key.verifier());
    assert_eq!(read.to_secret_text(), key.to_secret_text());
    assert_eq!(format!("{read:?}"), "SigningKey(\"log.example.com/qed-spec\"+a11f5d1b)");
    assert_eq!(witness_key().verifier().to_string(), text("/own/witness/vkey"));
    assert_eq!(SigningKey::parse(&ml_dsa_key().to_secret_text()).unwrap().verifier(), ml_dsa_key().verifier());
}

#[test]
fn t6_entries_leaves_tiles_and_bundles_have_the_recorded_bytes() {
    let (entries, leaves) = (own_entries(), own_leaves());
    for ((i, bytes), leaf) in (0..).zip(&entries).zip(&leaves.0) {
        let entry = Entry::from_bytes(bytes).unwrap();
        assert_eq!((entry.version, entry.to_bytes().as_slice()), (i, bytes.as_slice()));
        assert_eq!(entry.leaf(), *leaf);
        assert_eq!((entry.batch_end.is_some(), entry.is_repeat), ([0, 1, 4].contains(&i), i == 3), "{i}");
    }
    let bundle = bundle_to_bytes(&entries).unwrap();
    assert_eq!(bundle.len() as u64, VECTORS["own"]["entries_000_p_5_len"].as_u64().unwrap());
    assert_eq!(Digest::of_event(&bundle), digest_of(text("/own/entries_000_p_5_sha256")));
    assert_eq!(bundle_from_bytes(&bundle, 5).unwrap(), entries);
    assert_eq!(Digest::of_event(&tile_to_bytes(&leaves.0)), digest_of(text("/own/tile_0_000_p_5_sha256")));
}

#[test]
fn t6_checkpoints_are_signed_and_cosigned_with_the_recorded_bytes() {
    let (log, witness) = (log_key(), witness_key());
    for (size, case) in VECTORS["own"]["checkpoints"].as_object().unwrap() {
        let size = size.parse().unwrap();
        let head = TreeHead::new(size, root_at(&own_leaves(), size).unwrap()).unwrap();
        assert_eq!(*head.root(), digest_of(case["root"].as_str().unwrap()));
        let text = Checkpoint::new(log.verifier().name().clone(), head).to_string();
        let note = Note::new(&text, vec![sign(&log, &text, TIME)]).unwrap();
        assert_eq!(note.to_string(), case["note"].as_str().unwrap());
        assert_eq!(sign(&witness, &text, TIME), line(case["cosignature_line"].as_str().unwrap()));
    }
}

#[test]
fn t6_the_checkpoint_with_all_lines_meets_a_policy() {
    let note = note(text("/own/checkpoint_5_all_lines"));
    let policy = format!(
        "log {}\nlog {}\nwitness w {}\nquorum w\n",
        text("/own/log/vkey"),
        text("/own/mldsa_vkey"),
        text("/own/witness/vkey")
    );
    let endorsed = Policy::parse(policy.as_bytes()).unwrap().verify(&note, TIME).unwrap();
    assert_eq!(endorsed.quorum(), Quorum::Met { existed_at: TIME, confirmed_at: TIME });
    assert_eq!(endorsed.note().lines().len(), 3);
    assert_eq!(endorsed.note().to_string(), text("/own/checkpoint_5_all_lines"));
    assert_eq!(endorsed.checkpoint().head.size(), 5);
}

#[test]
fn t6_proofs_have_the_recorded_hashes() {
    let leaves = own_leaves();
    check_proofs(&leaves, &VECTORS["own"]["inclusion"], &VECTORS["own"]["consistency"]);
    let head = TreeHead::new(5, root_of(&leaves.0)).unwrap();
    for (first, name) in [(2, "range_2_3_in_5"), (1, "range_1_2_in_5")] {
        let proof = hashes(&VECTORS["own"][name]);
        assert_eq!(range_proof(&leaves, &(first..first + 2), 5).unwrap(), proof, "{name}");
        let range = usize::try_from(first).unwrap()..usize::try_from(first).unwrap() + 2;
        verify_range(first, &leaves.0[range], &proof, &head).unwrap();
    }
    for (receipt, size) in [("receipt_3", 5), ("receipt_1_at_2", 2)] {
        let receipt = &VECTORS["own"][receipt];
        let first = receipt["First"].as_u64().unwrap();
        let entry = from_base64(receipt["Entries"][0].as_str().unwrap()).unwrap();
        let proof = hashes(&receipt["Proof"]);
        let keys = [log_key().verifier().clone()];
        let signed = note(json_text(&receipt["Checkpoint"])).verify(&keys).unwrap();
        let head = signed.checkpoint(&keys).unwrap().head;
        assert_eq!(head.size(), size);
        verify_range(first, &[merkle_leaf(&entry)], &proof, &head).unwrap();
        assert_eq!(range_proof(&leaves, &(first..first + 1), size).unwrap(), proof);
        // The end of the batch, unless the entry itself is.
        let end = &receipt["End"];
        assert_eq!(end.is_null(), Entry::from_bytes(&entry).unwrap().batch_end.is_some());
        if !end.is_null() {
            let last = from_base64(json_text(&end["Entry"])).unwrap();
            let version = end["Version"].as_u64().unwrap();
            let read = Entry::from_bytes(&last).unwrap();
            assert_eq!((read.version, read.batch_end.is_some()), (version, true));
            verify_range(version, &[merkle_leaf(&last)], &hashes(&end["Proof"]), &head).unwrap();
        }
    }
}

#[test]
fn t6_a_request_to_a_witness_verifies() {
    let (head, body) = text("/own/add_checkpoint_2_to_5").split_once("\n\n").unwrap();
    let (old, path) = head.split_once('\n').unwrap();
    let path: Vec<_> = path.split('\n').map(digest_of).collect();
    assert_eq!((old, path.len()), ("old 2", 2));
    let keys = [log_key().verifier().clone()];
    let new = note(body).verify(&keys).unwrap().checkpoint(&keys).unwrap().head;
    let old = TreeHead::new(2, root_at(&own_leaves(), 2).unwrap()).unwrap();
    verify_consistency(&old, &new, &path).unwrap();
    assert_eq!(consistency(&own_leaves(), 2, 5).unwrap(), path);
}

#[test]
fn t6_the_proof_file_is_read_and_written() {
    let text = text("/own/tlog_proof");
    let proof = TlogProof::parse(text.as_bytes()).unwrap();
    assert_eq!(proof.to_string(), text);
    let policy = format!("log {}\nquorum none\n", log_key().verifier());
    let endorsed = Policy::parse(policy.as_bytes()).unwrap().verify(proof.note(), TIME).unwrap();
    let entry = proof.extra().unwrap().to_vec();
    proof.verify(&merkle_leaf(&entry), &endorsed).unwrap();
    let path = inclusion(&own_leaves(), 3, 5).unwrap();
    let made = TlogProof::new(Some(own_entries()[3].clone()), 3, path.clone(), proof.note().clone()).unwrap();
    assert_eq!(made.to_string(), text);
    assert_eq!(made, proof);
    assert_eq!(proof.verify(&merkle_leaf(b"another entry"), &endorsed).unwrap_err().check, "root");
    let note = proof.note();
    TlogProof::new(None, u64::MAX, path.clone(), note.clone()).unwrap_err();
    TlogProof::new(None, 3, vec![path[0]; 64], note.clone()).unwrap_err();
    TlogProof::new(Some(vec![0; 65_536]), 3, path, note.clone()).unwrap_err();
}

#[test]
fn t7_both_sides_of_a_fork_are_signed() {
    let key = log_key();
    let mut leaves = own_leaves();
    leaves.0[1] = digest_of(text("/own/fork_leaf_1"));
    assert_eq!(merkle_leaf(&bytes_of_hex(text("/own/fork_entry_1"))), leaves.0[1]);
    let keys = [key.verifier().clone()];
    let head_of = |text: &str| note(text).verify(&keys).unwrap().checkpoint(&keys).unwrap().head;
    let head = head_of(text("/own/fork_checkpoint_2"));
    assert_eq!(head, TreeHead::new(2, root_of(&leaves.0[..2])).unwrap());
    assert_eq!(to_base64(head.root().as_bytes()), "B/ReACljeV+G0WxdG926u0gv0JTxeo+i1ktSsIS6Y80=");
    let honest = TreeHead::new(2, root_of(&own_leaves().0[..2])).unwrap();
    assert_eq!(verify_consistency(&honest, &head, &[]).unwrap_err().check, "root");
    let (same_size, same_index) = (&VECTORS["own"]["evidence_same_size"], &VECTORS["own"]["evidence_same_index"]);
    let index = same_index["Index"].as_u64().unwrap();
    assert_eq!(index, 1);
    let mut found = Vec::new();
    for side in ["A", "B"] {
        let (head, leaf) =
            (head_of(json_text(&same_index[side]["Checkpoint"])), json_text(&same_index[side]["LeafHash"]));
        verify_inclusion(&digest_of(leaf), index, &hashes(&same_index[side]["Proof"]), &head).unwrap();
        found.push((head_of(json_text(&same_size[side]["Checkpoint"])), leaf));
    }
    // The evidence is that the sizes are the same and the roots differ, or the index and the leaves.
    assert_eq!(found[0].0.size(), found[1].0.size());
    assert!(found[0].0.root() != found[1].0.root() && found[0].1 != found[1].1);
}

#[test]
fn t8_the_classic_tree_has_its_classic_roots_and_proofs() {
    let vectors = &VECTORS["rfc6962"];
    let entries = strings(&vectors["leaves"]).into_iter().map(bytes_of_hex);
    let leaves = Leaves(entries.map(|entry| merkle_leaf(&entry)).collect());
    for (size, root) in hashes(&vectors["roots"]).into_iter().enumerate() {
        assert_eq!(root_of(&leaves.0[..size]), root);
        assert_eq!(root_at(&leaves, size as u64).unwrap(), root);
    }
    check_proofs(&leaves, &vectors["inclusion"], &vectors["consistency"]);
    assert_eq!(rows_of(8).len(), 1);
}
