use std::fs;

use qed_core::hash::Digest;
use qed_core::log::Request;
use tempfile::TempDir;

use super::*;
use crate::member::Effects;
use crate::member::{Input, Job};
use crate::outbox::Success;
use crate::ticket::Ticket;

fn description(name: &str) -> MemberInfo {
    let [raft_addr, http_addr, mgmt_addr, metrics_addr] =
        ["raft", "http", "mgmt", "metrics"].map(|kind| format!("{name}:{kind}"));
    MemberInfo { name: name.into(), raft_addr, http_addr, mgmt_addr, metrics_addr, key: None }
}

fn open(folder: &TempDir, name: &str, beginning: Beginning) -> Result<Opened, FolderError> {
    let timing = Timing { heartbeat_ticks: 1, election_ticks: 10, dead_ticks: 20 };
    Opened::open(folder.path(), &description(name), beginning, timing, 100)
}

fn refusal(folder: &TempDir, name: &str, beginning: Beginning) -> String {
    open(folder, name, beginning).unwrap_err().to_string()
}

fn request(text: &str) -> Request {
    Request { digests: vec![Digest::of_event(text.as_bytes())], if_absent: false }
}

/// Append an event as a single voter.
fn append(opened: &mut Opened, text: &str) {
    let mut inputs = vec![Input::Append(Ticket::new(0), request(text))];
    let mut is_added = false;
    while !inputs.is_empty() {
        let mut effects = Effects::default();
        opened.member.turn(inputs, &mut effects, &mut |_| {}).unwrap();
        let perform = |job: Job| crate::applier::perform(&mut opened.state, job).unwrap();
        let (reports, completions): (Vec<_>, Vec<_>) = effects.jobs.into_iter().map(perform).unzip();
        is_added |= completions.iter().flatten().any(|completion| matches!(completion.outcome, Ok(Success::Added(_))));
        inputs = reports.into_iter().flatten().collect();
    }
    assert!(is_added);
}

/// Return a folder in which a first member has appended an event and was killed.
fn used() -> (TempDir, Identity) {
    let folder = TempDir::new().unwrap();
    let mut opened = open(&folder, "a", Beginning::Bootstrap).unwrap();
    append(&mut opened, "first");
    (folder, opened.identity)
}

#[test]
fn an_empty_folder_begins_a_cluster_and_keeps_its_identity() {
    let (folder, identity) = used();
    assert_eq!((identity.name.as_str(), identity.is_joining), ("a", false));
    assert_eq!(identity.cluster.as_ref().unwrap().len(), 32);
    for round in 1..4 {
        let mut opened = open(&folder, "a", Beginning::Bootstrap).unwrap();
        assert_eq!(opened.identity, identity);
        assert_eq!(Some(&opened.state.membership().cluster), identity.cluster.as_ref());
        assert_eq!(opened.state.membership().configuration.voters, [identity.id]);
        append(&mut opened, &round.to_string());
        assert_eq!(opened.state.log().len(), 1 + round);
    }
}

#[test]
fn a_log_from_before_its_cluster_stays() {
    let folder = TempDir::new().unwrap();
    let snapshot = Log::open(folder.path()).unwrap().append(&[request("old")]).unwrap()[0].snapshots[0];
    let mut opened = open(&folder, "a", Beginning::Bootstrap).unwrap();
    append(&mut opened, "new");
    drop(opened);
    let opened = open(&folder, "a", Beginning::Bootstrap).unwrap();
    assert_eq!(opened.state.log().snapshot(0).unwrap(), snapshot);
    assert_eq!(opened.state.log().len(), 2);
}

#[test]
fn two_folders_have_two_numbers_and_two_clusters() {
    let ((_one, first), (_other, second)) = (used(), used());
    assert_ne!(first.id, second.id);
    assert_ne!(first.cluster, second.cluster);
}

#[test]
fn a_folder_of_another_member_is_refused() {
    let (folder, _) = used();
    let found = refusal(&folder, "b", Beginning::Bootstrap);
    assert_eq!(found, format!("{} belongs to a, not to b", folder.path().display()));
    open(&folder, "a", Beginning::Bootstrap).unwrap();
}

#[test]
fn a_member_with_events_of_its_own_cannot_join() {
    let folder = TempDir::new().unwrap();
    Log::open(folder.path()).unwrap().append(&[request("own")]).unwrap();
    assert!(refusal(&folder, "a", Beginning::Join).contains("holds 1 events of its own"));
    // The failed attempt has not made it a member.
    assert!(!folder.path().join("MEMBER").exists());
    assert!(!open(&folder, "a", Beginning::Bootstrap).unwrap().identity.is_joining);
}

