//! What must be true at every step, whatever machines, disks and networks do: Figure 3 of the Raft paper, and the guarantees of a log
//! of events.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::ControlFlow;

use qed_core::acts::{ActBody, ChainEnd};
use qed_core::log::{Added, Log};
use qed_core::page::Extent;
use qed_core::proof::Snapshot;
use qed_core::verify::verify_incremental;
use qed_node::member::Member;
use qed_node::member_id::MemberId;
use qed_node::state::State;
use raft::eraftpb::{Message, MessageType};
use raft::{GetEntriesContext, Storage as _};

use crate::disk::Disk;
use crate::random::mixed;

/// A broken invariant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The name of the invariant.
    pub invariant: &'static str,
    /// What was found.
    pub found: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.invariant, self.found)
    }
}

/// Return a violation unless a condition is true.
pub fn require(is_true: bool, invariant: &'static str, found: impl FnOnce() -> String) -> Result<(), Violation> {
    if is_true { Ok(()) } else { Err(Violation { invariant, found: found() }) }
}

/// What has been observed of one member.
#[derive(Debug, Clone, Default)]
struct View {
    /// The greatest term that it has taken part in, including before restarts.
    term: u64,
    commit: u64,
    applied: u64,
    /// First index, last index and last term of its log when it was last checked.
    ends: (u64, u64, u64),
    /// How many of its events were compared with the acknowledged ones.
    kept: u64,
    /// The term in which it is leader, and the index up to which its log was checked for committed entries.
    complete: (u64, u64),
}

/// A committed entry.
#[derive(Debug, Clone, Copy)]
struct Chosen {
    term: u64,
    /// The lowest term of any member that knows it is committed.
    known_in: u64,
}

/// Everything observed so far, in all members.
#[derive(Debug, Clone, Default)]
pub struct Invariants {
    views: BTreeMap<u64, View>,
    leaders: BTreeMap<u64, u64>,
    votes: BTreeMap<(u64, u64), u64>,
    entries: BTreeMap<(u64, u64), (u64, u64)>,
    chosen: BTreeMap<u64, Chosen>,
    extents: BTreeMap<u64, Extent>,
    states: BTreeMap<u64, (u64, Extent, Vec<u8>, ChainEnd)>,
    acknowledged: BTreeMap<u64, Snapshot>,
    /// The names of founders, and of members that were admitted.
    admitted: BTreeSet<String>,
    /// Acts that were acknowledged.
    acts: Vec<ActBody>,
    /// Versions acknowledged in this step.
    fresh: Vec<u64>,
    /// Versions assigned to requests that had to add their events.
    given: BTreeSet<u64>,
}

impl Invariants {
    /// Check a message that a member sends.
    ///
    /// *Votes are remembered*: a member votes for one candidate per term, including itself, however often it restarts.
    pub fn sent(&mut self, message: &Message) -> Result<(), Violation> {
        let &Message { from, to, term, .. } = message;
        let candidate = match message.msg_type() {
            MessageType::MsgRequestVote => from,
            MessageType::MsgRequestVoteResponse if !message.reject => to,
            _ => return Ok(()),
        };
        let known = *self.votes.entry((from, term)).or_insert(candidate);
        require(known == candidate, "votes are remembered", || {
            format!("in term {term} member {from} voted for both {known} and {candidate}")
        })
    }

    /// Check a member after a turn.
    pub fn turned(&mut self, id: u64, member: &Member<Disk>) -> Result<(), Violation> {
        let consensus = member.consensus();
        let (role, commit) = (consensus.role(), consensus.commit_index());
        let view = self.views.entry(id).or_default();
        require(role.term >= view.term, "terms only grow", || {
            format!("member {id} is in term {} after {}", role.term, view.term)
        })?;
        require(commit >= view.commit, "commit indices only grow", || {
            format!("member {id} has committed {commit} after {}", view.commit)
        })?;
        let known = std::mem::replace(&mut view.commit, commit);
        view.term = role.term;
        if let Some(seen) = role.leader.map(MemberId::get) {
            let leader = *self.leaders.entry(role.term).or_insert(seen);
            require(leader == seen, "one leader a term", || {
                format!("term {} has leader {leader}, but member {id} follows {seen}", role.term)
            })?;
        }
        self.match_log(id, member)?;
        self.commit(id, known, member)?;
        if role.is_leader { self.complete(id, member) } else { Ok(()) }
    }

