//! When each other member last sent a message, in ticks: how a leader decides whether it is alive.
//!
//! The crate `raft` keeps a flag for this but clears it at each check of its quorum, so for a round trip afterwards every member
//! looks dead. That is not good enough here: a dead member may be replaced under its name.

use std::collections::BTreeMap;

use crate::member_id::MemberId;

/// Number of election time-outs after which a snapshot is sent again. Its receiver may still be fetching pages, and continues.
const SNAPSHOT_TIMEOUTS: usize = 4;

/// When each member last sent a message.
#[derive(Debug)]
pub struct Liveness {
    election_ticks: usize,
    /// Ticks of silence after which a member is presumed dead.
    dead_ticks: usize,
    now: usize,
    /// When each member last sent a message.
    heard: BTreeMap<MemberId, usize>,
    /// When each became a member, as far as this member knows.
    known: BTreeMap<MemberId, usize>,
    /// The term in which this member leads, and when it became leader.
    leading: Option<(u64, usize)>,
    /// Members that were sent a snapshot and have not acknowledged it, and when it was sent.
    snapshots: BTreeMap<MemberId, usize>,
}

impl Liveness {
    /// Return the state of a member that has received no message.
    #[must_use]
    pub fn new(election_ticks: usize, dead_ticks: usize) -> Self {
        let (heard, known, snapshots) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { election_ticks, dead_ticks, now: 0, heard, known, leading: None, snapshots }
    }

    /// Let a tick pass. `leading` is the term in which this member leads, if it does.
    pub fn tick(&mut self, leading: Option<u64>) {
        self.now += 1;
        if self.leading.map(|(term, _)| term) != leading {
            self.leading = leading.map(|term| (term, self.now));
            self.snapshots.clear();
        }
    }

    /// Note a message from a member.
    pub fn hear(&mut self, id: MemberId) {
        self.heard.insert(id, self.now);
    }

    /// Set the members. A new one has as much time as the others to send a message.
    pub fn set_members(&mut self, ids: impl Iterator<Item = MemberId>) {
        let now = self.now;
        self.known = ids.map(|id| (id, self.known.get(&id).copied().unwrap_or(now))).collect();
        self.heard.retain(|id, _| self.known.contains_key(id));
    }

    /// Return whether a member sent a message within the last election time-out.
    #[must_use]
    pub fn is_active(&self, id: MemberId) -> bool {
        self.heard.get(&id).is_some_and(|heard| self.now - heard <= self.election_ticks)
    }

    /// Return how many ticks ago a member sent its last message, if it has sent one.
    #[must_use]
    pub fn silence(&self, id: MemberId) -> Option<usize> {
        self.heard.get(&id).map(|heard| self.now - heard)
    }

    /// Return whether this member has led for long enough without a message from another that it presumes it dead.
    #[must_use]
    pub fn is_presumed_dead(&self, id: MemberId) -> bool {
        self.is_silent_for(id, self.dead_ticks)
    }

    /// Return whether this member has led for an election time-out without a message from another. Before that, a new leader does
    /// not know who is alive: the others have sent their messages to the one before.
    #[must_use]
    pub fn is_silent(&self, id: MemberId) -> bool {
        self.is_silent_for(id, self.election_ticks)
    }

    fn is_silent_for(&self, id: MemberId, ticks: usize) -> bool {
        let noted = [self.heard.get(&id), self.known.get(&id)].into_iter().flatten().copied();
        let begun = self.leading.map(|(_, since)| noted.fold(since, usize::max));
        begun.is_some_and(|begun| self.now - begun > ticks)
    }

