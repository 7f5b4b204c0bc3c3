//! The whole simulated world, advanced one tick at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use qed_core::page::Page;
use qed_core::tlog::note::Note;
use qed_node::applier::perform;
use qed_node::member::{Effects, Input, Job};
use qed_node::member_id::MemberId;
use qed_node::membership::{Configuration, Membership};
use qed_node::notice::Notice;
use qed_node::outbox::{Completion, Success};
use qed_node::ticket::Ticket;
use raft::eraftpb::{Message, MessageType};
use tempfile::TempDir;

use crate::client::{Asked, Clients};
use crate::counts::Counts;
use crate::disk::Disk;
use crate::faults::Fault;
use crate::host::{Host, Process};
use crate::invariants::{Invariants, Violation, require};
use crate::network::{Flight, Manners, Network, Parcel};
use crate::random::{Random, mixed};
use crate::restore::Backup;
use crate::sign_disk::SignDisk;
use crate::signatures::Signatures;
use crate::weather::{SigningWeather, Weather};

/// Ticks after healing within which everything must converge.
const CONVERGENCE_TICKS: u64 = 3000;
/// The same for a run with a fault: the fault must break an invariant, not merely stop its members, so waiting longer is useless.
const PLANTED_TICKS: u64 = 300;

/// How often, of 1000 times, the power fails after an answer that was sent before its sync.
const HASTE: u64 = 30;

/// This bit is set in the tickets of pages, which belong to no client.
const OF_PAGE: u64 = 1 << 63;
/// Mixed into the decision which messages to forge.
const FORGED: u64 = 0x666f_7267_6564;
/// Mixed into the seed of the random numbers of what signs.
const SIGNED: u64 = 0x7369_676e_6564;
/// What the votes in the names of others are drawn with.
const IMPERSONATED: u64 = 0x696d_7065_7273;
/// One message is forged per this many messages.
const MESSAGES_A_FORGERY: u64 = 499;
/// The sender of forged messages.
const STRANGER: u64 = 1 << 40;
/// The terms of forged messages.
const FORGED_TERMS: [u64; 4] = [1 << 40, 1 << 62, u64::MAX / 2, u64::MAX];

/// The result of a run; the same seed always gives the same result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Checksum of all Raft messages that were delivered.
    pub checksum: u64,
    /// Ticks until all members had converged.
    pub ticks: u64,
    /// The number of events of each kind.
    pub counts: Counts,
}

/// Machines, the network between them, and the clients.
pub struct World {
    /// The planted fault.
    pub fault: Fault,
    /// Ticks since it began.
    pub now: u64,
    /// Its random numbers.
    pub random: Random,
    /// Its conditions.
    pub weather: Weather,
    /// Its machines, by the ids of their members.
    pub hosts: BTreeMap<u64, Host>,
    /// The clients.
    pub clients: Clients,
    /// Whether the time of faults is over.
    pub is_healed: bool,
    /// The tick from which the operator may change something again.
    pub next_change: u64,
    /// The network between them.
    pub network: Network,
    /// What must always be true.
    pub invariants: Invariants,
    /// What the log has signed.
    pub signatures: Signatures,
    /// The random numbers of what signs.
    pub dice: Random,
    /// Where the sign memories are.
    sign_folder: Option<Arc<TempDir>>,
    /// The copies of all disks, until they are put back.
    pub backup: Option<Backup>,
    /// Whether nothing is asked and nothing fails, until the copies are put back.
    pub is_quiet: bool,
    checksum: u64,
    /// The counts so far, except for those that clients and invariants keep.
    pub counts: Counts,
    /// The trace, if one is recorded.
    pub trace: Option<Vec<String>>,
}

impl World {
    /// Return the world of a seed, with a planted fault.
    pub fn new(seed: u64, fault: Fault) -> Self {
        let mut random = Random::new(mixed(seed ^ 0x0071_6564));
        let weather = Weather::draw(&mut random).for_fault(fault);
        Self::under(weather, seed, fault, random)
    }

