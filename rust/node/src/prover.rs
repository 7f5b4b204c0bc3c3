//! The prover: threads that answer queries about a log, so that an event loop waits neither for hashes nor for a disk.
//!
//! They take no lock that a writer holds for long: each answer comes from one consistent view of the log.

use std::io;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Instant;

use parking_lot::Mutex;
use qed_core::backup::{self, Cursor};
use qed_core::bulk_proof::BulkKeys;
use qed_core::error::LogError;
use qed_core::hash::Digest;
use qed_core::log::Log;
use qed_core::log_id::LogId;
use qed_core::page::{Extent, PageError};
use qed_core::proof::Answer;
use qed_core::receipts::ReceiptError;
use qed_core::tlog::checkpoint::Checkpoint;
use qed_core::tlog::note::Line;
use qed_core::tlog::tile::TilePath;

use crate::metrics::Metrics;
use crate::outbox::{Completion, Failure, Outbox, Outcome, Success};
use crate::queue::Queue;
use crate::ticket::Ticket;

/// Maximum number of queries whose answers are delivered together. A wake-up costs the caller as much as a proof costs here, and the
/// first answer waits for the last: half a millisecond.
const QUERIES_A_WAKE_UP: usize = 16;

/// Maximum number of events in a page, not counting its last batch: 2 MiB, which takes some tenths of a second to install.
const PAGE_EVENTS: u64 = 1 << 16;

/// Most events of a page of a backup, likewise: half a mebibyte, which is read in some milliseconds. Proofs wait for it.
const BACKUP_EVENTS: u64 = 1 << 14;

/// A query about a log. Answers are JSON, except for pages, backups and tiles.
#[derive(Debug)]
pub enum Query {
    /// Is this event in the log, or was it at this version? The event itself is echoed if it is known.
    Membership {
        /// The event's digest.
        digest: Digest,
        /// The version to prove at; None is the latest.
        version: Option<u64>,
        /// The event, to be echoed.
        key: Option<Vec<u8>>,
    },
    /// Which of these events are in the log?
    Bulk {
        /// The events' digests.
        keys: BulkKeys,
    },
    /// Does the log at `end` extend the log at `start`?
    Incremental {
        /// The earlier version.
        start: u64,
        /// The later version.
        end: u64,
    },
    /// Which page continues this log of another replica?
    Page {
        /// Where its log ends.
        start: Extent,
        /// How far it has applied entries.
        after: LogId,
    },
    /// What follows in a backup?
    Backup {
        /// The place up to which it is written.
        after: Cursor,
        /// The number of events with which it may end; None is all of the log.
        until: Option<u64>,
    },
    /// What does this file of the transparency log hold?
    Tile {
        /// The file.
        path: TilePath,
    },
    /// What are the receipts for these ranges of versions? The answer has a line for each, which is empty if there is none.
    Receipts {
        /// The versions: each range is within one commit batch.
        ranges: Vec<Range<u64>>,
        /// The checkpoint that the receipts rest on.
        checkpoint: Checkpoint,
        /// The lines that sign it.
        lines: Vec<Line>,
    },
    /// Which snapshot was acknowledged for this version?
    Snapshot {
        /// The version.
        version: u64,
    },
}

impl Query {
    /// Return what the query is about, as a place in [`QUERIES`](crate::metrics::QUERIES). Whether an event is absent, only the answer says.
    const fn kind(&self, answer: Option<&Answer>) -> usize {
        match self {
            Self::Membership { .. } => matches!(answer, Some(Answer::Absent(_))) as usize,
            Self::Incremental { .. } => 2,
            Self::Snapshot { .. } => 3,
            Self::Receipts { .. } => 4,
            Self::Tile { .. } => 5,
            Self::Page { .. } => 6,
            Self::Backup { .. } => 7,
            Self::Bulk { .. } => 8,
        }
    }

    /// Return whether the query takes some milliseconds, which the answers of others must not wait for.
    const fn is_long(&self) -> bool {
        matches!(self, Self::Bulk { .. })
    }

    /// Return the outcome of the query. A panic must not end the thread, which has further queries to answer.
    fn outcome(&self, log: &Log, metrics: &Metrics) -> Outcome {
        let bug = || Err(LogError::Bug("answering a query panicked; the panic message is on stderr").into());
        let (begun, mut kind) = (Instant::now(), self.kind(None));
        let answered = catch_unwind(AssertUnwindSafe(|| self.answer(log, &mut kind))).unwrap_or_else(|_| bug());
        if let Some(times) = metrics.queries.get(kind) {
            times.add_duration(begun.elapsed());
        }
        match answered {
            Ok(bytes) => Ok(Success::Answered(bytes)),
            Err(PageError::Log(error)) => Err(Failure::Unanswered(error)),
            Err(error) => Err(Failure::PageRefused(error)),
        }
    }

