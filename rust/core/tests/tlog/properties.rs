//! Random trees against the definitions, and random damage to every format.

use std::ops::Range;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use qed_core::hash::Digest;
use qed_core::tlog::entry::Entry;
use qed_core::tlog::merkle::{
    TreeHead, consistency, inclusion, inclusion_in_range, range_proof, root_at, root_of, verify_consistency,
    verify_inclusion, verify_range,
};
use qed_core::tlog::tile::{InTiles, TilePath, bundle_from_bytes, bundle_to_bytes, rows_of};

use crate::edits::{damage, damaged};
use crate::model::Leaves;
use crate::seeds::searching;

fn head_of(leaves: &[Digest]) -> TreeHead {
    TreeHead::new(leaves.len() as u64, root_of(leaves)).unwrap()
}

/// A size, and two numbers up to it in order.
fn sizes(limit: u64) -> impl Strategy<Value = (u64, u64, u64)> {
    (1..limit, any::<Index>(), any::<Index>()).prop_map(|(size, a, b)| {
        let [a, b] = [a, b].map(|index| index.index(usize::try_from(size).unwrap() + 1) as u64);
        (size, a.min(b), a.max(b))
    })
}

fn indices(range: &Range<u64>) -> Range<usize> {
    usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()
}

proptest! {
    #![proptest_config(searching(64))]

    #[test]
    fn proofs_are_those_of_the_definitions((size, low, high) in sizes(90)) {
        let leaves = Leaves::numbered(size);
        let (count, head) = (leaves.0.len(), head_of(&leaves.0));
        prop_assert_eq!(root_at(&leaves, size).unwrap(), leaves.root(0, count));
        prop_assert_eq!(*head.root(), leaves.root(0, count));
        if low < size {
            let index = usize::try_from(low).unwrap();
            let path = inclusion(&leaves, low, size).unwrap();
            prop_assert_eq!(&path, &leaves.path(index, 0, count));
            verify_inclusion(&leaves.0[index], low, &path, &head).unwrap();
        }
        let old = usize::try_from(low).unwrap();
        let path = consistency(&leaves, low, size).unwrap();
        let expected = if old == 0 { Vec::new() } else { leaves.subproof(old, 0, count, true) };
        prop_assert_eq!(&path, &expected);
        verify_consistency(&head_of(&leaves.0[..old]), &head, &path).unwrap();
        if low < high {
            let range = indices(&(low..high));
            let proof = range_proof(&leaves, &(low..high), size).unwrap();
            prop_assert_eq!(&proof, &leaves.range(range.start, range.end, 0, count));
            verify_range(low, &leaves.0[range.clone()], &proof, &head).unwrap();
            for index in low..high {
                let path = inclusion_in_range(index, low, &leaves.0[range.clone()], &proof, size).unwrap();
                prop_assert_eq!(path, inclusion(&leaves, index, size).unwrap());
            }
            for (index, hashes) in [(high, proof.as_slice()), (low, &[])] {
                prop_assert!(hashes.len() == proof.len() && index < high
                    || inclusion_in_range(index, low, &leaves.0[range.clone()], hashes, size).is_err());
            }
        }
    }

    #[test]
    fn a_changed_proof_is_refused((size, low, high) in sizes(90), edit in edits(), bit in any::<Index>()) {
        let leaves = Leaves::numbered(size);
        let head = head_of(&leaves.0);
        let flip = |digest: &Digest| {
            let (mut bytes, place) = (*digest.as_bytes(), bit.index(256));
            bytes[place / 8] ^= 1 << (place % 8);
            Digest::new(bytes)
        };
        let other_head = TreeHead::new(size, flip(head.root())).unwrap();
        if low < size {
            let leaf = &leaves.0[usize::try_from(low).unwrap()];
            let path = inclusion(&leaves, low, size).unwrap();
            let changed = edit.apply(&path, flip);
            prop_assert!(changed == path || verify_inclusion(leaf, low, &changed, &head).is_err());
            prop_assert!(verify_inclusion(&flip(leaf), low, &path, &head).is_err());
            prop_assert!(verify_inclusion(leaf, low, &path, &other_head).is_err());
            prop_assert!(high == low || verify_inclusion(leaf, high, &path, &head).is_err());
        }
        let (path, old) = (consistency(&leaves, low, size).unwrap(), head_of(&leaves.0[..usize::try_from(low).unwrap()]));
        let changed = edit.apply(&path, flip);
        prop_assert!(changed == path || verify_consistency(&old, &head, &changed).is_err());
        prop_assert!(low == 0 || verify_consistency(&old, &other_head, &path).is_err());
        if low > 0 {
            let other_old = TreeHead::new(low, flip(old.root())).unwrap();
            prop_assert!(verify_consistency(&other_old, &head, &path).is_err());
        }
        if low < high {
            let range = leaves.0[indices(&(low..high))].to_vec();
            let proof = range_proof(&leaves, &(low..high), size).unwrap();
            let changed = edit.apply(&proof, flip);
            prop_assert!(changed == proof || verify_range(low, &range, &changed, &head).is_err());
            let changed = edit.apply(&range, flip);
            prop_assert!(changed == range || verify_range(low, &changed, &proof, &head).is_err());
            prop_assert!(verify_range(low, &range, &proof, &other_head).is_err());
            prop_assert!(low == 0 || verify_range(low - 1, &range, &proof, &head).is_err());
        }
    }

    #[test]
    fn tiles_are_enough_for_every_proof((size, low, high) in sizes(1200)) {
        let leaves = Leaves::numbered(size);
        let tiles = InTiles(leaves.tiles());
        prop_assert_eq!(root_at(&tiles, size).unwrap(), root_of(&leaves.0));
        if low < size {
            prop_assert_eq!(inclusion(&tiles, low, size).unwrap(), inclusion(&leaves, low, size).unwrap());
        }
        prop_assert_eq!(consistency(&tiles, low, size).unwrap(), consistency(&leaves, low, size).unwrap());
        if low < high {
            let proof = range_proof(&tiles, &(low..high), size).unwrap();
            prop_assert_eq!(proof, range_proof(&leaves, &(low..high), size).unwrap());
        }
    }

    #[test]
    fn a_path_is_read_as_it_was_written(level in 0_u8..=63, index in 0..=i64::MAX as u64, width in 1_u16..=256, of_entries: bool) {
        use qed_core::tlog::tile::Content;
        let content = if of_entries { Content::Entries } else { Content::Hashes(level) };
        let path = TilePath::new(content, index, width).unwrap();
        prop_assert_eq!(path.to_string().parse::<TilePath>().unwrap(), path);
    }

    #[test]
    fn text_that_is_read_as_a_path_is_that_path(text in "tile/(entries|[0-9]{1,2})/(x?[0-9]{2,3}/){0,3}[0-9x]{3}(\\.p/[0-9]{1,3})?") {
        if let Ok(path) = text.parse::<TilePath>() {
            prop_assert_eq!(path.to_string(), text);
        }
    }

    #[test]
    fn the_tiles_of_a_size_are_in_it_and_no_wider_one_is(size in 0_u64..200_000) {
        for path in rows_of(size).into_iter().flat_map(|row| row.tiles_from(row.full().saturating_sub(1))) {
            prop_assert!(path.is_in(size));
            prop_assert!(path.width() == 256 || !TilePath::new(path.content(), path.index(), path.width() + 1).unwrap().is_in(size));
        }
    }

    #[test]
    fn bundles_are_read_as_they_were_written(entries in vec(vec(any::<u8>(), 0..80), 1..=256), damage in damage()) {
        let width = u16::try_from(entries.len()).unwrap();
        let bytes = bundle_to_bytes(&entries).unwrap();
        prop_assert_eq!(bundle_from_bytes(&bytes, width).unwrap(), entries.iter().map(Vec::as_slice).collect::<Vec<_>>());
        let damaged = damaged(&bytes, &[0, 1, 2], &[damage]);
        if let Ok(read) = bundle_from_bytes(&damaged, width) {
            prop_assert_eq!(bundle_to_bytes(&read).unwrap(), damaged);
        }
    }

    #[test]
    fn any_bytes_are_an_entry_of_one_encoding_or_none(mut bytes in vec(any::<u8>(), 0..120), flags in 0_u8..5) {
        if bytes.len() > 2 {
            (bytes[0], bytes[1]) = (1, flags);
        }
        if let Ok(entry) = Entry::from_bytes(&bytes) {
            prop_assert_eq!(entry.to_bytes(), bytes);
        }
    }
}

