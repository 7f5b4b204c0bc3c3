//! The operator of the machines: adds new ones, removes some, and replaces those whose disks are lost.

use std::collections::BTreeSet;
use std::sync::Arc;

use qed_core::acts::ActBody;
use qed_node::member::Input;
use qed_node::member_id::MemberId;
use qed_node::membership::{ClusterChange, Membership};
use qed_node::ticket::Ticket;

use crate::client::Asked;
use crate::faults::Fault;
use crate::host::Host;
use crate::invariants::Violation;
use crate::world::World;

/// Maximum number of machines ever created.
const MOST_HOSTS: u64 = 8;
/// Minimum number of ticks between two changes.
const PAUSE_TICKS: u64 = 60;

impl World {
    /// Change the membership now and then, and ask for the admission of machines that wait to join.
    pub fn operate(&mut self) -> Result<(), Violation> {
        self.admit()?;
        if self.is_healed {
            self.take_away();
        } else if self.now >= self.next_change && self.random.is_hit(self.weather.changes) {
            self.next_change = self.now + PAUSE_TICKS;
            match self.random.below(4) {
                0 => self.bring(),
                1 => self.remove(),
                2 => self.transfer(),
                _ => self.lose_disk(),
            }
        }
        Ok(())
    }

    /// Ask for the admission of running machines that are not members.
    fn admit(&mut self) -> Result<(), Violation> {
        let is_outside = |host: &&Host| {
            host.process.as_ref().is_some_and(|process| {
                let (membership, id) = (process.state.membership(), MemberId::of(host.id));
                !membership.members.contains_key(&id) && !membership.removed.contains_key(&id)
            })
        };
        let outside: Vec<_> = self.hosts.values().filter(is_outside).map(|host| (host.id, host.name.clone())).collect();
        for (id, name) in outside {
            if self.random.is_hit(50) {
                let act = Some(self.act("admits", &name)).filter(|_| self.fault != Fault::PromotionWithoutAdmission);
                let change = ClusterChange::Admit(MemberId::of(id), Host::description(id, &name), act);
                let host = self.asked_host();
                // A new member has no memory, so a log that must not grow admits none.
                if let Some(host) = host
                    && (self.fault == Fault::AdmissionWhileHalted || self.may_add(host)?)
                {
                    self.tell_host(host, Asked::Change, |ticket| Input::Request(ticket, change));
                }
            }
        }
        Ok(())
    }

    fn bring(&mut self) {
        let id = self.next_id();
        if id <= MOST_HOSTS {
            self.add_host(id, format!("m{id}"), None);
        } else {
            let act = self.act("brings", "none");
            self.tell(Asked::Act(act.clone()), |ticket| Input::Act(ticket, act));
        }
    }

    /// Return an act that no other is equal to.
    fn act(&self, deed: &str, name: &str) -> ActBody {
        ActBody::new(format!("{deed} {name} at {}", self.now).into_bytes()).unwrap()
    }

    fn remove(&mut self) {
        if self.is_any_loss_risky() {
            return;
        }
        let views = self.views();
        let names: Vec<_> = views.iter().flat_map(|view| view.members.values().map(|member| &member.name)).collect();
        if let Some(name) = self.random.pick(&names).cloned() {
            let act = self.act("removes", &name);
            let change = ClusterChange::Remove(name, Some(act.clone()));
            self.tell(Asked::Act(act), |ticket| Input::Request(ticket, change));
        }
    }

    fn transfer(&mut self) {
        let names: Vec<_> = self.hosts.values().map(|host| host.name.clone()).collect();
        let at = self.random.below(names.len() as u64 + 1);
        let name = names.into_iter().nth(usize::try_from(at).unwrap());
        self.tell(Asked::Change, |ticket| Input::Request(ticket, ClusterChange::Transfer(name)));
    }

    /// Lose a disk, and add a machine with the same name; but not while another loss could leave the cluster without a majority.
    fn lose_disk(&mut self) {
        let Some(id) = self.any_running().filter(|_| self.weather.setting.check_quorum) else { return };
        if self.is_any_loss_risky() {
            return;
        }
        self.note(|| format!("{id} loses its disk"));
        self.counts.losses += 1;
        self.stop(id, true, 0);
        let next = self.next_id();
        if let Some(host) = self.hosts.get_mut(&id) {
            host.is_lost = true;
            let name = host.name.clone();
            self.add_host(next, name, None);
        }
    }

    /// Return whether losing a member could leave the cluster without a majority, as far as the members know.
    ///
    /// Their views lag behind. If all of them see four voters, a removal that none of them has applied yet may leave three, of which
    /// two survive a loss. If all see three, it may leave two, and after a loss there could never be a majority again, which would
    /// not be the members' fault.
    fn is_any_loss_risky(&self) -> bool {
        let is_risky = |view: &Arc<Membership>| view.configuration.voters.len() < 4;
        let views = self.views();
        views.is_empty() || views.iter().any(is_risky) || self.is_any_voter_lost()
    }

    /// Switch off machines that are no longer members.
    fn take_away(&mut self) {
        let removed: BTreeSet<_> =
            self.views().iter().flat_map(|view| view.removed.keys().copied().map(MemberId::get)).collect();
        for id in removed {
            if self.is_any_doubtful() && !self.hosts[&id].is_doubtful {
                // The others may not be a majority of the voters before the change.
                continue;
            }
            if self.hosts[&id].process.is_some() {
                self.stop(id, false, 0);
            }
            if let Some(host) = self.hosts.get_mut(&id) {
                host.is_lost = true;
            }
        }
    }

    fn tell(&mut self, asked: Asked, input: impl FnOnce(Ticket) -> Input) {
        if let Some(host) = self.asked_host() {
            self.tell_host(host, asked, input);
        }
    }

    fn asked_host(&mut self) -> Option<u64> {
        let leader = self.leader().filter(|_| self.random.is_hit(900));
        leader.or_else(|| self.any_running())
    }

    fn tell_host(&mut self, host: u64, asked: Asked, input: impl FnOnce(Ticket) -> Input) {
        let ticket = self.clients.ask(self.now, host, asked);
        let input = input(ticket);
        self.note(|| format!("{host} receives {input:?}"));
        if let Some(process) = self.process(host) {
            process.inbox.push_back(input);
        }
    }

    /// Return the membership that each running member knows.
    pub fn views(&self) -> Vec<Arc<Membership>> {
        let running = self.hosts.values().filter_map(|host| host.process.as_ref());
        let views = running.map(|process| process.state.membership()).filter(|view| !view.members.is_empty());
        views.cloned().collect()
    }

    fn next_id(&self) -> u64 {
        self.hosts.last_key_value().map_or(0, |(&id, _)| id) + 1
    }
}
