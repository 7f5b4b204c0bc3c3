//! Clusters of real drivers, with their threads and folders. The tests carry the messages between them.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use prost::Message as _;
use qed_core::acts::ActBody;
use qed_core::hash::Digest;
use qed_core::log::Request;
use qed_core::page::Page;
use qed_core::proof::Snapshot;
use qed_node::driver::{Driver, Limits};
use qed_node::folder::{Beginning, Opened, Timing};
use qed_node::member_id::MemberId;
use qed_node::membership::{ClusterChange, Inadmissible, MemberInfo};
use qed_node::message_check::InvalidMessage;
use qed_node::notice::Notice;
use qed_node::outbox::{Failure, Outcome, Success};
use qed_node::prover::Query;
use qed_node::public_key::PublicKeyHash;
use qed_node::ticket::Ticket;
use raft::eraftpb::Message;
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_mins(2);

struct Cluster {
    folders: TempDir,
    /// The running members, by id.
    drivers: BTreeMap<MemberId, Driver>,
    /// Outcomes that no test has read yet, by member and ticket.
    outcomes: HashMap<(MemberId, Ticket), Outcome>,
    next_ticket: u64,
    pages: usize,
    acknowledged: Vec<Snapshot>,
}

fn description(name: &str) -> MemberInfo {
    let [raft_addr, http_addr, mgmt_addr, metrics_addr] =
        ["raft", "http", "mgmt", "metrics"].map(|kind| format!("{name}:{kind}"));
    // A server that returns with an empty folder still has its key.
    let key = Some(PublicKeyHash::new(*digest(name).as_bytes()));
    MemberInfo { name: name.into(), raft_addr, http_addr, mgmt_addr, metrics_addr, key }
}

fn digest(text: &str) -> Digest {
    Digest::of_event(text.as_bytes())
}

impl Cluster {
    /// Return a cluster of voting members with these names, and their ids.
    fn of<const N: usize>(names: [&str; N]) -> (Self, [MemberId; N]) {
        let mut cluster = Self {
            folders: TempDir::new().unwrap(),
            drivers: BTreeMap::new(),
            outcomes: HashMap::new(),
            next_ticket: 0,
            pages: 0,
            acknowledged: Vec::new(),
        };
        let mut first = true;
        let ids = names.map(|name| {
            if std::mem::take(&mut first) { cluster.start(name, Beginning::Bootstrap) } else { cluster.join(name) }
        });
        (cluster, ids)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folders.path().join(name)
    }

    fn start(&mut self, name: &str, beginning: Beginning) -> MemberId {
        let timing = Timing { heartbeat_ticks: 2, election_ticks: 20, dead_ticks: 40 };
        let opened = Opened::open(&self.path(name), &description(name), beginning, timing, 100).unwrap();
        let limits = Limits { queue_events: 1000, proof_threads: 1, tick: Duration::from_millis(10), grace: PATIENCE };
        let driver = Driver::of(opened, limits).unwrap();
        let id = driver.identity().id;
        self.drivers.insert(id, driver);
        id
    }

    /// Start a member with an empty folder, and wait until it is a voter.
    fn join(&mut self, name: &str) -> MemberId {
        let id = self.start(name, Beginning::Join);
        let outcome =
            self.at_leader(|driver, ticket| driver.request(ticket, ClusterChange::Admit(id, description(name), None)));
        assert!(matches!(outcome, Ok(Success::Done)), "{outcome:?}");
        self.wait(|cluster| cluster.drivers.values().all(|driver| driver.status().membership.is_voter(id)));
        id
    }

    /// Deliver the messages of every member, and collect the outcomes.
    fn exchange(&mut self) {
        for (&id, driver) in &self.drivers {
            let delivery = driver.drain().unwrap();
            assert_eq!(driver.failure(), None);
            for (to, message) in delivery.messages {
                match self.drivers.get(&to) {
                    Some(receiver) => assert!(receiver.receive(id, &message)),
                    None => driver.lost(to),
                }
            }
            for completion in delivery.completions {
                let ticket = completion.ticket;
                let before = self.outcomes.insert((id, ticket), completion.outcome);
                assert!(before.is_none(), "ticket {ticket} was completed twice");
            }
        }
        thread::yield_now();
    }

