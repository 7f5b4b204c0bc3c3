//! Planted faults, which show that the simulation can find them: those that raftos has (`bench/raftos/README.md`), as far as they can
//! be caused from outside a member, and some that only a log of events can have.
//!
//! The members themselves contain none of these faults: messages are changed in transit, disks lie, and state is erased from the disk
//! before a start.

use std::sync::Arc;

use qed_core::log::Log;
use qed_core::log_id::LogId;
use qed_node::consensus::Committed;
use qed_node::member_id::MemberId;
use qed_node::notice::{Answer, Mark, Notice, Position};
use qed_node::outbox::Completion;
use qed_node::state::State;
use qed_node::wal::{Bounds, Frame, Recovered, Wal};
use raft::eraftpb::{ConfState, EntryType, Message, MessageType};
use raft::{GetEntriesContext, Storage as _};

use crate::disk::Disk;
use crate::invariants::Violation;
use crate::network::Flight;
use crate::signatures::{ONE_HISTORY, ONE_ROOT};
use crate::world::World;

/// The fault in a world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// A member forgets its vote when it starts (s01).
    VoteForgottenAtStart,
    /// A candidate forgets its vote for itself when its election ends undecided (s02).
    VoteForgottenAtTimeOut,
    /// A candidate forgets its vote for itself when the leader of its term contacts it (s02b).
    VoteForgottenToALeader,
    /// A leader forgets its vote when it steps down within its term (s03).
    VoteForgottenByALeader,
    /// A vote from an earlier term counts in the current one (s04).
    StaleVotes,
    /// A vote that arrives twice counts twice (s05).
    RepeatedVotes,
    /// Half of the votes are enough if the number of voters is even (s06).
    HalfOfTheVotes,
    /// Half of the voters, rounded down, are enough to commit.
    HalfOfTheCopies,
    /// A follower deletes all entries after those in the latest message, even if they do not conflict (s07).
    TruncatingFollower,
    /// An acknowledgement from an earlier term counts as one for everything that the follower has (s08).
    StaleAcknowledgements,
    /// Messages that a deposed leader had not sent yet carry the term of its successor (s09).
    LateStamps,
    /// A waiting client is answered with the result of any applied entry (s10).
    AnyAnswer,
    /// A member does not know after a start which entries it has applied (s12).
    AppliedTwice,
    /// A member answers reads from its own state, without asking any other member (s13).
    ReadsOfAnyMember,
    /// A leader answers reads without checking that it is still the leader.
    ReadsOfDeposedLeaders,
    /// A leader answers reads before it has committed an entry of its own term.
    ReadsOfEarlyLeaders,
    /// Entries are acknowledged before they are synced; term and vote are not affected.
    UnsyncedEntries,
    /// A disk confirms syncs without doing them, including those of term and vote.
    LyingDisks,
    /// A follower sends its votes and acknowledgements before it has synced what they promise.
    AnswersBeforeSync,
    /// Pages lack their memberships.
    PagesWithoutMembers,
    /// Snapshot messages lack their configuration.
    SnapshotsWithoutConfiguration,
    /// Snapshot messages carry an older configuration.
    SnapshotsOfAnOldConfiguration,
    /// A member believes what a message says of its sender.
    UncheckedSenders,
    /// A member on an old copy of its disk is not told what it had promised.
    VoteAfterAnOldCopy,
    /// A leader admits a member that nobody has vouched for.
    PromotionWithoutAdmission,
    /// A leader signs the tree that its log will have, before the entries are committed.
    SignBeforeCommit,
    /// The sign memory is written, but not synced.
    UnsyncedMemory,
    /// A log is not compared with the sign memory before it is signed.
    MemoryNotAsked,
    /// A member without a sign memory signs as if the log had signed nothing.
    NewMemoryTrusted,
    /// A log that lost signed entries admits new members, which remember nothing.
    AdmissionWhileHalted,
    /// The root in memory is signed without comparing it with the stored tiles.
    SelfCheckLeftOut,
}

/// A fault that the simulation must find.
#[derive(Debug, Clone, Copy)]
pub struct Planted {
    /// The fault.
    pub fault: Fault,
    /// The number of runs within which it must be found.
    pub runs: u64,
    /// The invariants of which the fault must break one. If a member stops or does not start, that does not prove that its fault was
    /// detected.
    pub breaks: &'static [&'static str],
}

const fn planted(fault: Fault, runs: u64, breaks: &'static [&'static str]) -> Planted {
    Planted { fault, runs, breaks }
}

