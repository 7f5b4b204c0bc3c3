//! Claims of one signed log, honest and dishonest: each step of the verification refuses what only it can see.

use std::fmt::Write as _;

use qed_core::hash::{Digest, merkle_inner};
use qed_core::proof::{Malformed, Snapshot};
use qed_core::tlog::checkpoint::Checkpoint;
use qed_core::tlog::claim::{Claim, Form, Level, Proof, Run, Shown, verify};
use qed_core::tlog::entry::{BatchEnd, Entry};
use qed_core::tlog::key::KeyKind;
use qed_core::tlog::merkle::TreeHead;
use qed_core::tlog::note::{Line, Note};
use qed_core::tlog::receipt::SignedReceipt;
use qed_core::tlog::signing::SigningKey;
use qed_core::tlog::text::Name;
use qed_core::tlog::trust_file::TrustFile;

use crate::model::{Leaves, TIME, log_key, ml_dsa_key, signing_key, witness_key};

/// The events of a log, in batches of three: versions 0 to 2, 3 to 5, and so on.
pub const SIZE: u64 = 9;

fn digest(text: &str, version: u64) -> Digest {
    Digest::of_event(format!("{text} {version}").as_bytes())
}

pub fn entry(version: u64) -> Entry {
    let end = BatchEnd { history_digest: digest("history", version), hyper_digest: digest("hyper", version) };
    Entry {
        version,
        event_digest: digest("event", version),
        is_repeat: false,
        batch_end: (version % 3 == 2).then_some(end),
    }
}

pub fn snapshot(version: u64) -> Snapshot {
    Snapshot {
        event_digest: digest("event", version),
        history_digest: digest("history", version),
        hyper_digest: digest("hyper", version / 3 * 3 + 2),
        version,
    }
}

/// What a log signs, whatever it is.
pub struct Signed {
    pub entries: Vec<Entry>,
    pub signers: Vec<(SigningKey, u64)>,
}

pub fn second_witness() -> SigningKey {
    signing_key("witness.example.com/w2", KeyKind::Cosignature, &"02".repeat(32))
}

impl Signed {
    pub fn honest() -> Self {
        let signers = vec![(log_key(), 0), (ml_dsa_key(), TIME), (witness_key(), TIME), (second_witness(), TIME + 60)];
        Self { entries: (0..SIZE).map(entry).collect(), signers }
    }

    fn leaves(&self) -> Leaves {
        Leaves(self.entries.iter().map(Entry::leaf).collect())
    }

    pub fn checkpoint(&self) -> Checkpoint {
        let leaves = self.leaves();
        let head = TreeHead::new(self.entries.len() as u64, leaves.root(0, leaves.0.len())).unwrap();
        Checkpoint::new(log_key().verifier().name().clone(), head)
    }

    pub fn lines(&self) -> Vec<Line> {
        let checkpoint = self.checkpoint();
        self.signers.iter().map(|(key, time)| key.sign(&checkpoint, *time).unwrap()).collect()
    }

    pub fn note(&self) -> Note {
        Note::new(&self.checkpoint().to_string(), self.lines()).unwrap()
    }

    pub fn run(&self, first: usize, end: usize) -> Run {
        let leaves = self.leaves();
        let proof = Proof::Range(leaves.range(first, end, 0, leaves.0.len()));
        Run { first: first as u64, entries: self.entries[first..end].to_vec(), proof }
    }

    /// The receipt of version 3, whose batch ends at 5.
    pub fn receipt(&self) -> SignedReceipt {
        SignedReceipt::new(self.run(3, 4), Some(self.run(5, 6)), vec![snapshot(3)], self.note()).unwrap()
    }
}

pub fn policy_text() -> String {
    let mut text = String::new();
    for key in [log_key(), ml_dsa_key()] {
        writeln!(text, "log {}", key.verifier()).unwrap();
    }
    for (name, key) in [("w1", witness_key()), ("w2", second_witness())] {
        writeln!(text, "witness {name} {}", key.verifier()).unwrap();
    }
    text + "group both all w1 w2\nquorum both\n"
}

pub fn trust_with(fields: &str) -> TrustFile {
    let policy = policy_text().replace('\n', "\\n");
    TrustFile::parse(format!("{{\"Format\":\"qed-trust-1\",\"Policy\":\"{policy}\"{fields}}}").as_bytes()).unwrap()
}

