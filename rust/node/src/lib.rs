//! One member of a cluster that replicates a qed log by Raft.
//!
//! The [member] is a value: its inputs are ticks, messages and requests, its outputs are messages, jobs and results, over
//! [Raft](consensus) and its [log on disk](wal). The [driver] runs it in a thread, the [applier] applies committed entries to the
//! [state] in another, the [prover] answers queries in further threads, and the [outbox] holds their results for the caller.

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
pub mod comparison;
pub mod consensus;
pub mod disaster;
pub mod driver;
pub mod entry;
pub mod folder;
pub mod founding;
pub mod high_water;
pub mod identity;
mod keeper;
pub mod liveness;
pub mod member;
pub mod member_id;
pub mod membership;
pub mod message_check;
pub mod metrics;
pub mod notice;
pub mod outbox;
pub mod prover;
pub mod public_key;
pub mod queue;
pub mod raftlog;
pub mod reads;
pub mod recovery;
pub mod roll_call;
pub mod segments;
pub mod sign_memory;
pub mod state;
pub mod ticket;
pub mod wal;

#[cfg(test)]
#[path = "../../core/tests/seeds/mod.rs"]
mod seeds;
