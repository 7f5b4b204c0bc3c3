//! The driver: one replica with its threads, fed by queues. This layer bounds queued events and Raft messages. The caller bounds
//! everything else.
//!
//! One thread runs the [`Member`], one applies committed entries ([`crate::applier`]), some answer queries ([`crate::prover`]).
//! All requests that wait when the first thread is free become one entry with one sync, so batches grow with the load and a lone
//! request does not wait. Results are delivered together, with one wake-up through a pipe that an event loop can watch.

use std::collections::VecDeque;
use std::io;
use std::os::fd::RawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use prost::Message as _;
use qed_core::acts::ActBody;
use qed_core::log::{Log, Request};
use qed_core::log_id::LogId;
use qed_core::page::{Page, PageError};
use raft::eraftpb::Message;

use crate::applier::perform;
use crate::consensus::Role;
use crate::folder::Opened;
use crate::identity::Identity;
use crate::keeper::Keeper;
use crate::member::{Effects, Input, Job, Member, MemberError};
use crate::member_id::MemberId;
use crate::membership::{ClusterChange, Membership};
use crate::message_check::furthest_term;
use crate::metrics::{Histogram, Metrics};
use crate::notice::{NOTICE, Notice};
use crate::outbox::{Completion, Delivery, Failure, Outbox};
use crate::prover::{Prover, Query};
use crate::queue::Queue;
use crate::segments::SegmentStore;
use crate::state::State;
use crate::ticket::Ticket;

/// Queue limits and timing.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Maximum number of events that wait to be appended. A request is accepted whole if there is any room at all.
    pub queue_events: usize,
    /// Threads that answer queries.
    pub proof_threads: usize,
    /// Time between ticks.
    pub tick: Duration,
    /// How long pending requests may take to finish when the driver is closed.
    pub grace: Duration,
}

/// Maximum number of queued messages from other members. Any more are dropped, as a network might do, and Raft sends them again.
const QUEUE_MESSAGES: usize = 4096;

/// Why a request was not accepted. No part of it will be appended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// The queue of events is full.
    #[error("{waiting} events are waiting to be added; try again later")]
    Overloaded {
        /// The number of waiting events.
        waiting: usize,
    },
    /// The request holds no events.
    #[error("a request to append must hold at least one event")]
    Empty,
    /// The driver is closing, or a write or sync has failed.
    #[error("this member accepts no more events: {reason}")]
    Refused {
        /// The reason, and what to do about it.
        reason: String,
    },
}

/// The state of a cluster as one member knows it.
#[derive(Debug, Clone, Default)]
pub struct Status {
    /// The leader and the term.
    pub role: Role,
    /// The members.
    pub membership: Arc<Membership>,
    /// The last entry known to be committed.
    pub commit_index: u64,
    /// The last entry that is applied.
    pub applied_index: u64,
    /// The member to fetch pages from, and up to where, if this member is too far behind to catch up from entries.
    pub snapshot_source: Option<(MemberId, LogId)>,
    /// The entry of the newest act that is applied; 0 if there is none.
    pub acts: u64,
    /// Why this member must not answer: its log lacks or contradicts what a majority acknowledged.
    pub alarm: Option<String>,
    /// On a leader: the members, including itself.
    pub followers: Vec<Follower>,
}

/// A member as its leader sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Follower {
    /// Its number.
    pub id: MemberId,
    /// The last entry that it is known to hold.
    pub matched: u64,
    /// Whether it has sent a message within the last election time-out.
    pub is_active: bool,
    /// How many ticks ago it sent its last one, if it has sent any.
    pub silence: Option<usize>,
}

/// A replica of a log with its threads.
#[derive(Debug)]
pub struct Driver {
    identity: Identity,
    log: Arc<Log>,
    outbox: Arc<Outbox>,
    prover: Prover,
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    keeper: Keeper,
}

#[derive(Debug)]
struct Shared {
    limits: Limits,
    inbox: Mutex<Inbox>,
    /// Notified when an input arrives in the inbox, and when it is closed.
    arrived: Condvar,
    /// With the moment since when each waits.
    jobs: Queue<(Instant, Job)>,
    status: Mutex<Status>,
    metrics: Arc<Metrics>,
    syncs: Arc<Histogram>,
}

/// Shared by callers and all threads.
#[derive(Debug, Default)]
struct Inbox {
    inputs: VecDeque<Input>,
    /// The requests to append that were not proposed yet, and when they arrived. Requests that were refused may still be among them.
    arrivals: VecDeque<(Ticket, Instant)>,
    messages: usize,
    waiting_events: usize,
    /// Why no more requests are accepted: the driver was closed, or failed.
    refusal: Option<String>,
    /// Deadline of an orderly stop.
    deadline: Option<Instant>,
    /// Whether inputs are no longer processed.
    is_over: bool,
}

