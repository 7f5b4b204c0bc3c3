//! A replica, as the server drives it from its event loop.

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::PyBytes;
use qed_core::acts::{self, ActBody};
use qed_core::backup::{self, Header, Origin};
use qed_core::log_id::LogId;
use qed_core::page::{Extent, Page, PageError};
use qed_core::stored_tree::StoredTail;
use qed_core::tlog::merkle::TreeHead;
use qed_core::tree_image::ImageUse;
use qed_node::driver::{self, Driver};
use qed_node::folder::{Beginning, Opened, Timing};
use qed_node::high_water::HighWater;
use qed_node::member_id::MemberId;
use qed_node::membership;
use qed_node::message_check;
use qed_node::outbox::{self, Outcome, Success};
use qed_node::prover::Query;
use qed_node::public_key::PublicKeyHash;
use qed_node::ticket::Ticket;

use crate::backup::cursor_in;
use crate::bulk::BulkMembership;
use crate::error;
use crate::events::{Event, request_of};
use crate::log::{Added, TilePath};
use crate::metrics::ReplicaMetrics;
use crate::proofs::Digest;
use crate::signing::{UnsignedCheckpoint, lines_of};

/// One member of a cluster, as it describes itself.
#[pyclass(frozen, eq, get_all, module = "qed._qed")]
#[derive(Clone, PartialEq, Eq)]
pub struct MemberInfo {
    name: String,
    raft_addr: String,
    http_addr: String,
    mgmt_addr: String,
    metrics_addr: String,
    /// SHA-256 of its public key.
    key: Option<Key>,
}

/// The SHA-256 of a public key, as bytes in Python.
#[derive(Clone, Copy, PartialEq, Eq, FromPyObject)]
#[pyo3(transparent)]
struct Key([u8; PublicKeyHash::BYTES]);

impl<'py> IntoPyObject<'py> for Key {
    type Target = PyBytes;
    type Output = Bound<'py, PyBytes>;
    type Error = Infallible;

    fn into_pyobject(self, py: Python<'py>) -> Result<Self::Output, Infallible> {
        Ok(PyBytes::new(py, &self.0))
    }
}

#[pymethods]
impl MemberInfo {
    #[new]
    #[pyo3(signature = (*, name, raft_addr, http_addr, mgmt_addr, metrics_addr, key = None))]
    const fn new(
        name: String,
        raft_addr: String,
        http_addr: String,
        mgmt_addr: String,
        metrics_addr: String,
        key: Option<Key>,
    ) -> Self {
        Self { name, raft_addr, http_addr, mgmt_addr, metrics_addr, key }
    }
}

impl From<MemberInfo> for membership::MemberInfo {
    fn from(member: MemberInfo) -> Self {
        let MemberInfo { name, raft_addr, http_addr, mgmt_addr, metrics_addr, key } = member;
        let key = key.map(|Key(bytes)| PublicKeyHash::new(bytes));
        Self { name, raft_addr, http_addr, mgmt_addr, metrics_addr, key }
    }
}

impl From<membership::MemberInfo> for MemberInfo {
    fn from(member: membership::MemberInfo) -> Self {
        let membership::MemberInfo { name, raft_addr, http_addr, mgmt_addr, metrics_addr, key } = member;
        let key = key.map(|hash| Key(*hash.as_bytes()));
        Self { name, raft_addr, http_addr, mgmt_addr, metrics_addr, key }
    }
}

/// The state of a cluster as one member knows it.
#[pyclass(frozen, get_all, module = "qed._qed")]
pub struct Status {
    /// Number of this member.
    id: u64,
    /// Name of the cluster; None before this member is admitted.
    cluster: Option<String>,
    /// Number of the leader, if one is known.
    leader: Option<u64>,
    term: u64,
    is_leader: bool,
    commit_index: u64,
    applied_index: u64,
    /// Members by number.
    members: Vec<(u64, MemberInfo)>,
    /// Numbers of the voters.
    voters: Vec<u64>,
    /// Numbers of removed members.
    removed: Vec<u64>,
    /// Names of the clusters whose log this one continues.
    continues: Vec<String>,
    /// On a leader: the members, including itself.
    followers: Vec<Follower>,
    /// The member to fetch pages from, if this member is too far behind to catch up from entries.
    fetch_from: Option<u64>,
    /// The entry of the newest act; 0 if there is none.
    acts: u64,
    /// Why this member must not answer: its log lacks or contradicts what a majority acknowledged.
    alarm: Option<String>,
}

