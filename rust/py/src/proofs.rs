//! Digests, snapshots and proofs as Python classes.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};
use qed_core::hash;
use qed_core::proof::{self, Answer};
use qed_core::roots;

use crate::error;

/// From this size in bytes on, an event is hashed detached. For smaller ones, letting other threads run costs more than hashing.
const DETACH_BYTES: usize = 2048;

/// A SHA-256 value of 32 bytes: of an event, or a root.
#[pyclass(frozen, eq, hash, module = "qed._qed")]
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest(pub hash::Digest);

#[pymethods]
impl Digest {
    #[new]
    #[pyo3(signature = (value, /))]
    fn new(value: &[u8]) -> PyResult<Self> {
        let wrong_length = || PyValueError::new_err(format!("expected a digest of 32 bytes, found {}", value.len()));
        hash::Digest::from_slice(value).map(Self).ok_or_else(wrong_length)
    }

    /// Return the digest of an event.
    #[staticmethod]
    #[pyo3(signature = (event, /))]
    pub fn of(py: Python<'_>, event: &[u8]) -> Self {
        if event.len() < DETACH_BYTES {
            return Self(hash::Digest::of_event(event));
        }
        py.detach(|| Self(hash::Digest::of_event(event)))
    }

    /// Return the digest written as 64 hexadecimal digits.
    #[staticmethod]
    #[pyo3(signature = (text, /))]
    fn from_hex(text: &str) -> PyResult<Self> {
        let wrong =
            || PyValueError::new_err(format!("expected 64 hexadecimal digits, found {} characters", text.len()));
        hash::Digest::from_hex(text).map(Self).ok_or_else(wrong)
    }

    /// Return the digest as 64 lower-case hexadecimal digits.
    fn hex(&self) -> String {
        self.0.to_string()
    }

    fn __bytes__<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.0.as_bytes())
    }

    pub fn __repr__(&self) -> String {
        format!("Digest.from_hex('{}')", self.0)
    }
}

/// Text in the types that Python programs have it in: `str`, or `bytes` read from a file or socket.
pub struct Text(Vec<u8>);

impl Text {
    /// Return the bytes of the text.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl<'a, 'py> FromPyObject<'a, 'py> for Text {
    type Error = PyErr;

    fn extract(text: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        let Ok(text) = text.cast::<PyString>() else { return text.extract().map(Self) };
        // A Python string may contain half of a surrogate pair, which JSON text cannot.
        let malformed = |error: PyErr| error::of_malformed(proof::Malformed(format!("not text: {error}")));
        text.to_str().map(|text| Self(text.as_bytes().to_vec())).map_err(malformed)
    }
}

/// What a client receives for an event that it added.
#[pyclass(frozen, eq, hash, module = "qed._qed")]
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Snapshot(pub proof::Snapshot);

#[pymethods]
impl Snapshot {
    #[new]
    #[pyo3(signature = (*, event_digest, history_digest, hyper_digest, version))]
    fn new(
        event_digest: PyRef<'_, Digest>,
        history_digest: PyRef<'_, Digest>,
        hyper_digest: PyRef<'_, Digest>,
        version: u64,
    ) -> Self {
        let (event_digest, history_digest, hyper_digest) = (event_digest.0, history_digest.0, hyper_digest.0);
        Self(proof::Snapshot { event_digest, history_digest, hyper_digest, version })
    }

    /// Digest of the event.
    #[getter]
    fn event_digest(&self) -> Digest {
        Digest(self.0.event_digest)
    }

    /// Root of the history tree at `version`.
    #[getter]
    fn history_digest(&self) -> Digest {
        Digest(self.0.history_digest)
    }

    /// Root of the hyper tree after the commit batch that `version` belongs to.
    #[getter]
    fn hyper_digest(&self) -> Digest {
        Digest(self.0.hyper_digest)
    }

    /// Zero-based position of the event in the log.
    #[getter]
    fn version(&self) -> u64 {
        self.0.version
    }

    /// Return the root of the history tree, with its version.
    fn history_root(&self) -> HistoryRoot {
        HistoryRoot(self.0.history_root())
    }

    /// Return the root of the hyper tree, with its version.
    fn hyper_root(&self) -> HyperRoot {
        HyperRoot(self.0.hyper_root())
    }

