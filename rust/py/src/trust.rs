//! Trust files, and what they verify: receipts, bundles and proof files that a log has signed.
//!
//! A receipt can have 65,536 entries, so verifying is detached.

use pyo3::prelude::*;
use qed_core::proof::Malformed;
use qed_core::tlog::bundle::{self, Saved};
use qed_core::tlog::claim::{self, Level};
use qed_core::tlog::key::VerifierKey;
use qed_core::tlog::merkle::TreeHead;
use qed_core::tlog::note::{Note, VerifiedLine};
use qed_core::tlog::policy::{Cosignature, Endorsed};
use qed_core::tlog::text::Name;
use qed_core::tlog::{proof_file, receipt, trust_file};

use crate::cosigning::PolicyWitness;
use crate::error;
use crate::proofs::{Digest, IncrementalProof, Snapshot, answer_to_python};
use crate::questions::{Extension, Membership};

/// What somebody demands of a log before believing it.
#[pyclass(frozen, module = "qed._qed")]
pub struct TrustFile(pub trust_file::TrustFile);

#[pymethods]
impl TrustFile {
    /// Return the trust file in the content of a file.
    #[staticmethod]
    #[pyo3(signature = (content, /))]
    fn parse(content: &[u8]) -> PyResult<Self> {
        trust_file::TrustFile::parse(content).map(Self).map_err(|error| error::of_trust_file(&error))
    }

    /// Whether witnesses have to cosign.
    #[getter]
    fn has_quorum(&self) -> bool {
        self.0.policy().has_quorum()
    }

    /// How old the times of the quorum may be, in seconds, or None.
    #[getter]
    fn max_age_s(&self) -> Option<u64> {
        self.0.max_age_s()
    }

