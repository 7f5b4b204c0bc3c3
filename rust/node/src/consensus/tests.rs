use std::collections::BTreeMap;

use proptest::prelude::*;
use raft::eraftpb::{Snapshot, SnapshotMetadata};

use super::*;
use crate::message_check::{LAST_JUMP, MAX_TERM_JUMP};

pub(super) const ELECTION_TICKS: usize = 10;

const fn id(number: u64) -> MemberId {
    MemberId::of(number)
}

pub(super) fn settings(number: u64) -> Settings {
    Settings {
        id: id(number),
        election_ticks: ELECTION_TICKS,
        dead_ticks: 2 * ELECTION_TICKS,
        heartbeat_ticks: 2,
        patience_ticks: Some(ELECTION_TICKS),
        seed: 7,
        pre_vote: true,
        check_quorum: true,
        kept_bytes: KEPT_BYTES,
    }
}

fn fresh(number: u64, voters: &[u64]) -> Consensus {
    let conf_state = ConfState { voters: voters.to_vec(), ..ConfState::default() };
    Consensus::new(settings(number), Recovered::default(), LogId::default(), conf_state).unwrap()
}

/// Members whose disks and states respond immediately.
struct Group {
    members: BTreeMap<u64, Consensus>,
    /// Members that are cut off: all messages to and from them are lost.
    cut_off: Vec<u64>,
    /// The messages to drop, as chosen by a test.
    is_dropped: fn(&Message) -> bool,
    /// Whether some messages are forged, so that refusals are expected.
    are_forged: bool,
}

impl Group {
    fn of(ids: &[u64]) -> Self {
        let members = ids.iter().map(|&id| (id, fresh(id, ids))).collect();
        Self { members, cut_off: Vec::new(), is_dropped: |_| false, are_forged: false }
    }

    /// Return a group of three in which member 1 leads.
    fn led() -> Self {
        let mut group = Self::of(&[1, 2, 3]);
        group.members.get_mut(&1).unwrap().raw.campaign().unwrap();
        group.settle();
        assert!(group.member(1).role().is_leader);
        group
    }

    fn member(&mut self, id: u64) -> &mut Consensus {
        self.members.get_mut(&id).unwrap()
    }

    /// Exchange messages until there are none.
    fn settle(&mut self) {
        loop {
            let messages: Vec<_> = self.members.values_mut().flat_map(carried_out).collect();
            if messages.is_empty() {
                return;
            }
            for message in messages {
                let is_lost = self.cut_off.contains(&message.to) || self.cut_off.contains(&message.from);
                if is_lost || (self.is_dropped)(&message) {
                    continue;
                }
                if let Some(member) = self.members.get_mut(&message.to)
                    && let Err(refusal) = member.step(message)
                {
                    assert!(self.are_forged, "{refusal}");
                }
            }
        }
    }

    fn tick(&mut self, times: usize) {
        for _ in 0..times {
            self.members.values_mut().for_each(Consensus::tick);
            self.settle();
        }
    }

    fn propose(&mut self, id: u64, data: &[u8]) -> LogId {
        let log_id = self.member(id).propose(data.to_vec()).unwrap();
        self.settle();
        log_id
    }
}

/// Save, apply and return the messages to send, until there is nothing to do.
fn carried_out(member: &mut Consensus) -> Vec<Message> {
    let mut messages = Vec::new();
    while let Some(output) = member.output().unwrap() {
        if output.save.is_some() {
            member.saved();
        }
        // The driver sends each to a member.
        assert!(output.messages.iter().all(|message| MemberId::new(message.to).is_some()));
        messages.extend(output.messages);
        for Committed { log_id, conf_state, .. } in output.committed {
            member.applied(log_id, conf_state);
        }
    }
    messages
}

#[test]
fn a_learner_that_has_answered_nothing_does_not_vote() {
    let mut group = Group::of(&[1]);
    group.settle();
    let changes = [(ConfChangeType::AddLearnerNode, id(2))];
    group.member(1).propose_members(&changes, Vec::new()).unwrap();
    group.tick(5 * ELECTION_TICKS);
    let conf_state = group.member(1).raw.raft.prs().conf().to_conf_state();
    assert_eq!((conf_state.voters, conf_state.learners), (vec![1], vec![2]));
    assert!(group.member(1).role().is_leader);
}