pub fn trust() -> TrustFile {
    TrustFile::parse(policy_text().as_bytes()).unwrap()
}

/// Verify runs of a receipt, and return the check that failed, or what was shown.
fn check(signed: &Signed, runs: &[Run], snapshots: &[Snapshot]) -> Result<Shown, String> {
    let note = signed.note();
    let claim = Claim { form: Form::Receipt, runs, snapshots, note: &note };
    verify(claim, None, &trust(), TIME).map_err(|error| error.check.to_owned())
}

fn check_note(note: &Note, trust: &TrustFile, now: u64) -> Result<Shown, String> {
    let signed = Signed::honest();
    let runs = [signed.run(3, 6)];
    let claim = Claim { form: Form::Receipt, runs: &runs, snapshots: &[], note };
    verify(claim, None, trust, now).map_err(|error| error.check.to_owned())
}

fn level(result: Result<Shown, String>) -> Level {
    result.unwrap().level()
}

#[test]
fn an_honest_receipt_shows_its_entries_its_batch_end_and_its_times() {
    let signed = Signed::honest();
    let shown = signed.receipt().verify(Some(&digest("event", 3)), &trust(), TIME + 60).unwrap();
    assert_eq!(shown.entries(), [entry(3)]);
    assert_eq!(shown.batch_end(), Some(&entry(5)));
    assert_eq!(shown.snapshots(), [snapshot(5)]);
    assert_eq!(shown.level(), Level::Witnessed { existed_at: TIME + 60, confirmed_at: TIME });
    assert_eq!(shown.endorsed().checkpoint(), &signed.checkpoint());
    // Version 4 is not in the receipt, so a batch could end there.
    assert!(shown.is_end_claimed());
    let next = check(&signed, &[signed.run(3, 5), signed.run(5, 6)], &[]).unwrap();
    assert!(!next.is_end_claimed());
    let whole = check(&signed, &[signed.run(3, 6)], &[snapshot(3), snapshot(4), snapshot(5)]).unwrap();
    assert_eq!((whole.snapshots(), whole.is_end_claimed()), (vec![snapshot(5)], false));
}

#[test]
fn step_2_the_origin_is_a_log_of_the_policy() {
    let other = signing_key("other.example.com", KeyKind::Ed25519, &"03".repeat(32));
    let checkpoint = Checkpoint::new(other.verifier().name().clone(), Signed::honest().checkpoint().head);
    let line = other.sign(&checkpoint, 0).unwrap();
    let note = Note::new(&checkpoint.to_string(), vec![line]).unwrap();
    assert_eq!(check_note(&note, &trust(), TIME), Err("origin".into()));
    // The key of a log of the policy says nothing about another log.
    let checkpoint = Checkpoint::new(Name::parse("other.example.com").unwrap(), Signed::honest().checkpoint().head);
    let line = crate::model::sign_anything(&log_key(), &checkpoint.to_string(), 0);
    let note = Note::new(&checkpoint.to_string(), vec![line]).unwrap();
    assert_eq!(check_note(&note, &trust(), TIME), Err("origin".into()));
}

#[test]
fn step_3_the_log_has_signed_and_no_line_of_a_known_key_fails() {
    let mut signed = Signed::honest();
    signed.signers.drain(..2);
    assert_eq!(check_note(&signed.note(), &trust(), TIME), Err("origin".into()));

    let mut other = Signed::honest();
    other.entries[0].is_repeat = true;
    for i in 0..4 {
        let mut lines = Signed::honest().lines();
        lines[i] = other.lines()[i].clone();
        let note = Note::new(&Signed::honest().checkpoint().to_string(), lines).unwrap();
        assert_eq!(check_note(&note, &trust(), TIME), Err("signature".into()), "line {i}");
    }
}

