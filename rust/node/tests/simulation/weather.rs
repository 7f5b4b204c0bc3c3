//! The conditions that a run must cope with, drawn for each seed. Frequencies are out of 1000, per tick unless stated otherwise.

use crate::faults::Fault;
use crate::host::Setting;
use crate::network::Manners;
use crate::random::Random;

/// The conditions of a run.
#[derive(Debug, Clone, Copy)]
pub struct Weather {
    /// Its length in ticks, before everything heals.
    pub ticks: u64,
    /// Number of machines at the start.
    pub members: u64,
    /// How many of them start the cluster; the others join.
    pub founders: u64,
    /// The settings of the members.
    pub setting: Setting,
    /// The behaviour of the network.
    pub manners: Manners,
    /// How often a machine crashes.
    pub crashes: u64,
    /// Whether it loses everything that is not synced when it crashes.
    pub is_power_lost: bool,
    /// Maximum downtime in ticks.
    pub downtime: u64,
    /// How often a disk is copied, or an old copy put back.
    pub rollbacks: u64,
    /// How often the operator changes the membership.
    pub changes: u64,
    /// How often the network is partitioned.
    pub cuts: u64,
    /// How often a turn takes long; out of 1000 turns.
    pub slowness: u64,
    /// Maximum length of such a turn in ticks.
    pub slowest: u64,
    /// How often a waiting job is done.
    pub diligence: u64,
    /// How often a client sends a request.
    pub eagerness: u64,
    /// Maximum number of requests that are unanswered at a time.
    pub clients: usize,
    /// The pace of the slowest clock.
    pub slowest_pace: u64,
    /// What signing must cope with.
    pub signing: SigningWeather,
}

/// What signing must cope with.
#[derive(Debug, Clone, Copy)]
pub struct SigningWeather {
    /// Whether the log is signed.
    pub is_on: bool,
    /// How often what signs takes its next step.
    pub diligence: u64,
    /// How often a machine crashes at a step; out of 1000 steps.
    pub crashes: u64,
    /// How often a bit of the running tree flips.
    pub flips: u64,
    /// When all disks are copied, and when the copies are put back.
    pub restore: Option<(u64, u64)>,
}

impl SigningWeather {
    /// The log is not signed.
    pub const OFF: Self = Self { is_on: false, diligence: 0, crashes: 0, flips: 0, restore: None };

    /// Draw random conditions for a run of that many ticks with a fault. Without any signing they take no part in a run.
    pub fn draw(dice: &mut Random, fault: Fault, ticks: u64) -> Self {
        if fault != Fault::None && !fault.is_of_signing() {
            return Self::OFF;
        }
        let made_at = dice.within(ticks / 6, ticks / 3);
        let put_back_at = made_at + dice.within(20, ticks / 4);
        let is_restored = dice.is_hit(200) || fault.needs_restore();
        Self {
            is_on: true,
            diligence: dice.pick(&[900, 600, 200]).unwrap(),
            crashes: dice.pick(&[0, 5, 30]).unwrap(),
            flips: if fault == Fault::SelfCheckLeftOut { 20 } else { dice.pick(&[0, 0, 2]).unwrap() },
            restore: is_restored.then_some((made_at, put_back_at)),
        }
    }
}

impl Weather {
    /// Return conditions that make a fault show, if it seldom shows under others.
    pub fn for_fault(self, fault: Fault) -> Self {
        let rollbacks = if fault == Fault::None { self.rollbacks } else { 0 };
        Self { rollbacks, ..self }.showing(fault)
    }

    fn showing(self, fault: Fault) -> Self {
        match fault {
            Fault::StaleVotes | Fault::VoteForgottenByALeader | Fault::UncheckedSenders => self.contested(3),
            Fault::AdmissionWhileHalted => Self { changes: 50, ..self },
            Fault::VoteAfterAnOldCopy => Self { rollbacks: 40, ..self },
            // Two votes on each side: half of them.
            Fault::RepeatedVotes | Fault::HalfOfTheVotes => self.contested(4),
            Fault::VoteForgottenToALeader => self.contested(5),
            // Leaders that return while their old messages are still in transit to followers that have followed other leaders since.
            Fault::StaleAcknowledgements => Self { eagerness: 700, ..self.contested(5) },
            _ => self,
        }
    }

    /// Many members stand for election at the same time, and their messages arrive late and twice.
    fn contested(mut self, members: u64) -> Self {
        (self.members, self.founders, self.changes, self.cuts) = (members, members, 0, 15);
        (self.crashes, self.downtime) = (20, 5);
        (self.setting.pre_vote, self.setting.election_ticks) = (false, 10);
        self.manners = Manners { is_ordered: false, loss: 50, repeat: 600, delay: 600, longest: 60 };
        self
    }

    /// Return conditions under which nothing goes wrong, for three members.
    pub fn calm(self) -> Self {
        Self {
            members: 3,
            founders: 3,
            manners: Manners::PERFECT,
            crashes: 0,
            changes: 0,
            rollbacks: 0,
            cuts: 0,
            slowness: 0,
            diligence: 900,
            slowest_pace: 1000,
            setting: Setting { pre_vote: true, check_quorum: true, ..self.setting },
            ..self
        }
    }

    /// Draw random conditions.
    pub fn draw(random: &mut Random) -> Self {
        let members = random.pick(&[3, 3, 3, 4, 5]).unwrap();
        let manners = Manners {
            is_ordered: random.is_hit(400),
            loss: random.pick(&[0, 10, 50, 150]).unwrap(),
            repeat: random.pick(&[0, 50, 200]).unwrap(),
            delay: random.pick(&[0, 50, 300]).unwrap(),
            longest: random.pick(&[4, 20, 60]).unwrap(),
        };
        let setting = Setting {
            election_ticks: random.pick(&[10, 20]).unwrap(),
            heartbeat_ticks: random.pick(&[1, 3]).unwrap(),
            kept_bytes: random.pick(&[300, 1000, 5000, 16 << 20]).unwrap(),
            batch_events: random.pick(&[1, 4, 1000]).unwrap(),
            pre_vote: random.is_hit(800),
            check_quorum: random.is_hit(800),
        };
        Self {
            ticks: random.within(200, 800),
            members,
            founders: if random.is_hit(300) { 1 } else { members },
            setting,
            manners,
            crashes: random.pick(&[0, 5, 20]).unwrap(),
            is_power_lost: random.is_hit(700),
            downtime: random.pick(&[5, 50, 200]).unwrap(),
            changes: random.pick(&[0, 0, 10, 50]).unwrap(),
            rollbacks: random.pick(&[0, 0, 5, 15]).unwrap(),
            cuts: random.pick(&[0, 5, 15]).unwrap(),
            slowness: random.pick(&[0, 0, 20, 100]).unwrap(),
            slowest: random.pick(&[3, 15, 40]).unwrap(),
            diligence: random.pick(&[900, 700, 100]).unwrap(),
            eagerness: random.pick(&[100, 300, 700]).unwrap(),
            clients: usize::try_from(random.within(1, 8)).unwrap(),
            slowest_pace: random.pick(&[600, 900]).unwrap(),
            signing: SigningWeather::OFF,
        }
    }
}
