//! A log in this process, and the result of adding events to one.

use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process;
use std::sync::{Arc, RwLock};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use qed_core::error::LogError;
use qed_core::integers::usize_from;
use qed_core::log as core;
use qed_core::proof::Malformed;
use qed_core::tlog::{tile, verified_tiles};

use crate::bulk::{BulkMembership, BulkProof};
use crate::error;
use crate::events::{Event, request_of};
use crate::progress::reporting;
use crate::proofs::{Digest, IncrementalProof, Snapshot, answer_to_python};

/// The result of one request to add: its snapshots, and whether anything was new.
#[pyclass(frozen, module = "qed._qed")]
pub struct Added(pub core::Added);

#[pymethods]
impl Added {
    /// Whether any of the events was not in the log before.
    #[getter]
    fn is_new(&self) -> bool {
        !self.0.added.is_empty()
    }

    /// The first version that the request added, and the one after the last; equal if it added nothing.
    #[getter]
    const fn added(&self) -> (u64, u64) {
        (self.0.added.start, self.0.added.end)
    }

    /// One snapshot per event, in the order of the request.
    #[getter]
    fn snapshots(&self) -> Vec<Snapshot> {
        self.0.snapshots.iter().copied().map(Snapshot).collect()
    }

    /// Return the first snapshot as a JSON object.
    fn to_json<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let first = self.0.snapshots.first();
        let first = first.ok_or_else(|| error::of_log(&LogError::Bug("a request was answered with no snapshot")))?;
        Ok(PyBytes::new(py, first.to_json().as_bytes()))
    }

    /// Return all snapshots as a JSON array.
    fn to_json_array<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        let text = py.detach(|| {
            let mut out = String::with_capacity(256 * self.0.snapshots.len() + 2);
            for snapshot in &self.0.snapshots {
                out.push(if out.is_empty() { '[' } else { ',' });
                snapshot.write_json(&mut out);
            }
            out.push(']');
            out
        });
        PyBytes::new(py, text.as_bytes())
    }

    fn __len__(&self) -> usize {
        self.0.snapshots.len()
    }
}

/// The path of a file of a transparency log.
#[pyclass(frozen, module = "qed._qed")]
pub struct TilePath(pub tile::TilePath);

#[pymethods]
impl TilePath {
    #[new]
    #[pyo3(signature = (text, /))]
    fn new(text: &str) -> PyResult<Self> {
        text.parse().map(Self).map_err(|Malformed(reason)| PyValueError::new_err(reason))
    }

    /// How many hashes or entries the file holds.
    #[getter]
    const fn width(&self) -> u16 {
        self.0.width()
    }

    /// Number of the tile or bundle in its level.
    #[getter]
    const fn index(&self) -> u64 {
        self.0.index()
    }

    /// Return the path of the full tile or bundle, of which this one is the beginning.
    fn full(&self) -> PyResult<Self> {
        let full = tile::TilePath::new(self.0.content(), self.0.index(), tile::FULL_WIDTH);
        full.map(Self).map_err(error::of_malformed)
    }

    /// Return the content of this file, which is the beginning of that of the full one; raise `MalformedProof` if that is not one.
    #[pyo3(signature = (full, /))]
    fn cut<'py>(&self, py: Python<'py>, full: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
        let cut = match self.0.content() {
            tile::Content::Entries => verified_tiles::shortened_bundle(full, self.0.width()),
            tile::Content::Hashes(_) => verified_tiles::shortened_tile(full, self.0.width()),
        };
        cut.map(|bytes| PyBytes::new(py, bytes)).map_err(error::of_malformed)
    }

    fn __str__(&self) -> String {
        self.0.to_string()
    }

    fn __repr__(&self) -> String {
        format!("<TilePath {}>", self.0)
    }
}

/// Call the log. A panic is reported as a bug; the log itself survives it, but writes nothing more if the panic interrupted a batch.
fn guarded<T>(call: impl FnOnce() -> Result<T, LogError>) -> Result<T, LogError> {
    let bug = |_| Err(LogError::Bug("a call to the log panicked; the panic message is on stderr"));
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(bug)
}

/// A log in this process.
///
/// A forked child has a copy without the log's threads. Those threads may have held its locks at the fork, and the parent keeps
/// writing to its files. So a child never touches the copy, not even to close it.
#[pyclass(frozen, module = "qed._qed")]
pub struct Log {
    log: RwLock<Option<Arc<core::Log>>>,
    opener: u32,
}

impl Log {
    /// Return the log, which stays open as long as a call needs it. The lock is held only while the reference is copied.
    fn opened(&self) -> PyResult<Arc<core::Log>> {
        if self.is_inherited() {
            return Err(error::forked(self.opener));
        }
        let guard = self.log.read().map_err(|_| error::closed())?;
        guard.clone().ok_or_else(error::closed)
    }

