//! One member in a process of its own, whose clock and network are standard input and output: `drive_qed.py` runs its schedules on
//! clusters of such processes.
//!
//!     qed-raftos-engine FOLDER ID VOTERS [pre-vote] [check-quorum]
//!
//! It opens the folder as `qed_node::folder` does, except that the members 1 to VOTERS vote from the beginning, and that pre-vote
//! and check-quorum are on only if they are named. It answers its start, and each line of input that it has carried out, with a line:
//! its role, and what it has sent, applied and acknowledged since the previous line. It does nothing between lines, so killing it
//! there is a crash.

use std::collections::HashMap;
use std::error::Error;
use std::io::{self, BufRead as _, Write as _};
use std::path::Path;
use std::sync::Arc;

use prost::Message as _;
use qed_core::hash::{DIGEST_BYTES, Digest};
use qed_core::log::{Log, Request};
use qed_core::log_id::LogId;
use qed_node::applier::perform;
use qed_node::consensus::{Consensus, KEPT_BYTES, Settings};
use qed_node::entry::Command;
use qed_node::member::{Effects, Input, Job, Limits, Member};
use qed_node::member_id::MemberId;
use qed_node::membership::{Configuration, Membership};
use qed_node::outbox::{Completion, Success};
use qed_node::recovery::reconcile;
use qed_node::segments::SegmentFolder;
use qed_node::state::State;
use qed_node::ticket::Ticket;
use qed_node::wal::Wal;
use raft::eraftpb::{Message, MessageType};
use raft::{GetEntriesContext, Storage as _};
use serde::{Deserialize, Serialize};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const ELECTION_TICKS: usize = 10;
const HEARTBEAT_TICKS: usize = 1;
/// A real cluster starts in term 1; in the schedules, it starts in term 0, before any election.
const FOUNDING_TERM: u64 = 1;

/// A line of input: an event to carry out.
#[derive(Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
enum Step {
    /// A timer expires.
    Fire { timer: Timer },
    /// A message arrives, in hexadecimal digits.
    Receive { body: String },
    /// A client submits a command.
    Write { command: String },
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Timer {
    Election,
    Heartbeat,
    Quorum,
}

/// A line of output: the outcome of an event.
#[derive(Default, Serialize)]
struct Answer {
    role: &'static str,
    term: u64,
    log: Vec<String>,
    sent: Vec<Sent>,
    /// Positions in the log, from 1, with their commands.
    applied: Vec<(u64, String)>,
    acknowledged: Vec<String>,
}

#[derive(Serialize)]
struct Sent {
    kind: &'static str,
    target: u64,
    term: u64,
    /// Whether it grants a vote. A promise to vote, which a pre-vote requests, does not count.
    is_granted: bool,
    body: String,
}

struct Engine {
    id: MemberId,
    has_quorum_timer: bool,
    member: Member<SegmentFolder>,
    state: State,
    /// Commands that have not been acknowledged, by ticket.
    waiting: HashMap<Ticket, String>,
    next_ticket: u64,
    /// The next line of output.
    answer: Answer,
}

fn main() -> Result<()> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [path, id, voters, switches @ ..] = arguments.as_slice() else {
        return Err("usage: qed-raftos-engine FOLDER ID VOTERS [pre-vote] [check-quorum]".into());
    };
    let is_on = |name: &str| switches.iter().any(|switch| switch == name);
    let settings = Settings {
        id: MemberId::new(id.parse()?).ok_or("expected the number of a member, found 0")?,
        election_ticks: ELECTION_TICKS,
        dead_ticks: 2 * ELECTION_TICKS,
        heartbeat_ticks: HEARTBEAT_TICKS,
        patience_ticks: Some(ELECTION_TICKS),
        seed: 0,
        pre_vote: is_on("pre-vote"),
        check_quorum: is_on("check-quorum"),
        kept_bytes: KEPT_BYTES,
    };
    let mut engine = Engine::open(Path::new(path), settings, voters.parse()?)?;
    engine.turn(Vec::new())?;
    engine.tell()?;
    for line in io::stdin().lock().lines() {
        engine.carry_out(serde_json::from_str(&line?)?)?;
        engine.tell()?;
    }
    Ok(())
}

