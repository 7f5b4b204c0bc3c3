//! Proofs for many events at once, as Python classes. Verifying one is detached: it takes some milliseconds.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use qed_core::bulk_proof::{self, BulkKeys};
use qed_core::bulk_verify::{self, Shown};
use qed_core::hash;

use crate::error;
use crate::events::{Event, request_of};
use crate::proofs::{Digest, HistoryRoot, HyperRoot, Text};
use crate::verification::{Absent, Present, TrustedBy};

/// Which of these events are in the log, as of its latest version?
#[pyclass(frozen, eq, module = "qed._qed")]
#[derive(PartialEq, Eq)]
pub struct BulkMembership {
    /// The digests in the order of the caller.
    digests: Vec<hash::Digest>,
    /// The same in ascending order, each once.
    pub keys: BulkKeys,
}

#[pymethods]
impl BulkMembership {
    #[new]
    #[pyo3(signature = (events, /))]
    fn new(py: Python<'_>, events: Vec<Event>) -> PyResult<Self> {
        py.detach(|| {
            let digests = request_of(&events, false).digests;
            let mut distinct = digests.clone();
            distinct.sort_unstable();
            distinct.dedup();
            BulkKeys::new(distinct).map(|keys| Self { digests, keys })
        })
        .map_err(|malformed| PyValueError::new_err(malformed.to_string()))
    }

    /// Digests of the events, in the order in which they were given.
    #[getter]
    fn digests(&self) -> Vec<Digest> {
        self.digests.iter().copied().map(Digest).collect()
    }

    /// The digests in ascending order, each once.
    #[getter]
    fn keys(&self) -> Vec<Digest> {
        self.keys.as_slice().iter().copied().map(Digest).collect()
    }

    fn __repr__(&self) -> String {
        format!("<BulkMembership events={} keys={}>", self.digests.len(), self.keys.as_slice().len())
    }
}

/// Proof that some events are in the log and others are not. It has no keys: it answers the question that has them.
#[pyclass(frozen, eq, module = "qed._qed")]
#[derive(PartialEq, Eq)]
pub struct BulkProof(pub bulk_proof::BulkProof);

#[pymethods]
impl BulkProof {
    /// Last version of the log that answered; all events are looked up in the log up to it.
    #[getter]
    fn current_version(&self) -> u64 {
        self.0.current_version
    }

    /// For each key, in ascending order, the version that the event is claimed to be at; None if it is claimed to be absent.
    #[getter]
    fn versions(&self) -> Vec<Option<u64>> {
        let claimed = |end: &bulk_proof::KeyEnd| match end.end {
            bulk_proof::End::Present { version } => Some(version),
            bulk_proof::End::Empty | bulk_proof::End::Neighbour { .. } => None,
        };
        self.0.ends.iter().map(claimed).collect()
    }

    /// Whether the path of any key ends at an event, so that a history root is needed to verify the proof.
    #[getter]
    fn needs_history(&self) -> bool {
        self.0.ends.iter().any(|end| end.end.version().is_some())
    }

    /// Parse a proof from a JSON object; raise `MalformedProof` if the text is not valid.
    #[staticmethod]
    #[pyo3(signature = (text, /))]
    fn from_json(py: Python<'_>, text: Text) -> PyResult<Self> {
        py.detach(|| bulk_proof::BulkProof::from_json(text.as_bytes())).map(Self).map_err(error::of_malformed)
    }

    /// Return the proof as a JSON object.
    fn to_json<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, py.detach(|| self.0.to_json()).as_bytes())
    }

    /// Decode a proof from its compact form; raise `MalformedProof` if the bytes are anything else.
    #[staticmethod]
    #[pyo3(signature = (data, /))]
    fn from_bytes(py: Python<'_>, data: &[u8]) -> PyResult<Self> {
        py.detach(|| bulk_proof::BulkProof::from_bytes(data)).map(Self).map_err(error::of_malformed)
    }

    /// Return the compact form.
    fn to_bytes<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &py.detach(|| self.0.to_bytes()))
    }

    fn __len__(&self) -> usize {
        self.0.ends.len()
    }

    fn __repr__(&self) -> String {
        format!("<BulkProof keys={} current={}>", self.0.ends.len(), self.0.current_version)
    }
}

/// Return what the proof shows of each event, in the order of the question; raise `VerificationError` unless it shows all of it.
#[pyfunction]
#[pyo3(signature = (question, proof, *, hyper_root, history_root, trusted_by, is_linked))]
pub fn verify_bulk_membership(
    py: Python<'_>,
    question: PyRef<'_, BulkMembership>,
    proof: PyRef<'_, BulkProof>,
    hyper_root: PyRef<'_, HyperRoot>,
    history_root: Option<PyRef<'_, HistoryRoot>>,
    trusted_by: TrustedBy,
    is_linked: bool,
) -> PyResult<Vec<Py<PyAny>>> {
    let (asked, proof, hyper, history) = (&*question, &proof.0, &hyper_root.0, history_root.map(|root| root.0));
    let shown = py.detach(|| bulk_verify::verify_bulk_proof(&asked.keys, proof, hyper, history.as_ref()));
    let shown = shown.map_err(error::of_verify)?;
    let finding = |digest: &hash::Digest| {
        let place = asked.keys.as_slice().binary_search(digest).ok();
        match place.and_then(|place| shown.get(place)) {
            Some(Shown::Present(found)) => {
                Ok(Py::new(py, Present::of(*digest, found, trusted_by.clone_ref(py), is_linked))?.into_any())
            }
            Some(Shown::Absent(found)) => {
                Ok(Py::new(py, Absent::of(*digest, *found, trusted_by.clone_ref(py), is_linked))?.into_any())
            }
            None => Err(PyValueError::new_err("every digest of a question is one of its keys")),
        }
    };
    asked.digests.iter().map(finding).collect()
}
