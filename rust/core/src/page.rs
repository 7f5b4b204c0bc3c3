//! Pages: how one replica sends its log to another that lags behind.
//!
//! A log only grows, so a replica that lags needs only what comes after its last event. After each page it is in the same state as if
//! it had applied the entries one by one. A transfer can stop anywhere and resume from there.

use crate::acts::{self, Act, ChainEnd};
use crate::applied::{self, Members};
use crate::bytes::Reader;
use crate::error::LogError;
use crate::hash::{DIGEST_BYTES, Digest};
use crate::hyper::Entry;
use crate::log::{Landing, Log, Progress};
use crate::log_id::LogId;
use crate::rows::{self, Rows};
use crate::store::{Table, WriteBatch};
use crate::trees::{NewEvents, RootsOf, shown_and_hidden};

/// Why a page could not be created or installed. Only [`Self::Log`] means that this log has failed.
#[derive(Debug, thiserror::Error)]
pub enum PageError {
    /// Bytes from another replica are not a page or an extent.
    #[error("the bytes are not {0}")]
    Malformed(&'static str),
    /// A page contradicts itself: it was damaged in transit, or the log that it was read from is wrong.
    #[error("the page from version {from} contradicts itself: {reason}")]
    Inconsistent {
        /// The first version of the page.
        from: u64,
        /// The contradiction.
        reason: String,
    },
    /// The other replica's log, or a page of it, does not continue this log. Either log may be wrong, or this one may simply have
    /// grown since the page was requested: this error does not distinguish these cases.
    #[error("the logs of the two replicas differ within their first {len} events")]
    Diverged {
        /// Number of events that were expected to be equal.
        len: u64,
    },
    /// This replica's own log failed.
    #[error(transparent)]
    Log(#[from] LogError),
}

/// The length of a log and the roots at that length: enough to check whether another log continues it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Extent {
    /// Number of events.
    pub len: u64,
    /// History root of the last version; all zeros if there is no event.
    pub history_digest: Digest,
    /// Hyper root of the last version; all zeros if there is no event.
    pub hyper_digest: Digest,
}

/// What a commit batch leaves in the log besides its events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batch {
    /// Its last version.
    pub last: u64,
    /// The hyper root after the batch.
    pub hyper_digest: Digest,
    /// Its log id; the default if the batch was added before the log was replicated.
    pub log_id: LogId,
}

/// One or more whole commit batches of a log, and the memberships and acts decided between them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The log that this page continues.
    pub start: Extent,
    /// The events, from version `start.len` on.
    pub digests: Vec<Digest>,
    /// The batches that the events were added in, in order.
    pub batches: Vec<Batch>,
    /// Versions in the page that the hyper tree never showed, in ascending order.
    pub repeats: Vec<u64>,
    /// The memberships, in order.
    pub members: Vec<Members>,
    /// Acts, in order.
    pub acts: Vec<Act>,
    /// Where the chain of acts ends after them.
    pub acts_end: ChainEnd,
    /// The last applied entry of the replicated log once the page is installed.
    pub end: LogId,
    /// The history root of the last event.
    pub history_digest: Digest,
}

impl Log {
    /// Return the extent of the log's first `len` events.
    ///
    /// # Errors
    ///
    /// Same as [`Self::snapshot`].
    pub fn extent_at(&self, len: u64) -> Result<Extent, LogError> {
        let Some(last) = len.checked_sub(1) else { return Ok(Extent::default()) };
        let snapshot = self.snapshot(last)?;
        Ok(Extent { len, history_digest: snapshot.history_digest, hyper_digest: snapshot.hyper_digest })
    }

    /// Return the part of this log that follows `start`: whole batches with at least `events` events in total, or all batches if there
    /// are fewer, and the memberships and acts after the entry at `after`. If there are many acts, the page ends after some of them.
    ///
    /// # Errors
    ///
    /// [`PageError::Diverged`] if this log does not continue `start`; [`PageError::Log`] if its rows cannot be read.
    pub fn page(&self, start: Extent, after: LogId, events: u64) -> Result<Page, PageError> {
        let Progress { len, applied, .. } = self.progress();
        if start.len > len || self.extent_at(start.len)? != start {
            return Err(PageError::Diverged { len: start.len });
        }
        let (store, rows) = (self.store.as_ref(), Rows::of(self.store.as_ref()));
        let mut batches = self.batches(start.len, len, events)?;
        let mut end = match batches.last() {
            Some(batch) if batch.last.saturating_add(1) < len => batch.log_id,
            _ => applied,
        };
        let first = after.index.saturating_add(1);
        let acts = acts::acts_in(store, (first, end.index), usize::MAX, MOST_ACT_BYTES)?;
        let mut acts_end = acts::end_at(store, end.index)?;
        if let Some(last) = acts.last().filter(|last| last.log_id < acts_end.log_id) {
            (end, acts_end) = (last.log_id, last.end());
            batches.retain(|batch| batch.log_id <= end);
        }
        let to = batches.last().map_or(start.len, |batch| batch.last.saturating_add(1));
        Ok(Page {
            start,
            digests: (start.len..to).map(|version| rows.digest(version)).collect::<Result<_, LogError>>()?,
            repeats: self.repeats(start.len, to)?,
            members: applied::members_in(store, first, end.index)?,
            end: end.max(after),
            history_digest: self.extent_at(to)?.history_digest,
            batches,
            acts,
            acts_end,
        })
    }

