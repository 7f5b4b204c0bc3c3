//! Reporting how far a long call is, to a function of Python's.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use pyo3::prelude::*;

/// How often progress is reported: often enough to look smooth, rarely enough to cost nothing.
const INTERVAL: Duration = Duration::from_millis(50);

/// Return a function that passes a number of events to `progress` now and then, and lets Ctrl-C and its exceptions stop the call.
pub fn reporting(progress: Option<Py<PyAny>>) -> impl FnMut(u64) -> ControlFlow<PyErr> {
    let mut shown: Option<Instant> = None;
    move |events| {
        if shown.is_some_and(|shown| shown.elapsed() < INTERVAL) {
            return ControlFlow::Continue(());
        }
        shown = Some(Instant::now());
        let reported = Python::attach(|py| {
            py.check_signals()?;
            progress.as_ref().map_or(Ok(()), |progress| progress.call1(py, (events,)).map(drop))
        });
        reported.map_or_else(ControlFlow::Break, ControlFlow::Continue)
    }
}