/// A member as its leader sees it.
#[pyclass(frozen, get_all, module = "qed._qed")]
#[derive(Clone, Copy)]
pub struct Follower {
    /// Number of the member.
    number: u64,
    /// The last entry that it is known to have.
    matched: u64,
    /// Whether it sent a message within the last election time-out.
    is_active: bool,
    /// How many ticks ago it sent its last one; None if it has sent none.
    silence: Option<usize>,
}

impl From<driver::Follower> for Follower {
    fn from(driver::Follower { id, matched, is_active, silence }: driver::Follower) -> Self {
        Self { number: id.get(), matched, is_active, silence }
    }
}

/// One act of an operator or a member, as it is in the chain.
#[pyclass(frozen, eq, module = "qed._qed")]
#[derive(PartialEq, Eq)]
pub struct Act(acts::Act);

#[pymethods]
impl Act {
    #[new]
    #[pyo3(signature = (*, index, term, previous, body))]
    fn new(index: u64, term: u64, previous: PyRef<'_, Digest>, body: PyBackedBytes) -> PyResult<Self> {
        let body = act_of(&body)?;
        Ok(Self(acts::Act { log_id: LogId { index, term }, previous: previous.0, body }))
    }

    /// The entry that it is the outcome of.
    #[getter]
    const fn index(&self) -> u64 {
        self.0.log_id.index
    }

    /// The term of the leader that proposed it.
    #[getter]
    const fn term(&self) -> u64 {
        self.0.log_id.term
    }

    /// The hash of the act before it; zeros for the first.
    #[getter]
    const fn previous(&self) -> Digest {
        Digest(self.0.previous)
    }

    /// The hash that the next act names.
    #[getter]
    fn hash(&self) -> Digest {
        Digest(self.0.hash())
    }

    /// What it says.
    #[getter]
    fn body<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.0.body.as_bytes())
    }
}

/// Return the body of an act.
fn act_of(bytes: &[u8]) -> PyResult<ActBody> {
    let (found, most) = (bytes.len(), ActBody::MOST_BYTES);
    let refused = || PyValueError::new_err(format!("expected an act of 1 to {most} bytes, found {found}"));
    ActBody::new(bytes.to_vec()).ok_or_else(refused)
}

/// A request that only a leader can carry out.
#[pyclass(frozen, module = "qed._qed")]
pub struct ClusterChange(membership::ClusterChange);

#[pymethods]
impl ClusterChange {
    /// Admit a member, or record its new addresses.
    #[staticmethod]
    #[pyo3(signature = (number, member, /, act = None))]
    fn admit(number: u64, member: PyRef<'_, MemberInfo>, act: Option<PyBackedBytes>) -> PyResult<Self> {
        let act = act.as_deref().map(act_of).transpose()?;
        Ok(Self(membership::ClusterChange::Admit(member_of(number)?, member.clone().into(), act)))
    }

    /// Remove the member with this name.
    #[staticmethod]
    #[pyo3(signature = (name, /, act = None))]
    fn remove(name: String, act: Option<PyBackedBytes>) -> PyResult<Self> {
        let act = act.as_deref().map(act_of).transpose()?;
        Ok(Self(membership::ClusterChange::Remove(name, act)))
    }

    /// Remove the member with the first number, unless it is alive, and admit another of its name in its place.
    #[staticmethod]
    #[pyo3(signature = (replaced, number, member, /, act = None))]
    fn replace(
        replaced: u64,
        number: u64,
        member: PyRef<'_, MemberInfo>,
        act: Option<PyBackedBytes>,
    ) -> PyResult<Self> {
        let act = act.as_deref().map(act_of).transpose()?;
        let change =
            membership::ClusterChange::Replace(member_of(replaced)?, member_of(number)?, member.clone().into(), act);
        Ok(Self(change))
    }

    /// Make the member with this name the leader, or any member if there is no name.
    #[staticmethod]
    #[pyo3(signature = (name, /))]
    const fn transfer(name: Option<String>) -> Self {
        Self(membership::ClusterChange::Transfer(name))
    }
}

/// The outcome of a request or query.
#[pyclass(frozen, get_all, module = "qed._qed")]
pub struct Completion {
    /// The ticket it was submitted with.
    ticket: u64,
    /// The result: the added events, the bytes of an answer, None, or the exception to raise.
    result: Py<PyAny>,
}

