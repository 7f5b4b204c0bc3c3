//! One member as a value: what it does with ticks, messages and requests, on its log and its Raft log, without clock, thread or
//! socket. The driver turns it in a thread, simulations turn many of them in one.

use std::collections::VecDeque;
use std::sync::Arc;

use qed_core::error::LogError;
use qed_core::log::{Log, Request};
use qed_core::log_id::LogId;
use qed_core::page::Page;
use raft::eraftpb::{ConfState, Message};

use crate::consensus::{Committed, Consensus, Output, Refusal, Role, Save};
use crate::entry::Command;
use crate::membership::{Change, Inadmissible, Membership, Wish};
use crate::message_check::InvalidMessage;
use crate::outbox::{Completion, Failure, Outcome, Success};
use crate::reads::{Due, PendingReads};
use crate::segments::SegmentStore;
use crate::state::StateError;
use crate::wal::{Wal, WalError};

/// Proposals that may be under way. While one is synced and sent, the one before is applied; more would only make batches smaller.
const PROPOSALS_UNDER_WAY: usize = 2;

/// Election time-outs after which a read that no leader answers is given up.
const READ_TIMEOUTS: usize = 60;

/// Something that happens to a member.
#[derive(Debug)]
pub enum Input {
    /// A tick has passed.
    Tick,
    /// Another member says something.
    Message(Message),
    /// Messages to a member may have been lost.
    Lost(u64),
    /// A client wants events appended.
    Append(u64, Request),
    /// A client wants to read what is acknowledged by now.
    Read(u64),
    /// A client waits until the log holds so many events, for so many ticks.
    Await {
        /// Whose.
        ticket: u64,
        /// How many events.
        events: u64,
        /// How long.
        ticks: usize,
    },
    /// A member or an operator wants what only a leader can do.
    Request(u64, Wish),
    /// A job is done.
    Report(Report),
    /// The state is synced up to here.
    Synced(LogId),
}

impl Input {
    /// Return the ticket of who waits for it.
    #[must_use]
    pub const fn ticket(&self) -> Option<u64> {
        match self {
            Self::Append(ticket, _) | Self::Read(ticket) | Self::Await { ticket, .. } | Self::Request(ticket, _) => {
                Some(*ticket)
            }
            Self::Report(report) => report.ticket,
            Self::Tick | Self::Message(_) | Self::Lost(_) | Self::Synced(_) => None,
        }
    }
}

/// Something to be done to the state, in order.
#[derive(Debug)]
pub enum Job {
    /// Apply an entry. Tickets, in the order of its requests, if they are waited for here.
    Apply(Committed, Option<Vec<u64>>),
    /// Append a page, and sync it: the message that waits for it needs that.
    Install(u64, Box<Page>),
    /// Sync, so that entries can be forgotten.
    Sync,
}

/// What a job came to.
#[derive(Debug)]
pub struct Report {
    /// How far the state is.
    pub log_id: LogId,
    /// The configuration there, if it changed.
    pub conf_state: Option<ConfState>,
    /// The membership there, if it changed.
    pub membership: Option<Arc<Membership>>,
    /// Whether it was a page that brought it there.
    pub is_fetched: bool,
    /// Who waits for the page. They are told once the member has taken note, so that its status is the one after the page.
    pub ticket: Option<u64>,
}

/// What a member wants done.
#[derive(Debug, Default)]
pub struct Effects {
    /// To be sent.
    pub messages: Vec<Message>,
    /// To be carried out on the state.
    pub jobs: Vec<Job>,
    /// To be told to those who asked.
    pub completions: Vec<Completion>,
    /// Messages that were refused.
    pub invalid_messages: Vec<InvalidMessage>,
    /// Whether leader, membership or snapshot source has changed.
    pub is_status_new: bool,
}

/// Why a member cannot go on.
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
    /// Raft cannot go on.
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
    /// Of its requests, in order; or of the one who asked for another membership.
    tickets: Vec<u64>,
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
    snapshot_source: Option<(u64, LogId)>,
    /// Requests that are not proposed yet.
    queue: VecDeque<(u64, Request)>,
    /// Proposals that are not known to be committed, in order.
    proposals: VecDeque<Proposal>,
    /// Log ids of own proposals that are not applied, in order.
    under_way: VecDeque<LogId>,
    reads: PendingReads,
    /// Up to where entries will be forgotten, once the state is synced so far, and how far it is, once that is known.
    forgettable: Option<LogId>,
    durable: Option<LogId>,
}

