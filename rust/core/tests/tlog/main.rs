//! The formats of signed logs: recorded vectors both ways, hostile input, and properties against plain models.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod add_checkpoint;
mod audits;
mod bundles;
mod claims;
mod cosigning;
mod damage;
mod edits;
mod evidence;
mod keys;
mod limits;
mod model;
mod notes;
mod policies;
mod properties;
mod receipts;
#[path = "../seeds/mod.rs"]
mod seeds;
mod tiled;
mod trees;
mod trust_files;
mod vectors;