    /// Deliver messages and pages until a condition holds.
    fn wait(&mut self, is_met: impl Fn(&Self) -> bool) {
        let begun = Instant::now();
        while !is_met(self) {
            self.exchange();
            let awaiting = self.drivers.iter().find_map(|(&id, driver)| Some((id, driver.status().snapshot_source?.0)));
            if let Some((id, from)) = awaiting
                && self.drivers.contains_key(&from)
            {
                self.fetch(id, from);
            }
            let status = || self.drivers.values().map(Driver::status).collect::<Vec<_>>();
            assert!(begun.elapsed() < PATIENCE, "{:?}", status());
        }
    }

    /// Make a lagging member fetch a page.
    fn fetch(&mut self, id: MemberId, from: MemberId) {
        let log = self.drivers[&id].log();
        let (start, after) = (log.extent_at(log.len()).unwrap(), log.applied());
        let outcome = self.outcome(from, |driver, ticket| driver.ask(ticket, Query::Page { start, after }));
        let Ok(Success::Answered(bytes)) = outcome else { panic!("{outcome:?}") };
        let page = Page::from_bytes(&bytes).unwrap();
        // A page that arrives too late may be refused.
        let _ = self.outcome(id, |driver, ticket| driver.install(ticket, page));
        self.pages += 1;
    }

    /// Send a request to a member, and return its outcome.
    fn outcome(&mut self, id: MemberId, put: impl FnOnce(&Driver, Ticket)) -> Outcome {
        let (ticket, begun) = (Ticket::new(self.next_ticket), Instant::now());
        self.next_ticket += 1;
        put(&self.drivers[&id], ticket);
        loop {
            if let Some(outcome) = self.outcomes.remove(&(id, ticket)) {
                return outcome;
            }
            self.exchange();
            assert!(begun.elapsed() < PATIENCE, "ticket {ticket} has no outcome");
        }
    }

    /// Wait for a leader that all members agree on, and return it.
    fn leader(&mut self) -> MemberId {
        self.wait(|cluster| cluster.agreed_leader().is_some());
        self.agreed_leader().unwrap()
    }

    fn agreed_leader(&self) -> Option<MemberId> {
        let roles: Vec<_> = self.drivers.values().map(|driver| driver.status().role).collect();
        let (&id, _) = self.drivers.iter().find(|(_, driver)| driver.status().role.is_leader)?;
        roles.iter().all(|role| role.leader.is_none_or(|leader| leader == id)).then_some(id)
    }

    /// Send a request to the leader; repeat it if that member is no longer leader or a similar request is in progress.
    fn at_leader(&mut self, mut put: impl FnMut(&Driver, Ticket)) -> Outcome {
        let begun = Instant::now();
        loop {
            let leader = self.leader();
            match self.outcome(leader, &mut put) {
                Err(Failure::NotLeader | Failure::Busy | Failure::Unknown) => {
                    assert!(begun.elapsed() < PATIENCE);
                    // Deliver messages, so that the next attempt finds a new state.
                    self.exchange();
                }
                outcome => return outcome,
            }
        }
    }

    fn add(&mut self, text: &str) {
        let request = || Request { digests: vec![digest(text)], if_absent: true };
        let outcome = self.at_leader(|driver, ticket| driver.submit(ticket, request()).unwrap());
        let Ok(Success::Added(added)) = outcome else { panic!("{outcome:?}") };
        self.acknowledged.extend(added.snapshots);
    }

    fn add_some(&mut self, prefix: &str) {
        (0..20).for_each(|number| self.add(&format!("{prefix} {number}")));
    }

