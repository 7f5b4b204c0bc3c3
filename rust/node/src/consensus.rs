//! Raft as a value: no clock, no thread, no socket, no disk.
//!
//! The owner of a [`Consensus`] passes in ticks and messages, and then reads [`Output`]s from it until there are no more. An output
//! that asks for a frame to be saved must be answered by [`Consensus::saved`] before anything else; only then are the answers and
//! requests of that step output, so a member promises nothing that a crash could undo. A leader's messages are no promises, and are
//! output with the frame. This is the loop of the crate `raft` (etcd's "ready"), with one order of events instead of several.
//!
//! Committed entries are output in order, each once. A change of configuration is output only when everything before it has been
//! applied, together with the configuration that results from it.
//!
//! A snapshot, in the sense of Raft, is only a log id and a configuration here. A member that receives one first fetches the missing
//! part of the state from the sender, in pages ([`qed_core::page`]), and steps the message afterwards. Its state may thus be ahead of
//! its Raft log, never behind it.

use std::collections::VecDeque;

use prost::Message as _;
use qed_core::log_id::LogId;
use raft::eraftpb::{
    ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2, ConfState, Entry, EntryType, HardState,
    Message, MessageType,
};
use raft::{Config, ProgressState, RawNode, Ready, SnapshotStatus, StateRole};

use crate::liveness::Liveness;
use crate::member_id::MemberId;
use crate::message_check::{InvalidMessage, check_message, furthest_term, reached_term};
use crate::notice::Notice;
use crate::raftlog::RaftLog;
use crate::roll_call::{Marks, RollCall, promoted_after};
use crate::wal::{Bounds, Frame, Recovered};

mod promises;

/// The settings of one member.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Its number, which is never reused: a member that has lost its disk returns under another.
    pub id: MemberId,
    /// Ticks without a leader before it starts an election: a random number from this to twice as many.
    pub election_ticks: usize,
    /// Ticks of silence after which a leader presumes a member dead.
    pub dead_ticks: usize,
    /// Ticks between heartbeats of a leader.
    pub heartbeat_ticks: usize,
    /// Ticks after a start for which it waits until the other voters say what they remember of it; `None` if it waits for all of
    /// them.
    pub patience_ticks: Option<usize>,
    /// Seed of the random election time-outs.
    pub seed: u64,
    /// Whether it holds a pre-vote before an election, so that a member that was cut off does not depose a leader.
    pub pre_vote: bool,
    /// Whether a leader without contact to a majority steps down, and a member with contact to a leader votes for no other.
    pub check_quorum: bool,
    /// Entries that are kept for members that lag, in bytes; a member that lags further fetches pages.
    pub kept_bytes: usize,
}

/// Limit on the committed entries that are being applied, in bytes; more wait.
const APPLYING_BYTES: usize = 16 << 20;
/// Default of [`Settings::kept_bytes`].
pub const KEPT_BYTES: usize = 16 << 20;
/// A learner this close to the end of the log may vote.
const PROMOTION_ENTRIES: u64 = 64;

/// An action for the owner of a [`Consensus`].
#[derive(Debug, Default)]
pub struct Output {
    /// Save this, and call [`Consensus::saved`] before anything else.
    pub save: Option<Save>,
    /// Send these; if there is something to save, before that or meanwhile.
    pub messages: Vec<Message>,
    /// Send these, each to a member.
    pub notices: Vec<(MemberId, Notice)>,
    /// Apply these, in order, and report it by [`Consensus::applied`].
    pub committed: Vec<Committed>,
    /// Reads that may be answered once the state is at the index.
    pub reads: Vec<Read>,
}

/// Something to be made durable.
#[derive(Debug)]
pub struct Save {
    /// The frame to append to the Raft log.
    pub frame: Frame,
    /// Whether the state must first be synced up to the frame's bounds: afterwards the Raft log cannot restore it.
    pub needs_state: bool,
}

/// A committed entry.
#[derive(Debug, Clone, PartialEq)]
pub struct Committed {
    /// Its position in the Raft log.
    pub log_id: LogId,
    /// The proposed bytes; empty for an entry that only Raft needs.
    pub data: Vec<u8>,
    /// The configuration from here on, if the entry changes it.
    pub conf_state: Option<ConfState>,
}

