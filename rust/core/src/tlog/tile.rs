//! Tiles and entry bundles: how the tree and its entries are published as files (C2SP tlog-tiles).
//!
//! Tile `n` of level `l` holds 256 hashes: hash `i` is that of the complete subtree over the leaves from `(256 n + i) * 256^l` on. So a
//! hash of level `l + 1` is the root of a full tile of level `l`. A tile that is not full is published with its width in its
//! name, and is a prefix of the full one. A bundle holds the entries whose hashes are in the tile of level 0 with the same number.

use std::fmt;
use std::str::FromStr;

use crate::hash::{DIGEST_BYTES, Digest};
use crate::integers::usize_from;
use crate::proof::Malformed;
use crate::tlog::merkle::{Subtrees, root_of};
use crate::tlog::text::{MAX_NUMBER, decimal, shown};

/// Number of hashes in a full tile, and of entries in a full bundle.
pub const FULL_WIDTH: u16 = 256;

/// The highest level that a path can name.
pub const MAX_LEVEL: u8 = 63;

/// Maximum length of an entry in a bundle, in bytes.
pub const MAX_ENTRY_BYTES: usize = 65_535;

/// Levels of the tree between two levels of tiles.
const TILE_LEVELS: u32 = 8;

/// What a path leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Content {
    /// Hashes of this level, 0 to [`MAX_LEVEL`].
    Hashes(u8),
    /// Entries.
    Entries,
}

/// The path of a tile or an entry bundle, below the prefix of its log: `tile/0/x001/067.p/5`, `tile/entries/005`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TilePath {
    content: Content,
    index: u64,
    width: u16,
}

impl TilePath {
    /// Return the path of tile or bundle `index` with `width` hashes or entries.
    ///
    /// # Errors
    ///
    /// [`Malformed`] unless the level is at most [`MAX_LEVEL`], the index at most [`MAX_NUMBER`], and the width 1 to 256.
    pub fn new(content: Content, index: u64, width: u16) -> Result<Self, Malformed> {
        let known = !matches!(content, Content::Hashes(level) if level > MAX_LEVEL);
        if !known || index > MAX_NUMBER || !(1..=FULL_WIDTH).contains(&width) {
            let expected = format!("a level up to {MAX_LEVEL}, and 1 to {FULL_WIDTH} hashes or entries");
            return Err(Malformed::because(format!("expected {expected}, found {content:?} {index} of {width}")));
        }
        Ok(Self { content, index, width })
    }

    /// Return what the path leads to.
    #[must_use]
    pub const fn content(&self) -> Content {
        self.content
    }

    /// Return the number of the tile in its level.
    #[must_use]
    pub const fn index(&self) -> u64 {
        self.index
    }

    /// Return how many hashes or entries the file holds, 1 to 256.
    #[must_use]
    pub const fn width(&self) -> u16 {
        self.width
    }

    /// Return the index of the last entry below this tile, which a tree must have to have the tile.
    #[must_use]
    pub fn last_entry(&self) -> u64 {
        let hashes = self.index.saturating_mul(u64::from(FULL_WIDTH)).saturating_add(u64::from(self.width));
        let below = 1_u64.checked_shl(TILE_LEVELS * u32::from(self.level())).unwrap_or(u64::MAX);
        hashes.saturating_mul(below) - 1
    }

    /// Return whether a tree of `size` leaves has this tile: all of its hashes, or entries, exist.
    #[must_use]
    pub fn is_in(&self, size: u64) -> bool {
        self.width <= width_in(size, self.level(), self.index)
    }

    /// Return the level of the hashes; entries are below level 0, one for each of its hashes.
    const fn level(&self) -> u8 {
        match self.content {
            Content::Hashes(level) => level,
            Content::Entries => 0,
        }
    }
}

impl fmt::Display for TilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.content {
            Content::Hashes(level) => write!(f, "tile/{level}/")?,
            Content::Entries => f.write_str("tile/entries/")?,
        }
        let digits = self.index.to_string();
        let digits = format!("{digits:0>width$}", width = digits.len().next_multiple_of(3));
        for (i, digit) in digits.chars().enumerate() {
            if i % 3 == 0 {
                f.write_str(if i == 0 { "" } else { "/" })?;
                f.write_str(if i + 3 < digits.len() { "x" } else { "" })?;
            }
            write!(f, "{digit}")?;
        }
        if self.width == FULL_WIDTH { Ok(()) } else { write!(f, ".p/{}", self.width) }
    }
}

