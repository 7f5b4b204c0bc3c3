use super::*;

const OWN: MemberId = MemberId::of(1);
const OTHERS: [MemberId; 2] = [MemberId::of(2), MemberId::of(3)];
const PATIENCE: usize = 10;
const NONCE: u64 = 7;

const fn at(term: u64, index: u64) -> Position {
    Position { term, last: LogId { index, term } }
}

fn answer(position: Position, mark: Mark) -> Answer {
    Answer { nonce: NONCE, position, mark, applied: 1, voters: vec![OWN, OTHERS[0], OTHERS[1]] }
}

/// Return the roll call of a member whose folder ends at entry 5 in term 3.
fn begun(patience: Option<usize>) -> RollCall {
    let mut roll_call = RollCall::begin(NONCE, at(3, 5), patience, BTreeMap::new());
    roll_call.learn(1, [OWN, OTHERS[0], OTHERS[1]]);
    roll_call
}

fn request(term: u64, index: u64) -> Message {
    let mut message = Message { log_term: term, index, ..Message::default() };
    message.set_msg_type(MessageType::MsgRequestVote);
    message
}

#[test]
fn it_ends_when_all_have_answered_with_the_highest_term() {
    let mut roll_call = begun(None);
    assert_eq!(roll_call.awaited(OWN), OTHERS);
    roll_call.note(OTHERS[0], answer(at(4, 9), Mark::default()));
    assert_eq!((roll_call.close(OWN), roll_call.awaited(OWN)), (None, vec![OTHERS[1]]));
    roll_call.note(OTHERS[1], answer(at(3, 12), Mark { term: 6, acknowledged: 0 }));
    assert_eq!(roll_call.close(OWN), Some(6));
    assert_eq!(roll_call.floor(), Some(at(4, 9).last));
}

#[test]
fn an_answer_to_an_earlier_start_does_not_count() {
    let mut roll_call = begun(None);
    roll_call.note(OTHERS[0], Answer { nonce: NONCE - 1, ..answer(at(4, 9), Mark::default()) });
    assert_eq!(roll_call.awaited(OWN), OTHERS);
}

#[test]
fn silent_members_delay_it_until_its_patience_is_over() {
    for (patience, closed) in [(Some(PATIENCE), Some(0)), (None, None)] {
        let mut roll_call = begun(patience);
        // Until there is a sign of the others, streams may not be open.
        (0..3 * PATIENCE).for_each(|_| {
            roll_call.tick(1);
        });
        assert_eq!(roll_call.close(OWN), None);
        roll_call.note_contact();
        for _ in 1..PATIENCE {
            roll_call.tick(1);
            assert_eq!(roll_call.close(OWN), None);
        }
        roll_call.tick(1);
        assert_eq!(roll_call.close(OWN), closed);
    }
}

#[test]
fn a_folder_that_is_proven_to_be_old_waits_for_all() {
    let acknowledged = Mark { term: 3, acknowledged: 6 };
    let later = Mark { term: 4, acknowledged: 0 };
    for mark in [acknowledged, later] {
        let mut roll_call = begun(Some(PATIENCE));
        roll_call.note_contact();
        roll_call.note(OTHERS[0], answer(at(4, 9), mark));
        (0..9 * PATIENCE).for_each(|_| {
            roll_call.tick(1);
        });
        assert_eq!(roll_call.close(OWN), None);
        assert_eq!(roll_call.contradiction(), Some(Contradiction { witness: OTHERS[0], mark, found: at(3, 5) }));
        roll_call.note(OTHERS[1], answer(at(4, 9), Mark::default()));
        assert_eq!(roll_call.close(OWN), Some(4));
        roll_call.catch_up(at(4, 8).last);
        assert!(roll_call.contradiction().is_some());
        roll_call.catch_up(at(4, 9).last);
        assert_eq!((roll_call.contradiction(), roll_call.floor()), (None, None));
    }
}