/// A linearizable read: everything acknowledged before it was requested is at or below `index`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    /// The context of the request.
    pub context: Vec<u8>,
    /// The entry that must be applied first.
    pub index: u64,
}

/// The leader, as far as this member knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Role {
    /// The leader's id, if one is known.
    pub leader: Option<MemberId>,
    /// The term.
    pub term: u64,
    /// Whether this member is the leader.
    pub is_leader: bool,
}

/// Why a call was refused. Nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Only a leader that is not handing over can do this.
    #[error("this member is not the leader")]
    NotLeader,
    /// A change of membership is under way.
    #[error("another change of membership is under way")]
    Busy,
    /// No correct member sends this message.
    #[error(transparent)]
    InvalidMessage(#[from] InvalidMessage),
    /// Raft refused it.
    #[error("refused by Raft: {0}")]
    Raft(String),
}

/// One member's part in Raft.
pub struct Consensus {
    settings: Settings,
    raw: RawNode<RaftLog>,
    /// The step whose frame is being saved.
    saving: Option<Ready>,
    /// Committed entries that have not been output yet.
    waiting: VecDeque<Entry>,
    /// Messages, notices and reads that have not been output yet.
    messages: Vec<Message>,
    notices: Vec<(MemberId, Notice)>,
    reads: Vec<Read>,
    /// The last entry that has been output.
    released: u64,
    /// The last entry that is applied to the state.
    applied: u64,
    /// Sizes of the entries in between, in order, and their sum.
    applying: VecDeque<(u64, usize)>,
    applying_bytes: usize,
    /// A snapshot whose state is being fetched.
    pending_snapshot: Option<Message>,
    liveness: Liveness,
    roll_call: RollCall,
    marks: Marks,
}

impl std::fmt::Debug for Consensus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (role, released, applied) = (self.role(), self.released, self.applied);
        f.debug_struct("Consensus")
            .field("role", &role)
            .field("released", &released)
            .field("applied", &applied)
            .field("roll_call", &self.roll_call)
            .finish_non_exhaustive()
    }
}

impl Consensus {
    /// Return a member that continues from what was recovered (and reconciled), with its state at `applied` and the configuration
    /// there.
    ///
    /// # Errors
    ///
    /// The error of the crate `raft` if the settings or the log are invalid.
    pub fn new(
        settings: Settings,
        recovered: Recovered,
        applied: LogId,
        conf_state: ConfState,
    ) -> Result<Self, Refusal> {
        let config = Config {
            id: settings.id.get(),
            election_tick: settings.election_ticks,
            heartbeat_tick: settings.heartbeat_ticks,
            applied: applied.index,
            check_quorum: settings.check_quorum,
            pre_vote: settings.pre_vote,
            // The crate's default of 0 means one entry a message.
            max_size_per_msg: 1 << 20,
            // A member that does not answer costs the leader at most this many messages in memory.
            max_inflight_msgs: 64,
            max_uncommitted_size: 256 << 20,
            max_committed_size_per_ready: APPLYING_BYTES as u64,
            ..Config::default()
        };
        let is_new = recovered == Recovered::default() && applied == LogId::default();
        let promoted = promoted_after(applied.index, &recovered.entries);
        let log = RaftLog::new(recovered, applied, conf_state);
        let silent = slog::Logger::root(slog::Discard, slog::o!());
        let raw = RawNode::new(&config, log, &silent).map_err(|error| Refusal::Raft(error.to_string()))?;
        let mut consensus = Self {
            settings,
            raw,
            saving: None,
            waiting: VecDeque::new(),
            messages: Vec::new(),
            notices: Vec::new(),
            reads: Vec::new(),
            released: applied.index,
            applied: applied.index,
            applying: VecDeque::new(),
            applying_bytes: 0,
            pending_snapshot: None,
            liveness: Liveness::new(settings.election_ticks, settings.dead_ticks),
            roll_call: RollCall::needless(settings.seed),
            marks: Marks::default(),
        };
        if consensus.raw.raft.prs().conf().to_conf_state().voters == [settings.id.get()] && promoted.is_empty() {
            // A single voter need not wait for an election time-out.
            consensus.raw.campaign().map_err(|error| Refusal::Raft(error.to_string()))?;
        } else if !is_new {
            consensus.roll_call =
                RollCall::begin(settings.seed, consensus.position(), settings.patience_ticks, promoted);
            consensus.learn_voters(applied.index);
            consensus.ask();
        }
        consensus.draw_timeout();
        Ok(consensus)
    }