#[test]
fn a_learner_that_is_there_but_holds_nothing_does_not_vote() {
    let mut group = Group::of(&[1]);
    group.settle();
    group.members.insert(2, fresh(2, &[1]));
    group.is_dropped = |message| message.msg_type() == MessageType::MsgAppend;
    group.member(1).propose_members(&[(ConfChangeType::AddLearnerNode, id(2))], Vec::new()).unwrap();
    group.tick(5 * ELECTION_TICKS);
    assert!(group.member(1).is_active(id(2)));
    assert_eq!(group.member(1).raw.raft.prs().conf().to_conf_state().voters, [1]);
}

#[test]
fn a_learner_that_holds_the_log_votes() {
    let mut group = Group::of(&[1]);
    group.settle();
    group.members.insert(2, fresh(2, &[1]));
    group.member(1).propose_members(&[(ConfChangeType::AddLearnerNode, id(2))], Vec::new()).unwrap();
    group.tick(5 * ELECTION_TICKS);
    assert_eq!(group.member(1).raw.raft.prs().conf().to_conf_state().voters.len(), 2);
}

#[test]
fn a_follower_that_answers_is_active_at_every_tick_and_never_missed() {
    let mut group = Group::led();
    group.tick(4);
    for _ in 0..20 * ELECTION_TICKS {
        group.tick(1);
        assert!(group.member(1).is_active(id(2)));
        assert!(!group.member(1).is_presumed_dead(id(2)));
    }
}

#[test]
fn a_read_that_is_passed_on_is_no_sign_of_life_of_the_member_it_names() {
    let mut group = Group::led();
    group.cut_off.push(3);
    group.tick(4 * ELECTION_TICKS);
    let mut read = Message { to: 1, from: 3, ..Message::default() };
    read.set_msg_type(MessageType::MsgReadIndex);
    read.entries = vec![Entry { data: vec![7], ..Entry::default() }];
    group.member(1).step(read).unwrap();
    assert!(!group.member(1).is_active(id(3)) && group.member(1).is_presumed_dead(id(3)));
}

#[test]
fn a_follower_that_is_silent_for_long_is_presumed_dead() {
    let mut group = Group::led();
    group.tick(4 * ELECTION_TICKS);
    group.cut_off.push(3);
    group.tick(2 * ELECTION_TICKS - 2);
    assert!(!group.member(1).is_presumed_dead(id(3)));
    group.tick(4);
    assert!(group.member(1).is_presumed_dead(id(3)));
    assert!(!group.member(1).is_presumed_dead(id(2)));
    assert!(!group.member(1).is_presumed_dead(id(1)));
}

#[test]
fn a_read_is_not_asked_before_the_first_entry_of_a_term_is_committed() {
    let mut alone = fresh(1, &[1]);
    assert!(alone.role().is_leader);
    assert!(!alone.read(vec![1]));
    carried_out(&mut alone);
    assert!(alone.read(vec![2]));
}

#[test]
fn a_commit_index_travels_with_the_entries_that_follow() {
    let mut group = Group::led();
    let leader = group.member(1);
    let entries = [leader.propose(vec![1]).unwrap(), leader.propose(vec![2]).unwrap()];
    carried_out(leader);
    let acknowledged = |group: &mut Group, entry: LogId| {
        let leader = group.member(1);
        let mut answer = Message { from: 2, to: 1, index: entry.index, term: entry.term, ..Message::default() };
        answer.set_msg_type(MessageType::MsgAppendResponse);
        leader.step(answer).unwrap();
        assert_eq!(leader.commit_index(), entry.index);
        carried_out(leader)
    };
    assert_eq!(acknowledged(&mut group, entries[0]), []);
    let sent = acknowledged(&mut group, entries[1]);
    let receivers: Vec<_> = sent.iter().map(|message| (message.to, message.commit)).collect();
    assert_eq!(receivers, [(2, entries[1].index), (3, entries[1].index)]);
}

/// Return the output of a member that asks for something to be saved.
fn unsaved(member: &mut Consensus) -> Output {
    let output = member.output().unwrap().unwrap();
    assert!(output.save.is_some());
    output
}

fn kinds(messages: &[Message]) -> Vec<(MessageType, u64)> {
    messages.iter().map(|message| (message.msg_type(), message.to)).collect()
}

#[test]
fn a_leader_sends_entries_before_it_has_saved_them_and_counts_itself_after_that() {
    let mut group = Group::led();
    let leader = group.member(1);
    let LogId { index, .. } = leader.propose(vec![1]).unwrap();
    let output = unsaved(leader);
    assert_eq!(kinds(&output.messages), [(MessageType::MsgAppend, 2), (MessageType::MsgAppend, 3)]);
    assert!(output.messages.iter().all(|message| message.entries.last().is_some_and(|last| last.index == index)));
    assert_eq!(leader.matched(id(1)), Some(index - 1));
    leader.saved();
    assert_eq!((leader.matched(id(1)), leader.commit_index()), (Some(index), index - 1));
    assert_eq!(carried_out(leader), [], "nothing is sent twice");
}

