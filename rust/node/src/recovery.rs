//! Recovery: what a member goes on from after a stop of any kind, wherever its log and its Raft log are kept.

use std::sync::Arc;

use qed_core::log::Log;
use qed_core::place::Place;

use crate::consensus::{Consensus, Settings, reconcile};
use crate::media::Media;
use crate::member::{Limits, Member, MemberError};
use crate::membership::Membership;
use crate::state::State;
use crate::wal::{Bounds, Frame, Recovered, Wal};

/// Return a member and its state, from its log and its Raft log, made to agree. `founded` is the membership that a member begins
/// with if its log knows none.
///
/// # Errors
///
/// [`MemberError`] if they cannot be read or contradict each other. What is on disk is unchanged then, or as after a crash.
pub fn recover<M: Media>(
    log: Arc<Log>,
    media: M,
    founded: Option<Membership>,
    settings: Settings,
    limits: Limits,
) -> Result<(Member<M>, State), MemberError> {
    go_on(log, Wal::open(media)?, founded, settings, limits)
}

/// As [`recover`], with a Raft log that was opened already.
///
/// # Errors
///
/// As [`recover`].
pub fn go_on<M: Media>(
    log: Arc<Log>,
    (mut wal, mut recovered): (Wal<M>, Recovered),
    founded: Option<Membership>,
    settings: Settings,
    limits: Limits,
) -> Result<(Member<M>, State), MemberError> {
    let mut state = State::open(Arc::clone(&log))?;
    if let Some(membership) = founded
        && state.applied() == Place::default()
    {
        state.bootstrap(membership)?;
    }
    if let Some(frame) = reconcile(&mut recovered, state.applied()).map_err(MemberError::Inconsistent)? {
        log.sync()?;
        wal.append(&frame)?;
    } else if recovered.bounds == Bounds::default() && recovered.entries.is_empty() {
        // Nothing is recorded yet, not even that: a Raft log that is lost later must be missed.
        let hard_state = recovered.hard_state.clone();
        wal.append(&Frame { hard_state, ..Frame::default() })?;
    }
    let conf_state = (&state.membership().configuration).into();
    let consensus = Consensus::new(settings, recovered, state.applied(), conf_state)?;
    let member = Member::new(consensus, wal, log, Arc::clone(state.membership()), limits);
    Ok((member, state))
}
