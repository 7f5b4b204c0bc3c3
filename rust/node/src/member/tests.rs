use qed_core::hash::Digest;
use raft::eraftpb::MessageType;

use super::*;
use crate::consensus::{KEPT_BYTES, Settings};
use crate::membership::MemberInfo;
use crate::recovery::recover;
use crate::segments::memory::Memory;

const ONE: MemberId = MemberId::of(1);
const TWO: MemberId = MemberId::of(2);

/// Member 1 of two voters, on a store in memory. The test answers for the other.
fn one_of_two(store: &Memory) -> Member<Memory> {
    let [name, raft_addr, http_addr, mgmt_addr, metrics_addr] = ["a", "b", "c", "d", "e"].map(String::from);
    let info = MemberInfo { name, raft_addr, http_addr, mgmt_addr, metrics_addr, key: None };
    let mut founded = Membership::of_one("cluster".into(), ONE, info.clone());
    founded.members.insert(TWO, MemberInfo { name: "b".into(), ..info });
    founded.configuration.voters.push(TWO);
    let settings = Settings {
        id: ONE,
        election_ticks: 10,
        dead_ticks: 20,
        heartbeat_ticks: 1,
        patience_ticks: Some(1),
        seed: 1,
        pre_vote: false,
        check_quorum: false,
        kept_bytes: KEPT_BYTES,
    };
    let limits = Limits { batch_events: 1, election_ticks: 10, first_read: 0 };
    recover(Arc::new(Log::in_memory().unwrap()), store.clone(), Some(founded), settings, limits).unwrap().0
}

/// Let a member take a turn; return what it sends.
fn turn(member: &mut Member<Memory>, input: Input) -> Vec<Message> {
    let (mut effects, mut sent) = (Effects::default(), Vec::new());
    member.turn([input], &mut effects, &mut |messages| sent.extend(messages)).unwrap();
    sent.extend(effects.messages);
    sent
}

fn answer(kind: MessageType, to: &Message) -> Input {
    let index = to.entries.last().map_or(0, |last| last.index);
    let mut answer = Message { to: 1, from: 2, term: to.term, index, ..Message::default() };
    answer.set_msg_type(kind);
    Input::Message(TWO, answer)
}

/// Let a member be elected, and let the other acknowledge the first entry of the term.
fn elect(member: &mut Member<Memory>) {
    turn(member, Input::Lost(TWO));
    let request = (0..40).find_map(|_| {
        turn(member, Input::Tick).into_iter().find(|message| message.msg_type() == MessageType::MsgRequestVote)
    });
    let sent = turn(member, answer(MessageType::MsgRequestVoteResponse, &request.unwrap()));
    turn(member, answer(MessageType::MsgAppendResponse, &sent[0]));
    assert!(member.role().is_leader);
}

#[test]
fn a_leader_whose_sync_fails_has_sent_its_entries_and_stops() {
    let store = Memory::default();
    let mut member = one_of_two(&store);
    elect(&mut member);
    let before = store.0.lock().changes;
    store.0.lock().good_changes = Some(before);
    let request = Request { digests: vec![Digest::of_event(b"event")], if_absent: false };
    let (mut effects, mut sent) = (Effects::default(), Vec::new());
    let turned = member.turn([Input::Append(Ticket::new(7), request)], &mut effects, &mut |messages| {
        assert_eq!(store.0.lock().changes, before, "entries are sent before they are written");
        sent.extend(messages);
    });
    assert!(matches!(turned, Err(MemberError::Wal(_))), "{turned:?}");
    assert!(sent.iter().any(|message| message.to == 2 && !message.entries.is_empty()), "{sent:?}");
    // The other may hold the entry, so it may yet be committed: the outcome is unknown, and nothing is applied here.
    assert!(effects.jobs.is_empty() && effects.completions.is_empty());
    assert_eq!(member.abandon(), (vec![Ticket::new(7)], Vec::new()));
}