    /// Return a world of three members in which nothing goes wrong by itself.
    pub fn calm(seed: u64) -> Self {
        let mut random = Random::new(mixed(seed ^ 0x0071_6564));
        let weather = Weather::draw(&mut random).calm();
        let mut world = Self::under(weather, seed, Fault::None, random);
        (world.is_healed, world.weather.signing) = (true, SigningWeather::OFF);
        world
    }

    fn under(mut weather: Weather, seed: u64, fault: Fault, random: Random) -> Self {
        let mut dice = Random::new(mixed(seed ^ SIGNED));
        weather.signing = SigningWeather::draw(&mut dice, fault, weather.ticks);
        if weather.signing.restore.is_some() {
            // One disaster is enough, and there must be time for it.
            (weather.rollbacks, weather.ticks) = (0, weather.ticks + 200);
        }
        let network = Network::new(weather.manners);
        let mut world = Self {
            fault,
            now: 0,
            next_change: 0,
            random,
            weather,
            hosts: BTreeMap::new(),
            network,
            clients: Clients::default(),
            invariants: Invariants::default(),
            signatures: Signatures::new(),
            dice,
            sign_folder: weather.signing.is_on.then(SignDisk::folder),
            backup: None,
            is_quiet: false,
            is_healed: false,
            checksum: seed,
            counts: Counts::default(),
            trace: None,
        };
        let founded = founded(weather.founders);
        for id in 1..=weather.members {
            let founded = (id <= weather.founders).then(|| founded.clone());
            world.add_host(id, format!("m{id}"), founded);
        }
        world
    }

    /// Run to the end, and return the result.
    pub fn run(&mut self) -> Result<Summary, Violation> {
        let weather = self.weather;
        self.note(|| format!("{weather:?}"));
        while self.now < self.weather.ticks {
            self.restore_when_due();
            self.trouble();
            self.roll_back();
            self.step()?;
        }
        self.heal();
        let healed_at = self.now;
        while !self.has_converged() {
            if self.fault.is_brief() && self.now == healed_at + PLANTED_TICKS {
                break;
            }
            require(self.now < healed_at + CONVERGENCE_TICKS, "all converge", || self.standing())?;
            self.step()?;
        }
        let is_whole = self.has_converged();
        self.finish(is_whole)?;
        let (appends, reads) = self.clients.answered;
        let (signatures, receipts) = (self.signatures.count, self.signatures.receipts());
        let changes = self.invariants.memberships();
        let counts = Counts { appends, reads, changes, signatures, receipts, ..self.counts };
        Ok(Summary { checksum: self.checksum, ticks: self.now, counts })
    }

    /// Let a tick pass.
    pub fn step(&mut self) -> Result<(), Violation> {
        self.now += 1;
        for flight in self.network.arrived(self.now) {
            self.deliver(&flight)?;
        }
        self.ask()?;
        self.operate()?;
        let ids = self.hosts.keys().copied().collect();
        for id in self.random.shuffled(ids) {
            self.start_if_due(id)?;
            self.turn(id)?;
            self.apply(id)?;
            self.fetch(id)?;
            self.sign(id)?;
        }
        for (&id, process) in self.hosts.iter().filter_map(|(id, host)| Some((id, host.process.as_ref()?))) {
            self.invariants.keeps(id, &process.member, process.state.log())?;
        }
        self.end_doubts();
        self.invariants.end_step();
        Ok(())
    }

