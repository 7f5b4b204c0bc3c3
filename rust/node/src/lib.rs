//! One member of a cluster that replicates a qed log by Raft.
//!
//! The [member] is a value: ticks, messages and requests in, things to send, apply and answer out, over [Raft](consensus) and its
//! [log on disk](wal). The [driver] turns it in a thread, the [applier] carries out what is committed on the [state] in another, the
//! [prover] answers questions beside them, and the [outbox] holds what any of them has for the caller.

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

pub mod applier;
pub mod consensus;
pub mod driver;
pub mod entry;
pub mod folder;
pub mod identity;
pub mod liveness;
pub mod member;
pub mod membership;
pub mod message_check;
pub mod outbox;
pub mod prover;
pub mod queue;
pub mod raftlog;
pub mod reads;
pub mod recovery;
pub mod segments;
pub mod state;
pub mod wal;

#[cfg(test)]
#[path = "../../core/tests/seeds/mod.rs"]
mod seeds;
