//! A log as a transparency log: its entries, tiles and proofs, beside a model that is built from its snapshots.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use proptest::prelude::*;
use qed_core::entry_prover::EntryProver;
use qed_core::error::LogError;
use qed_core::hash::{Digest, merkle_leaf};
use qed_core::log::{Log, Request};
use qed_core::log_id::LogId;
use qed_core::page::{Extent, Page};
use qed_core::store::{MemoryStore, Row, Store, Table, Visit, WriteBatch};
use qed_core::stored_tree::StoredTail;
use qed_core::tlog::entry::Entry;
use qed_core::tlog::merkle::{consistency, inclusion, range_proof, verify_consistency, verify_inclusion, verify_range};
use qed_core::tlog::tile::{Content, TilePath, bundle_from_bytes, tile_from_bytes};

use crate::model::{Leaves, VECTORS, bytes_of_hex, hashes, strings, text};
use crate::seeds;

/// A store that outlives its log, and may lack a table as if an earlier build had written it.
#[derive(Clone, Default)]
struct Kept {
    rows: Arc<MemoryStore>,
    drops: Option<Table>,
}

impl Store for Kept {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, LogError> {
        self.rows.get(table, key)
    }

    fn first_in(&self, table: Table, from: &[u8], to: &[u8]) -> Result<Option<Row>, LogError> {
        self.rows.first_in(table, from, to)
    }

    fn last_in(&self, table: Table, from: &[u8], to: &[u8]) -> Result<Option<Row>, LogError> {
        self.rows.last_in(table, from, to)
    }

    fn scan(&self, table: Table, from: &[u8], visit: &mut Visit<'_>) -> Result<(), LogError> {
        self.rows.scan(table, from, visit)
    }

    fn write(&self, batch: WriteBatch) -> Result<(), LogError> {
        let mut kept = WriteBatch::default();
        for (table, (key, value)) in batch {
            if Some(table) != self.drops {
                kept.put(table, key, value);
            }
        }
        self.rows.write(kept)
    }

    fn sync(&self) -> Result<(), LogError> {
        self.rows.sync()
    }

    fn note_durable(&self, len: u64) -> Result<(), LogError> {
        self.rows.note_durable(len)
    }

    fn noted_durable(&self) -> u64 {
        self.rows.noted_durable()
    }
}

fn events(numbers: impl IntoIterator<Item = u64>) -> Vec<Digest> {
    numbers.into_iter().map(|number| Digest::of_event(format!("event {number}").as_bytes())).collect()
}

fn request(digests: Vec<Digest>) -> Request {
    Request { digests, if_absent: false }
}

/// What a log was given: batches of bulks of numbers of events.
type Batches = Vec<Vec<Vec<u64>>>;

fn append(log: &Log, batches: &Batches) {
    for batch in batches {
        let requests: Vec<_> = batch.iter().map(|bulk| request(events(bulk.iter().copied()))).collect();
        log.append(&requests).unwrap();
    }
}

/// Return the entries of the log as FORMATS.md describes them, from the snapshots that it acknowledged.
fn model(log: &Log, batches: &Batches) -> Vec<Vec<u8>> {
    let mut entries = Vec::new();
    for batch in batches {
        for (number, bulk) in batch.iter().enumerate() {
            let mut seen = HashSet::new();
            for (index, event) in bulk.iter().enumerate() {
                let version = entries.len() as u64;
                let snapshot = log.snapshot(version).unwrap();
                let is_last = number + 1 == batch.len() && index + 1 == bulk.len();
                let flags = u8::from(is_last) | u8::from(!seen.insert(event)) << 1;
                let mut entry = vec![1, flags];
                entry.extend(version.to_be_bytes());
                entry.extend(snapshot.event_digest.as_bytes());
                if is_last {
                    entry.extend(snapshot.history_digest.as_bytes());
                    entry.extend(snapshot.hyper_digest.as_bytes());
                }
                entries.push(entry);
            }
        }
    }
    entries
}