    /// Let a member take a turn, unless its last turn is still in progress.
    fn turn(&mut self, id: u64) -> Result<(), Violation> {
        let Some(host) = self.hosts.get_mut(&id) else { return Ok(()) };
        let (pace, disk) = (host.pace, host.disk.clone());
        let Some(process) = &mut host.process else { return Ok(()) };
        if let Some((_, effects)) = process.held.take_if(|(until, _)| *until <= self.now) {
            self.hand_out(id, effects)?;
        }
        let Some(process) = self.process(id).filter(|process| process.held.is_none()) else { return Ok(()) };
        let mut inputs: Vec<_> = process.inbox.drain(..).collect();
        if self.random.is_hit(pace) {
            inputs.push(Input::Tick);
        }
        if inputs.is_empty() {
            return Ok(());
        }
        let unsynced = (self.fault == Fault::AnswersBeforeSync).then(|| disk.twin());
        let Some(process) = self.process(id) else { return Ok(()) };
        let (mut effects, mut early) = (Effects::default(), Vec::new());
        let turned = process.member.turn(inputs, &mut effects, &mut |messages| early.extend(messages));
        let is_leader = process.member.consensus().role().is_leader;
        // They have left before the sync, and so before any power cut in it.
        self.counts.cuts_after_sending += u64::from(disk.is_dead() && !early.is_empty());
        self.send(id, early)?;
        if disk.is_dead() {
            self.end_in_the_middle(id);
            return Ok(());
        }
        let promises = [MessageType::MsgRequestVoteResponse, MessageType::MsgAppendResponse];
        let has_promised = !is_leader && effects.messages.iter().any(|message| promises.contains(&message.msg_type()));
        if let Some(unsynced) = unsynced.filter(|_| has_promised)
            && self.random.is_hit(HASTE)
        {
            self.send(id, effects.messages)?;
            disk.replace(&unsynced);
            self.crash(id, true);
            return Ok(());
        }
        turned.map_err(|error| stopped(id, &error))?;
        let Some(process) = self.hosts[&id].process.as_ref() else { return Ok(()) };
        self.invariants.turned(id, &process.member)?;
        if self.random.is_hit(self.weather.slowness) {
            let until = self.now + self.random.within(1, self.weather.slowest);
            self.process(id).map(|process| process.held.insert((until, effects)));
            return Ok(());
        }
        self.hand_out(id, effects)
    }

    fn hand_out(&mut self, id: u64, effects: Effects) -> Result<(), Violation> {
        let said: Vec<_> = effects.messages.iter().map(Message::msg_type).collect();
        self.send(id, effects.messages)?;
        for (to, notice) in effects.notices {
            self.note(|| format!("{id} sends {to} {notice:?}"));
            self.network.send(self.now, id, to.get(), Parcel::Noticed(notice), &mut self.random);
        }
        if let Some(process) = self.process(id) {
            process.jobs.extend(effects.jobs);
        }
        self.complete(id, effects.completions)?;
        self.step_down(id, &said);
        Ok(())
    }

    fn send(&mut self, id: u64, messages: Vec<Message>) -> Result<(), Violation> {
        for message in messages {
            self.invariants.sent(&message)?;
            self.note(|| format!("{id} sends {message:?}"));
            self.network.send(self.now, id, message.to, Parcel::Said(message), &mut self.random);
        }
        Ok(())
    }

    fn complete(&mut self, id: u64, completions: Vec<Completion>) -> Result<(), Violation> {
        let Some(process) = self.hosts.get(&id).and_then(|host| host.process.as_ref()) else { return Ok(()) };
        let log = process.state.log().clone();
        for Completion { ticket, outcome } in completions {
            if ticket.get() & OF_PAGE != 0 {
                continue;
            }
            self.note(|| format!("{id} answers {ticket}: {outcome:?}"));
            if let Ok(Success::Added(added)) = &outcome {
                self.want_receipt(id, added);
            }
            self.clients.answer((ticket, outcome), &log, &mut self.invariants, &mut self.random)?;
        }
        Ok(())
    }

    /// Carry out some of the waiting jobs.
    fn apply(&mut self, id: u64) -> Result<(), Violation> {
        while self.random.is_hit(self.weather.diligence) {
            let Some(host) = self.hosts.get_mut(&id) else { break };
            let Some(process) = &mut host.process else { break };
            let Some(job) = process.jobs.pop_front() else { break };
            let page = if let Job::Install(ticket, _) = job { Some(ticket) } else { None };
            let performed = perform(&mut process.state, job);
            if host.disk.is_dead() {
                self.end_in_the_middle(id);
                break;
            }
            let (input, completions) = performed.map_err(|error| stopped_state(id, &error))?;
            let log_id = if let Some(Input::Report(report)) = &input { Some(report.log_id) } else { None };
            process.inbox.extend(input);
            if page.is_some() {
                process.fetching = None;
                self.counts.pages += u64::from(log_id.is_some());
            }
            self.invariants.performed(id, &process.state)?;
            self.note(|| format!("{id} has applied up to {log_id:?}"));
            if page.is_none() {
                let completions = self.mistaken(id, completions);
                self.complete(id, completions)?;
            }
        }
        Ok(())
    }

