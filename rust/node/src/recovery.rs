//! Recovery: how a member continues after a stop of any kind, from any store of its log and its Raft log.

use std::sync::Arc;

use qed_core::log::Log;
use qed_core::log_id::LogId;

use crate::consensus::{Consensus, Settings};
use crate::member::{Limits, Member, MemberError};
use crate::membership::Membership;
use crate::segments::SegmentStore;
use crate::state::State;
use crate::wal::{Bounds, Frame, Recovered, Wal};

/// Return a member and its state, recovered from its log and its Raft log, after making the two agree. `founded` is the initial
/// membership, used if the log contains none.
///
/// # Errors
///
/// [`MemberError`] if they cannot be read or contradict each other. The disk is then unchanged, or in a state that a crash could have
/// left.
pub fn recover<M: SegmentStore>(
    log: Arc<Log>,
    store: M,
    founded: Option<Membership>,
    settings: Settings,
    limits: Limits,
) -> Result<(Member<M>, State), MemberError> {
    go_on(log, Wal::open(store)?, founded, settings, limits)
}

/// Like [`recover`], with a Raft log that is already open.
///
/// # Errors
///
/// Same as [`recover`].
pub fn go_on<M: SegmentStore>(
    log: Arc<Log>,
    (mut wal, mut recovered): (Wal<M>, Recovered),
    founded: Option<Membership>,
    settings: Settings,
    limits: Limits,
) -> Result<(Member<M>, State), MemberError> {
    let mut state = State::open(Arc::clone(&log))?;
    if let Some(membership) = founded
        && state.applied() == LogId::default()
    {
        state.bootstrap(membership)?;
    }
    if let Some(frame) = reconcile(&mut recovered, state.applied()).map_err(MemberError::Inconsistent)? {
        log.sync()?;
        wal.append(&frame)?;
    } else if recovered.bounds == Bounds::default() && recovered.entries.is_empty() {
        // The Raft log is still empty. Write a first frame, so that a later loss of the Raft log is noticed.
        let hard_state = recovered.hard_state.clone();
        wal.append(&Frame { hard_state, ..Frame::default() })?;
    }
    let conf_state = (&state.membership().configuration).into();
    let consensus = Consensus::new(settings, recovered, state.applied(), conf_state)?;
    let member = Member::new(consensus, wal, log, Arc::clone(state.membership()), limits);
    Ok((member, state))
}

/// Make a Raft log agree with the state of the same member, which is at `applied`: after a crash either may be ahead. Return a frame
/// to save, once the state is synced, if the log had to change.
///
/// # Errors
///
/// A message that names the missing entries, if any are missing between the state and the log.
pub fn reconcile(recovered: &mut Recovered, applied: LogId) -> Result<Option<Frame>, String> {
    if applied.index < recovered.bounds.index {
        let (state, log) = (applied.index, recovered.bounds.index);
        return Err(format!("the state ends at entry {state}, but the Raft log begins after entry {log}"));
    }
    let last = recovered.entries.last().map_or(recovered.bounds.index, |entry| entry.index);
    if recovered.hard_state.commit > last {
        return Err(format!("entry {} is committed, but the Raft log ends at {last}", recovered.hard_state.commit));
    }
    let term_of_bounds = (applied.index == recovered.bounds.index).then_some(recovered.bounds.term);
    let term_of_entry = || recovered.entries.iter().find(|entry| entry.index == applied.index).map(|entry| entry.term);
    let term = term_of_bounds.or_else(term_of_entry);
    if term == Some(applied.term) {
        recovered.hard_state.commit = recovered.hard_state.commit.max(applied.index);
        return Ok(None);
    }
    if term.is_some() && applied.index <= recovered.hard_state.commit {
        return Err(format!(
            "entry {} is of term {term:?} in the Raft log, but {} in the state",
            applied.index, applied.term
        ));
    }
    // The state was fetched beyond the end of the log, or the log holds other entries there, which were never committed.
    let hard_state = &mut recovered.hard_state;
    if hard_state.term < applied.term {
        (hard_state.term, hard_state.vote) = (applied.term, 0);
    }
    hard_state.commit = applied.index;
    recovered.bounds = Bounds { index: applied.index, term: applied.term, is_reset: true };
    recovered.entries.clear();
    Ok(Some(Frame { hard_state: hard_state.clone(), bounds: Some(recovered.bounds), entries: Vec::new() }))
}