    /// Append a page of another replica's log. Nothing is synced, as in [`Self::apply`].
    ///
    /// # Errors
    ///
    /// [`PageError::Diverged`] if the page does not continue this log, [`PageError::Inconsistent`] if it contradicts itself; in both
    /// cases nothing is changed. [`PageError::Log`] if this log could not be read or written.
    pub fn install(&self, page: &Page) -> Result<(), PageError> {
        let mut writer = self.writer.lock();
        writer.require_usable()?;
        let base = self.len();
        if page.start.len != base || self.extent_at(base)? != page.start {
            return Err(PageError::Diverged { len: base });
        }
        page.require_consistent(writer.applied)?;
        page.require_chain(writer.acts)?;
        let (entries, mut hidden) = shown_and_hidden(base, &page.digests, &page.repeats);
        let digest_at = |version: u64| self.digest_at(version, base, &page.digests);
        let earlier = page.batches.split_last().map_or(&[][..], |(_, earlier)| earlier);
        let earlier_ends: Vec<_> = earlier.iter().map(|batch| (batch.last, batch.hyper_digest)).collect();
        let new =
            NewEvents { digests: &page.digests, shown: &entries, repeats: &page.repeats, earlier_ends: &earlier_ends };
        let change = self.trees.read().plan(new, RootsOf::Batches, &digest_at)?;
        if let Some(last) = page.batches.last() {
            page.require_root("hyper", &last.hyper_digest, &change.hyper_root())?;
            page.require_root("history", &page.history_digest, &change.last_history_root())?;
        }
        hidden.extend(change.replaced());
        let mut rows = page.rows(&hidden);
        applied::put_applied(&mut rows, page.end);
        let landing =
            Landing { base, digests: &page.digests, change, rows, log_id: Some(page.end), acts: Some(page.acts_end) };
        Ok(self.land(&mut writer, landing)?)
    }

    /// Return the batches after the first `from` events, up to the first one that ends at `to` or completes `events` events.
    fn batches(&self, from: u64, to: u64, events: u64) -> Result<Vec<Batch>, LogError> {
        let (mut batches, mut next) = (Vec::new(), from);
        while next < to && next.saturating_sub(from) < events {
            let found = self.store.first_in(Table::Roots, &next.to_be_bytes(), &u64::MAX.to_be_bytes())?;
            let missing = || LogError::Corrupt(format!("no hyper root is stored for version {next}"));
            let (key, row) = found.ok_or_else(missing)?;
            let (hyper_digest, log_id) = rows::root_and_log_id_in(&row)?;
            let last = rows::version_in(&key)?;
            batches.push(Batch { last, hyper_digest, log_id });
            next = last.saturating_add(1);
        }
        Ok(batches)
    }

    fn repeats(&self, from: u64, to: u64) -> Result<Vec<u64>, LogError> {
        let (mut repeats, mut next) = (Vec::new(), from);
        while let Some((key, _)) = self.store.first_in(Table::Repeats, &next.to_be_bytes(), &u64::MAX.to_be_bytes())? {
            let version = rows::version_in(&key)?;
            if version >= to {
                break;
            }
            repeats.push(version);
            next = version.saturating_add(1);
        }
        Ok(repeats)
    }
}

impl Page {
    /// Require that the batches cover the events without a gap, and that everything is in order.
    pub(crate) fn require_consistent(&self, applied: LogId) -> Result<(), PageError> {
        let to = self.start.len.saturating_add(self.digests.len() as u64);
        let ends = self.batches.last().map_or(self.start.len, |batch| batch.last.saturating_add(1));
        let are_within = |versions: &[u64]| {
            versions.is_sorted_by(|a, b| a < b) && versions.iter().all(|version| (self.start.len..to).contains(version))
        };
        let ends_of_batches: Vec<_> = self.batches.iter().map(|batch| batch.last).collect();
        let are_in_order = are_within(&ends_of_batches)
            && are_within(&self.repeats)
            && self.batches.is_sorted_by_key(|batch| batch.log_id)
            && self.members.is_sorted_by_key(|members| members.log_id)
            && self.batches.iter().all(|batch| batch.log_id <= self.end)
            && self.members.iter().all(|members| members.log_id > applied && members.log_id <= self.end)
            && self.acts.iter().all(|act| act.log_id > applied && act.log_id <= self.end);
        if ends == to && are_in_order && self.end >= applied {
            return Ok(());
        }
        Err(self.inconsistent("its batches, repeats, memberships or acts are out of order".into()))
    }

    /// Require that the acts of the page continue the chain that ends at `own`, and lead to the end that it names.
    pub(crate) fn require_chain(&self, own: ChainEnd) -> Result<(), PageError> {
        if own.after_all(&self.acts) == Some(self.acts_end) {
            return Ok(());
        }
        Err(self.inconsistent(format!("its acts do not continue the chain that ends at entry {}", own.log_id)))
    }