    /// Wait until every running member has everything that was acknowledged, unchanged.
    fn require_all(&mut self) {
        self.wait(|cluster| {
            cluster.drivers.values().all(|driver| driver.log().len() == cluster.acknowledged.len() as u64)
        });
        for driver in self.drivers.values() {
            for snapshot in &self.acknowledged {
                assert_eq!(driver.log().snapshot(snapshot.version).unwrap(), *snapshot);
            }
        }
    }
}

#[test]
fn three_members_elect_one_and_hold_the_same_log() {
    let (mut cluster, ids) = Cluster::of(["a", "b", "c"]);
    let leader = cluster.leader();
    assert!(ids.contains(&leader));
    cluster.add_some("x");
    cluster.require_all();
}

#[test]
fn a_read_on_a_follower_shows_what_was_acknowledged() {
    let (mut cluster, ids) = Cluster::of(["a", "b", "c"]);
    for number in 0..20 {
        cluster.add(&number.to_string());
        let leader = cluster.leader();
        for &id in ids.iter().filter(|&&id| id != leader) {
            let outcome = cluster.outcome(id, Driver::read);
            assert!(matches!(outcome, Ok(Success::Done)), "{outcome:?}");
            assert!(cluster.drivers[&id].log().len() > number);
        }
    }
}

#[test]
fn a_follower_refuses_to_add() {
    let (mut cluster, ids) = Cluster::of(["a", "b", "c"]);
    let leader = cluster.leader();
    for &id in ids.iter().filter(|&&id| id != leader) {
        let request = Request { digests: vec![digest("any")], if_absent: false };
        let outcome = cluster.outcome(id, |driver, ticket| driver.submit(ticket, request).unwrap());
        // It may have been elected in the meantime.
        assert!(matches!(outcome, Err(Failure::NotLeader)) || cluster.leader() == id, "{outcome:?}");
    }
}

#[test]
fn leadership_is_handed_over_to_whom_is_named() {
    let (mut cluster, ids) = Cluster::of(["a", "b", "c"]);
    cluster.add_some("x");
    for (name, id) in ["c", "a", "b"].into_iter().zip([ids[2], ids[0], ids[1]]) {
        let begun = Instant::now();
        while cluster.leader() != id {
            let _ =
                cluster.at_leader(|driver, ticket| driver.request(ticket, ClusterChange::Transfer(Some(name.into()))));
            assert!(begun.elapsed() < PATIENCE);
        }
        cluster.add_some(name);
    }
    cluster.require_all();
}

#[test]
fn the_others_go_on_without_their_leader_and_it_comes_back() {
    let (mut cluster, _) = Cluster::of(["a", "b", "c"]);
    cluster.add_some("x");
    let stopped = cluster.leader();
    let driver = cluster.drivers.remove(&stopped).unwrap();
    let name = driver.identity().name.clone();
    // Drop the driver without handing over leadership.
    drop(driver);
    cluster.add_some("y");
    assert_ne!(cluster.leader(), stopped);
    assert_eq!(cluster.start(&name, Beginning::Bootstrap), stopped);
    cluster.add_some("z");
    cluster.require_all();
}

#[test]
fn a_fourth_member_joins_by_pages() {
    let (mut cluster, _) = Cluster::of(["a", "b", "c"]);
    cluster.add_some("x");
    let pages = cluster.pages;
    let id = cluster.join("d");
    cluster.add_some("y");
    cluster.require_all();
    let membership = cluster.drivers[&id].status().membership;
    assert_eq!((membership.members.len(), membership.configuration.voters.len()), (4, 4));
    // The membership that a Raft log starts with is in no entry of it, so a new member always needs a page.
    assert!(cluster.pages > pages);
}

