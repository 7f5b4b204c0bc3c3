//! One replica of a qed log: a thread that batches what waits, makes it durable and answers.
//!
//! The [driver] is the seam for replication: what it takes from its queue becomes one entry, and what it hands back has been made
//! durable. With one member that is the log's own batch and sync. The [prover] answers questions beside it; what either has done is
//! in the [outbox] for the caller to take.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic))]

pub mod applier;
pub mod consensus;
pub mod driver;
pub mod entry;
pub mod folder;
pub mod identity;
pub mod media;
pub mod member;
pub mod membership;
pub mod outbox;
pub mod prover;
pub mod raftlog;
pub mod recovery;
pub mod state;
pub mod wal;
