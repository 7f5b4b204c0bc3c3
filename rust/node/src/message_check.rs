//! Checks that a message must pass before the crate `raft` sees it.
//!
//! The crate trusts its peers: some messages make it panic, others make it forget a term or a vote. Everything from the network is
//! checked here first. That does not make a dishonest member harmless, but such messages are refused.

use std::collections::BTreeSet;

use prost::Message as _;
use raft::Raft;
use raft::eraftpb::{ConfChangeV2, ConfState, EntryType, Message, MessageType};

use crate::member_id::MemberId;
use crate::membership::Membership;
use crate::raftlog::RaftLog;

/// How far ahead of this member's term a message may be: the elections of a year, if there is one every half minute.
pub const MAX_TERM_JUMP: u64 = 1 << 20;
/// From this term on, each message may add only one term, so that no number of messages can use up all terms.
pub const LAST_JUMP: u64 = 1 << 62;

/// A message that no correct member sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a message from member {:016x} was refused: {reason}", .from.map_or(0, MemberId::get))]
pub struct InvalidMessage {
    /// The sender that it names, if it names one.
    pub from: Option<MemberId>,
    /// What is wrong with it.
    pub reason: &'static str,
}

/// Check that a message comes from the member that has sent it, and that this one was not removed.
///
/// `sender` is known by its key. It need not be in the configuration of this member: a member that was away may have to learn from a
/// leader that it has never heard of, and vote for it.
///
/// # Errors
///
/// What is wrong with it; `from` is then the sender.
pub fn check_origin(sender: MemberId, message: &Message, membership: &Membership) -> Result<(), InvalidMessage> {
    // A member that passes a read on to the leader leaves the name of the one that asks in it.
    if message.from != sender.get() && message.msg_type() != MessageType::MsgReadIndex {
        return Err(InvalidMessage { from: Some(sender), reason: "it is in the name of another member" });
    }
    check_sender(sender, membership)
}

/// Check that a member was not removed.
///
/// # Errors
///
/// That it was.
pub fn check_sender(sender: MemberId, membership: &Membership) -> Result<(), InvalidMessage> {
    if membership.removed.contains_key(&sender) {
        return Err(InvalidMessage { from: Some(sender), reason: "its sender was removed from the cluster" });
    }
    Ok(())
}

/// Check a message to the member that `raft` is.
///
/// # Errors
///
/// What is wrong with it.
pub fn check_message(message: &Message, raft: &Raft<RaftLog>) -> Result<(), InvalidMessage> {
    let from = MemberId::new(message.from);
    defect(message, raft).map_or(Ok(()), |reason| Err(InvalidMessage { from, reason }))
}

fn defect(message: &Message, raft: &Raft<RaftLog>) -> Option<&'static str> {
    let kind = message.msg_type();
    // A read keeps its origin as the sender when it is forwarded, and may return there.
    let is_own = message.from == raft.id && kind != MessageType::MsgReadIndex;
    if message.to != raft.id || message.from == 0 || is_own {
        return Some("it is not from another member to this one");
    }
    // To the crate, term 0 means that a message comes from the member itself. Reads have no term: any leader answers them.
    if (message.term == 0) != (kind == MessageType::MsgReadIndex) {
        return Some("its term is invalid");
    }
    if message.term > furthest_term(raft.term) {
        return Some("its term is too far ahead of the term of this member");
    }
    match kind {
        MessageType::MsgHeartbeat => (message.term >= raft.term && message.commit > raft.raft_log.last_index())
            .then_some("its commit index is beyond the last entry of this member"),
        MessageType::MsgAppend => entries_defect(message, raft),
        MessageType::MsgAppendResponse => acknowledgement_defect(message, raft),
        MessageType::MsgSnapshot => snapshot_defect(message),
        MessageType::MsgReadIndex | MessageType::MsgReadIndexResp => {
            (message.entries.len() != 1).then_some("it does not hold exactly one read")
        }
        MessageType::MsgPropose
        | MessageType::MsgTransferLeader
        | MessageType::MsgHup
        | MessageType::MsgBeat
        | MessageType::MsgCheckQuorum
        | MessageType::MsgUnreachable
        | MessageType::MsgSnapStatus => Some("it is not a message between members"),
        MessageType::MsgHeartbeatResponse
        | MessageType::MsgRequestVote
        | MessageType::MsgRequestVoteResponse
        | MessageType::MsgRequestPreVote
        | MessageType::MsgRequestPreVoteResponse
        | MessageType::MsgTimeoutNow => None,
    }
}

