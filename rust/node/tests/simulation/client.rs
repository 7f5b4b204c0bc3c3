//! Clients: many at a time, each asking any member, and asking again if there is no answer.

use std::collections::BTreeMap;

use qed_core::acts::ActBody;
use qed_core::hash::Digest;
use qed_core::log::{Log, Request};
use qed_node::outbox::{Failure, Outcome, Success};
use qed_node::ticket::Ticket;

use crate::invariants::{Invariants, Violation, require};
use crate::random::Random;

/// The kinds of requests.
#[derive(Debug, Clone)]
pub enum Asked {
    /// Append events.
    Append(Request),
    /// Read. The number is how many events the read must show.
    Read(u64),
    /// Change the membership.
    Change,
    /// To do what is to be recorded.
    Act(ActBody),
}

/// A request that is not answered yet.
#[derive(Debug, Clone)]
pub struct Pending {
    /// The member that was asked.
    pub host: u64,
    /// The tick at which it was asked.
    pub since: u64,
    /// The request.
    pub asked: Asked,
}

/// How often an event may or must be in the log.
#[derive(Debug, Clone, Default)]
struct Fate {
    /// The maximum: requests that would add the event in any case.
    most: u64,
    /// The minimum: such requests that were acknowledged.
    least: u64,
    /// Whether a request to add the event if it is absent may have been carried out.
    if_absent: bool,
}

/// All clients.
#[derive(Debug, Clone, Default)]
pub struct Clients {
    pending: BTreeMap<Ticket, Pending>,
    tickets: u64,
    events: u64,
    fates: BTreeMap<Digest, Fate>,
    /// Requests whose outcome is unknown and that will be sent once more.
    again: Vec<Request>,
    /// Number of events that reads have shown so far.
    shown: u64,
    /// How many append requests and how many reads were answered.
    pub answered: (u64, u64),
}

impl Clients {
    /// Return the number of requests that are not answered yet and whose client has not given up.
    pub fn waiting(&self, now: u64) -> usize {
        self.pending.values().filter(|pending| pending.since + 100 > now).count()
    }

    /// Return the tickets of the unanswered append requests at a member.
    pub fn appends_at(&self, host: u64) -> impl Iterator<Item = Ticket> {
        let is_append = move |pending: &Pending| pending.host == host && matches!(pending.asked, Asked::Append(_));
        self.pending.iter().filter(move |(_, pending)| is_append(pending)).map(|(&ticket, _)| ticket)
    }

    /// Return a new append request.
    pub fn request(&mut self, random: &mut Random) -> Request {
        if let Some(request) = self.again.pop() {
            return request;
        }
        let digests = (0..random.within(1, 3)).map(|_| {
            let is_new = self.events == 0 || !random.is_hit(150);
            let event = if is_new { self.events } else { random.below(self.events) };
            self.events += u64::from(is_new);
            Digest::of_event(&event.to_be_bytes())
        });
        Request { digests: digests.collect(), if_absent: random.is_hit(300) }
    }

    /// Record a request to a member, and return its ticket.
    pub fn ask(&mut self, now: u64, host: u64, asked: Asked) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket::new(self.tickets);
        self.pending.insert(ticket, Pending { host, since: now, asked });
        ticket
    }

    /// Return how many events a read that starts at this point must show.
    pub fn floor(&self, invariants: &Invariants) -> u64 {
        self.shown.max(invariants.acknowledged_len())
    }

    /// Process the answer of a member whose log is `log`.
    pub fn answer(
        &mut self,
        (ticket, outcome): (Ticket, Outcome),
        log: &Log,
        invariants: &mut Invariants,
        random: &mut Random,
    ) -> Result<(), Violation> {
        let Some(Pending { asked, host, .. }) = self.pending.remove(&ticket) else {
            return require(false, "each request is answered once", || format!("ticket {ticket}: {outcome:?}"));
        };
        match (asked, outcome) {
            (Asked::Append(request), Ok(Success::Added(added))) => {
                self.answered.0 += 1;
                let found: Vec<_> = added.snapshots.iter().map(|snapshot| snapshot.event_digest).collect();
                require(found == request.digests, "each client gets the answer to its own request", || {
                    format!("member {host} answered {request:?} with {added:?}")
                })?;
                self.note(&request, true);
                invariants.acknowledge(&added, request.if_absent)
            }
            (Asked::Append(_), Err(Failure::NotLeader)) => Ok(()),
            (Asked::Append(request), Err(Failure::Unknown)) => {
                self.forsake(request, random);
                Ok(())
            }
            (Asked::Read(floor), Ok(Success::Done)) => {
                self.answered.1 += 1;
                let len = log.len();
                self.shown = self.shown.max(len);
                // This raises the floor only for reads that start later.
                require(len >= floor, "reads show what was acknowledged", || {
                    format!("member {host} showed {len} events, but {floor} had been acknowledged or shown before")
                })
            }
            (Asked::Append(request), outcome) => {
                require(false, "requests are answered", || format!("{request:?} got {outcome:?}"))
            }
            (Asked::Act(act), Ok(Success::Done)) => {
                invariants.acknowledge_act(act);
                Ok(())
            }
            (Asked::Read(_) | Asked::Change | Asked::Act(_), _) => Ok(()),
        }
    }

    /// Record that a member has stopped: the outcome of the requests to it is unknown.
    pub fn stopped(&mut self, host: u64, random: &mut Random) {
        for (_, pending) in self.pending.extract_if(.., |_, pending| pending.host == host).collect::<Vec<_>>() {
            if let Asked::Append(request) = pending.asked {
                self.forsake(request, random);
            }
        }
    }

    /// Forget what was acknowledged or shown since `earlier`: the members have lost it. What was requested since may still be in a log.
    pub fn return_to(&mut self, earlier: &Self) {
        for (digest, fate) in &mut self.fates {
            fate.least = earlier.fates.get(digest).map_or(0, |earlier| earlier.least);
        }
        self.shown = earlier.shown;
    }

    /// *Nothing that was refused is in the log*, and no event is in it more often than it was requested.
    pub fn require_fates(&mut self, log: &Log) -> Result<(), Violation> {
        let unanswered: Vec<_> = std::mem::take(&mut self.pending).into_values().collect();
        for pending in unanswered {
            if let Asked::Append(request) = pending.asked {
                self.note(&request, false);
            }
        }
        let mut counts: BTreeMap<Digest, u64> = BTreeMap::new();
        for version in 0..log.len() {
            let digest = log.snapshot(version).map(|snapshot| snapshot.event_digest).unwrap_or_default();
            *counts.entry(digest).or_default() += 1;
        }
        for (digest, &count) in &counts {
            let fate = self.fates.entry(*digest).or_default();
            let most = fate.most + u64::from(fate.if_absent);
            require(count <= most, "nothing that was refused is in the log", || {
                format!("{digest} is in the log {count} times, but at most {most} requests can have added it")
            })?;
            require(count >= fate.least, "what is acknowledged was added", || {
                format!("{digest} is in the log {count} times, but {} additions were acknowledged", fate.least)
            })?;
        }
        Ok(())
    }

    fn forsake(&mut self, request: Request, random: &mut Random) {
        self.note(&request, false);
        if random.is_hit(600) {
            self.again.push(Request { if_absent: true, ..request });
        }
    }

    fn note(&mut self, request: &Request, is_acknowledged: bool) {
        for digest in &request.digests {
            let fate = self.fates.entry(*digest).or_default();
            if request.if_absent {
                fate.if_absent = true;
            } else {
                fate.most += 1;
                fate.least += u64::from(is_acknowledged);
            }
        }
    }
}