/// A message that was refused.
#[pyclass(frozen, get_all, module = "qed._qed")]
pub struct InvalidMessage {
    /// Number of the member that it claims to be from.
    sender: u64,
    /// What is wrong with it.
    reason: &'static str,
}

/// Everything that is ready since the last call of `drain`.
#[pyclass(frozen, get_all, module = "qed._qed")]
pub struct Delivery {
    /// Outcomes of requests and queries.
    completions: Vec<Py<Completion>>,
    /// Messages for other members, by their numbers.
    messages: Vec<(u64, Py<PyBytes>)>,
    /// Messages that were refused.
    invalid_messages: Vec<Py<InvalidMessage>>,
    /// Whether the status may have changed.
    is_status_new: bool,
}

/// A log with the threads that replicate it.
#[pyclass(frozen, module = "qed._qed")]
pub struct Replica(Driver, Mutex<StoredTail>);

#[pymethods]
impl Replica {
    /// Open the log in a data folder and start its threads. `high_water` is a member, its term and an entry, from a note outside the
    /// folder.
    #[staticmethod]
    #[pyo3(signature = (path, member, /, *, high_water, is_joining, tick_ms, heartbeat_ticks, election_ticks, dead_ticks, grace_s, queue_length, batch_events, proof_threads))]
    #[allow(clippy::too_many_arguments, reason = "each is a setting with a name of its own")]
    fn open(
        py: Python<'_>,
        path: PathBuf,
        member: PyRef<'_, MemberInfo>,
        high_water: Option<(u64, u64, u64)>,
        is_joining: bool,
        tick_ms: u64,
        heartbeat_ticks: usize,
        election_ticks: usize,
        dead_ticks: usize,
        grace_s: u64,
        queue_length: usize,
        batch_events: usize,
        proof_threads: usize,
    ) -> PyResult<Self> {
        let description = membership::MemberInfo::from(member.clone());
        let beginning = if is_joining { Beginning::Join } else { Beginning::Bootstrap };
        let timing = Timing { heartbeat_ticks, election_ticks, dead_ticks };
        let noted = high_water
            .map(|(member, term, index)| Ok::<_, PyErr>(HighWater { member: member_of(member)?, term, index }));
        let noted = noted.transpose()?;
        let timing = (timing, batch_events);
        let opened = py.detach(|| Opened::open_noted(&path, &description, beginning, timing, noted));
        let opened = opened.map_err(|error| error::of_folder(&error))?;
        let limits = driver::Limits {
            queue_events: queue_length,
            proof_threads,
            tick: Duration::from_millis(tick_ms),
            grace: Duration::from_secs(grace_s),
        };
        let driver = py.detach(|| Driver::of(opened, limits)).map_err(|error| error::of_io(&error))?;
        Ok(Self(driver, Mutex::default()))
    }

    /// Return how many events' trees came from the tree image when the log was opened, and why the image was not used, if that is why there
    /// are none.
    fn image(&self) -> (u64, Option<String>) {
        match self.0.log().image_use() {
            ImageUse::Missing => (0, None),
            ImageUse::Used(events) => (*events, None),
            ImageUse::Unfit(reason) => (0, Some(reason.clone())),
        }
    }

    /// The file descriptor that becomes readable when `drain` has something to return.
    #[getter]
    fn wake_fd(&self) -> i32 {
        self.0.wake_fd()
    }

    /// Return the state of the cluster as this member knows it.
    fn status(&self, py: Python<'_>) -> Status {
        let (status, id) = py.detach(|| (self.0.status(), self.0.identity().id));
        let members = &status.membership;
        let cluster = Some(members.cluster.clone()).filter(|cluster| !cluster.is_empty());
        Status {
            id: id.get(),
            cluster: cluster.or_else(|| self.0.identity().cluster.clone()),
            leader: status.role.leader.map(MemberId::get),
            term: status.role.term,
            is_leader: status.role.is_leader,
            commit_index: status.commit_index,
            applied_index: status.applied_index,
            members: members.members.iter().map(|(&id, member)| (id.get(), member.clone().into())).collect(),
            voters: members.configuration.voters.iter().copied().map(MemberId::get).collect(),
            removed: members.removed.keys().copied().map(MemberId::get).collect(),
            continues: members.continues.clone(),
            followers: status.followers.into_iter().map(Follower::from).collect(),
            fetch_from: status.snapshot_source.map(|(from, _)| from.get()),
            acts: status.acts,
            alarm: status.alarm,
        }
    }

