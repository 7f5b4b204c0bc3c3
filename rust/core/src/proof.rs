//! Snapshots and proofs as values that cannot have a wrong shape, and their compact byte form (FORMATS.md, "Compact proofs").
//!
//! A path holds hashes only: which node each belongs to follows from the versions and the key. So a path with a hash missing, one
//! too many, or one at a wrong place cannot be written down, and whoever decodes a proof from text that does name the places
//! ([`crate::json`]) must check them there.

use crate::hash::{DIGEST_BYTES, Digest, HYPER_LEVELS, hyper_default};
use crate::position::{HistoryPosition, HyperPosition, history_height};

/// Depth from which a hyper subtree with one key is a shortcut leaf; above it, paths are always spelled out.
pub const SHORTCUT_DEPTH: u16 = 24;

/// Version of the compact byte form, the first byte of each.
const FORMAT: u8 = 1;
const KIND_SNAPSHOT: u8 = 0;
const KIND_MEMBERSHIP: u8 = 1;
const KIND_ABSENCE: u8 = 2;
const KIND_INCREMENTAL: u8 = 3;

/// The text or the bytes are not a proof; says what was wanted and what was found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub String);

impl Malformed {
    /// Return the refusal with its reason.
    pub(crate) fn because(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }
}

/// What a client gets for an event it added: the event's digest and version, and the roots of both trees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Snapshot {
    /// Digest of the event.
    pub event_digest: Digest,
    /// Root of the history tree at `version`.
    pub history_digest: Digest,
    /// Root of the hyper tree after the commit batch that `version` belongs to.
    pub hyper_digest: Digest,
    /// Zero-based position of the event in the log.
    pub version: u64,
}

/// Proof that an event is in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MembershipProof {
    /// Digest of the event.
    pub key_digest: Digest,
    /// Last version of the log that answered; the hyper path leads to its root.
    pub current_version: u64,
    /// Version the history path leads to, at most `current_version`.
    pub query_version: u64,
    /// Version at which the event is shown to be: the one that the hyper tree shows or, if that comes after `query_version`, the latest
    /// occurrence at or below it. Of equal events in one request the tree shows the first.
    pub actual_version: u64,
    /// Version the hyper path shows: `actual_version`, or a later one than `query_version` if the event was added again. No history path
    /// shows the event to be there.
    pub latest_version: u64,
    /// Siblings from the root down, 24 to 256.
    pub hyper_path: Vec<Digest>,
    /// Siblings from the leaf up, those of [`membership_positions`].
    pub history_path: Vec<Digest>,
}

/// Proof that an event is not in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AbsenceProof {
    /// Digest of the event that is absent.
    pub key_digest: Digest,
    /// Last version of the log that answered; the hyper path leads to its root.
    pub current_version: u64,
    /// Version that was asked, at most `current_version`.
    pub query_version: u64,
    /// Siblings from the root down to the empty subtree or the neighbour's leaf, 1 to 256.
    pub hyper_path: Vec<Digest>,
    /// The other event whose shortcut leaf ends the path, or nothing if it ends at an empty subtree.
    pub neighbour: Option<Neighbour>,
}

/// The event that is in the place where an absent one would have to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neighbour {
    /// Digest of that event.
    pub key_digest: Digest,
    /// Its version, at most the proof's `current_version`.
    pub version: u64,
    /// Siblings from its leaf to the root at `current_version`, those of [`membership_positions`].
    pub history_path: Vec<Digest>,
}

/// Proof that the log at `end` extends the log at `start`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IncrementalProof {
    /// The earlier version.
    pub start: u64,
    /// The later version.
    pub end: u64,
    /// Hashes of [`incremental_positions`].
    pub audit_path: Vec<Digest>,
}

/// What a log answers when asked for an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The event is in the log.
    Member(MembershipProof),
    /// The event is not in the log.
    Absent(AbsenceProof),
}

/// Return the siblings of a membership path, leaf to root: those of the path from leaf `actual` to the root at `query` that
/// exist at `query`. At most 64; `actual <= query`.
#[must_use]
pub fn membership_positions(actual: u64, query: u64) -> Vec<HistoryPosition> {
    (0..history_height(query))
        .map(|height| HistoryPosition::above(actual, height).sibling())
        .filter(|sibling| sibling.index <= query)
        .collect()
}

/// Return the nodes of an incremental path, left to right: the leaves `start` and `end`, and whatever else of the tree at `end`
/// holds neither. At most 128; `start <= end`.
#[must_use]
pub fn incremental_positions(start: u64, end: u64) -> Vec<HistoryPosition> {
    fn visit(node: HistoryPosition, start: u64, end: u64, found: &mut Vec<HistoryPosition>) {
        if node.index > end {
            return;
        }
        match node.children() {
            Some((left, right)) if node.is_above(start) || node.is_above(end) => {
                visit(left, start, end, found);
                visit(right, start, end, found);
            }
            _ => found.push(node),
        }
    }
    let mut found = Vec::new();
    visit(HistoryPosition::root(end), start, end, &mut found);
    found
}