#[test]
fn a_member_that_is_removed_is_gone_for_good() {
    let (mut cluster, ids) = Cluster::of(["a", "b", "c"]);
    cluster.add_some("x");
    let begun = Instant::now();
    let outcome = loop {
        let remove = |driver: &Driver, ticket| driver.request(ticket, ClusterChange::Remove("b".into(), None));
        match cluster.at_leader(remove) {
            // If it leads, it hands over first. On a busy machine, nobody may have been heard of for a moment.
            Err(Failure::Inadmissible(Inadmissible::NoSuccessor)) if begun.elapsed() < PATIENCE => cluster.exchange(),
            outcome => break outcome,
        }
    };
    assert!(matches!(outcome, Ok(Success::Done)), "{outcome:?}");
    // Stop it, as its own process would do: it no longer answers, so `require_all` would fail.
    drop(cluster.drivers.remove(&ids[1]));
    cluster.wait(|cluster| {
        let is_gone = |driver: &Driver| driver.status().membership.removed.contains_key(&ids[1]);
        cluster.drivers.values().all(is_gone)
    });
    cluster.add_some("y");
    cluster.require_all();
    let leader = cluster.leader();
    assert_eq!(cluster.drivers[&leader].status().membership.configuration.voters.len(), 2);
    let outcome = cluster
        .at_leader(|driver, ticket| driver.request(ticket, ClusterChange::Admit(ids[1], description("b"), None)));
    assert!(matches!(outcome, Err(Failure::Inadmissible(Inadmissible::Removed(_)))), "{outcome:?}");
}

fn act(text: &str) -> ActBody {
    ActBody::new(text.into()).unwrap()
}

/// Return what the acts of a member say.
fn said(driver: &Driver) -> Vec<String> {
    let acts = driver.log().acts(0, usize::MAX).unwrap();
    acts.iter().map(|act| String::from_utf8(act.body.as_bytes().to_vec()).unwrap()).collect()
}

#[test]
fn every_member_has_the_acts_also_one_that_joins_by_pages() {
    let (mut cluster, ids) = Cluster::of(["a", "b", "c"]);
    let recorded = |outcome: Outcome| assert!(matches!(outcome, Ok(Success::Done)), "{outcome:?}");
    recorded(cluster.at_leader(|driver, ticket| driver.act(ticket, act("made a key"))));
    cluster.add_some("x");
    let removal = || ClusterChange::Remove("b".into(), Some(act("removed b")));
    recorded(cluster.at_leader(|driver, ticket| driver.request(ticket, removal())));
    drop(cluster.drivers.remove(&ids[1]));
    let id = cluster.join("d");
    // What changes nothing is no act.
    let admission = ClusterChange::Admit(id, description("d"), Some(act("admitted d")));
    recorded(cluster.at_leader(|driver, ticket| driver.request(ticket, admission.clone())));
    let end = |driver: &Driver| (driver.log().acts_end().log_id.index, driver.status().acts);
    cluster.wait(|cluster| cluster.drivers.values().all(|driver| end(driver).0 > 0 && end(driver).0 == end(driver).1));
    cluster.require_all();
    for driver in cluster.drivers.values() {
        assert_eq!(said(driver), ["made a key", "removed b"]);
    }
}

#[test]
fn only_a_leader_records_an_act() {
    let (mut cluster, ids) = Cluster::of(["a", "b", "c"]);
    let leader = cluster.leader();
    for &id in ids.iter().filter(|&&id| id != leader) {
        let outcome = cluster.outcome(id, |driver, ticket| driver.act(ticket, act("made a key")));
        assert!(matches!(outcome, Err(Failure::NotLeader)) || cluster.leader() == id, "{outcome:?}");
    }
}