#[test]
fn who_waits_to_join_never_begins_a_cluster() {
    let folder = TempDir::new().unwrap();
    let identity = open(&folder, "a", Beginning::Join).unwrap().identity;
    assert!(identity.is_joining && identity.cluster.is_none());
    let mut opened = open(&folder, "a", Beginning::Bootstrap).unwrap();
    assert_eq!(opened.identity, identity);
    assert!(opened.state.membership().members.is_empty());
    for _ in 0..100 {
        opened.member.turn([Input::Tick], &mut Effects::default(), &mut |_| {}).unwrap();
    }
    assert!(!opened.member.role().is_leader);
}

#[test]
fn a_member_that_began_a_cluster_stays_in_it_when_told_to_join() {
    let (folder, identity) = used();
    assert_eq!(open(&folder, "a", Beginning::Join).unwrap().identity, identity);
}

#[test]
fn a_raft_log_that_was_deleted_is_missed() {
    for beginning in [Beginning::Bootstrap, Beginning::Join] {
        let folder = TempDir::new().unwrap();
        drop(open(&folder, "a", beginning).unwrap());
        let raft = folder.path().join(RAFT_FOLDER);
        fs::remove_dir_all(&raft).unwrap();
        // The second attempt does not accept an empty Raft log that the first one may have created.
        for _ in 0..2 {
            assert!(refusal(&folder, "a", beginning).contains("the Raft log of a is missing"));
        }
    }
}

#[test]
fn a_log_that_was_deleted_is_missed() {
    let (folder, _) = used();
    for entry in fs::read_dir(folder.path()).unwrap() {
        let path = entry.unwrap().path();
        match path.file_name().unwrap().to_str().unwrap() {
            "FORMAT" | "MEMBER" | RAFT_FOLDER => {}
            _ if path.is_dir() => fs::remove_dir_all(path).unwrap(),
            _ => fs::remove_file(path).unwrap(),
        }
    }
    let found = refusal(&folder, "a", Beginning::Bootstrap);
    assert_eq!(found, "the data folder is damaged: the state ends at entry 0, but the Raft log begins after entry 1");
}

#[test]
fn a_member_file_that_is_missing_is_missed() {
    let (folder, identity) = used();
    let file = folder.path().join("MEMBER");
    let text = fs::read(&file).unwrap();
    fs::remove_file(&file).unwrap();
    for beginning in [Beginning::Bootstrap, Beginning::Join] {
        assert!(refusal(&folder, "a", beginning).contains("the file with its identity is missing"));
    }
    fs::write(file, text).unwrap();
    assert_eq!(open(&folder, "a", Beginning::Bootstrap).unwrap().identity, identity);
}

#[test]
fn a_member_file_that_cannot_be_read_is_refused() {
    let (folder, identity) = used();
    let file = folder.path().join("MEMBER");
    let text = fs::read_to_string(&file).unwrap();
    let newer = text.replace("\"format\":1", "\"format\":2");
    let nobody = text.replace(&identity.id.get().to_string(), "0");
    let damaged: [(&str, &str); 5] = [
        ("", "MEMBER is damaged"),
        ("{}", "MEMBER is damaged"),
        (&text[..text.len() / 2], "MEMBER is damaged"),
        (&newer, "expected format 1 of MEMBER, found 2"),
        (&nobody, "MEMBER is damaged: invalid value: integer `0`"),
    ];
    for (text, reason) in damaged {
        fs::write(&file, text).unwrap();
        assert!(refusal(&folder, "a", Beginning::Bootstrap).contains(reason), "{text}");
        assert_eq!(fs::read_to_string(&file).unwrap(), text);
    }
}

#[test]
fn a_crash_at_any_step_of_the_beginning_is_harmless() {
    for steps in 0..4 {
        let folder = TempDir::new().unwrap();
        drop(Log::open(folder.path()).unwrap());
        let store = SegmentFolder::open(&folder.path().join(RAFT_FOLDER)).unwrap();
        if steps > 0 {
            Wal::open(store).unwrap().0.append(&Frame::default()).unwrap();
        }
        let identity = Identity::draw("a", false).unwrap();
        if steps > 1 {
            identity.write(folder.path()).unwrap();
        }
        if steps > 2 {
            let mut state = State::open(Arc::new(Log::open(folder.path()).unwrap())).unwrap();
            let membership = Membership::of_one("c".into(), identity.id, description("a"));
            state.bootstrap(membership).unwrap();
        }
        let mut opened = open(&folder, "a", Beginning::Bootstrap).unwrap();
        assert_eq!(opened.identity.id == identity.id, steps > 1);
        assert_eq!(opened.identity.cluster.as_deref() == Some("c"), steps > 2);
        append(&mut opened, "first");
    }
}

#[test]
fn a_folder_is_open_once() {
    let folder = TempDir::new().unwrap();
    let opened = open(&folder, "a", Beginning::Bootstrap).unwrap();
    assert!(matches!(open(&folder, "a", Beginning::Bootstrap), Err(FolderError::Log(LogError::Locked { .. }))));
    drop(opened);
    open(&folder, "a", Beginning::Bootstrap).unwrap();
}