/// Check everything that the log serves.
fn check_against(log: &Log, entries: &[Vec<u8>]) {
    let leaves = Leaves(entries.iter().map(|entry| merkle_leaf(entry)).collect());
    let size = entries.len() as u64;
    let served: Vec<_> = log.entries(0..size).unwrap().iter().map(Entry::to_bytes).collect();
    assert_eq!(served, entries);
    assert_eq!(*log.tree_head().unwrap().root(), leaves.root(0, entries.len()));
    let mut level = leaves.0.clone();
    for number in 0..3_u8 {
        for (index, hashes) in (0..).zip(level.chunks(256)) {
            for width in [1, hashes.len() / 2, hashes.len()].into_iter().filter(|width| *width > 0) {
                let path = TilePath::new(Content::Hashes(number), index, u16::try_from(width).unwrap()).unwrap();
                let tile = log.tile(&path).unwrap();
                assert_eq!(tile_from_bytes(&tile, path.width()).unwrap(), hashes[..width], "{path}");
                if number == 0 {
                    let path = TilePath::new(Content::Entries, index, path.width()).unwrap();
                    let bundle = log.tile(&path).unwrap();
                    let first = usize::try_from(index).unwrap() * 256;
                    assert_eq!(
                        bundle_from_bytes(&bundle, path.width()).unwrap(),
                        entries[first..first + width],
                        "{path}"
                    );
                }
            }
        }
        let beyond = (level.len() as u64 / 256, u16::try_from(level.len() % 256 + 1).unwrap());
        let beyond = TilePath::new(Content::Hashes(number), beyond.0, beyond.1).unwrap();
        assert!(matches!(log.tile(&beyond), Err(LogError::UnknownVersion { .. })), "{beyond}");
        level = level.chunks_exact(256).map(|full| Leaves(full.to_vec()).root(0, 256)).collect();
    }
}

fn check_proofs(log: &Log, entries: &[Vec<u8>], [a, b, c]: [u64; 3]) {
    let leaves: Vec<_> = entries.iter().map(|entry| merkle_leaf(entry)).collect();
    let (first, old, size) = (a.min(b).min(c), (a + b + c) - a.min(b).min(c) - a.max(b).max(c), a.max(b).max(c));
    let head = |size| log.tree_head_at(size).unwrap();
    assert_eq!(*head(size).root(), Leaves(leaves.clone()).root(0, usize::try_from(size).unwrap()));
    assert_eq!(log.stored_tree_head_at(size).unwrap(), head(size));
    assert_eq!(EntryProver::new(log, size).unwrap().head().unwrap(), head(size));
    verify_consistency(&head(old), &head(size), &consistency(log, old, size).unwrap()).unwrap();
    if first < size {
        let leaf = leaves[usize::try_from(first).unwrap()];
        verify_inclusion(&leaf, first, &inclusion(log, first, size).unwrap(), &head(size)).unwrap();
    }
    if first < old {
        let range = &leaves[usize::try_from(first).unwrap()..usize::try_from(old).unwrap()];
        let proof = range_proof(log, &(first..old), size).unwrap();
        verify_range(first, range, &proof, &head(size)).unwrap();
    }
}

fn check(log: &Log) -> Result<(), LogError> {
    log.check(&mut |_| ControlFlow::<()>::Continue(())).map(drop)
}

#[test]
fn t6_a_log_has_the_entries_and_tiles_of_the_specification() {
    let log = Log::in_memory().unwrap();
    let batches = vec![vec![vec![0]], vec![vec![1]], vec![vec![2, 2], vec![3]]];
    append(&log, &batches);
    let entries: Vec<_> = strings(&VECTORS["own"]["entries"]).into_iter().map(bytes_of_hex).collect();
    check_against(&log, &entries);
    assert_eq!(
        hashes(&VECTORS["own"]["leaf_hashes"]),
        entries.iter().map(|entry| merkle_leaf(entry)).collect::<Vec<_>>()
    );
    for (path, hash) in
        [("tile/entries/000.p/5", "/own/entries_000_p_5_sha256"), ("tile/0/000.p/5", "/own/tile_0_000_p_5_sha256")]
    {
        let file = log.tile(&path.parse().unwrap()).unwrap();
        assert_eq!(Digest::of_event(&file).to_string(), text(hash), "{path}");
    }
    for (size, checkpoint) in VECTORS["own"]["checkpoints"].as_object().unwrap() {
        let head = log.tree_head_at(size.parse().unwrap()).unwrap();
        assert_eq!(head.root().to_string(), checkpoint["root"].as_str().unwrap(), "{size}");
    }
}