impl FromStr for TilePath {
    type Err = Malformed;

    /// Return the path that `text` spells.
    ///
    /// # Errors
    ///
    /// [`Malformed`] unless `text` is exactly what [`ToString`] gives for a path.
    fn from_str(text: &str) -> Result<Self, Malformed> {
        read_path(text).ok_or_else(|| {
            Malformed::because(format!("expected a path such as tile/0/x001/067.p/5, found {}", shown(text)))
        })
    }
}

fn read_path(text: &str) -> Option<TilePath> {
    let (content, rest) = text.strip_prefix("tile/")?.split_once('/')?;
    let content = match content {
        "entries" => Content::Entries,
        level => Content::Hashes(u8::try_from(decimal(level).ok()?).ok()?),
    };
    let (index, width) = match rest.split_once(".p/") {
        None => (rest, FULL_WIDTH),
        Some((index, width)) => (index, u16::try_from(decimal(width).ok()?).ok().filter(|width| *width < FULL_WIDTH)?),
    };
    let path = TilePath::new(content, read_index(index)?, width).ok()?;
    // A path has one spelling: this leaves no room for a group of zeros in front.
    (path.to_string() == text).then_some(path)
}

/// Return the number written in groups of three digits, `x001/067`; `None` if it is anything else.
fn read_index(text: &str) -> Option<u64> {
    let mut index = 0_u64;
    for group in text.split('/') {
        let digits = group.strip_prefix('x').unwrap_or(group);
        if digits.len() != 3 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        index = index.checked_mul(1000)?.checked_add(digits.parse().ok()?)?;
    }
    Some(index)
}

/// Return how many hashes tile `index` of level `level` holds in a tree of `size` leaves, 0 to 256.
#[must_use]
pub fn width_in(size: u64, level: u8, index: u64) -> u16 {
    let hashes = size.checked_shr(TILE_LEVELS * u32::from(level)).unwrap_or(0);
    let before = index.saturating_mul(u64::from(FULL_WIDTH));
    u16::try_from(hashes.saturating_sub(before).min(u64::from(FULL_WIDTH))).unwrap_or(FULL_WIDTH)
}

/// The tiles of one level that a size implies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Row {
    level: u8,
    full: u64,
    partial: u16,
}

impl Row {
    /// Return the level.
    #[must_use]
    pub const fn level(self) -> u8 {
        self.level
    }

    /// Return the number of full tiles.
    #[must_use]
    pub const fn full(self) -> u64 {
        self.full
    }

    /// Return the width of the tile after them, 0 to 255; 0 means that there is no such tile.
    #[must_use]
    pub const fn partial(self) -> u16 {
        self.partial
    }

    /// Return the paths of these tiles, of one after the other from number `from` on.
    pub fn tiles_from(self, from: u64) -> impl Iterator<Item = TilePath> {
        let content = Content::Hashes(self.level);
        let full = (from..self.full).map(move |index| TilePath { content, index, width: FULL_WIDTH });
        let has_partial = self.partial > 0 && from <= self.full;
        full.chain(has_partial.then_some(TilePath { content, index: self.full, width: self.partial }))
    }
}

/// Return the tiles that a tree of `size` leaves consists of, level by level from 0 up to the last with a tile.
#[must_use]
pub fn rows_of(size: u64) -> Vec<Row> {
    let hashes = |level: u8| size.checked_shr(TILE_LEVELS * u32::from(level)).unwrap_or(0);
    let row = |level| {
        let partial = u16::try_from(hashes(level) % u64::from(FULL_WIDTH)).unwrap_or(0);
        Row { level, full: hashes(level) / u64::from(FULL_WIDTH), partial }
    };
    (0..=MAX_LEVEL).take_while(|level| hashes(*level) > 0).map(row).collect()
}

/// Return the bytes of a tile with `hashes`.
#[must_use]
pub fn tile_to_bytes(hashes: &[Digest]) -> Vec<u8> {
    hashes.iter().flat_map(Digest::as_bytes).copied().collect()
}

/// Return the hashes of a tile with `width` of them.
///
/// # Errors
///
/// [`Malformed`] unless `width` is 1 to 256, and `bytes` has exactly that many hashes. It is never cut to fit.
pub fn tile_from_bytes(bytes: &[u8], width: u16) -> Result<Vec<Digest>, Malformed> {
    require_width(width.into())?;
    let expected = usize::from(width) * DIGEST_BYTES;
    if bytes.len() != expected {
        return Err(Malformed::because(format!("expected a tile of {expected} bytes, found {}", bytes.len())));
    }
    Ok(bytes.as_chunks().0.iter().copied().map(Digest::new).collect())
}