#[test]
fn entries_that_a_leader_has_not_saved_are_no_part_of_a_majority() {
    let mut group = Group::led();
    let LogId { index, .. } = group.member(1).propose(vec![1]).unwrap();
    let messages = unsaved(group.member(1)).messages;
    group.member(2).step(messages[0].clone()).unwrap();
    let answer = carried_out(group.member(2)).remove(0);
    let leader = group.member(1);
    leader.step(answer).unwrap();
    assert_eq!((leader.matched(id(2)), leader.commit_index()), (Some(index), index - 1));
    leader.saved();
    assert_eq!(leader.commit_index(), index);
}

#[test]
fn a_follower_answers_only_after_it_has_saved_the_entries() {
    let mut group = Group::led();
    group.member(1).propose(vec![1]).unwrap();
    let messages = unsaved(group.member(1)).messages;
    let follower = group.member(2);
    follower.step(messages[0].clone()).unwrap();
    assert_eq!(unsaved(follower).messages, []);
    follower.saved();
    assert_eq!(kinds(&carried_out(follower)), [(MessageType::MsgAppendResponse, 1)]);
}

#[test]
fn a_candidate_and_its_voters_send_only_after_they_have_saved_their_votes() {
    let mut group = Group::of(&[1, 2, 3]);
    let candidate = group.member(1);
    candidate.raw.raft.become_pre_candidate();
    candidate.raw.raft.campaign(b"CampaignElection");
    assert_eq!(unsaved(candidate).messages, []);
    candidate.saved();
    let requests = carried_out(candidate);
    assert_eq!(kinds(&requests), [(MessageType::MsgRequestVote, 2), (MessageType::MsgRequestVote, 3)]);
    let voter = group.member(2);
    voter.step(requests[0].clone()).unwrap();
    assert_eq!(unsaved(voter).messages, []);
    voter.saved();
    assert_eq!(kinds(&carried_out(voter)), [(MessageType::MsgRequestVoteResponse, 1)]);
}

#[test]
fn a_single_voter_sends_nothing_before_it_has_saved_its_term() {
    let conf_state = ConfState { voters: vec![1], learners: vec![2], ..ConfState::default() };
    let mut alone = Consensus::new(settings(1), Recovered::default(), LogId::default(), conf_state).unwrap();
    assert!(alone.role().is_leader);
    assert_eq!(unsaved(&mut alone).messages, []);
    alone.saved();
    assert_eq!(kinds(&carried_out(&mut alone)), [(MessageType::MsgAppend, 2)]);
}

#[test]
fn a_snapshot_message_that_is_lost_without_a_word_is_sent_again() {
    let mut group = Group::led();
    group.cut_off.push(3);
    let log_id = group.propose(1, b"x");
    let forgotten = group.member(1).forget(log_id).unwrap();
    assert_eq!(forgotten.bounds.unwrap().index, log_id.index);
    group.cut_off.clear();
    group.is_dropped = |message| message.msg_type() == MessageType::MsgSnapshot;
    group.tick(3 * ELECTION_TICKS);
    assert!(group.member(3).snapshot_source().is_none());
    group.is_dropped = |_| false;
    group.tick(5 * ELECTION_TICKS);
    assert_eq!(group.member(3).snapshot_source().map(|(from, _)| from), Some(id(1)));
}

#[test]
fn a_change_of_configuration_that_cannot_be_read_is_invalid() {
    let mut group = Group::led();
    let term = group.member(1).role().term;
    let follower = group.member(2);
    let (index, log_term) = (follower.raw.raft.raft_log.last_index(), follower.raw.raft.raft_log.last_term());
    let data = vec![0xff; 8];
    let mut entry = Entry { index: index + 1, term, data, ..Entry::default() };
    entry.set_entry_type(EntryType::EntryConfChangeV2);
    let mut append = Message { to: 2, from: 1, term, log_term, index, entries: vec![entry], ..Message::default() };
    append.set_msg_type(MessageType::MsgAppend);
    assert!(is_invalid(follower, append, 1));
}

#[test]
fn a_refusal_that_hints_at_no_entry_is_invalid() {
    let mut group = Group::led();
    group.cut_off = vec![2, 3];
    group.propose(1, b"x");
    group.member(1).lost(id(2));
    let leader = group.member(1);
    let index = leader.raw.raft.prs().get(2).unwrap().next_idx - 1;
    let mut refusal = Message { to: 1, from: 2, term: leader.role().term, index, ..Message::default() };
    refusal.set_msg_type(MessageType::MsgAppendResponse);
    (refusal.reject, refusal.reject_hint) = (true, u64::MAX);
    assert!(is_invalid(leader, refusal, 2));
}