/// Return the siblings of a hyper path of `length` hashes, root down.
pub fn hyper_positions(key: &Digest, length: usize) -> impl Iterator<Item = HyperPosition> {
    (1..=HYPER_LEVELS).take(length).map(|depth| HyperPosition::sibling_on_path(key, depth))
}

impl MembershipProof {
    /// Check that the versions and the lengths of the paths fit together.
    ///
    /// # Errors
    ///
    /// [`Malformed`] unless `actual <= query <= current`, `latest` is `actual` or lies in `query + 1 ..= current`, and both
    /// paths have the length their versions demand.
    pub fn check_shape(&self) -> Result<(), Malformed> {
        let &Self { current_version, query_version, actual_version, latest_version, .. } = self;
        require_order(&[actual_version, query_version, current_version])?;
        if latest_version != actual_version && !(query_version < latest_version && latest_version <= current_version) {
            return Err(Malformed::because(format!(
                "latest version {latest_version} is neither {actual_version} nor in {query_version}..{current_version}"
            )));
        }
        require_hyper_length(&self.hyper_path, SHORTCUT_DEPTH)?;
        require_length(&self.history_path, membership_positions(actual_version, query_version).len())
    }

    /// Return the compact form.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = header(KIND_MEMBERSHIP);
        out.extend(self.key_digest.as_bytes());
        for version in [self.current_version, self.query_version, self.actual_version, self.latest_version] {
            out.extend(version.to_be_bytes());
        }
        put_hyper_path(&mut out, &self.hyper_path);
        put_digests(&mut out, &self.history_path);
        out
    }

    /// Return the proof in `bytes`.
    ///
    /// # Errors
    ///
    /// [`Malformed`] if `bytes` are anything but what [`Self::to_bytes`] gives.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut input = Input::of_kind(bytes, KIND_MEMBERSHIP)?;
        let key_digest = input.digest()?;
        let (current_version, query_version) = (input.version()?, input.version()?);
        let (actual_version, latest_version) = (input.version()?, input.version()?);
        require_order(&[actual_version, query_version, current_version])?;
        let hyper_path = input.hyper_path()?;
        let history_path = input.digests(membership_positions(actual_version, query_version).len())?;
        input.finish()?;
        let proof = Self {
            key_digest,
            current_version,
            query_version,
            actual_version,
            latest_version,
            hyper_path,
            history_path,
        };
        proof.check_shape()?;
        Ok(proof)
    }
}

impl AbsenceProof {
    /// Check that the versions and the lengths of the paths fit together.
    ///
    /// # Errors
    ///
    /// [`Malformed`] unless `query <= current` and the paths have the lengths their versions demand. A path that ends at a
    /// neighbour has at least 24 hashes, since no shortcut leaf is higher.
    pub fn check_shape(&self) -> Result<(), Malformed> {
        require_order(&[self.query_version, self.current_version])?;
        require_hyper_length(&self.hyper_path, if self.neighbour.is_some() { SHORTCUT_DEPTH } else { 1 })?;
        if let Some(neighbour) = &self.neighbour {
            require_order(&[neighbour.version, self.current_version])?;
            let expected = membership_positions(neighbour.version, self.current_version).len();
            require_length(&neighbour.history_path, expected)?;
        }
        Ok(())
    }

    /// Return the compact form.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = header(KIND_ABSENCE);
        out.extend(self.key_digest.as_bytes());
        out.extend(self.current_version.to_be_bytes());
        out.extend(self.query_version.to_be_bytes());
        put_hyper_path(&mut out, &self.hyper_path);
        out.push(u8::from(self.neighbour.is_some()));
        if let Some(neighbour) = &self.neighbour {
            out.extend(neighbour.key_digest.as_bytes());
            out.extend(neighbour.version.to_be_bytes());
            put_digests(&mut out, &neighbour.history_path);
        }
        out
    }

    /// Return the proof in `bytes`.
    ///
    /// # Errors
    ///
    /// [`Malformed`] if `bytes` are anything but what [`Self::to_bytes`] gives.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut input = Input::of_kind(bytes, KIND_ABSENCE)?;
        let key_digest = input.digest()?;
        let (current_version, query_version) = (input.version()?, input.version()?);
        let hyper_path = input.hyper_path()?;
        let neighbour = match input.byte()? {
            0 => None,
            1 => Some(input.neighbour(current_version)?),
            other => return Err(Malformed::because(format!("expected 0 or 1 neighbours, found {other}"))),
        };
        input.finish()?;
        let proof = Self { key_digest, current_version, query_version, hyper_path, neighbour };
        proof.check_shape()?;
        Ok(proof)
    }
}

