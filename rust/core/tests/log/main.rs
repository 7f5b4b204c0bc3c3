//! Logs, their stores, replicas and backups. One program, because linking each file alone takes longer than running it.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod acts;
mod additions;
mod backups;
mod bulk_proofs;
mod contradiction;
mod damage;
mod images;
mod interrupted;
mod joined;
mod opening;
mod power;
mod replicas;
#[path = "../seeds/mod.rs"]
mod seeds;
mod stores;