/// Return whether a message is refused as invalid, from the sender that it names.
fn is_invalid(member: &mut Consensus, message: Message, sender: u64) -> bool {
    let stepped = member.step(message);
    matches!(stepped, Err(Refusal::InvalidMessage(InvalidMessage { from, .. })) if from == MemberId::new(sender))
}

/// Return a message in which a stranger claims to be leader in `term`.
fn forged(to: u64, term: u64) -> Message {
    let mut message = Message { from: 77, to, term, ..Message::default() };
    message.set_msg_type(MessageType::MsgHeartbeat);
    message
}

fn is_refused(member: &mut Consensus, message: Message) -> bool {
    is_invalid(member, message, 77)
}

#[test]
fn no_message_moves_a_term_by_more_than_a_million() {
    for far in [u64::MAX, u64::MAX / 2, LAST_JUMP, 3 * MAX_TERM_JUMP] {
        let mut group = Group::led();
        let member = group.member(2);
        let term = member.role().term;
        assert!(is_refused(member, forged(2, far)));
        assert_eq!(member.role().term, term + MAX_TERM_JUMP, "after term {far}");
    }
}

#[test]
fn a_message_far_ahead_for_another_moves_no_term() {
    let mut group = Group::led();
    let term = group.member(2).role().term;
    assert!(is_refused(group.member(2), forged(3, u64::MAX)));
    assert_eq!(group.member(2).role().term, term);
}

#[test]
fn a_pre_vote_moves_a_term_no_further_than_its_sender_is() {
    let mut group = Group::led();
    let term = group.member(2).role().term;
    for (asked, reached) in [(term + MAX_TERM_JUMP + 1, term + MAX_TERM_JUMP), (u64::MAX, term + 2 * MAX_TERM_JUMP)] {
        let mut request = forged(2, asked);
        request.set_msg_type(MessageType::MsgRequestPreVote);
        assert!(is_refused(group.member(2), request));
        assert_eq!(group.member(2).role().term, reached);
    }
}

#[test]
fn the_last_terms_are_used_up_one_by_one() {
    let mut member = fresh(1, &[]);
    member.raw.raft.become_follower(LAST_JUMP, 0);
    for next in 1..4 {
        assert!(is_refused(&mut member, forged(1, u64::MAX)));
        assert_eq!(member.role().term, LAST_JUMP + next);
    }
}

#[test]
fn members_that_forged_messages_have_parted_meet_again() {
    let mut group = Group::led();
    group.are_forged = true;
    for (id, count) in [(2, 3), (3, 7)] {
        (0..count).for_each(|_| assert!(is_refused(group.member(id), forged(id, u64::MAX))));
    }
    group.tick(20 * ELECTION_TICKS);
    group.are_forged = false;
    group.tick(2 * ELECTION_TICKS);
    let terms: Vec<_> = group.members.values().map(|member| member.role().term).collect();
    assert!(terms.iter().all(|&term| term == terms[0] && term > 7 * MAX_TERM_JUMP), "{terms:?}");
    let leader = group.members.values().find(|member| member.role().is_leader).map(|member| member.settings.id.get());
    let log_id = group.propose(leader.unwrap(), b"x");
    group.tick(ELECTION_TICKS);
    assert!(group.members.values().all(|member| member.commit_index() == log_id.index));
}

#[test]
fn a_new_member_joins_a_cluster_of_any_age() {
    for age in [MAX_TERM_JUMP, 50 * MAX_TERM_JUMP] {
        let mut group = Group::of(&[1]);
        group.settle();
        group.member(1).raw.raft.become_follower(age, 0);
        group.member(1).raw.campaign().unwrap();
        group.settle();
        group.are_forged = true;
        group.members.insert(2, fresh(2, &[]));
        group.member(1).propose_members(&[(ConfChangeType::AddLearnerNode, id(2))], Vec::new()).unwrap();
        group.tick(20 * ELECTION_TICKS);
        assert_eq!(group.member(1).raw.raft.prs().conf().to_conf_state().voters.len(), 2, "term {age}");
        assert_eq!(group.member(2).role().term, age + 1);
    }
}

