//! Faults to be planted, so that the simulation is known to see them: those that raftos has (`bench/raftos/README.md`), as far as
//! something around a member can bring them about, and some that a log of events could have.
//!
//! None of them is in the members: messages are changed on their way, disks lie, and what must be forgotten is forgotten in a start.

use qed_core::log_id::LogId;
use qed_node::member_id::MemberId;
use qed_node::outbox::Completion;
use qed_node::wal::{Bounds, Frame, Recovered, Wal};
use raft::Storage as _;
use raft::eraftpb::{ConfState, Message, MessageType};

use crate::disk::Disk;
use crate::network::Flight;
use crate::world::World;

/// What is wrong with a world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// A member that starts has forgotten its vote (s01).
    VoteForgottenAtStart,
    /// A candidate whose election ends undecided has forgotten its own vote (s02).
    VoteForgottenAtTimeOut,
    /// A candidate that hears of the leader of its term has forgotten its own vote (s02b).
    VoteForgottenToALeader,
    /// A leader that steps down in its term has forgotten its vote (s03).
    VoteForgottenByALeader,
    /// A vote of an earlier term counts in this one (s04).
    StaleVotes,
    /// A vote that comes twice counts twice (s05).
    RepeatedVotes,
    /// Half of the votes are enough if their number is even (s06).
    HalfOfTheVotes,
    /// Half of the voters, rounded down, are enough to commit.
    HalfOfTheCopies,
    /// A follower forgets what comes after the entries of any message (s07).
    TruncatingFollower,
    /// An acknowledgement of an earlier term counts, for all that the follower holds (s08).
    StaleAcknowledgements,
    /// What a deposed leader still had to send carries the term of its successor (s09).
    LateStamps,
    /// Whoever waits is answered by whatever is applied (s10).
    AnyAnswer,
    /// A member that starts does not know what it has applied (s12).
    AppliedTwice,
    /// A member answers reads from what it has, and asks nobody (s13).
    ReadsOfAnyMember,
    /// A leader answers reads without asking whether it still leads.
    ReadsOfDeposedLeaders,
    /// A leader answers reads before it has committed an entry of its term.
    ReadsOfEarlyLeaders,
    /// Entries are acknowledged before they are synced; term and vote are not lost.
    UnsyncedEntries,
    /// A disk confirms syncs that it does not do, of term and vote as well.
    LyingDisks,
    /// Pages come without memberships.
    PagesWithoutMembers,
    /// Messages with a snapshot come without its configuration.
    SnapshotsWithoutConfiguration,
    /// Messages with a snapshot come with a configuration of earlier.
    SnapshotsOfAnOldConfiguration,
    /// A member believes what a message says of its sender.
    UncheckedSenders,
}

/// A fault that must be found.
#[derive(Debug, Clone, Copy)]
pub struct Planted {
    /// Which.
    pub fault: Fault,
    /// The number of runs within which it must be.
    pub runs: u64,
    /// The promises of which it must break one. That a member stops, or does not start, is no proof that its fault was seen.
    pub breaks: &'static [&'static str],
}

const fn planted(fault: Fault, runs: u64, breaks: &'static [&'static str]) -> Planted {
    Planted { fault, runs, breaks }
}

/// All that are planted.
pub const PLANTED: [Planted; 22] = [
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
    planted(Fault::AnyAnswer, 100, &["who waits gets what was asked for"]),
    planted(Fault::AppliedTwice, 100, &["equal logs at equal indices"]),
    planted(Fault::ReadsOfAnyMember, 100, STALE_READS),
    planted(Fault::ReadsOfDeposedLeaders, 400, STALE_READS),
    planted(Fault::ReadsOfEarlyLeaders, 400, STALE_READS),
    planted(Fault::UnsyncedEntries, 400, &["leaders are complete", "what is acknowledged is kept"]),
    planted(Fault::LyingDisks, 100, &["terms only grow", "votes are remembered"]),
    planted(Fault::PagesWithoutMembers, 100, &["equal membership at equal indices"]),
    planted(Fault::SnapshotsWithoutConfiguration, 100, &["all converge"]),
    planted(Fault::SnapshotsOfAnOldConfiguration, 400, &["equal membership at equal indices"]),
    planted(Fault::UncheckedSenders, 400, &["one leader a term"]),
];

/// What comes of an entry that is taken for committed and is not.
const LOST_ENTRIES: &[&str] =
    &["leaders are complete", "what is committed is committed everywhere", "what is acknowledged is kept"];
const STALE_READS: &[&str] = &["reads show what was acknowledged"];
/// Entries that a power cut takes if they are not synced.
const MOST_UNSYNCED: u64 = 3;

impl Fault {
    /// Return whether it is to break a promise before everything converges.
    pub const fn is_brief(self) -> bool {
        !matches!(self, Self::None | Self::SnapshotsWithoutConfiguration)
    }

    /// Do to a disk what this fault does in a start.
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
    /// Return what becomes of a message on its way.
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
        // Another voter, in whose name an answer counts once more.
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
            // What the receiver knows is as old as its log.
            (Fault::SnapshotsOfAnOldConfiguration, _) if is_snapshot && !voters.is_empty() => {
                vec![with_configuration(message, configuration.into())]
            }
            _ => vec![message],
        }
    }

    /// Let a follower forget what comes after the entries of a message.
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

    /// Let a disk that has lost its power lose entries that were acknowledged.
    pub fn lose_entries(&mut self, id: u64) {
        if self.fault == Fault::UnsyncedEntries {
            let disk = &self.hosts[&id].disk;
            let count = self.random.within(0, MOST_UNSYNCED);
            let (_, Recovered { bounds, entries, .. }) = opened(disk);
            let last = entries.last().map_or(bounds.index, |entry| entry.index);
            forget_entries_after(disk, last.saturating_sub(count));
        }
    }

    /// Let a member that has stepped down in its term forget its vote.
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
                // With what it has appended since, which nobody but itself could commit: after an entry of its term, it votes for no
                // rival of that term, for whose log is behind. The leaders of raftos append none.
                forget_entries_after(disk, earlier);
            }
            forget_vote(disk);
        }
    }

    /// Let a candidate forget its vote when the leader of its term speaks.
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

    /// Return the answers that those who wait get.
    pub fn mistaken(&mut self, id: u64, mut completions: Vec<Completion>) -> Vec<Completion> {
        let tickets: Vec<_> = completions.iter().map(|completion| completion.ticket).collect();
        let other = self.clients.appends_at(id).find(|ticket| !tickets.contains(ticket));
        if let (Fault::AnyAnswer, Some(other), Some(first)) = (self.fault, other, completions.first_mut()) {
            first.ticket = other;
        }
        completions
    }

    /// Return whether a member answers a read at once, from what it has.
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