impl IncrementalProof {
    /// Check that the path has the length its versions demand.
    ///
    /// # Errors
    ///
    /// [`Malformed`] unless `start <= end` and the path has exactly the hashes of [`incremental_positions`].
    pub fn check_shape(&self) -> Result<(), Malformed> {
        require_order(&[self.start, self.end])?;
        require_length(&self.audit_path, incremental_positions(self.start, self.end).len())
    }

    /// Return the compact form.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = header(KIND_INCREMENTAL);
        out.extend(self.start.to_be_bytes());
        out.extend(self.end.to_be_bytes());
        put_digests(&mut out, &self.audit_path);
        out
    }

    /// Return the proof in `bytes`.
    ///
    /// # Errors
    ///
    /// [`Malformed`] if `bytes` are anything but what [`Self::to_bytes`] gives.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut input = Input::of_kind(bytes, KIND_INCREMENTAL)?;
        let (start, end) = (input.version()?, input.version()?);
        require_order(&[start, end])?;
        let audit_path = input.digests(incremental_positions(start, end).len())?;
        input.finish()?;
        Ok(Self { start, end, audit_path })
    }
}

impl Snapshot {
    /// Return the compact form.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = header(KIND_SNAPSHOT);
        put_digests(&mut out, &[self.event_digest, self.history_digest, self.hyper_digest]);
        out.extend(self.version.to_be_bytes());
        out
    }

    /// Return the snapshot in `bytes`.
    ///
    /// # Errors
    ///
    /// [`Malformed`] if `bytes` are anything but what [`Self::to_bytes`] gives.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut input = Input::of_kind(bytes, KIND_SNAPSHOT)?;
        let (event_digest, history_digest, hyper_digest) = (input.digest()?, input.digest()?, input.digest()?);
        let version = input.version()?;
        input.finish()?;
        Ok(Self { event_digest, history_digest, hyper_digest, version })
    }
}

fn require_order(versions: &[u64]) -> Result<(), Malformed> {
    if versions.is_sorted() {
        return Ok(());
    }
    Err(Malformed::because(format!("expected versions in ascending order, found {versions:?}")))
}

fn require_length(path: &[Digest], expected: usize) -> Result<(), Malformed> {
    if path.len() == expected {
        return Ok(());
    }
    Err(Malformed::because(format!("expected a history path of {expected} hashes, found {}", path.len())))
}

fn require_hyper_length(path: &[Digest], shortest: u16) -> Result<(), Malformed> {
    if (usize::from(shortest)..=usize::from(HYPER_LEVELS)).contains(&path.len()) {
        return Ok(());
    }
    let found = path.len();
    Err(Malformed::because(format!("expected a hyper path of {shortest} to {HYPER_LEVELS} hashes, found {found}")))
}

fn header(kind: u8) -> Vec<u8> {
    let mut out = Vec::with_capacity(2048);
    out.extend([FORMAT, kind]);
    out
}

fn put_digests(out: &mut Vec<u8>, digests: &[Digest]) {
    for digest in digests {
        out.extend(digest.as_bytes());
    }
}

/// Write the length, a bit for each hash that is not that of an empty subtree, then those hashes.
fn put_hyper_path(out: &mut Vec<u8>, path: &[Digest]) {
    // The length is at most 256; a longer path cannot pass validation.
    out.extend(u16::try_from(path.len()).unwrap_or(u16::MAX).to_be_bytes());
    let present = |(height, digest): (u16, &Digest)| *digest != hyper_default(height);
    let heights = || (0..HYPER_LEVELS).rev();
    for (heights, digests) in heights().collect::<Vec<_>>().chunks(8).zip(path.chunks(8)) {
        let bits = heights.iter().copied().zip(digests).map(present);
        out.push(bits.enumerate().fold(0, |byte, (i, bit)| byte | u8::from(bit) << (7 - i)));
    }
    for (_, digest) in heights().zip(path).filter(|&pair| present(pair)) {
        out.extend(digest.as_bytes());
    }
}

