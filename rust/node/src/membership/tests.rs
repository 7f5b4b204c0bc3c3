use proptest::prelude::*;

use super::*;

const fn id(number: u64) -> MemberId {
    MemberId::of(number)
}

fn member(name: &str) -> MemberInfo {
    let [raft_addr, http_addr, mgmt_addr, metrics_addr] =
        ["raft", "http", "mgmt", "metrics"].map(|kind| format!("{name}:{kind}"));
    MemberInfo { name: name.into(), raft_addr, http_addr, mgmt_addr, metrics_addr, key: Some(key(name)) }
}

/// The key of the server of this name.
fn key(name: &str) -> PublicKeyHash {
    PublicKeyHash::new([name.as_bytes()[0]; PublicKeyHash::BYTES])
}

/// Members 1 to 3, called a to c, all of which vote, and 9, called z, which was removed.
fn three() -> Membership {
    let mut membership = Membership::of_one("cluster".into(), id(1), member("a"));
    let changes =
        vec![Change::Put(id(2), member("b")), Change::Put(id(3), member("c")), Change::Put(id(9), member("z"))];
    membership.apply(changes, None);
    let conf_state = ConfState { voters: vec![3, 1, 2], ..ConfState::default() };
    membership.apply(vec![Change::Remove(id(9))], Some(&conf_state));
    membership
}

/// Whether a member is dead: none is.
fn all_alive(_: MemberId) -> bool {
    false
}

/// Whether a member is dead: all are.
fn all_dead(_: MemberId) -> bool {
    true
}

#[test]
fn a_new_cluster_has_one_member_who_votes() {
    let membership = Membership::of_one("cluster".into(), id(7), member("a"));
    assert!(membership.is_voter(id(7)) && !membership.is_voter(id(8)));
    assert_eq!((membership.find("a"), membership.find("b")), (Some(id(7)), None));
}

#[test]
fn a_new_member_is_admitted_as_a_learner() {
    let changes = three().admit(id(4), &member("d"), &all_alive).unwrap();
    assert_eq!(changes, [Change::Put(id(4), member("d"))]);
    assert_eq!(three().configuration_changes(&changes), [(ConfChangeType::AddLearnerNode, id(4))]);
}

#[test]
fn a_member_that_is_as_described_changes_nothing() {
    assert_eq!(three().admit(id(2), &member("b"), &all_alive), Ok(Vec::new()));
}

#[test]
fn new_addresses_are_noted_without_raft() {
    let moved = MemberInfo { http_addr: "elsewhere".into(), ..member("b") };
    let changes = three().admit(id(2), &moved, &all_alive).unwrap();
    assert_eq!(changes, [Change::Put(id(2), moved.clone())]);
    assert_eq!(three().configuration_changes(&changes), []);
    let mut membership = three();
    membership.apply(changes, None);
    assert_eq!(membership.members[&id(2)], moved);
    assert_eq!(membership.configuration, three().configuration);
}

#[test]
fn a_member_that_was_given_up_is_replaced_unless_it_has_returned() {
    let replace = |replaced, number, info: &str, is_silent: &dyn Fn(MemberId) -> bool| {
        three().replace(id(replaced), id(number), &member(info), is_silent)
    };
    let changes = replace(3, 4, "c", &|other| other == id(3)).unwrap();
    assert_eq!(changes, [Change::Remove(id(3)), Change::Put(id(4), member("c"))]);
    assert_eq!(replace(3, 4, "c", &|other| other != id(3)), Err(Inadmissible::NameTaken("c".into())));
    // Another has its name by now, or its number had another name.
    assert_eq!(replace(7, 4, "c", &all_dead), Err(Inadmissible::Unknown("c".into())));
    assert_eq!(replace(3, 4, "d", &all_dead), Err(Inadmissible::Unknown("d".into())));
    assert_eq!(replace(3, 4, "b", &all_dead), Err(Inadmissible::Unknown("b".into())));
    assert_eq!(replace(3, 3, "c", &all_dead), Err(Inadmissible::Unknown("c".into())));
    assert_eq!(replace(3, 9, "c", &all_dead), Err(Inadmissible::Removed("z".into())));
    let alone = Membership::of_one("cluster".into(), id(1), member("a"));
    assert_eq!(alone.replace(id(1), id(2), &member("a"), &all_dead), Err(Inadmissible::LastVoter("a".into())));
}

#[test]
fn a_removed_number_does_not_come_back() {
    assert_eq!(three().admit(id(9), &member("y"), &all_dead), Err(Inadmissible::Removed("z".into())));
    // Another member may use its name.
    assert_eq!(three().admit(id(4), &member("z"), &all_alive), Ok(vec![Change::Put(id(4), member("z"))]));
}

