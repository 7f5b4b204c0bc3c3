//! Filling a new data folder with the entries that a log has published.
//!
//! They are replayed before they are written, so every root that they claim is compared, and what is wrong with them is found before the
//! folder is a log. What others know of a log beside its entries, its members and its acts, is not published: the folder has none.

use std::path::Path;

use crate::acts::ChainEnd;
use crate::entry_audit::{AuditError, EntryAudit};
use crate::error::LogError;
use crate::log_id::LogId;
use crate::page::{Batch, Extent, Page};
use crate::restoration::Restoration;
use crate::tlog::entry::Entry;

/// Events after which a page ends, at the end of the next batch.
const EVENTS_A_PAGE: usize = 1 << 14;

/// A data folder that is being filled with entries. If it is dropped before it is published, the folder is left empty.
#[derive(Debug)]
pub struct EntryRestoration {
    audit: EntryAudit,
    restoration: Restoration,
    /// What is not in the folder yet.
    page: Page,
}

impl EntryRestoration {
    /// Begin to fill the folder at `path`.
    ///
    /// # Errors
    ///
    /// As [`Restoration::begin`].
    pub fn begin(path: &Path) -> Result<Self, LogError> {
        let restoration = Restoration::begin(path)?;
        Ok(Self { audit: EntryAudit::default(), restoration, page: page_after(Extent::default()) })
    }

    /// Return the number of entries that were appended.
    #[must_use]
    pub fn next_entry(&self) -> u64 {
        self.audit.next_entry()
    }

    /// Append the next entry of a tree of `size`.
    ///
    /// # Errors
    ///
    /// As [`EntryAudit::append`]; [`AuditError::Log`] also if the folder cannot be written.
    pub fn append(&mut self, bytes: &[u8], size: u64) -> Result<(), AuditError> {
        self.audit.append(bytes, size)?;
        let entry = Entry::from_bytes(bytes).map_err(|_| LogError::Bug("an entry that was replayed is not one"))?;
        self.page.digests.push(entry.event_digest);
        if entry.is_repeat {
            self.page.repeats.push(entry.version);
        }
        let Some(end) = entry.batch_end else { return Ok(()) };
        // No entry of a replicated log is known to have added it.
        let batch = Batch { last: entry.version, hyper_digest: end.hyper_digest, log_id: LogId::default() };
        self.page.batches.push(batch);
        self.page.history_digest = end.history_digest;
        if self.page.digests.len() >= EVENTS_A_PAGE {
            self.write_page()?;
        }
        Ok(())
    }

    /// Build both trees from the folder, as [`Restoration::complete`] does, and return what is to be published.
    ///
    /// # Errors
    ///
    /// As [`Restoration::complete`]; [`LogError::Corrupt`] also if the last batch has not ended.
    pub fn complete(mut self) -> Result<(Restoration, Extent), LogError> {
        let (found, replayed) = (self.audit.next_entry(), self.audit.replayed());
        if found != replayed {
            return Err(LogError::Corrupt(format!(
                "expected the end of a batch after {found} entries, found {replayed}"
            )));
        }
        self.write_page()?;
        let Self { audit, restoration, page } = self;
        // The trees are built once more, and need the memory.
        drop(audit);
        restoration.complete()?;
        Ok((restoration, page.start))
    }

    fn write_page(&mut self) -> Result<(), LogError> {
        self.restoration.append(&self.page)?;
        self.page = page_after(self.page.reach().extent);
        Ok(())
    }
}

/// Return an empty page that continues a log.
fn page_after(start: Extent) -> Page {
    Page {
        start,
        digests: Vec::new(),
        batches: Vec::new(),
        repeats: Vec::new(),
        members: Vec::new(),
        acts: Vec::new(),
        acts_end: ChainEnd::default(),
        end: LogId::default(),
        history_digest: start.history_digest,
    }
}
