//! `qed._qed`: the extension module. Convert, detach, call, convert; no logic.
//!
//! Nothing here holds a lock or touches the disk while attached to the interpreter, and no Python object enters a detached closure.

#![deny(unsafe_code)]

mod error;
mod log;
mod proofs;
mod replica;

use pyo3::prelude::*;

/// The compiled part of qed. Its names are public through `qed`.
#[pymodule(gil_used = false)]
mod _qed {
    #[pymodule_export]
    use super::log::{Added, Log};
    #[pymodule_export]
    use super::proofs::{
        AbsenceProof, Digest, IncrementalProof, MembershipProof, Neighbour, Snapshot, parse_answer, verify_absence,
        verify_incremental, verify_membership,
    };
    #[pymodule_export]
    use super::replica::Replica;

    use super::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("is_optimised", cfg!(not(debug_assertions)))
    }
}