    /// Request the next page, if the member waits for one.
    fn fetch(&mut self, id: u64) -> Result<(), Violation> {
        let (now, ticket) = (self.now, Ticket::new(self.random.number() | OF_PAGE));
        let Some(process) = self.process(id) else { return Ok(()) };
        let Some((from, _)) = process.member.snapshot_source() else {
            process.fetching = None;
            return Ok(());
        };
        if process.fetching.is_some_and(|(_, since)| since + 50 > now) {
            return Ok(());
        }
        let log = process.state.log();
        let start = log.extent_at(log.len()).map_err(|error| stopped_state(id, &error))?;
        let after = log.applied();
        process.fetching = Some((ticket, now));
        self.network.send(now, id, from.get(), Parcel::Ask(ticket, start, after), &mut self.random);
        Ok(())
    }

    fn deliver(&mut self, flight: &Flight) -> Result<(), Violation> {
        let Flight { from, to, .. } = *flight;
        let (now, parcel) = (self.now, flight.parcel.clone());
        let events = self.random.within(1, 40);
        if self.hosts.get(&to).is_none_or(|host| host.process.is_none()) {
            self.network.refuse(now, from, to, &parcel);
            return Ok(());
        }
        if let Parcel::Said(message) = parcel {
            self.say(flight, message);
            return Ok(());
        }
        if let Parcel::Checkpoint(note) = parcel {
            return self.offer(to, &Note::parse(&note).unwrap());
        }
        let fault = self.fault;
        let Some(process) = self.process(to) else { return Ok(()) };
        match parcel {
            Parcel::Said(_) | Parcel::Checkpoint(_) => {}
            Parcel::Noticed(notice) => {
                let notice = Notice::from_bytes(&fault.blanked(notice).to_bytes()).unwrap();
                process.inbox.push_back(Input::Notice(MemberId::of(from), notice));
            }
            Parcel::Lost(id) => process.inbox.push_back(Input::Lost(MemberId::of(id))),
            Parcel::Ask(ticket, start, after) => {
                if let Ok(page) = process.state.log().page(start, after, events) {
                    self.network.send(now, to, from, Parcel::Page(ticket, page.to_bytes()), &mut self.random);
                }
            }
            Parcel::Page(ticket, bytes) => {
                if process.fetching.is_none_or(|(awaited, _)| awaited != ticket) {
                    return Ok(());
                }
                let mut page = Page::from_bytes(&bytes).map_err(|error| stopped_state(to, &error))?;
                if fault == Fault::PagesWithoutMembers {
                    page.members.clear();
                }
                process.jobs.push_back(Job::Install(ticket, Box::new(page)));
            }
        }
        Ok(())
    }

    fn say(&mut self, flight: &Flight, message: Message) {
        let Flight { from, to, .. } = *flight;
        let said = [from, to, message.msg_type() as u64, message.term, message.index, self.now];
        self.checksum = said.iter().fold(self.checksum, |sum, &word| mixed(sum ^ word));
        self.truncate(to, &message);
        self.give_in(to, &message);
        self.forge(to);
        self.impersonate(to);
        for message in self.distorted(flight, message) {
            // What a planted fault has made of it comes with a sender to match.
            let sender = if self.fault == Fault::None { from } else { message.from };
            self.hand(sender, to, message);
        }
    }