/// All planted faults.
pub const PLANTED: [Planted; 31] = [
    planted(Fault::VoteForgottenAtStart, 1000, &["votes are remembered"]),
    planted(Fault::VoteForgottenAtTimeOut, 400, &["votes are remembered"]),
    planted(Fault::VoteForgottenToALeader, 1500, &["votes are remembered"]),
    planted(Fault::VoteForgottenByALeader, 1500, &["votes are remembered"]),
    planted(Fault::StaleVotes, 400, &["one leader a term"]),
    planted(Fault::RepeatedVotes, 400, &["one leader a term"]),
    planted(Fault::HalfOfTheVotes, 400, &["one leader a term"]),
    planted(Fault::HalfOfTheCopies, 400, LOST_ENTRIES),
    planted(Fault::TruncatingFollower, 400, LOST_ENTRIES),
    planted(Fault::StaleAcknowledgements, 2000, LOST_ENTRIES),
    planted(Fault::LateStamps, 100, &["one leader a term"]),
    planted(Fault::AnyAnswer, 100, &["each client gets the answer to its own request"]),
    planted(Fault::AppliedTwice, 100, &["equal logs at equal indices"]),
    planted(Fault::ReadsOfAnyMember, 100, STALE_READS),
    planted(Fault::ReadsOfDeposedLeaders, 400, STALE_READS),
    planted(Fault::ReadsOfEarlyLeaders, 400, STALE_READS),
    planted(Fault::UnsyncedEntries, 400, &["leaders are complete", "what is acknowledged is kept"]),
    planted(Fault::LyingDisks, 100, &["terms only grow", "votes are remembered"]),
    planted(
        Fault::AnswersBeforeSync,
        400,
        &["votes are remembered", "leaders are complete", "what is acknowledged is kept"],
    ),
    planted(Fault::PagesWithoutMembers, 100, &["equal membership at equal indices"]),
    planted(Fault::SnapshotsWithoutConfiguration, 100, &["all converge"]),
    planted(Fault::SnapshotsOfAnOldConfiguration, 400, &["equal membership at equal indices"]),
    planted(Fault::UncheckedSenders, 400, &["one leader a term"]),
    planted(Fault::VoteAfterAnOldCopy, 400, &["votes are remembered", "one leader a term", "leaders are complete"]),
    planted(Fault::PromotionWithoutAdmission, 100, &["voters were admitted"]),
    planted(Fault::SignBeforeCommit, 100, FORKS),
    planted(Fault::UnsyncedMemory, 400, FORKS),
    planted(Fault::MemoryNotAsked, 400, FORKS),
    planted(Fault::NewMemoryTrusted, 400, FORKS),
    planted(Fault::AdmissionWhileHalted, 1000, FORKS),
    planted(Fault::SelfCheckLeftOut, 100, FORKS),
];

/// The consequences if an entry counts as committed although it is not.
const LOST_ENTRIES: &[&str] =
    &["leaders are complete", "what is committed is committed everywhere", "what is acknowledged is kept"];
/// Two signed checkpoints that contradict each other.
const FORKS: &[&str] = &[ONE_ROOT, ONE_HISTORY];
const STALE_READS: &[&str] = &["reads show what was acknowledged"];
/// The greatest number of unsynced entries that a power cut loses.
const MOST_UNSYNCED: u64 = 3;

impl Fault {
    /// Return whether this fault must break an invariant before the cluster converges.
    pub const fn is_brief(self) -> bool {
        !matches!(self, Self::None | Self::SnapshotsWithoutConfiguration)
    }

    /// Return whether this is a fault of what signs.
    pub const fn is_of_signing(self) -> bool {
        matches!(self, Self::SignBeforeCommit | Self::SelfCheckLeftOut) || self.needs_restore()
    }

    /// Return whether this fault shows only when entries are lost that were signed.
    pub const fn needs_restore(self) -> bool {
        matches!(
            self,
            Self::UnsyncedMemory | Self::MemoryNotAsked | Self::NewMemoryTrusted | Self::AdmissionWhileHalted
        )
    }

    /// Return the notice that arrives instead of `notice`.
    pub fn blanked(self, notice: Notice) -> Notice {
        // Otherwise the others would remind the member of the vote that it has forgotten.
        let forgets = matches!(
            self,
            Self::VoteAfterAnOldCopy
                | Self::VoteForgottenAtStart
                | Self::VoteForgottenAtTimeOut
                | Self::VoteForgottenToALeader
                | Self::VoteForgottenByALeader
        );
        match notice {
            Notice::Answer(answer) if forgets => {
                Notice::Answer(Answer { position: Position::default(), mark: Mark::default(), ..answer })
            }
            notice => notice,
        }
    }

    /// Change the disk as this fault does at a start.
    pub fn at_start(self, disk: &Disk) {
        match self {
            Self::VoteForgottenAtStart => forget_vote(disk),
            Self::AppliedTwice => {
                let (_, Recovered { bounds, .. }) = opened(disk);
                disk.forget_log_ids_after(LogId { index: bounds.index, term: bounds.term });
            }
            Self::LyingDisks => disk.lie(),
            _ => {}
        }
    }
}