    /// Parse a snapshot from a JSON object; raise `MalformedProof` if the text is not valid.
    #[staticmethod]
    #[pyo3(signature = (text, /))]
    fn from_json(text: Text) -> PyResult<Self> {
        proof::Snapshot::from_json(text.as_bytes()).map(Self).map_err(error::of_malformed)
    }

    /// Return the snapshot as a JSON object.
    fn to_json<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.0.to_json().as_bytes())
    }

    /// Decode a snapshot from its compact form; raise `MalformedProof` if the bytes are anything else.
    #[staticmethod]
    #[pyo3(signature = (data, /))]
    fn from_bytes(data: &[u8]) -> PyResult<Self> {
        proof::Snapshot::from_bytes(data).map(Self).map_err(error::of_malformed)
    }

    /// Return the compact form.
    fn to_bytes<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.to_bytes())
    }

    fn __repr__(&self) -> String {
        let proof::Snapshot { event_digest, history_digest, hyper_digest, version } = self.0;
        format!("<Snapshot version={version} event={event_digest} history={history_digest} hyper={hyper_digest}>")
    }
}

/// Root of the history tree at a version.
#[pyclass(frozen, eq, hash, module = "qed._qed")]
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct HistoryRoot(pub roots::HistoryRoot);

#[pymethods]
impl HistoryRoot {
    #[new]
    #[pyo3(signature = (version, digest))]
    fn new(version: u64, digest: PyRef<'_, Digest>) -> Self {
        Self(roots::HistoryRoot { version, digest: digest.0 })
    }

    /// The last version that the root commits to.
    #[getter]
    fn version(&self) -> u64 {
        self.0.version
    }

    /// The root's hash.
    #[getter]
    fn digest(&self) -> Digest {
        Digest(self.0.digest)
    }

    fn __repr__(&self) -> String {
        format!("HistoryRoot({}, {})", self.0.version, Digest(self.0.digest).__repr__())
    }
}

/// Root of the hyper tree after the commit batch that a version belongs to.
#[pyclass(frozen, eq, hash, module = "qed._qed")]
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct HyperRoot(pub roots::HyperRoot);

#[pymethods]
impl HyperRoot {
    #[new]
    #[pyo3(signature = (version, digest))]
    fn new(version: u64, digest: PyRef<'_, Digest>) -> Self {
        Self(roots::HyperRoot { version, digest: digest.0 })
    }

    /// A version of the batch; an answer is verified against the root only if this is its current version.
    #[getter]
    fn version(&self) -> u64 {
        self.0.version
    }

    /// The root's hash.
    #[getter]
    fn digest(&self) -> Digest {
        Digest(self.0.digest)
    }

    fn __repr__(&self) -> String {
        format!("HyperRoot({}, {})", self.0.version, Digest(self.0.digest).__repr__())
    }
}

/// Proof that an event is in the log.
#[pyclass(frozen, eq, module = "qed._qed")]
#[derive(PartialEq, Eq)]
pub struct MembershipProof(pub proof::MembershipProof);

#[pymethods]
impl MembershipProof {
    /// Digest of the event.
    #[getter]
    fn key_digest(&self) -> Digest {
        Digest(self.0.key_digest)
    }

    /// Last version of the log that answered; the hyper path leads to its root.
    #[getter]
    fn current_version(&self) -> u64 {
        self.0.current_version
    }

    /// Version the history path leads to.
    #[getter]
    fn query_version(&self) -> u64 {
        self.0.query_version
    }

    /// Version at which the event is shown to be: the one that the hyper tree shows or, if that is after `query_version`, the latest
    /// occurrence at or before it.
    #[getter]
    fn actual_version(&self) -> u64 {
        self.0.actual_version
    }

    /// Version that the hyper path ends at: `actual_version`, unless the event was added again after `query_version`.
    #[getter]
    fn latest_version(&self) -> u64 {
        self.0.latest_version()
    }

    /// Siblings in the history tree of the later occurrence, with their positions, leaf up; None if there is no later occurrence.
    #[getter]
    fn latest_path(&self) -> Option<Vec<(String, Digest)>> {
        let later = self.0.later.as_ref()?;
        Some(named(proof::membership_positions(later.version, self.0.current_version), &later.history_path))
    }

