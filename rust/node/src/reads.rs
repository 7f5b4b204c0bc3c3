//! Requests that wait for the log: for everything that the leader has confirmed as acknowledged, or for a number of events.

use std::collections::BTreeMap;

use crate::outbox::{Completion, Failure, Outcome, Success};
use crate::ticket::Ticket;

/// A read whose index no leader has confirmed yet.
#[derive(Debug, Clone, Copy)]
struct Unconfirmed {
    ticket: Ticket,
    /// When to ask again, in ticks.
    again: usize,
    /// When to give up, in ticks.
    deadline: usize,
}

/// A request that waits for the state.
#[derive(Debug)]
struct Waiter {
    ticket: Ticket,
    /// The entry that must be applied.
    index: u64,
    /// The number of events that the log must hold.
    events: u64,
    /// Its deadline, in ticks.
    deadline: usize,
    /// Its outcome at the deadline.
    late: fn() -> Outcome,
}

/// The waiting requests of one member. Their contexts must differ from those before a restart.
#[derive(Debug)]
pub struct PendingReads {
    unconfirmed: BTreeMap<u64, Unconfirmed>,
    next_context: u64,
    waiters: Vec<Waiter>,
}

/// The unconfirmed reads that are due.
#[derive(Debug, Default)]
pub struct Due {
    /// To be asked again: ticket and deadline of each.
    pub again: Vec<(Ticket, usize)>,
    /// Given up.
    pub over: Vec<Completion>,
}

impl PendingReads {
    /// Return no reads; the first will have the context `first_context`.
    #[must_use]
    pub const fn new(first_context: u64) -> Self {
        Self { unconfirmed: BTreeMap::new(), next_context: first_context, waiters: Vec::new() }
    }

    /// Return the context of the next read.
    pub const fn next_context(&mut self) -> u64 {
        let context = self.next_context;
        self.next_context = self.next_context.wrapping_add(1);
        context
    }

    /// Add a read that a leader is asked to confirm under `context`.
    pub fn insert(&mut self, context: u64, ticket: Ticket, again: usize, deadline: usize) {
        self.unconfirmed.insert(context, Unconfirmed { ticket, again, deadline });
    }

    /// Remove and return the unconfirmed reads that are due at tick `now`.
    pub fn due(&mut self, now: usize) -> Due {
        let mut due = Due::default();
        for (_, Unconfirmed { ticket, deadline, .. }) in self.unconfirmed.extract_if(.., |_, read| read.again <= now) {
            if deadline <= now {
                due.over.push(Completion { ticket, outcome: Err(Failure::NotLeader) });
            } else {
                due.again.push((ticket, deadline));
            }
        }
        due
    }

    /// Let the read under `context` wait for the entry at `index`. Another member may send any bytes: an unknown context is ignored.
    pub fn confirm(&mut self, context: Vec<u8>, index: u64) {
        let context = context.try_into().map(u64::from_be_bytes);
        if let Some(Unconfirmed { ticket, deadline, .. }) =
            context.ok().and_then(|found| self.unconfirmed.remove(&found))
        {
            let late = || Err(Failure::NotLeader);
            self.waiters.push(Waiter { ticket, index, events: 0, deadline, late });
        }
    }

    /// Add a request that waits for `events` events, but no longer than until the tick `deadline`, when it is done as well.
    pub fn await_events(&mut self, ticket: Ticket, events: u64, deadline: usize) {
        self.waiters.push(Waiter { ticket, index: 0, events, deadline, late: || Ok(Success::Done) });
    }

    /// Remove and return the requests that need not wait any longer at tick `now`, with a log of `len` events that has applied the
    /// entry `applied`.
    pub fn settle(&mut self, now: usize, applied: u64, len: u64) -> Vec<Completion> {
        let is_there = |waiter: &Waiter| waiter.index <= applied && waiter.events <= len;
        let over = self.waiters.extract_if(.., |waiter| waiter.deadline <= now || is_there(waiter));
        let completion = |waiter: Waiter| {
            let outcome = if is_there(&waiter) { Ok(Success::Done) } else { (waiter.late)() };
            Completion { ticket: waiter.ticket, outcome }
        };
        over.map(completion).collect()
    }

    /// Remove everything; return the tickets.
    pub fn abandon(&mut self) -> Vec<Ticket> {
        let unconfirmed = std::mem::take(&mut self.unconfirmed).into_values().map(|read| read.ticket);
        unconfirmed.chain(self.waiters.drain(..).map(|waiter| waiter.ticket)).collect()
    }

    /// Return whether no request waits for the state.
    #[must_use]
    pub const fn is_settled(&self) -> bool {
        self.waiters.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Ticket = Ticket::new(1);
    const TWO: Ticket = Ticket::new(2);

    fn tickets(completions: &[Completion]) -> Vec<(Ticket, bool)> {
        completions.iter().map(|completion| (completion.ticket, completion.outcome.is_ok())).collect()
    }

    #[test]
    fn a_read_is_asked_again_until_its_deadline() {
        let mut reads = PendingReads::new(7);
        let context = reads.next_context();
        reads.insert(context, ONE, 10, 25);
        assert!(reads.due(9).again.is_empty());
        let Due { again, over } = reads.due(10);
        assert_eq!((again, over.len()), (vec![(ONE, 25)], 0));
        let context = reads.next_context();
        reads.insert(context, ONE, 25, 25);
        let Due { again, over } = reads.due(25);
        assert_eq!((again, tickets(&over)), (Vec::new(), vec![(ONE, false)]));
    }

    #[test]
    fn a_confirmed_read_waits_for_its_entry() {
        let mut reads = PendingReads::new(7);
        let context = reads.next_context();
        reads.insert(context, ONE, 10, 25);
        reads.confirm(context.to_be_bytes().to_vec(), 5);
        assert!(reads.due(100).again.is_empty());
        assert!(reads.settle(10, 4, 0).is_empty());
        assert_eq!(tickets(&reads.settle(10, 5, 0)), [(ONE, true)]);
    }

    #[test]
    fn only_the_context_of_a_read_confirms_it() {
        let mut reads = PendingReads::new(0);
        let context = reads.next_context();
        reads.insert(context, ONE, 10, 25);
        for forged in [Vec::new(), vec![0; 7], vec![0; 9], 1_u64.to_be_bytes().to_vec()] {
            reads.confirm(forged, 0);
            assert!(reads.is_settled());
        }
    }

    #[test]
    fn who_waits_for_events_is_done_at_the_deadline_and_who_reads_is_not() {
        let mut reads = PendingReads::new(0);
        reads.await_events(ONE, 3, 20);
        let context = reads.next_context();
        reads.insert(context, TWO, 10, 20);
        reads.confirm(context.to_be_bytes().to_vec(), 5);
        assert!(reads.settle(19, 4, 2).is_empty());
        assert_eq!(tickets(&reads.settle(20, 4, 2)), [(ONE, true), (TWO, false)]);
    }

    #[test]
    fn whoever_waits_is_abandoned_once() {
        let mut reads = PendingReads::new(0);
        reads.await_events(ONE, 3, 20);
        let context = reads.next_context();
        reads.insert(context, TWO, 10, 20);
        assert_eq!(reads.abandon(), [TWO, ONE]);
        assert!(reads.abandon().is_empty());
    }
}