    /// Return those of `receivers` that have not acknowledged a snapshot for too long. Their time starts again.
    pub fn overdue(&mut self, receivers: impl Iterator<Item = MemberId>) -> Vec<MemberId> {
        let (now, before) = (self.now, std::mem::take(&mut self.snapshots));
        self.snapshots = receivers.map(|id| (id, before.get(&id).copied().unwrap_or(now))).collect();
        let limit = SNAPSHOT_TIMEOUTS * self.election_ticks;
        let mut overdue = Vec::new();
        for (&id, since) in &mut self.snapshots {
            if now - *since >= limit {
                *since = now;
                overdue.push(id);
            }
        }
        overdue
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OTHER: MemberId = MemberId::of(2);
    const NEW: MemberId = MemberId::of(3);

    fn led(ticks: u64) -> Liveness {
        let mut liveness = Liveness::new(10, 20);
        (0..ticks).for_each(|_| liveness.tick(Some(1)));
        liveness
    }

    #[test]
    fn a_member_is_active_for_an_election_timeout_after_it_was_heard() {
        let mut liveness = led(50);
        assert!(!liveness.is_active(OTHER));
        liveness.hear(OTHER);
        (0..10).for_each(|_| liveness.tick(Some(1)));
        assert!(liveness.is_active(OTHER));
        liveness.tick(Some(1));
        assert!(!liveness.is_active(OTHER));
    }

    #[test]
    fn a_new_leader_takes_nobody_for_silent_until_it_has_waited() {
        assert!(led(12).is_silent(OTHER));
        assert!(!led(11).is_silent(OTHER));
        let mut liveness = led(50);
        liveness.hear(OTHER);
        assert!(!liveness.is_silent(OTHER));
        liveness.tick(None);
        assert!(!liveness.is_silent(NEW));
        (0..11).for_each(|_| liveness.tick(Some(2)));
        assert!(!liveness.is_silent(OTHER));
        liveness.tick(Some(2));
        assert!(liveness.is_silent(OTHER));
    }

    #[test]
    fn only_a_leader_of_long_enough_presumes_anybody_dead() {
        assert!(led(22).is_presumed_dead(OTHER));
        assert!(!led(21).is_presumed_dead(OTHER));
        let mut liveness = led(50);
        liveness.tick(None);
        assert!(!liveness.is_presumed_dead(OTHER));
        (0..21).for_each(|_| liveness.tick(Some(2)));
        assert!(!liveness.is_presumed_dead(OTHER));
    }

    #[test]
    fn a_member_that_sent_a_message_lately_is_not_presumed_dead() {
        let mut liveness = led(50);
        liveness.hear(OTHER);
        (0..20).for_each(|_| liveness.tick(Some(1)));
        assert!(!liveness.is_presumed_dead(OTHER));
        liveness.tick(Some(1));
        assert!(liveness.is_presumed_dead(OTHER));
    }

    #[test]
    fn a_new_member_has_time_to_be_heard_of() {
        let mut liveness = led(50);
        liveness.set_members([OTHER].into_iter());
        (0..10).for_each(|_| liveness.tick(Some(1)));
        liveness.set_members([OTHER, NEW].into_iter());
        (0..11).for_each(|_| liveness.tick(Some(1)));
        assert!(liveness.is_presumed_dead(OTHER));
        assert!(!liveness.is_presumed_dead(NEW));
        assert!(!liveness.is_active(NEW));
    }

    #[test]
    fn a_snapshot_is_overdue_after_four_timeouts_and_again_after_four_more() {
        let mut liveness = led(1);
        let mut overdue = Vec::new();
        for tick in 0..100 {
            if !liveness.overdue([OTHER].into_iter()).is_empty() {
                overdue.push(tick);
            }
            liveness.tick(Some(1));
        }
        assert_eq!(overdue, [40, 80]);
    }

    #[test]
    fn a_snapshot_that_was_taken_begins_anew() {
        let mut liveness = led(1);
        for _ in 0..30 {
            assert!(liveness.overdue([OTHER].into_iter()).is_empty());
            liveness.tick(Some(1));
        }
        assert!(liveness.overdue(std::iter::empty()).is_empty());
        for _ in 0..40 {
            assert!(liveness.overdue([OTHER].into_iter()).is_empty());
            liveness.tick(Some(1));
        }
        assert_eq!(liveness.overdue([OTHER].into_iter()), [OTHER]);
    }
}