impl Driver {
    /// Start the threads of a member.
    ///
    /// # Errors
    ///
    /// The error of the operating system if it cannot create the pipe or a thread.
    pub fn start<M: SegmentStore + Send + 'static>(
        identity: Identity,
        member: Member<M>,
        state: State,
        limits: Limits,
        syncs: Arc<Histogram>,
    ) -> io::Result<Self> {
        let metrics = Arc::new(Metrics::default());
        let (log, outbox) = (Arc::clone(state.log()), Arc::new(Outbox::new(&metrics)?));
        let prover = Prover::start(&log, &outbox, &metrics, limits.proof_threads)?;
        let status = Mutex::new(status_of(&member));
        let shared = Arc::new(Shared {
            limits,
            inbox: Mutex::default(),
            arrived: Condvar::new(),
            jobs: Queue::default(),
            status,
            metrics,
            syncs,
        });
        let (of_driver, driver_outbox) = (Arc::clone(&shared), Arc::clone(&outbox));
        let driver = move || of_driver.run_member(member, &driver_outbox);
        let (of_applier, applier_outbox) = (Arc::clone(&shared), Arc::clone(&outbox));
        let applier = move || of_applier.run_state(state, &applier_outbox);
        let threads = vec![
            thread::Builder::new().name("qed-driver".into()).spawn(driver)?,
            thread::Builder::new().name("qed-applier".into()).spawn(applier)?,
        ];
        let (of_keeper, keeper_outbox) = (Arc::clone(&shared), Arc::clone(&outbox));
        let fail = move |reason| of_keeper.note_failure(Some(reason), &keeper_outbox);
        let keeper = Keeper::start(&log, &shared.metrics, fail)?;
        Ok(Self { identity, log, outbox, prover, shared, threads: Mutex::new(threads), keeper })
    }

    /// Start the member whose data folder was opened.
    ///
    /// # Errors
    ///
    /// Same as [`Self::start`].
    pub fn of(opened: Opened, limits: Limits) -> io::Result<Self> {
        Self::start(opened.identity, opened.member, opened.state, limits, opened.syncs)
    }

    /// Return the identity of this member.
    #[must_use]
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Return the log.
    #[must_use]
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Return the state of the cluster as this member knows it.
    #[must_use]
    pub fn status(&self) -> Status {
        self.shared.status.lock().clone()
    }

    /// Return what the threads count.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.shared.metrics
    }

    /// Return how long syncs of the Raft log took.
    #[must_use]
    pub fn syncs(&self) -> &Histogram {
        &self.shared.syncs
    }

    /// Return how many events wait to be appended.
    #[must_use]
    pub fn waiting_events(&self) -> usize {
        self.shared.inbox.lock().waiting_events
    }

    /// Return the end of the pipe that becomes readable when [`Self::drain`] has something to return.
    #[must_use]
    pub fn wake_fd(&self) -> RawFd {
        self.outbox.wake_fd()
    }

    /// Submit a request to append. [`Self::drain`] returns its result under `ticket`, exactly once.
    ///
    /// # Errors
    ///
    /// [`SubmitError`] if it was not accepted.
    pub fn submit(&self, ticket: Ticket, request: Request) -> Result<(), SubmitError> {
        if request.digests.is_empty() {
            return Err(SubmitError::Empty);
        }
        let mut inbox = self.shared.inbox.lock();
        if let Some(reason) = &inbox.refusal {
            return Err(SubmitError::Refused { reason: reason.clone() });
        }
        if inbox.waiting_events >= self.shared.limits.queue_events {
            return Err(SubmitError::Overloaded { waiting: inbox.waiting_events });
        }
        inbox.waiting_events += request.digests.len();
        inbox.arrivals.push_back((ticket, Instant::now()));
        inbox.inputs.push_back(Input::Append(ticket, request));
        drop(inbox);
        self.shared.arrived.notify_one();
        Ok(())
    }

    /// Pass in a message from the member `sender`, as received. A malformed message is dropped, as are messages that arrive faster than
    /// they can be processed. Return whether it was well formed.
    #[must_use]
    pub fn receive(&self, sender: MemberId, bytes: &[u8]) -> bool {
        let Some(input) = read(sender, bytes) else { return false };
        let mut inbox = self.shared.inbox.lock();
        if inbox.messages < QUEUE_MESSAGES {
            inbox.messages += 1;
            inbox.inputs.push_back(input);
            drop(inbox);
            self.shared.arrived.notify_one();
        } else {
            self.shared.metrics.dropped_messages.fetch_add(1, Ordering::Relaxed);
        }
        true
    }

    /// Note that messages to member `id` may have been lost: its stream has ended.
    pub fn lost(&self, id: MemberId) {
        self.put(Input::Lost(id));
    }

    /// Wait until a read would show everything acknowledged by now. The result under `ticket` is
    /// [`Success::Done`](crate::outbox::Success::Done), or [`Failure::NotLeader`] if there has been no leader for a long time.
    pub fn read(&self, ticket: Ticket) {
        self.put(Input::Read(ticket));
    }

    /// Wait until the log holds `events` events, but at most `ticks` ticks. The result under `ticket` is
    /// [`Success::Done`](crate::outbox::Success::Done).
    pub fn await_events(&self, ticket: Ticket, events: u64, ticks: usize) {
        self.put(Input::Await { ticket, events, ticks });
    }

    /// Submit a request that only a leader can carry out. The outcome is returned under `ticket`; for a transfer of leadership,
    /// before the transfer is complete.
    pub fn request(&self, ticket: Ticket, change: ClusterChange) {
        self.put(Input::Request(ticket, change));
    }

    /// Request that an act is recorded. The outcome is returned under `ticket`.
    pub fn act(&self, ticket: Ticket, body: ActBody) {
        self.put(Input::Act(ticket, body));
    }

    /// Append a page from another member. The outcome is returned under `ticket`.
    pub fn install(&self, ticket: Ticket, page: Page) {
        // After a restart, this member's term is at least that of its state, so a forged term must not enter the state.
        if page.end.term > furthest_term(self.status().role.term) {
            self.outbox.put([Completion {
                ticket,
                outcome: Err(Failure::PageRefused(PageError::Malformed(
                    "a page whose last term is close enough to this member's term",
                ))),
            }]);
            return;
        }
        let refused = self.shared.jobs.put(vec![(Instant::now(), Job::Install(ticket, Box::new(page)))]);
        let failure = self.failure();
        self.outbox
            .put(refused.iter().flat_map(|(_, job)| job.tickets()).map(|ticket| left(ticket, failure.clone(), false)));
    }

    /// Submit a query. [`Self::drain`] returns its answer under `ticket`, exactly once. No two tickets may be the same.
    pub fn ask(&self, ticket: Ticket, query: Query) {
        self.prover.ask(ticket, query);
    }

    /// Return everything that is ready since the last call. Does not wait.
    ///
    /// # Errors
    ///
    /// The error of the operating system if the pipe is broken.
    pub fn drain(&self) -> io::Result<Delivery> {
        self.outbox.drain()
    }

    /// Return why the threads have stopped, if they have.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        self.outbox.failure()
    }

    /// Accept no more requests, finish pending ones within the grace period, and end the threads. Results can still be drained, and
    /// messages sent.
    pub fn close(&self) {
        let deadline = {
            let mut inbox = self.shared.inbox.lock();
            inbox.refusal.get_or_insert_with(|| {
                "it is stopping; send the events to another member, or try again once it has restarted".into()
            });
            *inbox.deadline.get_or_insert_with(|| Instant::now() + self.shared.limits.grace)
        };
        self.shared.arrived.notify_one();
        for thread in self.threads.lock().drain(..) {
            // A thread that failed has already reported why.
            let _ = thread.join();
        }
        self.prover.close();
        self.keeper.close(self.failure().is_none(), deadline);
    }

    fn put(&self, input: Input) {
        self.shared.put(input, &self.outbox);
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    /// Queue an input. If no member processes inputs any more, its ticket fails.
    fn put(&self, input: Input, outbox: &Outbox) {
        let mut inbox = self.inbox.lock();
        if inbox.is_over {
            drop(inbox);
            outbox.put(input.ticket().map(|ticket| left(ticket, outbox.failure(), false)));
            return;
        }
        inbox.inputs.push_back(input);
        drop(inbox);
        self.arrived.notify_one();
    }

    /// Run the member until it is closed or fails. Then the remaining requests fail.
    fn run_member<M: SegmentStore>(&self, mut member: Member<M>, outbox: &Outbox) {
        let failure = failure_of(|| self.drive(&mut member, outbox));
        self.note_failure(failure, outbox);
        let inputs = {
            let mut inbox = self.inbox.lock();
            inbox.is_over = true;
            inbox.waiting_events = 0;
            std::mem::take(&mut inbox.inputs)
        };
        let (proposed, others) = member.abandon();
        let others = others.into_iter().chain(inputs.iter().filter_map(Input::ticket));
        outbox.put(proposed.into_iter().map(|ticket| left(ticket, outbox.failure(), true)).collect::<Vec<_>>());
        outbox.put(others.map(|ticket| left(ticket, outbox.failure(), false)).collect::<Vec<_>>());
        self.jobs.close();
    }

    /// Apply jobs until the queue ends or the state fails.
    fn run_state(&self, state: State, outbox: &Outbox) {
        let mut tickets = Vec::new();
        let failure = failure_of(|| self.apply(state, &mut tickets, outbox));
        self.note_failure(failure, outbox);
        tickets.extend(self.jobs.end().iter().flat_map(|(_, job)| job.tickets()));
        outbox.put(tickets.into_iter().map(|ticket| left(ticket, outbox.failure(), true)).collect::<Vec<_>>());
    }

    /// Stop accepting requests if a thread has failed: whether the pending write is on disk is then unknown, and nothing may be written
    /// after it.
    fn note_failure(&self, failure: Option<String>, outbox: &Outbox) {
        let Some(reason) = failure else { return };
        outbox.fail(reason.clone());
        let mut inbox = self.inbox.lock();
        inbox.refusal = Some(format!("{reason}; fix the cause, then restart this member"));
        inbox.deadline = Some(Instant::now());
        drop(inbox);
        self.arrived.notify_one();
    }

    fn drive<M: SegmentStore>(&self, member: &mut Member<M>, outbox: &Outbox) -> Result<(), MemberError> {
        // The first turn is immediate: a single voter is already leader, but has not saved that.
        let mut next_tick = Instant::now();
        let mut proposed = VecDeque::new();
        while let Some(inputs) = self.next_inputs(&mut next_tick, member.is_idle()) {
            let (mut effects, begun) = (Effects::default(), Instant::now());
            let mut send = |messages: Vec<Message>| outbox.send(messages.iter().map(addressed));
            let turned = member.turn(inputs, &mut effects, &mut send);
            let queued = member.queued_events();
            let mut inbox = self.inbox.lock();
            inbox.waiting_events = queued + inbox.inputs.iter().map(events_of).sum::<usize>();
            self.measure(&effects, begun, &mut inbox.arrivals, &mut proposed);
            if inbox.waiting_events == 0 {
                // What remains are requests that were refused, or were not the oldest of their entry.
                inbox.arrivals.clear();
            }
            drop(inbox);
            // The effects before an error were saved, and their tickets are stored nowhere else.
            self.hand_out(member, effects, outbox);
            turned?;
        }
        Ok(())
    }

    /// Count how long the entries that were proposed had waited, and how long those that are committed now took since then. A turn that
    /// has `begun` proposes first, and syncs after that.
    fn measure(
        &self,
        effects: &Effects,
        begun: Instant,
        arrivals: &mut VecDeque<(Ticket, Instant)>,
        proposed: &mut VecDeque<(u64, Instant)>,
    ) {
        let now = Instant::now();
        for entry in &effects.proposed {
            while let Some((ticket, arrived)) = arrivals.pop_front() {
                if ticket == entry.first {
                    self.metrics.queue.add_duration(begun - arrived);
                    break;
                }
            }
            self.metrics.entry_events.add(entry.events as u64);
            // After a loss of leadership, another entry may take the place of one that was proposed.
            while proposed.pop_back_if(|(index, _)| *index >= entry.index).is_some() {}
            proposed.push_back((entry.index, begun));
        }
        for job in &effects.jobs {
            let Job::Apply(committed, tickets) = job else { continue };
            while let Some((index, since)) = proposed.pop_front_if(|(index, _)| *index <= committed.log_id.index) {
                if index == committed.log_id.index && tickets.is_some() {
                    self.metrics.replicate.add_duration(now - since);
                }
            }
        }
    }

    fn hand_out<M: SegmentStore>(&self, member: &Member<M>, mut effects: Effects, outbox: &Outbox) {
        if !effects.jobs.is_empty() {
            let now = Instant::now();
            let refused = self.jobs.put(effects.jobs.into_iter().map(|job| (now, job)).collect());
            let tickets = refused.iter().flat_map(|(_, job)| job.tickets());
            effects.completions.extend(tickets.map(|ticket| left(ticket, outbox.failure(), true)));
        }
        let status = status_of(member);
        let before = std::mem::replace(&mut *self.status.lock(), status).role;
        if member.role().leader != before.leader {
            self.metrics.leader_changes.fetch_add(1, Ordering::Relaxed);
        }
        let messages = effects.messages.iter().map(addressed);
        let notices = effects.notices.iter().map(|(to, notice)| (*to, notice.to_bytes()));
        let sent: Vec<_> = messages.chain(notices).collect();
        if !sent.is_empty() {
            outbox.send(sent);
        }
        // The status first: a caller that learns that a request is done must find the resulting status.
        if effects.is_status_new {
            outbox.renew_status();
        }
        if !effects.completions.is_empty() {
            outbox.put(effects.completions);
        }
        if !effects.invalid_messages.is_empty() {
            outbox.report_invalid(effects.invalid_messages);
        }
    }

    /// Carry out jobs; `tickets` are those that wait for the current one.
    fn apply(&self, mut state: State, tickets: &mut Vec<Ticket>, outbox: &Outbox) -> Result<(), MemberError> {
        while let Some((since, job)) = self.jobs.take() {
            *tickets = job.tickets();
            let is_entry = matches!(&job, Job::Apply(..));
            let (input, completions) = perform(&mut state, job)?;
            tickets.clear();
            if is_entry {
                self.metrics.apply.add_duration(since.elapsed());
            }
            if !completions.is_empty() {
                outbox.put(completions);
            }
            if let Some(input) = input {
                self.put(input, outbox);
            }
        }
        // Sync, so that the next start need not apply anything again.
        state.log().sync()?;
        Ok(())
    }

    /// Wait for inputs or the next tick. None when the driver is closed and nothing is pending, or its grace period is over.
    fn next_inputs(&self, next_tick: &mut Instant, is_idle: bool) -> Option<VecDeque<Input>> {
        let mut inbox = self.inbox.lock();
        loop {
            let now = Instant::now();
            if inbox.deadline.is_some_and(|deadline| (is_idle && inbox.inputs.is_empty()) || now >= deadline) {
                return None;
            }
            let is_tick_due = now >= *next_tick;
            if is_tick_due {
                // Missed ticks are skipped: a member that was suspended must receive messages before it decides that others are dead.
                *next_tick = (*next_tick + self.limits.tick).max(now);
                inbox.inputs.push_back(Input::Tick);
            }
            if !inbox.inputs.is_empty() {
                inbox.messages = 0;
                return Some(std::mem::take(&mut inbox.inputs));
            }
            self.arrived.wait_until(&mut inbox, *next_tick);
        }
    }
}