    /// The names of the logs, each once.
    #[getter]
    fn origins(&self) -> Vec<String> {
        let mut names: Vec<_> = self.0.policy().logs().iter().map(|log| log.key.name().to_string()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// The witnesses, in the order of the policy.
    #[getter]
    fn witnesses(&self) -> Vec<PolicyWitness> {
        self.0.policy().witnesses().iter().map(PolicyWitness::from).collect()
    }

    /// The names of witnesses that lie under the name of a log.
    #[getter]
    fn doubtful_witnesses(&self) -> Vec<String> {
        self.0.doubtful_witnesses().iter().map(|key| key.name().to_string()).collect()
    }

    /// The names under which several keys count as several witnesses.
    #[getter]
    fn counted_twice(&self) -> Vec<String> {
        self.0.policy().counted_twice().into_iter().map(ToString::to_string).collect()
    }

    /// The names of witnesses with the public key of a log.
    #[getter]
    fn witnesses_of_themselves(&self) -> Vec<String> {
        self.0.policy().witnesses_of_themselves().into_iter().map(ToString::to_string).collect()
    }

    /// Return whether the witnesses with these names are enough for the quorum. Any are if there is none.
    #[pyo3(signature = (names, /))]
    fn is_quorum(&self, names: Vec<String>) -> bool {
        let witnesses = self.0.policy().witnesses().iter().enumerate();
        let found = witnesses.filter(|(_, witness)| names.iter().any(|name| name.as_bytes() == witness.name));
        self.0.policy().is_quorum(&found.map(|(index, _)| index).collect::<Vec<_>>())
    }

    /// Return the checkpoint in a note; raise `VerificationError` unless its log has signed.
    #[pyo3(signature = (note, *, now))]
    fn endorse(&self, py: Python<'_>, note: &[u8], now: u64) -> PyResult<Checkpoint> {
        let note = Note::parse(note).map_err(error::of_malformed)?;
        let endorsed = py.detach(|| self.0.endorse(&note, now)).map_err(error::of_verify)?;
        self.0.require_pinned(endorsed.checkpoint()).map_err(error::of_verify)?;
        Ok(Checkpoint::new(endorsed, &self.0, now))
    }
}

/// A checkpoint that its log has signed.
#[pyclass(frozen, module = "qed._qed")]
pub struct Checkpoint {
    endorsed: Endorsed,
    /// Names of the witnesses whose cosignatures count.
    #[pyo3(get)]
    witnesses: Vec<String>,
    /// Whether the quorum is as recent as the trust file demands.
    #[pyo3(get)]
    is_recent: bool,
}

impl Checkpoint {
    fn new(endorsed: Endorsed, trust: &trust_file::TrustFile, now: u64) -> Self {
        let name = |cosignature: &Cosignature| {
            let witness = trust.policy().witnesses().get(cosignature.witness)?;
            Some(String::from_utf8_lossy(&witness.name).into_owned())
        };
        let witnesses = endorsed.cosignatures().iter().filter_map(name).collect();
        Self { witnesses, is_recent: trust.is_recent(&endorsed, now), endorsed }
    }

    /// Return the note, with the lines of known keys only.
    pub fn to_note(&self) -> Result<Note, Malformed> {
        Note::parse(self.endorsed.note().to_string().as_bytes())
    }

    /// Return the size and the root of the tree.
    pub const fn head(&self) -> TreeHead {
        self.endorsed.checkpoint().head
    }

    /// Return the public keys of the log that have signed.
    pub fn log_keys(&self) -> impl Iterator<Item = &VerifierKey> {
        let keys = self.endorsed.note().lines().iter().map(VerifiedLine::key);
        keys.filter(|key| key.name() == self.origin_name())
    }

    /// Return the name of the log.
    pub const fn origin_name(&self) -> &Name {
        &self.endorsed.checkpoint().origin
    }

    fn times(&self) -> Option<(u64, u64)> {
        match claim::level_of(&self.endorsed) {
            Level::Witnessed { existed_at, confirmed_at } => Some((existed_at, confirmed_at)),
            Level::Signed => None,
        }
    }
}

#[pymethods]
impl Checkpoint {
    /// The name of the log.
    #[getter]
    fn origin(&self) -> String {
        self.endorsed.checkpoint().origin.to_string()
    }

    /// Number of entries.
    #[getter]
    fn size(&self) -> u64 {
        self.endorsed.checkpoint().head.size()
    }

    /// Root of the tree over the entries.
    #[getter]
    fn root(&self) -> Digest {
        Digest(*self.endorsed.checkpoint().head.root())
    }

    /// The note, with the lines of known keys only.
    #[getter]
    fn note(&self) -> String {
        self.endorsed.note().to_string()
    }

    /// The public keys of the log that have signed.
    #[getter]
    fn vkeys(&self) -> Vec<String> {
        self.log_keys().map(ToString::to_string).collect()
    }

    /// Whether witnesses enough for the policy have cosigned.
    #[getter]
    fn is_witnessed(&self) -> bool {
        self.times().is_some()
    }

    /// The time at which enough witnesses had cosigned, in seconds since 1970, or None.
    #[getter]
    fn existed_at(&self) -> Option<u64> {
        self.times().map(|(existed_at, _)| existed_at)
    }

    /// The latest time at which enough witnesses knew no newer checkpoint, in seconds since 1970, or None.
    #[getter]
    fn confirmed_at(&self) -> Option<u64> {
        self.times().map(|(_, confirmed_at)| confirmed_at)
    }

    /// Whether the note has extension lines that its log has not signed.
    #[getter]
    fn has_unsigned_extensions(&self) -> bool {
        self.endorsed.has_unsigned_extensions()
    }

    fn __repr__(&self) -> String {
        let head = &self.endorsed.checkpoint().head;
        format!("<Checkpoint {:?} size={} root={}>", self.endorsed.checkpoint().origin, head.size(), head.root())
    }
}

/// What a receipt, bundle or proof file shows.
#[pyclass(frozen, get_all, module = "qed._qed")]
pub struct Shown {
    /// The checkpoint.
    pub checkpoint: Py<Checkpoint>,
    /// The versions of the events that the file is about, with their digests.
    events: Vec<(u64, Digest)>,
    /// The snapshots whose roots are both proven, in ascending order.
    snapshots: Vec<Snapshot>,
    /// The last version of the commit batch of a receipt, or None.
    batch_end: Option<u64>,
    /// Whether only the log says that `batch_end` ends the batch of the events.
    is_end_claimed: bool,
}

impl Shown {
    fn new(py: Python<'_>, shown: &claim::Shown, trust: &trust_file::TrustFile, now: u64) -> PyResult<Self> {
        let checkpoint = Py::new(py, Checkpoint::new(shown.endorsed().clone(), trust, now))?;
        Ok(Self {
            checkpoint,
            events: shown.entries().iter().map(|entry| (entry.version, Digest(entry.event_digest))).collect(),
            snapshots: shown.snapshots().into_iter().map(Snapshot).collect(),
            batch_end: shown.batch_end().map(|end| end.version),
            is_end_claimed: shown.is_end_claimed(),
        })
    }
}

#[pymethods]
impl Shown {
    fn __repr__(&self) -> String {
        format!("<Shown events={} checkpoint={}>", self.events.len(), self.checkpoint.get().__repr__())
    }
}

/// A receipt that a log has signed. Nothing in it is verified.
#[pyclass(frozen, eq, module = "qed._qed")]
#[derive(PartialEq, Eq)]
pub struct SignedReceipt(pub receipt::SignedReceipt);

impl SignedReceipt {
    /// Return what the receipt shows.
    pub fn shown(&self, py: Python<'_>, trust: &TrustFile, now: u64) -> PyResult<Shown> {
        let shown = py.detach(|| self.0.verify(None, &trust.0, now)).map_err(error::of_verify)?;
        Shown::new(py, &shown, &trust.0, now)
    }
}

#[pymethods]
impl SignedReceipt {
    /// Return the receipt in a JSON object.
    #[staticmethod]
    #[pyo3(signature = (text, /))]
    fn from_json(py: Python<'_>, text: &[u8]) -> PyResult<Self> {
        py.detach(|| receipt::SignedReceipt::from_json(text)).map(Self).map_err(error::of_malformed)
    }

    /// Return the receipt as one line of JSON, without its end.
    fn to_json(&self) -> Vec<u8> {
        self.0.to_json().into_bytes()
    }

    /// The snapshots that the receipt claims, one for each event.
    #[getter]
    fn snapshots(&self) -> Vec<Snapshot> {
        self.0.snapshots().iter().copied().map(Snapshot).collect()
    }

    /// Return what the receipt shows; raise `VerificationError` unless it verifies.
    #[pyo3(signature = (trust, *, now, event=None))]
    fn verify(
        &self,
        py: Python<'_>,
        trust: PyRef<'_, TrustFile>,
        now: u64,
        event: Option<PyRef<'_, Digest>>,
    ) -> PyResult<Shown> {
        let (trust, event) = (&trust.0, event.map(|event| event.0));
        let shown = py.detach(|| self.0.verify(event.as_ref(), trust, now)).map_err(error::of_verify)?;
        Shown::new(py, &shown, trust, now)
    }

    /// Return the proof of the only event for tools of others.
    fn to_proof(&self) -> PyResult<TlogProof> {
        self.0.to_proof().map(TlogProof).map_err(error::of_malformed)
    }
}

/// A question, its answer, and signed roots to check it by. Nothing in it is verified.
#[pyclass(frozen, eq, module = "qed._qed")]
#[derive(PartialEq, Eq)]
pub struct SignedBundle(bundle::SignedBundle);

#[pymethods]
impl SignedBundle {
    /// Return the bundle in a JSON object.
    #[staticmethod]
    #[pyo3(signature = (text, /))]
    fn from_json(text: &[u8]) -> PyResult<Self> {
        bundle::SignedBundle::from_json(text).map(Self).map_err(error::of_malformed)
    }

    /// Return the bundle as one line of JSON, without its end.
    fn to_json(&self) -> Vec<u8> {
        self.0.to_json().into_bytes()
    }

    /// The question.
    #[getter]
    fn question(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        Ok(match *self.0.saved() {
            Saved::Membership { digest, version, .. } => {
                Py::new(py, Membership::about(Digest(digest), version))?.into_any()
            }
            Saved::Inclusion { digest, version } => {
                Py::new(py, Membership::about(Digest(digest), Some(version)))?.into_any()
            }
            Saved::Incremental { start, end, .. } => Py::new(py, Extension::between(start, end))?.into_any(),
        })
    }

    /// The answer, or None if the entry itself is the answer.
    #[getter]
    fn answer(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        Ok(match self.0.saved() {
            Saved::Membership { answer, .. } => Some(answer_to_python(py, answer.clone())?),
            Saved::Incremental { answer, .. } => Some(Py::new(py, IncrementalProof(answer.clone()))?.into_any()),
            Saved::Inclusion { .. } => None,
        })
    }

    /// The snapshots that the bundle claims.
    #[getter]
    fn snapshots(&self) -> Vec<Snapshot> {
        self.0.snapshots().iter().copied().map(Snapshot).collect()
    }

    /// Return the roots that the bundle shows; raise `VerificationError` unless they verify. The answer is not verified.
    #[pyo3(signature = (trust, *, now))]
    fn verify(&self, py: Python<'_>, trust: PyRef<'_, TrustFile>, now: u64) -> PyResult<Shown> {
        let trust = &trust.0;
        let shown = py.detach(|| self.0.verify(trust, now)).map_err(error::of_verify)?;
        Shown::new(py, &shown, trust, now)
    }

    /// Return the proof of the newest entry for tools of others.
    fn to_proof(&self) -> PyResult<TlogProof> {
        self.0.to_proof().map(TlogProof).map_err(error::of_malformed)
    }
}

/// A proof file of C2SP. Nothing in it is verified.
#[pyclass(frozen, eq, module = "qed._qed")]
#[derive(PartialEq, Eq)]
pub struct TlogProof(proof_file::TlogProof);

impl TlogProof {
    /// Return a proof of its parts, which are not verified.
    pub fn of(
        extra: Option<Vec<u8>>,
        index: u64,
        path: Vec<qed_core::hash::Digest>,
        note: Note,
    ) -> Result<Self, Malformed> {
        proof_file::TlogProof::new(extra, index, path, note).map(Self)
    }
}

#[pymethods]
impl TlogProof {
    /// Return the proof in the content of a file.
    #[staticmethod]
    #[pyo3(signature = (content, /))]
    fn parse(content: &[u8]) -> PyResult<Self> {
        proof_file::TlogProof::parse(content).map(Self).map_err(error::of_malformed)
    }

    /// Return the content of the file.
    fn to_bytes(&self) -> Vec<u8> {
        self.0.to_string().into_bytes()
    }

    /// Return what the proof shows; raise `VerificationError` unless it verifies.
    #[pyo3(signature = (trust, *, now, event=None))]
    fn verify(
        &self,
        py: Python<'_>,
        trust: PyRef<'_, TrustFile>,
        now: u64,
        event: Option<PyRef<'_, Digest>>,
    ) -> PyResult<Shown> {
        let (trust, event) = (&trust.0, event.map(|event| event.0));
        let shown = py.detach(|| self.0.verify_entry(event.as_ref(), trust, now)).map_err(error::of_verify)?;
        Shown::new(py, &shown, trust, now)
    }
}