#[test]
fn a_log_without_events_has_the_empty_tree_and_no_tile() {
    let log = Log::in_memory().unwrap();
    assert_eq!(log.tree_head().unwrap().root().to_string(), text("/own/checkpoints/0/root"));
    assert!(log.entries(0..0).unwrap().is_empty());
    for path in ["tile/0/000.p/1", "tile/0/000", "tile/63/000.p/1", "tile/entries/000.p/1"] {
        assert!(matches!(log.tile(&path.parse().unwrap()), Err(LogError::UnknownVersion { .. })), "{path}");
    }
    assert!(matches!(log.tree_head_at(1), Err(LogError::UnknownVersion { .. })));
}

#[test]
fn a_tail_that_is_read_once_leads_to_the_roots_of_the_tree_in_memory() {
    let log = Log::in_memory().unwrap();
    append(&log, &(0..50).map(|batch| vec![(batch * 13..(batch + 1) * 13).collect()]).collect());
    let mut tail = StoredTail::default();
    // Up within a tile, inside batches, over the border of one and of two tiles, the same again, and back.
    for size in [0, 1, 7, 13, 255, 256, 257, 300, 300, 520, 500, 513, 650, 256, 650, 0] {
        assert_eq!(tail.head_at(&log, size).unwrap(), log.tree_head_at(size).unwrap(), "{size}");
    }
    assert!(matches!(tail.head_at(&log, 651), Err(LogError::UnknownVersion { .. })));
    assert_eq!(tail.head_at(&log, 650).unwrap(), log.tree_head().unwrap());
}

#[test]
fn a_stored_tile_that_differs_leads_to_another_root_than_the_tree_in_memory() {
    let kept = Kept::default();
    let log = Log::over(Box::new(kept.clone())).unwrap();
    append(&log, &(0..3).map(|batch| vec![(batch * 300..(batch + 1) * 300).collect()]).collect());
    assert_eq!(log.stored_tree_head_at(900).unwrap(), log.tree_head().unwrap());
    let mut flipped = WriteBatch::default();
    flipped.put(Table::Tiles, [[0].as_slice(), &1_u64.to_be_bytes()].concat(), Digest::of_event(b"x").as_bytes());
    kept.rows.write(flipped).unwrap();
    assert_ne!(log.stored_tree_head_at(900).unwrap(), log.tree_head().unwrap());
    assert_eq!(log.stored_tree_head_at(256).unwrap(), log.tree_head_at(256).unwrap());
    assert!(matches!(log.stored_tree_head_at(901), Err(LogError::UnknownVersion { .. })));
}

/// Batches with some 600 to 900 entries: large and small ones, with events that occur again in a bulk, in a batch and later.
fn batches() -> impl Strategy<Value = Batches> {
    let bulk = prop_oneof![prop::collection::vec(0..40_u64, 1..6), prop::collection::vec(0..1000_u64, 1..300)];
    prop::collection::vec(prop::collection::vec(bulk, 1..4), 1..12)
}

