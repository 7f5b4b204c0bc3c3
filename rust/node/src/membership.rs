//! The membership, as replicated state: every member knows the names and addresses of all, including those that are down.

use std::collections::BTreeMap;

use qed_core::acts::ActBody;
use raft::eraftpb::{ConfChangeType, ConfState};
use serde::{Deserialize, Serialize};

use crate::member_id::MemberId;
use crate::public_key::PublicKeyHash;

/// Maximum number of members in a cluster; every one of them takes part in every addition.
pub const MAX_MEMBERS: usize = 32;
/// Maximum length of a name or an address, in bytes.
const MAX_TEXT_BYTES: usize = 512;

/// One member, as it describes itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemberInfo {
    /// Its name, unique in the cluster.
    pub name: String,
    /// The address at which other members reach it.
    pub raft_addr: String,
    /// The address at which clients reach it.
    pub http_addr: String,
    /// The address at which operators reach it.
    pub mgmt_addr: String,
    /// Reserved for metrics.
    pub metrics_addr: String,
    /// Its public key; none until it has recorded one, as a member that is alone never does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<PublicKeyHash>,
}

/// The configuration in the sense of Raft: which members vote.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Configuration {
    /// The voters.
    pub voters: Vec<MemberId>,
    /// Members that are catching up, and vote later.
    pub learners: Vec<MemberId>,
    /// In a joint configuration: the previous voters.
    pub voters_outgoing: Vec<MemberId>,
    /// In a joint configuration: voters that will become learners.
    pub learners_next: Vec<MemberId>,
    /// Whether the joint configuration is left automatically.
    pub auto_leave: bool,
}

/// The members of a cluster from one entry on.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Membership {
    /// Unique name of the cluster: 32 hexadecimal digits.
    pub cluster: String,
    /// Members by number.
    pub members: BTreeMap<MemberId, MemberInfo>,
    /// Numbers of removed members, with their names: they must not return.
    pub removed: BTreeMap<MemberId, String>,
    /// Which of them vote.
    pub configuration: Configuration,
    /// Names of the clusters whose log this one continues, the oldest first: it was founded on a restored or recovered log.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub continues: Vec<String>,
}

/// A change of the membership by an entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// A member joins, or has new addresses.
    Put(MemberId, MemberInfo),
    /// A member leaves.
    Remove(MemberId),
}

/// A request that only a leader can carry out. A change of members is recorded together with its act, if it has one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClusterChange {
    /// Admit the member with this id, or record its new addresses.
    Admit(MemberId, MemberInfo, Option<ActBody>),
    /// Remove the member with this name.
    Remove(String, Option<ActBody>),
    /// Remove the member with the first number, and admit another of the same name in its place, with the second.
    Replace(MemberId, MemberId, MemberInfo, Option<ActBody>),
    /// Make the member with this name the leader, or any member if there is no name.
    Transfer(Option<String>),
}

/// Why a member cannot be admitted, removed or made leader.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Inadmissible {
    /// The number was removed before.
    #[error("member {0} was removed from the cluster; empty its data folder to join as a new one")]
    Removed(String),
    /// Another member has the name.
    #[error("the node id {0} is in use by another member; if that one is lost for good: qed cluster replace {0}")]
    NameTaken(String),
    /// Another member has this address.
    #[error("the address {address} is in use by {name}")]
    AddressTaken {
        /// The address.
        address: String,
        /// The member that has it.
        name: String,
    },
    /// Another member has the key.
    #[error("{0} has the same key; give each server its own key and certificate")]
    KeyTaken(String),
    /// The cluster already has the maximum number of members.
    #[error("the cluster has {MAX_MEMBERS} members already")]
    Full,
    /// No member has this name.
    #[error("no member is called {0}")]
    Unknown(String),
    /// It is the only voter.
    #[error("{0} is the only voting member")]
    LastVoter(String),
    /// The voters that would be left are not a majority that is reachable.
    #[error(
        "without {name} no majority would be reachable, because {} does not answer: bring it back or remove it first",
        .silent.join(", ")
    )]
    Indispensable {
        /// The member to remove.
        name: String,
        /// The other voters that do not answer.
        silent: Vec<String>,
    },
    /// It is unreachable, or does not vote yet.
    #[error("{0} cannot become leader: it is unreachable or still a learner")]
    NotReady(String),
    /// No other voting member is reachable.
    #[error("no other voting member is reachable")]
    NoSuccessor,
    /// A name or address is empty or too long.
    #[error("a name or address is empty or longer than {MAX_TEXT_BYTES} bytes")]
    Malformed,
}

