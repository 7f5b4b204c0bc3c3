//! Any bytes as a tile, bundle, entry or path, and any hashes as a proof: no panic, and what is read is written back as it was.
#![no_main]

use libfuzzer_sys::fuzz_target;
use qed_core::hash::{Digest, merkle_leaf};
use qed_core::proof::Malformed;
use qed_core::tlog::entry::Entry;
use qed_core::tlog::merkle::{
    TreeHead, consistency, inclusion, range_proof, root_at, verify_consistency, verify_inclusion, verify_range,
};
use qed_core::tlog::tile::{
    InTiles, TilePath, Tiles, bundle_from_bytes, bundle_to_bytes, rows_of, tile_from_bytes, tile_to_bytes,
};

/// A tree of one level of tiles, whose leaves are the hashes of their indices.
struct Numbered;

impl Tiles for Numbered {
    type Error = Malformed;

    fn tile(&self, level: u8, index: u64, width: u16) -> Result<Vec<Digest>, Malformed> {
        assert_eq!((level, index), (0, 0), "only small trees are asked for");
        Ok((0..u64::from(width)).map(|i| merkle_leaf(&i.to_be_bytes())).collect())
    }
}

fuzz_target!(|input: (u64, u64, u16, Vec<u8>)| {
    let (size, index, width, data) = input;
    if let Ok(hashes) = tile_from_bytes(&data, width) {
        assert_eq!(tile_to_bytes(&hashes), data);
    }
    if let Ok(entries) = bundle_from_bytes(&data, width) {
        assert_eq!(bundle_to_bytes(&entries).expect("it was read"), data);
    }
    if let Ok(entry) = Entry::from_bytes(&data) {
        assert_eq!(entry.to_bytes(), data);
    }
    if let Some(path) = std::str::from_utf8(&data).ok().and_then(|text| text.parse::<TilePath>().ok()) {
        assert_eq!(path.to_string().as_bytes(), data);
        let _ = path.is_in(size);
    }
    let _ = rows_of(size);

    // Hashes that prove nothing, for trees of any size.
    let hashes: Vec<_> = data.as_chunks().0.iter().copied().map(Digest::new).collect();
    let heads = [size, index].map(|size| TreeHead::new(size, Digest::of_event(&data)));
    if let [Ok(head), Ok(other)] = &heads {
        assert!(verify_inclusion(&Digest::new([0; 32]), index, &hashes, head).is_err());
        let _ = verify_consistency(other, head, &hashes);
        for (count, _) in hashes.iter().enumerate() {
            let (leaves, proof) = hashes.split_at(count);
            assert!(verify_range(index, leaves, proof, head).is_err());
        }
    }

    // An honest small tree: only the honest proof is accepted.
    let size = size % 255 + 1;
    let low = index % size;
    let high = low + 1 + u64::from(width) % (size - low);
    let tiles = InTiles(Numbered);
    let head = |size| TreeHead::new(size, root_at(&tiles, size).expect("a root")).expect("a head");
    let path = inclusion(&tiles, low, size).expect("a proof");
    let leaf = merkle_leaf(&low.to_be_bytes());
    verify_inclusion(&leaf, low, &path, &head(size)).expect("it is honest");
    assert!(hashes == path || verify_inclusion(&leaf, low, &hashes, &head(size)).is_err());
    let path = consistency(&tiles, low, size).expect("a proof");
    verify_consistency(&head(low), &head(size), &path).expect("it is honest");
    let leaves: Vec<_> = (low..high).map(|i| merkle_leaf(&i.to_be_bytes())).collect();
    let proof = range_proof(&tiles, &(low..high), size).expect("a proof");
    verify_range(low, &leaves, &proof, &head(size)).expect("it is honest");
    assert!(hashes == proof || verify_range(low, &leaves, &hashes, &head(size)).is_err());
});