    /// Now and then, deliver a message from a stranger that claims to lead a term which no member will ever reach.
    fn forge(&mut self, to: u64) {
        // Derived from what has happened instead of drawn, so a run without forged messages takes the same course.
        let drawn = mixed(self.checksum ^ FORGED);
        // Without pre-votes, a member whose term is ahead of the others and that does not know yet that it is a voter answers no
        // candidate, and does not stand for election. It would join the others only after enough elections for them to reach its
        // term.
        if self.is_healed || !self.weather.setting.pre_vote || !drawn.is_multiple_of(MESSAGES_A_FORGERY) {
            return;
        }
        let term = FORGED_TERMS[(drawn >> 32) as usize % FORGED_TERMS.len()];
        let mut message = Message { from: STRANGER, to, term, ..Message::default() };
        message.set_msg_type(MessageType::MsgHeartbeat);
        self.hand(STRANGER, to, message);
    }

    /// Now and then, let a stranger vote for a member in the name of every other voter.
    fn impersonate(&mut self, to: u64) {
        let is_checked = self.fault != Fault::UncheckedSenders;
        let messages_a_forgery = if is_checked { MESSAGES_A_FORGERY } else { 3 };
        if self.is_healed || !mixed(self.checksum ^ IMPERSONATED).is_multiple_of(messages_a_forgery) {
            return;
        }
        let Some(process) = self.process(to) else { return };
        let term = process.member.consensus().role().term;
        let voters = process.state.membership().configuration.voters.clone();
        for voter in voters.into_iter().map(MemberId::get).filter(|&voter| voter != to) {
            let mut message = Message { from: voter, to, term, ..Message::default() };
            message.set_msg_type(MessageType::MsgRequestVoteResponse);
            self.hand(if is_checked { STRANGER } else { voter }, to, message);
        }
    }

    /// Hand a message to a member, with the sender that its stream has shown.
    fn hand(&mut self, sender: u64, to: u64, message: Message) {
        if let (Some(process), Some(sender)) = (self.process(to), MemberId::new(sender)) {
            process.inbox.push_back(Input::Message(sender, message));
        }
    }

    /// Let clients send requests.
    fn ask(&mut self) -> Result<(), Violation> {
        let most = if self.is_healed { 2 } else { self.weather.clients };
        if self.is_quiet || self.clients.waiting(self.now) >= most || !self.random.is_hit(self.weather.eagerness) {
            return Ok(());
        }
        let leader = self.leader().filter(|_| self.random.is_hit(750));
        let Some(host) = leader.or_else(|| self.any_running()) else { return Ok(()) };
        let asked = if self.random.is_hit(650) {
            if !self.may_add(host)? {
                return Ok(());
            }
            Asked::Append(self.clients.request(&mut self.random))
        } else {
            Asked::Read(self.clients.floor(&self.invariants))
        };
        let ticket = self.clients.ask(self.now, host, asked.clone());
        self.note(|| format!("{host} is asked {ticket}: {asked:?}"));
        let input = match asked {
            Asked::Append(request) => Input::Append(ticket, request),
            _ if self.is_hasty(host) => {
                return self.complete(host, vec![Completion { ticket, outcome: Ok(Success::Done) }]);
            }
            _ => Input::Read(ticket),
        };
        if let Some(process) = self.process(host) {
            process.inbox.push_back(input);
        }
        Ok(())
    }

    /// Cause crashes and partitions.
    fn trouble(&mut self) {
        let weather = self.weather;
        if self.is_quiet {
            return;
        }
        if self.random.is_hit(weather.crashes)
            && let Some(id) = self.any_running()
        {
            if self.random.is_hit(600) {
                self.crash(id, weather.is_power_lost);
            } else {
                let operations = self.random.within(1, 8);
                self.hosts[&id].disk.light_fuse(operations);
            }
        }
        if self.random.is_hit(weather.cuts) {
            self.cut();
        } else if self.network.is_cut() && self.random.is_hit(20) {
            self.note(|| "the network is no longer partitioned".into());
            self.network.heal();
        }
    }

