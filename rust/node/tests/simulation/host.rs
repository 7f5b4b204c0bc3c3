//! A machine: a disk, and while it runs a member with its state and what waits for them.

use std::collections::VecDeque;
use std::sync::Arc;

use qed_core::hash::Digest;
use qed_core::log::Log;
use qed_node::consensus::Settings;
use qed_node::member::{Effects, Input, Job, Limits, Member};
use qed_node::member_id::MemberId;
use qed_node::membership::{MemberInfo, Membership};
use qed_node::public_key::PublicKeyHash;
use qed_node::recovery::recover;
use qed_node::state::State;
use qed_node::ticket::Ticket;

use crate::disk::Disk;
use crate::invariants::Violation;

/// How members are set in a simulation.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// Ticks without a leader before an election.
    pub election_ticks: usize,
    /// Ticks between heartbeats.
    pub heartbeat_ticks: usize,
    /// Bytes of entries that are kept.
    pub kept_bytes: usize,
    /// Events after which a batch is closed.
    pub batch_events: usize,
    /// Whether members ask before they stand for election.
    pub pre_vote: bool,
    /// Whether leaders step down that hear of no majority.
    pub check_quorum: bool,
}

/// A machine.
pub struct Host {
    /// The number of its member.
    pub id: u64,
    /// The name of its member.
    pub name: String,
    /// Its disk.
    pub disk: Disk,
    /// The membership it begins with, unless it joins.
    pub founded: Option<Membership>,
    /// What runs on it.
    pub process: Option<Process>,
    /// When it starts again, if it does not run.
    pub starts_at: u64,
    /// Whether its disk is gone, and it will never start again.
    pub is_lost: bool,
    /// How often its clock ticks, of 1000.
    pub pace: u64,
    /// The last term in which it stood for election, and whether it led then.
    pub stood: Option<(u64, bool)>,
}

/// What runs on a machine.
pub struct Process {
    /// The member.
    pub member: Member<Disk>,
    /// Its state.
    pub state: State,
    /// What has happened to it since its last turn.
    pub inbox: VecDeque<Input>,
    /// What is to be done to the state.
    pub jobs: VecDeque<Job>,
    /// What its last turn came to, and when that is over.
    pub held: Option<(u64, Effects)>,
    /// The ticket of a page that was asked for, and when.
    pub fetching: Option<(Ticket, u64)>,
}

impl Host {
    /// Return how a member of this name describes itself.
    pub fn description(id: u64, name: &str) -> MemberInfo {
        let address = |kind: &str| format!("{kind}.{id}");
        MemberInfo {
            name: name.into(),
            raft_addr: address("raft"),
            http_addr: address("http"),
            mgmt_addr: address("mgmt"),
            metrics_addr: address("metrics"),
            // A machine that returns with an empty disk still has its key.
            key: Some(PublicKeyHash::new(*Digest::of_event(name.as_bytes()).as_bytes())),
        }
    }

    /// Start the member on what is on the disk; `seed` is what it draws for itself.
    pub fn start(&mut self, setting: Setting, seed: u64) -> Result<&mut Process, Violation> {
        let failed =
            |error: String| Violation { invariant: "members start", found: format!("member {}: {error}", self.id) };
        let Setting { election_ticks, heartbeat_ticks, kept_bytes, batch_events, pre_vote, check_quorum } = setting;
        let log = Log::over(Box::new(self.disk.rows())).map_err(|error| failed(error.to_string()))?;
        let settings = Settings {
            id: MemberId::of(self.id),
            election_ticks,
            dead_ticks: 2 * election_ticks,
            heartbeat_ticks,
            seed,
            kept_bytes,
            pre_vote,
            check_quorum,
        };
        let limits = Limits { batch_events, election_ticks, first_read: seed };
        let recovered = recover(Arc::new(log), self.disk.clone(), self.founded.clone(), settings, limits);
        let (member, state) = recovered.map_err(|error| failed(error.to_string()))?;
        let (inbox, jobs) = (VecDeque::new(), VecDeque::new());
        Ok(self.process.insert(Process { member, state, inbox, jobs, held: None, fetching: None }))
    }
}
