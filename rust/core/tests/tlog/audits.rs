//! Auditing: tiles from the root down, and entries replayed into a log. Honest logs pass, and each lie is found where it is.

use std::iter;
use std::sync::LazyLock;

use proptest::collection::vec;
use proptest::prelude::*;
use qed_core::entry_audit::{AuditError, EntryAudit, Finding, MAX_BATCH_ENTRIES};
use qed_core::hash::Digest;
use qed_core::log::{Log, Request};
use qed_core::tlog::entry::{BatchEnd, Entry};
use qed_core::tlog::merkle::{TreeHead, verify_inclusion};
use qed_core::tlog::tile::{Content, TilePath, bundle_from_bytes, tile_from_bytes};
use qed_core::tlog::verified_tiles::{VerifiedTiles, edge_of, shortened_bundle, shortened_tile};

use crate::edits::{damage, damaged, damaging};
use crate::model::Leaves;
use crate::seeds::searching;

/// Return a log with batches of these sizes. Every seventh event is that before it, in the same request.
fn log_of(sizes: &[usize]) -> Log {
    let log = Log::in_memory().unwrap();
    let mut numbers = 0_u64..;
    for size in sizes {
        let event = |number: u64| Digest::of_event(&(number - u64::from(number % 7 == 6)).to_be_bytes());
        let digests = numbers.by_ref().take(*size).map(event).collect();
        log.append(&[Request { digests, if_absent: false }]).unwrap();
    }
    log
}

fn path(level: u8, index: u64, width: u16) -> TilePath {
    TilePath::new(Content::Hashes(level), index, width).unwrap()
}

fn hashes(log: &Log, path: &TilePath) -> Vec<Digest> {
    tile_from_bytes(&log.tile(path).unwrap(), path.width()).unwrap()
}

fn tree_of(log: &Log) -> VerifiedTiles {
    let edge = edge_of(log.len()).iter().map(|path| hashes(log, path)).collect();
    VerifiedTiles::new(log.tree_head().unwrap(), edge).unwrap()
}

fn entries(log: &Log) -> Vec<Vec<u8>> {
    log.entries(0..log.len()).unwrap().iter().map(Entry::to_bytes).collect()
}

/// Append entries as those of a tree that ends with them; return what is wrong with the first that is.
fn audited(entries: &[Vec<u8>]) -> Result<EntryAudit, Finding> {
    let mut audit = EntryAudit::default();
    for entry in entries {
        audit.append(entry, entries.len() as u64).map_err(|error| match error {
            AuditError::Found(finding) => finding,
            AuditError::Log(error) => panic!("{error}"),
        })?;
    }
    Ok(audit)
}

#[test]
fn a_tree_is_verified_from_its_edge_down() {
    let log = log_of(&[70_000]);
    let mut tree = tree_of(&log);
    assert_eq!(edge_of(70_000), [path(0, 273, 112), path(1, 1, 17), path(2, 0, 1)]);
    assert_eq!(tree.missing_above(5), [path(1, 0, 256)]);
    assert_eq!(tree.missing_above(270), []);
    let (first, other) = (path(0, 5, 256), path(0, 6, 256));
    assert!(tree.verify(&first, &hashes(&log, &first)).is_err(), "the tile above is missing");
    tree.add(&path(1, 0, 256), hashes(&log, &path(1, 0, 256))).unwrap();
    assert_eq!(tree.missing_above(5), []);
    tree.verify(&first, &hashes(&log, &first)).unwrap();
    assert!(tree.verify(&first, &hashes(&log, &other)).is_err());
    assert!(tree.verify(&path(0, 5, 255), &hashes(&log, &path(0, 5, 255))).is_err(), "the tree has the full tile");
    let bundle = |index| log.tile(&TilePath::new(Content::Entries, index, 256).unwrap()).unwrap();
    tree.verify_bundle(5, &bundle(5)).unwrap();
    assert!(tree.verify_bundle(5, &bundle(6)).is_err());
    assert!(tree.verify_bundle(273, &bundle(5)).is_err());
    let last = log.tile(&TilePath::new(Content::Entries, 273, 112).unwrap()).unwrap();
    tree.verify_bundle(273, &last).unwrap();
    for cut in [&last[..last.len() - 1], &[]] {
        assert!(tree.verify_bundle(273, cut).is_err());
    }
    assert!(tree.verify_bundle(273, &[last.as_slice(), &[0]].concat()).is_err());
    assert!(tree.verify_bundle(274, &last).is_err());
    assert!(tree.verify(&TilePath::new(Content::Entries, 0, 256).unwrap(), &hashes(&log, &first)).is_err());
}

