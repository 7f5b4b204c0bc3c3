//! The state of a member: its log and the membership, changed by committed entries only.
//!
//! The effect of an entry depends only on the entry and the log before it: no clock, no random numbers, no setting that may differ
//! between members. Only acts are synced here: after a crash the other entries are applied again from the Raft log.

use std::sync::Arc;

use qed_core::acts::ActBody;
use qed_core::applied::Members;
use qed_core::error::LogError;
use qed_core::log::{Added, Log, Request};
use qed_core::log_id::LogId;
use qed_core::page::{Extent, Page, PageError};
use raft::eraftpb::ConfState;

use crate::consensus::Committed;
use crate::entry::Command;
use crate::membership::{Change, Membership};

/// Why the state cannot continue. No later entry may be applied.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The log could not be read or written, or contradicts itself.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The leader's log differs from this one.
    #[error("this replica has diverged: at {} events the leader's hyper digest is {}, this one's is {}", .leader.len, .leader.hyper_digest, .own.hyper_digest)]
    Diverged {
        /// The leader's log.
        leader: Box<Extent>,
        /// This log at the same length.
        own: Box<Extent>,
    },
    /// This build cannot decode an entry.
    #[error(
        "entry {0} of the Raft log cannot be read; a newer version of qed may have written it: update qed on this member"
    )]
    UnknownEntry(u64),
}

/// A log and the members that replicate it.
#[derive(Debug)]
pub struct State {
    log: Arc<Log>,
    /// Replaced by a new one at each change.
    membership: Arc<Membership>,
}

impl State {
    /// Return the state in a log.
    ///
    /// # Errors
    ///
    /// [`StateError::Log`] if the membership in it cannot be read.
    pub fn open(log: Arc<Log>) -> Result<Self, StateError> {
        let membership = Arc::new(read_membership(&log)?);
        Ok(Self { log, membership })
    }

    /// Make this the first member of a new cluster. The log may already hold events. Durable when this returns.
    ///
    /// # Errors
    ///
    /// [`StateError::Log`] if it cannot be written.
    pub fn bootstrap(&mut self, membership: Membership) -> Result<(), StateError> {
        let log_id = LogId { index: 1, term: 1 };
        self.log.apply_members(&Members { log_id, bytes: membership.to_bytes() }, None)?;
        self.log.sync()?;
        self.membership = Arc::new(membership);
        Ok(())
    }

    /// Return the log.
    #[must_use]
    pub fn log(&self) -> &Arc<Log> {
        &self.log
    }

    /// Return the membership.
    #[must_use]
    pub const fn membership(&self) -> &Arc<Membership> {
        &self.membership
    }

    /// Return the log id of the last applied entry.
    #[must_use]
    pub fn applied(&self) -> LogId {
        self.log.applied()
    }

    /// Apply a committed entry, and return the results of its requests if the caller wants them. An entry that is already applied is
    /// skipped.
    ///
    /// An act is durable when this returns. It may close a server to strangers or revoke a key, and a member that starts alone after a
    /// crash cannot know which entries of its Raft log are committed, so it must not have to apply the act again.
    ///
    /// # Errors
    ///
    /// [`StateError`]: the member must stop.
    pub fn apply(&mut self, committed: &Committed, is_wanted: bool) -> Result<Vec<Added>, StateError> {
        if committed.log_id.index <= self.applied().index {
            return Ok(Vec::new());
        }
        let command = match &committed.conf_state {
            Some(_) if committed.data.is_empty() => Command::Members(Vec::new(), None),
            _ => Command::from_bytes(&committed.data).ok_or(StateError::UnknownEntry(committed.log_id.index))?,
        };
        match command {
            Command::Nothing => self.log.pass(committed.log_id)?,
            Command::Members(changes, act) => self.change_members(committed, changes, act)?,
            Command::Act(act) => {
                self.log.apply_act(committed.log_id, act)?;
                self.log.sync()?;
            }
            Command::Append { base, requests } => return self.append(committed.log_id, base, &requests, is_wanted),
        }
        Ok(Vec::new())
    }