    /// Return the leader, as far as it is known.
    #[must_use]
    pub fn role(&self) -> Role {
        let raft = &self.raw.raft;
        Role { leader: MemberId::new(raft.leader_id), term: raft.term, is_leader: raft.state == StateRole::Leader }
    }

    /// Return the log, including the frame that is being saved.
    #[must_use]
    pub fn log(&self) -> &RaftLog {
        self.raw.store()
    }

    /// Return the last entry that is known to be committed.
    #[must_use]
    pub fn commit_index(&self) -> u64 {
        self.raw.raft.raft_log.committed
    }

    /// Return the last entry that the member is known to hold, if this member is the leader.
    #[must_use]
    pub fn matched(&self, id: MemberId) -> Option<u64> {
        self.role().is_leader.then(|| self.raw.raft.prs().get(id.get()).map(|progress| progress.matched)).flatten()
    }

    /// Return how many ticks ago a member sent its last message, if it has sent one.
    #[must_use]
    pub fn silence(&self, id: MemberId) -> Option<usize> {
        self.liveness.silence(id)
    }

    /// Return whether a member has sent a message within the last election time-out.
    #[must_use]
    pub fn is_active(&self, id: MemberId) -> bool {
        self.liveness.is_active(id)
    }

    /// Return whether this member leads, and has received nothing from another for an election time-out.
    #[must_use]
    pub fn is_silent(&self, id: MemberId) -> bool {
        id != self.settings.id && self.liveness.is_silent(id)
    }

    /// Return whether this member leads, and has received nothing from another for so long that it presumes it dead.
    #[must_use]
    pub fn is_presumed_dead(&self, id: MemberId) -> bool {
        id != self.settings.id && self.liveness.is_presumed_dead(id)
    }

    /// Let a tick pass.
    pub fn tick(&mut self) {
        if self.roll_call.is_asking() {
            self.tick_asking();
        } else if self.roll_call.floor().is_some() {
            self.tick_behind();
        } else {
            self.raw.tick();
        }
        let Role { term, is_leader, .. } = self.role();
        self.liveness.tick(is_leader.then_some(term));
        if is_leader {
            self.settle_configuration();
            self.repeat_snapshots();
        }
        self.draw_timeout();
    }

    /// Process a message from another member.
    ///
    /// # Errors
    ///
    /// [`Refusal::InvalidMessage`] or [`Refusal::Raft`] if it is refused.
    pub fn step(&mut self, message: Message) -> Result<(), Refusal> {
        if self.roll_call.is_asking() {
            self.roll_call.note_contact();
            // As if it had been lost: what this member would answer, it may have promised not to.
            return Ok(());
        }
        if let Err(invalid) = check_message(&message, &self.raw.raft) {
            self.approach(&message);
            self.object(&message);
            return Err(invalid.into());
        }
        // A read names the member that asked for it, which need not be the one that sent it.
        let names_sender = message.msg_type() != MessageType::MsgReadIndex;
        if names_sender && self.raw.raft.prs().get(message.from).is_some() {
            self.liveness.hear(MemberId::of(message.from));
        }
        self.marks.note(&message);
        self.contest(&message);
        if self.roll_call.is_premature(&message) {
            return Ok(());
        }
        if message.msg_type() == MessageType::MsgSnapshot && self.must_fetch(&message) {
            // A delayed snapshot must not replace the latest one, which is the one that the leader waits for.
            let age = |message: &Message| (message.term, message.get_snapshot().get_metadata().index);
            let is_overtaken = self.pending_snapshot.as_ref().is_some_and(|pending| age(pending) > age(&message));
            if message.term >= self.raw.raft.term && !is_overtaken {
                self.reach(message.term);
                self.pending_snapshot = Some(message);
            }
            return Ok(());
        }
        self.end_snapshot(&message);
        // Under load, the next entry or the end of the one under way tells the others what is committed. A message for each would cost
        // them about as much as the entry.
        let is_followed =
            message.msg_type() == MessageType::MsgAppendResponse && message.index < self.raw.raft.raft_log.last_index();
        self.raw.skip_bcast_commit(is_followed);
        let stepped = self.raw.step(message);
        self.raw.skip_bcast_commit(false);
        self.draw_timeout();
        stepped.map_err(|error| Refusal::Raft(error.to_string()))
    }

