//! One member as a value: it processes ticks, messages and requests, on its log and its Raft log, without clock, thread or socket. The
//! driver runs it in a thread, simulations run many of them in one.

use std::collections::VecDeque;
use std::sync::Arc;

use qed_core::acts::ActBody;
use qed_core::error::LogError;
use qed_core::log::{Log, Request};
use qed_core::log_id::LogId;
use qed_core::page::Page;
use raft::eraftpb::{ConfState, Message};

use crate::comparison::{COMPARISON_TIMEOUTS, Comparison};
use crate::consensus::{Committed, Consensus, Output, Refusal, Role, Save};
use crate::entry::Command;
use crate::member_id::MemberId;
use crate::membership::{ClusterChange, Membership};
use crate::message_check::{InvalidMessage, check_origin, check_sender};
use crate::notice::Notice;
use crate::outbox::{Completion, Failure, Success};
use crate::reads::{Due, PendingReads};
use crate::segments::SegmentStore;
use crate::state::StateError;
use crate::ticket::Ticket;
use crate::wal::{Wal, WalError};

mod requests;

/// Maximum number of proposals in progress. While one is synced and sent, the previous one is applied; more would only make batches
/// smaller.
const PROPOSALS_UNDER_WAY: usize = 2;

/// Number of election time-outs after which a read that no leader has confirmed fails.
const READ_TIMEOUTS: usize = 60;

/// Something that happens to a member.
#[derive(Debug)]
pub enum Input {
    /// A tick has passed.
    Tick,
    /// A message, and the member that has sent it, as its stream has shown.
    Message(MemberId, Message),
    /// A notice, and the member that has sent it.
    Notice(MemberId, Notice),
    /// Messages to a member may have been lost.
    Lost(MemberId),
    /// A client's request to append events.
    Append(Ticket, Request),
    /// A client's request to read everything that is acknowledged by now.
    Read(Ticket),
    /// A client waits until the log holds a number of events, for a number of ticks.
    Await {
        /// The ticket.
        ticket: Ticket,
        /// The number of events.
        events: u64,
        /// How long, in ticks.
        ticks: usize,
    },
    /// A request of a member or an operator to the leader.
    Request(Ticket, ClusterChange),
    /// A request to record an act.
    Act(Ticket, ActBody),
    /// A job is done.
    Report(Report),
    /// The state is synced up to here.
    Synced(LogId),
}

impl Input {
    /// Return the ticket that waits for it.
    #[must_use]
    pub const fn ticket(&self) -> Option<Ticket> {
        match self {
            Self::Append(ticket, _)
            | Self::Read(ticket)
            | Self::Await { ticket, .. }
            | Self::Request(ticket, _)
            | Self::Act(ticket, _) => Some(*ticket),
            Self::Report(report) => report.ticket,
            Self::Tick | Self::Message(..) | Self::Notice(..) | Self::Lost(_) | Self::Synced(_) => None,
        }
    }
}

/// A job on the state; jobs are carried out in order.
#[derive(Debug)]
pub enum Job {
    /// Apply an entry. Tickets, in the order of its requests, if they wait on this member.
    Apply(Committed, Option<Vec<Ticket>>),
    /// Append a page, and sync it, as the snapshot message that waits for it requires.
    Install(Ticket, Box<Page>),
    /// Sync, so that entries can be deleted.
    Sync,
}

/// The result of a job.
#[derive(Debug)]
pub struct Report {
    /// The log id of the state.
    pub log_id: LogId,
    /// The configuration there, if it changed.
    pub conf_state: Option<ConfState>,
    /// The membership there, if it changed.
    pub membership: Option<Arc<Membership>>,
    /// The entry of the newest act there; 0 if there is none.
    pub acts: u64,
    /// Whether the job was a page.
    pub is_fetched: bool,
    /// Tickets that wait for the page. They complete after the member has processed the report, so that its status includes the page.
    pub ticket: Option<Ticket>,
}