    fn cut(&mut self) {
        let ids: Vec<_> = self.hosts.keys().copied().collect();
        let is_one_way = self.random.is_hit(400);
        let side: BTreeSet<_> = ids.iter().copied().filter(|_| self.random.is_hit(400)).collect();
        self.note(|| format!("{side:?} are partitioned off, one-way: {is_one_way}"));
        self.counts.partitions += u64::from(!side.is_empty() && side.len() < ids.len());
        for &one in &side {
            for &other in ids.iter().filter(|id| !side.contains(id)) {
                self.network.cut(one, other);
                if !is_one_way {
                    self.network.cut(other, one);
                }
            }
        }
    }

    /// Stop a member, and start it again after a while.
    pub fn crash(&mut self, id: u64, is_power_lost: bool) {
        self.counts.crashes += 1;
        let downtime = self.random.within(1, self.weather.downtime);
        self.stop(id, is_power_lost, downtime);
    }

    /// Stop a member whose fuse has burnt down, between any two operations on its disk.
    fn end_in_the_middle(&mut self, id: u64) {
        let is_power_lost = self.random.is_hit(700);
        self.crash(id, is_power_lost);
    }

    /// Stop the process on a machine for a while.
    pub fn stop(&mut self, id: u64, is_power_lost: bool, downtime: u64) {
        self.note(|| format!("{id} stops, power lost: {is_power_lost}"));
        let Some(host) = self.hosts.get_mut(&id) else { return };
        (host.process, host.stood) = (None, None);
        host.starts_at = self.now + downtime;
        if is_power_lost {
            host.disk.cut_power(&mut self.random);
            if self.fault == Fault::UnsyncedMemory {
                host.sign_disk.forget();
            }
            self.lose_entries(id);
        } else {
            host.disk.end_process();
        }
        self.clients.stopped(id, &mut self.random);
        self.network.disconnect(self.now, id, self.hosts.keys().copied());
    }

    fn start_if_due(&mut self, id: u64) -> Result<(), Violation> {
        let seed = self.random.number();
        let Some(host) = self.hosts.get_mut(&id) else { return Ok(()) };
        if host.process.is_some() || host.starts_at > self.now || host.is_lost {
            return Ok(());
        }
        self.fault.at_start(&host.disk);
        let Process { member, state, .. } = host.start(self.weather.setting, seed)?;
        self.invariants.started(id, member, state)?;
        self.start_signing(id)?;
        self.note(|| format!("{id} starts"));
        Ok(())
    }

    fn heal(&mut self) {
        self.note(|| "everything heals".into());
        self.is_healed = true;
        self.network.heal();
        self.network.manners = Manners::PERFECT;
        (self.weather.slowness, self.weather.diligence, self.weather.eagerness) = (0, 900, 200);
        for host in self.hosts.values_mut() {
            host.starts_at = host.starts_at.min(self.now);
            host.pace = 1000;
        }
    }

    /// Return whether all members agree on everything and all of them are voters.
    fn has_converged(&self) -> bool {
        let Some(leader) = self.leader().and_then(|id| self.hosts[&id].process.as_ref()) else { return false };
        let (membership, applied) = (leader.state.membership(), leader.state.applied());
        let Configuration { learners, voters_outgoing, .. } = &membership.configuration;
        // A log that must not grow admits nobody in the place of a lost member.
        let is_given_up = |id: &MemberId| self.hosts[&id.get()].is_lost && leader.is_halted();
        let agrees = |id: &MemberId| {
            let process = self.hosts[&id.get()].process.as_ref();
            let agrees = process.is_some_and(|process| {
                let (member, state) = (&process.member, &process.state);
                state.membership() == membership && state.applied() == applied && member.snapshot_source().is_none()
            });
            agrees || is_given_up(id)
        };
        let is_settled = learners.iter().all(is_given_up) && voters_outgoing.is_empty();
        is_settled
            && applied.index == leader.member.consensus().commit_index()
            && applied.term == leader.member.role().term
            && membership.members.keys().all(agrees)
            && self.hosts.values().all(|host| {
                host.is_lost || membership.members.contains_key(&MemberId::of(host.id)) || leader.is_halted()
            })
    }