#[test]
fn a_snapshot_of_a_later_term_than_its_message_is_invalid() {
    let mut group = Group::led();
    let term = group.member(2).role().term;
    for of_snapshot in [0, term + 1, u64::MAX] {
        let mut message = forged(2, term);
        message.set_msg_type(MessageType::MsgSnapshot);
        let conf_state = Some(ConfState { voters: vec![1, 2, 3], ..ConfState::default() });
        let metadata = SnapshotMetadata { conf_state, index: 1 << 40, term: of_snapshot };
        message.snapshot = Some(Snapshot { data: Vec::new(), metadata: Some(metadata) });
        assert!(is_refused(group.member(2), message), "term {of_snapshot}");
    }
}

/// What a test checks on a member that receives arbitrary messages.
fn promises(member: &Consensus) -> (u64, u64, u64) {
    (member.raw.raft.term, member.raw.raft.vote, member.commit_index())
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![8 => 0_u64..6, 1 => Just(u64::MAX), 1 => Just(u64::MAX / 2), 1 => Just(u64::MAX - 1), 1 => Just(1 << 40)]
}

fn conf_state() -> impl Strategy<Value = ConfState> {
    let ids = || prop::collection::vec(0_u64..5, 0..4);
    (ids(), ids(), ids(), ids(), any::<bool>()).prop_map(
        |(voters, learners, voters_outgoing, learners_next, auto_leave)| ConfState {
            voters,
            learners,
            voters_outgoing,
            learners_next,
            auto_leave,
        },
    )
}

fn entries() -> impl Strategy<Value = Vec<Entry>> {
    let entry = (number(), number(), 0..3_i32, prop::collection::vec(any::<u8>(), 0..6))
        .prop_map(|(index, term, entry_type, data)| Entry { index, term, entry_type, data, ..Entry::default() });
    prop::collection::vec(entry, 0..3)
}

fn message() -> impl Strategy<Value = Message> {
    let head = (-1..20_i32, prop_oneof![9 => 2_u64..4, 1 => number()], number(), number(), number(), number());
    let tail = (number(), number(), any::<bool>(), entries(), prop::option::of(conf_state()));
    let context = prop_oneof![Just(Vec::new()), Just(b"CampaignTransfer".to_vec()), Just(vec![0; 8])];
    (head, tail, context, any::<i64>()).prop_map(|(head, tail, context, priority)| {
        let (msg_type, from, term, log_term, index, commit) = head;
        let (reject_hint, request_snapshot, reject, entries, conf_state) = tail;
        let metadata = SnapshotMetadata { conf_state, index, term: log_term };
        let snapshot = Some(Snapshot { data: Vec::new(), metadata: Some(metadata) });
        let addressed = Message { msg_type, to: 1, from, term, log_term, index, commit, ..Message::default() };
        let commit_term = log_term;
        Message {
            reject,
            reject_hint,
            request_snapshot,
            entries,
            snapshot,
            context,
            priority,
            commit_term,
            ..addressed
        }
    })
}

/// Member 1 of three in each role, with some entries, the last of which is not committed.
fn in_role(role: StateRole) -> Consensus {
    let mut group = Group::led();
    for number in 0..3 {
        group.propose(1, &[number]);
    }
    group.cut_off = vec![2, 3];
    group.propose(1, b"open");
    let mut member = group.members.remove(&1).unwrap();
    match role {
        StateRole::Leader => {}
        StateRole::Follower => member.raw.raft.become_follower(3, 2),
        StateRole::Candidate => {
            member.raw.raft.become_follower(2, 0);
            member.raw.raft.become_candidate();
        }
        StateRole::PreCandidate => {
            member.raw.raft.become_follower(2, 0);
            member.raw.raft.become_pre_candidate();
        }
    }
    carried_out(&mut member);
    member
}

proptest! {
    #![proptest_config(crate::seeds::searching(10_000))]

    #[test]
    fn whatever_peers_say_no_member_panics_or_takes_a_promise_back(
        role in prop::sample::select(vec![StateRole::Leader, StateRole::Follower, StateRole::Candidate, StateRole::PreCandidate]),
        said in prop::collection::vec(message(), 1..8),
    ) {
        let mut member = in_role(role);
        for message in said {
            let (term, vote, commit) = promises(&member);
            let _ = member.step(message);
            carried_out(&mut member);
            member.tick();
            carried_out(&mut member);
            let (new_term, new_vote, new_commit) = promises(&member);
            prop_assert!(new_term >= term);
            prop_assert!(new_term > term || vote == 0 || new_vote == vote);
            prop_assert!(new_commit >= commit);
        }
        (0..3 * ELECTION_TICKS).for_each(|_| member.tick());
        carried_out(&mut member);
    }
}