/// What is left of a compact form; every read takes from the front and fails when there is not enough.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn of_kind(bytes: &'a [u8], kind: u8) -> Result<Self, Malformed> {
        match bytes {
            [FORMAT, found, rest @ ..] if *found == kind => Ok(Self(rest)),
            [FORMAT, found, ..] => Err(Malformed::because(format!("expected a proof of kind {kind}, found {found}"))),
            [found, ..] => Err(Malformed::because(format!("expected format {FORMAT}, found {found}"))),
            [] => Err(Malformed::because("expected a proof, found nothing")),
        }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let found = self.0.len();
        let cut = || Malformed::because(format!("expected {count} more bytes, found {found}"));
        let (taken, rest) = self.0.split_at_checked(count).ok_or_else(cut)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.take(N)?.try_into().map_err(|_| Malformed::because("a field is cut off"))
    }

    fn byte(&mut self) -> Result<u8, Malformed> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn version(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_be_bytes)
    }

    fn digest(&mut self) -> Result<Digest, Malformed> {
        self.array().map(Digest::new)
    }

    fn digests(&mut self, count: usize) -> Result<Vec<Digest>, Malformed> {
        let (chunks, _) = self.take(count * DIGEST_BYTES)?.as_chunks();
        Ok(chunks.iter().copied().map(Digest::new).collect())
    }

    fn hyper_path(&mut self) -> Result<Vec<Digest>, Malformed> {
        let length = u16::from_be_bytes(self.array()?);
        if length > HYPER_LEVELS {
            return Err(Malformed::because(format!("expected at most {HYPER_LEVELS} hyper hashes, found {length}")));
        }
        let bits = self.take(usize::from(length.div_ceil(8)))?;
        let is_set = |i: u16| bits.get(usize::from(i / 8)).is_some_and(|byte| byte & (0x80 >> (i % 8)) != 0);
        if (length..length.next_multiple_of(8)).any(is_set) {
            return Err(Malformed::because("a hash is marked beyond the end of the hyper path"));
        }
        let mut path = Vec::with_capacity(usize::from(length));
        for (i, height) in (0..length).zip((0..HYPER_LEVELS).rev()) {
            let default = hyper_default(height);
            let digest = if is_set(i) { self.digest()? } else { default };
            if is_set(i) && digest == default {
                return Err(Malformed::because("an empty subtree is written out"));
            }
            path.push(digest);
        }
        Ok(path)
    }

    fn neighbour(&mut self, current_version: u64) -> Result<Neighbour, Malformed> {
        let (key_digest, version) = (self.digest()?, self.version()?);
        require_order(&[version, current_version])?;
        let history_path = self.digests(membership_positions(version, current_version).len())?;
        Ok(Neighbour { key_digest, version, history_path })
    }

    fn finish(self) -> Result<(), Malformed> {
        match self.0.len() {
            0 => Ok(()),
            extra => Err(Malformed::because(format!("{extra} bytes follow the end of the proof"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(positions: &[HistoryPosition]) -> Vec<String> {
        positions.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn membership_paths_hold_the_siblings_that_exist() {
        assert_eq!(texts(&membership_positions(0, 0)), Vec::<String>::new());
        assert_eq!(texts(&membership_positions(0, 3)), ["1|0", "2|1"]);
        assert_eq!(texts(&membership_positions(2, 2)), ["0|1"]);
        assert_eq!(texts(&membership_positions(4, 9)), ["5|0", "6|1", "0|2", "8|3"]);
        assert_eq!(membership_positions(0, u64::MAX).len(), 64);
    }

    #[test]
    fn incremental_paths_hold_both_leaves_and_the_rest_whole() {
        assert_eq!(texts(&incremental_positions(0, 3)), ["0|0", "1|0", "2|0", "3|0"]);
        assert_eq!(texts(&incremental_positions(2, 8)), ["0|1", "2|0", "3|0", "4|2", "8|0"]);
        assert!(incremental_positions(u64::MAX / 3, u64::MAX).len() <= 128);
    }

    #[test]
    fn compact_forms_come_back_as_they_were() {
        let digest = |i: u8| Digest::of_event(&[i]);
        let hyper_path: Vec<_> =
            (0..30).zip((0..=255).rev()).map(|(i, h)| if i % 3 == 0 { hyper_default(h) } else { digest(i) }).collect();
        let history_path: Vec<_> = (0..3).map(digest).collect();
        let member = MembershipProof {
            key_digest: digest(1),
            current_version: 9,
            query_version: 4,
            actual_version: 4,
            latest_version: 7,
            hyper_path: hyper_path.clone(),
            history_path: history_path[..1].to_vec(),
        };
        assert_eq!(MembershipProof::from_bytes(&member.to_bytes()), Ok(member));
        let neighbour = Neighbour { key_digest: digest(2), version: 4, history_path };
        let neighbour =
            Neighbour { history_path: [neighbour.history_path.clone(), vec![digest(9)]].concat(), ..neighbour };
        let absent = AbsenceProof {
            key_digest: digest(1),
            current_version: 9,
            query_version: 4,
            hyper_path,
            neighbour: Some(neighbour),
        };
        assert_eq!(AbsenceProof::from_bytes(&absent.to_bytes()), Ok(absent));
    }
}