#[test]
fn an_edge_that_is_not_that_of_the_root_is_refused() {
    let log = log_of(&[700]);
    let edge: Vec<_> = edge_of(700).iter().map(|path| hashes(&log, path)).collect();
    let head = log.tree_head().unwrap();
    for tile in 0..edge.len() {
        for place in 0..edge[tile].len() {
            let mut changed = edge.clone();
            changed[tile][place] = Digest::of_event(b"another");
            assert!(VerifiedTiles::new(head, changed).is_err(), "{tile} {place}");
        }
        let mut cut = edge.clone();
        cut[tile].pop();
        assert!(VerifiedTiles::new(head, cut).is_err());
        let mut fewer = edge.clone();
        fewer.remove(tile);
        assert!(VerifiedTiles::new(head, fewer).is_err());
    }
    assert!(VerifiedTiles::new(TreeHead::new(701, *head.root()).unwrap(), edge).is_err());
    let empty = Log::in_memory().unwrap();
    assert_eq!(tree_of(&empty).root_at(0).unwrap(), *empty.tree_head().unwrap().root());
}

#[test]
fn the_beginning_of_a_full_file_is_the_partial_one() {
    let log = log_of(&[300]);
    let file = |content, width| log.tile(&TilePath::new(content, 0, width).unwrap()).unwrap();
    let (bundle, tile) = (file(Content::Entries, 256), file(Content::Hashes(0), 256));
    for width in [1, 7, 255, 256] {
        assert_eq!(shortened_bundle(&bundle, width).unwrap(), file(Content::Entries, width));
        assert_eq!(shortened_tile(&tile, width).unwrap(), file(Content::Hashes(0), width));
    }
    for width in [0, 257] {
        assert!(shortened_bundle(&bundle, width).is_err());
        assert!(shortened_tile(&tile, width).is_err());
    }
    assert!(shortened_bundle(&file(Content::Entries, 255), 1).is_err());
    assert!(shortened_tile(&file(Content::Hashes(0), 255), 1).is_err());
}

#[test]
fn an_honest_log_is_replayed_to_its_own_roots() {
    let log = log_of(&[1, 1, 5, 300, 1, 40]);
    let audit = audited(&entries(&log)).unwrap();
    let last = log.snapshot(log.len() - 1).unwrap();
    let BatchEnd { history_digest, hyper_digest } = audit.end().unwrap();
    assert_eq!((audit.replayed(), audit.next_entry()), (log.len(), log.len()));
    assert_eq!((*history_digest, *hyper_digest), (last.history_digest, last.hyper_digest));
}

/// Change one entry of an honest log, and return where that is found, and the batch that had to be replayed.
fn found(index: usize, change: impl FnOnce(&mut Vec<u8>)) -> (u64, Option<(u64, u64)>) {
    // Batches are 0..3, 3..10 and 10..14; version 6 repeats version 5, and version 13 version 12.
    let mut entries = entries(&log_of(&[3, 7, 4]));
    change(&mut entries[index]);
    let finding = audited(&entries).unwrap_err();
    (finding.index, finding.replay.map(|replay| (replay.from, replay.to)))
}

#[test]
fn an_entry_that_is_wrong_by_itself_is_found_without_a_replay() {
    assert_eq!(found(4, |entry| entry[9] = 5), (4, None));
    assert_eq!(found(4, |entry| entry[1] |= 4), (4, None));
    assert_eq!(found(4, |entry| entry[1] |= 1), (4, None));
    assert_eq!(found(9, |entry| entry[1] = 0), (9, None));
    assert_eq!(found(4, Vec::clear), (4, None));
    let unfinished = |entry: &mut Vec<u8>| {
        entry[1] &= 2;
        entry.truncate(42);
    };
    assert_eq!(found(13, unfinished), (13, None));
}

#[test]
fn a_wrong_root_is_found_by_the_replay() {
    assert_eq!(found(9, |entry| entry[105] ^= 1), (9, Some((3, 9))), "the hyper root");
    assert_eq!(found(9, |entry| entry[42] ^= 1), (9, Some((3, 9))), "the history root");
    assert_eq!(found(4, |entry| entry[10] ^= 1), (9, Some((3, 9))), "the event of an entry inside");
    assert_eq!(found(6, |entry| entry[1] = 0), (9, Some((3, 9))), "a repeat that is not marked");
    assert_eq!(found(4, |entry| entry[1] = 2), (9, Some((3, 9))), "a repeat that is the first of its event");
    // Two batches as one: the roots of the first are not shown, and those of the second are the same. Only receipts tell.
    let mut entries = entries(&log_of(&[3, 7, 4]));
    entries[2][1] = 0;
    entries[2].truncate(42);
    assert!(audited(&entries).is_ok());
}

#[test]
fn nothing_is_appended_after_a_finding_that_would_hide_it() {
    let log = log_of(&[3, 7]);
    let mut all = entries(&log);
    all[2][105] ^= 1;
    let mut audit = EntryAudit::default();
    let outcomes: Vec<_> = all.iter().map(|entry| audit.append(entry, 10).is_ok()).collect();
    assert_eq!(outcomes, [true, true, false, false, false, false, false, false, false, false]);
    assert_eq!(audit.end(), None);
}

