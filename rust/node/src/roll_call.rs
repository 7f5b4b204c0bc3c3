//! The roll call: what a member asks the others when it starts, because its folder may be an old copy.
//!
//! Raft assumes that a member never forgets its votes, nor the entries that it has acknowledged. A folder that was put back from a
//! copy has forgotten both. The others have not: a candidate is in the term of the votes that it received, and the leader of a term
//! has the entries that were acknowledged to it. So a member that starts asks all other voters how far they are. Until it has their answers
//! it takes no part in Raft. Then it skips the terms that any of them has reached, and until its log is as up to date as the best of
//! theirs, it votes only for candidates whose log is, and is no candidate itself. DECISIONS.md, 40, says why that is enough.
//!
//! If some do not answer, their silence must not stop a cluster that could go on otherwise: after a while the member trusts its folder, as Raft does,
//! unless an answer has proven that the folder is an old copy.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use prost::Message as _;
use qed_core::log_id::LogId;
use raft::eraftpb::{ConfChangeType, ConfChangeV2, Entry, EntryType, Message, MessageType};

use crate::member_id::MemberId;
use crate::message_check::reached_term;
use crate::notice::{Answer, Mark, Position};

/// For how many times as long as it asks, a member that is behind leaves elections to the others.
const PATIENCES_BEHIND: usize = 4;

/// What one member remembers of the others, from the messages that it has received.
#[derive(Debug, Default)]
pub struct Marks {
    marks: BTreeMap<MemberId, Mark>,
    /// The nonce of the last question of each.
    nonces: BTreeMap<MemberId, u64>,
}

impl Marks {
    /// Note a message that has passed its checks.
    pub fn note(&mut self, message: &Message) {
        let Some(from) = MemberId::new(message.from) else { return };
        let (mark, term) = (self.marks.entry(from).or_default(), reached_term(message));
        if term > mark.term {
            *mark = Mark { term, acknowledged: 0 };
        }
        let is_acknowledgement = message.msg_type() == MessageType::MsgAppendResponse && !message.reject;
        if is_acknowledgement && term == mark.term {
            mark.acknowledged = mark.acknowledged.max(message.index);
        }
    }

    /// Return what it remembers of a member.
    #[must_use]
    pub fn of(&self, id: MemberId) -> Mark {
        self.marks.get(&id).copied().unwrap_or_default()
    }

    /// Note the nonce of a question; return whether it is new, so that the member has started since the last one.
    pub fn note_start(&mut self, id: MemberId, nonce: u64) -> bool {
        self.nonces.insert(id, nonce) != Some(nonce)
    }
}

/// The proof that a folder is an old copy: what another member remembers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Contradiction {
    /// The member that remembers it.
    pub witness: MemberId,
    /// What it remembers.
    pub mark: Mark,
    /// What the folder held at the start.
    pub found: Position,
}

impl fmt::Display for Contradiction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { mark, found, .. } = self;
        write!(
            f,
            "the data folder is an old copy: it ends at entry {} in term {}, but this member has acknowledged entry {} in term {}",
            found.last.index, found.term, mark.acknowledged, mark.term
        )
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Asking,
    /// The log is not as up to date as this.
    Behind(LogId),
    Over,
    /// The member takes no part in Raft any more.
    Retired,
}

/// The roll call of one start.
#[derive(Debug)]
pub struct RollCall {
    nonce: u64,
    /// How far the member was at its start.
    start: Position,
    phase: Phase,
    ticks: usize,
    /// The tick at which there was a first sign of another member, or of its absence: from then on, streams to them are opened.
    contact: Option<usize>,
    /// Ticks after which it stops asking; `None` if it needs all answers.
    patience: Option<usize>,
    /// The last entry of a change of voters that anybody has applied, and the voters there.
    applied: u64,
    voters: BTreeSet<MemberId>,
    /// Members that later entries of the own log make voters, and those entries.
    promoted: BTreeMap<MemberId, u64>,
    answers: BTreeMap<MemberId, Answer>,
    contradiction: Option<Contradiction>,
}

impl RollCall {
    /// Return the roll call of a member that has nothing to ask: it is new, or the only voter.
    #[must_use]
    pub const fn needless(nonce: u64) -> Self {
        Self {
            nonce,
            start: Position { term: 0, last: LogId { index: 0, term: 0 } },
            phase: Phase::Over,
            ticks: 0,
            contact: None,
            patience: None,
            applied: 0,
            voters: BTreeSet::new(),
            promoted: BTreeMap::new(),
            answers: BTreeMap::new(),
            contradiction: None,
        }
    }

    /// Return the roll call of a member that starts at `start`. It waits for the others for `patience` ticks from the first
    /// sign of any, or, if that is `None`, for as
    /// long as it takes. Entries of its log that it has not applied make voters of `promoted`.
    #[must_use]
    pub fn begin(nonce: u64, start: Position, patience: Option<usize>, promoted: BTreeMap<MemberId, u64>) -> Self {
        Self { start, phase: Phase::Asking, patience, promoted, ..Self::needless(nonce) }
    }

    /// Take no part in Raft any more.
    pub const fn retire(&mut self) {
        self.phase = Phase::Retired;
    }

    /// Return the nonce of its questions.
    #[must_use]
    pub const fn nonce(&self) -> u64 {
        self.nonce
    }

    /// Return whether the member takes no part in Raft: it waits for answers, or has retired.
    #[must_use]
    pub const fn is_asking(&self) -> bool {
        matches!(self.phase, Phase::Asking | Phase::Retired)
    }

