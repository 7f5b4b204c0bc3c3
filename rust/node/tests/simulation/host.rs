//! A machine: a disk, and while it runs, a member with its state and its queues.

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

use crate::disk::{Disk, Platter};
use crate::invariants::Violation;
use crate::sign_disk::SignDisk;
use crate::signing::Signing;

/// The settings of the members in a run.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// Ticks without a leader before a member stands for election.
    pub election_ticks: usize,
    /// Ticks between heartbeats.
    pub heartbeat_ticks: usize,
    /// Size in bytes of the entries to keep.
    pub kept_bytes: usize,
    /// Number of events after which a batch is closed.
    pub batch_events: usize,
    /// Whether members ask for pre-votes before they stand for election.
    pub pre_vote: bool,
    /// Whether a leader steps down if it has no contact with a majority.
    pub check_quorum: bool,
}

/// A machine.
pub struct Host {
    /// The id of its member.
    pub id: u64,
    /// The name of its member.
    pub name: String,
    /// Its disk.
    pub disk: Disk,
    /// The disk with its sign memory.
    pub sign_disk: SignDisk,
    /// The membership that it starts with; `None` if it joins a cluster.
    pub founded: Option<Membership>,
    /// The process that runs on it; `None` while the machine is down.
    pub process: Option<Process>,
    /// If it is down, the tick at which it starts again.
    pub starts_at: u64,
    /// Whether its disk is lost or it was removed, so that it never starts again.
    pub is_lost: bool,
    /// A copy of its disk.
    pub copy: Option<Platter>,
    /// Whether an old copy of its disk was put back, and its member may still lack what it had promised.
    pub is_doubtful: bool,
    /// How often its clock ticks: in this many of 1000 ticks.
    pub pace: u64,
    /// The last term in which its member stood for election, and whether it became leader in it.
    pub stood: Option<(u64, bool)>,
}

/// The process on a machine.
pub struct Process {
    /// The member.
    pub member: Member<Disk>,
    /// Its state.
    pub state: State,
    /// The inputs that arrived since its last turn.
    pub inbox: VecDeque<Input>,
    /// The jobs that wait to be done on the state.
    pub jobs: VecDeque<Job>,
    /// If its last turn takes long: when the turn ends, and its effects, which are held back until then.
    pub held: Option<(u64, Effects)>,
    /// The ticket of the page that was requested, and when.
    pub fetching: Option<(Ticket, u64)>,
    /// What signs, if the log is signed.
    pub signing: Option<Signing>,
}

impl Process {
    /// Return whether it has stopped signing, and so accepts neither events nor members.
    pub fn is_halted(&self) -> bool {
        self.signing.as_ref().is_some_and(Signing::is_halted)
    }
}

impl Host {
    /// Return the description of the member with this id and name.
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

    /// Start the member from the content of the disk; `seed` is the seed of its own random choices.
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
            // A note outside the disk says that the copy is old.
            patience_ticks: (!self.is_doubtful).then_some(election_ticks),
            seed,
            kept_bytes,
            pre_vote,
            check_quorum,
        };
        let limits = Limits { batch_events, election_ticks, first_read: seed };
        let recovered = recover(Arc::new(log), self.disk.clone(), self.founded.clone(), settings, limits);
        let (member, state) = recovered.map_err(|error| failed(error.to_string()))?;
        let (inbox, jobs) = (VecDeque::new(), VecDeque::new());
        Ok(self.process.insert(Process { member, state, inbox, jobs, held: None, fetching: None, signing: None }))
    }
}
