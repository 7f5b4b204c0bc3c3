//! The rows of a log: their keys, their values, and reading them (FORMATS.md, "Tables").

use std::cell::RefCell;

use crate::error::LogError;
use crate::hash::{DIGEST_BYTES, Digest};
use crate::history::GROUP;
use crate::store::{Store, Table};

/// Event digests in a row. The last row is written again with each batch until it is full, so a larger tile would cost single
/// adds more bytes; a smaller one costs more rows.
pub const TILE: u64 = 64;

/// [`TILE`] as a length.
pub const TILE_DIGESTS: usize = 64;

/// The number of a tile and its digests.
type CachedTile = (u64, Vec<Digest>);

/// Reads rows of the log, keeping the digests of the last two tiles read: a proof asks for the leaves around two versions.
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
    /// [`LogError::Corrupt`] if the log lacks it; [`LogError::Store`] if it cannot be read.
    pub fn digest(&self, version: u64) -> Result<Digest, LogError> {
        self.in_tile(version, |tile| {
            let offset = usize::try_from(version % TILE).unwrap_or(usize::MAX);
            tile.get(offset).copied().ok_or_else(|| lacks(version))
        })
    }

    /// Return the event digests of the group of [`GROUP`] versions that holds `version`, at least up to it.
    ///
    /// # Errors
    ///
    /// As [`Self::digest`].
    pub fn group(&self, version: u64) -> Result<Vec<Digest>, LogError> {
        self.in_tile(version, |tile| {
            let first = usize::try_from(version % TILE / GROUP * GROUP).unwrap_or(usize::MAX);
            let group = tile.get(first..).ok_or_else(|| lacks(version))?;
            Ok(group.iter().take(usize::try_from(GROUP).unwrap_or(usize::MAX)).copied().collect())
        })
    }

    /// Return the hyper root after the commit batch that `version` belongs to.
    ///
    /// # Errors
    ///
    /// As [`Self::digest`].
    pub fn hyper_root(&self, version: u64) -> Result<Digest, LogError> {
        let found = self.store.first_in(Table::Roots, &version.to_be_bytes(), &u64::MAX.to_be_bytes())?;
        let (_, row) =
            found.ok_or_else(|| LogError::Corrupt(format!("no hyper root is stored for version {version}")))?;
        root_in(&row)
    }

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
        match tiles.iter().flatten().find(|(found, _)| *found == number) {
            Some((_, tile)) => read(tile),
            None => Err(lacks(version)),
        }
    }
}

/// Return the digest of `version` if it is among `digests`, the first of which is version `base`.
#[must_use]
pub fn pending(version: u64, base: u64, digests: &[Digest]) -> Option<Digest> {
    digests.get(usize::try_from(version.checked_sub(base)?).ok()?).copied()
}

/// Return the version, or the number of a tile, that a key is.
///
/// # Errors
///
/// [`LogError::Corrupt`] unless it has 8 bytes.
pub fn version_in(key: &[u8]) -> Result<u64, LogError> {
    let bytes = key.try_into().map_err(|_| LogError::Corrupt(format!("a key has {} bytes instead of 8", key.len())))?;
    Ok(u64::from_be_bytes(bytes))
}

/// Return the digests in a row of the log.
///
/// # Errors
///
/// [`LogError::Corrupt`] unless there are 1 to [`TILE`] whole ones.
pub fn digests_in(row: &[u8]) -> Result<Vec<Digest>, LogError> {
    let (digests, rest) = row.as_chunks::<DIGEST_BYTES>();
    if !rest.is_empty() || !(1..=TILE_DIGESTS).contains(&digests.len()) {
        return Err(LogError::Corrupt(format!("a row of digests has {} bytes", row.len())));
    }
    Ok(digests.iter().copied().map(Digest::new).collect())
}

/// Where a commit batch, or another entry, stands in the replicated log that orders it. Its default is before the first entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Place {
    /// The index of the entry; the first is 1.
    pub index: u64,
    /// The term of the leader that proposed it.
    pub term: u64,
}

impl Place {
    /// Return the 16 bytes that stand for the place in rows.
    #[must_use]
    pub fn to_bytes(self) -> [u8; PLACE_BYTES] {
        let mut bytes = [0; PLACE_BYTES];
        let (index, term) = bytes.split_at_mut(PLACE_BYTES / 2);
        index.copy_from_slice(&self.index.to_be_bytes());
        term.copy_from_slice(&self.term.to_be_bytes());
        bytes
    }

    /// Return the place that `bytes` stand for.
    ///
    /// # Errors
    ///
    /// [`LogError::Corrupt`] unless there are 16.
    pub fn from_slice(bytes: &[u8]) -> Result<Self, LogError> {
        let (index, term) = bytes.split_at(bytes.len().min(PLACE_BYTES / 2));
        Ok(Self { index: version_in(index)?, term: version_in(term)? })
    }
}

/// Bytes of a [`Place`] in a row.
const PLACE_BYTES: usize = 16;

/// Return the hyper root in a row, and the place of its batch: the default if none was given.
///
/// # Errors
///
/// [`LogError::Corrupt`] unless it has 32 or 48 bytes.
pub fn root_and_place_in(row: &[u8]) -> Result<(Digest, Place), LogError> {
    let misshapen = || LogError::Corrupt(format!("the row of a hyper root has {} bytes", row.len()));
    let (root, place) = row.split_at_checked(DIGEST_BYTES).ok_or_else(misshapen)?;
    let place = if place.is_empty() { Place::default() } else { Place::from_slice(place)? };
    Ok((Digest::from_slice(root).ok_or_else(misshapen)?, place))
}

/// Return the hyper root in a row.
///
/// # Errors
///
/// [`LogError::Corrupt`] unless it has 32 or 48 bytes.
pub fn root_in(row: &[u8]) -> Result<Digest, LogError> {
    root_and_place_in(row).map(|(root, _)| root)
}

/// Return the row of a hyper root.
#[must_use]
pub fn root_row(root: &Digest, place: Option<Place>) -> Vec<u8> {
    let mut row = root.as_bytes().to_vec();
    row.extend(place.iter().flat_map(|place| place.to_bytes()));
    row
}

/// Return the key of an occurrence of an event.
#[must_use]
pub fn occurrence_key(digest: &Digest, version: u64) -> Vec<u8> {
    [digest.as_bytes().as_slice(), &version.to_be_bytes()].concat()
}

/// Return the version in the key of an occurrence.
///
/// # Errors
///
/// [`LogError::Corrupt`] unless it has 40 bytes.
pub fn version_of_occurrence(key: &[u8]) -> Result<u64, LogError> {
    let (_, version) = key
        .split_at_checked(DIGEST_BYTES)
        .ok_or_else(|| LogError::Corrupt(format!("the key of an occurrence has {} bytes", key.len())))?;
    version_in(version)
}

/// Require that what was computed is what is stored.
///
/// # Errors
///
/// [`LogError::Corrupt`] names both.
pub fn require_same(what: &str, stored: &Digest, computed: &Digest) -> Result<(), LogError> {
    if stored == computed {
        return Ok(());
    }
    Err(LogError::Corrupt(format!("{what} is stored as {stored}, but the log leads to {computed}")))
}

fn lacks(version: u64) -> LogError {
    LogError::Corrupt(format!("the log lacks the digest of version {version}"))
}