/// Return the highest term to which one message may raise a member that is at `term`.
///
/// A term is saved and never lowered, so a forged one must not use up all terms. A message with a higher term is refused, but raises
/// its receiver to this one: members that are further apart, and new ones, which are at term 0, reach the same term after a few
/// messages.
#[must_use]
pub const fn furthest_term(term: u64) -> u64 {
    term.saturating_add(if term < LAST_JUMP { MAX_TERM_JUMP } else { 1 })
}

/// Return the term that the sender claims to have reached, or 0 if the message has none. A pre-vote names the next term.
#[must_use]
pub fn reached_term(message: &Message) -> u64 {
    match message.msg_type() {
        MessageType::MsgRequestPreVote => message.term.saturating_sub(1),
        MessageType::MsgRequestPreVoteResponse if !message.reject => 0,
        _ => message.term,
    }
}

fn snapshot_defect(message: &Message) -> Option<&'static str> {
    let metadata = message.get_snapshot().get_metadata();
    if metadata.index == 0 || metadata.term == 0 || metadata.term > message.term {
        return Some("its snapshot has no index or an invalid term");
    }
    (!is_possible(metadata.get_conf_state())).then_some("its snapshot has no valid configuration")
}

fn entries_defect(message: &Message, raft: &Raft<RaftLog>) -> Option<&'static str> {
    // The crate treats a missing entry as one of term 0.
    if (message.index == 0) != (message.log_term == 0) || message.log_term > message.term {
        return Some("the term of the entry before its own is missing");
    }
    let mut previous = (message.index, message.log_term);
    for entry in &message.entries {
        let is_next = previous.0.checked_add(1) == Some(entry.index) && entry.term >= previous.1;
        if !is_next || entry.term > message.term {
            return Some("its entries are not in order");
        }
        let is_change = entry.entry_type() != EntryType::EntryNormal;
        if is_change && ConfChangeV2::decode(entry.data.as_slice()).is_err() {
            return Some("its change of the configuration cannot be decoded");
        }
        let is_committed = message.term >= raft.term && entry.index <= raft.raft_log.committed;
        if is_committed && raft.raft_log.term(entry.index).is_ok_and(|term| term != 0 && term != entry.term) {
            return Some("it contradicts a committed entry");
        }
        previous = (entry.index, entry.term);
    }
    None
}

fn acknowledgement_defect(message: &Message, raft: &Raft<RaftLog>) -> Option<&'static str> {
    if message.reject {
        return (message.reject_hint > message.index).then_some("its reject hint is beyond the index that it rejects");
    }
    // A message of an earlier term may be about entries that a later leader has replaced.
    let is_heeded = raft.state == raft::StateRole::Leader && message.term == raft.term;
    let is_beyond = message.index > raft.raft_log.last_index();
    (is_heeded && is_beyond).then_some("it acknowledges entries that do not exist")
}

/// Return whether a cluster can have this configuration.
fn is_possible(configuration: &ConfState) -> bool {
    let ConfState { voters, learners, voters_outgoing, learners_next, auto_leave } = configuration;
    let are_distinct = |ids: &[u64]| !ids.contains(&0) && ids.iter().collect::<BTreeSet<_>>().len() == ids.len();
    let is_joint = !voters_outgoing.is_empty();
    let deciding = [voters.as_slice(), learners, learners_next].concat();
    !voters.is_empty()
        && are_distinct(&deciding)
        && are_distinct(voters_outgoing)
        && learners.iter().all(|id| !voters_outgoing.contains(id))
        && learners_next.iter().all(|id| voters_outgoing.contains(id))
        && (is_joint || !auto_leave)
}
