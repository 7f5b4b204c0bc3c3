//! Requests that only a leader carries out: changes of the members, transfers of leadership, acts.

use qed_core::acts::ActBody;
use qed_core::log_id::LogId;

use super::{Member, Proposal};
use crate::consensus::Refusal;
use crate::entry::Command;
use crate::membership::{Change, ClusterChange, Inadmissible};
use crate::outbox::{Failure, Outcome, Success};
use crate::segments::SegmentStore;
use crate::ticket::Ticket;

impl<M: SegmentStore> Member<M> {
    /// Carry out a request to the leader, or propose it; return its outcome if that is already known.
    pub(super) fn request(&mut self, ticket: Ticket, change: ClusterChange) -> Option<Outcome> {
        match change {
            ClusterChange::Admit(id, info, act) => {
                let is_dead = |id| self.consensus.is_presumed_dead(id);
                let changes = self.membership.admit(id, &info, &is_dead);
                self.change_members(ticket, changes, act)
            }
            ClusterChange::Remove(name, act) => {
                let is_silent = |id| self.consensus.is_silent(id);
                let changes = self.membership.remove(&name, &is_silent);
                self.remove(ticket, changes, act)
            }
            ClusterChange::Replace(replaced, id, info, act) => {
                let is_silent = |id| self.consensus.is_silent(id);
                let changes = self.membership.replace(replaced, id, &info, &is_silent);
                self.remove(ticket, changes, act)
            }
            ClusterChange::Transfer(name) => Some(self.transfer(name)),
        }
    }

    /// Propose a change of membership; return its outcome if that is already known.
    fn change_members(
        &mut self,
        ticket: Ticket,
        changes: Result<Vec<Change>, Inadmissible>,
        act: Option<ActBody>,
    ) -> Option<Outcome> {
        if !self.consensus.can_propose() {
            return Some(Err(Failure::NotLeader));
        }
        let changes = match changes {
            Ok(changes) if changes.is_empty() => return Some(Ok(Success::Done)),
            Ok(changes) => changes,
            Err(reason) => return Some(Err(Failure::Inadmissible(reason))),
        };
        let of_configuration = self.membership.configuration_changes(&changes);
        let command = Command::Members(changes, act).to_bytes();
        let proposed = if of_configuration.is_empty() {
            self.consensus.propose(command)
        } else {
            self.consensus.propose_members(&of_configuration, command)
        };
        self.await_proposal(ticket, &proposed)
    }

    /// Propose an act; return its outcome if that is already known.
    pub(super) fn record(&mut self, ticket: Ticket, body: ActBody) -> Option<Outcome> {
        let proposed = self.consensus.propose(Command::Act(body).to_bytes());
        self.await_proposal(ticket, &proposed)
    }

    /// Let a ticket wait for a proposal; return the outcome if nothing was proposed.
    fn await_proposal(&mut self, ticket: Ticket, proposed: &Result<LogId, Refusal>) -> Option<Outcome> {
        let failure = match *proposed {
            Ok(log_id) => {
                self.proposals.push_back(Proposal { log_id, tickets: vec![ticket] });
                self.under_way.push_back(log_id);
                return None;
            }
            Err(Refusal::NotLeader) => Failure::NotLeader,
            Err(Refusal::Busy | Refusal::InvalidMessage(_) | Refusal::Raft(_)) => Failure::Busy,
        };
        Some(Err(failure))
    }

    fn remove(
        &mut self,
        ticket: Ticket,
        changes: Result<Vec<Change>, Inadmissible>,
        act: Option<ActBody>,
    ) -> Option<Outcome> {
        let is_own = |change: &Change| matches!(change, Change::Remove(id) if Some(*id) == self.role.leader);
        if self.role.is_leader && changes.as_ref().is_ok_and(|changes| changes.iter().any(is_own)) {
            // A leader hands over first: its successor is then asked to remove it.
            let successor = self.consensus.transfer(None);
            return Some(
                successor.map_or(Err(Failure::Inadmissible(Inadmissible::NoSuccessor)), |_| Err(Failure::NotLeader)),
            );
        }
        self.change_members(ticket, changes, act)
    }

    fn transfer(&mut self, name: Option<String>) -> Outcome {
        if !self.role.is_leader {
            return Err(Failure::NotLeader);
        }
        let Some(name) = name else {
            let successor = self.consensus.transfer(None);
            return successor.map_or(Err(Failure::Inadmissible(Inadmissible::NoSuccessor)), |_| Ok(Success::Done));
        };
        match self.membership.find(&name) {
            Some(id) if Some(id) == self.role.leader || self.consensus.transfer(Some(id)).is_some() => {
                Ok(Success::Done)
            }
            Some(_) => Err(Failure::Inadmissible(Inadmissible::NotReady(name))),
            None => Err(Failure::Inadmissible(Inadmissible::Unknown(name))),
        }
    }
}