    /// Approach the term of a message that is too far ahead, so that members that are further apart reach the same term.
    fn approach(&mut self, message: &Message) {
        let furthest = furthest_term(self.raw.raft.term);
        if message.to == self.settings.id.get() && message.term > furthest {
            self.reach(reached_term(message).min(furthest));
        }
    }

    fn reach(&mut self, term: u64) {
        if term > self.raw.raft.term {
            self.raw.raft.become_follower(term, 0);
            self.draw_timeout();
        }
    }

    /// Return the member to fetch pages from, and the log id that the pages must reach, if the state lags behind a snapshot.
    #[must_use]
    pub fn snapshot_source(&self) -> Option<(MemberId, LogId)> {
        let message = self.pending_snapshot.as_ref()?;
        let metadata = message.get_snapshot().get_metadata();
        Some((MemberId::of(message.from), LogId { index: metadata.index, term: metadata.term }))
    }

    /// Note that pages have brought the state to `log_id`, with the configuration there if it changed.
    pub fn fetched(&mut self, log_id: LogId, conf_state: Option<ConfState>) {
        self.raw.mut_store().set_applied(log_id, conf_state);
        self.end_fetching(log_id);
    }

    /// Step the pending snapshot, if the state has reached it.
    fn end_fetching(&mut self, log_id: LogId) {
        if let Some(message) =
            self.pending_snapshot.take_if(|message| message.get_snapshot().get_metadata().index <= log_id.index)
        {
            // It may be out of date by now, which Raft checks.
            let _ = self.raw.step(message);
            self.draw_timeout();
        }
    }

    /// Return whether entries can be proposed here: this member must be a leader that is not handing over.
    #[must_use]
    pub fn can_propose(&self) -> bool {
        self.role().is_leader && self.raw.raft.lead_transferee.is_none()
    }

    /// Propose an entry, and return its log id if it is committed.
    ///
    /// # Errors
    ///
    /// [`Refusal::NotLeader`], [`Refusal::Raft`]: nothing was proposed.
    pub fn propose(&mut self, data: Vec<u8>) -> Result<LogId, Refusal> {
        if !self.can_propose() {
            return Err(Refusal::NotLeader);
        }
        self.raw.propose(Vec::new(), data).map_err(|error| Refusal::Raft(error.to_string()))?;
        Ok(LogId { index: self.raw.raft.raft_log.last_index(), term: self.raw.raft.term })
    }

    /// Propose a change of configuration; `context` becomes the data of the entry. Several changes are made at once, through a joint
    /// configuration.
    ///
    /// # Errors
    ///
    /// [`Refusal::NotLeader`], [`Refusal::Busy`], [`Refusal::Raft`]: nothing was proposed.
    pub fn propose_members(
        &mut self,
        changes: &[(ConfChangeType, MemberId)],
        context: Vec<u8>,
    ) -> Result<LogId, Refusal> {
        if !self.can_propose() {
            return Err(Refusal::NotLeader);
        }
        if self.raw.raft.has_pending_conf() || self.is_joint() {
            return Err(Refusal::Busy);
        }
        let single = |&(kind, id): &(ConfChangeType, MemberId)| {
            let mut change = ConfChangeSingle { node_id: id.get(), ..ConfChangeSingle::default() };
            change.set_change_type(kind);
            change
        };
        let mut change = ConfChangeV2 { context, ..ConfChangeV2::default() };
        change.set_changes(changes.iter().map(single).collect());
        let is_simple = changes.len() == 1;
        change.set_transition(if is_simple { ConfChangeTransition::Auto } else { ConfChangeTransition::Explicit });
        self.propose_change(change)
    }

    fn propose_change(&mut self, change: ConfChangeV2) -> Result<LogId, Refusal> {
        self.raw.propose_conf_change(Vec::new(), change).map_err(|error| Refusal::Raft(error.to_string()))?;
        Ok(LogId { index: self.raw.raft.raft_log.last_index(), term: self.raw.raft.term })
    }