    /// Submit events, or digests of events, as one request; the result is delivered under `ticket`.
    #[pyo3(signature = (ticket, events, /, *, if_absent = false))]
    fn submit(&self, py: Python<'_>, ticket: u64, events: Vec<Event>, if_absent: bool) -> PyResult<()> {
        let submitted = py.detach(|| self.0.submit(Ticket::new(ticket), request_of(&events, if_absent)));
        submitted.map_err(|error| error::of_submit(&error))
    }

    /// Take messages from another member, each as it was drained there; return how many of them could not be read.
    #[pyo3(signature = (sender, messages, /))]
    fn receive(&self, py: Python<'_>, sender: u64, messages: Vec<PyBackedBytes>) -> PyResult<usize> {
        let sender = member_of(sender)?;
        Ok(py.detach(|| messages.iter().filter(|message| !self.0.receive(sender, message)).count()))
    }

    /// Record that messages to a member may have been lost.
    #[pyo3(signature = (receiver, /))]
    fn lost(&self, py: Python<'_>, receiver: u64) -> PyResult<()> {
        let receiver = member_of(receiver)?;
        py.detach(|| self.0.lost(receiver));
        Ok(())
    }

    /// Wait until a read would show everything acknowledged by now; None is delivered under `ticket`.
    #[pyo3(signature = (ticket, /))]
    fn read(&self, py: Python<'_>, ticket: u64) {
        py.detach(|| self.0.read(Ticket::new(ticket)));
    }

    /// Wait until the log has this many events, or for this many ticks; None is delivered under `ticket`.
    #[pyo3(signature = (ticket, events, ticks, /))]
    fn await_events(&self, py: Python<'_>, ticket: u64, events: u64, ticks: usize) {
        py.detach(|| self.0.await_events(Ticket::new(ticket), events, ticks));
    }

    /// Submit a request that only a leader can carry out; None is delivered under `ticket`.
    #[pyo3(signature = (ticket, change, /))]
    fn request(&self, py: Python<'_>, ticket: u64, change: PyRef<'_, ClusterChange>) {
        let change = change.0.clone();
        py.detach(|| self.0.request(Ticket::new(ticket), change));
    }

    /// Record an act, as the leader; None is delivered under `ticket`.
    #[pyo3(signature = (ticket, act, /))]
    fn act(&self, py: Python<'_>, ticket: u64, act: PyBackedBytes) -> PyResult<()> {
        let body = act_of(&act)?;
        py.detach(|| self.0.act(Ticket::new(ticket), body));
        Ok(())
    }

    /// Return the acts after an entry, oldest first, at most `most` and about 512 KiB.
    #[pyo3(signature = (after_index, most, /))]
    fn acts(&self, py: Python<'_>, after_index: u64, most: usize) -> PyResult<Vec<Act>> {
        let found = py.detach(|| self.0.log().acts(after_index, most)).map_err(|error| error::of_log(&error))?;
        Ok(found.into_iter().map(Act).collect())
    }

    /// Return the extent of this log and its last applied entry: another member needs them to read the part that follows.
    fn extent(&self, py: Python<'_>) -> PyResult<Py<PyBytes>> {
        let bytes = py.detach(|| {
            let log = self.0.log();
            let extent = log.extent_at(log.len())?;
            Ok([extent.to_bytes(), log.applied().to_bytes().to_vec()].concat())
        });
        let bytes: Vec<u8> = bytes.map_err(|error| error::of_log(&error))?;
        Ok(PyBytes::new(py, &bytes).unbind())
    }

    /// Request the page that continues an extent; its bytes are delivered under `ticket`.
    #[pyo3(signature = (ticket, extent, /))]
    fn ask_page(&self, py: Python<'_>, ticket: u64, extent: PyBackedBytes) -> PyResult<()> {
        let (start, after) = extent.split_at_checked(Extent::BYTES).unwrap_or((&extent, &[]));
        let start = Extent::from_bytes(start).map_err(|error| error::of_page(&error))?;
        let malformed = || error::of_page(&PageError::Malformed("an extent with a log id"));
        let after = LogId::from_slice(after).ok_or_else(malformed)?;
        py.detach(|| self.0.ask(Ticket::new(ticket), Query::Page { start, after }));
        Ok(())
    }

