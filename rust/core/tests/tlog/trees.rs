//! Trees, tiles, bundles and entries from attackers.

use qed_core::hash::{Digest, merkle_empty, merkle_leaf};
use qed_core::proof::Malformed;
use qed_core::tlog::entry::{BatchEnd, Entry};
use qed_core::tlog::merkle::{
    MAX_RANGE_LEAVES, ProveError, TreeHead, consistency, inclusion, range_proof, verify_range,
};
use qed_core::tlog::text::MAX_NUMBER;
use qed_core::tlog::tile::{
    Content, InTiles, TilePath, bundle_from_bytes, bundle_to_bytes, rows_of, tile_from_bytes, width_in,
};

use crate::model::Leaves;

#[test]
fn tiles_have_exactly_their_length() {
    assert_eq!(tile_from_bytes(&[0; 8192], 256).unwrap().len(), 256);
    for length in [0, 255 * 32, 8191, 8193, 8224] {
        tile_from_bytes(&vec![0; length], 256).unwrap_err();
    }
    // No tile has these widths, whoever asks for them.
    tile_from_bytes(&[], 0).unwrap_err();
    tile_from_bytes(&[0; 8224], 257).unwrap_err();
}

#[test]
fn a_path_has_one_spelling() {
    for good in [
        "tile/0/000",
        "tile/1/000.p/1",
        "tile/0/005",
        "tile/0/067",
        "tile/0/x001/067",
        "tile/0/x123/x456/789",
        "tile/63/000.p/255",
        "tile/entries/x001/067.p/5",
        "tile/0/x009/x223/x372/x036/x854/x775/807",
    ] {
        assert_eq!(good.parse::<TilePath>().unwrap().to_string(), good);
    }
    assert_eq!(TilePath::new(Content::Hashes(0), 123_456_789, 256).unwrap().to_string(), "tile/0/x123/x456/789");
    for bad in [
        "tile/0/x000/067",
        "tile/0/67",
        "tile/00/067",
        "tile/0/067.p/0",
        "tile/0/067.p/256",
        "tile/0/067.p/08",
        "tile/64/000",
        "tile/256/000",
        "tile/0/0067",
        "tile/0/001/067",
        "tile/0/x001/x067",
        "tile/0/x001067",
        "tile/0/x001/067/",
        "tile/0//067",
        "tile//067",
        "tile/0/06a",
        "tile/0/+67",
        "tile/0/067.p/5.p/5",
        "tile/0/067.p/",
        "tile/0/067.p",
        "tile/0/x009/x223/x372/x036/x854/x775/808",
        "tile/0/x999/x999/x999/x999/x999/x999/999",
        "/tile/0/067",
        "tile/entry/067",
        "tile/-1/067",
        "tile/0/٠٦٧",
        "",
    ] {
        assert!(bad.parse::<TilePath>().is_err(), "{bad}");
    }
    TilePath::new(Content::Hashes(64), 0, 1).unwrap_err();
    TilePath::new(Content::Hashes(0), 0, 0).unwrap_err();
    TilePath::new(Content::Entries, 0, 257).unwrap_err();
    TilePath::new(Content::Entries, MAX_NUMBER + 1, 1).unwrap_err();
}

#[test]
fn a_size_implies_its_tiles() {
    let rows = |size| rows_of(size).into_iter().map(|row| (row.level(), row.full(), row.partial())).collect::<Vec<_>>();
    assert_eq!(rows(0), []);
    assert_eq!(rows(256), [(0, 1, 0), (1, 0, 1)]);
    assert_eq!(rows(70_000), [(0, 273, 112), (1, 1, 17), (2, 0, 1)]);
    assert_eq!(rows(MAX_NUMBER).len(), 8);
    let paths: Vec<_> =
        rows_of(256).into_iter().flat_map(|row| row.tiles_from(0)).map(|path| path.to_string()).collect();
    assert_eq!(paths, ["tile/0/000", "tile/1/000.p/1"]);
    let is_in = |path: &str, size| path.parse::<TilePath>().unwrap().is_in(size);
    assert!(is_in("tile/0/000.p/5", 5) && !is_in("tile/0/000.p/6", 5) && is_in("tile/entries/000.p/5", 5));
    assert!(is_in("tile/0/000.p/5", 300) && is_in("tile/1/000.p/1", 256) && !is_in("tile/1/000.p/1", 255));
    assert!(
        !is_in("tile/63/000.p/1", MAX_NUMBER) && !is_in("tile/0/x009/x223/x372/x036/x854/x775/807.p/1", MAX_NUMBER)
    );
    assert_eq!((width_in(u64::MAX, 0, u64::MAX), width_in(70_000, 1, 1), width_in(70_000, 1, 0)), (0, 17, 256));
}

