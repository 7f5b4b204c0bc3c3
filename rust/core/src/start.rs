//! Building the trees of a log from its rows when it is opened.
//!
//! Every start hashes the whole hyper tree and compares its root with the one that was acknowledged last. What it hashes comes from the rows,
//! read in order, a few thousand events at a time.

use std::ops::ControlFlow;

use crate::entry_rows;
use crate::error::LogError;
use crate::hash::Digest;
use crate::hidden::{Hidden, require_shown};
use crate::history::{HistoryTree, group_nodes};
use crate::hyper::{HyperBuilder, Slot};
use crate::rows::{self, Rows, TILE, TILE_DIGESTS};
use crate::store::{Store, Table, WriteBatch};
use crate::tree_image::{ImageError, ImageUse, Sum, TreeImage};
use crate::trees::Trees;

/// Number of digests that are read before they are hashed: enough for all threads, a few megabytes.
pub const AT_A_TIME: usize = 1 << 16;

/// What a log is opened with.
pub struct Start {
    pub trees: Trees,
    /// The digests of the last tile, if it is not full.
    pub tail: Vec<Digest>,
    /// Rows of full tiles of entries that are not stored.
    pub tiles: WriteBatch,
    pub image: ImageUse,
}

impl Start {
    /// Build the trees from all events.
    ///
    /// # Errors
    ///
    /// [`LogError::Corrupt`] if rows are missing or malformed, or do not lead to the last hyper root; [`LogError::Store`] if one cannot
    /// be read.
    pub fn of_rows(store: &dyn Store) -> Result<Self, LogError> {
        Self::with(store, None).map_err(|error| match error {
            ImageError::Log(error) => error,
            _ => LogError::Bug("an image was read that nobody gave"),
        })
    }

    /// Build the trees from the image of the log and the events after it if that leads to the last hyper root, or else from all events.
    ///
    /// # Errors
    ///
    /// As [`Self::of_rows`].
    pub fn of_image(store: &dyn Store) -> Result<Self, LogError> {
        let Some((path, sum)) = store.image_path().zip(image_sum(store)?) else { return Self::of_rows(store) };
        let unfit = match TreeImage::open(&path, sum, length(store)?).and_then(|image| Self::with(store, Some(image))) {
            Ok(start) => return Ok(start),
            Err(reason) => reason.to_string(),
        };
        Ok(Self { image: ImageUse::Unfit(unfit), ..Self::of_rows(store)? })
    }

    fn with(store: &dyn Store, image: Option<TreeImage>) -> Result<Self, ImageError> {
        let len = length(store)?;
        let root = last_root(store, len)?;
        let image_len = image.as_ref().map(TreeImage::len);
        let hidden = Hidden::in_rows(store, len, image_len.unwrap_or(0)..len)?;
        let mut builder = HyperBuilder::new(len.saturating_sub(hidden.count()));
        let (mut nodes, mut rest, mut sum) = (Vec::new(), Vec::new(), 0_u128);
        if let Some(image) = image {
            let add = |first, slots: &mut Vec<Slot>| {
                // A later event may have hidden some since.
                if hidden.count() > 0 {
                    slots.retain(|slot| !hidden.contains(slot.version()));
                }
                builder.add_slots(first, slots);
            };
            nodes = image.read(len, add)?;
        }
        each_chunk(store, image_len.unwrap_or(0), |first, digests| {
            let mut add = || {
                let mut shown = (first..).zip(digests).filter(|(version, _)| !hidden.contains(*version));
                sum = sum.wrapping_add(hidden.sum_of(first, digests));
                shown.try_for_each(|(version, key)| builder.add(key, version))
            };
            let ((of_groups, after), added) = rayon::join(|| group_nodes(first, digests), &mut add);
            nodes.extend(of_groups);
            rest = after.to_vec();
            added
        })?;
        // `Log::audit` does this for the events of the image.
        hidden.require_sum(sum)?;
        drop(hidden);
        let stored = |version| Rows::of(store).digest(version);
        let others = || {
            let history = HistoryTree::of_groups(nodes, &rest);
            let (entries, tiles) = entry_rows::build(store, &history)?;
            Ok::<_, LogError>((history, entries, tiles))
        };
        let (hyper, others) = rayon::join(|| builder.finish(&stored), others);
        let ((history, entries, tiles), hyper) = (others?, hyper?);
        if let Some(root) = root {
            rows::require_same("the hyper root", &root, &hyper.root())?;
        }
        require_shown(store, &hyper)?;
        let tail = rows::digests(store, len / TILE * TILE..len)?;
        let image = image_len.map_or(ImageUse::Missing, ImageUse::Used);
        Ok(Self { trees: Trees::of(history, hyper, entries), tail, tiles, image })
    }
}