    /// *Log matching*: entries with the same index and term are equal, and so is everything before them.
    fn match_log(&mut self, id: u64, member: &Member<Disk>) -> Result<(), Violation> {
        let log = member.consensus().log();
        let (first, last) = (log.first_index().unwrap(), log.last_index().unwrap());
        let ends = (first, last, log.term(last).unwrap());
        let view = self.views.entry(id).or_default();
        if std::mem::replace(&mut view.ends, ends) == ends {
            return Ok(());
        }
        let mut previous = log.bounds().term;
        for entry in log.entries(first, last + 1, None, GetEntriesContext::empty(false)).unwrap() {
            let words =
                entry.data.chunks(8).map(|chunk| chunk.iter().fold(0, |word, &byte| word << 8 | u64::from(byte)));
            let content =
                words.fold(mixed(u64::from(entry.entry_type.unsigned_abs())), |sum, word| mixed(sum ^ mixed(word + 1)));
            let known = *self.entries.entry((entry.index, entry.term)).or_insert((content, previous));
            // The first entry after a snapshot that was not made from entries has no term before it.
            require(known == (content, previous), "logs match", || {
                format!("entry {} of term {} is different in member {id}", entry.index, entry.term)
            })?;
            previous = entry.term;
        }
        Ok(())
    }

    /// *State machine safety*: all members that know that an index is committed have the same entry at it.
    fn commit(&mut self, id: u64, known: u64, member: &Member<Disk>) -> Result<(), Violation> {
        let (consensus, log) = (member.consensus(), member.consensus().log());
        let known_in = consensus.role().term;
        let from = log.bounds().index.max(known + 1).max(1);
        for index in from..=consensus.commit_index() {
            let term = log.term(index).unwrap();
            let chosen = self.chosen.entry(index).or_insert(Chosen { term, known_in });
            require(chosen.term == term, "what is committed is committed everywhere", || {
                format!("entry {index} is of term {}, but of term {term} in member {id}", chosen.term)
            })?;
            chosen.known_in = chosen.known_in.min(known_in);
        }
        Ok(())
    }

    /// *Leader completeness*: an entry committed in one term is in the log of every leader of a later term.
    fn complete(&mut self, id: u64, member: &Member<Disk>) -> Result<(), Violation> {
        let (role, log) = (member.consensus().role(), member.consensus().log());
        let view = self.views.entry(id).or_default();
        if view.complete.0 != role.term {
            view.complete = (role.term, 0);
        }
        let from = view.complete.1.max(log.bounds().index) + 1;
        for (&index, chosen) in self.chosen.range(from..).filter(|(_, chosen)| chosen.known_in < role.term) {
            require(log.term(index).is_ok_and(|term| term == chosen.term), "leaders are complete", || {
                let Chosen { term, known_in } = chosen;
                format!(
                    "member {id} leads term {} without entry {index} of term {term}, committed in {known_in}",
                    role.term
                )
            })?;
            view.complete.1 = index;
        }
        Ok(())
    }

