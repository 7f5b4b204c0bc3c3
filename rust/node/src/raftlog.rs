//! The Raft log in memory, for the crate `raft` to read: what this member has made durable or is about to.

use std::collections::VecDeque;

use prost::Message as _;
use qed_core::log_id::LogId;
use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::{Error, GetEntriesContext, RaftState, Result, Storage, StorageError};

use crate::wal::{Bounds, Frame, Recovered};

/// A contiguous run of entries, and the log id before it.
#[derive(Debug)]
pub struct RaftLog {
    hard_state: HardState,
    bounds: Bounds,
    entries: VecDeque<Entry>,
    entries_bytes: usize,
    /// The log id of the state, and the configuration there: the snapshot that a lagging member is sent.
    applied: LogId,
    conf_state: ConfState,
}

impl RaftLog {
    /// Return the recovered log of a member whose state is at `applied` with the configuration `conf_state`.
    #[must_use]
    pub fn new(recovered: Recovered, applied: LogId, conf_state: ConfState) -> Self {
        let entries_bytes = recovered.entries.iter().map(size_of).sum();
        Self {
            hard_state: recovered.hard_state,
            bounds: recovered.bounds,
            entries: recovered.entries.into(),
            entries_bytes,
            applied,
            conf_state,
        }
    }

    /// Apply a frame.
    pub fn apply(&mut self, frame: &Frame) {
        self.hard_state = frame.hard_state.clone();
        if let Some(bounds) = frame.bounds {
            let is_gone = |entry: &mut Entry| bounds.is_reset || entry.index <= bounds.index;
            while let Some(entry) = self.entries.pop_front_if(is_gone) {
                self.entries_bytes -= size_of(&entry);
            }
            self.bounds = bounds;
        }
        if let Some(first) = frame.entries.first() {
            while let Some(entry) = self.entries.pop_back_if(|entry| entry.index >= first.index) {
                self.entries_bytes -= size_of(&entry);
            }
        }
        self.entries_bytes += frame.entries.iter().map(size_of).sum::<usize>();
        self.entries.extend(frame.entries.iter().cloned());
    }

    /// Note that the state is at `applied`, with that configuration if it changed. An older log id than the known one is ignored.
    pub fn set_applied(&mut self, applied: LogId, conf_state: Option<ConfState>) {
        if applied <= self.applied {
            return;
        }
        self.applied = applied;
        if let Some(conf_state) = conf_state {
            self.conf_state = conf_state;
        }
    }

    /// Return the log id of the state.
    #[must_use]
    pub const fn applied(&self) -> LogId {
        self.applied
    }

    /// Return term, vote and commit index.
    #[must_use]
    pub const fn hard_state(&self) -> &HardState {
        &self.hard_state
    }

    /// Return the log id before the first entry.
    #[must_use]
    pub const fn bounds(&self) -> Bounds {
        self.bounds
    }

    /// Return the size of the kept entries in bytes.
    #[must_use]
    pub const fn entries_bytes(&self) -> usize {
        self.entries_bytes
    }

    /// Return the log id, at most `limit`, after which there are no more than `bytes` bytes of entries.
    #[must_use]
    pub fn log_id_before_last(&self, bytes: usize, limit: u64) -> Option<LogId> {
        let mut excess = self.entries_bytes.saturating_sub(bytes);
        let mut log_id = None;
        for entry in self.entries.iter().take_while(|entry| entry.index <= limit) {
            if excess == 0 {
                break;
            }
            excess = excess.saturating_sub(size_of(entry));
            log_id = Some(LogId { index: entry.index, term: entry.term });
        }
        log_id
    }

    fn last(&self) -> u64 {
        self.entries.back().map_or(self.bounds.index, |entry| entry.index)
    }

    fn get(&self, index: u64) -> Option<&Entry> {
        let first = self.entries.front()?.index;
        self.entries.get(usize::try_from(index.checked_sub(first)?).ok()?)
    }
}

fn size_of(entry: &Entry) -> usize {
    entry.data.len() + entry.context.len() + std::mem::size_of::<Entry>()
}

impl Storage for RaftLog {
    fn initial_state(&self) -> Result<RaftState> {
        Ok(RaftState::new(self.hard_state.clone(), self.conf_state.clone()))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> Result<Vec<Entry>> {
        if low <= self.bounds.index {
            return Err(Error::Store(StorageError::Compacted));
        }
        if high > self.last() + 1 {
            return Err(Error::Store(StorageError::Unavailable));
        }
        // At least one, and no more than requested: a lagging member may lack a hundred times that.
        let (limit, mut size) = (max_size.into().unwrap_or(u64::MAX), 0_u64);
        let is_wanted = |entry: &&Entry| {
            let is_first = size == 0;
            size = size.saturating_add(entry.encoded_len() as u64);
            is_first || size <= limit
        };
        #[expect(clippy::expect_used, reason = "entries follow each other without a gap, and both ends were compared")]
        let entry = |index| self.get(index).expect("an entry between the first and the last");
        Ok((low..high).map(entry).take_while(is_wanted).cloned().collect())
    }

    fn term(&self, index: u64) -> Result<u64> {
        if index == self.bounds.index {
            return Ok(self.bounds.term);
        }
        if index < self.bounds.index {
            return Err(Error::Store(StorageError::Compacted));
        }
        self.get(index).map(|entry| entry.term).ok_or(Error::Store(StorageError::Unavailable))
    }

    fn first_index(&self) -> Result<u64> {
        Ok(self.bounds.index + 1)
    }

    fn last_index(&self) -> Result<u64> {
        Ok(self.last())
    }

    /// A snapshot carries no data: its receiver fetches the missing part of the state (see [`crate::consensus`]).
    fn snapshot(&self, request_index: u64, to: u64) -> Result<Snapshot> {
        // The configuration in force may be ahead of the state, which may not show yet that the receiver is admitted. No member accepts
        // a snapshot whose configuration lacks it, and the leader would wait for that forever.
        let ConfState { voters, learners, voters_outgoing, .. } = &self.conf_state;
        let takes_part = voters.iter().chain(learners).chain(voters_outgoing).any(|&id| id == to);
        if self.applied.index < request_index || !takes_part {
            return Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable));
        }
        let mut snapshot = Snapshot::default();
        let metadata = snapshot.mut_metadata();
        metadata.index = self.applied.index;
        metadata.term = self.applied.term;
        metadata.set_conf_state(self.conf_state.clone());
        Ok(snapshot)
    }
}