proptest! {
    #![proptest_config(seeds::searching(40))]

    #[test]
    fn everything_served_is_what_the_snapshots_say(batches in batches(), picks in any::<[prop::sample::Index; 9]>()) {
        let kept = Kept::default();
        let log = Log::over(Box::new(kept.clone())).unwrap();
        append(&log, &batches);
        let entries = model(&log, &batches);
        check_against(&log, &entries);
        for picks in picks.as_chunks::<3>().0 {
            check_proofs(&log, &entries, picks.map(|pick| pick.index(entries.len() + 1) as u64));
        }
        check(&log).unwrap();

        // Opened again, and opened from what a build without tiles wrote.
        let earlier = Kept { drops: Some(Table::Tiles), ..Kept::default() };
        append(&Log::over(Box::new(earlier.clone())).unwrap(), &batches);
        for store in [kept, Kept { drops: None, ..earlier }] {
            let again = Log::over(Box::new(store.clone())).unwrap();
            check_against(&again, &entries);
            check(&again).unwrap();
            append(&again, &batches);
            let more = model(&again, &[batches.clone(), batches.clone()].concat());
            check_against(&again, &more);
            check(&Log::over(Box::new(store)).unwrap()).unwrap();
        }
    }

    #[test]
    fn a_replica_that_took_pages_has_the_same_tree(batches in batches(), events in 1..400_u64) {
        let (leader, follower) = (Log::in_memory().unwrap(), Log::in_memory().unwrap());
        for (index, batch) in (1..).zip(&batches) {
            let requests: Vec<_> = batch.iter().map(|bulk| request(self::events(bulk.iter().copied()))).collect();
            leader.apply_silently(LogId { index, term: 1 }, &requests).unwrap();
        }
        while follower.len() < leader.len() {
            let start = follower.extent_at(follower.len()).unwrap();
            let page = leader.page(start, follower.applied(), events).unwrap();
            follower.install(&Page::from_bytes(&page.to_bytes()).unwrap()).unwrap();
        }
        prop_assert_ne!(leader.extent_at(1).unwrap(), Extent::default());
        let entries = model(&leader, &batches);
        check_against(&leader, &entries);
        check_against(&follower, &entries);
        check(&follower).unwrap();
    }
}

/// Return the key of the row of a full tile.
fn key(level: u8, index: u64) -> Vec<u8> {
    [[level].as_slice(), &index.to_be_bytes()].concat()
}

#[test]
fn a_damaged_hash_of_a_tile_is_found() {
    let kept = Kept::default();
    append(&Log::over(Box::new(kept.clone())).unwrap(), &vec![vec![(0..66_000).collect()]]);
    let stored = |level, index| kept.get(Table::Tiles, &key(level, index)).unwrap().expect("the tile is full");
    let faults: [(&str, Vec<u8>, Vec<u8>); 6] = [
        ("found 31", key(0, 1), vec![0; 31]),
        ("found 8", vec![0; 8], vec![0; 32]),
        ("tile 300 of level 0 is stored, but not the one before it", key(0, 300), vec![0; 32]),
        ("tile 0 of level 3 is stored, but not the one before it", key(3, 0), vec![0; 32]),
        // With the hash of a tile, the one above it does not fit either.
        ("the hash of tile 0 of level 1 is stored as", key(0, 2), stored(0, 1)),
        ("the hash of tile 0 of level 1 is stored as", key(1, 0), stored(0, 1)),
    ];
    for (reason, key, row) in faults {
        let damaged = damaged_copy(&kept, key, row);
        let found = Log::over(Box::new(damaged)).and_then(|log| check(&log));
        assert!(matches!(&found, Err(LogError::Corrupt(text)) if text.contains(reason)), "{reason}: {found:?}");
    }
    // Nothing above this tile is stored, so only a check finds it.
    let damaged = damaged_copy(&kept, key(0, 256), stored(0, 1));
    let log = Log::over(Box::new(damaged)).unwrap();
    let found = check(&log);
    assert!(matches!(&found, Err(LogError::Corrupt(text)) if text.contains("tile 256 of level 0")), "{found:?}");
}

/// Return a copy of a store with one more row of a tile, or another one.
fn damaged_copy(kept: &Kept, key: Vec<u8>, row: Vec<u8>) -> Kept {
    let copy = Kept::default();
    let mut batch = WriteBatch::default();
    for table in Table::ALL {
        kept.scan(table, &[], &mut |key, value| {
            batch.put(table, key, value);
            Ok(ControlFlow::Continue(()))
        })
        .unwrap();
    }
    batch.put(Table::Tiles, key, row);
    copy.write(batch).unwrap();
    copy
}

#[test]
fn a_log_with_fewer_events_than_its_tiles_is_damaged() {
    for (tile, reason) in [(key(0, 0), "255 events"), (key(1, 0), "not the one before it")] {
        let kept = Kept::default();
        append(&Log::over(Box::new(kept.clone())).unwrap(), &vec![vec![(0..255).collect()]]);
        let opened = Log::over(Box::new(damaged_copy(&kept, tile, vec![0; 32]))).map(drop);
        assert!(matches!(&opened, Err(LogError::Corrupt(text)) if text.contains(reason)), "{opened:?}");
    }
}
