//! The outbox: results from the threads of a replica for its caller, with one wake-up for all that are ready.

use std::io::{self, PipeReader, PipeWriter, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, RawFd};
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use qed_core::error::LogError;
use qed_core::log::Added;
use qed_core::page::PageError;

use crate::member_id::MemberId;
use crate::membership::Inadmissible;
use crate::message_check::InvalidMessage;
use crate::metrics::Metrics;
use crate::ticket::Ticket;

/// The outcome of one request or query, under its ticket.
#[derive(Debug)]
pub struct Completion {
    /// The one that the caller gave.
    pub ticket: Ticket,
    /// The outcome.
    pub outcome: Outcome,
}

/// The outcome of a request or query.
pub type Outcome = Result<Success, Failure>;

/// The result of a successful request or query.
#[derive(Debug)]
pub enum Success {
    /// The added events, durable on a majority.
    Added(Added),
    /// The answer to a query.
    Answered(Vec<u8>),
    /// It was done, and has no result.
    Done,
}

/// Why a request or query failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Nothing was done.
    #[error("this member is not the leader")]
    NotLeader,
    /// A similar request is under way, so nothing was done.
    #[error("another change of leader or members is under way")]
    Busy,
    /// The membership does not allow it, so nothing was done.
    #[error(transparent)]
    Inadmissible(#[from] Inadmissible),
    /// Leadership was lost while the request was under way: it may still be carried out.
    #[error("leadership was lost while the insertion was under way; it may still be committed")]
    Unknown,
    /// This member's disk failed, so it is not known whether anything was added.
    #[error("{0}; fix the cause, then restart this member")]
    WriteFailed(String),
    /// The log cannot answer the query.
    #[error(transparent)]
    Unanswered(LogError),
    /// A page for another member could not be read, or a page of another member was not installed.
    #[error(transparent)]
    PageRefused(PageError),
}

/// Everything that waits for the caller.
#[derive(Debug, Default)]
pub struct Delivery {
    /// The outcomes of requests.
    pub completions: Vec<Completion>,
    /// Messages for other members, by their numbers, oldest first.
    pub messages: Vec<(MemberId, Vec<u8>)>,
    /// Invalid messages; only the first ones if there are many.
    pub invalid_messages: Vec<InvalidMessage>,
    /// Whether leader, membership, snapshot source or newest act may have changed.
    pub is_status_new: bool,
}

/// Maximum number of invalid messages kept between two drains; the caller only logs them.
const MOST_INVALID: usize = 16;

/// Deliveries on their way to the caller, and a pipe that is readable while there are any.
#[derive(Debug)]
pub(crate) struct Outbox {
    waiting: Mutex<Waiting>,
    wake_reader: PipeReader,
    metrics: Arc<Metrics>,
}

/// Filled by the threads, emptied by the caller. There is a byte in the pipe exactly if `is_signalled`.
#[derive(Debug)]
struct Waiting {
    delivery: Delivery,
    failure: Option<String>,
    is_signalled: bool,
    /// Since when there is something.
    since: Instant,
    wake_writer: PipeWriter,
}

impl Outbox {
    /// Return an empty outbox, or the error of the operating system if it cannot create the pipe.
    pub(crate) fn new(metrics: &Arc<Metrics>) -> io::Result<Self> {
        let (wake_reader, wake_writer) = io::pipe()?;
        let (delivery, since) = (Delivery::default(), Instant::now());
        let waiting = Waiting { delivery, failure: None, is_signalled: false, since, wake_writer };
        Ok(Self { waiting: Mutex::new(waiting), wake_reader, metrics: Arc::clone(metrics) })
    }

    /// Add completions, and wake the caller if nothing is waiting yet.
    pub(crate) fn put(&self, completions: impl IntoIterator<Item = Completion>) {
        self.change(|waiting| waiting.delivery.completions.extend(completions));
    }

    /// Add messages for other members.
    pub(crate) fn send(&self, messages: impl IntoIterator<Item = (MemberId, Vec<u8>)>) {
        self.change(|waiting| waiting.delivery.messages.extend(messages));
    }

    /// Report invalid messages.
    pub(crate) fn report_invalid(&self, messages: Vec<InvalidMessage>) {
        self.change(|waiting| {
            let room = MOST_INVALID.saturating_sub(waiting.delivery.invalid_messages.len());
            waiting.delivery.invalid_messages.extend(messages.into_iter().take(room));
        });
    }

    /// Tell the caller that the status may have changed.
    pub(crate) fn renew_status(&self) {
        self.change(|waiting| waiting.delivery.is_status_new = true);
    }

    /// Record why no request will be carried out any more. The first reason is kept.
    pub(crate) fn fail(&self, reason: String) {
        self.change(|waiting| {
            waiting.failure.get_or_insert(reason);
        });
    }

    /// Remove and return everything. Does not wait.
    pub(crate) fn drain(&self) -> io::Result<Delivery> {
        let mut waiting = self.waiting.lock();
        if waiting.is_signalled {
            // The byte was written under this lock, so this does not block.
            (&self.wake_reader).read_exact(&mut [0])?;
            waiting.is_signalled = false;
            self.metrics.answer.add_duration(waiting.since.elapsed());
        }
        Ok(std::mem::take(&mut waiting.delivery))
    }

    pub(crate) fn failure(&self) -> Option<String> {
        self.waiting.lock().failure.clone()
    }

    pub(crate) fn wake_fd(&self) -> RawFd {
        self.wake_reader.as_raw_fd()
    }

    fn change(&self, change: impl FnOnce(&mut Waiting)) {
        let mut waiting = self.waiting.lock();
        change(&mut waiting);
        let delivery = &waiting.delivery;
        let is_empty =
            delivery.completions.is_empty() && delivery.messages.is_empty() && delivery.invalid_messages.is_empty();
        let is_empty = is_empty && !delivery.is_status_new;
        if !waiting.is_signalled && (!is_empty || waiting.failure.is_some()) {
            // An empty pipe has room for a byte; without a reader there is no caller to wake.
            waiting.is_signalled = waiting.wake_writer.write_all(&[1]).is_ok();
            waiting.since = Instant::now();
        }
    }
}
