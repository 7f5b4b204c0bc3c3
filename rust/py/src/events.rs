//! Events to be added, or the digests of events that the caller keeps to itself.

use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::PyBytes;
use qed_core::hash;
use qed_core::log::Request;

use crate::proofs::Digest;

/// An event or its digest. It borrows nothing from Python, so events can be hashed while detached.
pub enum Event {
    /// The event itself.
    Bytes(PyBackedBytes),
    /// Its digest.
    Digest(hash::Digest),
}

impl<'py> FromPyObject<'_, 'py> for Event {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        if !object.is_instance_of::<PyBytes>()
            && let Ok(digest) = object.cast::<Digest>()
        {
            return Ok(Self::Digest(digest.get().0));
        }
        Ok(Self::Bytes(object.extract()?))
    }
}

impl Event {
    fn digest(&self) -> hash::Digest {
        match self {
            Self::Bytes(event) => hash::Digest::of_event(event),
            Self::Digest(digest) => *digest,
        }
    }
}

/// Hash events into a request.
pub fn request_of(events: &[Event], if_absent: bool) -> Request {
    Request { digests: events.iter().map(Event::digest).collect(), if_absent }
}
