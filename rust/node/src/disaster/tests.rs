use std::fs;

use qed_core::acts::ActBody;
use qed_core::backup::{BackupFile, Header, Origin, beginning, continuation};
use qed_core::hash::Digest;
use qed_core::log::Request;
use tempfile::TempDir;

use super::*;
use crate::folder::{Beginning, Opened, Timing};
use crate::member::{Effects, Input};
use crate::membership::MemberInfo;
use crate::ticket::Ticket;

fn description(name: &str) -> MemberInfo {
    let [raft_addr, http_addr, mgmt_addr, metrics_addr] =
        ["raft", "http", "mgmt", "metrics"].map(|kind| format!("{name}:{kind}"));
    MemberInfo { name: name.into(), raft_addr, http_addr, mgmt_addr, metrics_addr, key: None }
}

fn open(path: &Path, name: &str) -> Result<Opened, FolderError> {
    open_as(path, name, Beginning::Bootstrap)
}

fn open_as(path: &Path, name: &str, beginning: Beginning) -> Result<Opened, FolderError> {
    Opened::open(
        path,
        &description(name),
        beginning,
        Timing { heartbeat_ticks: 1, election_ticks: 10, dead_ticks: 100 },
        100,
    )
}

/// Append events as a single voter: the first `applied` of them are applied, the others are only in its Raft log.
fn append(opened: &mut Opened, events: &[&str], applied: usize) {
    for (number, event) in events.iter().enumerate() {
        let request = Request { digests: vec![Digest::of_event(event.as_bytes())], if_absent: false };
        let mut inputs = vec![Input::Append(Ticket::new(0), request)];
        while !inputs.is_empty() {
            let mut effects = Effects::default();
            opened.member.turn(inputs, &mut effects, &mut |_| {}).unwrap();
            inputs = Vec::new();
            if number < applied {
                let reports =
                    effects.jobs.into_iter().map(|job| crate::applier::perform(&mut opened.state, job).unwrap().0);
                inputs = reports.flatten().collect();
            }
        }
    }
}

