//! The keys below one node of the last flat level, in a few buckets. The hash of each bucket is kept, so inserting a key costs the hashes of
//! its own bucket, and those that join the buckets.

use super::hashing::{AtOnce, Hashing};
use super::slot::{KNOWN_BITS, Slot, part_of};
use super::trie::Trie;
use super::{DigestAt, Entry, PathEnd, lone_hash};
use crate::error::LogError;
use crate::hash::Digest;
use crate::integers::usize_from;
use crate::proof::SHORTCUT_DEPTH;

/// Number of levels from the last flat level to the buckets. The nodes between them are not kept: one level more would save memory, and
/// double the hashes that join the buckets.
pub(super) const GROUP_LEVELS: u16 = 3;

/// Number of buckets of a group.
const BUCKETS: usize = 1 << GROUP_LEVELS;

/// Number of keys that a bucket may hold. There are at most ten on average: chance leads here only if a first batch is much larger than the
/// tree, until that has grown.
const MAX_BUCKET: usize = 32;

/// The keys below one flat node.
#[expect(clippy::large_enum_variant, reason = "nearly all groups are the large variant")]
#[derive(Debug)]
pub(super) enum Group {
    /// Keys that part within the bits of their slots.
    Buckets {
        /// The hash of each bucket.
        hashes: [Digest; BUCKETS],
        /// The slots of all buckets, in the order of their keys.
        slots: Vec<Slot>,
    },
    /// Keys that do not, or of which too many are in one bucket.
    Trie(Trie),
}

/// A group, with the numbers or hashes that a [`Hashing`] gave for its buckets.
pub(super) enum Draft<H> {
    Buckets { hashes: [H; BUCKETS], slots: Vec<Slot> },
    Trie(Trie),
}

/// A draft, and the hash of the flat node above it.
type Drafted<H> = (Draft<<H as Hashing>::Hash>, <H as Hashing>::Hash);

/// Where a group is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    /// Depth of the flat node above it, at least 8.
    depth: u16,
    /// The first byte of all keys below that node.
    first: u8,
}

impl<H: Copy> Draft<H> {
    /// Return the number of keys.
    pub(super) fn len(&self) -> u64 {
        match self {
            Self::Buckets { slots, .. } => slots.len() as u64,
            Self::Trie(trie) => trie.entries().len() as u64,
        }
    }

    /// Return the group with the hashes that `hash_of` gives.
    pub(super) fn finish(self, hash_of: impl Fn(H) -> Digest) -> Group {
        match self {
            Self::Buckets { hashes, slots } => Group::Buckets { hashes: hashes.map(hash_of), slots },
            Self::Trie(trie) => Group::Trie(trie),
        }
    }
}

impl Place {
    /// Return the place below the flat node `index` at `depth`, which is at least 8.
    #[expect(clippy::cast_possible_truncation, reason = "the bit above the first byte is that of every index")]
    pub(super) const fn new(index: usize, depth: u16) -> Self {
        Self { depth, first: (index >> (depth - 8)) as u8 }
    }

    /// Return the number of the bucket of a part of a key.
    fn bucket(self, part: u64) -> usize {
        usize_from(part >> (KNOWN_BITS - self.depth - GROUP_LEVELS)) % BUCKETS
    }

    /// Return the slots of each bucket, or `None` if they cannot be in buckets: if two have the same part of a key, or a bucket has too many.
    fn buckets(self, slots: &[Slot]) -> Option<[&[Slot]; BUCKETS]> {
        if !slots.is_sorted_by(|a, b| a.part() < b.part()) {
            return None;
        }
        let mut rest = slots;
        let buckets = std::array::from_fn(|bucket| {
            let count = rest.iter().take_while(|slot| self.bucket(slot.part()) == bucket).count();
            let (own, others) = rest.split_at(count);
            rest = others;
            own
        });
        buckets.iter().all(|bucket: &&[Slot]| bucket.len() <= MAX_BUCKET).then_some(buckets)
    }
}

impl Group {
    /// Return a group without keys below a flat node at `depth`.
    pub(super) fn empty(depth: u16) -> Self {
        Self::Buckets { hashes: [AtOnce::empty(depth + GROUP_LEVELS); BUCKETS], slots: Vec::new() }
    }

