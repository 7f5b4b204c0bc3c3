//! Verification of proofs, and what they show, as Python classes.
//!
//! A finding has no constructor: only a proof that verifies makes one.
//!
//! A single proof is verified attached. That is at most 800 compressions of SHA-256, some 30 µs, and usually a tenth of it: threads that
//! detach for so short a time verify fewer proofs, not more (bench/README.md). Additions and bulks, which servers send, are verified detached.

use std::hash::{Hash, Hasher};

use pyo3::prelude::*;
use qed_core::{hash, verify};

use crate::error;
use crate::proofs::{AbsenceProof, Digest, HistoryRoot, HyperRoot, IncrementalProof, MembershipProof, Snapshot};
use crate::questions::Membership;

/// On whose word roots are trusted: a member of the Python enumeration `qed.TrustedBy`.
#[derive(FromPyObject, IntoPyObjectRef)]
#[pyo3(transparent)]
pub struct TrustedBy(Py<PyAny>);

impl TrustedBy {
    /// Return the same member.
    pub fn clone_ref(&self, py: Python<'_>) -> Self {
        Self(self.0.clone_ref(py))
    }
}

// Python has one object for each member of an enumeration.
impl PartialEq for TrustedBy {
    fn eq(&self, other: &Self) -> bool {
        self.0.is(&other.0)
    }
}

impl Eq for TrustedBy {}

impl Hash for TrustedBy {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.as_ptr().hash(state);
    }
}

/// The event is in the log. Every field is proven.
#[pyclass(frozen, eq, hash, get_all, module = "qed._qed")]
#[derive(PartialEq, Eq, Hash)]
pub struct Present {
    /// Digest of the event.
    digest: Digest,
    /// A version the event is at, at or below the one that was asked.
    version: u64,
    /// A later version the event is at as well, or `version` if the answer shows no other.
    latest_version: u64,
    /// The version whose history root shows the event: the one asked, or the last of the log.
    as_of: u64,
    /// On whose word the roots are trusted.
    trusted_by: TrustedBy,
    /// Whether the hyper root is linked. The version of the event rests on history roots alone, which always are.
    is_linked: bool,
}

impl Present {
    /// Return the finding about an event, for what a proof has shown.
    pub const fn of(digest: hash::Digest, shown: &verify::Present, trusted_by: TrustedBy, is_linked: bool) -> Self {
        let verify::Present { version, latest_version, as_of } = *shown;
        Self { digest: Digest(digest), version, latest_version, as_of, trusted_by, is_linked }
    }
}

#[pymethods]
impl Present {
    fn __repr__(&self) -> String {
        let Self { digest, version, latest_version, as_of, trusted_by, is_linked } = self;
        format!(
            "<Present event={} version={version} latest={latest_version} as_of={as_of} trusted_by={} linked={is_linked}>",
            digest.0, trusted_by.0
        )
    }
}

/// The event is not in the log, if the trusted hyper root holds every event up to its version: who gave the root vouches for that, and
/// every field is proven from it.
#[pyclass(frozen, eq, hash, get_all, module = "qed._qed")]
#[derive(PartialEq, Eq, Hash)]
pub struct Absent {
    /// Digest of the event.
    digest: Digest,
    /// The event is at no version up to this one.
    as_of: u64,
    /// On whose word the roots are trusted.
    trusted_by: TrustedBy,
    /// Whether the hyper root is linked. If not, the absence is the word of the server that answered.
    is_linked: bool,
}

impl Absent {
    /// Return the finding about an event, for what a proof has shown.
    pub const fn of(digest: hash::Digest, shown: verify::Absent, trusted_by: TrustedBy, is_linked: bool) -> Self {
        Self { digest: Digest(digest), as_of: shown.as_of, trusted_by, is_linked }
    }
}

#[pymethods]
impl Absent {
    fn __repr__(&self) -> String {
        let Self { digest, as_of, trusted_by, is_linked } = self;
        format!("<Absent event={} as_of={as_of} trusted_by={} linked={is_linked}>", digest.0, trusted_by.0)
    }
}

/// The log at `end` begins with the log at `start`, unchanged.
#[pyclass(frozen, eq, hash, get_all, module = "qed._qed")]
#[derive(PartialEq, Eq, Hash)]
pub struct Extends {
    /// The earlier version.
    start: u64,
    /// The later version.
    end: u64,
    /// On whose word the roots are trusted.
    trusted_by: TrustedBy,
}