impl Engine {
    fn open(path: &Path, settings: Settings, voters: u64) -> Result<Self> {
        let log = Arc::new(Log::open(path)?);
        let (mut wal, mut recovered) = Wal::open(SegmentFolder::open(&path.join("raft"))?)?;
        let mut state = State::open(Arc::clone(&log))?;
        if state.applied() == LogId::default() {
            let configuration =
                Configuration { voters: (1..=voters).map(MemberId::of).collect(), ..Configuration::default() };
            state.bootstrap(Membership { configuration, ..Membership::default() })?;
        }
        if let Some(frame) = reconcile(&mut recovered, state.applied())? {
            log.sync()?;
            wal.append(&frame)?;
        }
        let conf_state = (&state.membership().configuration).into();
        let consensus = Consensus::new(settings, recovered, state.applied(), conf_state)?;
        let limits = Limits { batch_events: 1, election_ticks: ELECTION_TICKS, first_read: 0 };
        Ok(Self {
            id: settings.id,
            has_quorum_timer: settings.check_quorum,
            member: Member::new(consensus, wal, log, Arc::clone(state.membership()), limits),
            state,
            waiting: HashMap::new(),
            next_ticket: 0,
            answer: Answer::default(),
        })
    }

    fn carry_out(&mut self, step: Step) -> Result<()> {
        match step {
            Step::Fire { timer } => self.fire(timer),
            Step::Receive { body } => {
                let message = Message::decode(unhex(&body)?.as_slice())?;
                let sender = MemberId::new(message.from).ok_or("expected a message of a member")?;
                self.turn(vec![Input::Message(sender, message)])
            }
            Step::Write { command } => {
                let request = Request { digests: vec![digest_of(&command)?], if_absent: false };
                let ticket = Ticket::new(self.next_ticket);
                self.next_ticket += 1;
                self.waiting.insert(ticket, command);
                self.turn(vec![Input::Append(ticket, request)])
            }
        }
    }

    /// Let ticks pass until the timer, if it runs, has expired: then the member sends messages, or a leader steps down.
    fn fire(&mut self, timer: Timer) -> Result<()> {
        let is_leader = self.member.role().is_leader;
        let (is_running, ticks) = match timer {
            Timer::Election => (!is_leader, 2 * ELECTION_TICKS),
            Timer::Heartbeat => (is_leader, HEARTBEAT_TICKS),
            // The first time-out clears the leader's record of contacts, the second finds that there were none since.
            Timer::Quorum => (is_leader && self.has_quorum_timer, 2 * ELECTION_TICKS),
        };
        for _ in 0..if is_running { ticks } else { 0 } {
            let before = self.answer.sent.len();
            self.turn(vec![Input::Tick])?;
            let mut new = self.answer.sent.iter().skip(before);
            let is_over = match timer {
                Timer::Election => new.any(|sent| sent.kind == "vote request"),
                Timer::Heartbeat => false,
                Timer::Quorum => !self.member.role().is_leader,
            };
            if is_over {
                break;
            }
        }
        Ok(())
    }

    /// Let the member process inputs, and the results of its jobs, until it has nothing more to do.
    fn turn(&mut self, mut inputs: Vec<Input>) -> Result<()> {
        loop {
            let (mut effects, mut early) = (Effects::default(), Vec::new());
            self.member.turn(inputs, &mut effects, &mut |messages| early.extend(messages))?;
            for message in early.iter().chain(&effects.messages) {
                self.answer.sent.push(sent(message)?);
            }
            self.acknowledge(effects.completions);
            inputs = Vec::new();
            for job in effects.jobs {
                inputs.extend(self.apply(job)?);
            }
            if inputs.is_empty() {
                return Ok(());
            }
        }
    }

