//! The rows of a log: their keys and values, and reading them (FORMATS.md, "Tables").

use std::cell::RefCell;
use std::ops::Range;

use crate::error::LogError;
use crate::hash::{DIGEST_BYTES, Digest};
use crate::history::GROUP;
use crate::integers::usize_from;
use crate::log_id::LogId;
use crate::store::{Store, Table};

/// Number of event digests in a row. The last row is rewritten with each batch until it is full, so a larger tile would write more
/// bytes for each single added event; a smaller one would need more rows.
pub const TILE: u64 = 64;

/// [`TILE`] as a length.
pub const TILE_DIGESTS: usize = 64;

/// The number of a tile, and its digests.
type CachedTile = (u64, Vec<Digest>);

/// Reads rows of the log, and caches the last two tiles read: a proof needs the leaves around two versions.
pub struct Rows<'a> {
    store: &'a dyn Store,
    tiles: RefCell<[Option<CachedTile>; 2]>,
}

impl<'a> Rows<'a> {
    /// Return a reader of the rows in `store`.
    #[must_use]
    pub fn of(store: &'a dyn Store) -> Self {
        Self { store, tiles: RefCell::new([None, None]) }
    }

    /// Return the event digest of `version`.
    ///
    /// # Errors
    ///
    /// [`LogError::Corrupt`] if the log does not have it; [`LogError::Store`] if it cannot be read.
    pub fn digest(&self, version: u64) -> Result<Digest, LogError> {
        self.in_tile(version, |tile| tile.get(usize_from(version % TILE)).copied().ok_or_else(|| lacks(version)))
    }

    /// Return the event digests of the group of [`GROUP`] versions that contains `version`, at least up to `version`.
    ///
    /// # Errors
    ///
    /// Same as [`Self::digest`].
    pub fn group(&self, version: u64) -> Result<Vec<Digest>, LogError> {
        self.in_tile(version, |tile| {
            let first = usize_from(version % TILE / GROUP * GROUP);
            let group = tile.get(first..).ok_or_else(|| lacks(version))?;
            Ok(group.iter().take(usize_from(GROUP)).copied().collect())
        })
    }

    /// Return the hyper root after the commit batch that `version` belongs to.
    ///
    /// # Errors
    ///
    /// Same as [`Self::digest`].
    pub fn hyper_root(&self, version: u64) -> Result<Digest, LogError> {
        let found = self.store.first_in(Table::Roots, &version.to_be_bytes(), &u64::MAX.to_be_bytes())?;
        let (_, row) =
            found.ok_or_else(|| LogError::Corrupt(format!("no hyper root is stored for version {version}")))?;
        root_in(&row)
    }

    #[expect(clippy::expect_used, reason = "if the tile was missing, it was cached just before")]
    fn in_tile<T>(&self, version: u64, read: impl FnOnce(&[Digest]) -> Result<T, LogError>) -> Result<T, LogError> {
        let number = version / TILE;
        let mut tiles = self.tiles.borrow_mut();
        let is_cached = |tile: &Option<CachedTile>| tile.as_ref().is_some_and(|(found, _)| *found == number);
        if !tiles.iter().any(is_cached) {
            let row = self.store.get(Table::Digests, &number.to_be_bytes())?.ok_or_else(|| lacks(version))?;
            tiles.rotate_right(1);
            let [newest, _] = &mut *tiles;
            *newest = Some((number, digests_in(&row)?));
        }
        let (_, tile) = tiles.iter().flatten().find(|(found, _)| *found == number).expect("the tile is cached");
        read(tile)
    }
}

/// Return the event digests of a range of versions, which starts at a multiple of [`TILE`].
///
/// # Errors
///
/// Same as [`Rows::digest`].
pub fn digests(store: &dyn Store, range: Range<u64>) -> Result<Vec<Digest>, LogError> {
    let mut digests = Vec::with_capacity(usize_from(range.end - range.start));
    for tile in range.start / TILE..range.end.div_ceil(TILE) {
        let row = store.get(Table::Digests, &tile.to_be_bytes())?.ok_or_else(|| lacks(tile * TILE))?;
        digests.extend(digests_in(&row)?);
    }
    let len = usize_from(range.end - range.start);
    if digests.len() < len {
        return Err(lacks(range.start + digests.len() as u64));
    }
    digests.truncate(len);
    Ok(digests)
}

/// Return the digest of `version` if it is among `digests`, the first of which is version `base`.
#[must_use]
pub fn pending(version: u64, base: u64, digests: &[Digest]) -> Option<Digest> {
    digests.get(usize_from(version.checked_sub(base)?)).copied()
}

/// Return the version, or the number of a tile, that a key encodes.
///
/// # Errors
///
/// [`LogError::Corrupt`] unless it has 8 bytes.
pub fn version_in(key: &[u8]) -> Result<u64, LogError> {
    let bytes =
        key.try_into().map_err(|_| LogError::Corrupt(format!("expected a key of 8 bytes, found {}", key.len())))?;
    Ok(u64::from_be_bytes(bytes))
}

