//! A log as a signed transparency log, in the formats of C2SP that others read and write: notes, checkpoints, tiles and proofs.
//!
//! # The construction
//!
//! Version `i` of a qed log is [entry] `i` of a list, and a Merkle tree of RFC 6962 ([`merkle`]) is built over the entries. The
//! root of the tree and its size are the [tree head](merkle::TreeHead). A [checkpoint] is the tree head with the name
//! of the log, as text. The log signs that text, and witnesses cosign it: text with signatures is a [note]. Keys are in [`key`],
//! and the keys that somebody trusts are their [policy].
//!
//! A log keeps the nodes above its tiles in memory ([`entry_tree`]). The nodes of the tree are published in [tiles](tile), 256 hashes each, and the entries in bundles of 256. From the tiles anybody can
//! make a proof that an entry is in the tree, or that one tree extends another; [`proof_file`] is such a proof with its
//! checkpoint, complete in one file. [`add_checkpoint`] is what a log asks of a witness, and what the witness does; [`cosigning`] is how the log
//! collects the answers.
//!
//! A log gives a [receipt] for what was added, and saved answers are kept in a [bundle]; both have entries with proofs and a checkpoint. Whether
//! such a file shows what it claims, a [claim] decides, by the keys of a [trust file](trust_file). What an honest log cannot have
//! signed is [evidence] against it.
//!
//! # Trust
//!
//! Everything read here may have been written by an attacker. Reading ends in [`Malformed`](crate::proof::Malformed) and
//! verifying in [`VerifyError`](crate::verify::VerifyError), never in a panic, and lengths are limited before anything is decoded or
//! hashed. The text of a note can be used only after a signature was verified; before, it can only be written as it was read. Every value
//! but a policy has one encoding only: reading a text and writing the value gives the same text.
//!
//! Sources: C2SP signed-note, tlog-checkpoint, tlog-cosignature, tlog-tiles, tlog-proof and tlog-policy; FORMATS.md, "Signed logs".

pub mod add_checkpoint;
pub mod bundle;
pub mod checkpoint;
pub mod claim;
pub mod cosigning;
pub mod entry;
pub mod entry_tree;
pub mod evidence;
pub mod evidence_file;
mod fields;
pub mod key;
pub mod merkle;
pub mod note;
pub mod policy;
pub mod proof_file;
pub mod receipt;
pub mod signing;
pub mod text;
pub mod tile;
pub mod trust_file;
pub mod verified_tiles;