    fn finish(&mut self, is_whole: bool) -> Result<(), Violation> {
        let leader = self.leader().and_then(|id| self.hosts[&id].process.as_ref());
        let members = leader.map(|process| process.state.membership().members.keys().copied().collect::<BTreeSet<_>>());
        // A log that must not grow has admitted nobody, and who waits has nothing.
        let is_member = |host: &&Host| members.as_ref().is_none_or(|members| members.contains(&MemberId::of(host.id)));
        let running = self.hosts.values().filter(|host| !is_whole || is_member(host));
        let logs = running.filter_map(|host| host.process.as_ref().map(|process| (host.id, process.state.log())));
        for (at, (id, log)) in logs.enumerate() {
            self.invariants.require_kept(id, log, is_whole)?;
            if at == 0 && is_whole {
                self.invariants.require_proven(log)?;
                self.clients.require_fates(log)?;
            }
        }
        self.signatures.require_receipts()
    }

    /// Return the state of every machine, to show why the run makes no progress.
    fn standing(&self) -> String {
        let of_host = |host: &Host| {
            let Some(process) = &host.process else { return format!("{} is down", host.id) };
            let (member, state) = (&process.member, &process.state);
            let membership = &state.membership().configuration;
            format!("{}: {:?}, applied {:?}, {membership:?}", host.id, member.consensus(), state.applied())
        };
        self.hosts.values().map(of_host).collect::<Vec<_>>().join("\n")
    }

    /// Return the leader of the latest term, as far as the members know.
    pub fn leader(&self) -> Option<u64> {
        let role =
            |host: &Host| host.process.as_ref().map(|process| process.member.role()).filter(|role| role.is_leader);
        let leaders = self.hosts.values().filter_map(|host| Some((role(host)?.term, host.id)));
        leaders.max().map(|(_, id)| id)
    }

    /// Return whether there is a leader that has applied an entry of its term.
    pub fn is_led(&self) -> bool {
        let leader = self.leader().and_then(|id| self.hosts[&id].process.as_ref());
        leader.is_some_and(|process| process.state.applied().term == process.member.role().term)
    }

    /// Return any running machine.
    pub fn any_running(&mut self) -> Option<u64> {
        let running: Vec<_> = self.hosts.values().filter(|host| host.process.is_some()).map(|host| host.id).collect();
        self.random.pick(&running)
    }

    /// Return the process on a machine.
    pub fn process(&mut self, id: u64) -> Option<&mut Process> {
        self.hosts.get_mut(&id)?.process.as_mut()
    }

    /// Add a machine.
    pub fn add_host(&mut self, id: u64, name: String, founded: Option<Membership>) {
        let pace = self.random.within(self.weather.slowest_pace, 1000);
        let disk = Disk::default();
        let host = Host {
            id,
            name,
            disk,
            sign_disk: SignDisk::new(self.sign_folder.clone(), id),
            founded,
            process: None,
            starts_at: self.now,
            is_lost: false,
            copy: None,
            is_doubtful: false,
            pace,
            stood: None,
        };
        self.hosts.insert(id, host);
    }

    /// Add a line to the trace.
    pub fn note(&mut self, text: impl FnOnce() -> String) {
        let now = self.now;
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{now:5} {}", text()));
        }
    }
}

fn founded(founders: u64) -> Membership {
    let mut membership = Membership::of_one("c".repeat(32), MemberId::of(1), Host::description(1, "m1"));
    for id in 2..=founders {
        membership.members.insert(MemberId::of(id), Host::description(id, &format!("m{id}")));
        membership.configuration.voters.push(MemberId::of(id));
    }
    membership
}

fn stopped(id: u64, error: &qed_node::member::MemberError) -> Violation {
    Violation { invariant: "members keep running", found: format!("member {id}: {error}") }
}

fn stopped_state(id: u64, error: &dyn std::error::Error) -> Violation {
    Violation { invariant: "states keep working", found: format!("member {id}: {error}") }
}
