//! What logs and witnesses sign with, and what a log signs.

use std::path::PathBuf;
use std::sync::Mutex;

use pyo3::prelude::*;
use pyo3::types::PyBytes;
use qed_core::tlog::checkpoint::Checkpoint;
use qed_core::tlog::key::KeyKind;
use qed_core::tlog::merkle::TreeHead;
use qed_core::tlog::note::{Line, Note};
use qed_core::tlog::signing;
use qed_core::tlog::text::Name;
use qed_node::sign_memory::{self, Remembered, SignMemoryError};

use crate::error;
use crate::proofs::Digest;
use crate::witnessing::LogKeys;

/// A private key with which a log or a witness signs checkpoints. Only `to_secret_text` shows it.
#[pyclass(frozen, module = "qed._qed")]
pub struct SigningKey(pub signing::SigningKey);

#[pymethods]
impl SigningKey {
    /// Return the keys of a log that follow from random seeds, Ed25519 first.
    #[staticmethod]
    #[pyo3(signature = (origin, *, ed25519_seed, ml_dsa_44_seed))]
    fn of_log(origin: &str, ed25519_seed: [u8; 32], ml_dsa_44_seed: [u8; 32]) -> PyResult<Vec<Self>> {
        let origin = Name::of_log(origin).map_err(error::of_key)?;
        let key = |kind, seed| signing::SigningKey::from_seed(origin.clone(), kind, seed).map(Self);
        let keys = [key(KeyKind::Ed25519, &ed25519_seed), key(KeyKind::MlDsa44, &ml_dsa_44_seed)];
        keys.into_iter().collect::<Result<_, _>>().map_err(error::of_key)
    }

    /// Return the keys of a witness that follow from random seeds, Ed25519 first.
    #[staticmethod]
    #[pyo3(signature = (name, *, ed25519_seed, ml_dsa_44_seed))]
    fn of_witness(name: &str, ed25519_seed: [u8; 32], ml_dsa_44_seed: [u8; 32]) -> PyResult<Vec<Self>> {
        let name = Name::of_log(name).map_err(error::of_key)?;
        let key = |kind, seed| signing::SigningKey::from_seed(name.clone(), kind, seed).map(Self);
        let keys = [key(KeyKind::Cosignature, &ed25519_seed), key(KeyKind::MlDsa44, &ml_dsa_44_seed)];
        keys.into_iter().collect::<Result<_, _>>().map_err(error::of_key)
    }

    /// Return the keys in the content of a key file.
    #[staticmethod]
    #[pyo3(signature = (content, /))]
    fn parse_file(content: &[u8]) -> PyResult<Vec<Self>> {
        let keys = signing::parse_file(content).map_err(error::of_key)?;
        Ok(keys.into_iter().map(Self).collect())
    }

    /// Name of the key, which for a log is its origin.
    #[getter]
    fn name(&self) -> String {
        self.0.verifier().name().to_string()
    }

    /// The public key as text, which others need to verify what this key signs.
    #[getter]
    fn vkey(&self) -> String {
        self.0.verifier().to_string()
    }

    /// The byte that stands for the kind of the key: 1, 4 or 6.
    #[getter]
    fn kind(&self) -> u8 {
        self.0.verifier().kind().byte()
    }

    /// Return the private key as a line of a key file, without its end.
    fn to_secret_text(&self) -> String {
        self.0.to_secret_text()
    }

    /// Return the line with which this key signs a checkpoint, at a time in seconds since 1970 if its kind has one.
    #[pyo3(signature = (checkpoint, /, *, time))]
    fn sign(&self, py: Python<'_>, checkpoint: PyRef<'_, UnsignedCheckpoint>, time: u64) -> PyResult<String> {
        let checkpoint = &checkpoint.0;
        py.detach(|| self.0.sign(checkpoint, time)).map(|line| line.to_string()).map_err(error::of_key)
    }

    fn __repr__(&self) -> String {
        format!("{:?}", self.0)
    }
}

/// A checkpoint that is to be signed.
#[pyclass(frozen, eq, module = "qed._qed")]
#[derive(PartialEq, Eq)]
pub struct UnsignedCheckpoint(pub Checkpoint);

#[pymethods]
impl UnsignedCheckpoint {
    /// Return the checkpoint of a log with this name, size and root.
    #[new]
    #[pyo3(signature = (origin, size, root, /))]
    fn new(origin: &str, size: u64, root: PyRef<'_, Digest>) -> PyResult<Self> {
        let head = TreeHead::new(size, root.0).map_err(error::of_malformed)?;
        Ok(Self(Checkpoint::new(Name::of_log(origin).map_err(error::of_key)?, head)))
    }