    /// Request a linearizable read under `context`, which must never be reused. The read is output later, unless the request is lost
    /// on the way to the leader, or reaches a leader that has not committed anything in its term yet: then request it again. Return
    /// false if nothing was requested, because this member is itself such a leader.
    pub fn read(&mut self, context: Vec<u8>) -> bool {
        if self.role().is_leader && !self.raw.raft.commit_to_current_term() {
            return false;
        }
        self.raw.read_index(context);
        true
    }

    /// Hand leadership over to `id`, or to the most up-to-date voter if it is not given. Return the chosen member, if there is one.
    pub fn transfer(&mut self, id: Option<MemberId>) -> Option<MemberId> {
        if !self.role().is_leader {
            return None;
        }
        let own = self.settings.id;
        let voters = members(&self.raw.raft.prs().conf().to_conf_state().voters);
        // A member that was asked and has not taken over may be down although it still counts as alive, so a second request is for
        // another one.
        let asked = self.raw.raft.lead_transferee.map(MemberId::of);
        let is_candidate = |candidate: &MemberId| {
            let is_other = *candidate != own && (id.is_some() || asked != Some(*candidate));
            is_other && self.is_active(*candidate)
        };
        let mut candidates: Vec<_> = voters.into_iter().filter(is_candidate).collect();
        candidates.sort_unstable_by_key(|&id| (std::cmp::Reverse(self.matched(id)), id));
        let to = id.map_or_else(|| candidates.first().copied(), |id| candidates.contains(&id).then_some(id))?;
        self.raw.transfer_leader(to.get());
        Some(to)
    }

    /// Note that messages to `id` may have been lost: its stream has ended.
    pub fn lost(&mut self, id: MemberId) {
        self.roll_call.note_contact();
        self.raw.report_unreachable(id.get());
        // Otherwise Raft would wait forever for the acknowledgement of a lost snapshot message.
        self.raw.report_snapshot(id.get(), SnapshotStatus::Failure);
    }

    /// Note that everything up to `log_id` is in the state. `conf_state` is the new configuration if the entry changed it.
    pub fn applied(&mut self, log_id: LogId, conf_state: Option<ConfState>) {
        self.applied = self.applied.max(log_id.index);
        while let Some((_, bytes)) = self.applying.pop_front_if(|(index, _)| *index <= log_id.index) {
            self.applying_bytes -= bytes;
        }
        self.raw.mut_store().set_applied(log_id, conf_state);
        if log_id.index > self.raw.raft.raft_log.applied {
            self.raw.advance_apply_to(log_id.index);
        }
        // Entries may arrive after all, from another member than the sender of the snapshot, which may be down.
        self.end_fetching(log_id);
    }

    /// Return the next action, if there is one.
    ///
    /// # Errors
    ///
    /// [`Refusal::Raft`] if a committed change of configuration cannot be read: the log is damaged, and the member must stop.
    pub fn output(&mut self) -> Result<Option<Output>, Refusal> {
        let mut output = Output::default();
        if self.saving.is_none() && self.raw.has_ready() {
            let mut ready = self.raw.ready();
            for state in ready.take_read_states() {
                self.reads.push(Read { context: state.request_ctx, index: state.index });
            }
            let last = self.raw.store().hard_state();
            let frame = frame_of(&ready, last);
            // A single voter leads a new term at once. If it sent entries before the term was saved, it could lead the same term again
            // after a crash, with other entries.
            let is_term_saved = (frame.hard_state.term, frame.hard_state.vote) == (last.term, last.vote);
            let of_leader = ready.take_messages();
            let may_go_early = !of_leader.is_empty() && is_term_saved;
            self.messages.extend(of_leader);
            self.messages.extend(ready.take_persisted_messages());
            self.waiting.extend(ready.take_committed_entries());
            let must_save = ready.must_sync() || frame.bounds.is_some();
            // A commit index alone is saved with the next frame.
            let needs_state = frame.bounds.is_some();
            self.raw.mut_store().apply(&frame);
            self.saving = Some(ready);
            if must_save {
                output.save = Some(Save { frame, needs_state });
                if may_go_early {
                    std::mem::swap(&mut output.messages, &mut self.messages);
                }
                return Ok(Some(output));
            }
            self.saved();
        }
        std::mem::swap(&mut output.messages, &mut self.messages);
        std::mem::swap(&mut output.notices, &mut self.notices);
        std::mem::swap(&mut output.reads, &mut self.reads);
        output.committed = self.release()?;
        let is_empty = output.messages.is_empty() && output.notices.is_empty();
        let is_empty = is_empty && output.reads.is_empty() && output.committed.is_empty();
        Ok((!is_empty || self.raw.has_ready()).then_some(output))
    }

