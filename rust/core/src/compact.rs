//! Snapshots and proofs in their compact byte form (FORMATS.md, "Compact proofs").
//!
//! Every value has exactly one encoding: positions are not written, since they follow from the versions and the key, and the hash of
//! an empty subtree is a single zero bit.

use crate::hash::{DIGEST_BYTES, Digest, HYPER_LEVELS, hyper_default};
use crate::proof::{
    AbsenceProof, IncrementalProof, LaterOccurrence, Malformed, MembershipProof, Neighbour, Snapshot,
    incremental_positions, membership_positions, require_later, require_order,
};

/// Version of the compact form: the first byte of every encoding.
const FORMAT: u8 = 2;
const KIND_SNAPSHOT: u8 = 0;
const KIND_MEMBERSHIP: u8 = 1;
const KIND_ABSENCE: u8 = 2;
const KIND_INCREMENTAL: u8 = 3;
pub(crate) const KIND_BULK: u8 = 4;

impl MembershipProof {
    /// Return the compact form.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = header(KIND_MEMBERSHIP);
        out.extend(self.key_digest.as_bytes());
        for version in [self.current_version, self.query_version, self.actual_version, self.latest_version()] {
            out.extend(version.to_be_bytes());
        }
        put_hyper_path(&mut out, &self.hyper_path);
        put_digests(&mut out, &self.history_path);
        if let Some(later) = &self.later {
            put_digests(&mut out, &later.history_path);
        }
        out
    }

    /// Return the proof in `bytes`.
    ///
    /// # Errors
    ///
    /// [`Malformed`] unless `bytes` are exactly what [`Self::to_bytes`] returns.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut input = Input::of_kind(bytes, KIND_MEMBERSHIP)?;
        let key_digest = input.digest()?;
        let (current_version, query_version) = (input.version()?, input.version()?);
        let (actual_version, latest_version) = (input.version()?, input.version()?);
        require_order(&[actual_version, query_version, current_version])?;
        let hyper_path = input.hyper_path()?;
        let history_path = input.digests(membership_positions(actual_version, query_version).len())?;
        let later = if latest_version == actual_version {
            None
        } else {
            require_later(latest_version, query_version, current_version)?;
            let history_path = input.digests(membership_positions(latest_version, current_version).len())?;
            Some(LaterOccurrence { version: latest_version, history_path })
        };
        input.finish()?;
        let proof =
            Self { key_digest, current_version, query_version, actual_version, hyper_path, history_path, later };
        proof.check_shape()?;
        Ok(proof)
    }
}

impl AbsenceProof {
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
    /// [`Malformed`] unless `bytes` are exactly what [`Self::to_bytes`] returns.
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
    /// [`Malformed`] unless `bytes` are exactly what [`Self::to_bytes`] returns.
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
    /// [`Malformed`] unless `bytes` are exactly what [`Self::to_bytes`] returns.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut input = Input::of_kind(bytes, KIND_SNAPSHOT)?;
        let (event_digest, history_digest, hyper_digest) = (input.digest()?, input.digest()?, input.digest()?);
        let version = input.version()?;
        input.finish()?;
        Ok(Self { event_digest, history_digest, hyper_digest, version })
    }
}

pub(crate) fn header(kind: u8) -> Vec<u8> {
    let mut out = Vec::with_capacity(2048);
    out.extend([FORMAT, kind]);
    out
}

pub(crate) fn put_digests(out: &mut Vec<u8>, digests: &[Digest]) {
    for digest in digests {
        out.extend(digest.as_bytes());
    }
}

/// Write the length, then one bit per hash, set if it is not the hash of an empty subtree, then the hashes whose bit is set.
fn put_hyper_path(out: &mut Vec<u8>, path: &[Digest]) {
    #[expect(clippy::expect_used, reason = "a longer path does not pass `check_shape`, and no log creates one")]
    let length = u16::try_from(path.len()).expect("a hyper path has at most 256 hashes");
    out.extend(length.to_be_bytes());
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

/// The unread rest of a compact form. Every read consumes bytes from the front, and fails if there are too few.
pub(crate) struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub(crate) const fn of(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn of_kind(bytes: &'a [u8], kind: u8) -> Result<Self, Malformed> {
        match bytes {
            [FORMAT, found, rest @ ..] if *found == kind => Ok(Self(rest)),
            [FORMAT, found, ..] => Err(Malformed::because(format!("expected a proof of kind {kind}, found {found}"))),
            [found, ..] => Err(Malformed::because(format!("expected format {FORMAT}, found {found}"))),
            [] => Err(Malformed::because("expected a proof, found nothing")),
        }
    }

    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let found = self.0.len();
        let cut = || Malformed::because(format!("expected {count} more bytes, found {found}"));
        let (taken, rest) = self.0.split_at_checked(count).ok_or_else(cut)?;
        self.0 = rest;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.take(N)?.try_into().map_err(|_| Malformed::because("a field is cut off"))
    }

    pub(crate) fn byte(&mut self) -> Result<u8, Malformed> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn version(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_be_bytes)
    }

    pub(crate) fn digest(&mut self) -> Result<Digest, Malformed> {
        self.array().map(Digest::new)
    }

    pub(crate) fn digests(&mut self, count: usize) -> Result<Vec<Digest>, Malformed> {
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
                return Err(Malformed::because("the hash of an empty subtree must not be written out"));
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

    pub(crate) fn finish(self) -> Result<(), Malformed> {
        match self.0.len() {
            0 => Ok(()),
            extra => Err(Malformed::because(format!("{extra} bytes follow the end of the proof"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            hyper_path: hyper_path.clone(),
            history_path: history_path[..1].to_vec(),
            later: Some(LaterOccurrence {
                version: 7,
                history_path: (0..membership_positions(7, 9).len()).map(|_| digest(3)).collect(),
            }),
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
