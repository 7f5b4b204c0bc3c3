//! Filling a new data folder with the pages of a backup.
//!
//! Rows are written as they come, and the trees are built once, at the end: that takes as long as a start, where appending page by page
//! would take as long as adding the events did. No build opens the folder as a log before it is published, so what a crash leaves is
//! no log, and can be filled again.

use std::path::Path;

use crate::applied;
use crate::backup::Reach;
use crate::batch::put_digests;
use crate::disk::{Claim, DiskStore};
use crate::error::LogError;
use crate::hash::Digest;
use crate::page::Page;
use crate::replay;
use crate::rows::{self, Rows};
use crate::start::{self, Start};
use crate::store::{Store as _, Table, WriteBatch};
use crate::trees::hidden_in;

/// Occurrences that are written together.
const OCCURRENCES_A_BATCH: usize = 1 << 16;

/// A data folder that is being filled. If it is dropped before it is published, the folder is left empty.
#[derive(Debug)]
pub struct Restoration {
    // Closed before the claim empties the folder: fields are dropped in this order.
    store: DiskStore,
    claim: Claim,
    tail: Vec<Digest>,
    /// How far the log is after each page.
    ends: Vec<Reach>,
}

impl Restoration {
    /// Begin to fill the folder at `path`, which must not exist, be empty, or hold an unfinished restoration.
    ///
    /// # Errors
    ///
    /// [`LogError::Occupied`] if it holds anything else; [`LogError::Locked`] if another process fills it; [`LogError::Unprotected`] if other
    /// users may write to it; [`LogError::Store`] if it cannot be made or written.
    pub fn begin(path: &Path) -> Result<Self, LogError> {
        let claim = Claim::new(path)?;
        let store = DiskStore::open_prepared(path)?;
        Ok(Self { store, claim, tail: Vec::new(), ends: Vec::new() })
    }

    /// Write a page that continues those before it.
    ///
    /// # Errors
    ///
    /// [`LogError::Store`] if it cannot be written.
    pub fn append(&mut self, page: &Page) -> Result<(), LogError> {
        let mut rows = page.rows(&[]);
        self.tail = put_digests(&mut rows, page.start.len, &self.tail, &page.digests);
        applied::put_applied(&mut rows, page.end);
        self.store.write(rows)?;
        self.ends.push(page.reach());
        Ok(())
    }

    /// Build both trees, require that they lead to the last hyper root and to the history root of each page, and write the rows that
    /// follow from them. Everything is durable when this returns, but the folder is not published.
    ///
    /// # Errors
    ///
    /// [`LogError::Corrupt`] if a root differs; [`LogError::Full`] if there is no room for so many events; [`LogError::Store`] if the folder
    /// cannot be read or written.
    pub fn complete(&self) -> Result<(), LogError> {
        let len = start::length(&self.store)?;
        let (digests, repeats) = (rows::digests(&self.store, 0..len)?, replay::repeats(&self.store)?);
        for hidden in hidden_in(&digests, &repeats).chunks(OCCURRENCES_A_BATCH) {
            let mut batch = WriteBatch::default();
            for occurrence in hidden {
                batch.put(Table::Occurrences, rows::occurrence_key(&occurrence.key, occurrence.version), []);
            }
            self.store.write(batch)?;
        }
        drop((digests, repeats));
        let Start { trees, tiles, .. } = Start::of_rows(&self.store)?;
        self.store.write(tiles)?;
        let stored = Rows::of(&self.store);
        for end in &self.ends {
            let Some(version) = end.extent.len.checked_sub(1) else { continue };
            let computed = trees.history().root(version, &|version| stored.group(version))?;
            rows::require_same(
                &format!("the history root of version {version}"),
                &end.extent.history_digest,
                &computed,
            )?;
        }
        self.store.sync()?;
        self.store.note_durable(len)
    }

    /// Let the folder be opened as a log. Durable when this returns.
    ///
    /// # Errors
    ///
    /// [`LogError::Store`] if it cannot be written.
    pub fn publish(self) -> Result<(), LogError> {
        let Self { store, claim, .. } = self;
        // Closed first, so that whoever finds the format can open it.
        drop(store);
        claim.publish()
    }
}
