//! Acts: what was done to a cluster by hand, such as admitting a member, as rows chained by hashes. Acts are not events of the log.
//!
//! Each act is the outcome of one entry of the replicated log, so all replicas have equal chains. The row of an act holds the hash of the
//! act before it, and a row of its own holds the hash of the newest one: an act that is changed, removed or inserted breaks the chain.

use std::ops::ControlFlow;

use crate::bytes::Reader;
use crate::error::LogError;
use crate::hash::{self, DIGEST_BYTES, Digest};
use crate::log_id::LogId;
use crate::rows;
use crate::store::{Store, Table, WriteBatch};

/// The key of the end of the chain, in the table of what is applied.
const END_KEY: &[u8] = b"acts";

/// What an act says: 1 byte to 64 KiB, which this crate does not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActBody(Vec<u8>);

impl ActBody {
    /// The longest one.
    pub const MOST_BYTES: usize = 64 << 10;

    /// Return the body that `bytes` are, or nothing if they are none or too many.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Option<Self> {
        (1..=Self::MOST_BYTES).contains(&bytes.len()).then_some(Self(bytes))
    }

    /// Return its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// An act as it stands in the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Act {
    /// The entry that it is the outcome of.
    pub log_id: LogId,
    /// The hash of the act before it; zeros for the first.
    pub previous: Digest,
    /// What it says.
    pub body: ActBody,
}

impl Act {
    /// Return the hash that the next act names.
    #[must_use]
    pub fn hash(&self) -> Digest {
        hash::act(&self.previous, &self.log_id.to_bytes(), self.body.as_bytes())
    }

    /// Return the end of a chain whose newest act this is.
    #[must_use]
    pub fn end(&self) -> ChainEnd {
        ChainEnd { log_id: self.log_id, hash: self.hash() }
    }

    /// Return the bytes that stand for the act, in its row and in a page.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        [self.log_id.to_bytes().as_slice(), self.previous.as_bytes(), self.body.as_bytes()].concat()
    }

    /// Return the act that `bytes` stand for, or nothing if they are malformed.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (log_id, rest) = bytes.split_at_checked(LogId::BYTES)?;
        let (previous, body) = rest.split_at_checked(DIGEST_BYTES)?;
        let (log_id, previous) = (LogId::from_slice(log_id)?, Digest::from_slice(previous)?);
        Some(Self { log_id, previous, body: ActBody::new(body.to_vec())? })
    }
}

/// Where a chain of acts ends. The default is that of an empty chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ChainEnd {
    /// The log id of the newest act.
    pub log_id: LogId,
    /// Its hash.
    pub hash: Digest,
}

impl ChainEnd {
    /// Return the end of the chain after `act`, or nothing if `act` does not continue it.
    #[must_use]
    pub fn after(self, act: &Act) -> Option<Self> {
        let is_later = act.log_id.index > self.log_id.index && act.log_id.term >= self.log_id.term;
        (is_later && act.previous == self.hash).then(|| act.end())
    }

    /// Return the end of the chain after all of `acts`, or nothing if one does not continue it.
    #[must_use]
    pub fn after_all(self, acts: &[Act]) -> Option<Self> {
        acts.iter().try_fold(self, Self::after)
    }

    /// Return the act that says `body` at `log_id`, after this end.
    pub(crate) const fn next(self, log_id: LogId, body: ActBody) -> Act {
        Act { log_id, previous: self.hash, body }
    }

    pub(crate) fn to_bytes(self) -> Vec<u8> {
        [self.log_id.to_bytes().as_slice(), self.hash.as_bytes()].concat()
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Option<Self> {
        Some(Self { log_id: reader.log_id()?, hash: reader.digest()? })
    }
}

/// Put the rows of acts, of which the last leaves the chain at `end`.
pub(crate) fn put_acts(batch: &mut WriteBatch, acts: &[Act], end: ChainEnd) {
    for act in acts {
        batch.put(Table::Acts, act.log_id.index.to_be_bytes(), act.to_bytes());
    }
    if !acts.is_empty() {
        batch.put(Table::Applied, END_KEY, end.to_bytes());
    }
}

/// Return the acts at the indices `from..=to`, in order: at most `most`, and no more once they have `most_bytes`.
pub(crate) fn acts_in(
    store: &dyn Store,
    (from, to): (u64, u64),
    most: usize,
    most_bytes: usize,
) -> Result<Vec<Act>, LogError> {
    let (mut found, mut from, mut bytes) = (Vec::new(), from, 0_usize);
    while from <= to
        && found.len() < most
        && bytes < most_bytes
        && let Some((key, row)) = store.first_in(Table::Acts, &from.to_be_bytes(), &to.to_be_bytes())?
    {
        let act = act_of(&key, &row)?;
        bytes = bytes.saturating_add(row.len());
        from = act.log_id.index.saturating_add(1);
        found.push(act);
    }
    Ok(found)
}

/// Return where the chain ended once the entry at `index` was applied.
pub(crate) fn end_at(store: &dyn Store, index: u64) -> Result<ChainEnd, LogError> {
    let last = store.last_in(Table::Acts, &0_u64.to_be_bytes(), &index.to_be_bytes())?;
    last.map_or(Ok(ChainEnd::default()), |(key, row)| act_of(&key, &row).map(|act| act.end()))
}

/// Return where the chain ends.
///
/// # Errors
///
/// [`LogError::Corrupt`] if that is not noted, or if the newest act is not the one that was noted; [`LogError::Store`] if a row cannot be
/// read.
pub(crate) fn end(store: &dyn Store) -> Result<ChainEnd, LogError> {
    let misshapen = || LogError::Corrupt("the row of the last act is misshapen".into());
    let noted = match store.get(Table::Applied, END_KEY)? {
        None => ChainEnd::default(),
        Some(row) => Reader::whole(&row, ChainEnd::read).ok_or_else(misshapen)?,
    };
    require_end(noted, end_at(store, u64::MAX)?)?;
    Ok(noted)
}

/// Follow the chain from its beginning, up to `end`.
///
/// # Errors
///
/// [`LogError::Corrupt`] names the first act that does not continue it; [`LogError::Store`] if a row cannot be read.
pub(crate) fn check(store: &dyn Store, end: ChainEnd) -> Result<(), LogError> {
    let mut reached = ChainEnd::default();
    store.scan(Table::Acts, &[], &mut |key, row| {
        let act = act_of(key, row)?;
        if act.log_id.index > end.log_id.index {
            // Written since the check began.
            return Ok(ControlFlow::Break(()));
        }
        let broken = || LogError::Corrupt(format!("the act of entry {} does not follow the one before it", act.log_id));
        reached = reached.after(&act).ok_or_else(broken)?;
        Ok(ControlFlow::Continue(()))
    })?;
    require_end(end, reached)
}

fn require_end(noted: ChainEnd, found: ChainEnd) -> Result<(), LogError> {
    if noted == found {
        return Ok(());
    }
    Err(LogError::Corrupt(format!(
        "the last act is noted as that of entry {} with hash {}, but the stored acts end at entry {} with hash {}",
        noted.log_id, noted.hash, found.log_id, found.hash
    )))
}

fn act_of(key: &[u8], row: &[u8]) -> Result<Act, LogError> {
    let index = rows::version_in(key)?;
    let act = Act::from_bytes(row).filter(|act| act.log_id.index == index);
    act.ok_or_else(|| LogError::Corrupt(format!("the row of the act of entry {index} is misshapen")))
}
