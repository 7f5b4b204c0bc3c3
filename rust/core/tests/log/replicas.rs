//! A log as a replica: entries are applied one by one, a crash loses the last ones, and pages copy it to another replica.

use proptest::prelude::*;
use qed_core::acts::ActBody;
use qed_core::applied::Members;
use qed_core::error::LogError;
use qed_core::hash::Digest;
use qed_core::log::{Log, Request};
use qed_core::log_id::LogId;
use qed_core::page::{Extent, Page, PageError};
use std::ops::ControlFlow;

use crate::seeds;

#[derive(Debug, Clone)]
enum Entry {
    Requests(Vec<Request>),
    Members(Vec<u8>, Option<ActBody>),
    Act(ActBody),
    Nothing,
}

fn digest() -> impl Strategy<Value = Digest> {
    // Only a few different digests, so that many repeat. Some of them share their first bits.
    (0_u8..40, 0_u8..4).prop_map(|(kind, tail)| {
        let mut bytes = *Digest::of_event(&[kind]).as_bytes();
        bytes[31] = tail;
        Digest::new(bytes)
    })
}

fn act() -> impl Strategy<Value = ActBody> {
    prop::collection::vec(any::<u8>(), 1..9).prop_map(|bytes| ActBody::new(bytes).unwrap())
}

fn entry() -> impl Strategy<Value = Entry> {
    let request = (prop::collection::vec(digest(), 1..20), any::<bool>())
        .prop_map(|(digests, if_absent)| Request { digests, if_absent });
    prop_oneof![
        6 => prop::collection::vec(request, 1..4).prop_map(Entry::Requests),
        1 => (prop::collection::vec(any::<u8>(), 0..9), prop::option::of(act())).prop_map(|(bytes, act)| Entry::Members(bytes, act)),
        1 => act().prop_map(Entry::Act),
        1 => Just(Entry::Nothing),
    ]
}

fn apply(log: &Log, index: u64, entry: &Entry, is_silent: bool) {
    let log_id = LogId { index, term: 1 + index / 7 };
    match entry {
        Entry::Requests(requests) if is_silent => log.apply_silently(log_id, requests).unwrap(),
        Entry::Requests(requests) => drop(log.apply(log_id, requests).unwrap()),
        Entry::Members(bytes, act) => {
            log.apply_members(&Members { log_id, bytes: bytes.clone() }, act.clone()).unwrap();
        }
        Entry::Act(act) => log.apply_act(log_id, act.clone()).unwrap(),
        Entry::Nothing => log.pass(log_id).unwrap(),
    }
}

fn require_equal(one: &Log, other: &Log) {
    assert_eq!(one.len(), other.len());
    assert_eq!(one.applied(), other.applied());
    assert_eq!(one.members().unwrap(), other.members().unwrap());
    assert_eq!(one.acts(0, usize::MAX).unwrap(), other.acts(0, usize::MAX).unwrap());
    assert_eq!(one.acts_end(), other.acts_end());
    for version in 0..one.len() {
        assert_eq!(one.snapshot(version).unwrap(), other.snapshot(version).unwrap());
        let digest = one.snapshot(version).unwrap().event_digest;
        assert_eq!(one.prove(&digest, Some(version)).unwrap(), other.prove(&digest, Some(version)).unwrap());
    }
    assert!(one.check(&mut |_| ControlFlow::<()>::Continue(())).unwrap().is_continue());
    assert!(other.check(&mut |_| ControlFlow::<()>::Continue(())).unwrap().is_continue());
}

proptest! {
    #![proptest_config(seeds::searching(48))]

    #[test]
    fn pages_make_the_log_that_entries_make(
        before in prop::collection::vec(prop::collection::vec(digest(), 1..9), 0..3),
        entries in prop::collection::vec(entry(), 1..40),
        split in 0_usize..40,
        events in 1_u64..60,
    ) {
        // The leader's log may be older than its cluster.
        let leader = Log::in_memory().unwrap();
        for digests in before {
            leader.append(&[Request { digests, if_absent: false }]).unwrap();
        }
        let follower = Log::in_memory().unwrap();
        for (index, entry) in (2..).zip(&entries) {
            apply(&leader, index, entry, false);
            if index == split as u64 {
                follow(&leader, &follower, events);
            }
        }
        follow(&leader, &follower, events);
        require_equal(&leader, &follower);
    }
}

fn follow(leader: &Log, follower: &Log, events: u64) {
    while follower.applied() < leader.applied() || follower.len() < leader.len() {
        let start = follower.extent_at(follower.len()).unwrap();
        let page = leader.page(start, follower.applied(), events).unwrap();
        let bytes = page.to_bytes();
        let parsed = Page::from_bytes(&bytes).unwrap();
        assert_eq!(parsed, page);
        follower.install(&parsed).unwrap();
    }
}

fn log_of(events: &[&str]) -> Log {
    let log = Log::in_memory().unwrap();
    for (index, event) in (1..).zip(events) {
        let request = Request { digests: vec![Digest::of_event(event.as_bytes())], if_absent: false };
        log.apply(LogId { index, term: 1 }, &[request]).unwrap();
    }
    log
}

