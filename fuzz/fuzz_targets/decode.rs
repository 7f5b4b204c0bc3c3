//! Any bytes, as every kind of proof: no panic, and what decodes is written back as it was.
#![no_main]

use libfuzzer_sys::fuzz_target;
use qed_core::bulk_proof::BulkProof;
use qed_core::proof::{AbsenceProof, Answer, IncrementalProof, MembershipProof, Snapshot};

fuzz_target!(|data: &[u8]| {
    if let Ok(proof) = MembershipProof::from_bytes(data) {
        assert_eq!(proof.to_bytes(), data);
        assert_eq!(Answer::from_json(proof.to_json(None).as_bytes()), Ok(Answer::Member(proof)));
    }
    if let Ok(proof) = AbsenceProof::from_bytes(data) {
        assert_eq!(proof.to_bytes(), data);
        assert_eq!(Answer::from_json(proof.to_json(None).as_bytes()), Ok(Answer::Absent(proof)));
    }
    if let Ok(proof) = IncrementalProof::from_bytes(data) {
        assert_eq!(proof.to_bytes(), data);
        assert_eq!(IncrementalProof::from_json(proof.to_json().as_bytes()), Ok(proof));
    }
    if let Ok(proof) = BulkProof::from_bytes(data) {
        assert_eq!(proof.to_bytes(), data);
        assert_eq!(BulkProof::from_json(proof.to_json().as_bytes()), Ok(proof));
    }
    if let Ok(snapshot) = Snapshot::from_bytes(data) {
        assert_eq!(snapshot.to_bytes(), data);
    }
    let _ = (
        BulkProof::from_json(data),
        Answer::from_json(data),
        IncrementalProof::from_json(data),
        Snapshot::from_json(data),
    );
});
