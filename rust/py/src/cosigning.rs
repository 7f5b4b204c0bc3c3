//! Collecting the cosignatures of a checkpoint.
//!
//! A witness may sign with ML-DSA-44, so what verifies is detached.

use pyo3::prelude::*;
use qed_core::hash::Digest as CoreDigest;
use qed_core::tlog::cosigning;
use qed_core::tlog::note::Note;
use qed_core::tlog::policy::Party;

use crate::error;
use crate::proofs::Digest;
use crate::trust::TrustFile;

/// A witness of a policy.
#[pyclass(frozen, get_all, module = "qed._qed")]
pub struct PolicyWitness {
    /// Its name in the policy.
    name: String,
    /// Its public key.
    vkey: String,
    /// Where checkpoints are submitted, or None.
    url: Option<String>,
}

impl From<&Party> for PolicyWitness {
    fn from(party: &Party) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { name: text(&party.name), vkey: party.key.to_string(), url: party.url.as_deref().map(text) }
    }
}

#[pymethods]
impl PolicyWitness {
    fn __repr__(&self) -> String {
        format!("<PolicyWitness {:?} url={:?}>", self.name, self.url)
    }
}

/// A verified cosignature over the checkpoint of one `Cosigning`.
#[pyclass(frozen, module = "qed._qed")]
pub struct Cosignature(cosigning::Collected);

#[pymethods]
impl Cosignature {
    /// The index of the witness in the policy.
    #[getter]
    const fn witness(&self) -> usize {
        self.0.witness()
    }

    /// Its time in seconds since 1970.
    #[getter]
    const fn time(&self) -> u64 {
        self.0.time()
    }

    fn __repr__(&self) -> String {
        format!("<Cosignature witness={} time={}>", self.0.witness(), self.0.time())
    }
}

/// A checkpoint that its log has signed, to be cosigned by the witnesses of a policy.
#[pyclass(frozen, module = "qed._qed")]
pub struct Cosigning(cosigning::Cosigning);

#[pymethods]
impl Cosigning {
    /// Begin with a note; raise `VerificationError` unless a log of the policy has signed.
    #[staticmethod]
    #[pyo3(signature = (trust, note, *, now))]
    fn begin(py: Python<'_>, trust: PyRef<'_, TrustFile>, note: &[u8], now: u64) -> PyResult<Self> {
        let note = Note::parse(note).map_err(error::of_malformed)?;
        let trust = &trust.0;
        py.detach(|| cosigning::Cosigning::begin(trust, &note, now)).map(Self).map_err(error::of_verify)
    }

    /// The name of the log.
    #[getter]
    fn origin(&self) -> &str {
        self.0.checkpoint().origin.as_str()
    }

    /// The size of the tree.
    #[getter]
    fn size(&self) -> u64 {
        self.0.checkpoint().head.size()
    }

    /// The root of the tree.
    #[getter]
    fn root(&self) -> Digest {
        Digest(*self.0.checkpoint().head.root())
    }

    /// Return the body of a request to a witness that has cosigned size `old` last.
    #[pyo3(signature = (old, proof, /))]
    fn request(&self, old: u64, proof: Vec<[u8; 32]>) -> PyResult<Vec<u8>> {
        let proof: Vec<_> = proof.into_iter().map(CoreDigest::new).collect();
        self.0.request(old, &proof).map(|request| request.to_string().into_bytes()).map_err(error::of_malformed)
    }

    /// Return the cosignatures by these witnesses in an answer; raise `MalformedProof` unless it has only signature lines.
    #[pyo3(signature = (witnesses, answer, *, now))]
    fn read(&self, py: Python<'_>, witnesses: Vec<usize>, answer: &[u8], now: u64) -> PyResult<Vec<Cosignature>> {
        let found = py.detach(|| self.0.read(&witnesses, answer, now)).map_err(error::of_malformed)?;
        Ok(found.into_iter().map(Cosignature).collect())
    }

    /// Return the note with the lines of the log and the newest cosignature of each witness.
    #[pyo3(signature = (cosignatures, /))]
    fn note(&self, cosignatures: Vec<PyRef<'_, Cosignature>>) -> PyResult<String> {
        let collected: Vec<_> = cosignatures.iter().map(|cosignature| cosignature.0.clone()).collect();
        self.0.note(&collected).map(|note| note.to_string()).map_err(error::of_malformed)
    }
}