    /// Note that the frame of the last output is durable.
    pub fn saved(&mut self) {
        let Some(ready) = self.saving.take() else { return };
        let snapshot = ready.snapshot().get_metadata().index;
        let mut light = self.raw.advance_append(ready);
        if snapshot > 0 {
            self.released = self.released.max(snapshot);
            self.waiting.retain(|entry| entry.index > snapshot);
            self.applied = self.applied.max(snapshot);
            self.raw.advance_apply_to(snapshot);
        }
        self.messages.extend(light.take_messages());
        self.waiting.extend(light.take_committed_entries());
        if light.commit_index().is_some() {
            let hard_state = self.raw.raft.hard_state();
            self.raw.mut_store().apply(&Frame { hard_state, ..Frame::default() });
        }
        self.roll_call.catch_up(self.position().last);
        self.draw_timeout();
    }

    /// Return the log id up to which entries can be deleted, if there are enough of them to be worth it. The state must be synced up
    /// to there first.
    #[must_use]
    pub fn forgettable(&self) -> Option<LogId> {
        let kept_bytes = self.settings.kept_bytes;
        if self.saving.is_some() || self.log().entries_bytes() <= 2 * kept_bytes {
            return None;
        }
        self.log().log_id_before_last(kept_bytes, self.applied.min(self.raw.raft.raft_log.applied))
    }

    /// Delete the entries up to `log_id` from memory; return the frame that makes this durable, or None if they were deleted before.
    pub fn forget(&mut self, log_id: LogId) -> Option<Frame> {
        if log_id.index <= self.log().bounds().index {
            return None;
        }
        let bounds = Some(Bounds { index: log_id.index, term: log_id.term, is_reset: false });
        let hard_state = self.raw.store().hard_state().clone();
        let frame = Frame { hard_state, bounds, entries: Vec::new() };
        self.raw.mut_store().apply(&frame);
        Some(frame)
    }

    /// Output committed entries: up to a change of configuration that has to wait, and up to the limit on entries being applied.
    fn release(&mut self) -> Result<Vec<Committed>, Refusal> {
        let mut released = Vec::new();
        while let Some(entry) = self.waiting.front() {
            let is_change = entry.entry_type() != EntryType::EntryNormal;
            if self.applying_bytes >= APPLYING_BYTES || (is_change && self.applied < self.released) {
                break;
            }
            let Some(entry) = self.waiting.pop_front() else { break };
            self.released = entry.index;
            self.applying.push_back((entry.index, entry.data.len()));
            self.applying_bytes += entry.data.len();
            released.push(self.released_entry(entry)?);
        }
        Ok(released)
    }

    fn released_entry(&mut self, mut entry: Entry) -> Result<Committed, Refusal> {
        let log_id = LogId { index: entry.index, term: entry.term };
        if entry.entry_type() == EntryType::EntryNormal {
            return Ok(Committed { log_id, data: entry.take_data(), conf_state: None });
        }
        let change = ConfChangeV2::decode(entry.data.as_slice());
        let change = change.map_err(|error| Refusal::Raft(format!("entry {}: {error}", log_id.index)))?;
        // All members skip a change that cannot be made, such as removing the last voter: all have the same configuration here.
        let conf_state = self.raw.apply_conf_change(&change).ok();
        let conf_state = Some(conf_state.unwrap_or_else(|| self.raw.raft.prs().conf().to_conf_state()));
        self.liveness.set_members(self.raw.raft.prs().iter().map(|(&id, _)| MemberId::of(id)));
        self.learn_voters(entry.index);
        if self.role().is_leader && self.raw.raft.prs().get(self.settings.id.get()).is_none() {
            // Leadership was handed to a member that was being removed. The crate panics if such a leader commits anything.
            self.raw.raft.become_follower(self.raw.raft.term, 0);
        }
        Ok(Committed { log_id, data: change.context, conf_state })
    }

