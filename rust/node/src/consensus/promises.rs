//! The part of [`Consensus`] that keeps promises which the folder may have forgotten: the roll call, with both its ends.

use qed_core::log_id::LogId;
use raft::eraftpb::{Message, MessageType};
use raft::{INVALID_ID, StateRole};

use super::{Consensus, Settings, members};
use crate::member_id::MemberId;
use crate::message_check::{InvalidMessage, furthest_term};
use crate::notice::{Answer, Notice, Position, Question};
use crate::roll_call::Contradiction;

impl Consensus {
    /// Return whether this member takes part in elections without reserve: it knows that it has kept its promises, or has given up
    /// asking.
    #[must_use]
    pub const fn is_assured(&self) -> bool {
        !self.roll_call.is_asking() && self.roll_call.floor().is_none()
    }

    /// Return the proof that the folder is an old copy, until the member has what it had acknowledged.
    #[must_use]
    pub fn contradiction(&self) -> Option<Contradiction> {
        self.roll_call.contradiction()
    }

    /// Process a notice from another member.
    ///
    /// # Errors
    ///
    /// [`InvalidMessage`] if no correct member sends it.
    pub fn hear(&mut self, sender: MemberId, notice: Notice) -> Result<(), InvalidMessage> {
        self.roll_call.note_contact();
        match notice {
            Notice::Question(question) => self.answer(sender, question),
            Notice::Answer(answer) => self.note_answer(sender, answer)?,
            // The log is not part of Raft.
            Notice::Extent(_) => {}
        }
        Ok(())
    }

    /// Take no part in Raft any more.
    pub fn retire(&mut self) {
        self.roll_call.retire();
        self.raw.raft.become_follower(self.raw.raft.term, INVALID_ID);
    }

    /// Ask the voters that have not answered yet.
    pub(super) fn ask(&mut self) {
        for id in self.roll_call.awaited(self.settings.id) {
            self.ask_one(id);
        }
    }

    fn ask_one(&mut self, id: MemberId) {
        let question = Question { nonce: self.roll_call.nonce(), position: self.position() };
        self.notices.push((id, Notice::Question(question)));
    }

    /// Let a tick pass for a member that waits for answers. It takes no part in Raft.
    pub(super) fn tick_asking(&mut self) {
        if self.roll_call.tick(self.settings.heartbeat_ticks) {
            self.ask();
        }
        self.close_roll_call();
    }

    /// Note that the voters are others.
    pub(super) fn learn_voters(&mut self, applied: u64) {
        self.roll_call.learn(applied, self.voters());
        self.close_roll_call();
    }

    /// Let a tick pass for a member that is behind. Its election time-out ends its trust in its leader, but starts no election.
    pub(super) fn tick_behind(&mut self) {
        self.roll_call.tick(1);
        let raft = &mut self.raw.raft;
        if raft.state != StateRole::Leader && raft.election_elapsed + 1 >= raft.randomized_election_timeout() {
            raft.become_follower(raft.term, INVALID_ID);
        } else {
            self.raw.tick();
        }
        self.roll_call.catch_up(self.position().last);
    }

    /// Ask a leader that counts entries which this member does not hold to start over.
    pub(super) fn object(&mut self, message: &Message) {
        let is_leaders = message.msg_type() == MessageType::MsgHeartbeat && message.term >= self.raw.raft.term;
        let sender = MemberId::new(message.from).filter(|id| *id != self.settings.id);
        if let Some(sender) = sender.filter(|_| is_leaders && message.to == self.settings.id.get()) {
            self.ask_one(sender);
        }
    }

    /// Answer a leader of an earlier term with this member's term, which the crate does only if it checks quorums or asks for pre-votes. A
    /// member that is behind is no candidate, so it would wait for ever for a leader of its term.
    pub(super) fn contest(&mut self, message: &Message) {
        let Settings { check_quorum, pre_vote, .. } = self.settings;
        let is_leaders = matches!(message.msg_type(), MessageType::MsgHeartbeat | MessageType::MsgAppend);
        let term = self.raw.raft.term;
        if !check_quorum && !pre_vote && is_leaders && message.term < term && self.roll_call.floor().is_some() {
            let mut answer = Message { to: message.from, from: message.to, term, ..Message::default() };
            answer.set_msg_type(MessageType::MsgAppendResponse);
            self.messages.push(answer);
        }
    }

    /// Return how far this member is.
    pub(super) fn position(&self) -> Position {
        let raft = &self.raw.raft;
        let last = LogId { index: raft.raft_log.last_index(), term: raft.raft_log.last_term() };
        Position { term: raft.term, last }
    }

    /// Return the voters, in a joint configuration those of both halves.
    fn voters(&self) -> Vec<MemberId> {
        let conf_state = self.raw.raft.prs().conf().to_conf_state();
        members(&[conf_state.voters, conf_state.voters_outgoing].concat())
    }

    fn answer(&mut self, sender: MemberId, question: Question) {
        self.forget_acknowledged(sender, question);
        let answer = Answer {
            nonce: question.nonce,
            position: self.position(),
            mark: self.marks.of(sender),
            applied: self.released,
            voters: self.voters(),
        };
        self.notices.push((sender, Notice::Answer(answer)));
    }

    /// As a leader, begin anew with a member that has started, or does not hold what it has acknowledged. The crate lets what a member
    /// is known to hold only grow, and would never send those entries again.
    fn forget_acknowledged(&mut self, sender: MemberId, Question { nonce, position }: Question) {
        let is_new = self.marks.note_start(sender, nonce);
        let raft = &mut self.raw.raft;
        let last = raft.raft_log.last_index();
        if raft.state != StateRole::Leader {
            return;
        }
        if let Some(progress) = raft.mut_prs().get_mut(sender.get())
            && (is_new || progress.matched > position.last.index)
        {
            progress.matched = 0;
            progress.become_probe();
            progress.next_idx = position.last.index.min(last) + 1;
        }
    }

    fn note_answer(&mut self, sender: MemberId, answer: Answer) -> Result<(), InvalidMessage> {
        let furthest = furthest_term(self.raw.raft.term);
        if answer.position.term.max(answer.mark.term) > furthest {
            self.reach(furthest);
            return Err(InvalidMessage {
                from: Some(sender),
                reason: "its term is too far ahead of the term of this member",
            });
        }
        if answer.position.last.term > answer.position.term {
            return Err(InvalidMessage { from: Some(sender), reason: "its term is before that of its last entry" });
        }
        self.roll_call.note(sender, answer);
        self.close_roll_call();
        Ok(())
    }

    /// Begin to take part in Raft, if the roll call can end.
    fn close_roll_call(&mut self) {
        let Some(term) = self.roll_call.close(self.settings.id) else { return };
        self.reach(term);
        let raft = &mut self.raw.raft;
        if raft.term == term && raft.vote == INVALID_ID {
            // It may have voted in this term, for another than it would now. Its own vote is of no use to anybody.
            raft.vote = raft.id;
        }
        self.roll_call.catch_up(self.position().last);
    }
}

#[cfg(test)]
mod tests;