#[test]
fn what_the_folder_holds_contradicts_nothing() {
    for mark in [Mark { term: 3, acknowledged: 5 }, Mark { term: 2, acknowledged: 9 }] {
        let mut roll_call = begun(None);
        roll_call.note(OTHERS[0], answer(at(3, 9), mark));
        assert_eq!(roll_call.contradiction(), None);
    }
}

#[test]
fn a_member_that_is_behind_votes_only_for_logs_that_are_not() {
    let mut roll_call = begun(Some(PATIENCE));
    for id in OTHERS {
        roll_call.note(id, answer(at(4, 9), Mark::default()));
    }
    assert_eq!(roll_call.close(OWN), Some(4));
    assert!(roll_call.is_premature(&request(4, 8)));
    assert!(roll_call.is_premature(&request(3, 20)));
    assert!(!roll_call.is_premature(&request(4, 9)));
    assert!(!roll_call.is_premature(&request(5, 2)));
    let mut message = Message::default();
    message.set_msg_type(MessageType::MsgTimeoutNow);
    assert!(roll_call.is_premature(&message));
    roll_call.catch_up(at(4, 9).last);
    assert!(!roll_call.is_premature(&message) && !roll_call.is_premature(&request(1, 1)));
}

#[test]
fn a_member_that_is_behind_without_proof_does_not_wait_without_end() {
    let mut roll_call = begun(Some(PATIENCE));
    roll_call.note_contact();
    for id in OTHERS {
        roll_call.note(id, answer(at(4, 9), Mark::default()));
    }
    assert_eq!(roll_call.close(OWN), Some(4));
    for _ in 1..PATIENCES_BEHIND * PATIENCE {
        roll_call.tick(1);
        roll_call.catch_up(at(3, 5).last);
        assert!(roll_call.floor().is_some());
    }
    roll_call.tick(1);
    roll_call.catch_up(at(3, 5).last);
    assert_eq!(roll_call.floor(), None);
}

#[test]
fn later_voters_are_asked_too_until_the_latest_are_known() {
    let promoted = BTreeMap::from([(MemberId::of(4), 6)]);
    let mut roll_call = RollCall::begin(NONCE, at(3, 5), None, promoted);
    roll_call.learn(1, [OWN]);
    assert_eq!(roll_call.awaited(OWN), [MemberId::of(4)]);
    let voters = vec![OWN, MemberId::of(5)];
    roll_call.note(MemberId::of(4), Answer { applied: 8, voters, ..answer(at(3, 9), Mark::default()) });
    assert_eq!(roll_call.awaited(OWN), [MemberId::of(5)]);
    // Who the voters were before matters no more.
    roll_call.learn(7, OTHERS);
    assert_eq!(roll_call.awaited(OWN), [MemberId::of(5)]);
}

#[test]
fn a_mark_is_the_last_term_and_what_was_acknowledged_in_it() {
    let mut marks = Marks::default();
    let said = |kind, term, index, reject| {
        let mut message = Message { from: 2, term, index, reject, ..Message::default() };
        message.set_msg_type(kind);
        message
    };
    marks.note(&said(MessageType::MsgAppendResponse, 3, 8, false));
    marks.note(&said(MessageType::MsgAppendResponse, 3, 9, true));
    marks.note(&said(MessageType::MsgAppendResponse, 2, 20, false));
    marks.note(&said(MessageType::MsgAppendResponse, 3, 6, false));
    assert_eq!(marks.of(OTHERS[0]), Mark { term: 3, acknowledged: 8 });
    // A pre-vote names the next term.
    marks.note(&said(MessageType::MsgRequestPreVote, 4, 8, false));
    assert_eq!(marks.of(OTHERS[0]), Mark { term: 3, acknowledged: 8 });
    marks.note(&said(MessageType::MsgRequestVote, 4, 8, false));
    assert_eq!(marks.of(OTHERS[0]), Mark { term: 4, acknowledged: 0 });
    assert_eq!(marks.of(OTHERS[1]), Mark::default());
}

#[test]
fn each_start_is_new_once() {
    let mut marks = Marks::default();
    let starts = [1, 1, 2, 1].map(|nonce| marks.note_start(OWN, nonce));
    assert_eq!(starts, [true, false, true, true]);
}