    /// Check a state after a job.
    ///
    /// *Equal roots at equal versions*, and *equal membership at equal applied index*, on all members.
    pub fn performed(&mut self, id: u64, state: &State) -> Result<(), Violation> {
        let applied = state.applied();
        let view = self.views.entry(id).or_default();
        let before = std::mem::replace(&mut view.applied, applied.index);
        require(applied.index >= before, "applied indices only grow", || {
            format!("member {id} has applied {} after {before}", applied.index)
        })?;
        let last = self.chosen.last_key_value().map_or(1, |(&index, _)| index);
        require(applied.index <= last, "only what is committed is applied", || {
            format!("member {id} has applied entry {}, but only entries up to {last} are committed", applied.index)
        })?;
        if let Some(chosen) = self.chosen.get(&applied.index) {
            require(chosen.term == applied.term, "what is applied is committed", || {
                format!("member {id} has applied {applied:?}, but term {} is committed", chosen.term)
            })?;
        }
        let extent = extent_of(state.log(), state.log().len())?;
        let known = *self.extents.entry(extent.len).or_insert(extent);
        require(known == extent, "equal roots at equal versions", || {
            format!("expected {known:?}, found {extent:?} in member {id}")
        })?;
        let now = (applied.term, extent, state.membership().to_bytes(), state.log().acts_end());
        let known = self.states.entry(applied.index).or_insert_with(|| now.clone());
        require(known.1 == now.1, "equal logs at equal indices", || {
            format!("member {id} has {} events at entry {}, another has {}", now.1.len, applied.index, known.1.len)
        })?;
        require(known.2 == now.2, "equal membership at equal indices", || {
            let [known, now] = [&known.2, &now.2].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
            format!("member {id} has {now} at entry {}, another has {known}", applied.index)
        })?;
        require(known.3 == now.3, "equal acts at equal indices", || {
            format!("the acts of member {id} end in {:?} at entry {}, not in {:?}", now.3, applied.index, known.3)
        })?;
        self.require_admitted(id, state)
    }

    /// *Voters were admitted*: the history says of each, except the founders, that it was.
    fn require_admitted(&mut self, id: u64, state: &State) -> Result<(), Violation> {
        let membership = state.membership();
        let voters = membership.configuration.voters.iter();
        let names = voters.filter_map(|voter| membership.members.get(voter)).map(|member| &member.name);
        let names: Vec<_> = names.filter(|name| !self.admitted.contains(*name)).cloned().collect();
        if names.is_empty() {
            return Ok(());
        }
        // The membership of a cluster that has just begun is that of its founders.
        let is_founding = state.applied().index == 1;
        let acts = state.log().acts(0, usize::MAX).map_err(broken)?;
        for name in names {
            let admits = format!("admits {name} ").into_bytes();
            let is_admitted = is_founding || acts.iter().any(|act| act.body.as_bytes().starts_with(&admits));
            require(is_admitted, "voters were admitted", || {
                format!("{name} votes in member {id}, but no act admits it")
            })?;
            self.admitted.insert(name);
        }
        Ok(())
    }

    /// Record that an act was acknowledged.
    pub fn acknowledge_act(&mut self, act: ActBody) {
        self.acts.push(act);
    }

    /// Check a member that has just started: it may have lost what was not durable, but not its term.
    pub fn started(&mut self, id: u64, member: &Member<Disk>, state: &State) -> Result<(), Violation> {
        let view = self.views.entry(id).or_default();
        (view.commit, view.applied, view.ends, view.complete, view.kept) = (0, 0, (0, 0, 0), (0, 0), 0);
        self.performed(id, state)?;
        self.turned(id, member)
    }

    /// Note that an old copy of a member's disk was put back: it has forgotten its term, but must keep its promises.
    pub fn rolled_back(&mut self, id: u64) {
        self.views.entry(id).or_default().term = 0;
        // Nobody else need know of an election that it started and could not win; the process that could have won it has ended.
        self.votes.retain(|&(voter, _), candidate| (voter, *candidate) != (id, id));
    }

    /// Return the number of different memberships that were in force.
    pub fn memberships(&self) -> u64 {
        self.states.values().map(|(_, _, membership, _)| membership).collect::<BTreeSet<_>>().len() as u64
    }

    /// Return the number of acknowledged events.
    pub fn acknowledged_len(&self) -> u64 {
        self.acknowledged.last_key_value().map_or(0, |(&version, _)| version + 1)
    }