fn member_with(events: &[&str], applied: usize) -> TempDir {
    let folder = TempDir::new().unwrap();
    append(&mut open(folder.path(), "a").unwrap(), events, applied);
    folder
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn cluster_of(opened: &Opened) -> (String, Vec<String>) {
    let membership = opened.state.membership();
    (membership.cluster.clone(), membership.continues.clone())
}

#[test]
fn a_survivor_applies_its_raft_log_and_begins_a_new_cluster() {
    let folder = member_with(&["one", "two", "three"], 1);
    let old = Identity::read(folder.path()).unwrap().unwrap();
    let survivor = survey(folder.path()).unwrap();
    assert_eq!((survivor.reach.extent.len, survivor.last.index - survivor.reach.log_id.index), (1, 2));
    assert_eq!((survivor.name.as_str(), survivor.members), ("a", 1));
    assert_eq!(Some(&survivor.cluster), old.cluster.as_ref());
    let (founding, reach) = recover(folder.path(), Some("why".into())).unwrap();
    assert_eq!(reach.extent.len, 3);
    let mut opened = open(folder.path(), "a").unwrap();
    assert_eq!(cluster_of(&opened), (founding.cluster, vec![survivor.cluster]));
    let acts = opened.state.log().acts(0, 9).unwrap();
    assert_eq!(acts.iter().map(|act| act.body.as_bytes()).collect::<Vec<_>>(), [b"why"]);
    assert_ne!(opened.identity.id, old.id);
    assert_ne!(opened.identity.cluster, old.cluster);
    assert_eq!(opened.state.membership().configuration.voters, [opened.identity.id]);
    assert_eq!(opened.state.applied(), reach.log_id);
    append(&mut opened, &["more"], 1);
    assert_eq!(opened.state.log().len(), 4);
}

#[test]
fn a_new_cluster_is_not_founded_without_the_act_that_records_it() {
    let folder = member_with(&["one", "two"], 2);
    let old = open(folder.path(), "a").unwrap().identity;
    for act in [String::new(), "x".repeat(ActBody::MOST_BYTES + 1)] {
        let refused = recover(folder.path(), Some(act.clone())).unwrap_err().to_string();
        assert!(refused.contains("expected an act of 1 to 65536 bytes"), "{refused}");
        let empty = TempDir::new().unwrap();
        let mut progress = |_| ControlFlow::<()>::Continue(());
        let refused = restore(&[], empty.path(), Some(act), &mut progress).unwrap_err().to_string();
        assert!(refused.contains("expected an act of 1 to 65536 bytes"), "{refused}");
        assert_eq!(fs::read_dir(empty.path()).unwrap().count(), 0);
    }
    assert_eq!(open(folder.path(), "a").unwrap().identity, old);
    // A file that was changed by hand is not obeyed either.
    let mut founding = Founding::draw(Cause::Recovered, Some("why".into())).unwrap();
    founding.act = Some(String::new());
    founding.write(folder.path()).unwrap();
    assert!(open(folder.path(), "a").unwrap_err().to_string().contains("FOUNDING is damaged"));
}

#[test]
fn a_recovery_that_was_interrupted_anywhere_is_finished_by_the_next_start() {
    let folder = member_with(&["one", "two"], 1);
    let (path, at) = (folder.path(), TempDir::new().unwrap());
    let before = at.path().join("before");
    copy(path, &before);
    let founding = Founding::draw(Cause::Recovered, None).unwrap();
    founding.write(path).unwrap();
    let noted = at.path().join("noted");
    copy(path, &noted);
    recover(path, None).unwrap();
    for step in ["only noted", "founded in the log", "and in the Raft log", "not forgotten"] {
        let state = at.path().join(step);
        copy(if step == "only noted" { &noted } else { path }, &state);
        if step == "founded in the log" {
            fs::remove_dir_all(state.join("raft")).unwrap();
            copy(&before.join("raft"), &state.join("raft"));
        }
        if step != "not forgotten" {
            fs::copy(before.join("MEMBER"), state.join("MEMBER")).unwrap();
        }
        founding.write(&state).unwrap();
        for _ in 0..2 {
            let mut opened = open(&state, "a").unwrap();
            assert_eq!((opened.identity.id, cluster_of(&opened).0), (founding.id, founding.cluster.clone()), "{step}");
            assert_eq!(cluster_of(&opened).1.len(), 1, "{step}");
            append(&mut opened, &["more"], 1);
        }
        assert_eq!(open(&state, "a").unwrap().state.log().len(), 4, "{step}");
        assert!(!state.join("FOUNDING").exists());
    }
}

#[test]
fn a_folder_of_no_member_or_in_use_is_not_recovered() {
    let folder = TempDir::new().unwrap();
    assert!(recover(folder.path(), None).unwrap_err().to_string().contains("found no file MEMBER"));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    let joining = TempDir::new().unwrap();
    drop(open_as(joining.path(), "a", Beginning::Join).unwrap());
    assert!(recover(joining.path(), None).unwrap_err().to_string().contains("not a member of any cluster"));
    let used = member_with(&["one"], 1);
    let _opened = open(used.path(), "a").unwrap();
    assert!(matches!(recover(used.path(), None), Err(FolderError::Log(LogError::Locked { .. }))));
    assert!(!used.path().join("FOUNDING").exists());
}

#[test]
fn a_member_whose_raft_log_is_lost_can_be_recovered() {
    let folder = member_with(&["one"], 1);
    fs::remove_dir_all(folder.path().join("raft")).unwrap();
    assert!(open(folder.path(), "a").unwrap_err().to_string().contains("Raft log of a is missing"));
    assert_eq!(recover(folder.path(), None).unwrap().1.extent.len, 1);
    assert_eq!(open(folder.path(), "a").unwrap().state.log().len(), 1);
}

#[test]
fn a_damaged_founding_is_an_error() {
    let folder = member_with(&["one"], 1);
    for text in ["", "{}", r#"{"format":2,"cause":"restored","id":1,"cluster":"c"}"#] {
        fs::write(folder.path().join("FOUNDING"), text).unwrap();
        assert!(open(folder.path(), "a").unwrap_err().to_string().contains("FOUNDING"));
    }
}

fn backup_of(opened: &Opened, path: &Path) {
    let origin = Origin { log: "log".into(), node_id: "a".into(), software: "1".into(), created_s: 1 };
    let log = opened.state.log();
    let mut file = BackupFile::open(path).unwrap();
    file.write(&beginning(log, &Header { start: Reach::default(), base: None, origin }).unwrap()).unwrap();
    while !file.is_whole() {
        file.write(&continuation(log, file.cursor().unwrap(), 1, None).unwrap()).unwrap();
    }
    file.finish(path, path).unwrap();
}

fn go_on(_: u64) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

#[test]
fn a_restored_folder_begins_a_new_cluster_under_any_name_and_joins_none() {
    let folder = member_with(&["one", "two"], 2);
    let at = TempDir::new().unwrap();
    let (paths, data) = ([at.path().join("1")], at.path().join("data"));
    let opened = open(folder.path(), "a").unwrap();
    let next = LogId { index: opened.state.applied().index + 1, ..opened.state.applied() };
    opened.state.log().apply_act(next, ActBody::new(b"before".to_vec()).unwrap()).unwrap();
    backup_of(&opened, &paths[0]);
    assert!(verify(&paths, &mut go_on).unwrap().is_continue());
    let restored = restore(&paths, &data, Some("restored".into()), &mut go_on).unwrap().continue_value().unwrap();
    assert_eq!(restored.reach.extent.len, 2);
    let refused = open_as(&data, "b", Beginning::Join).unwrap_err().to_string();
    assert!(refused.contains("holds 2 events of its own"), "{refused}");
    let mut new = open(&data, "b").unwrap();
    assert_eq!(cluster_of(&new), (restored.founding.cluster, vec![opened.state.membership().cluster.clone()]));
    assert_eq!((new.identity.id, new.identity.is_joining), (restored.founding.id, false));
    let acts = new.state.log().acts(0, 9).unwrap();
    assert_eq!(acts.iter().map(|act| act.body.as_bytes()).collect::<Vec<_>>(), [b"before".as_slice(), b"restored"]);
    append(&mut new, &["three"], 1);
    assert_eq!(new.state.log().len(), 3);
    assert!(new.state.applied().term > opened.state.applied().term);
}

#[test]
fn a_backup_with_a_membership_that_cannot_be_read_is_not_restored() {
    let log = Log::in_memory().unwrap();
    let members = qed_core::applied::Members { log_id: LogId { index: 1, term: 1 }, bytes: b"no membership".to_vec() };
    log.apply_members(&members, None).unwrap();
    let at = TempDir::new().unwrap();
    let (path, data) = (at.path().join("1"), at.path().join("data"));
    let origin = Origin { log: "log".into(), node_id: "a".into(), software: "1".into(), created_s: 1 };
    let mut file = BackupFile::open(&path).unwrap();
    file.write(&beginning(&log, &Header { start: Reach::default(), base: None, origin }).unwrap()).unwrap();
    file.write(&continuation(&log, file.cursor().unwrap(), 1, None).unwrap()).unwrap();
    file.finish(&path, &path).unwrap();
    let paths = [path];
    assert!(verify(&paths, &mut go_on).unwrap_err().to_string().contains("membership of entry 1 cannot be read"));
    assert!(restore(&paths, &data, Some("restored".into()), &mut go_on).is_err());
    assert_eq!(fs::read_dir(&data).unwrap().count(), 0);
}

#[test]
fn a_restoration_can_be_stopped_and_leaves_the_folder_empty() {
    let folder = member_with(&["one", "two"], 2);
    let at = TempDir::new().unwrap();
    let (paths, data) = ([at.path().join("1")], at.path().join("data"));
    backup_of(&open(folder.path(), "a").unwrap(), &paths[0]);
    assert_eq!(
        restore(&paths, &data, Some("restored".into()), &mut |_| ControlFlow::Break("stop")).unwrap().break_value(),
        Some("stop")
    );
    assert_eq!(fs::read_dir(&data).unwrap().count(), 0);
    assert_eq!(verify(&paths, &mut |_| ControlFlow::Break("stop")).unwrap().break_value(), Some("stop"));
}
