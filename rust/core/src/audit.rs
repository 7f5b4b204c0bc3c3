//! Building the trees of a log without a folder, batch by batch, so that every root can be compared.

use crate::error::LogError;
use crate::hash::Digest;
use crate::integers::usize_from;
use crate::page::{Batch, Page};
use crate::replay::require_repeated;
use crate::rows;
use crate::tlog::entry::BatchEnd;
use crate::trees::{NewEvents, RootsOf, Trees, shown_and_hidden};

/// The log that some batches lead to, in memory: 60 to 110 bytes an event, fewer in a large log.
#[derive(Debug)]
pub struct Audit {
    trees: Trees,
    digests: Vec<Digest>,
}

impl Default for Audit {
    fn default() -> Self {
        Self { trees: Trees::with_capacity(0), digests: Vec::new() }
    }
}

impl Audit {
    /// Return the number of events.
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.trees.len()
    }

    /// Return whether there are no events.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Return the root of the tree over the entries about these events.
    #[must_use]
    pub fn entry_root(&self) -> Digest {
        self.trees.entries().root()
    }

    /// Return the latest version of an event, as the hyper tree shows it.
    ///
    /// # Errors
    ///
    /// [`LogError::Corrupt`] if the trees do not fit together.
    pub fn find(&self, event: &Digest) -> Result<Option<u64>, LogError> {
        let missing = |version: u64| LogError::Corrupt(format!("it lacks the digest of version {version}"));
        let digest_at = |version: u64| self.digests.get(usize_from(version)).copied().ok_or_else(|| missing(version));
        self.trees.hyper().find(event, &digest_at)
    }

    /// Append a page, and compare the hyper root after each of its batches and the history root at its end with those that its events
    /// lead to. Require that the event of each repeat also stands before it in its batch.
    ///
    /// # Errors
    ///
    /// [`LogError::Corrupt`] names the first root or repeat that differs; [`LogError::Full`] if there is no room for so many events.
    /// Nothing can be appended then.
    pub fn append(&mut self, page: &Page) -> Result<(), LogError> {
        let (start, mut history_root) = (self.len(), None);
        for batch in &page.batches {
            history_root = Some(self.append_of_page(start, batch, page)?);
        }
        let (events, end) = (start + page.digests.len() as u64, self.len());
        if end != events {
            return Err(LogError::Corrupt(format!("its batches end at {end} of {events} events")));
        }
        history_root.map_or(Ok(()), |computed| rows::require_same("the history root", &page.history_digest, &computed))
    }

    /// Append a batch of a page that begins at version `start`; return the history root after it.
    fn append_of_page(&mut self, start: u64, batch: &Batch, page: &Page) -> Result<Digest, LogError> {
        let base = self.len();
        let missing = || LogError::Corrupt(format!("it lacks the digest of version {}", batch.last));
        let first = base.checked_sub(start).ok_or_else(missing)?;
        let last = batch.last.checked_sub(start).ok_or_else(missing)?;
        let added = page.digests.get(usize_from(first)..=usize_from(last)).filter(|added| !added.is_empty());
        let added = added.ok_or_else(missing)?;
        require_repeated(base, added, &page.repeats)?;
        let computed = self.append_batch(added, &page.repeats)?;
        let what = format!("the hyper root of version {}", batch.last);
        rows::require_same(&what, &batch.hyper_digest, &computed.hyper_digest)?;
        Ok(computed.history_digest)
    }

    /// Append the events of one batch, at least one, and return the roots that they lead to. `repeats` are versions, in ascending order, that
    /// the hyper tree does not show.
    ///
    /// # Errors
    ///
    /// [`LogError::Full`] if there is no room for so many events. Nothing can be appended then.
    pub fn append_batch(&mut self, added: &[Digest], repeats: &[u64]) -> Result<BatchEnd, LogError> {
        let Self { trees, digests } = self;
        let base = trees.len();
        digests.extend(added);
        let (entries, _) = shown_and_hidden(base, added, repeats);
        let missing = |version: u64| LogError::Corrupt(format!("it lacks the digest of version {version}"));
        let digest_at = |version: u64| digests.get(usize_from(version)).copied().ok_or_else(|| missing(version));
        let new = NewEvents { digests: added, shown: &entries, repeats, earlier_ends: &[] };
        let change = trees.plan(new, RootsOf::Batches, &digest_at)?;
        let end = BatchEnd { history_digest: change.last_history_root(), hyper_digest: change.hyper_root() };
        trees.apply(change);
        Ok(end)
    }
}
