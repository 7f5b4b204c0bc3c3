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

/// Hash events into a request.
pub fn request_of(events: &[Event], if_absent: bool) -> Request {
    let bytes: Vec<_> = events.iter().filter_map(Event::bytes).collect();
    let mut hashed = hash::Digest::of_events(&bytes).into_iter();
    let digests = events.iter().filter_map(|event| match event {
        Event::Bytes(_) => hashed.next(),
        Event::Digest(digest) => Some(*digest),
    });
    Request { digests: digests.collect(), if_absent }
}

impl Event {
    fn bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Bytes(event) => Some(event),
            Self::Digest(_) => None,
        }
    }
}
