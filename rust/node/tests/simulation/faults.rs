//! Faults to be planted, so that the simulation is known to see them: those that raftos has (`bench/raftos/README.md`), as far as
//! something around a member can bring them about, and some that a log of events could have.
//!
//! None of them is in the members: messages are changed on their way, disks lie, and what must be forgotten is forgotten in a start.

use qed_core::place::Place;
use qed_node::outbox::Completion;
use qed_node::wal::{Frame, Recovered, Wal};
use raft::Storage as _;
use raft::eraftpb::{Message, MessageType};

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
    /// A candidate or leader that steps down in its term has forgotten its vote (s02, s03).
    VoteForgottenAtStepDown,
    /// A vote of an earlier term counts in this one (s04).
    StaleVotes,
    /// An answer that comes twice counts twice (s05).
    RepeatedAnswers,
    /// Half of the members are a majority if their number is even (s06).
    HalfQuorum,
    /// A follower forgets what comes after the entries of any message (s07).
    TruncatingFollower,
    /// An acknowledgement of an earlier term counts, for all that the follower holds (s08).
    StaleAcknowledgements,
    /// What a deposed leader still had to send carries the term of its successor (s09).
    LateStamps,
    /// Whoever waits is answered by whatever is applied (s10).
    AnyAnswer,
    /// A disk confirms syncs that it does not do: what is acknowledged is not durable.
    LyingDisks,
    /// A member that starts does not know what it has applied (s12).
    AppliedTwice,
    /// Pages come without memberships.
    PagesWithoutMembers,
}

impl Fault {
    /// All of them, each with the number of runs within which it must be found.
    pub const ALL: [(Self, u64); 12] = [
        (Self::VoteForgottenAtStart, 400),
        (Self::VoteForgottenAtStepDown, 400),
        (Self::StaleVotes, 400),
        (Self::RepeatedAnswers, 2000),
        (Self::HalfQuorum, 400),
        (Self::TruncatingFollower, 400),
        (Self::StaleAcknowledgements, 4000),
        (Self::LateStamps, 100),
        (Self::AnyAnswer, 100),
        (Self::LyingDisks, 100),
        (Self::AppliedTwice, 100),
        (Self::PagesWithoutMembers, 100),
    ];

    /// Do to a disk what this fault does in a start.
    pub fn at_start(self, disk: &Disk) {
        match self {
            Self::VoteForgottenAtStart => forget_vote(disk),
            Self::AppliedTwice => {
                let (_, Recovered { bounds, .. }) = opened(disk);
                disk.forget_places_after(Place { index: bounds.index, term: bounds.term });
            }
            Self::LyingDisks => disk.lie(),
            _ => {}
        }
    }
}

impl World {
    /// Return what becomes of a message on its way.
    pub fn distorted(&mut self, flight: &Flight, message: Message) -> Vec<Message> {
        let Some(receiver) = self.hosts[&flight.to].process.as_ref() else { return vec![message] };
        let (role, log) = (receiver.member.consensus().role(), receiver.member.consensus().log());
        let is_stale = message.term != 0 && message.term < role.term;
        let is_kind = |kind| message.msg_type() == kind && !message.reject;
        let is_answer = [
            MessageType::MsgRequestVoteResponse,
            MessageType::MsgRequestPreVoteResponse,
            MessageType::MsgAppendResponse,
            MessageType::MsgHeartbeatResponse,
        ]
        .contains(&message.msg_type())
            && !message.reject;
        let voters = &receiver.state.membership().configuration.voters;
        let other = voters.iter().copied().find(|id| ![flight.from, flight.to].contains(id));
        let sender = self.hosts.get(&flight.from).and_then(|host| host.process.as_ref());
        let sender = sender.map(|process| process.member.consensus());
        let term = role.term;
        let attributed = |from| Message { from, ..message.clone() };
        match (self.fault, sender) {
            (Fault::StaleVotes, _) if is_stale && is_kind(MessageType::MsgRequestVoteResponse) => {
                vec![Message { term, ..message }]
            }
            (Fault::RepeatedAnswers, _) if flight.is_repeat && is_answer => {
                vec![other.map_or_else(|| message.clone(), attributed)]
            }
            (Fault::HalfQuorum, _) if is_answer && voters.len() % 2 == 0 => {
                other.map(attributed).into_iter().chain([message.clone()]).collect()
            }
            (Fault::StaleAcknowledgements, Some(sender))
                if is_stale && role.is_leader && is_kind(MessageType::MsgAppendResponse) =>
            {
                let index = sender.log().last_index().unwrap().min(log.last_index().unwrap());
                vec![Message { term, index, ..message }]
            }
            (Fault::LateStamps, Some(sender))
                if message.msg_type() == MessageType::MsgAppend && message.term < sender.role().term =>
            {
                vec![Message { term: sender.role().term, ..message }]
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
        let disk = &self.hosts[&to].disk;
        let (mut wal, Recovered { mut hard_state, entries, .. }) = opened(disk);
        hard_state.commit = hard_state.commit.min(last);
        let entries: Vec<_> = entries.into_iter().filter(|entry| entry.index == last).collect();
        if !entries.is_empty() {
            wal.append(&Frame { hard_state, bounds: None, entries }).unwrap();
        }
    }

    /// Let a member that has stepped down in its term forget its vote.
    pub fn step_down(&mut self, id: u64, said: &[MessageType]) {
        let Some(host) = self.hosts.get_mut(&id) else { return };
        let Some(process) = &host.process else { return };
        let role = process.member.consensus().role();
        let stood = host.stood;
        if role.is_leader || said.contains(&MessageType::MsgRequestVote) {
            host.stood = Some((role.term, role.is_leader));
            return;
        }
        let is_over = |(term, has_led): (u64, bool)| {
            term == role.term && (has_led || role.leader != 0 || said.contains(&MessageType::MsgRequestPreVote))
        };
        if self.fault == Fault::VoteForgottenAtStepDown && stood.is_some_and(is_over) {
            host.stood = None;
            self.stop(id, false, 0);
            forget_vote(&self.hosts[&id].disk);
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
}

fn opened(disk: &Disk) -> (Wal<Disk>, Recovered) {
    Wal::open(disk.clone()).unwrap()
}

fn forget_vote(disk: &Disk) {
    let (mut wal, Recovered { mut hard_state, .. }) = opened(disk);
    hard_state.vote = 0;
    wal.append(&Frame { hard_state, ..Frame::default() }).unwrap();
}