    /// Append a page from another member, durably, and return the configuration at its end.
    ///
    /// # Errors
    ///
    /// [`PageError::Log`]: the member must stop. After any other error, which means that the page is wrong or too old, nothing has
    /// changed.
    pub fn install(&mut self, page: &Page) -> Result<ConfState, PageError> {
        // An undecodable membership, once written, would look like damage of this member's own disk.
        if page.members.iter().any(|members| Membership::from_bytes(&members.bytes).is_none()) {
            return Err(PageError::Malformed("a membership"));
        }
        self.log.install(page)?;
        self.log.sync()?;
        if !page.members.is_empty() {
            self.membership = Arc::new(read_membership(&self.log)?);
        }
        Ok((&self.membership.configuration).into())
    }

    fn append(
        &self,
        log_id: LogId,
        base: Extent,
        requests: &[Request],
        is_wanted: bool,
    ) -> Result<Vec<Added>, StateError> {
        let own = self.log.extent_at(base.len.min(self.log.len()))?;
        if own != base {
            return Err(StateError::Diverged { leader: Box::new(base), own: Box::new(own) });
        }
        if is_wanted {
            return Ok(self.log.apply(log_id, requests)?);
        }
        self.log.apply_silently(log_id, requests)?;
        Ok(Vec::new())
    }

    fn change_members(
        &mut self,
        committed: &Committed,
        changes: Vec<Change>,
        act: Option<ActBody>,
    ) -> Result<(), StateError> {
        let mut membership = Membership::clone(&self.membership);
        membership.apply(changes, committed.conf_state.as_ref());
        let is_act = act.is_some();
        self.log.apply_members(&Members { log_id: committed.log_id, bytes: membership.to_bytes() }, act)?;
        if is_act {
            self.log.sync()?;
        }
        self.membership = Arc::new(membership);
        Ok(())
    }
}

fn read_membership(log: &Log) -> Result<Membership, LogError> {
    let Some(members) = log.members()? else {
        // The first entry of every cluster is its membership. Without it a member would open, and wait for a leader that cannot be.
        return match log.applied().index {
            0 => Ok(Membership::default()),
            index => Err(LogError::Corrupt(format!("no membership is stored, though entry {index} is applied"))),
        };
    };
    let damaged = || LogError::Corrupt(format!("the membership of entry {} cannot be read", members.log_id.index));
    Membership::from_bytes(&members.bytes).ok_or_else(damaged)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_with_a_membership_that_cannot_be_read_changes_nothing() {
        let leader = Log::in_memory().unwrap();
        let log_id = LogId { index: 1, term: 1 };
        leader.apply_members(&Members { log_id, bytes: b"no membership".to_vec() }, None).unwrap();
        let page = leader.page(Extent::default(), LogId::default(), 1).unwrap();
        let mut state = State::open(Arc::new(Log::in_memory().unwrap())).unwrap();
        let refused = state.install(&page);
        assert!(matches!(refused, Err(PageError::Malformed("a membership"))), "{refused:?}");
        assert_eq!(state.applied(), LogId::default());
    }

    #[test]
    fn an_entry_of_a_later_build_stops_the_member_and_is_named() {
        let mut state = State::open(Arc::new(Log::in_memory().unwrap())).unwrap();
        let committed = Committed { log_id: LogId { index: 2, term: 1 }, data: vec![5], conf_state: None };
        let stopped = state.apply(&committed, false);
        assert!(matches!(stopped, Err(StateError::UnknownEntry(2))), "{stopped:?}");
        assert_eq!(state.applied(), LogId::default());
    }

    #[test]
    fn a_log_whose_membership_is_lost_is_damaged() {
        let log = Log::in_memory().unwrap();
        log.apply_silently(LogId { index: 2, term: 1 }, &[]).unwrap();
        let opened = State::open(Arc::new(log)).map(|_| ());
        assert!(matches!(&opened, Err(StateError::Log(LogError::Corrupt(_)))), "{opened:?}");
    }
}