#[test]
fn a_member_that_lost_its_folder_takes_its_old_place_under_a_new_number() {
    let (mut cluster, ids) = Cluster::of(["a", "b", "c"]);
    cluster.add_some("x");
    drop(cluster.drivers.remove(&ids[2]));
    std::fs::remove_dir_all(cluster.path("c")).unwrap();
    let id = cluster.start("c", Beginning::Join);
    assert_ne!(id, ids[2]);
    let begun = Instant::now();
    // Its name is in use until the old member is presumed dead.
    loop {
        match cluster
            .at_leader(|driver, ticket| driver.request(ticket, ClusterChange::Admit(id, description("c"), None)))
        {
            Ok(Success::Done) => break,
            Err(Failure::Inadmissible(Inadmissible::NameTaken(_))) => assert!(begun.elapsed() < PATIENCE),
            other => panic!("{other:?}"),
        }
    }
    cluster.wait(|cluster| cluster.drivers.values().all(|driver| driver.status().membership.is_voter(id)));
    cluster.add_some("y");
    cluster.require_all();
    assert!(cluster.drivers[&id].status().membership.removed.contains_key(&ids[2]));
}

/// In a message that contains an entry, change the roots that the leader claims to have had before that entry.
fn with_other_roots(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut message = Message::decode(bytes).ok()?;
    let entry = message.entries.iter_mut().find(|entry| entry.data.len() > 100 && entry.data[0] == 1)?;
    // The roots come after the kind and the length.
    entry.data[1 + 8] ^= 1;
    Some(message.encode_to_vec())
}

#[test]
fn a_replica_whose_roots_differ_stops_and_says_so() {
    let (mut cluster, ids) = Cluster::of(["a", "b", "c"]);
    cluster.add_some("x");
    cluster.require_all();
    let leader = cluster.leader();
    let follower = *ids.iter().find(|&&id| id != leader).unwrap();
    let request = Request { digests: vec![digest("y")], if_absent: false };
    cluster.drivers[&leader].submit(Ticket::new(u64::MAX), request).unwrap();
    let begun = Instant::now();
    while cluster.drivers[&follower].failure().is_none() {
        for (&id, driver) in &cluster.drivers {
            for (to, message) in driver.drain().unwrap().messages {
                let said = (id == leader && to == follower).then(|| with_other_roots(&message)).flatten();
                assert!(cluster.drivers[&to].receive(id, &said.unwrap_or(message)));
            }
        }
        assert!(begun.elapsed() < PATIENCE);
    }
    let failure = cluster.drivers[&follower].failure().unwrap();
    assert!(failure.contains("diverged") || failure.contains("differ"), "{failure}");
    assert_eq!(cluster.drivers[&follower].log().len(), 20);
}

#[test]
fn a_replica_whose_roots_differ_without_new_events_is_silent_and_says_why() {
    let (mut cluster, ids) = Cluster::of(["a", "b", "c"]);
    cluster.add_some("x");
    cluster.require_all();
    let leader = cluster.leader();
    let [follower, other] = ids.into_iter().filter(|&id| id != leader).collect::<Vec<_>>()[..] else { panic!() };
    let mut extent = cluster.drivers[&leader].log().extent_at(20).unwrap();
    assert!(cluster.drivers[&follower].receive(leader, &Notice::Extent(extent).to_bytes()));
    extent.hyper_digest = digest("other");
    // Only the leader's log counts.
    assert!(cluster.drivers[&leader].receive(follower, &Notice::Extent(extent).to_bytes()));
    assert!(cluster.drivers[&follower].receive(other, &Notice::Extent(extent).to_bytes()));
    cluster.add_some("y");
    cluster.require_all();
    assert!(cluster.drivers.values().all(|driver| driver.status().alarm.is_none()));
    extent = cluster.drivers[&leader].log().extent_at(30).unwrap();
    extent.hyper_digest = digest("other");
    assert!(cluster.drivers[&follower].receive(leader, &Notice::Extent(extent).to_bytes()));
    cluster.wait(|cluster| cluster.drivers[&follower].status().alarm.is_some());
    let alarm = cluster.drivers[&follower].status().alarm.unwrap();
    assert!(alarm.contains("diverged: at 30 events"), "{alarm}");
    cluster.add("z");
    assert_eq!(cluster.drivers[&follower].status().role.leader, None);
    assert!([leader, other].iter().all(|id| cluster.drivers[id].status().alarm.is_none()));
    assert_eq!(cluster.drivers[&follower].log().len(), 40);
}

