//! The network between the machines.

use std::collections::{BTreeMap, BTreeSet};

use qed_core::log_id::LogId;
use qed_core::page::Extent;
use qed_node::notice::Notice;
use qed_node::ticket::Ticket;
use raft::eraftpb::Message;

use crate::random::Random;

/// The things that the network carries.
#[derive(Debug, Clone)]
pub enum Parcel {
    /// A Raft message from one member to another.
    Said(Message),
    /// Anything else that one member says to another.
    Noticed(Notice),
    /// Notice that messages to this member may have been lost.
    Lost(u64),
    /// Request for the page after an extent and a log id.
    Ask(Ticket, Extent, LogId),
    /// The answer to such a request.
    Page(Ticket, Vec<u8>),
    /// The note of a published checkpoint.
    Checkpoint(Vec<u8>),
}

/// The behaviour of a network; frequencies are out of 1000.
#[derive(Debug, Clone, Copy)]
pub struct Manners {
    /// Whether messages between two members stay in order, and are lost only together with the connection.
    pub is_ordered: bool,
    /// How often a message is lost; if messages are in order, the connection is lost with it.
    pub loss: u64,
    /// How often a message arrives twice.
    pub repeat: u64,
    /// How often a message is delayed.
    pub delay: u64,
    /// Maximum delay in ticks.
    pub longest: u64,
}

impl Manners {
    /// A network without faults.
    pub const PERFECT: Self = Self { is_ordered: true, loss: 0, repeat: 0, delay: 0, longest: 1 };
}

/// A parcel in transit.
#[derive(Debug)]
pub struct Flight {
    /// The sender.
    pub from: u64,
    /// The receiver.
    pub to: u64,
    /// The parcel.
    pub parcel: Parcel,
    /// Whether this is the second delivery of the parcel.
    pub is_repeat: bool,
}

/// The network, with everything in transit.
#[derive(Debug)]
pub struct Network {
    /// Its behaviour.
    pub manners: Manners,
    flights: BTreeMap<(u64, u64), Flight>,
    sent: u64,
    cuts: BTreeSet<(u64, u64)>,
    /// When the last message between two members arrives.
    last: BTreeMap<(u64, u64), u64>,
}

impl Network {
    /// Return an empty network.
    pub const fn new(manners: Manners) -> Self {
        Self { manners, flights: BTreeMap::new(), sent: 0, cuts: BTreeSet::new(), last: BTreeMap::new() }
    }

    /// Block everything from one member to another.
    pub fn cut(&mut self, from: u64, to: u64) {
        self.cuts.insert((from, to));
    }

    /// Remove all blocks.
    pub fn heal(&mut self) {
        self.cuts.clear();
    }

    /// Return whether anything is blocked.
    pub fn is_cut(&self) -> bool {
        !self.cuts.is_empty()
    }

    /// Send a parcel.
    pub fn send(&mut self, now: u64, from: u64, to: u64, parcel: Parcel, random: &mut Random) {
        let manners = self.manners;
        if random.is_hit(manners.loss) {
            self.lose(now, from, to, &parcel, random);
            return;
        }
        let is_stream = manners.is_ordered && Self::is_on_stream(&parcel);
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

    /// Remove and return the parcels that have arrived.
    pub fn arrived(&mut self, now: u64) -> Vec<Flight> {
        let later = self.flights.split_off(&(now + 1, 0));
        let due = std::mem::replace(&mut self.flights, later);
        let mut arrived = Vec::with_capacity(due.len());
        for flight in due.into_values() {
            if !self.cuts.contains(&(flight.from, flight.to)) {
                arrived.push(flight);
            } else if Self::is_on_stream(&flight.parcel) {
                self.break_off(now, flight.from, flight.to);
            }
        }
        arrived
    }

    /// End the connections of a member: everything in transit to it is lost, and the other members are notified.
    pub fn disconnect(&mut self, now: u64, id: u64, others: impl Iterator<Item = u64>) {
        self.flights.retain(|_, flight| flight.to != id);
        for other in others.filter(|&other| other != id) {
            self.tell(now, other, id);
        }
    }

    /// Lose everything in transit from a member.
    pub fn forget(&mut self, id: u64) {
        self.flights.retain(|_, flight| flight.from != id);
    }

    /// Lose everything in transit.
    pub fn forget_all(&mut self) {
        self.flights.clear();
    }

    /// Handle a parcel that arrived at a machine that is down.
    pub fn refuse(&mut self, now: u64, from: u64, to: u64, parcel: &Parcel) {
        if Self::is_on_stream(parcel) {
            self.tell(now, from, to);
        }
    }

    /// Return whether the parcel travels on the stream from one member to the other.
    const fn is_on_stream(parcel: &Parcel) -> bool {
        matches!(parcel, Parcel::Said(_) | Parcel::Noticed(_))
    }

    fn lose(&mut self, now: u64, from: u64, to: u64, parcel: &Parcel, random: &mut Random) {
        if !Self::is_on_stream(parcel) {
            return;
        }
        if self.manners.is_ordered {
            self.break_off(now, from, to);
            self.tell(now, to, from);
        } else if random.is_hit(200) {
            self.tell(now, from, to);
        }
    }

    /// Lose everything in transit from one member to the other, and notify the sender.
    fn break_off(&mut self, now: u64, from: u64, to: u64) {
        if self.manners.is_ordered {
            let is_lost =
                |flight: &Flight| flight.from == from && flight.to == to && Self::is_on_stream(&flight.parcel);
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