/// Return a message as it is sent, and its receiver.
fn addressed(message: &Message) -> (MemberId, Vec<u8>) {
    (MemberId::of(message.to), message.encode_to_vec())
}

/// Return what a member has sent, if it is well formed.
fn read(sender: MemberId, bytes: &[u8]) -> Option<Input> {
    if bytes.first() == Some(&NOTICE) {
        return Notice::from_bytes(bytes).map(|notice| Input::Notice(sender, notice));
    }
    Message::decode(bytes).ok().map(|message| Input::Message(sender, message))
}

/// Return the outcome of a request that remains when the threads end.
fn left(ticket: Ticket, failure: Option<String>, is_proposed: bool) -> Completion {
    let unfinished = if is_proposed { Failure::Unknown } else { Failure::NotLeader };
    Completion { ticket, outcome: Err(failure.map_or(unfinished, Failure::WriteFailed)) }
}

/// Return why a thread has failed, if it has.
fn failure_of(body: impl FnOnce() -> Result<(), MemberError>) -> Option<String> {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(outcome) => outcome.err().map(|error| error.to_string()),
        // The crate `raft` panics if an invariant is broken; the message is on stderr.
        Err(_) => {
            Some("an invariant was broken, by a bug in qed or by a damaged disk; the panic message is on stderr".into())
        }
    }
}

fn events_of(input: &Input) -> usize {
    if let Input::Append(_, request) = input { request.digests.len() } else { 0 }
}

fn status_of<M: SegmentStore>(member: &Member<M>) -> Status {
    let consensus = member.consensus();
    let membership = member.membership();
    let of_follower = |&id: &MemberId| {
        let (is_active, silence) = (consensus.is_active(id), consensus.silence(id));
        Some(Follower { id, matched: consensus.matched(id)?, is_active, silence })
    };
    Status {
        role: member.role(),
        commit_index: consensus.commit_index(),
        applied_index: consensus.log().applied().index,
        snapshot_source: member.snapshot_source(),
        acts: member.acts(),
        alarm: member.alarm().map(String::from),
        followers: membership.members.keys().filter_map(of_follower).collect(),
        membership: Arc::clone(membership),
    }
}

#[cfg(test)]
mod tests;