#[test]
fn bytes_that_are_no_notice_are_malformed() {
    let (cluster, [a, b]) = Cluster::of(["a", "b"]);
    assert!(!cluster.drivers[&a].receive(b, &[0, 9]));
    assert!(!cluster.drivers[&a].receive(b, &[0]));
}

#[test]
fn nobody_is_made_to_lead_who_cannot() {
    let (mut cluster, ids) = Cluster::of(["a", "b"]);
    let outcome = cluster.at_leader(|driver, ticket| driver.request(ticket, ClusterChange::Transfer(Some("z".into()))));
    assert!(matches!(outcome, Err(Failure::Inadmissible(Inadmissible::Unknown(_)))), "{outcome:?}");
    let mut alone = Cluster::of(["a"]).0;
    let outcome = alone.at_leader(|driver, ticket| driver.request(ticket, ClusterChange::Transfer(None)));
    assert!(matches!(outcome, Err(Failure::Inadmissible(Inadmissible::NoSuccessor))), "{outcome:?}");
    let learner = MemberId::of((ids[0].get() ^ 1).max(1));
    let admitted = cluster
        .at_leader(|driver, ticket| driver.request(ticket, ClusterChange::Admit(learner, description("l"), None)));
    assert!(matches!(admitted, Ok(Success::Done)), "{admitted:?}");
    let outcome = cluster.at_leader(|driver, ticket| driver.request(ticket, ClusterChange::Transfer(Some("l".into()))));
    assert!(matches!(outcome, Err(Failure::Inadmissible(Inadmissible::NotReady(_)))), "{outcome:?}");
}

#[test]
fn what_no_member_says_is_told_to_the_caller() {
    let (mut cluster, ids) = Cluster::of(["a", "b", "c"]);
    let leader = cluster.leader();
    let to = *ids.iter().find(|&&id| id != leader).unwrap();
    let message = Message { msg_type: 8, to: to.get(), from: leader.get(), term: u64::MAX, ..Message::default() };
    assert!(cluster.drivers[&to].receive(leader, &message.encode_to_vec()));
    let begun = Instant::now();
    loop {
        let invalid = cluster.drivers[&to].drain().unwrap().invalid_messages;
        if let [InvalidMessage { from, reason }] = invalid[..] {
            assert_eq!((from, reason), (Some(leader), "its term is too far ahead of the term of this member"));
            return;
        }
        assert!(begun.elapsed() < PATIENCE);
    }
}

#[test]
fn what_is_said_in_the_name_of_another_or_by_a_removed_member_is_refused() {
    let (mut cluster, [a, b, c]) = Cluster::of(["a", "b", "c"]);
    let removed = cluster.at_leader(|driver, ticket| driver.request(ticket, ClusterChange::Remove("c".into(), None)));
    assert!(matches!(removed, Ok(Success::Done)), "{removed:?}");
    cluster.wait(|cluster| cluster.drivers[&b].status().membership.removed.contains_key(&c));
    for (sender, from, why) in
        [(c, a, "it is in the name of another member"), (c, c, "its sender was removed from the cluster")]
    {
        let message = Message { msg_type: 8, to: b.get(), from: from.get(), term: 1 << 10, ..Message::default() };
        assert!(cluster.drivers[&b].receive(sender, &message.encode_to_vec()));
        let begun = Instant::now();
        while !cluster.drivers[&b].drain().unwrap().invalid_messages.iter().any(|invalid| {
            let InvalidMessage { from, reason } = *invalid;
            (from, reason) == (Some(sender), why)
        }) {
            assert!(begun.elapsed() < PATIENCE);
        }
        assert!(cluster.drivers[&b].status().role.term < 1 << 10);
    }
}