    /// Siblings in the hyper tree with their positions, root down.
    #[getter]
    fn hyper_path(&self) -> Vec<(String, Digest)> {
        named(proof::hyper_positions(&self.0.key_digest, self.0.hyper_path.len()), &self.0.hyper_path)
    }

    /// Siblings in the history tree with their positions, leaf up.
    #[getter]
    fn history_path(&self) -> Vec<(String, Digest)> {
        named(proof::membership_positions(self.0.actual_version, self.0.query_version), &self.0.history_path)
    }

    /// Parse a membership proof from a JSON answer; raise `MalformedProof` if the text is anything else.
    #[staticmethod]
    #[pyo3(signature = (text, /))]
    fn from_json(py: Python<'_>, text: Text) -> PyResult<Self> {
        match py.detach(|| Answer::from_json(text.as_bytes())).map_err(error::of_malformed)? {
            Answer::Member(proof) => Ok(Self(proof)),
            Answer::Absent(_) => {
                Err(error::of_malformed(proof::Malformed("expected a membership proof, found absence".into())))
            }
        }
    }

    /// Return the proof as a JSON answer, with `key` as the event that was asked for.
    #[pyo3(signature = (*, key = None))]
    fn to_json<'py>(&self, py: Python<'py>, key: Option<&[u8]>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, py.detach(|| self.0.to_json(key)).as_bytes())
    }

    /// Decode a proof from its compact form; raise `MalformedProof` if the bytes are anything else.
    #[staticmethod]
    #[pyo3(signature = (data, /))]
    fn from_bytes(data: &[u8]) -> PyResult<Self> {
        proof::MembershipProof::from_bytes(data).map(Self).map_err(error::of_malformed)
    }

    /// Return the compact form.
    fn to_bytes<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.to_bytes())
    }

    fn __repr__(&self) -> String {
        let proof::MembershipProof { key_digest, current_version, query_version, actual_version, .. } = &self.0;
        format!(
            "<MembershipProof key={key_digest} actual={actual_version} query={query_version} current={current_version}>"
        )
    }
}

/// The event at the place in the hyper tree where the absent event would have to be.
#[pyclass(frozen, module = "qed._qed")]
pub struct Neighbour(proof::Neighbour, u64);

#[pymethods]
impl Neighbour {
    /// Digest of that event.
    #[getter]
    fn key_digest(&self) -> Digest {
        Digest(self.0.key_digest)
    }

    /// Its version.
    #[getter]
    fn version(&self) -> u64 {
        self.0.version
    }

    /// Siblings in the history tree with their positions, leaf up.
    #[getter]
    fn history_path(&self) -> Vec<(String, Digest)> {
        named(proof::membership_positions(self.0.version, self.1), &self.0.history_path)
    }

    fn __repr__(&self) -> String {
        format!("<Neighbour key={} version={}>", self.0.key_digest, self.0.version)
    }
}

/// Proof that an event is not in the log.
#[pyclass(frozen, eq, module = "qed._qed")]
#[derive(PartialEq, Eq)]
pub struct AbsenceProof(pub proof::AbsenceProof);

#[pymethods]
impl AbsenceProof {
    /// Digest of the event that is absent.
    #[getter]
    fn key_digest(&self) -> Digest {
        Digest(self.0.key_digest)
    }

    /// Last version of the log that answered; the hyper path leads to its root.
    #[getter]
    fn current_version(&self) -> u64 {
        self.0.current_version
    }

    /// The requested version.
    #[getter]
    fn query_version(&self) -> u64 {
        self.0.query_version
    }

    /// Siblings in the hyper tree with their positions, root down.
    #[getter]
    fn hyper_path(&self) -> Vec<(String, Digest)> {
        named(proof::hyper_positions(&self.0.key_digest, self.0.hyper_path.len()), &self.0.hyper_path)
    }

    /// The other event that ends the path, or None if it ends at an empty subtree.
    #[getter]
    fn neighbour(&self) -> Option<Neighbour> {
        self.0.neighbour.clone().map(|neighbour| Neighbour(neighbour, self.0.current_version))
    }

