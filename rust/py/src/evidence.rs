//! Evidence against logs, and checking it.

use pyo3::prelude::*;
use qed_core::proof::Malformed;
use qed_core::tlog::evidence::{self, Charge, ProvenLeaf, Verdict};
use qed_core::tlog::key::VerifierKey;

use crate::error;
use crate::proofs::Digest;
use crate::trust::{Checkpoint, SignedReceipt, TrustFile};

/// What a log has signed, though an honest log cannot have signed it. Nothing in it is verified.
#[pyclass(frozen, eq, module = "qed._qed")]
#[derive(PartialEq, Eq)]
pub struct Evidence(pub evidence::Evidence);

impl Evidence {
    /// Return the evidence about these checkpoints, which are of one log.
    pub fn about(
        checkpoints: &[&Checkpoint],
        charge: Charge,
        found_at: Option<u64>,
        sources: Vec<String>,
    ) -> Result<Self, Malformed> {
        let mut vkeys: Vec<VerifierKey> = Vec::new();
        for key in checkpoints.iter().flat_map(|checkpoint| checkpoint.log_keys()) {
            if !vkeys.contains(key) {
                vkeys.push(key.clone());
            }
        }
        vkeys.sort_unstable_by_key(ToString::to_string);
        let first = checkpoints.first().ok_or_else(|| Malformed("expected a checkpoint, found none".into()))?;
        Ok(Self(evidence::Evidence { origin: first.origin_name().clone(), vkeys, charge, found_at, sources }))
    }
}

impl Evidence {
    /// Return the evidence that two trees of one log differ at an index: for each its checkpoint, and the leaf that it has.
    pub fn of_leaves(
        index: u64,
        (first, a): (&Checkpoint, ProvenLeaf),
        (second, b): (&Checkpoint, ProvenLeaf),
        found_at: Option<u64>,
        sources: Vec<String>,
    ) -> PyResult<Self> {
        let charge = Charge::SameIndex { index, a, b };
        Self::about(&[first, second], charge, found_at, sources).map_err(error::of_malformed)
    }
}

#[pymethods]
impl Evidence {
    /// Return the evidence in a JSON object.
    #[staticmethod]
    #[pyo3(signature = (text, /))]
    fn from_json(text: &[u8]) -> PyResult<Self> {
        evidence::Evidence::from_json(text).map(Self).map_err(error::of_malformed)
    }

    /// Return two checkpoints of one size as evidence.
    #[staticmethod]
    #[pyo3(signature = (a, b, /, *, found_at = None, sources = Vec::new()))]
    fn same_size(
        a: PyRef<'_, Checkpoint>,
        b: PyRef<'_, Checkpoint>,
        found_at: Option<u64>,
        sources: Vec<String>,
    ) -> PyResult<Self> {
        let notes = (a.to_note().map_err(error::of_malformed)?, b.to_note().map_err(error::of_malformed)?);
        let charge = Charge::SameSize { a: notes.0, b: notes.1 };
        Self::about(&[&a, &b], charge, found_at, sources).map_err(error::of_malformed)
    }

    /// Return two receipts with different entries at an index as evidence; raise `VerificationError` unless both verify, and
    /// `MalformedProof` unless both have the entry.
    #[staticmethod]
    #[pyo3(signature = (a, b, index, trust, /, *, now, sources = Vec::new()))]
    fn same_index(
        py: Python<'_>,
        a: PyRef<'_, SignedReceipt>,
        b: PyRef<'_, SignedReceipt>,
        index: u64,
        trust: PyRef<'_, TrustFile>,
        now: u64,
        sources: Vec<String>,
    ) -> PyResult<Self> {
        let shown = (a.shown(py, &trust, now)?, b.shown(py, &trust, now)?);
        let leaf = |receipt: &SignedReceipt| receipt.0.proven_leaf(index).map_err(error::of_malformed);
        let (first, second) = (shown.0.checkpoint.get(), shown.1.checkpoint.get());
        Self::of_leaves(index, (first, leaf(&a)?), (second, leaf(&b)?), Some(now), sources)
    }

