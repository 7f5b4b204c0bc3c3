//! Requests to witnesses, from bytes to a cosignature.
//!
//! Each class is made by a check that the one before it passed: only a `Growth` can be cosigned. Requests are parsed attached, a few
//! microseconds; verifying and signing are detached, because ML-DSA-44 takes some tenths of a millisecond.

use pyo3::prelude::*;
use pyo3::types::PyBytes;
use qed_core::hash::Digest as CoreDigest;
use qed_core::tlog::add_checkpoint;
use qed_core::tlog::key::VerifierKey;
use qed_core::tlog::merkle::TreeHead;
use qed_core::tlog::note::Note;
use qed_core::tlog::text::Name;

use crate::error;
use crate::proofs::Digest;
use crate::signing::SigningKey;

/// The public keys with which one log signs.
#[pyclass(frozen, module = "qed._qed")]
pub struct LogKeys(pub Vec<VerifierKey>);

#[pymethods]
impl LogKeys {
    /// Return the keys that the texts spell, for logs: of kind 01 or 06, none twice, and no two of one name and id.
    #[staticmethod]
    #[pyo3(signature = (vkeys, /))]
    fn parse(vkeys: Vec<String>) -> PyResult<Self> {
        add_checkpoint::log_keys(&vkeys).map(Self).map_err(error::of_key)
    }

    /// Return the keys that the texts spell, for those who ask the signer of a log: of kind 04 or 06, with names below that of the log.
    #[staticmethod]
    #[pyo3(signature = (vkeys, origin, /))]
    fn parse_submitters(vkeys: Vec<String>, origin: &str) -> PyResult<Self> {
        let origin = Name::parse(origin).map_err(error::of_key)?;
        add_checkpoint::submitter_keys(&vkeys, &origin).map(Self).map_err(error::of_key)
    }

    /// The byte that stands for the kind of each key.
    #[getter]
    fn kinds(&self) -> Vec<u8> {
        self.0.iter().map(|key| key.kind().byte()).collect()
    }

    /// The name of each key.
    #[getter]
    fn names(&self) -> Vec<String> {
        self.0.iter().map(|key| key.name().to_string()).collect()
    }

    fn __repr__(&self) -> String {
        format!("{:?}", self.0)
    }
}

/// Raise `CertificateError` unless a log may have this name.
#[pyfunction]
#[pyo3(signature = (origin, /))]
pub fn require_origin(origin: &str) -> PyResult<()> {
    Name::parse(origin).map(drop).map_err(error::of_key)
}

/// A request to cosign a checkpoint: well-formed, and not verified.
#[pyclass(frozen, module = "qed._qed")]
pub struct AddCheckpoint(add_checkpoint::AddCheckpoint);

#[pymethods]
impl AddCheckpoint {
    /// Return the request in a body; raise `MalformedProof` if there is none.
    #[staticmethod]
    #[pyo3(signature = (body, /))]
    fn parse(body: &[u8]) -> PyResult<Self> {
        add_checkpoint::AddCheckpoint::parse(body).map(Self).map_err(error::of_malformed)
    }

    /// Return the request to sign the checkpoint in a note, which extends the one of size `old` that was signed last.
    #[staticmethod]
    #[pyo3(signature = (old, proof, note, /))]
    fn of(old: u64, proof: Vec<[u8; 32]>, note: &[u8]) -> PyResult<Self> {
        let proof: Vec<_> = proof.into_iter().map(CoreDigest::new).collect();
        let note = Note::parse(note).map_err(error::of_malformed)?;
        add_checkpoint::AddCheckpoint::new(old, &proof, &note).map(Self).map_err(error::of_malformed)
    }

    /// Return the body of the request.
    fn to_bytes<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.0.to_string().as_bytes())
    }

    /// The name of the log that the request is about. It is not verified: use it only to choose keys.
    #[getter]
    fn claimed_origin(&self) -> &str {
        self.0.claimed_origin().as_str()
    }

    /// Whether the checkpoint has extension lines. It is not verified: use it only to refuse the request.
    #[getter]
    fn has_extensions(&self) -> bool {
        self.0.has_extensions()
    }

    /// Return the verified request; raise `VerificationError` unless a key of the log has signed, and no line of one fails.
    #[pyo3(signature = (keys, /))]
    fn verify(&self, py: Python<'_>, keys: PyRef<'_, LogKeys>) -> PyResult<Submission> {
        let (request, keys) = (self.0.clone(), &keys.0);
        py.detach(|| request.verify(keys)).map(Submission).map_err(error::of_verify)
    }
}

/// A request that its log has signed.
#[pyclass(frozen, module = "qed._qed")]
pub struct Submission(add_checkpoint::Submission);

#[pymethods]
impl Submission {
    /// The name of the log.
    #[getter]
    fn origin(&self) -> &str {
        self.0.origin().as_str()
    }

    /// The size that the sender believes the witness has cosigned last.
    #[getter]
    fn old(&self) -> u64 {
        self.0.old()
    }

    /// The size of the tree.
    #[getter]
    fn size(&self) -> u64 {
        self.0.size()
    }

    /// The root of the tree.
    #[getter]
    fn root(&self) -> Digest {
        Digest(*self.0.root())
    }

    /// The checkpoint as a note, with the verified lines of the log only.
    #[getter]
    fn signed_note(&self) -> String {
        self.0.signed_note()
    }

    /// Return the checkpoint as one that can be cosigned; raise `VerificationError` unless it extends the last one.
    #[pyo3(signature = (last, /))]
    fn growth(&self, last: Option<(u64, [u8; 32])>) -> PyResult<Growth> {
        let last = last.map(|(size, root)| TreeHead::new(size, CoreDigest::new(root)));
        let last = last.transpose().map_err(error::of_malformed)?;
        self.0.clone().growth(last.as_ref()).map(Growth).map_err(error::of_verify)
    }
}

/// A checkpoint that its log has signed, and that extends what the witness cosigned last.
#[pyclass(frozen, module = "qed._qed")]
pub struct Growth(add_checkpoint::Growth);

#[pymethods]
impl Growth {
    /// Return the same with the lines of the log in a note that was cosigned before, if that is the same checkpoint.
    #[pyo3(signature = (earlier, keys, /))]
    fn keeping(&self, py: Python<'_>, earlier: &[u8], keys: PyRef<'_, LogKeys>) -> PyResult<Self> {
        let earlier = Note::parse(earlier).map_err(error::of_malformed)?;
        let keys = &keys.0;
        Ok(Self(py.detach(|| self.0.clone().keeping(&earlier, keys))))
    }

    /// Return the signature lines of the witness, and the note with them and the lines of the log.
    #[pyo3(signature = (keys, time, /))]
    fn cosign(&self, py: Python<'_>, keys: Vec<PyRef<'_, SigningKey>>, time: u64) -> PyResult<(String, String)> {
        let keys: Vec<_> = keys.iter().map(|key| key.0.clone()).collect();
        let cosigned = py.detach(|| self.0.cosign(&keys, time)).map_err(error::of_verify)?;
        let lines = cosigned.lines().iter().map(|line| line.to_string() + "\n").collect();
        Ok((lines, cosigned.note().to_string()))
    }
}