impl World {
    /// Return the messages that arrive instead of `message`.
    pub fn distorted(&self, flight: &Flight, message: Message) -> Vec<Message> {
        let Some(receiver) = self.hosts[&flight.to].process.as_ref() else { return vec![message] };
        let (role, log) = (receiver.member.consensus().role(), receiver.member.consensus().log());
        let is_stale = message.term != 0 && message.term < role.term;
        let is_granted = |kind| message.msg_type() == kind && !message.reject;
        let is_vote = is_granted(MessageType::MsgRequestVoteResponse);
        let is_copy = is_granted(MessageType::MsgAppendResponse);
        let is_snapshot = message.msg_type() == MessageType::MsgSnapshot;
        let configuration = &receiver.state.membership().configuration;
        let voters: Vec<_> = configuration.voters.iter().copied().map(MemberId::get).collect();
        // Another voter: the answer is delivered a second time in its name.
        let other = voters.iter().copied().find(|id| ![flight.from, flight.to].contains(id));
        let other = other.filter(|_| voters.contains(&flight.from));
        let sender = self.hosts.get(&flight.from).and_then(|host| host.process.as_ref());
        let sender = sender.map(|process| process.member.consensus());
        let attributed = |from| Message { from, ..message.clone() };
        match (self.fault, sender) {
            (Fault::StaleVotes, _) if is_stale && is_vote => vec![Message { term: role.term, ..message }],
            (Fault::RepeatedVotes, _) if flight.is_repeat && is_vote => {
                vec![other.map_or_else(|| message.clone(), attributed)]
            }
            (Fault::HalfOfTheVotes, _) if is_vote && voters.len() % 2 == 0 => {
                other.map(attributed).into_iter().chain([message.clone()]).collect()
            }
            (Fault::HalfOfTheCopies, _) if is_copy && voters.len() >= 4 => {
                other.map(attributed).into_iter().chain([message.clone()]).collect()
            }
            (Fault::StaleAcknowledgements, Some(sender)) if is_stale && role.is_leader && is_copy => {
                let index = sender.log().last_index().unwrap().min(log.last_index().unwrap());
                vec![Message { term: role.term, index, ..message }]
            }
            (Fault::LateStamps, Some(sender))
                if message.msg_type() == MessageType::MsgAppend && message.term < sender.role().term =>
            {
                vec![Message { term: sender.role().term, ..message }]
            }
            (Fault::SnapshotsWithoutConfiguration, _) if is_snapshot => {
                vec![with_configuration(message, ConfState::default())]
            }
            // The configuration that the receiver knows is as old as its log.
            (Fault::SnapshotsOfAnOldConfiguration, _) if is_snapshot && !voters.is_empty() => {
                vec![with_configuration(message, configuration.into())]
            }
            _ => vec![message],
        }
    }

    /// Make a follower forget all entries after those in a message.
    pub fn truncate(&mut self, to: u64, message: &Message) {
        let last = message.index + message.entries.len() as u64;
        let Some(process) = self.hosts[&to].process.as_ref() else { return };
        let consensus = process.member.consensus();
        let is_taken = message.msg_type() == MessageType::MsgAppend && message.term == consensus.role().term;
        if self.fault != Fault::TruncatingFollower || !is_taken || consensus.log().last_index().unwrap() <= last {
            return;
        }
        self.stop(to, false, 0);
        forget_entries_after(&self.hosts[&to].disk, last);
    }

    /// Make a disk that has lost its power also lose entries that were acknowledged.
    pub fn lose_entries(&mut self, id: u64) {
        if self.fault == Fault::UnsyncedEntries {
            let disk = &self.hosts[&id].disk;
            let count = self.random.within(0, MOST_UNSYNCED);
            let (_, Recovered { bounds, entries, .. }) = opened(disk);
            let last = entries.last().map_or(bounds.index, |entry| entry.index);
            forget_entries_after(disk, last.saturating_sub(count));
        }
    }

    /// Sign, as a leader, the tree that the log will have once all of the leader's entries are applied.
    pub fn sign_early(&mut self, id: u64) -> Result<(), Violation> {
        let host = &self.hosts[&id];
        let Some(process) = &host.process else { return Ok(()) };
        let (log, applied) = (process.member.consensus().log(), process.state.applied().index);
        let rows = host.disk.twin().rows();
        let mut state = State::open(Arc::new(Log::over(Box::new(rows)).unwrap())).unwrap();
        let last = log.last_index().unwrap();
        let from = log.first_index().unwrap().max(applied + 1);
        let entries = log.entries(from, last + 1, None, GetEntriesContext::empty(false)).unwrap_or_default();
        for entry in entries.into_iter().take_while(|entry| entry.entry_type() == EntryType::EntryNormal) {
            let log_id = LogId { index: entry.index, term: entry.term };
            let committed = Committed { log_id, data: entry.data.clone(), conf_state: None };
            // A leader's entry may rest on one before it that will never be committed.
            if state.apply(&committed, false).is_err() {
                break;
            }
        }
        let head = state.log().tree_head().unwrap();
        if head.size() > process.state.log().len() {
            let checkpoint = self.signatures.checkpoint(head);
            self.signatures.sign(id, &checkpoint, state.log())?;
        }
        Ok(())
    }

