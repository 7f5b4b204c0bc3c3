//! One replica, as the server drives it from its event loop.

use std::path::PathBuf;

use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::PyBytes;
use qed_core::log;
use qed_node::driver::{Driver, Limits};
use qed_node::outbox::{Completion, Outcome};
use qed_node::prover::Question;

use crate::error;
use crate::log::{Added, request_of};
use crate::proofs::Digest;

/// A log with the thread that appends to it.
#[pyclass(frozen, module = "qed._qed")]
pub struct Replica(Driver);

#[pymethods]
impl Replica {
    /// Open the log in a data folder and start its threads.
    #[staticmethod]
    #[pyo3(signature = (path, /, *, queue_length, batch_events, proof_threads))]
    fn open(
        py: Python<'_>,
        path: PathBuf,
        queue_length: usize,
        batch_events: usize,
        proof_threads: usize,
    ) -> PyResult<Self> {
        let log = py.detach(|| log::Log::open(&path)).map_err(|error| error::of_log(&error))?;
        let limits = Limits { queue_events: queue_length, batch_events, proof_threads };
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

    /// Ask for the membership or absence proof of an event; its JSON comes under `ticket`.
    #[pyo3(signature = (ticket, digest, /, *, version = None, key = None))]
    fn ask_membership(
        &self,
        py: Python<'_>,
        ticket: u64,
        digest: PyRef<'_, Digest>,
        version: Option<u64>,
        key: Option<PyBackedBytes>,
    ) {
        let (digest, key) = (digest.0, key.map(|key| key.to_vec()));
        py.detach(|| self.0.ask(ticket, Question::Membership { digest, version, key }));
    }

    /// Ask for the proof that the log at `end` extends the log at `start`; its JSON comes under `ticket`.
    #[pyo3(signature = (ticket, start, end, /))]
    fn ask_incremental(&self, py: Python<'_>, ticket: u64, start: u64, end: u64) {
        py.detach(|| self.0.ask(ticket, Question::Incremental { start, end }));
    }

    /// Ask for the snapshot of a version as it was acknowledged; its JSON comes under `ticket`.
    #[pyo3(signature = (ticket, version, /))]
    fn ask_snapshot(&self, py: Python<'_>, ticket: u64, version: u64) {
        py.detach(|| self.0.ask(ticket, Question::Snapshot { version }));
    }

    /// Return the results since the last call: tickets with what was added or answered, or with the exception to raise.
    fn drain(&self, py: Python<'_>) -> PyResult<Vec<(u64, Py<PyAny>)>> {
        let completions = py.detach(|| self.0.drain()).map_err(|error| error::of_io(&error))?;
        let to_python = |Completion { ticket, outcome }| {
            let result = match outcome {
                Outcome::Added(added) => Py::new(py, Added(added))?.into_any(),
                Outcome::Answered(json) => PyBytes::new(py, json.as_bytes()).unbind().into_any(),
                Outcome::WriteFailed(reason) => error::of_failed_write(reason).into_value(py).into_any(),
                Outcome::Unanswered(error) => error::of_log(&error).into_value(py).into_any(),
            };
            Ok((ticket, result))
        };
        completions.into_iter().map(to_python).collect()
    }

    /// Return why the thread has stopped, if a write or a sync failed.
    fn failure(&self, py: Python<'_>) -> Option<String> {
        py.detach(|| self.0.failure())
    }

    /// Finish what was accepted and end the threads.
    fn close(&self, py: Python<'_>) {
        py.detach(|| self.0.close());
    }

    fn __len__(&self, py: Python<'_>) -> usize {
        py.detach(|| usize::try_from(self.0.log().len()).unwrap_or(usize::MAX))
    }
}