    /// As a leader, leave a joint configuration, and make voters of learners that have caught up.
    fn settle_configuration(&mut self) {
        if self.raw.raft.has_pending_conf() || self.raw.raft.lead_transferee.is_some() {
            return;
        }
        if self.is_joint() {
            // If it is refused, the next tick tries again.
            let _ = self.propose_change(ConfChangeV2::default());
            return;
        }
        let enough = self.raw.raft.raft_log.last_index().saturating_sub(PROMOTION_ENTRIES);
        let learners = members(&self.raw.raft.prs().conf().to_conf_state().learners);
        // A learner that has acknowledged nothing has `matched == 0`; in a short log that would already count as caught up.
        let is_ready =
            |&id: &MemberId| self.is_active(id) && self.matched(id).is_some_and(|index| index > 0 && index >= enough);
        if let Some(id) = learners.into_iter().filter(is_ready).min() {
            let _ = self.propose_members(&[(ConfChangeType::AddNode, id)], Vec::new());
        }
    }

    fn is_joint(&self) -> bool {
        !self.raw.raft.prs().conf().to_conf_state().voters_outgoing.is_empty()
    }

    fn must_fetch(&self, message: &Message) -> bool {
        message.get_snapshot().get_metadata().index > self.log().applied().index
    }

    /// Send snapshots again that have not been acknowledged for a long time: the message may have been lost although its stream is
    /// still open, and the crate would wait forever.
    fn repeat_snapshots(&mut self) {
        let receivers = self.raw.raft.prs().iter().filter(|(_, progress)| progress.state == ProgressState::Snapshot);
        for id in self.liveness.overdue(receivers.map(|(&id, _)| MemberId::of(id))) {
            self.raw.report_snapshot(id.get(), SnapshotStatus::Failure);
        }
    }

    /// Infer from the answer to a heartbeat that a member holds the snapshot it was sent. The crate waits forever for the
    /// acknowledgement, which may have been lost with its stream, or ignored because it arrived after one of a later entry.
    fn end_snapshot(&mut self, message: &Message) {
        let Some(progress) = self.raw.raft.prs().get(message.from) else { return };
        let is_there = message.msg_type() == MessageType::MsgHeartbeatResponse
            && message.term == self.raw.raft.term
            && progress.state == ProgressState::Snapshot
            && progress.matched.max(message.commit) >= progress.pending_snapshot;
        if is_there {
            self.raw.report_snapshot(message.from, SnapshotStatus::Finish);
        }
    }

    /// Replace the crate's own random numbers, which no simulation could repeat. Each term has its own time-out, so that two members
    /// that compete in one election do not do so in the next.
    fn draw_timeout(&mut self) {
        let Settings { id, election_ticks, seed, .. } = self.settings;
        let drawn = mix(seed ^ mix(id.get() ^ mix(self.raw.raft.term)));
        #[expect(clippy::cast_possible_truncation, reason = "less than `election_ticks`, which is a usize")]
        let spread = (drawn % election_ticks as u64) as usize;
        self.raw.raft.set_randomized_election_timeout(election_ticks + spread);
    }
}

/// Return the frame of a step. Each frame carries the whole hard state, so that the last one is enough.
fn frame_of(ready: &Ready, last: &HardState) -> Frame {
    let metadata = ready.snapshot().get_metadata();
    let reset = || Bounds { index: metadata.index, term: metadata.term, is_reset: true };
    Frame {
        hard_state: ready.hs().unwrap_or(last).clone(),
        bounds: (metadata.index > 0).then(reset),
        entries: ready.entries().clone(),
    }
}

/// Return the members with these numbers of a configuration.
fn members(numbers: &[u64]) -> Vec<MemberId> {
    numbers.iter().copied().map(MemberId::of).collect()
}

/// SplitMix64 (Steele, Lea and Flood 2014): deterministic, and similar inputs give unrelated outputs.
const fn mix(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests;