    /// Take the place of this group, but not of its memory: a thread that plans has memory of its own, and what it leaves there in small parts
    /// would never be whole again.
    pub(super) fn become_as(&mut self, new: Self) {
        match (self, new) {
            (Self::Buckets { hashes, slots }, Self::Buckets { hashes: new_hashes, slots: new_slots }) => {
                *hashes = new_hashes;
                slots.clear();
                slots.reserve_exact(room_for(new_slots.len()));
                slots.extend_from_slice(&new_slots);
            }
            (group, new) => *group = new.settled(),
        }
    }

    /// Return the group in memory that this thread allocates, without room: so the halves of a group fit where it was.
    pub(super) fn settled(self) -> Self {
        match self {
            Self::Buckets { hashes, slots } => Self::Buckets { hashes, slots: slots.as_slice().to_vec() },
            Self::Trie(_) => self,
        }
    }

    /// Return the group of `slots`, which may contain a slot twice, but no key with two versions.
    ///
    /// # Errors
    ///
    /// Errors of `digest_at`; [`LogError::Corrupt`] if a key has two versions.
    pub(super) fn of<H: Hashing>(
        mut slots: Vec<Slot>,
        place: Place,
        digest_at: &DigestAt<'_>,
        hashing: &mut H,
    ) -> Result<Drafted<H>, LogError> {
        slots.sort_unstable();
        slots.dedup();
        let slots = match place.draft(slots, hashing) {
            Ok(drafted) => return Ok(drafted),
            Err(slots) => slots,
        };
        let mut entries = entries_of(&slots, digest_at)?;
        entries.sort_unstable();
        if let Some([a, b]) = entries.windows(2).find(|pair| matches!(pair, [a, b] if a.key == b.key)) {
            let both = format!("versions {} and {}", a.version, b.version);
            return Err(LogError::Corrupt(format!("{both} are of the same event, but neither is stored as hidden")));
        }
        let (trie, hash) = Trie::Empty.with(&entries, place.depth, &mut Vec::new());
        Ok((Draft::Trie(trie), hashing.known(hash)))
    }

    /// Return the group with `entries` inserted, sorted by key, each key once. Keys that were there move to their new version; with the old
    /// one they are added to `replaced`.
    ///
    /// # Errors
    ///
    /// Errors of `digest_at`.
    pub(super) fn with<H: Hashing>(
        &self,
        entries: &[Entry],
        place: Place,
        digest_at: &DigestAt<'_>,
        hashing: &mut H,
        replaced: &mut Vec<Entry>,
    ) -> Result<Drafted<H>, LogError> {
        let (trie, hash) = match self {
            Self::Trie(trie) => trie.with(entries, place.depth, replaced),
            Self::Buckets { hashes, slots } => {
                let before = replaced.len();
                if let Some(slots) = merged(slots, entries, digest_at, replaced)?
                    && let Some(drafted) = place.draft_with(hashes, slots, entries, hashing)
                {
                    return Ok(drafted);
                }
                replaced.truncate(before);
                Trie::of(&entries_of(slots, digest_at)?, place.depth).with(entries, place.depth, replaced)
            }
        };
        Ok((Draft::Trie(trie), hashing.known(hash)))
    }

    /// Return the two groups below the children of the flat node above this one.
    pub(super) fn halves<H: Hashing>(&self, place: Place, hashing: &mut H) -> [Drafted<H>; 2] {
        let half = Place { depth: place.depth + 1, ..place };
        match self {
            Self::Buckets { slots, .. } => {
                let (lefts, rights) = split_slots(slots, place.depth);
                [half.half(lefts, hashing), half.half(rights, hashing)]
            }
            Self::Trie(trie) => {
                let (left, right) = trie.children(place.depth);
                [half.half_of_trie(left, hashing), half.half_of_trie(right, hashing)]
            }
        }
    }

    /// Read all of the group but its slots; return anything that depends on that.
    pub(super) fn fetch(&self) -> u64 {
        match self {
            Self::Trie(_) => 0,
            Self::Buckets { hashes, slots } => {
                hashes.iter().fold(slots.len() as u64, |read, hash| read ^ hash.prefix64())
            }
        }
    }

