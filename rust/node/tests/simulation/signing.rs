//! Signing on the machines, in the order that `qed.server.signing` and `qed.server.guard` keep: commit, apply, guard, self-check,
//! memory, signature, answer. There is a tick or more between any two steps, in which everything else goes on.
//!
//! The log, its tiles, the sign memory, signatures, receipts and their verification are real. Draws come from numbers of its own, so a
//! world without signing takes the course that it takes without this file.

use std::ops::Range;

use qed_core::hash::Digest;
use qed_core::log::{Added, Log};
use qed_core::tlog::checkpoint::Checkpoint;
use qed_core::tlog::merkle::TreeHead;
use qed_core::tlog::note::{Line, Note};
use qed_node::sign_memory::{Remembered, SignMemory};

use crate::counts::SignStep;
use crate::faults::Fault;
use crate::invariants::{Violation, require};
use crate::network::Parcel;
use crate::world::World;

/// Ticks between published checkpoints.
const INTERVAL_TICKS: u64 = 25;

/// What signs on a machine, while its process runs.
pub struct Signing {
    memory: Option<SignMemory>,
    /// The signed checkpoint that was in the data folder at the start.
    kept: Option<TreeHead>,
    published: Option<(TreeHead, Note)>,
    published_at: u64,
    /// The last term in which it has published something.
    published_in: Option<u64>,
    /// The last term in which the log was found to continue what was signed.
    open_in: Option<u64>,
    /// Why it signs nothing and accepts nothing until the next start.
    halted: Option<String>,
    /// The versions of which clients want receipts.
    wanted: Vec<Range<u64>>,
    round: Option<Round>,
    /// Whether a bit of the running tree has flipped.
    is_flipped: bool,
}

/// A checkpoint on its way from the tree to the clients.
struct Round {
    step: Step,
    checkpoint: Checkpoint,
    wanted: Vec<Range<u64>>,
    is_published: bool,
}

enum Step {
    Checked,
    Noted,
    Signed(Line),
}

impl Signing {
    fn new(memory: Option<SignMemory>, kept: Option<(TreeHead, Note)>) -> Self {
        Self {
            memory,
            kept: kept.as_ref().map(|(head, _)| *head),
            published: kept,
            published_at: 0,
            published_in: None,
            open_in: None,
            halted: None,
            wanted: Vec::new(),
            round: None,
            is_flipped: false,
        }
    }

    /// Return the newest checkpoint that it remembers outside the data folder.
    pub fn remembered(&self) -> Option<Remembered> {
        self.memory.as_ref().and_then(SignMemory::newest)
    }

    /// Return whether it has stopped signing.
    pub const fn is_halted(&self) -> bool {
        self.halted.is_some()
    }

    fn halt(&mut self, reason: String) {
        self.halted.get_or_insert(reason);
    }