/// Return the number of events in the log, by its last row of digests.
///
/// # Errors
///
/// [`LogError::Corrupt`] if the row is malformed; [`LogError::Store`] if it cannot be read.
pub fn length(store: &dyn Store) -> Result<u64, LogError> {
    let last = store.last_in(Table::Digests, &0_u64.to_be_bytes(), &u64::MAX.to_be_bytes())?;
    let Some((key, row)) = last else { return Ok(0) };
    let (tile, digests) = (rows::version_in(&key)?, rows::digests_in(&row)?);
    let len = tile.checked_mul(TILE).and_then(|before| before.checked_add(digests.len() as u64));
    len.ok_or_else(|| LogError::Corrupt(format!("row {tile} of the event digests is beyond all versions")))
}

/// Call `visit` with the digests of all events from version `from` on, a multiple of [`TILE`], in order and with the version of the first
/// one. All calls but the last have a multiple of [`TILE`] digests.
fn each_chunk(
    store: &dyn Store,
    from: u64,
    mut visit: impl FnMut(u64, &[Digest]) -> Result<(), LogError>,
) -> Result<(), LogError> {
    let (mut chunk, mut first, mut expected) = (Vec::with_capacity(AT_A_TIME), from, from / TILE);
    store.scan(Table::Digests, &expected.to_be_bytes(), &mut |key, row| {
        let tile = rows::version_in(key)?;
        if tile != expected || chunk.len() % TILE_DIGESTS != 0 {
            return Err(LogError::Corrupt(format!(
                "expected row {expected} of the event digests after {} digests, found row {tile} after {}",
                expected * TILE,
                first + chunk.len() as u64,
            )));
        }
        expected += 1;
        if chunk.len() >= AT_A_TIME {
            visit(first, &chunk)?;
            first += chunk.len() as u64;
            chunk.clear();
        }
        chunk.extend(rows::digests_in(row)?);
        Ok(ControlFlow::Continue(()))
    })?;
    if chunk.is_empty() { Ok(()) } else { visit(first, &chunk) }
}

/// Return the last stored root, which must be of the last of `len` events; `None` if there are none.
fn last_root(store: &dyn Store, len: u64) -> Result<Option<Digest>, LogError> {
    let found = store.last_in(Table::Roots, &0_u64.to_be_bytes(), &u64::MAX.to_be_bytes())?;
    let ends = found.as_ref().map(|(key, _)| rows::version_in(key)).transpose()?;
    match (ends, found) {
        (None, _) if len == 0 => Ok(None),
        (Some(version), Some((_, root))) if version.checked_add(1) == Some(len) => rows::root_in(&root).map(Some),
        _ => {
            let end = ends.map_or_else(|| "has no root".to_owned(), |end| format!("its last root is of version {end}"));
            Err(LogError::Corrupt(format!("it holds {len} events, but {end}")))
        }
    }
}

/// Key of the row that holds the checksum of the tree image.
const IMAGE_KEY: &[u8] = b"image";

/// Return the checksum of the image that the log was written with.
///
/// # Errors
///
/// [`LogError::Corrupt`] if its row is malformed; [`LogError::Store`] if it cannot be read.
fn image_sum(store: &dyn Store) -> Result<Option<Sum>, LogError> {
    let Some(row) = store.get(Table::Applied, IMAGE_KEY)? else { return Ok(None) };
    let malformed = |_| LogError::Corrupt(format!("the checksum of the tree image has {} bytes", row.len()));
    row.as_slice().try_into().map(Some).map_err(malformed)
}

/// Add the row with the checksum of the tree image.
pub fn put_image_sum(batch: &mut WriteBatch, sum: &Sum) {
    batch.put(Table::Applied, IMAGE_KEY, sum.as_slice());
}