    /// Record the answer to a request. *No version is acknowledged with two different contents, or to two requests that had to add
    /// their events.*
    pub fn acknowledge(&mut self, added: &Added, if_absent: bool) -> Result<(), Violation> {
        for snapshot in &added.snapshots {
            let version = snapshot.version;
            let known = *self.acknowledged.entry(version).or_insert(*snapshot);
            require(known == *snapshot, "what is acknowledged does not change", || {
                format!("version {version} was {known:?} and is now {snapshot:?}")
            })?;
            let extent = Extent {
                len: version + 1,
                history_digest: snapshot.history_digest,
                hyper_digest: snapshot.hyper_digest,
            };
            let known = *self.extents.entry(extent.len).or_insert(extent);
            require(known == extent, "what is acknowledged is in the logs", || {
                format!("version {version} was acknowledged with {extent:?}, but the logs have {known:?}")
            })?;
            self.fresh.push(version);
            require(if_absent || self.given.insert(version), "each version is assigned once", || {
                format!("version {version} was assigned to two requests")
            })?;
        }
        Ok(())
    }

    /// Check a member after a step: *nothing acknowledged is lost or changed*. Every event in its log must be the acknowledged one.
    /// All events acknowledged so far must be in the log of the latest leader, once it has applied an entry of its term. Other
    /// members may lag behind.
    pub fn keeps(&mut self, id: u64, member: &Member<Disk>, log: &Log) -> Result<(), Violation> {
        let (len, role) = (log.len(), member.consensus().role());
        let view = self.views.entry(id).or_default();
        let known = std::mem::replace(&mut view.kept, len);
        let grown = self.acknowledged.range(known.min(len)..len).map(|(&version, _)| version);
        let fresh = self.fresh.iter().copied().filter(|&version| version < known.min(len));
        for version in grown.chain(fresh) {
            self.require_version(id, log, version)?;
        }
        let is_last = self.leaders.last_key_value().is_some_and(|(&term, _)| term == role.term);
        let is_settled = role.is_leader && is_last && log.applied().term == role.term;
        require(!is_settled || len >= self.acknowledged_len(), "what is acknowledged is kept", || {
            let wanted = self.acknowledged_len();
            format!("member {id} leads term {} with {len} events, but {wanted} were acknowledged", role.term)
        })
    }

    /// Record that all members were checked after a step.
    pub fn end_step(&mut self) {
        self.fresh.clear();
    }

    fn require_version(&self, id: u64, log: &Log, version: u64) -> Result<(), Violation> {
        let (found, snapshot) = (log.snapshot(version), self.acknowledged.get(&version));
        require(found.as_ref().ok() == snapshot, "what is acknowledged is kept", || {
            format!("version {version} was acknowledged as {snapshot:?}, but member {id} has {found:?}")
        })
    }

    /// Check a member at the end, or its log as far as it goes: *nothing acknowledged is lost or changed*.
    pub fn require_kept(&self, id: u64, log: &Log, is_whole: bool) -> Result<(), Violation> {
        let to = if is_whole { u64::MAX } else { log.len() };
        for &version in self.acknowledged.range(..to).map(|(version, _)| version) {
            self.require_version(id, log, version)?;
        }
        let acts = log.acts(0, usize::MAX).map_err(broken)?;
        let lost = self.acts.iter().find(|&act| is_whole && acts.iter().all(|found| found.body != *act));
        require(lost.is_none(), "acts that are acknowledged are kept", || format!("member {id} lacks {lost:?}"))
    }

    /// *Each acknowledged snapshot extends the one before it*, shown by a proof.
    pub fn require_proven(&self, log: &Log) -> Result<(), Violation> {
        for (start, end) in self.acknowledged.values().zip(self.acknowledged.values().skip(1)) {
            let proof = log.prove_incremental(start.version, end.version).map_err(broken)?;
            verify_incremental(&proof, &start.history_root(), &end.history_root()).map_err(broken)?;
        }
        log.check(&mut |_| ControlFlow::<()>::Continue(())).map(drop).map_err(broken)
    }
}

fn extent_of(log: &Log, len: u64) -> Result<Extent, Violation> {
    log.extent_at(len).map_err(broken)
}

fn broken(error: impl fmt::Display) -> Violation {
    Violation { invariant: "what is acknowledged is proven", found: error.to_string() }
}
