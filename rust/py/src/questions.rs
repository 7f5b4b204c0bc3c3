//! The questions that a log answers, as Python classes.

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyInt};

use crate::events::Event;
use crate::proofs::Digest;

/// A version that a Python program passes.
struct Version(u64);

impl<'py> FromPyObject<'_, 'py> for Version {
    type Error = PyErr;

    fn extract(version: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        // A bool is an int to Python, but here it is a flag in the wrong place.
        if !version.is_instance_of::<PyInt>() || version.is_instance_of::<PyBool>() {
            let found = version.get_type().name()?;
            return Err(PyTypeError::new_err(format!("expected a version as an int, found {found}")));
        }
        let Ok(number) = version.extract() else {
            let found = version.str()?;
            return Err(PyValueError::new_err(format!("expected a version of 0 to 2**64 - 1, found {found}")));
        };
        Ok(Self(number))
    }
}

/// Is this event in the log, as of this version?
#[pyclass(frozen, eq, hash, get_all, module = "qed._qed")]
#[derive(PartialEq, Eq, Hash)]
pub struct Membership {
    /// Digest of the event.
    digest: Digest,
    /// The version to ask at, `0 <= version < 2**64`, or None for the latest that the answering member has.
    version: Option<u64>,
}

#[pymethods]
impl Membership {
    /// Names of the positional patterns of `match`.
    #[classattr]
    fn __match_args__() -> (&'static str, &'static str) {
        ("digest", "version")
    }

    #[new]
    #[pyo3(signature = (event, version = None))]
    fn new(py: Python<'_>, event: Event, version: Option<Version>) -> Self {
        let digest = match event {
            Event::Bytes(event) => Digest::of(py, &event),
            Event::Digest(digest) => Digest(digest),
        };
        Self { digest, version: version.map(|Version(version)| version) }
    }

    fn __repr__(&self) -> String {
        let version = self.version.map_or_else(|| "None".to_owned(), |version| version.to_string());
        format!("Membership({}, {version})", self.digest.__repr__())
    }
}

impl Membership {
    /// Return the question about an event.
    pub const fn about(digest: Digest, version: Option<u64>) -> Self {
        Self { digest, version }
    }

    /// Return the digest of the event, and the version to ask at.
    pub const fn asked(&self) -> (Digest, Option<u64>) {
        (self.digest, self.version)
    }
}

/// Does the log at one version extend the log at another, with nothing changed or removed?
#[pyclass(frozen, eq, hash, get_all, module = "qed._qed")]
#[derive(PartialEq, Eq, Hash)]
pub struct Extension {
    /// The earlier version, `0 <= start < 2**64`. The server refuses a start after the end.
    start: u64,
    /// The later version, `0 <= end < 2**64`.
    end: u64,
}

#[pymethods]
impl Extension {
    /// Names of the positional patterns of `match`.
    #[classattr]
    fn __match_args__() -> (&'static str, &'static str) {
        ("start", "end")
    }

    #[new]
    #[pyo3(signature = (start, end))]
    fn new(start: Version, end: Version) -> Self {
        Self { start: start.0, end: end.0 }
    }

    fn __repr__(&self) -> String {
        format!("Extension({}, {})", self.start, self.end)
    }
}

impl Extension {
    /// Return the question about two versions.
    pub const fn between(start: u64, end: u64) -> Self {
        Self { start, end }
    }
}
