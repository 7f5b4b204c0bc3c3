//! What a log does beside appending and proving: writing the image of its trees, and reading what a start with one did not read.

use std::io;
use std::ops::ControlFlow;
use std::sync::atomic::Ordering;

use crate::durable;
use crate::error::LogError;
use crate::hash::Digest;
use crate::hidden::Hidden;
use crate::history::{GROUP, group_nodes};
use crate::integers::usize_from;
use crate::log::Log;
use crate::rows::{self, TILE};
use crate::start::{AT_A_TIME, put_image_sum};
use crate::store::WriteBatch;
use crate::tree_image::{self, ImageUse};

/// Number of events below which a start takes no time worth an image.
const FEW_EVENTS: u64 = 1 << 17;

/// The parts of a log that may be missing from its image: a running log writes the next one when there are more, so that images cost a few
/// bytes an event in all; one that is closed has time for it, unless a start would hardly become faster.
const RUNNING_PART: u64 = 4;
const CLOSING_PART: u64 = 64;

impl Log {
    /// Return what became of the image of the trees when the log was opened.
    #[must_use]
    pub const fn image_use(&self) -> &ImageUse {
        &self.image.opened
    }

    /// Return the number of events in the newest image of the trees; 0 if there is none.
    #[must_use]
    pub fn image_len(&self) -> u64 {
        self.image.len.load(Ordering::Relaxed)
    }

    /// Return the number of bytes of memory that each tree takes, by its name.
    #[must_use]
    pub fn tree_bytes(&self) -> [(&'static str, u64); 3] {
        let trees = self.trees.read();
        [("history", trees.history().bytes()), ("hyper", trees.hyper().bytes()), ("entries", trees.entries().bytes())]
    }

    /// Return whether a running log has grown so much since its newest image that the next one is due.
    #[must_use]
    pub fn is_image_due(&self) -> bool {
        self.lacks(RUNNING_PART)
    }

    /// Write an image if that makes the next start faster; return whether it did. To be called before a log is closed.
    ///
    /// # Errors
    ///
    /// As [`Self::write_image`].
    pub fn write_last_image(&self, go_on: &dyn Fn() -> bool) -> Result<bool, LogError> {
        if self.lacks(CLOSING_PART) { self.write_image(go_on) } else { Ok(false) }
    }

    fn lacks(&self, part: u64) -> bool {
        let (len, image_len) = (self.len(), self.image_len());
        len >= FEW_EVENTS && len.saturating_sub(image_len) > len / part
    }

    /// Write an image of the trees beside the log, so that the next start need not read all events; return false if the log has no folder, or
    /// `go_on` became false before all was written. Events may be added meanwhile: each part of the trees is copied by itself. Durable when this
    /// returns.
    ///
    /// # Errors
    ///
    /// [`LogError::Store`] if it cannot be written. If the log could not be synced for it, or its row not be written, all later writes to the
    /// log are refused; otherwise nothing has changed.
    pub fn write_image(&self, go_on: &dyn Fn() -> bool) -> Result<bool, LogError> {
        let _writing = self.image.writing.lock();
        let Some(path) = self.store.image_path() else { return Ok(false) };
        let len = self.len() / TILE * TILE;
        let (mut sum, mut unsynced) = (None, None);
        let written = durable::replace(&path, |out| {
            let part = |part| {
                let over = || io::Error::from(io::ErrorKind::Interrupted);
                go_on().then(|| self.trees.read().hyper().part(part)).ok_or_else(over)
            };
            let nodes = |range| self.trees.read().history().group_nodes(range).to_vec();
            sum = Some(tree_image::write(out, len, part, nodes)?);
            // What the image has of later events must not be lost in a power cut that leaves the image.
            self.sync().map(drop).map_err(|error| {
                let failed = io::Error::other(error.to_string());
                unsynced = Some(error);
                failed
            })
        });
        if let Err(error) = written {
            // A draft that filled the disk must not stay.
            let _ = std::fs::remove_file(path.with_extension("new"));
            let of_file = |error: &io::Error| LogError::Store {
                action: format!("write {}", path.display()),
                cause: error.to_string(),
            };
            return match error.kind() {
                io::ErrorKind::Interrupted => Ok(false),
                _ => Err(unsynced.unwrap_or_else(|| of_file(&error))),
            };
        }
        let mut row = WriteBatch::default();
        put_image_sum(&mut row, &sum.ok_or(LogError::Bug("an image was written without a checksum"))?);
        let mut writer = self.writer.lock();
        writer.require_usable()?;
        writer.or_refuse(self.store.write(row).and_then(|()| self.store.sync()))?;
        self.image.len.store(len, Ordering::Relaxed);
        Ok(true)
    }

    /// Read the events that a start took from an image, and require that they lead to the same history tree, and that the rows of hidden
    /// occurrences are of these events. Call `progress` after each few thousand, with the number of events read so far; it may end this with
    /// a value.
    ///
    /// # Errors
    ///
    /// [`LogError::Corrupt`] names what differs: the log must not go on. [`LogError::Store`] if a row cannot be read.
    pub fn audit<B>(&self, progress: &mut dyn FnMut(u64) -> ControlFlow<B>) -> Result<ControlFlow<B>, LogError> {
        let ImageUse::Used(len) = self.image.opened else { return Ok(ControlFlow::Continue(())) };
        let store = self.store.as_ref();
        let hidden = Hidden::in_rows(store, len, 0..len)?;
        let mut sum = 0_u128;
        // Each part is read by itself: `progress` may pause, and neither a lock nor a snapshot of the store must be held meanwhile.
        for first in (0..len).step_by(AT_A_TIME) {
            let end = len.min(first + AT_A_TIME as u64);
            let digests = rows::digests(store, first..end)?;
            sum = sum.wrapping_add(hidden.sum_of(first, &digests));
            self.require_groups(first, &digests)?;
            if let ControlFlow::Break(value) = progress(end) {
                return Ok(ControlFlow::Break(value));
            }
        }
        hidden.require_sum(sum)?;
        Ok(ControlFlow::Continue(()))
    }

    /// Require that whole groups of events, from version `first` on, lead to the nodes of the history tree.
    fn require_groups(&self, first: u64, digests: &[Digest]) -> Result<(), LogError> {
        let (nodes, _) = group_nodes(first, digests);
        let from = usize_from(first / GROUP);
        let trees = self.trees.read();
        let kept = trees.history().group_nodes(from..from + nodes.len());
        let is_other = |(place, node)| (kept.get(place) != Some(node)).then_some(place as u64);
        let Some(group) = nodes.iter().enumerate().find_map(is_other) else { return Ok(()) };
        let start = first + group * GROUP;
        let range = format!("versions {start} to {}", start + GROUP - 1);
        Err(LogError::Corrupt(format!("the events of {range} are not those of the tree image")))
    }
}