impl<M: SegmentStore> Member<M> {
    /// Return a member with everything that was recovered.
    #[must_use]
    pub fn new(consensus: Consensus, wal: Wal<M>, log: Arc<Log>, membership: Arc<Membership>, limits: Limits) -> Self {
        let role = consensus.role();
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
            queue: VecDeque::new(),
            proposals: VecDeque::new(),
            under_way: VecDeque::new(),
            reads: PendingReads::new(limits.first_read),
            forgettable: None,
            durable: None,
        }
    }

    /// Return who leads.
    #[must_use]
    pub const fn role(&self) -> Role {
        self.role
    }

    /// Return who takes part.
    #[must_use]
    pub const fn membership(&self) -> &Arc<Membership> {
        &self.membership
    }

    /// Return the member to fetch pages from and how far, if this one lags too far behind for entries.
    #[must_use]
    pub const fn snapshot_source(&self) -> Option<(u64, LogId)> {
        self.snapshot_source
    }

    /// Return the part in Raft.
    #[must_use]
    pub const fn consensus(&self) -> &Consensus {
        &self.consensus
    }

    /// Return whether nothing is waited for.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.under_way.is_empty()
    }

    /// Return how many events wait to be proposed.
    #[must_use]
    pub fn queued_events(&self) -> usize {
        self.queue.iter().map(|(_, request)| request.digests.len()).sum()
    }

    /// Take inputs, save what must be saved, and add what is to be done to `effects`, also before an error.
    ///
    /// # Errors
    ///
    /// [`MemberError`]: the member must stop, and what was under way is unknown.
    pub fn turn(&mut self, inputs: impl IntoIterator<Item = Input>, effects: &mut Effects) -> Result<(), MemberError> {
        for input in inputs {
            self.handle(input, effects);
        }
        self.forget()?;
        loop {
            self.propose(effects)?;
            let Some(output) = self.consensus.output()? else { break };
            self.carry_out(output, effects)?;
        }
        self.note_role(effects);
        self.ask_to_forget(effects);
        Ok(())
    }

    /// Return the tickets of all who wait for this member, when it ends: those whose requests may still be carried out, and those
    /// whose will not.
    pub fn abandon(&mut self) -> (Vec<u64>, Vec<u64>) {
        let proposed = self.proposals.drain(..).flat_map(|proposal| proposal.tickets).collect();
        let queued = self.queue.drain(..).map(|(ticket, _)| ticket);
        (proposed, queued.chain(self.reads.abandon()).collect())
    }

    fn handle(&mut self, input: Input, effects: &mut Effects) {
        match input {
            Input::Tick => self.tick(effects),
            // A refused message changes nothing but the term; a correct member sends again.
            Input::Message(message) => {
                if let Err(Refusal::InvalidMessage(invalid)) = self.consensus.step(message) {
                    effects.invalid_messages.push(invalid);
                }
            }
            Input::Lost(id) => self.consensus.lost(id),
            Input::Append(ticket, request) => self.queue.push_back((ticket, request)),
            Input::Read(ticket) => self.read(ticket, self.ticks + READ_TIMEOUTS * self.election_ticks),
            Input::Await { ticket, events, ticks } => {
                self.reads.await_events(ticket, events, self.ticks + ticks);
                self.wake_waiters(effects);
            }
            Input::Request(ticket, wish) => {
                let outcome = self.request(ticket, wish);
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

    fn read(&mut self, ticket: u64, deadline: usize) {
        let context = self.reads.next_context();
        let is_asked = self.consensus.read(context.to_be_bytes().to_vec());
        // A leader commits the first entry of its term in a moment.
        let pause = if is_asked { self.election_ticks } else { 1 };
        self.reads.insert(context, ticket, self.ticks + pause, deadline);
    }

    /// Do what is wished, or propose it; return what is known already.
    fn request(&mut self, ticket: u64, wish: Wish) -> Option<Outcome> {
        match wish {
            Wish::Admit(id, info) => {
                let is_alive = |id| !self.consensus.is_presumed_dead(id);
                let changes = self.membership.admit(id, &info, &is_alive);
                self.change_members(ticket, changes)
            }
            Wish::Remove(name) => {
                let changes = self.membership.remove(&name);
                self.remove(ticket, changes)
            }
            Wish::Transfer(name) => Some(self.transfer(name)),
        }
    }

    /// Propose a change; return what is known already.
    fn change_members(&mut self, ticket: u64, changes: Result<Vec<Change>, Inadmissible>) -> Option<Outcome> {
        if !self.consensus.can_propose() {
            return Some(Err(Failure::NotLeader));
        }
        let changes = match changes {
            Ok(changes) if changes.is_empty() => return Some(Ok(Success::Done)),
            Ok(changes) => changes,
            Err(reason) => return Some(Err(Failure::Inadmissible(reason))),
        };
        let of_configuration = self.membership.configuration_changes(&changes);
        let command = Command::Members(changes).to_bytes();
        let proposed = if of_configuration.is_empty() {
            self.consensus.propose(command)
        } else {
            self.consensus.propose_members(&of_configuration, command)
        };
        match proposed {
            Ok(log_id) => {
                self.proposals.push_back(Proposal { log_id, tickets: vec![ticket] });
                self.under_way.push_back(log_id);
                None
            }
            Err(Refusal::NotLeader) => Some(Err(Failure::NotLeader)),
            Err(_) => Some(Err(Failure::Busy)),
        }
    }

    fn remove(&mut self, ticket: u64, changes: Result<Vec<Change>, Inadmissible>) -> Option<Outcome> {
        let is_own = |change: &Change| matches!(change, Change::Remove(id) if Some(*id) == self.role.leader);
        if self.role.is_leader && changes.as_ref().is_ok_and(|changes| changes.iter().any(is_own)) {
            // A leader hands over first: its successor is then asked to let it go.
            let successor = self.consensus.transfer(None);
            return Some(
                successor.map_or(Err(Failure::Inadmissible(Inadmissible::NoSuccessor)), |_| Err(Failure::NotLeader)),
            );
        }
        self.change_members(ticket, changes)
    }

    fn transfer(&mut self, name: Option<String>) -> Outcome {
        if !self.role.is_leader {
            return Err(Failure::NotLeader);
        }
        let Some(name) = name else {
            let successor = self.consensus.transfer(None);
            return successor.map_or(Err(Failure::Inadmissible(Inadmissible::NoSuccessor)), |_| Ok(Success::Done));
        };
        match self.membership.find(&name) {
            Some(id) if Some(id) == self.role.leader || self.consensus.transfer(Some(id)).is_some() => {
                Ok(Success::Done)
            }
            Some(_) => Err(Failure::Inadmissible(Inadmissible::NotReady(name))),
            None => Err(Failure::Inadmissible(Inadmissible::Unknown(name))),
        }
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

    /// As a leader, propose what waits; otherwise refuse it.
    fn propose(&mut self, effects: &mut Effects) -> Result<(), MemberError> {
        if !self.consensus.role().is_leader {
            let refused =
                self.queue.drain(..).map(|(ticket, _)| Completion { ticket, outcome: Err(Failure::NotLeader) });
            effects.completions.extend(refused);
            return Ok(());
        }
        while self.consensus.can_propose() && self.under_way.len() < PROPOSALS_UNDER_WAY && !self.queue.is_empty() {
            let base = self.log.extent_at(self.log.len())?;
            let (tickets, requests) = self.next_batch();
            if let Ok(log_id) = self.consensus.propose(Command::Append { base, requests }.to_bytes()) {
                self.proposals.push_back(Proposal { log_id, tickets });
                self.under_way.push_back(log_id);
            } else {
                let refused = |ticket| Completion { ticket, outcome: Err(Failure::NotLeader) };
                effects.completions.extend(tickets.into_iter().map(refused));
            }
        }
        Ok(())
    }

    fn next_batch(&mut self) -> (Vec<u64>, Vec<Request>) {
        let (mut tickets, mut requests, mut events) = (Vec::new(), Vec::new(), 0);
        while events < self.batch_events
            && let Some((ticket, request)) = self.queue.pop_front()
        {
            events += request.digests.len();
            tickets.push(ticket);
            requests.push(request);
        }
        (tickets, requests)
    }

    fn carry_out(&mut self, output: Output, effects: &mut Effects) -> Result<(), MemberError> {
        if let Some(Save { frame, needs_state }) = output.save {
            if needs_state {
                self.log.sync()?;
            }
            self.wal.append(&frame)?;
            self.consensus.saved();
        }
        effects.messages.extend(output.messages);
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

    /// Return who waits for a committed entry. If another stands where a proposal was to be, that one is lost.
    fn tickets_of(&mut self, log_id: LogId, effects: &mut Effects) -> Option<Vec<u64>> {
        while let Some(proposal) = self.proposals.pop_front_if(|proposal| proposal.log_id.index <= log_id.index) {
            if proposal.log_id == log_id {
                return Some(proposal.tickets);
            }
            effects.completions.extend(unknown(proposal));
        }
        None
    }

    /// Tell those whose proposals a lost leadership leaves open, and the caller if anything looks different.
    fn note_role(&mut self, effects: &mut Effects) {
        let role = self.consensus.role();
        if self.role.is_leader && (!role.is_leader || role.term != self.role.term) {
            effects.completions.extend(self.proposals.drain(..).flat_map(unknown));
            self.under_way.clear();
        }
        let source = self.consensus.snapshot_source();
        effects.is_status_new |= role != self.role || source != self.snapshot_source;
        (self.role, self.snapshot_source) = (role, source);
    }

    /// Have the state synced if there are entries to forget. Not here: heartbeats would wait for it.
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

/// What a member is told beside what it has recovered.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Events after which a batch is closed; the request that reaches it still goes in whole.
    pub batch_events: usize,
    /// Ticks after which a lost read is asked for again.
    pub election_ticks: usize,
    /// The first number for reads; it must not meet one from before a restart.
    pub first_read: u64,
}

fn unknown(proposal: Proposal) -> impl Iterator<Item = Completion> {
    proposal.tickets.into_iter().map(|ticket| Completion { ticket, outcome: Err(Failure::Unknown) })
}