    /// Read the slots; return anything that depends on them.
    pub(super) fn fetch_slots(&self) -> u64 {
        match self {
            Self::Trie(_) => 0,
            Self::Buckets { slots, .. } => slots.iter().step_by(6).fold(0, |read, slot| read ^ slot.part()),
        }
    }

    /// Return the version of `key`, or of the only key that shares its first 48 bits; `None` if there is none.
    pub(super) fn find(&self, key: &Digest) -> Option<u64> {
        let slots = match self {
            Self::Trie(trie) => return trie.find(key),
            Self::Buckets { slots, .. } => slots,
        };
        let part = part_of(key);
        slots
            .get(slots.partition_point(|slot| slot.part() < part))
            .filter(|slot| slot.part() == part)
            .map(Slot::version)
    }

    /// Add the siblings on the path of `key` below the flat node to `siblings`, from the top down; return where the path ends.
    pub(super) fn path(&self, key: &Digest, place: Place, siblings: &mut Vec<Digest>) -> PathEnd {
        let (mut hashes, mut slots) = match self {
            Self::Trie(trie) => return trie.path(key, place.depth, siblings),
            Self::Buckets { hashes, slots } => (hashes.as_slice(), slots.as_slice()),
        };
        for depth in place.depth.. {
            match slots {
                [] => break,
                [only] if depth >= SHORTCUT_DEPTH => return PathEnd::Leaf { version: only.version() },
                _ => {}
            }
            let (left, right) = (halves(hashes), split_slots(slots, depth));
            let (left, right) = ((left.0, right.0), (left.1, right.1));
            let (own, (hashes_beside, slots_beside)) = if key.bit(depth) { (right, left) } else { (left, right) };
            siblings.push(subtree(hashes_beside, slots_beside, place.first, depth + 1, &mut AtOnce));
            (hashes, slots) = own;
        }
        PathEnd::Empty
    }

    /// Add the slots of all keys to `slots`, in the order of the keys.
    pub(super) fn collect(&self, slots: &mut Vec<Slot>) {
        match self {
            Self::Buckets { slots: own, .. } => slots.extend_from_slice(own),
            Self::Trie(trie) => slots.extend(trie.entries().iter().map(slot_of)),
        }
    }
}

impl Place {
    /// Return the group of `slots`, sorted, or the slots if they cannot be in buckets.
    fn draft<H: Hashing>(self, slots: Vec<Slot>, hashing: &mut H) -> Result<Drafted<H>, Vec<Slot>> {
        let Some(buckets) = self.buckets(&slots) else { return Err(slots) };
        let depth = self.depth + GROUP_LEVELS;
        let hashes = buckets.map(|slots| subtree(&[], slots, self.first, depth, hashing));
        let root = subtree(&hashes, &slots, self.first, self.depth, hashing);
        Ok((Draft::Buckets { hashes, slots }, root))
    }

    /// Return the group of `slots`, sorted, whose buckets had `old` hashes before `entries` were inserted; `None` if they cannot be in buckets.
    fn draft_with<H: Hashing>(
        self,
        old: &[Digest; BUCKETS],
        slots: Vec<Slot>,
        entries: &[Entry],
        hashing: &mut H,
    ) -> Option<Drafted<H>> {
        let buckets = self.buckets(&slots)?;
        let changed = entries.iter().fold(0_u8, |changed, entry| changed | 1 << self.bucket(part_of(&entry.key)));
        let depth = self.depth + GROUP_LEVELS;
        let mut hashes = old.map(|hash| hashing.known(hash));
        for (number, (hash, slots)) in hashes.iter_mut().zip(buckets).enumerate() {
            if changed >> number & 1 == 1 {
                *hash = subtree(&[], slots, self.first, depth, hashing);
            }
        }
        let root = subtree(&hashes, &slots, self.first, self.depth, hashing);
        Some((Draft::Buckets { hashes, slots }, root))
    }

