//! What is between the machines.

use std::collections::{BTreeMap, BTreeSet};

use qed_core::log_id::LogId;
use qed_core::page::Extent;
use qed_node::ticket::Ticket;
use raft::eraftpb::Message;

use crate::random::Random;

/// What is carried.
#[derive(Debug, Clone)]
pub enum Parcel {
    /// Said by one member to another.
    Said(Message),
    /// Messages to a member may have been lost.
    Lost(u64),
    /// Asks for the page after an extent and a log id.
    Ask(Ticket, Extent, LogId),
    /// Answers that.
    Page(Ticket, Vec<u8>),
}

/// How a network behaves; frequencies are out of 1000.
#[derive(Debug, Clone, Copy)]
pub struct Manners {
    /// Whether messages of a pair stay in order, and none is lost but with its connection.
    pub is_ordered: bool,
    /// How often a message is lost; with its connection if messages are in order.
    pub loss: u64,
    /// How often a message arrives twice.
    pub repeat: u64,
    /// How often a message takes long.
    pub delay: u64,
    /// How many ticks that may be.
    pub longest: u64,
}

impl Manners {
    /// A network without any fault.
    pub const PERFECT: Self = Self { is_ordered: true, loss: 0, repeat: 0, delay: 0, longest: 1 };
}

/// Something under way.
#[derive(Debug)]
pub struct Flight {
    /// Who sent it.
    pub from: u64,
    /// Who is to get it.
    pub to: u64,
    /// What it is.
    pub parcel: Parcel,
    /// Whether it has arrived before.
    pub is_repeat: bool,
}

/// Everything that is under way.
#[derive(Debug)]
pub struct Network {
    /// How it behaves.
    pub manners: Manners,
    flights: BTreeMap<(u64, u64), Flight>,
    sent: u64,
    cuts: BTreeSet<(u64, u64)>,
    /// When the last message of a pair arrives.
    last: BTreeMap<(u64, u64), u64>,
}

impl Network {
    /// Return an empty network.
    pub const fn new(manners: Manners) -> Self {
        Self { manners, flights: BTreeMap::new(), sent: 0, cuts: BTreeSet::new(), last: BTreeMap::new() }
    }

    /// Let nothing through from one member to another.
    pub fn cut(&mut self, from: u64, to: u64) {
        self.cuts.insert((from, to));
    }

    /// Let everything through.
    pub fn heal(&mut self) {
        self.cuts.clear();
    }

    /// Return whether anything is cut.
    pub fn is_cut(&self) -> bool {
        !self.cuts.is_empty()
    }

    /// Put something in.
    pub fn send(&mut self, now: u64, from: u64, to: u64, parcel: Parcel, random: &mut Random) {
        let manners = self.manners;
        if random.is_hit(manners.loss) {
            self.lose(now, from, to, &parcel, random);
            return;
        }
        let is_stream = manners.is_ordered && matches!(parcel, Parcel::Said(_));
        let mut at = self.arrival(now, random);
        if is_stream {
            let last = self.last.entry((from, to)).or_default();
            at = at.max(*last);
            *last = at;
        } else if random.is_hit(manners.repeat) {
            let again = self.arrival(at, random);
            self.put(again, Flight { from, to, parcel: parcel.clone(), is_repeat: true });
        }
        self.put(at, Flight { from, to, parcel, is_repeat: false });
    }

    /// Take what has arrived.
    pub fn arrived(&mut self, now: u64) -> Vec<Flight> {
        let later = self.flights.split_off(&(now + 1, 0));
        let due = std::mem::replace(&mut self.flights, later);
        let mut arrived = Vec::with_capacity(due.len());
        for flight in due.into_values() {
            if !self.cuts.contains(&(flight.from, flight.to)) {
                arrived.push(flight);
            } else if matches!(flight.parcel, Parcel::Said(_)) {
                self.break_off(now, flight.from, flight.to);
            }
        }
        arrived
    }

    /// End the connections of a member: what is under way to it is lost, and the others are told.
    pub fn disconnect(&mut self, now: u64, id: u64, others: impl Iterator<Item = u64>) {
        self.flights.retain(|_, flight| flight.to != id);
        for other in others.filter(|&other| other != id) {
            self.tell(now, other, id);
        }
    }

    /// Note that nobody is there to take what has arrived.
    pub fn refuse(&mut self, now: u64, from: u64, to: u64, parcel: &Parcel) {
        if matches!(parcel, Parcel::Said(_)) {
            self.tell(now, from, to);
        }
    }

    fn lose(&mut self, now: u64, from: u64, to: u64, parcel: &Parcel, random: &mut Random) {
        let Parcel::Said(_) = parcel else { return };
        if self.manners.is_ordered {
            self.break_off(now, from, to);
            self.tell(now, to, from);
        } else if random.is_hit(200) {
            self.tell(now, from, to);
        }
    }

    /// Lose what is under way from one to the other, and tell the sender.
    fn break_off(&mut self, now: u64, from: u64, to: u64) {
        if self.manners.is_ordered {
            let is_lost =
                |flight: &Flight| flight.from == from && flight.to == to && matches!(flight.parcel, Parcel::Said(_));
            self.flights.retain(|_, flight| !is_lost(flight));
        }
        self.tell(now, from, to);
    }

    fn tell(&mut self, now: u64, whom: u64, lost: u64) {
        self.put(now + 2, Flight { from: whom, to: whom, parcel: Parcel::Lost(lost), is_repeat: false });
    }

    fn put(&mut self, at: u64, flight: Flight) {
        self.sent += 1;
        self.flights.insert((at, self.sent), flight);
    }

    fn arrival(&self, now: u64, random: &mut Random) -> u64 {
        let longest = if random.is_hit(self.manners.delay) { self.manners.longest } else { 2 };
        now + if self.manners.longest == 1 { 1 } else { random.within(1, longest) }
    }
}