    fn answer(&self, log: &Log, kind: &mut usize) -> Result<Vec<u8>, PageError> {
        let json = match self {
            Self::Page { start, after } => return log.page(*start, *after, PAGE_EVENTS).map(|page| page.to_bytes()),
            Self::Tile { path } => return Ok(log.tile(path)?),
            Self::Receipts { ranges, checkpoint, lines } => return receipts(log, ranges, checkpoint, lines),
            Self::Backup { after, until } => return backup::continuation(log, *after, BACKUP_EVENTS, *until),
            Self::Membership { digest, version, key } => {
                let answer = log.prove(digest, *version)?;
                *kind = self.kind(Some(&answer));
                answer.to_json(key.as_deref())
            }
            Self::Bulk { keys } => log.prove_bulk(keys)?.to_json(),
            Self::Incremental { start, end } => log.prove_incremental(*start, *end)?.to_json(),
            Self::Snapshot { version } => log.snapshot(*version)?.to_json(),
        };
        Ok(json.into_bytes())
    }
}

fn receipts(log: &Log, ranges: &[Range<u64>], head: &Checkpoint, lines: &[Line]) -> Result<Vec<u8>, PageError> {
    let unfit = |error| match error {
        ReceiptError::Log(error) => PageError::Log(error),
        ReceiptError::Unfit(_) => PageError::Log(LogError::Bug("a checkpoint to be signed is not of this log")),
    };
    let maker = log.receipts(head, lines.to_vec()).map_err(unfit)?;
    let mut answer = String::new();
    for range in ranges {
        match maker.receipt(range.clone()) {
            Ok(receipt) => answer.push_str(&receipt.to_json()),
            // Only the one who asked for it goes without.
            Err(ReceiptError::Unfit(_) | ReceiptError::Log(LogError::UnknownVersion { .. })) => {}
            Err(ReceiptError::Log(error)) => return Err(error.into()),
        }
        answer.push('\n');
    }
    Ok(answer.into_bytes())
}

/// Threads that answer queries in turn.
#[derive(Debug)]
pub(crate) struct Prover {
    queries: Arc<Queue<(Ticket, Query)>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Prover {
    /// Start `threads` threads that answer from `log` into `outbox`.
    pub(crate) fn start(
        log: &Arc<Log>,
        outbox: &Arc<Outbox>,
        metrics: &Arc<Metrics>,
        threads: usize,
    ) -> io::Result<Self> {
        let prover = Self { queries: Arc::default(), threads: Mutex::default() };
        for number in 0..threads {
            let (queries, log, outbox) = (Arc::clone(&prover.queries), Arc::clone(log), Arc::clone(outbox));
            let metrics = Arc::clone(metrics);
            let run = move || run(&queries, &log, &outbox, &metrics);
            prover.threads.lock().push(thread::Builder::new().name(format!("qed-prover-{number}")).spawn(run)?);
        }
        Ok(prover)
    }

    /// Queue a query. Its answer is put into the outbox under `ticket`, exactly once, unless the prover is closed.
    pub(crate) fn ask(&self, ticket: Ticket, query: Query) {
        // The queue is never ended, only closed.
        let _ = self.queries.put(vec![(ticket, query)]);
    }

    /// Answer the waiting queries, then end the threads.
    pub(crate) fn close(&self) {
        self.queries.close();
        for thread in self.threads.lock().drain(..) {
            // The runtime has reported a panic in the thread; then there is nothing left to finish.
            let _ = thread.join();
        }
    }
}

impl Drop for Prover {
    fn drop(&mut self) {
        self.close();
    }
}

/// Answer queries until the queue is closed and empty.
fn run(queries: &Queue<(Ticket, Query)>, log: &Log, outbox: &Outbox, metrics: &Metrics) {
    loop {
        let taken = queries.take_up_to(QUERIES_A_WAKE_UP);
        if taken.is_empty() {
            return;
        }
        let mut answered = Vec::with_capacity(taken.len());
        for (ticket, query) in taken {
            if query.is_long() && !answered.is_empty() {
                outbox.put(std::mem::take(&mut answered));
            }
            answered.push(Completion { ticket, outcome: query.outcome(log, metrics) });
            if query.is_long() {
                outbox.put(std::mem::take(&mut answered));
            }
        }
        if !answered.is_empty() {
            outbox.put(answered);
        }
    }
}