#[pymethods]
impl Extends {
    fn __repr__(&self) -> String {
        let Self { start, end, trusted_by } = self;
        format!("<Extends start={start} end={end} trusted_by={}>", trusted_by.0)
    }
}

/// Return what the proof shows of the event; raise `VerificationError` unless it shows that the event is in the log.
#[pyfunction]
#[pyo3(signature = (question, proof, *, hyper_root, history_root, latest_root, trusted_by, is_linked))]
#[allow(clippy::too_many_arguments, reason = "each is a root or its origin, named by the caller in Python")]
pub fn verify_membership(
    question: PyRef<'_, Membership>,
    proof: PyRef<'_, MembershipProof>,
    hyper_root: PyRef<'_, HyperRoot>,
    history_root: PyRef<'_, HistoryRoot>,
    latest_root: Option<PyRef<'_, HistoryRoot>>,
    trusted_by: TrustedBy,
    is_linked: bool,
) -> PyResult<Present> {
    let (digest, asked) = question.asked();
    let (proof, hyper, query) = (&proof.0, &hyper_root.0, history_root.0);
    // One root twice is one root.
    let history = [query, latest_root.map_or(query, |root| root.0)];
    let shown = verify::verify_membership(&digest.0, proof, asked, hyper, &history);
    Ok(Present::of(digest.0, &shown.map_err(error::of_verify)?, trusted_by, is_linked))
}

/// Return what the proof shows of the event; raise `VerificationError` unless it shows that the event is not in the log.
#[pyfunction]
#[pyo3(signature = (question, proof, *, hyper_root, history_root, trusted_by, is_linked))]
pub fn verify_absence(
    question: PyRef<'_, Membership>,
    proof: PyRef<'_, AbsenceProof>,
    hyper_root: PyRef<'_, HyperRoot>,
    history_root: Option<PyRef<'_, HistoryRoot>>,
    trusted_by: TrustedBy,
    is_linked: bool,
) -> PyResult<Absent> {
    let (digest, asked) = question.asked();
    let (proof, hyper, history) = (&proof.0, &hyper_root.0, history_root.map(|root| root.0));
    let shown = verify::verify_absence(&digest.0, proof, asked, hyper, history.as_slice());
    Ok(Absent::of(digest.0, shown.map_err(error::of_verify)?, trusted_by, is_linked))
}

/// Return what the proof shows; raise `VerificationError` unless the log of one root extends that of the other.
#[pyfunction]
#[pyo3(signature = (proof, *, start_root, end_root, trusted_by))]
pub fn verify_incremental(
    proof: PyRef<'_, IncrementalProof>,
    start_root: PyRef<'_, HistoryRoot>,
    end_root: PyRef<'_, HistoryRoot>,
    trusted_by: TrustedBy,
) -> PyResult<Extends> {
    let (proof, start, end) = (&proof.0, &start_root.0, &end_root.0);
    let shown = verify::verify_incremental(proof, start, end);
    let verify::Extends { start, end } = shown.map_err(error::of_verify)?;
    Ok(Extends { start, end, trusted_by })
}

/// Raise `VerificationError` unless the proof shows the snapshot to belong to the log of the root, and to hold its event.
#[pyfunction]
#[pyo3(signature = (proof, *, trusted, added))]
pub fn verify_addition(
    py: Python<'_>,
    proof: PyRef<'_, IncrementalProof>,
    trusted: PyRef<'_, HistoryRoot>,
    added: PyRef<'_, Snapshot>,
) -> PyResult<()> {
    let (proof, trusted, added) = (&proof.0, &trusted.0, &added.0);
    py.detach(|| verify::verify_addition(proof, trusted, added)).map_err(error::of_verify)
}

/// Raise `VerificationError` unless the proof and the events lead to the history digest of every snapshot of a bulk.
#[pyfunction]
#[pyo3(signature = (proof, added, /))]
pub fn verify_bulk(
    py: Python<'_>,
    proof: PyRef<'_, IncrementalProof>,
    added: Vec<PyRef<'_, Snapshot>>,
) -> PyResult<()> {
    let added: Vec<_> = added.iter().map(|snapshot| snapshot.0).collect();
    let proof = &proof.0;
    py.detach(|| verify::verify_bulk(proof, &added)).map_err(error::of_verify)
}