    /// Return whether this process was forked from the one that opened the log.
    fn is_inherited(&self) -> bool {
        process::id() != self.opener
    }

    fn call<T: Send>(
        &self,
        py: Python<'_>,
        call: impl FnOnce(&core::Log) -> Result<T, LogError> + Send,
    ) -> PyResult<T> {
        let log = self.opened()?;
        py.detach(move || guarded(|| call(&log))).map_err(|error| error::of_log(&error))
    }
}

#[pymethods]
impl Log {
    /// Open the log in a data folder, or an empty one in memory if the path is None.
    #[staticmethod]
    #[pyo3(signature = (path, /))]
    fn open(py: Python<'_>, path: Option<PathBuf>) -> PyResult<Self> {
        let open = || match path {
            Some(path) => core::Log::open(&path),
            None => core::Log::in_memory(),
        };
        let opened = py.detach(|| guarded(open));
        let log = opened.map_err(|error| error::of_log(&error))?;
        Ok(Self { log: RwLock::new(Some(Arc::new(log))), opener: process::id() })
    }

    /// Add events, or digests of events, as one commit batch; they are durable when this returns.
    #[pyo3(signature = (events, /, *, if_absent = false))]
    fn add(&self, py: Python<'_>, events: Vec<Event>, if_absent: bool) -> PyResult<Added> {
        let added = self.call(py, |log| log.append(&[request_of(&events, if_absent)]))?;
        added.into_iter().next().map(Added).ok_or_else(|| error::of_log(&LogError::EmptyRequest))
    }

    /// Return the membership or absence proof of an event.
    #[pyo3(signature = (digest, /, *, version = None))]
    fn membership(&self, py: Python<'_>, digest: PyRef<'_, Digest>, version: Option<u64>) -> PyResult<Py<PyAny>> {
        let digest = digest.0;
        let answer = self.call(py, move |log| log.prove(&digest, version))?;
        answer_to_python(py, answer)
    }

    /// Return the proof for many events.
    #[pyo3(signature = (question, /))]
    fn bulk_membership(&self, py: Python<'_>, question: PyRef<'_, BulkMembership>) -> PyResult<BulkProof> {
        let question = &*question;
        self.call(py, |log| log.prove_bulk(&question.keys)).map(BulkProof)
    }

    /// Return the proof that the log at `end` extends the log at `start`.
    #[pyo3(signature = (start, end, /))]
    fn incremental(&self, py: Python<'_>, start: u64, end: u64) -> PyResult<IncrementalProof> {
        self.call(py, |log| log.prove_incremental(start, end)).map(IncrementalProof)
    }

    /// Return the snapshot of a version as it was acknowledged.
    #[pyo3(signature = (version, /))]
    fn snapshot(&self, py: Python<'_>, version: u64) -> PyResult<Snapshot> {
        self.call(py, |log| log.snapshot(version)).map(Snapshot)
    }

    /// Return the size and the root of the Merkle tree over the entries.
    fn tree_head(&self, py: Python<'_>) -> PyResult<(u64, Digest)> {
        let head = self.call(py, core::Log::tree_head)?;
        Ok((head.size(), Digest(*head.root())))
    }

    /// Return a file of the transparency log.
    #[pyo3(signature = (path, /))]
    fn tile<'py>(&self, py: Python<'py>, path: PyRef<'_, TilePath>) -> PyResult<Bound<'py, PyBytes>> {
        let path = path.0;
        self.call(py, move |log| log.tile(&path)).map(|bytes| PyBytes::new(py, &bytes))
    }

    /// Rebuild both trees from the log and compare the stored roots, occurrences and repeats with them; report to `progress` how many
    /// events have been checked.
    #[pyo3(signature = (*, progress = None))]
    fn check(&self, py: Python<'_>, progress: Option<Py<PyAny>>) -> PyResult<()> {
        let mut report = reporting(progress);
        let checked = self.call(py, move |log| log.check(&mut report))?;
        checked.break_value().map_or(Ok(()), Err)
    }

    /// Close the log; every later call fails. Closing it again, or in a forked child, does nothing.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        if self.is_inherited() {
            return Ok(());
        }
        let log = self.log.write().map_err(|_| error::closed())?.take();
        py.detach(|| drop(log));
        Ok(())
    }

    fn __len__(&self, py: Python<'_>) -> PyResult<usize> {
        self.call(py, |log| Ok(usize_from(log.len())))
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        let log = self.log.get_mut().ok().and_then(Option::take);
        if self.is_inherited() {
            // Closing would wait for threads that exist only in the parent.
            mem::forget(log);
            return;
        }
        // Closing the store syncs it and waits for its background thread.
        Python::attach(|py| py.detach(|| drop(log)));
    }
}
