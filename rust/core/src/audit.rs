//! Checking the pages of a log without a folder: both trees are built again, and every root is compared.

use crate::error::LogError;
use crate::hash::Digest;
use crate::integers::usize_from;
use crate::page::{Batch, Page};
use crate::replay::require_repeated;
use crate::rows;
use crate::trees::{NewEvents, RootsOf, Trees, shown_and_hidden};

/// The log that some pages lead to, in memory: about 110 bytes an event.
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
    /// Append a page, and compare the hyper root after each of its batches and the history root at its end with those that its events
    /// lead to. Require that the event of each repeat also stands before it in its batch.
    ///
    /// # Errors
    ///
    /// [`LogError::Corrupt`] names the first root or repeat that differs; [`LogError::Full`] if there is no room for so many events.
    /// Nothing can be appended then.
    pub fn append(&mut self, page: &Page) -> Result<(), LogError> {
        self.digests.extend(&page.digests);
        let mut history_root = None;
        for batch in &page.batches {
            history_root = Some(self.append_batch(batch, &page.repeats)?);
        }
        if self.trees.len() != self.digests.len() as u64 {
            let (events, end) = (self.digests.len(), self.trees.len());
            return Err(LogError::Corrupt(format!("its batches end at {end} of {events} events")));
        }
        history_root.map_or(Ok(()), |computed| rows::require_same("the history root", &page.history_digest, &computed))
    }

    fn append_batch(&mut self, batch: &Batch, repeats: &[u64]) -> Result<Digest, LogError> {
        let Self { trees, digests } = self;
        let base = trees.len();
        let missing = |version: u64| LogError::Corrupt(format!("it lacks the digest of version {version}"));
        let last = usize_from(batch.last);
        let added = digests.get(usize_from(base)..=last).filter(|added| !added.is_empty());
        let added = added.ok_or_else(|| missing(batch.last))?;
        require_repeated(base, added, repeats)?;
        let (entries, _) = shown_and_hidden(base, added, repeats);
        let digest_at = |version: u64| digests.get(usize_from(version)).copied().ok_or_else(|| missing(version));
        let new = NewEvents { digests: added, shown: &entries, repeats, earlier_ends: &[] };
        let change = trees.plan(new, RootsOf::Batches, &digest_at)?;
        let what = format!("the hyper root of version {}", batch.last);
        rows::require_same(&what, &batch.hyper_digest, &change.hyper_root())?;
        let history_root = change.last_history_root();
        trees.apply(change, &digest_at)?;
        Ok(history_root)
    }
}