impl Membership {
    /// Return the membership of a new cluster with one member.
    #[must_use]
    pub fn of_one(cluster: String, id: MemberId, member: MemberInfo) -> Self {
        let configuration = Configuration { voters: vec![id], ..Configuration::default() };
        let members = BTreeMap::from([(id, member)]);
        Self { cluster, members, removed: BTreeMap::new(), configuration, continues: Vec::new() }
    }

    /// Return the membership of a new cluster with one member, which continues the log of another cluster.
    #[must_use]
    pub fn continuing(old: &Self, cluster: String, id: MemberId, member: MemberInfo) -> Self {
        let names = old.continues.iter().chain([&old.cluster]).filter(|name| !name.is_empty());
        Self { continues: names.cloned().collect(), ..Self::of_one(cluster, id, member) }
    }

    /// Return the membership in `bytes`, or None if they are malformed.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }

    /// Return the membership as bytes: equal bytes for equal memberships.
    ///
    /// # Panics
    ///
    /// Never: numbers, text and maps by number always become JSON.
    #[must_use]
    #[expect(clippy::expect_used, reason = "an empty row in its place would be replicated")]
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a membership as JSON")
    }

    /// Return the number of the member with a name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<MemberId> {
        self.members.iter().find(|(_, member)| member.name == name).map(|(&id, _)| id)
    }

    /// Return whether a member votes.
    #[must_use]
    pub fn is_voter(&self, id: MemberId) -> bool {
        self.configuration.voters.contains(&id)
    }

    /// Apply the changes of an entry, with the resulting configuration.
    pub fn apply(&mut self, changes: Vec<Change>, conf_state: Option<&ConfState>) {
        for change in changes {
            match change {
                // The change was proposed while its removal was under way.
                Change::Put(id, _) if self.removed.contains_key(&id) => {}
                Change::Put(id, member) => {
                    self.members.insert(id, member);
                }
                Change::Remove(id) => {
                    if let Some(member) = self.members.remove(&id) {
                        self.removed.insert(id, member.name);
                    }
                }
            }
        }
        if let Some(conf_state) = conf_state {
            self.configuration = conf_state.into();
        }
    }

    /// Return the changes that admit `member` under the number `id`: none if it is already a member with these addresses. Another member
    /// of that name is removed only if it is dead and has the same key: it is then the same server, after the loss of its disk. Any other
    /// is removed by [`Self::replace`], which an operator asks for.
    ///
    /// # Errors
    ///
    /// Why it cannot be admitted.
    pub fn admit(
        &self,
        id: MemberId,
        member: &MemberInfo,
        is_dead: &dyn Fn(MemberId) -> bool,
    ) -> Result<Vec<Change>, Inadmissible> {
        self.require_admissible(id, member)?;
        let replaced = self.find(&member.name).filter(|&other| other != id);
        let has_same_key = |other| {
            let known = self.members.get(&other).and_then(|known| known.key);
            known.is_some() && known == member.key
        };
        if replaced.is_some_and(|other| !is_dead(other) || !has_same_key(other)) {
            return Err(Inadmissible::NameTaken(member.name.clone()));
        }
        self.admit_for(replaced, id, member)
    }

    /// Return the changes that remove the member `replaced` and admit `member`, which has its name, in its place, under the number `id`.
    /// An operator has given up the one that is removed, some minutes ago: meanwhile it may have returned.
    ///
    /// # Errors
    ///
    /// Why it cannot be removed or admitted.
    pub fn replace(
        &self,
        replaced: MemberId,
        id: MemberId,
        member: &MemberInfo,
        is_silent: &dyn Fn(MemberId) -> bool,
    ) -> Result<Vec<Change>, Inadmissible> {
        self.require_admissible(id, member)?;
        let name = &member.name;
        if replaced == id || self.find(name) != Some(replaced) {
            return Err(Inadmissible::Unknown(name.clone()));
        }
        if self.configuration.voters == [replaced] {
            return Err(Inadmissible::LastVoter(name.clone()));
        }
        if !is_silent(replaced) {
            return Err(Inadmissible::NameTaken(name.clone()));
        }
        self.admit_for(Some(replaced), id, member)
    }

    /// Require that the id was not removed, and that all texts have a valid length.
    fn require_admissible(&self, id: MemberId, member: &MemberInfo) -> Result<(), Inadmissible> {
        if let Some(name) = self.removed.get(&id) {
            return Err(Inadmissible::Removed(name.clone()));
        }
        let texts = [&member.name, &member.raft_addr, &member.http_addr, &member.mgmt_addr, &member.metrics_addr];
        if texts.iter().any(|text| text.is_empty() || text.len() > MAX_TEXT_BYTES) {
            return Err(Inadmissible::Malformed);
        }
        Ok(())
    }

    /// Return the changes that admit `member` once `replaced` is removed.
    fn admit_for(
        &self,
        replaced: Option<MemberId>,
        id: MemberId,
        member: &MemberInfo,
    ) -> Result<Vec<Change>, Inadmissible> {
        let others = self.members.iter().filter(|&(&other, _)| other != id && Some(other) != replaced);
        let has_same_key = |known: &MemberInfo| known.key.is_some() && known.key == member.key;
        // Members that shared a key before this was refused may still announce new addresses.
        let is_known_by_it = self.members.get(&id).is_some_and(has_same_key);
        for (_, other) in others {
            if has_same_key(other) && !is_known_by_it {
                return Err(Inadmissible::KeyTaken(other.name.clone()));
            }
            for (address, taken) in [(&member.raft_addr, &other.raft_addr), (&member.http_addr, &other.http_addr)] {
                if address == taken {
                    return Err(Inadmissible::AddressTaken { address: address.clone(), name: other.name.clone() });
                }
            }
        }
        if self.members.get(&id) == Some(member) && replaced.is_none() {
            return Ok(Vec::new());
        }
        if self.members.len() >= MAX_MEMBERS && replaced.is_none() && !self.members.contains_key(&id) {
            return Err(Inadmissible::Full);
        }
        let removal = replaced.map(Change::Remove);
        Ok(removal.into_iter().chain([Change::Put(id, member.clone())]).collect())
    }

    /// Return the changes that remove the member with a name. The voters that are left must still have a majority that is not silent:
    /// otherwise nothing could be committed from then on, not even the removal of the silent ones.
    ///
    /// # Errors
    ///
    /// Why it cannot be removed.
    pub fn remove(&self, name: &str, is_silent: &dyn Fn(MemberId) -> bool) -> Result<Vec<Change>, Inadmissible> {
        let id = self.find(name).ok_or_else(|| Inadmissible::Unknown(name.into()))?;
        if self.configuration.voters == [id] {
            return Err(Inadmissible::LastVoter(name.into()));
        }
        let left: Vec<_> = self.configuration.voters.iter().copied().filter(|&voter| voter != id).collect();
        let silent: Vec<_> = left.iter().copied().filter(|&voter| is_silent(voter)).collect();
        if self.is_voter(id) && 2 * silent.len() >= left.len() {
            let silent = silent.iter().filter_map(|other| self.members.get(other)).map(|other| other.name.clone());
            return Err(Inadmissible::Indispensable { name: name.into(), silent: silent.collect() });
        }
        Ok(vec![Change::Remove(id)])
    }

    /// Return the change of Raft's configuration for `changes`: None if only addresses change.
    #[must_use]
    pub fn configuration_changes(&self, changes: &[Change]) -> Vec<(ConfChangeType, MemberId)> {
        let of_change = |change: &Change| match change {
            Change::Put(id, _) if self.members.contains_key(id) => None,
            Change::Put(id, _) => Some((ConfChangeType::AddLearnerNode, *id)),
            Change::Remove(id) => Some((ConfChangeType::RemoveNode, *id)),
        };
        changes.iter().filter_map(of_change).collect()
    }
}

impl From<&ConfState> for Configuration {
    fn from(conf_state: &ConfState) -> Self {
        let sorted = |ids: &[u64]| {
            let mut ids: Vec<_> = ids.iter().copied().map(MemberId::of).collect();
            ids.sort_unstable();
            ids
        };
        Self {
            voters: sorted(&conf_state.voters),
            learners: sorted(&conf_state.learners),
            voters_outgoing: sorted(&conf_state.voters_outgoing),
            learners_next: sorted(&conf_state.learners_next),
            auto_leave: conf_state.auto_leave,
        }
    }
}

impl From<&Configuration> for ConfState {
    fn from(configuration: &Configuration) -> Self {
        let numbers = |ids: &[MemberId]| ids.iter().copied().map(MemberId::get).collect();
        Self {
            voters: numbers(&configuration.voters),
            learners: numbers(&configuration.learners),
            voters_outgoing: numbers(&configuration.voters_outgoing),
            learners_next: numbers(&configuration.learners_next),
            auto_leave: configuration.auto_leave,
        }
    }
}

#[cfg(test)]
mod tests;