    /// The name of the log.
    #[getter]
    fn origin(&self) -> String {
        self.0.origin.to_string()
    }

    /// Number of entries.
    #[getter]
    const fn size(&self) -> u64 {
        self.0.head.size()
    }

    /// Root of the tree over the entries.
    #[getter]
    const fn root(&self) -> Digest {
        Digest(*self.0.head.root())
    }

    /// The text that is signed.
    #[getter]
    fn text(&self) -> String {
        self.0.to_string()
    }

    /// Return the lines in the answer of a signer that the keys verify, each with its key; raise `VerificationError` if there is none, one
    /// of a known key fails, or the answer has something else.
    #[pyo3(signature = (answer, keys, /))]
    fn verified_lines(
        &self,
        py: Python<'_>,
        answer: &[u8],
        keys: PyRef<'_, LogKeys>,
    ) -> PyResult<Vec<(String, String)>> {
        let note = Note::answered(&self.0.to_string(), answer).map_err(error::of_malformed)?;
        let keys = &keys.0;
        let verified = py.detach(|| note.verify(keys)).map_err(error::of_verify)?;
        Ok(verified.lines().iter().map(|line| (line.key().to_string(), line.line().to_string())).collect())
    }

    /// Return the note with these lines, which are not verified.
    #[pyo3(signature = (lines, /))]
    fn to_note<'py>(&self, py: Python<'py>, lines: Vec<String>) -> PyResult<Bound<'py, PyBytes>> {
        let note = Note::new(&self.0.to_string(), lines_of(&lines)?).map_err(error::of_malformed)?;
        Ok(PyBytes::new(py, note.to_string().as_bytes()))
    }

    fn __repr__(&self) -> String {
        format!("<UnsignedCheckpoint {:?} size={} root={}>", self.0.origin, self.0.head.size(), self.0.head.root())
    }
}

/// Return the signature lines that the texts spell.
pub fn lines_of(lines: &[String]) -> PyResult<Vec<Line>> {
    lines.iter().map(|line| Line::parse(line)).collect::<Result<_, _>>().map_err(error::of_malformed)
}

/// What a member knows outside its data folder of the checkpoints that its log has signed.
#[pyclass(frozen, module = "qed._qed")]
pub struct SignMemory(Mutex<Option<sign_memory::SignMemory>>);

#[pymethods]
impl SignMemory {
    /// Create the memory of a log that has signed nothing; raise `FileExistsError` if there is a file.
    #[staticmethod]
    #[pyo3(signature = (path, /))]
    fn create(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        let created = py.detach(|| sign_memory::SignMemory::create(&path));
        created.map(|memory| Self(Mutex::new(Some(memory)))).map_err(error::of_sign_memory)
    }

    /// Open the memory in a file; raise `FileNotFoundError` if there is none.
    #[staticmethod]
    #[pyo3(signature = (path, /))]
    fn open(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        let opened = py.detach(|| sign_memory::SignMemory::open(&path));
        opened.map(|memory| Self(Mutex::new(Some(memory)))).map_err(error::of_sign_memory)
    }

    /// Size, root and time of the newest checkpoint that is remembered, or None.
    #[getter]
    fn newest(&self, py: Python<'_>) -> PyResult<Option<(u64, Digest, u64)>> {
        let newest = self.call(py, |memory| Ok(memory.newest()))?;
        Ok(newest.map(|Remembered { size, root, time }| (size, Digest(root), time)))
    }

    /// Remember a checkpoint, synced; return its time, which is never before that of the one before.
    #[pyo3(signature = (size, root, time, /))]
    fn note(&self, py: Python<'_>, size: u64, root: PyRef<'_, Digest>, time: u64) -> PyResult<u64> {
        let root = root.0;
        self.call(py, |memory| memory.note(Remembered { size, root, time })).map(|noted| noted.time)
    }

    /// Close the file, so that another process may use it.
    fn close(&self, py: Python<'_>) {
        py.detach(|| {
            if let Ok(mut memory) = self.0.lock() {
                memory.take();
            }
        });
    }
}

impl SignMemory {
    fn call<T: Send>(
        &self,
        py: Python<'_>,
        call: impl FnOnce(&mut sign_memory::SignMemory) -> Result<T, SignMemoryError> + Send,
    ) -> PyResult<T> {
        let called = py.detach(|| {
            let mut memory = self.0.lock().ok()?;
            memory.as_mut().map(call)
        });
        called.ok_or_else(error::closed)?.map_err(error::of_sign_memory)
    }
}