#[test]
fn a_name_is_taken_while_its_member_is_alive() {
    assert_eq!(three().admit(id(4), &member("b"), &all_alive), Err(Inadmissible::NameTaken("b".into())));
    // A member cannot change its name to that of another either.
    assert_eq!(three().admit(id(1), &member("b"), &all_alive), Err(Inadmissible::NameTaken("b".into())));
}

#[test]
fn a_dead_member_makes_room_for_its_own_server_only() {
    for other_key in [None, Some(key("d"))] {
        let stranger = MemberInfo { key: other_key, ..member("b") };
        assert_eq!(three().admit(id(4), &stranger, &all_dead), Err(Inadmissible::NameTaken("b".into())));
        // An operator may say that it takes the place of the dead one.
        assert_eq!(three().replace(id(2), id(4), &stranger, &all_dead).map(|changes| changes.len()), Ok(2));
    }
    let mut keyless = three();
    keyless.apply(vec![Change::Put(id(2), MemberInfo { key: None, ..member("b") })], None);
    let unknown = MemberInfo { key: None, ..member("b") };
    assert_eq!(keyless.admit(id(4), &unknown, &all_dead), Err(Inadmissible::NameTaken("b".into())));
    let changes = three().admit(id(4), &member("b"), &|other| other == id(2)).unwrap();
    assert_eq!(changes, [Change::Remove(id(2)), Change::Put(id(4), member("b"))]);
    let of_raft = [(ConfChangeType::RemoveNode, id(2)), (ConfChangeType::AddLearnerNode, id(4))];
    assert_eq!(three().configuration_changes(&changes), of_raft);
    let mut membership = three();
    membership.apply(changes, None);
    assert_eq!((membership.find("b"), membership.removed[&id(2)].as_str()), (Some(id(4)), "b"));
}

#[test]
fn an_address_noted_behind_a_removal_makes_no_ghost() {
    let mut membership = three();
    membership.apply(vec![Change::Remove(id(2))], None);
    membership.apply(vec![Change::Put(id(2), member("b"))], None);
    assert_eq!(membership.find("b"), None);
}

#[test]
fn an_address_of_another_is_refused() {
    for taken in ["b:raft", "b:http"] {
        let mut joining = member("d");
        (if taken == "b:raft" { &mut joining.raft_addr } else { &mut joining.http_addr })
            .clone_from(&taken.to_string());
        let reason = Inadmissible::AddressTaken { address: taken.into(), name: "b".into() };
        assert_eq!(three().admit(id(4), &joining, &all_dead), Err(reason));
    }
}

#[test]
fn the_key_of_another_is_refused() {
    let taken = Err(Inadmissible::KeyTaken("b".into()));
    let with_key_of_b = |name| MemberInfo { key: Some(key("b")), ..member(name) };
    assert_eq!(three().admit(id(4), &with_key_of_b("d"), &all_dead), taken);
    assert_eq!(three().admit(id(3), &with_key_of_b("c"), &all_dead), taken);
    assert_eq!(three().replace(id(3), id(4), &with_key_of_b("c"), &all_dead), taken);
    // A cluster of an earlier build may have such members: they can still move, until each has a key of its own.
    let mut membership = three();
    membership.apply(vec![Change::Put(id(3), with_key_of_b("c"))], None);
    let moved = MemberInfo { http_addr: "elsewhere".into(), ..with_key_of_b("c") };
    assert_eq!(membership.admit(id(3), &moved, &all_alive), Ok(vec![Change::Put(id(3), moved)]));
    assert_eq!(membership.admit(id(3), &member("c"), &all_alive), Ok(vec![Change::Put(id(3), member("c"))]));
    // Members of an earlier build have none.
    let keyless = |name| MemberInfo { key: None, ..member(name) };
    membership.apply(vec![Change::Put(id(1), keyless("a"))], None);
    assert_eq!(membership.admit(id(4), &keyless("d"), &all_alive), Ok(vec![Change::Put(id(4), keyless("d"))]));
}

#[test]
fn texts_that_are_empty_or_long_are_refused() {
    let fields: [fn(&mut MemberInfo) -> &mut String; 5] = [
        |member| &mut member.name,
        |member| &mut member.raft_addr,
        |member| &mut member.http_addr,
        |member| &mut member.mgmt_addr,
        |member| &mut member.metrics_addr,
    ];
    for field in fields {
        for (length, is_good) in [(0, false), (1, true), (MAX_TEXT_BYTES, true), (MAX_TEXT_BYTES + 1, false)] {
            let mut joining = member("d");
            *field(&mut joining) = "x".repeat(length);
            let admitted = three().admit(id(4), &joining, &all_alive);
            assert_eq!(
                admitted,
                if is_good { Ok(vec![Change::Put(id(4), joining)]) } else { Err(Inadmissible::Malformed) }
            );
        }
    }
}

