//! Disasters that no consensus survives: every machine gets an old copy of its data folder, and entries that were committed are lost.
//!
//! Then the log must not sign others in their place. What it had signed is known outside the folders, in the sign memories, except on
//! machines that are new: those have none, and must not sign either.
//!
//! The members know of a checkpoint once it is published. The leader remembers more: also the checkpoints that only receipts rest on. So
//! the copies come back in a quiet moment, when all memories have all that was signed. A machine that was lost before has an old memory,
//! which would be worse than none, so it comes back as a new machine.

use std::collections::{BTreeMap, BTreeSet};

use qed_core::log::Log;

use crate::client::Clients;
use crate::disk::{Disk, Platter};
use crate::invariants::Invariants;
use crate::world::World;

/// A backup of all data folders, and what was true when it was made.
pub struct Backup {
    disks: BTreeMap<u64, Platter>,
    /// The machines whose copies have events.
    filled: BTreeSet<u64>,
    invariants: Invariants,
    clients: Clients,
}

impl World {
    /// Make the backup when it is due, and put it back later.
    pub fn restore_when_due(&mut self) {
        let Some((made_at, put_back_at)) = self.weather.signing.restore else { return };
        if self.now == made_at {
            self.make_backup();
        }
        self.is_quiet = self.now >= put_back_at && self.backup.is_some();
        if self.is_quiet {
            self.network.heal();
            if self.is_all_remembered() && self.is_each_lost_one_filled() {
                self.put_all_back();
            }
        }
    }

    fn make_backup(&mut self) {
        let present = self.hosts.values().filter(|host| !host.is_lost);
        let disks: BTreeMap<_, _> = present.map(|host| (host.id, host.disk.copy(&mut self.dice))).collect();
        let has_events = |copy: &Platter| {
            let disk = Disk::default();
            disk.put_back(copy);
            Log::over(Box::new(disk.rows())).is_ok_and(|log| !log.is_empty())
        };
        let filled = disks.iter().filter(|(_, copy)| has_events(copy)).map(|(&id, _)| id).collect();
        let (invariants, clients) = (self.invariants.clone(), self.clients.clone());
        self.backup = Some(Backup { disks, filled, invariants, clients });
        self.note(|| "all disks are copied".into());
    }

    /// Return whether the memories of all machines have the newest checkpoint that was signed.
    fn is_all_remembered(&self) -> bool {
        let newest = self.signatures.largest();
        self.hosts.values().filter(|host| !host.is_lost).all(|host| {
            let signing = host.process.as_ref().and_then(|process| process.signing.as_ref());
            signing.is_some_and(|signing| signing.remembered().map(|row| row.size) == newest)
        })
    }

    /// Return whether the copy of each lost machine has events. An empty log on a new machine is a new log to all that is known there.
    fn is_each_lost_one_filled(&self) -> bool {
        let Some(Backup { disks, filled, .. }) = &self.backup else { return false };
        let mut lost = self.hosts.values().filter(|host| host.is_lost).map(|host| host.id);
        lost.all(|id| !disks.contains_key(&id) || filled.contains(&id))
    }

    fn put_all_back(&mut self) {
        let Some(Backup { disks, filled, invariants, clients }) = self.backup.take() else { return };
        let ids: Vec<_> = self.hosts.keys().copied().collect();
        for id in ids {
            let downtime = self.dice.within(1, 10);
            self.stop(id, true, downtime);
            let is_replaced = self.dice.is_hit(200);
            let Some(host) = self.hosts.get_mut(&id) else { continue };
            let Some(copy) = disks.get(&id) else {
                host.is_lost = true;
                continue;
            };
            host.disk.put_back(copy);
            if (is_replaced || host.is_lost) && filled.contains(&id) {
                host.sign_disk.lose();
            }
            host.is_lost = false;
        }
        self.network.forget_all();
        self.invariants = invariants;
        self.clients.return_to(&clients);
        self.counts.restores += 1;
        self.note(|| "all disks are put back".into());
    }
}