    /// Append a page from another member; None is delivered under `ticket`.
    #[pyo3(signature = (ticket, page, /))]
    fn install(&self, py: Python<'_>, ticket: u64, page: PyBackedBytes) -> PyResult<()> {
        let installed = py.detach(|| Page::from_bytes(&page).map(|page| self.0.install(Ticket::new(ticket), page)));
        installed.map_err(|error| error::of_page(&error))
    }

    /// Return the beginning of a backup of everything, or of what follows the place `since` of an earlier backup.
    #[pyo3(signature = (*, since, log, node_id, software, created_s))]
    fn begin_backup(
        &self,
        py: Python<'_>,
        since: Option<PyBackedBytes>,
        log: String,
        node_id: String,
        software: String,
        created_s: u64,
    ) -> PyResult<Py<PyBytes>> {
        let since = since.map(|bytes| cursor_in(&bytes)).transpose()?;
        let origin = Origin { log, node_id, software, created_s };
        let start = since.map(|cursor| cursor.reach).unwrap_or_default();
        let header = Header { start, base: since.map(|cursor| cursor.chain), origin };
        let begun = py.detach(|| backup::beginning(self.0.log(), &header));
        begun.map(|bytes| PyBytes::new(py, &bytes).unbind()).map_err(|error| error::of_page(&error))
    }

    /// Ask for what follows a place in a backup, which may end after `until` events; its bytes come under `ticket`.
    #[pyo3(signature = (ticket, after, /, *, until = None))]
    fn ask_backup(&self, py: Python<'_>, ticket: u64, after: PyBackedBytes, until: Option<u64>) -> PyResult<()> {
        let after = cursor_in(&after)?;
        py.detach(|| self.0.ask(Ticket::new(ticket), Query::Backup { after, until }));
        Ok(())
    }

    /// Request the membership or absence proof of an event; its JSON is delivered under `ticket`.
    #[pyo3(signature = (ticket, digest, /, *, version = None, key = None))]
    fn ask_membership(
        &self,
        py: Python<'_>,
        ticket: u64,
        digest: PyRef<'_, Digest>,
        version: Option<u64>,
        key: Option<PyBackedBytes>,
    ) {
        let (digest, key) = (digest.0, key.map(|key| key.to_vec()));
        py.detach(|| self.0.ask(Ticket::new(ticket), Query::Membership { digest, version, key }));
    }

    /// Request the proof for many events; its JSON is delivered under `ticket`.
    #[pyo3(signature = (ticket, question, /))]
    fn ask_bulk(&self, py: Python<'_>, ticket: u64, question: PyRef<'_, BulkMembership>) {
        let keys = question.keys.clone();
        py.detach(|| self.0.ask(Ticket::new(ticket), Query::Bulk { keys }));
    }

    /// Request the proof that the log at `end` extends the log at `start`; its JSON is delivered under `ticket`.
    #[pyo3(signature = (ticket, start, end, /))]
    fn ask_incremental(&self, py: Python<'_>, ticket: u64, start: u64, end: u64) {
        py.detach(|| self.0.ask(Ticket::new(ticket), Query::Incremental { start, end }));
    }

    /// Request the snapshot of a version as it was acknowledged; its JSON is delivered under `ticket`.
    #[pyo3(signature = (ticket, version, /))]
    fn ask_snapshot(&self, py: Python<'_>, ticket: u64, version: u64) {
        py.detach(|| self.0.ask(Ticket::new(ticket), Query::Snapshot { version }));
    }

    /// Request a file of the transparency log; its bytes are delivered under `ticket`.
    #[pyo3(signature = (ticket, path, /))]
    fn ask_tile(&self, py: Python<'_>, ticket: u64, path: PyRef<'_, TilePath>) {
        let path = path.0;
        py.detach(|| self.0.ask(Ticket::new(ticket), Query::Tile { path }));
    }

    /// Request the receipts for ranges of versions; they are delivered under `ticket`, a line each, empty where there is none.
    #[pyo3(signature = (ticket, ranges, checkpoint, lines, /))]
    fn ask_receipts(
        &self,
        py: Python<'_>,
        ticket: u64,
        ranges: Vec<(u64, u64)>,
        checkpoint: PyRef<'_, UnsignedCheckpoint>,
        lines: Vec<String>,
    ) -> PyResult<()> {
        let ranges = ranges.into_iter().map(|(first, end)| first..end).collect();
        let (checkpoint, lines) = (checkpoint.0.clone(), lines_of(&lines)?);
        py.detach(|| self.0.ask(Ticket::new(ticket), Query::Receipts { ranges, checkpoint, lines }));
        Ok(())
    }