#[test]
fn what_was_read_out_is_there_when_the_folder_is_opened_again() {
    let leader = log_of(&["a", "b", "a", "c"]);
    leader.apply_members(&Members { log_id: LogId { index: 5, term: 2 }, bytes: b"who".to_vec() }, None).unwrap();
    leader.apply_act(LogId { index: 6, term: 2 }, ActBody::new(b"done".to_vec()).unwrap()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let kept = Log::open(folder.path()).unwrap();
    follow(&leader, &kept, 2);
    assert_eq!(kept.sync().unwrap(), leader.applied());
    drop(kept);
    require_equal(&leader, &Log::open(folder.path()).unwrap());
}

#[test]
fn a_replica_takes_no_appends_of_its_own() {
    let request = Request { digests: vec![Digest::of_event(b"b")], if_absent: false };
    assert!(matches!(log_of(&["a"]).append(&[request]), Err(LogError::WriteRefused { .. })));
}

#[test]
fn an_entry_is_applied_once() {
    let log = log_of(&["a", "b"]);
    let request = Request { digests: vec![Digest::of_event(b"b")], if_absent: false };
    let again = log.apply(LogId { index: 2, term: 1 }, &[request]);
    let (given, applied) = (LogId { index: 2, term: 1 }, log.applied());
    assert!(matches!(again, Err(LogError::OutOfOrder { given: g, applied: a }) if (g, a) == (given, applied)));
    assert_eq!(log.len(), 2);
}

#[test]
fn a_log_that_differs_gets_no_page() {
    let (one, other) = (log_of(&["a", "b", "c"]), log_of(&["a", "x"]));
    let start = other.extent_at(2).unwrap();
    assert!(matches!(one.page(start, other.applied(), 9), Err(PageError::Diverged { len: 2 })));
    let page = one.page(one.extent_at(2).unwrap(), one.applied(), 9).unwrap();
    assert!(matches!(other.install(&page), Err(PageError::Diverged { len: 2 })));
}

#[test]
fn a_page_that_contradicts_itself_changes_nothing() {
    let (one, other) = (log_of(&["a", "b", "c"]), log_of(&["a"]));
    let page = one.page(other.extent_at(1).unwrap(), other.applied(), 9).unwrap();
    let damages: [fn(&mut Page); 7] = [
        |page| page.digests[0] = Digest::of_event(b"y"),
        |page| page.batches[1].hyper_digest = Digest::of_event(b"y"),
        |page| page.history_digest = Digest::of_event(b"y"),
        |page| page.batches.truncate(1),
        |page| page.batches.swap(0, 1),
        |page| page.repeats = vec![3],
        |page| page.end = LogId { index: 1, term: 1 },
    ];
    for damage in damages {
        let mut copy = page.clone();
        damage(&mut copy);
        let refused = other.install(&copy);
        assert!(matches!(refused, Err(PageError::Inconsistent { from: 1, .. })), "{copy:?}: {refused:?}");
    }
    other.install(&page).unwrap();
    assert_eq!(other.extent_at(3).unwrap(), one.extent_at(3).unwrap());
}

#[test]
fn cut_off_and_stretched_pages_are_refused() {
    let bytes = log_of(&["a", "b"]).page(Extent::default(), LogId::default(), 9).unwrap().to_bytes();
    let require_malformed = |bytes: &[u8]| {
        let refused = Page::from_bytes(bytes).unwrap_err();
        assert!(matches!(refused, PageError::Malformed("a page")), "{refused:?}");
    };
    (0..bytes.len()).for_each(|length| require_malformed(&bytes[..length]));
    require_malformed(&[bytes, vec![0]].concat());
    for length in (0..=2 * Extent::BYTES).filter(|&length| length != Extent::BYTES) {
        let refused = Extent::from_bytes(&vec![0; length]).unwrap_err();
        assert!(matches!(refused, PageError::Malformed("an extent")), "{refused:?}");
    }
}

proptest! {
    #![proptest_config(seeds::searching(300))]

    #[test]
    fn garbage_from_a_peer_never_says_that_our_disk_is_damaged(
        garbage in prop::collection::vec(any::<u8>(), 0..400),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let (one, other) = (log_of(&["a", "b", "a", "c"]), log_of(&["a"]));
        let page = one.page(other.extent_at(1).unwrap(), other.applied(), 9).unwrap();
        let mut bytes = page.to_bytes();
        for (index, value) in edits {
            let index = index.index(bytes.len());
            bytes[index] = value;
        }
        let parsed = [Page::from_bytes(&garbage), Page::from_bytes(&bytes)];
        for installed in parsed.map(|page| page.and_then(|page| other.install(&page))) {
            prop_assert!(!matches!(installed, Err(PageError::Log(_))), "{installed:?}");
        }
        let extents = [Extent::from_bytes(&garbage), Extent::from_bytes(&bytes[..Extent::BYTES])];
        for read in extents.map(|extent| extent.and_then(|start| one.page(start, LogId::default(), 9))) {
            prop_assert!(!matches!(read, Err(PageError::Log(_))), "{read:?}");
        }
    }
}