#[test]
fn a_full_cluster_admits_only_who_is_a_member_or_takes_a_dead_ones_place() {
    let mut membership = three();
    let more = (100..).take(MAX_MEMBERS - 3).map(|number| Change::Put(id(number), member(&number.to_string())));
    membership.apply(more.collect(), None);
    assert_eq!(membership.admit(id(4), &member("d"), &all_dead), Err(Inadmissible::Full));
    assert_eq!(membership.admit(id(4), &member("b"), &all_dead).unwrap().len(), 2);
    let moved = MemberInfo { http_addr: "elsewhere".into(), ..member("b") };
    assert_eq!(membership.admit(id(2), &moved, &all_dead), Ok(vec![Change::Put(id(2), moved)]));
}

#[test]
fn a_member_is_removed_by_name() {
    let changes = three().remove("b", &all_alive).unwrap();
    assert_eq!(changes, [Change::Remove(id(2))]);
    assert_eq!(three().configuration_changes(&changes), [(ConfChangeType::RemoveNode, id(2))]);
    assert_eq!(three().remove("z", &all_alive), Err(Inadmissible::Unknown("z".into())));
}

#[test]
fn the_only_voter_is_not_removed() {
    let mut membership = three();
    let conf_state = ConfState { voters: vec![1], learners: vec![2, 3], ..ConfState::default() };
    membership.apply(Vec::new(), Some(&conf_state));
    assert_eq!(membership.remove("a", &all_alive), Err(Inadmissible::LastVoter("a".into())));
    assert_eq!(membership.remove("b", &all_alive), Ok(vec![Change::Remove(id(2))]));
}

#[test]
fn a_member_without_which_no_majority_answers_is_not_removed() {
    let is_silent = |other| other == id(3);
    let reason = Inadmissible::Indispensable { name: "b".into(), silent: vec!["c".into()] };
    assert_eq!(three().remove("b", &is_silent), Err(reason));
    assert_eq!(three().remove("c", &is_silent), Ok(vec![Change::Remove(id(3))]));
    // Without a learner there are as many votes as before, and five members can spare one of three that answer for two that do not.
    let mut membership = three();
    let others = [(4, "d"), (5, "e"), (6, "f")];
    membership.apply(others.map(|(number, name)| Change::Put(id(number), member(name))).into(), None);
    let conf_state = ConfState { voters: vec![1, 2, 3, 4, 5], learners: vec![6], ..ConfState::default() };
    membership.apply(Vec::new(), Some(&conf_state));
    assert_eq!(membership.remove("a", &is_silent), Ok(vec![Change::Remove(id(1))]));
    let are_silent = |other| other == id(3) || other == id(5);
    let reason = Inadmissible::Indispensable { name: "a".into(), silent: vec!["c".into(), "e".into()] };
    assert_eq!(membership.remove("a", &are_silent), Err(reason));
    assert_eq!(membership.remove("f", &are_silent), Ok(vec![Change::Remove(id(6))]));
}

#[test]
fn a_membership_without_keys_has_the_bytes_that_it_always_had() {
    let member = r#"{"name":"a","raft_addr":"a:1","http_addr":"a:2","mgmt_addr":"a:3","metrics_addr":"a:4"}"#;
    let mut found: MemberInfo = serde_json::from_str(member).unwrap();
    assert_eq!(found.key, None);
    assert_eq!(serde_json::to_string(&found).unwrap(), member);
    found.key = Some(PublicKeyHash::new([0xab; 32]));
    let with_key = serde_json::to_string(&found).unwrap();
    assert_eq!(with_key, member.replace('}', &format!(r#","key":"{}"}}"#, "ab".repeat(32))));
    assert_eq!(serde_json::from_str::<MemberInfo>(&with_key).unwrap(), found);
}

#[test]
fn equal_memberships_have_equal_bytes() {
    let mut other = three();
    let conf_state = ConfState { voters: vec![2, 3, 1], ..ConfState::default() };
    other.apply(Vec::new(), Some(&conf_state));
    assert_eq!(other.to_bytes(), three().to_bytes());
    assert_eq!(Membership::from_bytes(&three().to_bytes()), Some(three()));
}

proptest! {
    #![proptest_config(crate::seeds::searching(256))]

    #[test]
    fn decoding_arbitrary_bytes_does_not_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..100),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let _ = Membership::from_bytes(&bytes);
        let mut bytes = three().to_bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = Membership::from_bytes(&bytes);
        let _ = Membership::from_bytes(&bytes[..at]);
    }
}
