//! Roots that a verifier trusts: always a digest together with the version it belongs to.
//!
//! A root's digest alone is not enough: a hyper root does not encode a version at all, and a history root encodes only the height of
//! its tree. If a verifier used the version from the proof, the server could choose it.

use crate::hash::Digest;
use crate::proof::Snapshot;

/// Root of the history tree at a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct HistoryRoot {
    /// The last version that the root commits to.
    pub version: u64,
    /// The root's hash.
    pub digest: Digest,
}

/// Root of the hyper tree after the commit batch that a version belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct HyperRoot {
    /// A version of the batch. To verify against this root, it must be the last version of the log that answered.
    pub version: u64,
    /// The root's hash.
    pub digest: Digest,
}

impl Snapshot {
    /// Return the root of the history tree, with its version.
    #[must_use]
    pub fn history_root(&self) -> HistoryRoot {
        HistoryRoot { version: self.version, digest: self.history_digest }
    }

    /// Return the root of the hyper tree, with its version.
    #[must_use]
    pub fn hyper_root(&self) -> HyperRoot {
        HyperRoot { version: self.version, digest: self.hyper_digest }
    }
}