    /// Make a member that has stepped down within its term forget its vote.
    pub fn step_down(&mut self, id: u64, said: &[MessageType]) {
        let Some(host) = self.hosts.get_mut(&id) else { return };
        let Some(process) = &host.process else { return };
        let role = process.member.consensus().role();
        if role.is_leader || said.contains(&MessageType::MsgRequestVote) {
            host.stood = Some((role.term, role.is_leader));
            return;
        }
        let Some((_, has_led)) = host.stood.filter(|(term, _)| *term == role.term) else { return };
        let forgets = match self.fault {
            Fault::VoteForgottenAtTimeOut => !has_led && said.contains(&MessageType::MsgRequestPreVote),
            Fault::VoteForgottenByALeader => has_led,
            _ => false,
        };
        if forgets {
            let (log, commit) = (process.member.consensus().log(), process.member.consensus().commit_index());
            let is_earlier = |index: &u64| log.term(*index).is_ok_and(|of_entry| of_entry < role.term);
            let earlier = (commit..=log.last_index().unwrap()).rev().find(is_earlier).unwrap_or(commit);
            self.stop(id, false, 0);
            let disk = &self.hosts[&id].disk;
            if has_led {
                // Also forget what it has appended in this term, which only it could have committed. With an entry of this term it
                // would not vote for any rival of the same term, because the rival's log would be behind. Leaders in raftos append no
                // entry.
                forget_entries_after(disk, earlier);
            }
            forget_vote(disk);
        }
    }

    /// Make a candidate forget its vote when it receives a message from the leader of its term.
    pub fn give_in(&mut self, to: u64, message: &Message) {
        let Some(host) = self.hosts.get(&to) else { return };
        let Some(process) = &host.process else { return };
        let role = process.member.consensus().role();
        let is_leaders = [MessageType::MsgAppend, MessageType::MsgHeartbeat].contains(&message.msg_type());
        let stands = host.stood == Some((role.term, false)) && role.leader.is_none();
        if self.fault == Fault::VoteForgottenToALeader && is_leaders && message.term == role.term && stands {
            self.stop(to, false, 0);
            forget_vote(&self.hosts[&to].disk);
        }
    }

    /// Return the answers that the waiting clients get.
    pub fn mistaken(&mut self, id: u64, mut completions: Vec<Completion>) -> Vec<Completion> {
        let tickets: Vec<_> = completions.iter().map(|completion| completion.ticket).collect();
        let other = self.clients.appends_at(id).find(|ticket| !tickets.contains(ticket));
        if let (Fault::AnyAnswer, Some(other), Some(first)) = (self.fault, other, completions.first_mut()) {
            first.ticket = other;
        }
        completions
    }

    /// Return whether a member answers a read immediately, from its own state.
    pub fn is_hasty(&self, id: u64) -> bool {
        let Some(process) = self.hosts[&id].process.as_ref() else { return false };
        let (consensus, is_leader) = (process.member.consensus(), process.member.consensus().role().is_leader);
        let is_early = || consensus.log().term(consensus.commit_index()).is_ok_and(|term| term < consensus.role().term);
        match self.fault {
            Fault::ReadsOfAnyMember => true,
            Fault::ReadsOfDeposedLeaders => is_leader && !is_early(),
            Fault::ReadsOfEarlyLeaders => is_leader && is_early(),
            _ => false,
        }
    }
}

fn opened(disk: &Disk) -> (Wal<Disk>, Recovered) {
    Wal::open(disk.clone()).unwrap()
}

fn with_configuration(mut message: Message, configuration: ConfState) -> Message {
    message.mut_snapshot().mut_metadata().set_conf_state(configuration);
    message
}

fn forget_entries_after(disk: &Disk, last: u64) {
    let (mut wal, Recovered { mut hard_state, bounds, mut entries, .. }) = opened(disk);
    entries.retain(|entry| entry.index <= last);
    hard_state.commit = hard_state.commit.min(last.max(bounds.index));
    wal.append(&Frame { hard_state, bounds: Some(Bounds { is_reset: true, ..bounds }), entries }).unwrap();
}

fn forget_vote(disk: &Disk) {
    let (mut wal, Recovered { mut hard_state, .. }) = opened(disk);
    hard_state.vote = 0;
    wal.append(&Frame { hard_state, ..Frame::default() }).unwrap();
}