#[test]
fn a_batch_has_a_limit() {
    let mut audit = EntryAudit::default();
    let entry = |version| Entry { version, event_digest: Digest::default(), is_repeat: version > 0, batch_end: None };
    let limit = MAX_BATCH_ENTRIES as u64;
    for version in 0..limit {
        audit.append(&entry(version).to_bytes(), u64::MAX >> 1).unwrap();
    }
    let Err(AuditError::Found(finding)) = audit.append(&entry(limit).to_bytes(), u64::MAX >> 1) else {
        panic!("a finding")
    };
    assert_eq!(finding.replay.map(|replay| (replay.from, replay.to)), Some((0, limit)));
}

type File = (TilePath, Vec<u8>);

/// A tree of two full bundles and a partial one, whose files all verify.
static HONEST: LazyLock<(VerifiedTiles, Vec<File>)> = LazyLock::new(|| {
    let log = log_of(&[1, 300, 256, 40]);
    let tree = tree_of(&log);
    let tiles = (0..3).filter_map(|index| tree.path_of(0, index));
    let bundles = tiles.clone().map(|tile| TilePath::new(Content::Entries, tile.index(), tile.width()).unwrap());
    let paths: Vec<_> = tiles.chain(bundles).collect();
    let files = paths.into_iter().map(|path| (path, log.tile(&path).unwrap())).collect();
    (tree, files)
});

fn is_in_tree(path: &TilePath, content: &[u8]) -> bool {
    let (tree, _) = &*HONEST;
    match path.content() {
        Content::Entries => tree.verify_bundle(path.index(), content).is_ok(),
        Content::Hashes(_) => {
            tile_from_bytes(content, path.width()).is_ok_and(|found| tree.verify(path, &found).is_ok())
        }
    }
}

proptest! {
    #![proptest_config(damaging(2_000))]

    #[test]
    fn a_damaged_file_is_not_in_the_tree(which in 0_usize..6, donor in 0_usize..6, damages in vec(damage(), 1..4)) {
        let (path, file) = &HONEST.1[which];
        let damaged = damaged(file, &HONEST.1[donor].1, &damages);
        prop_assert_eq!(is_in_tree(path, &damaged), damaged == *file);
    }
}

proptest! {
    #![proptest_config(searching(60))]

    #[test]
    fn an_audit_agrees_with_the_log(sizes in vec(prop_oneof![1_usize..4, 1_usize..400], 1..12), cut in any::<prop::sample::Index>()) {
        let log = log_of(&sizes);
        let leaves = Leaves(log.entries(0..log.len()).unwrap().iter().map(Entry::leaf).collect());
        let mut tree = tree_of(&log);
        // Any earlier size, which need not be the end of a batch.
        let old = cut.index(leaves.0.len() + 1);
        for path in tree.missing_for_root(old as u64) {
            tree.add(&path, hashes(&log, &path)).unwrap();
        }
        prop_assert_eq!(tree.root_at(old as u64).unwrap(), leaves.root(0, old));
        let index = old.min(leaves.0.len() - 1) as u64;
        for path in tree.missing_above(index / 256).into_iter().chain(tree.path_of(0, index / 256)) {
            tree.add(&path, hashes(&log, &path)).unwrap();
        }
        let leaf = &leaves.0[usize::try_from(index).unwrap()];
        verify_inclusion(leaf, index, &tree.inclusion(index).unwrap(), tree.head()).unwrap();

        let mut audit = EntryAudit::default();
        let ends = sizes.iter().scan(0, |end, size| { *end += *size as u64; Some(*end) });
        let ends: Vec<_> = iter::once(0).chain(ends).collect();
        for (number, start) in (0..log.len()).step_by(256).enumerate() {
            let width = u16::try_from((log.len() - start).min(256)).unwrap();
            let bundle = log.tile(&TilePath::new(Content::Entries, number as u64, width).unwrap()).unwrap();
            tree_of_bundle(&mut tree, &log, number as u64);
            tree.verify_bundle(number as u64, &bundle).unwrap();
            for entry in bundle_from_bytes(&bundle, width).unwrap() {
                audit.append(entry, log.len()).unwrap();
                prop_assert!(ends.contains(&audit.replayed()));
            }
        }
        let last = log.snapshot(log.len() - 1).unwrap();
        prop_assert_eq!(audit.end().unwrap().hyper_digest, last.hyper_digest);
    }
}

fn tree_of_bundle(tree: &mut VerifiedTiles, log: &Log, index: u64) {
    for path in tree.missing_above(index) {
        tree.add(&path, hashes(log, &path)).unwrap();
    }
}