#[test]
fn every_byte_of_a_bundle_belongs_to_an_entry() {
    let bundle = bundle_to_bytes(&[b"one".as_slice(), b"", &[7; 300]]).unwrap();
    assert_eq!(bundle_from_bytes(&bundle, 3).unwrap(), [b"one".as_slice(), b"", &[7; 300]]);
    for width in [0, 1, 2, 4, 256, 257] {
        bundle_from_bytes(&bundle, width).unwrap_err();
    }
    for length in 0..bundle.len() {
        bundle_from_bytes(&bundle[..length], 3).unwrap_err();
    }
    bundle_from_bytes(&[&bundle[..], &[0]].concat(), 3).unwrap_err();
    bundle_from_bytes(&[0xff, 0xff, 0], 1).unwrap_err();
    bundle_to_bytes::<&[u8]>(&[]).unwrap_err();
    bundle_from_bytes(&[], 0).unwrap_err();
    bundle_from_bytes(&[0; 514], 257).unwrap_err();
    bundle_from_bytes(&[0; 514], 256).unwrap_err();
    assert_eq!(bundle_from_bytes(&[0; 512], 256).unwrap().len(), 256);
    bundle_to_bytes(&vec![b""; 256]).unwrap();
    bundle_to_bytes(&vec![b""; 257]).unwrap_err();
    bundle_to_bytes(&[vec![0; 65_535]]).unwrap();
    bundle_to_bytes(&[vec![0; 65_536]]).unwrap_err();
}

#[test]
fn an_entry_has_one_encoding() {
    let end = BatchEnd { history_digest: merkle_leaf(b"1"), hyper_digest: merkle_leaf(b"2") };
    for (is_repeat, batch_end) in [(false, None), (true, None), (false, Some(end)), (true, Some(end))] {
        let entry = Entry { version: 7, event_digest: merkle_empty(), is_repeat, batch_end };
        let bytes = entry.to_bytes();
        assert_eq!(bytes.len(), if batch_end.is_some() { 106 } else { 42 });
        assert_eq!(Entry::from_bytes(&bytes), Ok(entry));
        for length in 0..bytes.len() {
            Entry::from_bytes(&bytes[..length]).unwrap_err();
        }
        Entry::from_bytes(&[&bytes[..], &[0]].concat()).unwrap_err();
        for (place, value) in [(0, 0), (0, 2), (1, bytes[1] | 4), (1, bytes[1] | 0x80), (1, bytes[1] ^ 1)] {
            let mut other = bytes.clone();
            other[place] = value;
            assert!(Entry::from_bytes(&other).is_err(), "{place} {value}");
        }
    }
}

#[test]
fn questions_outside_the_tree_are_refused() {
    let leaves = Leaves::numbered(5);
    let outside =
        |result: Result<Vec<Digest>, ProveError<Malformed>>| matches!(result, Err(ProveError::Outside { .. }));
    assert!(outside(inclusion(&leaves, 5, 5)) && outside(inclusion(&leaves, 0, 0)));
    assert!(outside(consistency(&leaves, 6, 5)) && outside(inclusion(&leaves, 0, u64::MAX)));
    assert!(outside(range_proof(&leaves, &(2..2), 5)) && outside(range_proof(&leaves, &(4..6), 5)));
    #[expect(clippy::reversed_empty_ranges, reason = "a caller may ask for it")]
    let reversed = 3..2;
    assert!(outside(range_proof(&leaves, &reversed, 5)));
    let many = MAX_RANGE_LEAVES as u64 + 1;
    assert!(outside(range_proof(&leaves, &(0..many), many)));
    let head = TreeHead::new(many, merkle_empty()).unwrap();
    let refused = verify_range(0, &vec![merkle_empty(); MAX_RANGE_LEAVES + 1], &[], &head);
    assert_eq!(refused.unwrap_err().check, "range");
    let refused = verify_range(1, &[merkle_empty()], &[merkle_empty()], &head).unwrap_err();
    assert_eq!((refused.check, refused.expected.as_str(), refused.computed.as_str()), ("number of hashes", "17", "1"));
    // A tile that the source does not have.
    let mut tiles = leaves.tiles();
    tiles.0.clear();
    let missing = inclusion(&InTiles(tiles), 0, 5);
    assert!(matches!(missing, Err(ProveError::Source(_))), "{missing:?}");
}
