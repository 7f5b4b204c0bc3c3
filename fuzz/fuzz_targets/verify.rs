//! Honest proofs with bytes of them changed: what is not the honest proof is never accepted.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use qed_core::bulk_proof::{BulkKeys, BulkProof};
use qed_core::bulk_verify::verify_bulk_proof;
use qed_core::hash::Digest;
use qed_core::log::{Log, Request};
use qed_core::proof::{AbsenceProof, Answer, IncrementalProof, MembershipProof, Snapshot};
use qed_core::roots::HistoryRoot;
use qed_core::verify::{verify_absence, verify_incremental, verify_membership};

struct Honest {
    present: Digest,
    absent: Digest,
    forms: [Vec<u8>; 4],
    keys: BulkKeys,
    start: Snapshot,
    current: Snapshot,
}

static HONEST: LazyLock<Honest> = LazyLock::new(|| {
    let log = Log::in_memory().expect("a log");
    // The absent key shares its first 24 bits with one that is there, so its proof has a neighbour.
    let mut near = *Digest::of_event(&[7]).as_bytes();
    near[31] ^= 1;
    let (present, absent) = (Digest::of_event(&[3]), Digest::new(near));
    for i in 0..20 {
        log.append(&[Request { digests: vec![Digest::of_event(&[i])], if_absent: false }]).expect("appended");
    }
    let forms = [&present, &absent].map(|key| match log.prove(key, None).expect("a proof") {
        Answer::Member(proof) => proof.to_bytes(),
        Answer::Absent(proof) => proof.to_bytes(),
    });
    let [member, absence] = forms;
    let incremental = log.prove_incremental(6, 19).expect("a proof").to_bytes();
    let keys = BulkKeys::new(vec![present, absent, Digest::of_event(&[9]), Digest::of_event(&[99])]).expect("keys");
    let bulk = log.prove_bulk(&keys).expect("a proof").to_bytes();
    let snapshot = |version| log.snapshot(version).expect("a snapshot");
    let forms = [member, absence, incremental, bulk];
    Honest { present, absent, forms, keys, start: snapshot(6), current: snapshot(19) }
});

fuzz_target!(|edits: Vec<(u8, u16, u8)>| {
    let honest = &*HONEST;
    let mut forms = honest.forms.clone();
    for (kind, place, value) in edits {
        let form = &mut forms[usize::from(kind) % 4];
        let place = usize::from(place) % form.len();
        form[place] = value;
    }
    let [member, absence, incremental, bulk] = &forms;
    let hyper = honest.current.hyper_root();
    let history: [HistoryRoot; 1] = [honest.current.history_root()];
    if let Ok(proof) = MembershipProof::from_bytes(member) {
        let accepted = verify_membership(&honest.present, &proof, None, &hyper, &history).is_ok();
        assert_eq!(accepted, *member == honest.forms[0]);
    }
    if let Ok(proof) = AbsenceProof::from_bytes(absence) {
        assert_eq!(verify_absence(&honest.absent, &proof, None, &hyper, &history).is_ok(), *absence == honest.forms[1]);
    }
    if let Ok(proof) = BulkProof::from_bytes(bulk) {
        let accepted = verify_bulk_proof(&honest.keys, &proof, &hyper, Some(&history[0])).is_ok();
        assert_eq!(accepted, *bulk == honest.forms[3]);
    }
    if let Ok(proof) = IncrementalProof::from_bytes(incremental) {
        assert_eq!(
            verify_incremental(&proof, &honest.start.history_root(), &history[0]).is_ok(),
            *incremental == honest.forms[2]
        );
    }
});
