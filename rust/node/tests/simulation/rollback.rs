//! Old copies of disks that are put back: the member on such a disk has forgotten votes and entries that others count on.

use qed_node::member_id::MemberId;
use qed_node::membership::{Configuration, Membership};

use crate::host::Process;
use crate::world::World;

/// The least number of voters in the copies that are put back. A copy from before that knows too few of the others.
const LEAST_VOTERS: usize = 3;

impl World {
    /// Now and then, copy a disk while its member runs, or put such a copy back.
    pub fn roll_back(&mut self) {
        if self.is_healed || !self.random.is_hit(self.weather.rollbacks) {
            return;
        }
        let Some(id) = self.any_running() else { return };
        if self.hosts[&id].copy.is_none() {
            self.copy(id);
        } else if !self.is_any_voter_lost() {
            self.put_back(id);
        }
    }

    fn copy(&mut self, id: u64) {
        let Some(host) = self.hosts.get_mut(&id).filter(|host| !host.is_doubtful) else { return };
        let voters = host.process.as_ref().map(|process| &process.state.membership().configuration.voters);
        if voters.is_some_and(|voters| voters.len() >= LEAST_VOTERS && voters.contains(&MemberId::of(id))) {
            host.copy = Some(host.disk.copy(&mut self.random));
            self.note(|| format!("the disk of {id} is copied"));
        }
    }

    fn put_back(&mut self, id: u64) {
        let downtime = self.random.within(1, self.weather.downtime);
        self.stop(id, true, downtime);
        let Some(host) = self.hosts.get_mut(&id) else { return };
        let Some(copy) = host.copy.take() else { return };
        host.disk.put_back(&copy);
        // Nothing that it has sent is still on its way when a copy has been put back.
        self.network.forget(id);
        host.is_doubtful = true;
        self.counts.rollbacks += 1;
        self.invariants.rolled_back(id);
        self.note(|| format!("an old copy of the disk of {id} is put back"));
    }

    /// Note which members with old copies have got back what they had promised.
    pub fn end_doubts(&mut self) {
        for host in self.hosts.values_mut().filter(|host| host.is_doubtful) {
            let is_assured = |process: &Process| process.member.consensus().is_assured();
            host.is_doubtful = !host.process.as_ref().is_some_and(is_assured);
        }
    }

    /// Return whether a voter has lost its disk, or what was on it.
    pub fn is_any_voter_lost(&self) -> bool {
        let is_lost = |id: &MemberId| self.hosts.get(&id.get()).is_some_and(|host| host.is_lost);
        let is_incomplete = |view: &Membership| {
            let Configuration { voters, voters_outgoing, .. } = &view.configuration;
            view.members.keys().chain(voters).chain(voters_outgoing).any(is_lost)
        };
        self.is_any_doubtful() || self.views().iter().any(|view| is_incomplete(view))
    }

    /// Return whether an old copy was put back, and the member on it has not caught up.
    pub fn is_any_doubtful(&self) -> bool {
        self.hosts.values().any(|host| host.is_doubtful && !host.is_lost)
    }
}