    /// Require that the events of the page lead to the root that it claims.
    fn require_root(&self, tree: &str, named: &Digest, computed: &Digest) -> Result<(), PageError> {
        if named == computed {
            return Ok(());
        }
        Err(self.inconsistent(format!("it claims the {tree} root {named}, but its events lead to {computed}")))
    }

    fn inconsistent(&self, reason: String) -> PageError {
        PageError::Inconsistent { from: self.start.len, reason }
    }

    /// Return the rows of the page, except those of its digests.
    pub(crate) fn rows(&self, hidden: &[Entry]) -> WriteBatch {
        let mut batch = WriteBatch::default();
        for Batch { last, hyper_digest, log_id } in &self.batches {
            let log_id = (*log_id != LogId::default()).then_some(*log_id);
            batch.put(Table::Roots, last.to_be_bytes(), rows::root_row(hyper_digest, log_id));
        }
        for other in hidden {
            batch.put(Table::Occurrences, rows::occurrence_key(&other.key, other.version), []);
        }
        for repeat in &self.repeats {
            batch.put(Table::Repeats, repeat.to_be_bytes(), []);
        }
        for members in &self.members {
            applied::put_members(&mut batch, members);
        }
        acts::put_acts(&mut batch, &self.acts, self.acts_end);
        batch
    }

    /// Return the encoded page (FORMATS.md, "Pages").
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(256 + self.digests.len() * DIGEST_BYTES + self.batches.len() * BATCH_BYTES);
        out.extend(self.start.to_bytes());
        out.extend(self.end.to_bytes());
        out.extend(self.history_digest.as_bytes());
        put_count(&mut out, self.digests.len());
        self.digests.iter().for_each(|digest| out.extend(digest.as_bytes()));
        put_count(&mut out, self.batches.len());
        for batch in &self.batches {
            out.extend(batch.last.to_be_bytes());
            out.extend(batch.hyper_digest.as_bytes());
            out.extend(batch.log_id.to_bytes());
        }
        put_count(&mut out, self.repeats.len());
        self.repeats.iter().for_each(|version| out.extend(version.to_be_bytes()));
        put_count(&mut out, self.members.len());
        for members in &self.members {
            out.extend(members.log_id.to_bytes());
            put_count(&mut out, members.bytes.len());
            out.extend(&members.bytes);
        }
        put_count(&mut out, self.acts.len());
        for act in &self.acts {
            let bytes = act.to_bytes();
            put_count(&mut out, bytes.len());
            out.extend(bytes);
        }
        out.extend(self.acts_end.to_bytes());
        out
    }

    /// Decode a page.
    ///
    /// # Errors
    ///
    /// [`PageError::Malformed`] unless `bytes` are exactly one encoded page.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, PageError> {
        Reader::whole(bytes, Self::read).ok_or(PageError::Malformed("a page"))
    }

    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        Some(Self {
            start: Extent::read(reader)?,
            end: reader.log_id()?,
            history_digest: reader.digest()?,
            digests: reader.many(DIGEST_BYTES, Reader::digest)?,
            batches: reader.many(BATCH_BYTES, |reader| {
                Some(Batch { last: reader.number()?, hyper_digest: reader.digest()?, log_id: reader.log_id()? })
            })?,
            repeats: reader.many(8, Reader::number)?,
            members: reader.many(20, |reader| {
                let log_id = reader.log_id()?;
                let count = reader.count(1)?;
                Some(Members { log_id, bytes: reader.bytes(count)?.to_vec() })
            })?,
            acts: reader.many(4, |reader| {
                let count = reader.count(1)?;
                Act::from_bytes(reader.bytes(count)?)
            })?,
            acts_end: ChainEnd::read(reader)?,
        })
    }
}

impl Extent {
    /// Length of an encoded extent, in bytes.
    pub const BYTES: usize = 8 + 2 * DIGEST_BYTES;

    /// Return the encoded extent.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        [self.len.to_be_bytes().as_slice(), self.history_digest.as_bytes(), self.hyper_digest.as_bytes()].concat()
    }

    /// Decode an extent.
    ///
    /// # Errors
    ///
    /// [`PageError::Malformed`] unless there are exactly [`Self::BYTES`] bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, PageError> {
        Reader::whole(bytes, Self::read).ok_or(PageError::Malformed("an extent"))
    }

    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        Some(Self { len: reader.number()?, history_digest: reader.digest()?, hyper_digest: reader.digest()? })
    }
}

/// Bytes of acts after which a page ends. Another page continues it.
const MOST_ACT_BYTES: usize = 4 << 20;
const BATCH_BYTES: usize = 8 + DIGEST_BYTES + 16;

#[expect(clippy::expect_used, reason = "with a wrong count, the bytes would decode to a different page")]
fn put_count(out: &mut Vec<u8>, count: usize) {
    let count = u32::try_from(count).expect("a page ends after some ten thousand events");
    out.extend(count.to_be_bytes());
}