    /// Return two checkpoints as a suspicion.
    #[staticmethod]
    #[pyo3(signature = (a, b, /, *, found_at = None, sources = Vec::new()))]
    fn suspicion(
        a: PyRef<'_, Checkpoint>,
        b: PyRef<'_, Checkpoint>,
        found_at: Option<u64>,
        sources: Vec<String>,
    ) -> PyResult<Self> {
        let notes = (a.to_note().map_err(error::of_malformed)?, b.to_note().map_err(error::of_malformed)?);
        let charge = Charge::Suspicion { a: notes.0, b: notes.1, consistency: None };
        Self::about(&[&a, &b], charge, found_at, sources).map_err(error::of_malformed)
    }

    /// Return the evidence as one line of JSON, without its end.
    fn to_json(&self) -> Vec<u8> {
        self.0.to_json().into_bytes()
    }

    /// What the log is said to have done: "same-size", "same-index", "invalid-entry" or "suspicion".
    #[getter]
    fn kind(&self) -> &'static str {
        self.0.charge.kind()
    }

    /// The name of the log.
    #[getter]
    fn origin(&self) -> String {
        self.0.origin.to_string()
    }

    /// The index of the entry that the evidence is about, or None.
    #[getter]
    fn index(&self) -> Option<u64> {
        self.0.charge.index()
    }

    /// The first and last version of the commit batch that must be replayed to check the evidence, or None.
    #[getter]
    const fn replay(&self) -> Option<(u64, u64)> {
        match &self.0.charge {
            Charge::InvalidEntry { replay: Some(replay), .. } => Some((replay.from, replay.to)),
            _ => None,
        }
    }

    /// When it was found, in seconds since 1970, or None. Not verified.
    #[getter]
    const fn found_at(&self) -> Option<u64> {
        self.0.found_at
    }

    /// Where it was found. Not verified.
    #[getter]
    fn sources(&self) -> Vec<String> {
        self.0.sources.clone()
    }

    /// The hash that names the file.
    #[getter]
    fn name(&self) -> PyResult<Digest> {
        self.0.name().map(Digest).map_err(error::of_malformed)
    }

    /// Return what the evidence shows; raise `VerificationError` if it shows nothing.
    #[pyo3(signature = (trust, /))]
    fn judge(&self, py: Python<'_>, trust: PyRef<'_, TrustFile>) -> PyResult<Judgement> {
        let trust = &trust.0;
        py.detach(|| self.0.judge(trust)).map(Judgement).map_err(error::of_verify)
    }

    fn __repr__(&self) -> String {
        format!("<Evidence {} {:?}>", self.0.charge.kind(), self.0.origin)
    }
}

/// What a file of evidence shows.
#[pyclass(frozen, module = "qed._qed")]
pub struct Judgement(evidence::Judgement);

#[pymethods]
impl Judgement {
    /// "convicted", "innocent", "suspected" or "unreplayed".
    #[getter]
    const fn verdict(&self) -> &'static str {
        match self.0.verdict {
            Verdict::Convicted => "convicted",
            Verdict::Innocent => "innocent",
            Verdict::Suspected => "suspected",
            Verdict::Unreplayed => "unreplayed",
        }
    }

    /// Size and root of each checkpoint, and the public keys that have signed it.
    #[getter]
    fn signed(&self) -> Vec<(u64, Digest, Vec<String>)> {
        let signed = self.0.signed.iter().map(|side| {
            let head = &side.checkpoint.head;
            (head.size(), Digest(*head.root()), side.keys.iter().map(ToString::to_string).collect())
        });
        signed.collect()
    }

    fn __repr__(&self) -> String {
        format!("<Judgement {}>", self.verdict())
    }
}
