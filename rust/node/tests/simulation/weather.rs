//! What a run has to stand, drawn for each seed. Frequencies are out of 1000, a tick each unless said otherwise.

use crate::faults::Fault;
use crate::host::Setting;
use crate::network::Manners;
use crate::random::Random;

/// What a run has to stand.
#[derive(Debug, Clone, Copy)]
pub struct Weather {
    /// How long it lasts.
    pub ticks: u64,
    /// Machines in the beginning.
    pub members: u64,
    /// How many of them begin the cluster; the others join.
    pub founders: u64,
    /// How members are set.
    pub setting: Setting,
    /// How the network behaves.
    pub manners: Manners,
    /// How often a machine stops.
    pub crashes: u64,
    /// Whether it loses what is not synced when it does so.
    pub is_power_lost: bool,
    /// How many ticks it may be down.
    pub downtime: u64,
    /// How often somebody changes who takes part.
    pub changes: u64,
    /// How often some are cut off from the others.
    pub cuts: u64,
    /// How often a turn takes long.
    pub slowness: u64,
    /// How many ticks that may be.
    pub slowest: u64,
    /// How often a job is done when there is one.
    pub diligence: u64,
    /// How often something is asked.
    pub eagerness: u64,
    /// How many clients wait at a time.
    pub clients: usize,
    /// The least pace of a clock.
    pub slowest_pace: u64,
}

impl Weather {
    /// Return the weather in which a fault shows, if it seldom does in others.
    pub fn for_fault(self, fault: Fault) -> Self {
        match fault {
            Fault::StaleVotes | Fault::VoteForgottenByALeader | Fault::UncheckedSenders => self.contested(3),
            // Two and two: each side has half.
            Fault::RepeatedVotes | Fault::HalfOfTheVotes => self.contested(4),
            Fault::VoteForgottenToALeader => self.contested(5),
            // Leaders that come back while their messages are still under way, to followers that have followed others since.
            Fault::StaleAcknowledgements => Self { eagerness: 700, ..self.contested(5) },
            _ => self,
        }
    }

    /// Many stand for election at a time, and what they say comes late and twice.
    fn contested(mut self, members: u64) -> Self {
        (self.members, self.founders, self.changes, self.cuts) = (members, members, 0, 15);
        (self.crashes, self.downtime) = (20, 5);
        (self.setting.pre_vote, self.setting.election_ticks) = (false, 10);
        self.manners = Manners { is_ordered: false, loss: 50, repeat: 600, delay: 600, longest: 60 };
        self
    }

    /// Draw one.
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
            cuts: random.pick(&[0, 5, 15]).unwrap(),
            slowness: random.pick(&[0, 0, 20, 100]).unwrap(),
            slowest: random.pick(&[3, 15, 40]).unwrap(),
            diligence: random.pick(&[900, 700, 100]).unwrap(),
            eagerness: random.pick(&[100, 300, 700]).unwrap(),
            clients: usize::try_from(random.within(1, 8)).unwrap(),
            slowest_pace: random.pick(&[600, 900]).unwrap(),
        }
    }
}