    /// Compare the log with everything that is known to be signed: `Guard._compare` and `Guard._compare_kept`.
    fn compare(&mut self, log: &Log, fault: Fault) -> Result<(), String> {
        let Some(memory) = &mut self.memory else {
            self.halt("its sign memory is missing".into());
            return Ok(());
        };
        let remembered = memory.newest().filter(|_| fault != Fault::MemoryNotAsked);
        let remembered =
            remembered.map(|row| TreeHead::new(row.size, row.root)).transpose().map_err(|error| error.0)?;
        for known in remembered.iter().chain(&self.kept) {
            if !continues(log, known)? {
                let len = log.len();
                self.halt(format!("the log has {len} entries, and {} were signed", known.size()));
                return Ok(());
            }
        }
        if let Some(kept) = self.kept
            && memory.newest().is_none_or(|newest| newest.size < kept.size())
        {
            memory.note(row(&kept, 0)).map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// Return the head of the running tree.
    fn head(&self, log: &Log) -> Result<TreeHead, String> {
        let head = log.tree_head().map_err(|error| error.to_string())?;
        if !self.is_flipped || head.size() == 0 {
            return Ok(head);
        }
        let mut root = *head.root().as_bytes();
        root[0] ^= 1;
        TreeHead::new(head.size(), Digest::new(root)).map_err(|error| error.0)
    }
}

impl World {
    /// Let what signs on a machine start with its process.
    pub fn start_signing(&mut self, id: u64) -> Result<(), Violation> {
        if !self.weather.signing.is_on {
            return Ok(());
        }
        let (fault, now) = (self.fault, self.now);
        let Some(host) = self.hosts.get_mut(&id) else { return Ok(()) };
        let Some(process) = &mut host.process else { return Ok(()) };
        let log = process.state.log();
        let may_create = log.is_empty() || fault == Fault::NewMemoryTrusted;
        let memory = host.sign_disk.open(may_create).map_err(|error| stopped(id, &error))?;
        // Whatever an old copy holds, the log has signed it.
        let kept = host.disk.kept().and_then(|note| {
            let note = Note::parse(&note).ok()?;
            Some((self.signatures.endorsed(&note, now)?.head, note))
        });
        process.signing = Some(Signing::new(memory, kept));
        Ok(())
    }

    /// Note that a member has answered a client, who now wants a receipt.
    pub fn want_receipt(&mut self, id: u64, added: &Added) {
        let (Some(first), Some(last)) = (added.snapshots.first(), added.snapshots.last()) else { return };
        // Events that were in the log already may be anywhere.
        let are_consecutive = added.snapshots.windows(2).all(|pair| pair[0].version + 1 == pair[1].version);
        let signing = self.process(id).and_then(|process| process.signing.as_mut());
        if let Some(signing) = signing.filter(|_| are_consecutive) {
            signing.wanted.push(first.version..last.version + 1);
        }
    }

    /// Return whether a member may add events: not before it is known that its log continues what was signed.
    pub fn may_add(&mut self, id: u64) -> Result<bool, Violation> {
        let is_leader = self.hosts[&id].process.as_ref().is_some_and(|process| process.member.role().is_leader);
        if !self.weather.signing.is_on || !is_leader {
            return Ok(true);
        }
        self.is_open(id)
    }

    /// Return whether a member leads and may sign: `Guard.require`.
    fn is_open(&mut self, id: u64) -> Result<bool, Violation> {
        let fault = self.fault;
        let Some(process) = self.process(id) else { return Ok(false) };
        let role = process.member.role();
        let (log, applied) = (process.state.log().clone(), process.state.applied());
        let Some(signing) = &mut process.signing else { return Ok(false) };
        if signing.is_halted() || !role.is_leader || applied.term != role.term {
            return Ok(false);
        }
        if signing.open_in != Some(role.term) {
            signing.compare(&log, fault).map_err(|error| stopped(id, &error))?;
            if signing.is_halted() {
                self.counts.halts += 1;
                return Ok(false);
            }
            signing.open_in = Some(role.term);
        }
        Ok(true)
    }

    /// Let a machine take the next step of signing, or begin a round.
    pub fn sign(&mut self, id: u64) -> Result<(), Violation> {
        let weather = self.weather.signing;
        if !weather.is_on || !self.dice.is_hit(weather.diligence) {
            return Ok(());
        }
        let is_struck = self.dice.is_hit(weather.flips);
        let Some(process) = self.process(id) else { return Ok(()) };
        let (is_leader, has_unapplied) = (
            process.member.role().is_leader,
            process.member.consensus().commit_index() > process.state.applied().index,
        );
        let Some(signing) = &mut process.signing else { return Ok(()) };
        signing.is_flipped |= is_struck;
        let (is_idle, is_wanted) = (signing.round.is_none(), !signing.wanted.is_empty());
        if is_leader && is_idle {
            let step = if has_unapplied { SignStep::Committed } else { SignStep::Applied };
            if (has_unapplied || is_wanted) && self.is_crashed_at(id, step) {
                return Ok(());
            }
            return self.begin_round(id);
        }
        self.go_on(id)
    }

    /// Begin a round: everything up to the self-check.
    fn begin_round(&mut self, id: u64) -> Result<(), Violation> {
        if self.fault == Fault::SignBeforeCommit {
            return self.sign_early(id);
        }
        if !self.is_open(id)? {
            return Ok(());
        }
        let (now, fault) = (self.now, self.fault);
        let Some(process) = self.process(id) else { return Ok(()) };
        let (log, term) = (process.state.log().clone(), process.member.role().term);
        let Some(signing) = &mut process.signing else { return Ok(()) };
        let is_grown = signing.published.as_ref().is_none_or(|(head, _)| head.size() != log.len());
        let is_due = signing.published_at + INTERVAL_TICKS <= now;
        let is_published = is_due && (is_grown || signing.published_in != Some(term));
        let wanted = if is_published { Vec::new() } else { std::mem::take(&mut signing.wanted) };
        if !is_published && wanted.is_empty() {
            if is_due {
                self.give(id);
            }
            return Ok(());
        }
        let head = signing.head(&log).map_err(|error| stopped(id, &error))?;
        let is_noted = signing.remembered().is_some_and(|row| (row.size, row.root) == (head.size(), *head.root()));
        if fault != Fault::SelfCheckLeftOut && (is_published || !is_noted) {
            let stored = log.stored_tree_head_at(head.size()).map_err(|error| stopped(id, &error))?;
            if stored != head {
                signing.halt(format!(
                    "the tree in memory has the root {}, the stored tiles {}",
                    head.root(),
                    stored.root()
                ));
                self.counts.flips += 1;
                return Ok(());
            }
        }
        let checkpoint = self.signatures.checkpoint(head);
        let round = Round { step: Step::Checked, checkpoint, wanted, is_published };
        if let Some(signing) = self.process(id).and_then(|process| process.signing.as_mut()) {
            signing.round = Some(round);
        }
        Ok(())
    }

    /// Take the step of a round that is next.
    fn go_on(&mut self, id: u64) -> Result<(), Violation> {
        let Some(process) = self.process(id) else { return Ok(()) };
        let log = process.state.log().clone();
        let Some(round) = process.signing.as_mut().and_then(|signing| signing.round.take()) else { return Ok(()) };
        let step = match round.step {
            Step::Checked => {
                if !self.note_in_memory(id, &round.checkpoint) {
                    return Ok(());
                }
                Step::Noted
            }
            Step::Noted => {
                let line = self.signatures.sign(id, &round.checkpoint, &log)?;
                if self.is_crashed_at(id, SignStep::Signed) {
                    return Ok(());
                }
                Step::Signed(line)
            }
            Step::Signed(line) => {
                self.answer_round(id, &log, Round { step: Step::Noted, ..round }, line)?;
                self.is_crashed_at(id, SignStep::Answered);
                return Ok(());
            }
        };
        if let Some(signing) = self.process(id).and_then(|process| process.signing.as_mut()) {
            signing.round = Some(Round { step, ..round });
        }
        Ok(())
    }

    /// Remember a checkpoint; return whether the machine still runs and may sign it.
    fn note_in_memory(&mut self, id: u64, checkpoint: &Checkpoint) -> bool {
        let is_torn = self.dice.is_hit(self.weather.signing.crashes);
        let now = self.now;
        let Some(host) = self.hosts.get_mut(&id) else { return false };
        let before = is_torn.then(|| host.sign_disk.content());
        let signing = host.process.as_mut().and_then(|process| process.signing.as_mut());
        let Some(memory) = signing.and_then(|signing| signing.memory.as_mut()) else { return false };
        // What contradicts the memory is not signed; the next start finds out why.
        let is_noted = memory.note(row(&checkpoint.head, now)).is_ok();
        if let Some(before) = before {
            self.crash_at(id, SignStep::Written, true);
            self.hosts[&id].sign_disk.tear(&before, &mut self.dice);
            return false;
        }
        is_noted && !self.is_crashed_at(id, SignStep::Synced)
    }

    /// Hand out what was signed: receipts, or a checkpoint that the others get too.
    fn answer_round(&mut self, id: u64, log: &Log, round: Round, line: Line) -> Result<(), Violation> {
        let now = self.now;
        if round.is_published {
            let note = Note::new(&round.checkpoint.to_string(), vec![line]).unwrap();
            self.offer(id, &note)?;
            let term = self.process(id).map(|process| process.member.role().term);
            if let Some(signing) = self.process(id).and_then(|process| process.signing.as_mut()) {
                (signing.published_at, signing.published_in) = (now, term);
            }
            self.give(id);
            return Ok(());
        }
        // A maker refuses a checkpoint that is not of the log's own entries.
        let Ok(maker) = log.receipts(&round.checkpoint, vec![line]) else { return Ok(()) };
        for versions in round.wanted {
            if let Ok(receipt) = maker.receipt(versions) {
                self.signatures.hand_out(id, &receipt, now)?;
            }
        }
        Ok(())
    }

    /// Give the newest checkpoint to the others.
    fn give(&mut self, id: u64) {
        let (now, others) = (self.now, self.hosts.keys().copied().filter(|&other| other != id).collect::<Vec<_>>());
        let Some(signing) = self.process(id).and_then(|process| process.signing.as_mut()) else { return };
        signing.published_at = now;
        let Some((_, note)) = &signing.published else { return };
        let note = note.to_string().into_bytes();
        for other in others {
            self.network.send(now, id, other, Parcel::Checkpoint(note.clone()), &mut self.dice);
        }
    }

    /// Compare a signed checkpoint with a member's own log, take it over, and remember it: `Published.offer`, `SigningParts.remember`.
    pub fn offer(&mut self, id: u64, note: &Note) -> Result<(), Violation> {
        let Some(Checkpoint { head, .. }) = self.signatures.endorsed(note, self.now) else {
            return require(false, "published checkpoints are signed", || format!("member {id} got {note}"));
        };
        let Some(host) = self.hosts.get_mut(&id) else { return Ok(()) };
        let Some(process) = &mut host.process else { return Ok(()) };
        let log = process.state.log();
        let Some(signing) = &mut process.signing else { return Ok(()) };
        if head.size() > log.len() {
            return Ok(());
        }
        let is_own = continues(log, &head).map_err(|error| stopped(id, &error))?;
        require(is_own, "members have the tree that is signed", || {
            format!("member {id} has another root than {} at {} entries", head.root(), head.size())
        })?;
        if signing.published.as_ref().is_none_or(|(known, _)| known.size() < head.size()) {
            host.disk.keep(note.to_string().into_bytes());
            signing.published = Some((head, note.clone()));
        }
        let is_newer = signing.remembered().is_none_or(|row| row.size < head.size());
        if let Some(memory) = signing.memory.as_mut().filter(|_| is_newer && signing.halted.is_none()) {
            memory.note(row(&head, 0)).map_err(|error| stopped(id, &error))?;
        }
        Ok(())
    }

    fn is_crashed_at(&mut self, id: u64, step: SignStep) -> bool {
        let is_hit = self.dice.is_hit(self.weather.signing.crashes);
        if is_hit {
            let is_power_lost = self.dice.is_hit(500);
            self.crash_at(id, step, is_power_lost);
        }
        is_hit
    }

    fn crash_at(&mut self, id: u64, step: SignStep, is_power_lost: bool) {
        self.note(|| format!("{id} crashes while it signs: {step:?}"));
        self.counts.crashes_signing[step as usize] += 1;
        self.crash(id, is_power_lost);
    }
}

/// Return whether a log has the root of a signed tree, or extends it.
fn continues(log: &Log, signed: &TreeHead) -> Result<bool, String> {
    if signed.size() > log.len() {
        return Ok(false);
    }
    log.tree_head_at(signed.size()).map(|own| own == *signed).map_err(|error| error.to_string())
}

fn row(head: &TreeHead, time: u64) -> Remembered {
    Remembered { size: head.size(), root: *head.root(), time }
}

fn stopped(id: u64, error: &dyn std::fmt::Display) -> Violation {
    Violation { invariant: "members keep signing", found: format!("member {id}: {error}") }
}