    /// Return the entry that a log must be as up to date as, if the member's own is not.
    #[must_use]
    pub const fn floor(&self) -> Option<LogId> {
        if let Phase::Behind(floor) = self.phase { Some(floor) } else { None }
    }

    /// Return the proof that the folder is an old copy, if there is one and the member has not caught up.
    #[must_use]
    pub fn contradiction(&self) -> Option<Contradiction> {
        self.contradiction.filter(|_| self.phase != Phase::Over)
    }

    /// Let a tick pass. Return whether the questions are due again, if they are repeated every `period` ticks.
    pub const fn tick(&mut self, period: usize) -> bool {
        self.ticks += 1;
        self.ticks.is_multiple_of(period)
    }

    /// Note a sign of another member, or of its absence.
    pub fn note_contact(&mut self) {
        self.contact.get_or_insert(self.ticks);
    }

    /// Return whether there was a first sign of the others, and so many ticks have passed since.
    fn is_past(&self, ticks: usize) -> bool {
        self.contact.is_some_and(|contact| self.ticks - contact >= ticks)
    }

    /// Note who the voters are after entry `applied`.
    pub fn learn(&mut self, applied: u64, voters: impl IntoIterator<Item = MemberId>) {
        if applied >= self.applied {
            (self.applied, self.voters) = (applied, voters.into_iter().collect());
            self.promoted.retain(|_, entry| *entry > applied);
        }
    }

    /// Note an answer; one to another start is ignored.
    pub fn note(&mut self, from: MemberId, answer: Answer) {
        if self.phase != Phase::Asking || answer.nonce != self.nonce {
            return;
        }
        self.learn(answer.applied, answer.voters.iter().copied());
        let (mark, found) = (answer.mark, self.start);
        // Within one term a log only grows beyond what was acknowledged to the leader. In later terms it may have become shorter.
        let is_lost = found.term < mark.term || (found.term == mark.term && found.last.index < mark.acknowledged);
        if is_lost {
            self.contradiction.get_or_insert(Contradiction { witness: from, mark, found });
        }
        self.answers.insert(from, answer);
    }

    /// Return the other voters that have not answered.
    #[must_use]
    pub fn awaited(&self, own: MemberId) -> Vec<MemberId> {
        if self.phase == Phase::Retired {
            return Vec::new();
        }
        let asked: BTreeSet<_> = self.voters.iter().chain(self.promoted.keys()).copied().collect();
        asked.into_iter().filter(|id| *id != own && !self.answers.contains_key(id)).collect()
    }

    /// Stop asking if everybody has answered, or it has lasted for too long. Return the highest term of those that have answered.
    pub fn close(&mut self, own: MemberId) -> Option<u64> {
        let is_late = self.contradiction.is_none() && self.patience.is_some_and(|patience| self.is_past(patience));
        if self.phase != Phase::Asking || !(is_late || self.awaited(own).is_empty()) {
            return None;
        }
        let positions = || self.answers.values().map(|answer| answer.position);
        // A member that still had a leader does not follow a candidate to its term, but remembers having heard it there.
        let terms = self.answers.values().map(|answer| answer.position.term.max(answer.mark.term));
        let floor = positions().map(|position| position.last).max_by_key(|last| (last.term, last.index));
        self.phase = Phase::Behind(floor.unwrap_or_default());
        Some(terms.max().unwrap_or(0))
    }

    /// End being behind, if the log, whose last entry is `last`, has caught up, or that takes too long.
    pub fn catch_up(&mut self, last: LogId) {
        let is_proven = self.contradiction.is_some();
        let limit = self.patience.filter(|_| !is_proven).map(|patience| patience * PATIENCES_BEHIND);
        let is_late = limit.is_some_and(|limit| self.is_past(limit));
        if self.floor().is_some_and(|floor| is_late || is_up_to_date(last, floor)) {
            self.phase = Phase::Over;
        }
    }

    /// Return whether the member must not heed a message: it asks for a vote that the member may owe to a better log, or to be a
    /// candidate.
    #[must_use]
    pub fn is_premature(&self, message: &Message) -> bool {
        let Some(floor) = self.floor() else { return false };
        let last = LogId { index: message.index, term: message.log_term };
        match message.msg_type() {
            MessageType::MsgRequestVote | MessageType::MsgRequestPreVote => !is_up_to_date(last, floor),
            kind => kind == MessageType::MsgTimeoutNow,
        }
    }
}

/// Return the members that entries after `applied` make voters, and those entries.
#[must_use]
pub fn promoted_after(applied: u64, entries: &[Entry]) -> BTreeMap<MemberId, u64> {
    let later = entries.iter().filter(|entry| entry.index > applied && entry.entry_type() != EntryType::EntryNormal);
    let decoded = later.filter_map(|entry| Some((entry.index, ConfChangeV2::decode(entry.data.as_slice()).ok()?)));
    let promotions = decoded.flat_map(|(index, change)| change.changes.into_iter().map(move |single| (index, single)));
    promotions
        .filter(|(_, single)| single.change_type() == ConfChangeType::AddNode)
        .filter_map(|(index, single)| Some((MemberId::new(single.node_id)?, index)))
        .collect()
}

/// Raft's order of logs by their last entries (section 5.4.1 of its paper).
fn is_up_to_date(last: LogId, than: LogId) -> bool {
    (last.term, last.index) >= (than.term, than.index)
}

#[cfg(test)]
mod tests;
