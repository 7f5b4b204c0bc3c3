//! `qed._qed`: the extension module. Convert, detach, call, convert; no logic.
//!
//! Nothing here holds a lock or touches the disk while attached to the interpreter, and no Python object enters a detached closure.
//! Work of a few microseconds stays attached: a short event is hashed so, and a single proof is verified so.

#![deny(unsafe_code)]
#![allow(clippy::needless_pass_by_value, reason = "pyo3 passes arguments from Python as owned values")]
#![allow(
    clippy::wrong_self_convention,
    reason = "methods of a Python class must take `&self`, because Python owns the object"
)]

mod auditing;
mod backup;
mod bulk;
mod cosigning;
mod error;
mod events;
mod evidence;
mod log;
mod metrics;
mod progress;
mod proofs;
mod questions;
mod replica;
mod signing;
mod trust;
mod verification;
mod witnessing;

/// The compiled part of qed. Its names are public through `qed`.
#[pyo3::pymodule(gil_used = false)]
mod _qed {
    #[pymodule_export]
    use super::auditing::{EntryAudit, Finding, LogEntry, TileTree, bundle_entries, bundle_hashes, edge_paths};
    #[pymodule_export]
    use super::backup::{
        Backup, BackupFile, Founding, Rebuilding, Survivor, recover, restore_backups, survey, verify_backups,
    };
    #[pymodule_export]
    use super::bulk::{BulkMembership, BulkProof, verify_bulk_membership};
    #[pymodule_export]
    use super::cosigning::{Cosignature, Cosigning, PolicyWitness};
    #[pymodule_export]
    use super::evidence::{Evidence, Judgement};
    #[pymodule_export]
    use super::log::{Added, Log, TilePath};
    #[pymodule_export]
    use super::metrics::{Distribution, ReplicaMetrics};
    #[pymodule_export]
    use super::proofs::{
        AbsenceProof, Digest, HistoryRoot, HyperRoot, IncrementalProof, MembershipProof, Neighbour, Snapshot,
        parse_answer,
    };
    #[pymodule_export]
    use super::questions::{Extension, Membership};
    #[pymodule_export]
    use super::replica::{
        Act, ClusterChange, Completion, Delivery, Follower, InvalidMessage, MemberInfo, Replica, Status,
    };
    #[pymodule_export]
    use super::signing::{SignMemory, SigningKey, UnsignedCheckpoint};
    #[pymodule_export]
    use super::trust::{Checkpoint, Shown, SignedBundle, SignedReceipt, TlogProof, TrustFile};
    #[pymodule_export]
    use super::verification::{
        Absent, Extends, Present, verify_absence, verify_addition, verify_bulk, verify_incremental, verify_membership,
    };
    #[pymodule_export]
    use super::witnessing::{AddCheckpoint, Growth, LogKeys, Submission, require_origin};

    use pyo3::types::PyModuleMethods as _;
    use pyo3::{Bound, PyResult, types::PyModule};

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))?;
        module.add("is_optimised", cfg!(not(debug_assertions)))
    }
}