#[test]
fn step_3_an_ml_dsa_signature_of_the_log_is_there_if_it_is_demanded() {
    let mut signed = Signed::honest();
    let demanding = trust_with(r#","RequirePq":true"#);
    assert!(check_note(&signed.note(), &demanding, TIME).is_ok());
    signed.signers.remove(1);
    assert!(check_note(&signed.note(), &trust(), TIME).is_ok());
    assert_eq!(check_note(&signed.note(), &demanding, TIME), Err("signature lines".into()));

    // One of a witness does not count, nor does a retired one beyond its size.
    let witness = signing_key("witness.example.com/w3", KeyKind::MlDsa44, &"04".repeat(32));
    let retired = signing_key(log_key().verifier().name().as_str(), KeyKind::MlDsa44, &"05".repeat(32));
    signed.signers.extend([(witness.clone(), TIME), (retired.clone(), TIME)]);
    for (max_size, expected) in [(SIZE, true), (SIZE - 1, false)] {
        let policy = format!("{}witness w3 {}\n", policy_text(), witness.verifier()).replace('\n', "\\n");
        let file = format!(
            r#"{{"Format":"qed-trust-1","Policy":"{policy}","RequirePq":true,"Retired":[{{"Vkey":"{}","MaxSize":{max_size}}}]}}"#,
            retired.verifier()
        );
        let trust = TrustFile::parse(file.as_bytes()).unwrap();
        assert_eq!(check_note(&signed.note(), &trust, TIME).is_ok(), expected, "{max_size}");
    }
}

#[test]
fn step_3_a_retired_key_counts_up_to_its_size() {
    let retired = signing_key(log_key().verifier().name().as_str(), KeyKind::Ed25519, &"06".repeat(32));
    let mut signed = Signed::honest();
    signed.signers = vec![(retired.clone(), 0), (witness_key(), TIME), (second_witness(), TIME)];
    for (max_size, expected) in [(SIZE, true), (SIZE - 1, false)] {
        let trust = trust_with(&format!(r#","Retired":[{{"Vkey":"{}","MaxSize":{max_size}}}]"#, retired.verifier()));
        assert_eq!(check_note(&signed.note(), &trust, TIME).is_ok(), expected, "{max_size}");
    }
}

#[test]
fn step_4_and_11_cosignatures_that_do_not_count_leave_the_level_at_signed() {
    let signed = Signed::honest();
    assert!(matches!(level(check_note(&signed.note(), &trust(), TIME)), Level::Witnessed { .. }));
    let mut one = Signed::honest();
    one.signers.pop();
    assert_eq!(level(check_note(&one.note(), &trust(), TIME)), Level::Signed);
    // The second witness has signed 60 s after the first.
    assert_eq!(level(check_note(&signed.note(), &trust_with(r#","Skew":59"#), TIME)), Level::Signed);
    assert!(matches!(level(check_note(&signed.note(), &trust_with(r#","Skew":60"#), TIME)), Level::Witnessed { .. }));
    assert_eq!(level(check_note(&signed.note(), &trust(), TIME + 60 - 301)), Level::Signed);
    let alone = TrustFile::parse(policy_text().replace("quorum both", "quorum none").as_bytes()).unwrap();
    assert_eq!(level(check_note(&signed.note(), &alone, TIME)), Level::Signed);
}

#[test]
fn step_5_a_checkpoint_is_recent_by_the_times_of_its_quorum() {
    let shown = check_note(&Signed::honest().note(), &trust(), TIME).unwrap();
    let trust = trust_with(r#","MaxAge":100"#);
    // The earlier of the two decides.
    assert!(trust.is_recent(shown.endorsed(), TIME + 100));
    assert!(!trust.is_recent(shown.endorsed(), TIME + 101));
    assert!(self::trust().is_recent(shown.endorsed(), u64::MAX));
    let mut one = Signed::honest();
    one.signers.pop();
    let shown = check_note(&one.note(), &trust, TIME).unwrap();
    assert!(!trust.is_recent(shown.endorsed(), TIME));
}

#[test]
fn step_6_entries_are_about_their_own_versions_in_the_tree() {
    let mut signed = Signed::honest();
    signed.entries[3].version = 4;
    assert_eq!(check(&signed, &[signed.run(3, 6)], &[]), Err("version of an entry".into()));

    let signed = Signed::honest();
    for first in [SIZE - 1, SIZE, u64::MAX - 1, u64::MAX] {
        let mut run = signed.run(7, 9);
        run.first = first;
        assert_eq!(check(&signed, &[run], &[]), Err("entries".into()), "{first}");
    }
    let empty = Run { first: 3, entries: Vec::new(), proof: Proof::Range(Vec::new()) };
    assert_eq!(check(&signed, &[empty], &[]), Err("entries".into()));
}

#[test]
fn step_6_only_the_last_entry_of_a_run_ends_a_batch() {
    let signed = Signed::honest();
    assert_eq!(check(&signed, &[signed.run(1, 6)], &[]), Err("batch".into()));
    assert_eq!(check(&signed, &[signed.run(2, 4), signed.run(5, 6)], &[]), Err("batch".into()));
}

#[test]
fn step_6_the_last_entry_of_the_tree_ends_a_batch() {
    let mut signed = Signed::honest();
    signed.entries.pop();
    let note = signed.note();
    let runs = [signed.run(7, 8)];
    for form in [Form::Receipt, Form::Bundle] {
        let claim = Claim { form, runs: &runs, snapshots: &[], note: &note };
        let refused = verify(claim, None, &trust(), TIME).unwrap_err();
        assert_eq!(refused.check, "last entry of the tree");
    }
}

#[test]
fn step_6_a_receipt_has_the_end_of_its_batch_once() {
    let signed = Signed::honest();
    let wrong = "batch end".to_owned();
    assert_eq!(check(&signed, &[signed.run(3, 4)], &[]), Err(wrong.clone()));
    assert_eq!(check(&signed, &[signed.run(3, 6), signed.run(8, 9)], &[]), Err(wrong.clone()));
    assert_eq!(check(&signed, &[signed.run(3, 4), signed.run(4, 5)], &[]), Err(wrong.clone()));
    assert_eq!(check(&signed, &[signed.run(3, 4), signed.run(4, 6)], &[]), Err(wrong.clone()));
    assert_eq!(check(&signed, &[signed.run(3, 4), signed.run(4, 5), signed.run(5, 6)], &[]), Err(wrong.clone()));
    assert_eq!(check(&signed, &[], &[]), Err(wrong));
    assert_eq!(check(&signed, &[signed.run(3, 4), signed.run(2, 3)], &[]), Err("entries".into()));
    // Row 45: another batch may end between, which two entries cannot show.
    assert!(check(&signed, &[signed.run(1, 2), signed.run(5, 6)], &[]).unwrap().is_end_claimed());
}

#[test]
fn step_7_every_hash_of_a_proof_is_used_and_leads_to_the_root() {
    let signed = Signed::honest();
    let honest = [signed.run(3, 4), signed.run(5, 6)];
    assert!(check(&signed, &honest, &[]).is_ok());
    for run in 0..2 {
        let Proof::Range(proof) = honest[run].proof.clone() else { panic!("a run has a range proof") };
        let refuse = |proof: Vec<Digest>, expected: &str| {
            let mut runs = honest.clone();
            runs[run].proof = Proof::Range(proof);
            assert_eq!(check(&signed, &runs, &[]), Err(expected.into()));
        };
        for i in 0..proof.len() {
            let mut flipped = proof.clone();
            flipped[i] = merkle_inner(&flipped[i], &flipped[i]);
            refuse(flipped, "root");
            let mut short = proof.clone();
            short.remove(i);
            refuse(short, "number of hashes");
        }
        refuse([proof.clone(), vec![proof[0]]].concat(), "number of hashes");
        let mut runs = honest.clone();
        runs[run].entries[0].is_repeat = true;
        assert_eq!(check(&signed, &runs, &[]), Err("root".into()));
    }
}

#[test]
fn step_7_an_inclusion_proof_is_of_one_entry() {
    let signed = Signed::honest();
    let leaves = Leaves(signed.entries.iter().map(Entry::leaf).collect());
    let path = leaves.path(3, 0, 9);
    let note = signed.note();
    let check = |run: Run| {
        let claim = Claim { form: Form::Bundle, runs: &[run], snapshots: &[], note: &note };
        verify(claim, None, &trust(), TIME).map(|shown| shown.entries().to_vec())
    };
    let run = |first, proof| Run { first, entries: vec![entry(first)], proof };
    assert_eq!(check(run(3, Proof::Inclusion(path.clone()))).unwrap(), [entry(3)]);
    assert_eq!(check(run(4, Proof::Inclusion(path.clone()))).unwrap_err().check, "root");
    let two = Run { first: 3, entries: vec![entry(3), entry(4)], proof: Proof::Inclusion(path) };
    assert_eq!(check(two).unwrap_err().check, "entries");
}

#[test]
fn step_8_the_event_is_one_of_the_entries() {
    let signed = Signed::honest();
    let receipt = signed.receipt();
    assert!(receipt.verify(Some(&digest("event", 3)), &trust(), TIME).is_ok());
    // That the batch end is proven does not make its event one of the receipt.
    for other in [digest("event", 5), digest("event", 4), Digest::default()] {
        assert_eq!(receipt.verify(Some(&other), &trust(), TIME).unwrap_err().check, "event digest");
    }
}

#[test]
fn step_8_snapshots_agree_with_the_entries() {
    let signed = Signed::honest();
    let runs = [signed.run(4, 6)];
    let end = snapshot(5);
    assert!(check(&signed, &runs, &[end]).is_ok());
    let other = Digest::default();
    let refuse = |snapshot: Snapshot, expected: &str| {
        assert_eq!(check(&signed, &runs, &[snapshot]), Err(expected.into()));
    };
    refuse(Snapshot { event_digest: other, ..end }, "event digest of a snapshot");
    refuse(Snapshot { history_digest: other, ..end }, "history digest of a snapshot");
    refuse(Snapshot { hyper_digest: other, ..end }, "hyper digest of a snapshot");
    refuse(Snapshot { version: 3, ..end }, "version of a snapshot");
    refuse(Snapshot { event_digest: other, ..snapshot(4) }, "event digest of a snapshot");
    refuse(Snapshot { hyper_digest: other, ..snapshot(4) }, "hyper digest of a snapshot");
    // What a history root inside the batch is, the entries do not show.
    let shown = check(&signed, &runs, &[Snapshot { history_digest: other, ..snapshot(4) }]).unwrap();
    assert_eq!(shown.snapshots(), [end]);

    let note = signed.note();
    let inside = [signed.run(4, 5)];
    let claim = Claim { form: Form::Bundle, runs: &inside, snapshots: &[snapshot(4)], note: &note };
    assert_eq!(verify(claim, None, &trust(), TIME).unwrap_err().check, "entry of a snapshot");
}

#[test]
fn entries_of_a_bundle_are_in_ascending_order() {
    let signed = Signed::honest();
    let note = signed.note();
    let check = |runs: &[Run]| {
        let claim = Claim { form: Form::Bundle, runs, snapshots: &[snapshot(2), snapshot(5)], note: &note };
        verify(claim, None, &trust(), TIME).map_err(|error| error.check)
    };
    assert_eq!(check(&[signed.run(2, 3), signed.run(5, 6)]).unwrap().snapshots(), [snapshot(2), snapshot(5)]);
    assert_eq!(check(&[signed.run(5, 6), signed.run(2, 3)]), Err("entries"));
    assert_eq!(check(&[signed.run(2, 3), signed.run(2, 3)]), Err("entries"));
}

#[test]
fn step_10_the_root_is_that_of_the_pin_of_its_size() {
    let note = Signed::honest().note();
    let root = qed_core::tlog::text::to_base64(Signed::honest().checkpoint().head.root().as_bytes());
    let other = qed_core::tlog::text::to_base64([7; 32]);
    let pinned = |size: u64, root: &str| trust_with(&format!(r#","Pins":[{{"Size":{size},"Root":"{root}"}}]"#));
    assert!(check_note(&note, &pinned(SIZE, &root), TIME).is_ok());
    assert!(check_note(&note, &pinned(SIZE - 1, &other), TIME).is_ok());
    assert_eq!(check_note(&note, &pinned(SIZE, &other), TIME), Err("pinned root".into()));
}

#[test]
fn a_receipt_has_a_snapshot_for_each_entry() {
    let signed = Signed::honest();
    let new = |snapshots| SignedReceipt::new(signed.run(3, 6), None, snapshots, signed.note());
    assert!(new((3..6).map(snapshot).collect()).is_ok());
    for versions in [3..5, 3..7, 4..7, 0..0] {
        let Malformed(_) = new(versions.map(snapshot).collect()).unwrap_err();
    }
}
