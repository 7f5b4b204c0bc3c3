use raft::eraftpb::{ConfState, Entry, HardState};

use super::*;
use crate::consensus::tests::{ELECTION_TICKS, settings};
use crate::notice::Mark;
use crate::wal::Recovered;

const OWN: MemberId = MemberId::of(1);
const OTHERS: [MemberId; 2] = [MemberId::of(2), MemberId::of(3)];

/// Return a member of three that starts in term 3 with entries 1 to 3 of term 2.
fn started() -> Consensus {
    let entries = (1..=3).map(|index| Entry { index, term: 2, ..Entry::default() }).collect();
    let hard_state = HardState { term: 3, ..HardState::default() };
    let mut recovered = Recovered::default();
    (recovered.hard_state, recovered.entries) = (hard_state, entries);
    let conf_state = ConfState { voters: vec![1, 2, 3], ..ConfState::default() };
    Consensus::new(settings(OWN.get()), recovered, LogId::default(), conf_state).unwrap()
}

/// Return what a member sends, to whom.
fn sent(member: &mut Consensus) -> (Vec<Message>, Vec<(MemberId, Notice)>) {
    let (mut messages, mut notices) = (Vec::new(), Vec::new());
    while let Some(output) = member.output().unwrap() {
        if output.save.is_some() {
            member.saved();
        }
        messages.extend(output.messages);
        notices.extend(output.notices);
    }
    (messages, notices)
}

/// Let both others answer that they are in `term`, with `last` as their last entry.
fn answer(member: &mut Consensus, term: u64, last: LogId) {
    for id in OTHERS {
        let answer = Answer {
            nonce: 7,
            position: Position { term, last },
            mark: Mark::default(),
            applied: 0,
            voters: vec![OWN, OTHERS[0], OTHERS[1]],
        };
        member.hear(id, Notice::Answer(answer)).unwrap();
    }
}

fn vote_request(term: u64, last: LogId) -> Message {
    let mut message = Message { from: 2, to: 1, term, index: last.index, log_term: last.term, ..Message::default() };
    message.set_msg_type(MessageType::MsgRequestVote);
    message
}

/// Return whether the member grants a vote, if it answers.
fn vote(member: &mut Consensus, term: u64, last: LogId) -> Option<bool> {
    member.step(vote_request(term, last)).unwrap();
    sent(member).0.first().map(|message| !message.reject)
}

const LAST: LogId = LogId { index: 3, term: 2 };

#[test]
fn a_member_that_has_started_asks_and_is_silent_until_all_have_answered() {
    let mut member = started();
    let (messages, notices) = sent(&mut member);
    assert!(messages.is_empty());
    assert_eq!(notices.iter().map(|(to, _)| *to).collect::<Vec<_>>(), OTHERS);
    assert_eq!(vote(&mut member, 9, LAST), None);
    answer(&mut member, 5, LAST);
    assert!(member.is_assured());
    assert_eq!(vote(&mut member, 9, LAST), Some(true));
}

#[test]
fn no_vote_is_given_in_a_term_that_the_others_have_reached() {
    for term in [3, 5] {
        let mut member = started();
        answer(&mut member, term, LAST);
        sent(&mut member);
        assert_eq!(member.role().term, term);
        assert_eq!(vote(&mut member, term, LAST), Some(false));
        assert_eq!(vote(&mut member, term + 1, LAST), Some(true));
    }
}

#[test]
fn a_member_that_is_behind_is_no_candidate() {
    let mut member = started();
    answer(&mut member, 5, LogId { index: 4, term: 2 });
    for _ in 0..3 * ELECTION_TICKS {
        member.tick();
        assert!(sent(&mut member).0.is_empty());
    }
    assert_eq!(vote(&mut member, 6, LAST), None);
    assert_eq!(vote(&mut member, 6, LogId { index: 4, term: 2 }), Some(true));
}

#[test]
fn silent_members_are_asked_again_and_not_waited_for_without_end() {
    let mut member = started();
    sent(&mut member);
    member.lost(OTHERS[0]);
    let mut asked = 0;
    while !member.is_assured() {
        member.tick();
        asked += sent(&mut member).1.len();
    }
    assert_eq!(asked, 2 * (ELECTION_TICKS / 2));
    assert_eq!(vote(&mut member, 4, LAST), Some(true));
}

#[test]
fn a_question_is_answered_at_any_time() {
    let mut member = started();
    sent(&mut member);
    let question = Question { nonce: 9, position: Position::default() };
    member.hear(OTHERS[0], Notice::Question(question)).unwrap();
    let (_, notices) = sent(&mut member);
    let [(to, Notice::Answer(answer))] = notices.as_slice() else { panic!("{notices:?}") };
    assert_eq!((*to, answer.nonce, answer.position), (OTHERS[0], 9, Position { term: 3, last: LAST }));
}

#[test]
fn an_answer_that_no_correct_member_gives_is_refused() {
    let mut member = started();
    let answer = |term, last| Answer {
        nonce: 7,
        position: Position { term, last },
        mark: Mark::default(),
        applied: 0,
        voters: vec![OWN, OTHERS[0], OTHERS[1]],
    };
    for (term, last) in [(2, LogId { index: 9, term: 3 }), (u64::MAX, LAST)] {
        member.hear(OTHERS[0], Notice::Answer(answer(term, last))).unwrap_err();
    }
    assert!(!member.is_assured());
    // As with messages, a term that is too far ahead is approached.
    assert_eq!(member.role().term, furthest_term(3));
}

#[test]
fn a_leader_that_counts_what_a_member_does_not_hold_is_asked_to_start_over() {
    let mut member = started();
    answer(&mut member, 5, LAST);
    sent(&mut member);
    let mut message = Message { from: 2, to: 1, term: 6, commit: 4, ..Message::default() };
    message.set_msg_type(MessageType::MsgHeartbeat);
    member.step(message).unwrap_err();
    let (_, notices) = sent(&mut member);
    assert!(
        matches!(notices.as_slice(), [(id, Notice::Question(question))] if *id == OTHERS[0] && question.position.last == LAST)
    );
}

#[test]
fn a_leader_sends_again_what_a_member_that_asks_has_lost() {
    let mut leader = started();
    answer(&mut leader, 5, LAST);
    leader.raw.campaign().unwrap();
    for kind in [MessageType::MsgRequestPreVoteResponse, MessageType::MsgRequestVoteResponse] {
        let mut message = Message { from: 2, to: 1, term: 6, ..Message::default() };
        message.set_msg_type(kind);
        sent(&mut leader);
        leader.step(message).unwrap();
    }
    assert!(leader.role().is_leader);
    let mut message = Message { from: 2, to: 1, term: 6, index: 4, ..Message::default() };
    message.set_msg_type(MessageType::MsgAppendResponse);
    sent(&mut leader);
    leader.step(message).unwrap();
    assert_eq!(leader.matched(OTHERS[0]), Some(4));
    let ask = |leader: &mut Consensus, nonce, index| {
        let position = Position { term: 6, last: LogId { index, term: 2 } };
        leader.hear(OTHERS[0], Notice::Question(Question { nonce, position })).unwrap();
    };
    ask(&mut leader, 1, 2);
    assert_eq!(leader.matched(OTHERS[0]), Some(0));
    let mut message = Message { from: 2, to: 1, term: 6, commit: 2, ..Message::default() };
    message.set_msg_type(MessageType::MsgHeartbeatResponse);
    sent(&mut leader);
    leader.step(message).unwrap();
    let (messages, _) = sent(&mut leader);
    assert!(messages.iter().any(|message| message.to == 2 && message.index == 2 && message.entries.len() == 2));
}