    /// Parse an absence proof from a JSON answer; raise `MalformedProof` if the text is anything else.
    #[staticmethod]
    #[pyo3(signature = (text, /))]
    fn from_json(py: Python<'_>, text: Text) -> PyResult<Self> {
        match py.detach(|| Answer::from_json(text.as_bytes())).map_err(error::of_malformed)? {
            Answer::Absent(proof) => Ok(Self(proof)),
            Answer::Member(_) => {
                Err(error::of_malformed(proof::Malformed("expected an absence proof, found membership".into())))
            }
        }
    }

    /// Return the proof as a JSON answer, with `key` as the event that was asked for.
    #[pyo3(signature = (*, key = None))]
    fn to_json<'py>(&self, py: Python<'py>, key: Option<&[u8]>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, py.detach(|| self.0.to_json(key)).as_bytes())
    }

    /// Decode a proof from its compact form; raise `MalformedProof` if the bytes are anything else.
    #[staticmethod]
    #[pyo3(signature = (data, /))]
    fn from_bytes(data: &[u8]) -> PyResult<Self> {
        proof::AbsenceProof::from_bytes(data).map(Self).map_err(error::of_malformed)
    }

    /// Return the compact form.
    fn to_bytes<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.to_bytes())
    }

    fn __repr__(&self) -> String {
        let proof::AbsenceProof { key_digest, current_version, query_version, .. } = &self.0;
        format!("<AbsenceProof key={key_digest} query={query_version} current={current_version}>")
    }
}

/// Proof that the log at one version extends the log at an earlier one.
#[pyclass(frozen, eq, module = "qed._qed")]
#[derive(PartialEq, Eq)]
pub struct IncrementalProof(pub proof::IncrementalProof);

#[pymethods]
impl IncrementalProof {
    /// The earlier version.
    #[getter]
    fn start(&self) -> u64 {
        self.0.start
    }

    /// The later version.
    #[getter]
    fn end(&self) -> u64 {
        self.0.end
    }

    /// Nodes of the history tree with their positions, left to right.
    #[getter]
    fn audit_path(&self) -> Vec<(String, Digest)> {
        named(proof::incremental_positions(self.0.start, self.0.end), &self.0.audit_path)
    }

    /// Parse a proof from a JSON object; raise `MalformedProof` if the text is not valid.
    #[staticmethod]
    #[pyo3(signature = (text, /))]
    fn from_json(py: Python<'_>, text: Text) -> PyResult<Self> {
        py.detach(|| proof::IncrementalProof::from_json(text.as_bytes())).map(Self).map_err(error::of_malformed)
    }

    /// Return the proof as a JSON object.
    fn to_json<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, py.detach(|| self.0.to_json()).as_bytes())
    }

    /// Decode a proof from its compact form; raise `MalformedProof` if the bytes are anything else.
    #[staticmethod]
    #[pyo3(signature = (data, /))]
    fn from_bytes(data: &[u8]) -> PyResult<Self> {
        proof::IncrementalProof::from_bytes(data).map(Self).map_err(error::of_malformed)
    }

    /// Return the compact form.
    fn to_bytes<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.to_bytes())
    }

    fn __repr__(&self) -> String {
        format!("<IncrementalProof start={} end={}>", self.0.start, self.0.end)
    }
}

/// Parse the membership or absence proof in a JSON answer; raise `MalformedProof` if the text is not a valid answer.
#[pyfunction]
#[pyo3(signature = (text, /))]
pub fn parse_answer(py: Python<'_>, text: Text) -> PyResult<Py<PyAny>> {
    let answer = py.detach(|| Answer::from_json(text.as_bytes())).map_err(error::of_malformed)?;
    answer_to_python(py, answer)
}

/// Return the Python object for an answer.
pub fn answer_to_python(py: Python<'_>, answer: Answer) -> PyResult<Py<PyAny>> {
    Ok(match answer {
        Answer::Member(proof) => Py::new(py, MembershipProof(proof))?.into_any(),
        Answer::Absent(proof) => Py::new(py, AbsenceProof(proof))?.into_any(),
    })
}

fn named(positions: impl IntoIterator<Item = impl ToString>, path: &[hash::Digest]) -> Vec<(String, Digest)> {
    positions.into_iter().map(|position| position.to_string()).zip(path.iter().copied().map(Digest)).collect()
}
