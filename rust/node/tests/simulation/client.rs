//! Those who ask: many at once, of any member, and again if nobody answers.

use std::collections::BTreeMap;

use qed_core::acts::ActBody;
use qed_core::hash::Digest;
use qed_core::log::{Log, Request};
use qed_node::outbox::{Failure, Outcome, Success};
use qed_node::ticket::Ticket;

use crate::invariants::{Invariants, Violation, require};
use crate::random::Random;

/// What was asked for.
#[derive(Debug, Clone)]
pub enum Asked {
    /// To append.
    Append(Request),
    /// To read, when so many events were known to be there.
    Read(u64),
    /// To change who takes part.
    Change,
    /// To do what is to be recorded.
    Act(ActBody),
}

/// A question without an answer.
#[derive(Debug)]
pub struct Pending {
    /// Who was asked.
    pub host: u64,
    /// When.
    pub since: u64,
    /// For what.
    pub asked: Asked,
}

/// What may have become of an event.
#[derive(Debug, Default)]
struct Fate {
    /// How often it may have been added, by requests that add it in any case.
    most: u64,
    /// How often such a request was acknowledged.
    least: u64,
    /// Whether a request to add it if it is absent may have been carried out.
    if_absent: bool,
}

/// All clients.
#[derive(Debug, Default)]
pub struct Clients {
    pending: BTreeMap<Ticket, Pending>,
    tickets: u64,
    events: u64,
    fates: BTreeMap<Digest, Fate>,
    /// Requests whose outcome is unknown, to be asked for once more.
    again: Vec<Request>,
    /// Events that a read has shown.
    shown: u64,
    /// How many requests to append and to read were answered.
    pub answered: (u64, u64),
}

impl Clients {
    /// Return how many wait, of those who have not given up.
    pub fn waiting(&self, now: u64) -> usize {
        self.pending.values().filter(|pending| pending.since + 100 > now).count()
    }

    /// Return the tickets of appends that wait for a member.
    pub fn appends_at(&self, host: u64) -> impl Iterator<Item = Ticket> {
        let is_append = move |pending: &Pending| pending.host == host && matches!(pending.asked, Asked::Append(_));
        self.pending.iter().filter(move |(_, pending)| is_append(pending)).map(|(&ticket, _)| ticket)
    }

    /// Return a request to append.
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

    /// Note what is asked of a member, and return the ticket.
    pub fn ask(&mut self, now: u64, host: u64, asked: Asked) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket::new(self.tickets);
        self.pending.insert(ticket, Pending { host, since: now, asked });
        ticket
    }

    /// Return how many events a read that is asked for must show.
    pub fn floor(&self, invariants: &Invariants) -> u64 {
        self.shown.max(invariants.acknowledged_len())
    }

    /// Take an answer of a member with this log.
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
                require(found == request.digests, "who waits gets what was asked for", || {
                    format!("member {host} answered {request:?} by {added:?}")
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
                // Whoever was asked earlier need not show what this read has shown.
                require(len >= floor, "reads show what was acknowledged", || {
                    format!("member {host} showed {len} events, and {floor} were acknowledged before")
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

    /// Note that a member has stopped: what it was asked is unknown.
    pub fn stopped(&mut self, host: u64, random: &mut Random) {
        for (_, pending) in self.pending.extract_if(.., |_, pending| pending.host == host).collect::<Vec<_>>() {
            if let Asked::Append(request) = pending.asked {
                self.forsake(request, random);
            }
        }
    }

    /// *What was refused is not there*, and nothing is there more often than it was asked for.
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
            require(count <= most, "nothing is added that was refused", || {
                format!("{digest} stands {count} times; at most {most} requests can have added it")
            })?;
            require(count >= fate.least, "what is acknowledged was added", || {
                format!("{digest} stands {count} times, but {} were acknowledged", fate.least)
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