/// Return the bytes of a bundle with `entries`: the length of each in two bytes, then the entry.
///
/// # Errors
///
/// [`Malformed`] unless there are 1 to 256 entries of at most [`MAX_ENTRY_BYTES`].
pub fn bundle_to_bytes<E: AsRef<[u8]>>(entries: &[E]) -> Result<Vec<u8>, Malformed> {
    require_width(entries.len())?;
    let mut out = Vec::new();
    for entry in entries {
        let entry = entry.as_ref();
        let long = |_| {
            Malformed::because(format!("expected an entry of at most {MAX_ENTRY_BYTES} bytes, found {}", entry.len()))
        };
        out.extend(u16::try_from(entry.len()).map_err(long)?.to_be_bytes());
        out.extend(entry);
    }
    Ok(out)
}

/// Return the entries of a bundle with `width` of them.
///
/// # Errors
///
/// [`Malformed`] unless `bytes` is exactly what [`bundle_to_bytes`] returns for that many entries.
pub fn bundle_from_bytes(bytes: &[u8], width: u16) -> Result<Vec<&[u8]>, Malformed> {
    require_width(width.into())?;
    let mut rest = bytes;
    let mut entries = Vec::with_capacity(usize::from(width));
    for i in 0..width {
        let cut =
            || Malformed::because(format!("expected {width} entries in the bundle, found the end inside entry {i}"));
        let (length, after) = rest.split_first_chunk().ok_or_else(cut)?;
        let (entry, after) = after.split_at_checked(usize::from(u16::from_be_bytes(*length))).ok_or_else(cut)?;
        entries.push(entry);
        rest = after;
    }
    match rest.len() {
        0 => Ok(entries),
        extra => {
            Err(Malformed::because(format!("expected {width} entries in the bundle, found {extra} bytes after them")))
        }
    }
}

/// Refuse a number of hashes or entries that no tile or bundle has.
fn require_width(width: usize) -> Result<(), Malformed> {
    if (1..=usize::from(FULL_WIDTH)).contains(&width) {
        return Ok(());
    }
    Err(Malformed::because(format!("expected 1 to {FULL_WIDTH} hashes or entries, found {width}")))
}

/// Where tiles come from, such as a folder or a server.
pub trait Tiles {
    /// Why a tile could not be read.
    type Error: From<Malformed>;

    /// Return the first `width` hashes of tile `index` of level `level`, or more.
    ///
    /// # Errors
    ///
    /// Whatever the source fails with.
    fn tile(&self, level: u8, index: u64, width: u16) -> Result<Vec<Digest>, Self::Error>;
}

/// Tiles as the source of subtrees, from which all proofs can be made. The tiles are not verified.
///
/// A proof that verifies shows that the hashes in it are those of the tree, and says nothing about the other hashes of the tiles that were
/// read. Nor does the root of the tree: it is computed from the last tile of each level. To check a full tile, compare [`root_of`] its
/// hashes with its hash one level up.
#[derive(Debug, Clone, Copy)]
pub struct InTiles<T>(pub T);

impl<T: Tiles> Subtrees for InTiles<T> {
    type Error = T::Error;

    /// Return the hash of a subtree: that of the hashes of one tile that lie below it.
    fn subtree(&self, level: u32, index: u64) -> Result<Digest, T::Error> {
        let outside = || Malformed::because(format!("expected a subtree in a tile, found {index} of level {level}"));
        let count = 1_u64 << (level % TILE_LEVELS);
        let first = index.checked_mul(count).ok_or_else(outside)?;
        let start = first % u64::from(FULL_WIDTH);
        let width = u16::try_from(start + count).map_err(|_| outside())?;
        let tile_level = u8::try_from(level / TILE_LEVELS).map_err(|_| outside())?;
        let hashes = self.0.tile(tile_level, first / u64::from(FULL_WIDTH), width)?;
        let narrow = || Malformed::because(format!("expected a tile of {width} hashes, found {}", hashes.len()));
        let below = hashes.get(usize_from(start)..usize::from(width)).ok_or_else(narrow)?;
        Ok(root_of(below))
    }
}