/// A change to a list of hashes.
#[derive(Debug, Clone)]
enum Edit {
    Flip(Index),
    Drop(Index),
    Repeat(Index),
    Swap(Index, Index),
}

fn edits() -> impl Strategy<Value = Edit> {
    prop_oneof![
        any::<Index>().prop_map(Edit::Flip),
        any::<Index>().prop_map(Edit::Drop),
        any::<Index>().prop_map(Edit::Repeat),
        any::<(Index, Index)>().prop_map(|(a, b)| Edit::Swap(a, b)),
    ]
}

impl Edit {
    fn apply(&self, path: &[Digest], flip: impl Fn(&Digest) -> Digest) -> Vec<Digest> {
        let mut path = path.to_vec();
        if path.is_empty() {
            return vec![Digest::new([1; 32])];
        }
        let count = path.len();
        match self {
            Self::Flip(i) => path[i.index(count)] = flip(&path[i.index(count)]),
            Self::Drop(i) => drop(path.remove(i.index(count))),
            Self::Repeat(i) => path.insert(i.index(count), path[i.index(count)]),
            Self::Swap(a, b) => path.swap(a.index(count), b.index(count)),
        }
        path
    }
}

/// Return the root of RFC 6962, section 2.1, by its definition.
fn defined(leaves: &[Digest]) -> Digest {
    match leaves {
        [] => Digest::of_event(b""),
        [leaf] => *leaf,
        _ => {
            let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
            Digest::of_event(&[&[1], defined(left).as_bytes().as_slice(), defined(right).as_bytes()].concat())
        }
    }
}

#[test]
fn a_root_is_the_defined_one_for_every_number_of_leaves() {
    let leaves: Vec<_> = (0..1001_u32).map(|i| Digest::of_event(&i.to_be_bytes())).collect();
    for count in (0..66).chain([127, 128, 129, 255, 256, 257, 511, 512, 513, 999, 1000, 1001]) {
        assert_eq!(root_of(&leaves[..count]), defined(&leaves[..count]), "{count} leaves");
    }
}