    /// Return a group with half of the keys of one that had buckets.
    #[expect(clippy::panic, reason = "a key that is left out would lead to a wrong root")]
    fn half<H: Hashing>(self, slots: &[Slot], hashing: &mut H) -> Drafted<H> {
        let Ok(drafted) = self.draft(slots.to_vec(), hashing) else { panic!("half the keys of a bucket fit into one") };
        drafted
    }

    /// Return a group with half of the keys of a trie, in buckets if they fit.
    fn half_of_trie<H: Hashing>(self, trie: Trie, hashing: &mut H) -> Drafted<H> {
        let entries = trie.entries();
        if entries.len() <= BUCKETS * MAX_BUCKET
            && let Ok(drafted) = self.draft(entries.iter().map(slot_of).collect(), hashing)
        {
            return drafted;
        }
        let hash = hashing.known(trie.hash(self.depth));
        (Draft::Trie(trie), hash)
    }
}

/// Return how many slots a group with so many takes memory for. In few sizes, what one group gives back fits another.
pub(super) const fn room_for(slots: usize) -> usize {
    slots.next_multiple_of(8)
}

fn slot_of(entry: &Entry) -> Slot {
    Slot::new(&entry.key, entry.version)
}

/// Return sorted slots with those of `entries` inserted, and add what they replace to `replaced`; `None` if two keys have the same part.
fn merged(
    slots: &[Slot],
    entries: &[Entry],
    digest_at: &DigestAt<'_>,
    replaced: &mut Vec<Entry>,
) -> Result<Option<Vec<Slot>>, LogError> {
    let (mut merged, mut rest) = (Vec::with_capacity(slots.len() + entries.len()), slots);
    for entry in entries {
        let part = part_of(&entry.key);
        let (before, others) = rest.split_at(rest.partition_point(|slot| slot.part() < part));
        merged.extend_from_slice(before);
        rest = others;
        if let [old, others @ ..] = rest
            && old.part() == part
        {
            if digest_at(old.version())? != entry.key {
                return Ok(None);
            }
            replaced.push(Entry { version: old.version(), ..*entry });
            rest = others;
        }
        merged.push(slot_of(entry));
    }
    merged.extend_from_slice(rest);
    // Two new keys may have the same part, which the check of the buckets finds.
    Ok(Some(merged))
}

/// Return the keys of slots, from the log.
fn entries_of(slots: &[Slot], digest_at: &DigestAt<'_>) -> Result<Vec<Entry>, LogError> {
    let entry = |slot: &Slot| Ok(Entry { key: digest_at(slot.version())?, version: slot.version() });
    slots.iter().map(entry).collect()
}

/// Return the hash at `depth` of the subtree of `slots`, whose keys begin with `first`. `hashes` are those of the buckets below it: one if it
/// is a bucket, none if it is a part of one.
fn subtree<H: Hashing>(hashes: &[H::Hash], slots: &[Slot], first: u8, depth: u16, hashing: &mut H) -> H::Hash {
    match (slots, hashes) {
        ([], _) => H::empty(depth),
        // From there on, a key that is alone is a leaf, whatever is between it and its bucket.
        ([only], _) if hashes.is_empty() || depth >= SHORTCUT_DEPTH => {
            lone_hash(&only.key(first), only.version(), depth, hashing)
        }
        (_, [hash]) => *hash,
        ([some, ..], _) => {
            let ((left_hashes, right_hashes), (lefts, rights)) = (halves(hashes), split_slots(slots, depth));
            let left = subtree(left_hashes, lefts, first, depth + 1, hashing);
            let right = subtree(right_hashes, rights, first, depth + 1, hashing);
            hashing.inner(left, right, &some.key(first), depth)
        }
    }
}

/// Return the hashes of the buckets below each child of a node.
fn halves<T>(hashes: &[T]) -> (&[T], &[T]) {
    if hashes.len() > 1 { hashes.split_at(hashes.len() / 2) } else { (&[], &[]) }
}

/// Return the slots below each child of a node at `depth`.
fn split_slots(slots: &[Slot], depth: u16) -> (&[Slot], &[Slot]) {
    slots.split_at(slots.partition_point(|slot| !slot.bit(depth)))
}
