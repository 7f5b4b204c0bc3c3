//! One replica, as the server drives it from its event loop.

use std::path::PathBuf;

use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use qed_core::error::LogError;
use qed_core::log;
use qed_node::driver::{Completion, Driver, Limits};

use crate::error;
use crate::log::{Added, request_of};
use crate::proofs::{Digest, IncrementalProof, Snapshot, answer_to_python};

/// A log with the thread that appends to it.
#[pyclass(frozen, module = "qed._qed")]
pub struct Replica(Driver);

impl Replica {
    fn call<T: Send>(&self, py: Python<'_>, call: impl FnOnce(&log::Log) -> Result<T, LogError> + Send) -> PyResult<T> {
        py.detach(|| call(self.0.log())).map_err(|error| error::of_log(&error))
    }
}

#[pymethods]
impl Replica {
    /// Open the log in a data folder and start its thread.
    #[staticmethod]
    #[pyo3(signature = (path, /, *, queue_length, batch_events))]
    fn open(py: Python<'_>, path: PathBuf, queue_length: usize, batch_events: usize) -> PyResult<Self> {
        let log = py.detach(|| log::Log::open(&path)).map_err(|error| error::of_log(&error))?;
        let limits = Limits { queue_events: queue_length, batch_events };
        py.detach(|| Driver::start(log, limits)).map(Self).map_err(|error| error::of_io(&error))
    }

    /// The file descriptor that becomes readable when `drain` has something to give.
    #[getter]
    fn wake_fd(&self) -> i32 {
        self.0.wake_fd()
    }

    /// Put a request into the queue; its result comes under `ticket`.
    #[pyo3(signature = (ticket, events, /, *, if_absent = false))]
    fn submit(&self, py: Python<'_>, ticket: u64, events: Vec<PyBackedBytes>, if_absent: bool) -> PyResult<()> {
        let submitted = py.detach(|| self.0.submit(ticket, request_of(&events, if_absent)));
        submitted.map_err(|error| error::of_submit(&error))
    }

    /// Return the results since the last call: tickets with what was added, or with the exception to raise.
    fn drain(&self, py: Python<'_>) -> PyResult<Vec<(u64, Py<PyAny>)>> {
        let completions = py.detach(|| self.0.drain()).map_err(|error| error::of_io(&error))?;
        let to_python = |Completion { ticket, result }| match result {
            Ok(added) => Ok((ticket, Py::new(py, Added(added))?.into_any())),
            Err(reason) => Ok((ticket, error::of_failed_write(reason).into_value(py).into_any())),
        };
        completions.into_iter().map(to_python).collect()
    }

    /// Return why the thread has stopped, if a write or a sync failed.
    fn failure(&self, py: Python<'_>) -> Option<String> {
        py.detach(|| self.0.failure())
    }

    /// Return the membership or absence proof of an event.
    #[pyo3(signature = (digest, /, *, version = None))]
    fn membership(&self, py: Python<'_>, digest: PyRef<'_, Digest>, version: Option<u64>) -> PyResult<Py<PyAny>> {
        let digest = digest.0;
        let answer = self.call(py, |log| log.prove(&digest, version))?;
        answer_to_python(py, answer)
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

    /// Finish what was accepted and end the thread.
    fn close(&self, py: Python<'_>) {
        py.detach(|| self.0.close());
    }

    fn __len__(&self, py: Python<'_>) -> usize {
        py.detach(|| usize::try_from(self.0.log().len()).unwrap_or(usize::MAX))
    }
}