    /// Return size and root of the tree over the entries, as it is now.
    fn tree_head(&self, py: Python<'_>) -> PyResult<(u64, Digest)> {
        py.detach(|| self.0.log().tree_head()).map(of_head).map_err(|error| error::of_log(&error))
    }

    /// Return the root that the tree had with `size` entries.
    #[pyo3(signature = (size, /))]
    fn tree_root_at(&self, py: Python<'_>, size: u64) -> PyResult<Digest> {
        let head = py.detach(|| self.0.log().tree_head_at(size)).map_err(|error| error::of_log(&error))?;
        Ok(Digest(*head.root()))
    }

    /// Return the same from what is stored alone. What was read for an earlier size is not read again.
    #[pyo3(signature = (size, /))]
    fn stored_tree_root_at(&self, py: Python<'_>, size: u64) -> PyResult<Digest> {
        let head = py.detach(|| {
            let mut tail = self.1.lock().unwrap_or_else(PoisonError::into_inner);
            tail.head_at(self.0.log(), size)
        });
        Ok(Digest(*head.map_err(|error| error::of_log(&error))?.root()))
    }

    /// Return the proof that the tree with `size` entries extends the one with `old`.
    #[pyo3(signature = (old, size, /))]
    fn consistency(&self, py: Python<'_>, old: u64, size: u64) -> PyResult<Vec<Digest>> {
        let proof = py.detach(|| self.0.log().consistency(old, size)).map_err(|error| error::of_log(&error))?;
        Ok(proof.into_iter().map(Digest).collect())
    }

    /// Return what this replica has done since it was started.
    fn metrics(&self, py: Python<'_>) -> ReplicaMetrics {
        py.detach(|| ReplicaMetrics::of(&self.0))
    }

    /// Return everything that is ready since the last call.
    fn drain(&self, py: Python<'_>) -> PyResult<Delivery> {
        let delivery = py.detach(|| self.0.drain()).map_err(|error| error::of_io(&error))?;
        let outbox::Delivery { completions, messages, invalid_messages, is_status_new } = delivery;
        let completed = |outbox::Completion { ticket, outcome }| {
            Py::new(py, Completion { ticket: ticket.get(), result: result_of(py, outcome)? })
        };
        let refused = |message_check::InvalidMessage { from, reason }| {
            Py::new(py, InvalidMessage { sender: from.map_or(0, MemberId::get), reason })
        };
        Ok(Delivery {
            completions: completions.into_iter().map(completed).collect::<PyResult<_>>()?,
            messages: messages.iter().map(|(to, bytes)| (to.get(), PyBytes::new(py, bytes).unbind())).collect(),
            invalid_messages: invalid_messages.into_iter().map(refused).collect::<PyResult<_>>()?,
            is_status_new,
        })
    }

    /// Return why the threads have stopped, or None if they are running.
    fn failure(&self, py: Python<'_>) -> Option<String> {
        py.detach(|| self.0.failure())
    }

    /// Finish everything that was accepted, then end the threads.
    fn close(&self, py: Python<'_>) {
        py.detach(|| self.0.close());
    }

    fn __len__(&self, py: Python<'_>) -> PyResult<usize> {
        Ok(usize::try_from(py.detach(|| self.0.log().len()))?)
    }
}

fn of_head(head: TreeHead) -> (u64, Digest) {
    (head.size(), Digest(*head.root()))
}

/// Return the member with a number from Python.
fn member_of(number: u64) -> PyResult<MemberId> {
    MemberId::new(number).ok_or_else(error::no_member)
}

fn result_of(py: Python<'_>, outcome: Outcome) -> PyResult<Py<PyAny>> {
    Ok(match outcome {
        Ok(Success::Added(added)) => Py::new(py, Added(added))?.into_any(),
        Ok(Success::Answered(bytes)) => PyBytes::new(py, &bytes).unbind().into_any(),
        Ok(Success::Done) => py.None(),
        Err(failure) => error::of_failure(&failure).into_value(py).into_any(),
    })
}
