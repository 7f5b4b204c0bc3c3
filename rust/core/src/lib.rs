//! The trees, proofs and verification of qed, a tamper-evident log.
//!
//! # The construction
//!
//! A log is a list of *event digests*, `H(event)` with `H` = SHA-256, numbered from zero: the number is the event's *version*. Two
//! trees are built over it.
//!
//! - The [history tree](history) has one leaf per version and only grows to the right (Crosby and Wallach 2009). Its root at a
//!   version commits to all events up to that version, in order.
//! - The [hyper tree](hyper) is a sparse Merkle tree of 256 levels that maps an event digest to its version. Its root commits to what
//!   is in the log, and so also to what is not.
//!
//! Adding an event returns a [`Snapshot`](proof::Snapshot): its version and both roots. Given trusted snapshots, a
//! [`MembershipProof`](proof::MembershipProof) shows that an event is in the log, an [`AbsenceProof`](proof::AbsenceProof) that it is
//! not, and an [`IncrementalProof`](proof::IncrementalProof) that the log of one snapshot extends the log of another. [`verify`]
//! needs only the proof and the [roots] of the snapshots.
//!
//! The same events are also the entries of a [transparency log](tlog) in the formats of C2SP: a third tree, whose root is signed.
//!
//! # Examples
//!
//! ```
//! use qed_core::hash::Digest;
//! use qed_core::log::{Log, Request};
//! use qed_core::proof::Answer;
//! use qed_core::verify::verify_membership;
//!
//! let log = Log::in_memory()?;
//! let event = Digest::of_event(b"event 0");
//! let added = log.append(&[Request { digests: vec![event], if_absent: false }])?;
//! let snapshot = added[0].snapshots[0];
//! let Answer::Member(proof) = log.prove(&event, None)? else { panic!("it was just added") };
//! let shown = verify_membership(&event, &proof, None, &snapshot.hyper_root(), &[snapshot.history_root()])?;
//! assert_eq!(shown.version, 0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Out of scope
//!
//! This crate has no clock, no network and no source of randomness: times, seeds and bytes come from the caller. It stores only
//! digests, never the events themselves.

#![forbid(unsafe_code)]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        reason = "a test fails by panicking"
    )
)]

pub mod acts;
pub mod applied;
pub mod audit;
pub mod backup;
mod batch;
mod bulk_form;
pub mod bulk_proof;
mod bulk_prover;
pub mod bulk_verify;
mod bytes;
mod compact;
pub mod disk;
pub mod durable;
pub mod entry_audit;
pub mod entry_prover;
pub mod entry_restoration;
mod entry_rows;
mod entry_tail;
pub mod error;
mod fjall_check;
pub mod hash;
mod hidden;
pub mod history;
pub mod hyper;
pub mod integers;
pub mod json;
mod leaf_cache;
pub mod log;
pub mod log_id;
pub mod page;
pub mod position;
pub mod proof;
pub mod receipts;
mod replay;
mod replica;
pub mod restoration;
pub mod roots;
mod rows;
mod start;
pub mod store;
pub mod stored_tree;
mod tiled;
pub mod tlog;
pub mod tree_image;
mod trees;
mod upkeep;
pub mod verify;
pub mod watermark;

#[cfg(test)]
#[path = "../tests/seeds/mod.rs"]
mod seeds;