    /// Carry out a job. The state is synced at once, so that entries reported as applied survive a crash. A server syncs only when it
    /// stops or shortens its Raft log: until then a crash sets its state back, and the entries are applied again from the Raft log.
    fn apply(&mut self, job: Job) -> Result<Option<Input>> {
        let commands = match &job {
            Job::Apply(committed, _) => commands_in(&committed.data),
            Job::Install(..) | Job::Sync => Vec::new(),
        };
        let before = self.state.log().len();
        let (input, completions) = perform(&mut self.state, job)?;
        self.state.log().sync()?;
        self.answer.applied.extend((before + 1..=self.state.log().len()).zip(commands));
        self.acknowledge(completions);
        Ok(input)
    }

    fn acknowledge(&mut self, completions: Vec<Completion>) {
        for Completion { ticket, outcome } in completions {
            let command = self.waiting.remove(&ticket);
            if matches!(outcome, Ok(Success::Added(_))) {
                self.answer.acknowledged.extend(command);
            }
        }
    }

    fn tell(&mut self) -> Result<()> {
        let mut answer = std::mem::take(&mut self.answer);
        let role = self.member.role();
        let log = self.member.consensus().log();
        // Nothing else shows that a member is a candidate, and only its vote for itself matters.
        let is_candidate = role.leader.is_none() && log.hard_state().vote == self.id.get();
        answer.role = match role.is_leader {
            true => "leader",
            false if is_candidate => "candidate",
            false => "follower",
        };
        answer.term = role.term - FOUNDING_TERM;
        let entries = log.entries(log.first_index()?, log.last_index()? + 1, None, GetEntriesContext::empty(false))?;
        answer.log = entries.iter().flat_map(|entry| commands_in(&entry.data)).collect();
        let mut out = io::stdout().lock();
        serde_json::to_writer(&mut out, &answer)?;
        writeln!(out)?;
        Ok(out.flush()?)
    }
}

fn sent(message: &Message) -> Result<Sent> {
    let kind = match message.msg_type() {
        MessageType::MsgRequestVote | MessageType::MsgRequestPreVote => "vote request",
        MessageType::MsgRequestVoteResponse | MessageType::MsgRequestPreVoteResponse => "vote answer",
        MessageType::MsgAppend | MessageType::MsgHeartbeat => "append",
        MessageType::MsgAppendResponse | MessageType::MsgHeartbeatResponse => "append answer",
        other => return Err(format!("expected a message of a kind in the schedules, found {other:?}").into()),
    };
    let is_granted = message.msg_type() == MessageType::MsgRequestVoteResponse && !message.reject;
    let digits: Vec<_> = message.encode_to_vec().iter().map(|byte| format!("{byte:02x}")).collect();
    let term = message.term.saturating_sub(FOUNDING_TERM);
    Ok(Sent { kind, target: message.to, term, is_granted, body: digits.concat() })
}

fn unhex(text: &str) -> Result<Vec<u8>> {
    let byte = |at| Ok(u8::from_str_radix(text.get(at..at + 2).ok_or("an odd number of digits")?, 16)?);
    (0..text.len()).step_by(2).map(byte).collect()
}

/// Return the event for a command. Any 32 bytes are a valid digest of an event, so they hold the command itself.
fn digest_of(command: &str) -> Result<Digest> {
    let mut bytes = [0; DIGEST_BYTES];
    bytes.get_mut(..command.len()).ok_or("the command is too long")?.copy_from_slice(command.as_bytes());
    Ok(Digest::new(bytes))
}

fn commands_in(data: &[u8]) -> Vec<String> {
    let Some(Command::Append { requests, .. }) = Command::from_bytes(data) else { return Vec::new() };
    let digests = requests.iter().flat_map(|request| &request.digests);
    digests.map(|digest| String::from_utf8_lossy(digest.as_bytes()).trim_end_matches('\0').into()).collect()
}