/// Return the digests in a row of the log.
///
/// # Errors
///
/// [`LogError::Corrupt`] unless it has 1 to [`TILE`] whole digests.
pub fn digests_in(row: &[u8]) -> Result<Vec<Digest>, LogError> {
    let (digests, rest) = row.as_chunks::<DIGEST_BYTES>();
    if !rest.is_empty() || !(1..=TILE_DIGESTS).contains(&digests.len()) {
        return Err(LogError::Corrupt(format!(
            "expected a row of 1 to {TILE} digests of 32 bytes, found {} bytes",
            row.len()
        )));
    }
    Ok(digests.iter().copied().map(Digest::new).collect())
}

/// Return the log id encoded in a row.
///
/// # Errors
///
/// [`LogError::Corrupt`] unless it has [`LogId::BYTES`] bytes.
pub fn log_id_in(row: &[u8]) -> Result<LogId, LogError> {
    LogId::from_slice(row)
        .ok_or_else(|| LogError::Corrupt(format!("expected a log id of 16 bytes, found {}", row.len())))
}

/// Return the hyper root in a row, and the log id of its batch: the default if the batch has none.
///
/// # Errors
///
/// [`LogError::Corrupt`] unless it has 32 or 48 bytes.
pub fn root_and_log_id_in(row: &[u8]) -> Result<(Digest, LogId), LogError> {
    let malformed =
        || LogError::Corrupt(format!("expected the row of a hyper root to have 32 or 48 bytes, found {}", row.len()));
    let (root, log_id) = row.split_at_checked(DIGEST_BYTES).ok_or_else(malformed)?;
    let log_id = if log_id.is_empty() { LogId::default() } else { log_id_in(log_id)? };
    Ok((Digest::from_slice(root).ok_or_else(malformed)?, log_id))
}

/// Return the hyper root in a row.
///
/// # Errors
///
/// [`LogError::Corrupt`] unless it has 32 or 48 bytes.
pub fn root_in(row: &[u8]) -> Result<Digest, LogError> {
    root_and_log_id_in(row).map(|(root, _)| root)
}

/// Return the key of the row for a full tile.
#[must_use]
pub fn tile_key(level: u8, index: u64) -> Vec<u8> {
    [[level].as_slice(), &index.to_be_bytes()].concat()
}

/// Return the level and the number in the key of a full tile.
///
/// # Errors
///
/// [`LogError::Corrupt`] unless it has 9 bytes.
pub fn tile_in(key: &[u8]) -> Result<(u8, u64), LogError> {
    let malformed = || LogError::Corrupt(format!("expected the key of a tile to have 9 bytes, found {}", key.len()));
    let (level, index) = key.split_first().ok_or_else(malformed)?;
    Ok((*level, u64::from_be_bytes(index.try_into().map_err(|_| malformed())?)))
}

/// Return the hash in the row of a full tile.
///
/// # Errors
///
/// [`LogError::Corrupt`] unless it has 32 bytes.
pub fn tile_hash_in(row: &[u8]) -> Result<Digest, LogError> {
    Digest::from_slice(row)
        .ok_or_else(|| LogError::Corrupt(format!("expected the hash of a tile to have 32 bytes, found {}", row.len())))
}

/// Return the row of a hyper root.
#[must_use]
pub fn root_row(root: &Digest, log_id: Option<LogId>) -> Vec<u8> {
    let mut row = root.as_bytes().to_vec();
    row.extend(log_id.iter().flat_map(|log_id| log_id.to_bytes()));
    row
}

/// Return the key of the row for an occurrence of an event.
#[must_use]
pub fn occurrence_key(digest: &Digest, version: u64) -> Vec<u8> {
    [digest.as_bytes().as_slice(), &version.to_be_bytes()].concat()
}

/// Return the event and the version in the key of an occurrence.
///
/// # Errors
///
/// [`LogError::Corrupt`] unless it has 40 bytes.
pub fn occurrence_in(key: &[u8]) -> Result<(Digest, u64), LogError> {
    let malformed =
        || LogError::Corrupt(format!("expected the key of an occurrence to have 40 bytes, found {}", key.len()));
    let (event, version) = key.split_at_checked(DIGEST_BYTES).ok_or_else(malformed)?;
    Ok((Digest::from_slice(event).ok_or_else(malformed)?, version_in(version)?))
}

/// Require that the stored digest is equal to the computed one.
///
/// # Errors
///
/// [`LogError::Corrupt`], naming both.
pub fn require_same(what: &str, stored: &Digest, computed: &Digest) -> Result<(), LogError> {
    if stored == computed {
        return Ok(());
    }
    Err(LogError::Corrupt(format!("{what} is stored as {stored}, but the events lead to {computed}")))
}

fn lacks(version: u64) -> LogError {
    LogError::Corrupt(format!("the digest of version {version} is missing"))
}