/// An entry with events that this member has proposed, as leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proposed {
    /// Its index.
    pub index: u64,
    /// The ticket of its oldest request.
    pub first: Ticket,
    /// Number of its events.
    pub events: usize,
}

/// The outputs of a member.
#[derive(Debug, Default)]
pub struct Effects {
    /// Messages to send.
    pub messages: Vec<Message>,
    /// Notices to send, each to a member.
    pub notices: Vec<(MemberId, Notice)>,
    /// Jobs to carry out on the state.
    pub jobs: Vec<Job>,
    /// Entries that were proposed.
    pub proposed: Vec<Proposed>,
    /// Outcomes of requests.
    pub completions: Vec<Completion>,
    /// Messages that were refused.
    pub invalid_messages: Vec<InvalidMessage>,
    /// Whether leader, membership, snapshot source or newest act has changed.
    pub is_status_new: bool,
}

/// Why a member cannot continue.
#[derive(Debug, thiserror::Error)]
pub enum MemberError {
    /// Its Raft log failed.
    #[error(transparent)]
    Wal(#[from] WalError),
    /// Its log failed.
    #[error(transparent)]
    Log(#[from] LogError),
    /// Its state failed.
    #[error(transparent)]
    State(#[from] StateError),
    /// Raft cannot continue.
    #[error(transparent)]
    Raft(#[from] Refusal),
    /// The Raft log and the state contradict each other.
    #[error("the data folder is damaged: {0}")]
    Inconsistent(String),
}

/// A proposal of this leader.
#[derive(Debug)]
struct Proposal {
    log_id: LogId,
    /// The tickets of its requests, in order; or the one of a change of membership.
    tickets: Vec<Ticket>,
}

/// One member.
#[derive(Debug)]
pub struct Member<M> {
    consensus: Consensus,
    wal: Wal<M>,
    log: Arc<Log>,
    membership: Arc<Membership>,
    batch_events: usize,
    election_ticks: usize,
    ticks: usize,
    role: Role,
    snapshot_source: Option<(MemberId, LogId)>,
    comparison: Comparison,
    /// Why the log is not that of the cluster.
    divergence: Option<StateError>,
    /// Why this member must not answer.
    alarm: Option<String>,
    /// The entry of the newest act; 0 if there is none.
    acts: u64,
    /// Requests that have not been proposed yet.
    queue: VecDeque<(Ticket, Request)>,
    /// Proposals that are not known to be committed, in order.
    proposals: VecDeque<Proposal>,
    /// Log ids of this member's own proposals that are not applied yet, in order.
    under_way: VecDeque<LogId>,
    reads: PendingReads,
    /// The log id up to which entries will be deleted once the state is synced that far; and the log id up to which it is synced,
    /// once that is known.
    forgettable: Option<LogId>,
    durable: Option<LogId>,
}

impl<M: SegmentStore> Member<M> {
    /// Return a member with its recovered parts.
    #[must_use]
    pub fn new(consensus: Consensus, wal: Wal<M>, log: Arc<Log>, membership: Arc<Membership>, limits: Limits) -> Self {
        let (role, acts) = (consensus.role(), log.acts_end().log_id.index);
        Self {
            consensus,
            wal,
            log,
            membership,
            batch_events: limits.batch_events,
            election_ticks: limits.election_ticks,
            ticks: 0,
            role,
            snapshot_source: None,
            comparison: Comparison::default(),
            divergence: None,
            alarm: None,
            acts,
            queue: VecDeque::new(),
            proposals: VecDeque::new(),
            under_way: VecDeque::new(),
            reads: PendingReads::new(limits.first_read),
            forgettable: None,
            durable: None,
        }
    }

    /// Return the leader, as far as it is known.
    #[must_use]
    pub const fn role(&self) -> Role {
        self.role
    }

    /// Return the membership.
    #[must_use]
    pub const fn membership(&self) -> &Arc<Membership> {
        &self.membership
    }

    /// Return the member to fetch pages from and how far, if this one is too far behind to catch up from entries.
    #[must_use]
    pub const fn snapshot_source(&self) -> Option<(MemberId, LogId)> {
        self.snapshot_source
    }

    /// Return why this member must not answer, if it must not: its log lacks or contradicts what a majority acknowledged.
    #[must_use]
    pub fn alarm(&self) -> Option<&str> {
        self.alarm.as_deref()
    }

    /// Return the entry of the newest act; 0 if there is none.
    #[must_use]
    pub const fn acts(&self) -> u64 {
        self.acts
    }

    /// Return this member's Raft.
    #[must_use]
    pub const fn consensus(&self) -> &Consensus {
        &self.consensus
    }

    /// Return whether no request or proposal is pending.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.under_way.is_empty()
    }

    /// Return how many events wait to be proposed.
    #[must_use]
    pub fn queued_events(&self) -> usize {
        self.queue.iter().map(|(_, request)| request.digests.len()).sum()
    }

    /// Process inputs, save what must be saved, and add the outputs to `effects`, even before an error. Messages that need not wait for
    /// the next save go to `send` before it, and not to `effects`.
    ///
    /// # Errors
    ///
    /// [`MemberError`]: the member must stop, and the outcome of pending requests is unknown.
    pub fn turn(
        &mut self,
        inputs: impl IntoIterator<Item = Input>,
        effects: &mut Effects,
        send: &mut dyn FnMut(Vec<Message>),
    ) -> Result<(), MemberError> {
        for input in inputs {
            let is_tick = matches!(input, Input::Tick);
            self.handle(input, effects);
            if is_tick {
                self.announce_extent(effects)?;
            }
        }
        self.compare()?;
        self.forget()?;
        loop {
            self.propose(effects)?;
            let Some(output) = self.consensus.output()? else { break };
            self.carry_out(output, effects, send)?;
        }
        self.note_role(effects);
        self.ask_to_forget(effects);
        Ok(())
    }

    /// Return all tickets that are waiting when this member ends: first those whose requests may still be carried out, then those
    /// whose requests will not be.
    pub fn abandon(&mut self) -> (Vec<Ticket>, Vec<Ticket>) {
        let proposed = self.proposals.drain(..).flat_map(|proposal| proposal.tickets).collect();
        let queued = self.queue.drain(..).map(|(ticket, _)| ticket);
        (proposed, queued.chain(self.reads.abandon()).collect())
    }

    fn handle(&mut self, input: Input, effects: &mut Effects) {
        match input {
            Input::Tick => self.tick(effects),
            // A refused message changes at most the term; a correct member sends it again.
            Input::Message(sender, message) => {
                let checked = check_origin(sender, &message, &self.membership).map_err(Refusal::from);
                if let Err(Refusal::InvalidMessage(invalid)) = checked.and_then(|()| self.consensus.step(message)) {
                    effects.invalid_messages.push(invalid);
                }
            }
            Input::Notice(sender, notice) => {
                let checked = check_sender(sender, &self.membership);
                if let Notice::Extent(extent) = notice
                    && checked.is_ok()
                    && self.consensus.role().leader == Some(sender)
                {
                    self.comparison.note(extent);
                }
                effects.invalid_messages.extend(checked.and_then(|()| self.consensus.hear(sender, notice)).err());
            }
            Input::Lost(id) => self.consensus.lost(id),
            Input::Append(ticket, request) => self.queue.push_back((ticket, request)),
            Input::Read(ticket) => self.read(ticket, self.ticks + READ_TIMEOUTS * self.election_ticks),
            Input::Await { ticket, events, ticks } => {
                self.reads.await_events(ticket, events, self.ticks + ticks);
                self.wake_waiters(effects);
            }
            Input::Request(ticket, change) => {
                let outcome = self.request(ticket, change);
                effects.completions.extend(outcome.map(|outcome| Completion { ticket, outcome }));
            }
            Input::Act(ticket, body) => {
                let outcome = self.record(ticket, body);
                effects.completions.extend(outcome.map(|outcome| Completion { ticket, outcome }));
            }
            Input::Report(report) => self.note_report(report, effects),
            Input::Synced(durable) => self.durable = Some(durable),
        }
    }

    fn tick(&mut self, effects: &mut Effects) {
        self.ticks += 1;
        self.consensus.tick();
        let Due { again, over } = self.reads.due(self.ticks);
        effects.completions.extend(over);
        for (ticket, deadline) in again {
            self.read(ticket, deadline);
        }
        self.wake_waiters(effects);
    }

    /// As a leader, tell the others now and then how far the log is.
    fn announce_extent(&self, effects: &mut Effects) -> Result<(), MemberError> {
        let is_due = self.ticks.is_multiple_of(COMPARISON_TIMEOUTS * self.election_ticks);
        if is_due && self.consensus.role().is_leader {
            let extent = self.log.extent_at(self.log.len())?;
            let others = self.membership.members.keys().filter(|id| Some(**id) != self.consensus.role().leader);
            effects.notices.extend(others.map(|&id| (id, Notice::Extent(extent))));
        }
        Ok(())
    }

    /// Compare the log with that of the leader. If it differs, this member no longer takes part.
    fn compare(&mut self) -> Result<(), MemberError> {
        if self.divergence.is_none()
            && let Some((leader, own)) = self.comparison.settle(&self.log)?
        {
            self.divergence = Some(StateError::Diverged { leader: Box::new(leader), own: Box::new(own) });
            self.consensus.retire();
        }
        Ok(())
    }

    fn read(&mut self, ticket: Ticket, deadline: usize) {
        let context = self.reads.next_context();
        let is_asked = self.consensus.read(context.to_be_bytes().to_vec());
        // A leader that has not committed an entry of its term will do so in a moment.
        let pause = if is_asked { self.election_ticks } else { 1 };
        self.reads.insert(context, ticket, self.ticks + pause, deadline);
    }

    fn note_report(&mut self, report: Report, effects: &mut Effects) {
        if report.is_fetched {
            self.consensus.fetched(report.log_id, report.conf_state);
        } else {
            self.consensus.applied(report.log_id, report.conf_state);
        }
        while self.under_way.front().is_some_and(|log_id| log_id.index <= report.log_id.index) {
            self.under_way.pop_front();
        }
        if let Some(membership) = report.membership {
            self.membership = membership;
            effects.is_status_new = true;
        }
        effects.is_status_new |= report.acts != self.acts;
        self.acts = report.acts;
        let installed = report.ticket.map(|ticket| Completion { ticket, outcome: Ok(Success::Done) });
        effects.completions.extend(installed);
        self.wake_waiters(effects);
    }

    fn wake_waiters(&mut self, effects: &mut Effects) {
        if !self.reads.is_settled() {
            let (applied, len) = (self.consensus.log().applied().index, self.log.len());
            effects.completions.extend(self.reads.settle(self.ticks, applied, len));
        }
    }

    /// As a leader, propose the waiting requests; otherwise refuse them.
    fn propose(&mut self, effects: &mut Effects) -> Result<(), MemberError> {
        if !self.consensus.role().is_leader {
            let refused =
                self.queue.drain(..).map(|(ticket, _)| Completion { ticket, outcome: Err(Failure::NotLeader) });
            effects.completions.extend(refused);
            return Ok(());
        }
        while self.consensus.can_propose() && self.under_way.len() < PROPOSALS_UNDER_WAY && !self.queue.is_empty() {
            let base = self.log.extent_at(self.log.len())?;
            let (tickets, requests, events) = self.next_batch();
            if let Ok(log_id) = self.consensus.propose(Command::Append { base, requests }.to_bytes()) {
                let proposed = |&first| Proposed { index: log_id.index, first, events };
                effects.proposed.extend(tickets.first().map(proposed));
                self.proposals.push_back(Proposal { log_id, tickets });
                self.under_way.push_back(log_id);
            } else {
                let refused = |ticket| Completion { ticket, outcome: Err(Failure::NotLeader) };
                effects.completions.extend(tickets.into_iter().map(refused));
            }
        }
        Ok(())
    }

    /// Return the next requests, their tickets, and the number of their events.
    fn next_batch(&mut self) -> (Vec<Ticket>, Vec<Request>, usize) {
        let (mut tickets, mut requests, mut events) = (Vec::new(), Vec::new(), 0);
        while events < self.batch_events
            && let Some((ticket, request)) = self.queue.pop_front()
        {
            events += request.digests.len();
            tickets.push(ticket);
            requests.push(request);
        }
        (tickets, requests, events)
    }

    fn carry_out(
        &mut self,
        output: Output,
        effects: &mut Effects,
        send: &mut dyn FnMut(Vec<Message>),
    ) -> Result<(), MemberError> {
        effects.messages.extend(output.messages);
        if let Some(Save { frame, needs_state }) = output.save {
            // The followers sync while this member does.
            if !effects.messages.is_empty() {
                send(std::mem::take(&mut effects.messages));
            }
            if needs_state {
                self.log.sync()?;
            }
            self.wal.append(&frame)?;
            self.consensus.saved();
        }
        effects.notices.extend(output.notices);
        for committed in output.committed {
            let tickets = self.tickets_of(committed.log_id, effects);
            effects.jobs.push(Job::Apply(committed, tickets));
        }
        for read in output.reads {
            self.reads.confirm(read.context, read.index);
        }
        self.wake_waiters(effects);
        Ok(())
    }

    /// Return the tickets that wait for a committed entry. If it has the index of another proposal, that one is lost.
    fn tickets_of(&mut self, log_id: LogId, effects: &mut Effects) -> Option<Vec<Ticket>> {
        while let Some(proposal) = self.proposals.pop_front_if(|proposal| proposal.log_id.index <= log_id.index) {
            if proposal.log_id == log_id {
                return Some(proposal.tickets);
            }
            effects.completions.extend(unknown(proposal));
        }
        None
    }

    /// Fail the proposals whose outcome is unknown after a loss of leadership, and tell the caller if the status has changed.
    fn note_role(&mut self, effects: &mut Effects) {
        let role = self.consensus.role();
        if self.role.is_leader && (!role.is_leader || role.term != self.role.term) {
            effects.completions.extend(self.proposals.drain(..).flat_map(unknown));
            self.under_way.clear();
        }
        let source = self.consensus.snapshot_source();
        let contradiction = || self.consensus.contradiction().map(|contradiction| contradiction.to_string());
        let alarm = self.divergence.as_ref().map(ToString::to_string).or_else(contradiction);
        effects.is_status_new |= role != self.role || source != self.snapshot_source || alarm != self.alarm;
        (self.role, self.snapshot_source, self.alarm) = (role, source, alarm);
    }

    /// Queue a sync of the state if there are entries to delete. A sync in this thread would delay heartbeats.
    fn ask_to_forget(&mut self, effects: &mut Effects) {
        if self.forgettable.is_none() {
            self.forgettable = self.consensus.forgettable();
            effects.jobs.extend(self.forgettable.map(|_| Job::Sync));
        }
    }

    fn forget(&mut self) -> Result<(), MemberError> {
        if let Some(durable) = self.durable.take()
            && let Some(log_id) = self.forgettable.take()
            && durable >= log_id
            && let Some(frame) = self.consensus.forget(log_id)
        {
            self.wal.append(&frame)?;
        }
        Ok(())
    }
}

/// The settings of a member.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Events after which a batch is closed; the request that reaches the limit is still included whole.
    pub batch_events: usize,
    /// Ticks after which a read is requested again, because it may be lost.
    pub election_ticks: usize,
    /// The first context for reads; contexts must differ from those before a restart.
    pub first_read: u64,
}

fn unknown(proposal: Proposal) -> impl Iterator<Item = Completion> {
    proposal.tickets.into_iter().map(|ticket| Completion { ticket, outcome: Err(Failure::Unknown) })
}

#[cfg(test)]
mod tests;
