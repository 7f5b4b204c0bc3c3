//! The driver: one thread that owns the writing of a log, fed by a bounded queue.
//!
//! Whatever waits when the thread is free becomes one commit batch with one sync, so the batch grows with the load and a lone
//! request waits for nobody. Results are handed out a batch at a time, with one wake-up through a pipe that an event loop can watch.

use std::collections::VecDeque;
use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use parking_lot::{Condvar, Mutex};
use qed_core::error::LogError;
use qed_core::log::{Log, Request};

use crate::outbox::{Completion, Outbox, Outcome};
use crate::prover::{Prover, Question};

/// How much may wait, and how much goes into one batch.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Most events that may wait to be appended. A request that finds any room is taken whole.
    pub queue_events: usize,
    /// Events after which a batch is closed; the request that reaches it still goes in whole.
    pub batch_events: usize,
    /// Threads that answer questions.
    pub proof_threads: usize,
}

/// Why a request was not taken. Nothing of it will be appended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// As many events wait as may.
    #[error("{waiting} events are waiting to be added; try again later")]
    Overloaded {
        /// How many wait.
        waiting: usize,
    },
    /// The request names no event.
    #[error("a request to append must hold at least one event")]
    Empty,
    /// The driver is closing, or a write or sync has failed.
    #[error("the log takes no more events: {reason}")]
    Refused {
        /// What happened.
        reason: String,
    },
}

/// A log with the thread that appends to it, and those that answer questions about it.
#[derive(Debug)]
pub struct Driver {
    log: Arc<Log>,
    outbox: Arc<Outbox>,
    prover: Prover,
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Shared {
    limits: Limits,
    queue: Mutex<Queue>,
    /// Told when something is put into the queue, and when it is closed.
    is_fed: Condvar,
}

/// Touched by callers and the thread.
#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<(u64, Request)>,
    waiting_events: usize,
    /// Why nothing is taken any more: the driver was closed, or failed.
    refusal: Option<String>,
}

impl Driver {
    /// Start the thread that appends to `log`.
    ///
    /// # Errors
    ///
    /// What the operating system says if it gives no pipe or no thread.
    pub fn start(log: Log, limits: Limits) -> io::Result<Self> {
        let (log, outbox) = (Arc::new(log), Arc::new(Outbox::new()?));
        let shared = Arc::new(Shared { limits, queue: Mutex::default(), is_fed: Condvar::new() });
        let prover = Prover::start(&log, &outbox, limits.proof_threads)?;
        let (thread_log, thread_outbox, thread_shared) = (Arc::clone(&log), Arc::clone(&outbox), Arc::clone(&shared));
        let run = move || thread_shared.run(&thread_log, &thread_outbox);
        let thread = thread::Builder::new().name("qed-driver".into()).spawn(run)?;
        Ok(Self { log, outbox, prover, shared, thread: Mutex::new(Some(thread)) })
    }

    /// Return the log.
    #[must_use]
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Return the end of the pipe that becomes readable when [`Self::drain`] has something to give.
    #[must_use]
    pub fn wake_fd(&self) -> RawFd {
        self.outbox.wake_fd()
    }

    /// Put a request into the queue. Its result comes under `ticket` from [`Self::drain`], exactly once.
    ///
    /// # Errors
    ///
    /// [`SubmitError`] if it was not taken.
    pub fn submit(&self, ticket: u64, request: Request) -> Result<(), SubmitError> {
        if request.digests.is_empty() {
            return Err(SubmitError::Empty);
        }
        let mut queue = self.shared.queue.lock();
        if let Some(reason) = &queue.refusal {
            return Err(SubmitError::Refused { reason: reason.clone() });
        }
        if queue.waiting_events >= self.shared.limits.queue_events {
            return Err(SubmitError::Overloaded { waiting: queue.waiting_events });
        }
        queue.waiting_events += request.digests.len();
        queue.waiting.push_back((ticket, request));
        drop(queue);
        self.shared.is_fed.notify_one();
        Ok(())
    }

    /// Put a question. Its answer comes under `ticket` from [`Self::drain`], exactly once. Tickets of questions and of requests
    /// must differ.
    pub fn ask(&self, ticket: u64, question: Question) {
        self.prover.ask(ticket, question);
    }

    /// Take the results that have come since the last call. Does not wait.
    ///
    /// # Errors
    ///
    /// What the operating system says if the pipe is broken.
    pub fn drain(&self) -> io::Result<Vec<Completion>> {
        self.outbox.drain()
    }

    /// Return why the thread has stopped, if a write or a sync failed.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        self.outbox.failure()
    }

    /// Take no more requests, finish those that wait, and end the threads. Their results can still be drained.
    pub fn close(&self) {
        self.shared.queue.lock().refusal.get_or_insert_with(|| "it is closing".into());
        self.shared.is_fed.notify_one();
        if let Some(thread) = self.thread.lock().take() {
            // A panic in the thread has been reported by the runtime; there is nothing left to finish then.
            let _ = thread.join();
        }
        self.prover.close();
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    fn run(&self, log: &Log, outbox: &Outbox) {
        while let Some((tickets, requests)) = self.next_batch() {
            match log.append(&requests) {
                Ok(added) => outbox.put(
                    tickets
                        .into_iter()
                        .zip(added)
                        .map(|(ticket, added)| Completion { ticket, outcome: Outcome::Added(added) }),
                ),
                Err(error) => return self.fail(&tickets, &error, outbox),
            }
        }
    }

    /// Wait for requests and take as many as go into one batch; nothing when the queue is closed and empty.
    fn next_batch(&self) -> Option<(Vec<u64>, Vec<Request>)> {
        let mut queue = self.queue.lock();
        while queue.waiting.is_empty() {
            if queue.refusal.is_some() {
                return None;
            }
            self.is_fed.wait(&mut queue);
        }
        let (mut tickets, mut requests, mut events) = (Vec::new(), Vec::new(), 0);
        while events < self.limits.batch_events
            && let Some((ticket, request)) = queue.waiting.pop_front()
        {
            events += request.digests.len();
            tickets.push(ticket);
            requests.push(request);
        }
        queue.waiting_events -= events;
        Some((tickets, requests))
    }

    /// A write or a sync failed: whether the batch is on disk is unknown, and nothing may be written after it.
    fn fail(&self, tickets: &[u64], error: &LogError, outbox: &Outbox) {
        let reason = error.to_string();
        let waiting = {
            let mut queue = self.queue.lock();
            queue.refusal = Some(reason.clone());
            queue.waiting_events = 0;
            std::mem::take(&mut queue.waiting)
        };
        let all = tickets.iter().copied().chain(waiting.into_iter().map(|(ticket, _)| ticket));
        let failed = all.map(|ticket| Completion { ticket, outcome: Outcome::WriteFailed(reason.clone()) });
        outbox.fail(failed, reason.clone());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use qed_core::hash::Digest;
    use qed_core::store::{MemoryStore, Row, Store, Table, Visit, WriteBatch};

    use super::*;

    /// A disk whose sync fails after a number of times.
    struct FailingDisk(MemoryStore, AtomicUsize);

    impl Store for FailingDisk {
        fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, LogError> {
            self.0.get(table, key)
        }

        fn first_in(&self, table: Table, from: &[u8], to: &[u8]) -> Result<Option<Row>, LogError> {
            self.0.first_in(table, from, to)
        }

        fn last_in(&self, table: Table, from: &[u8], to: &[u8]) -> Result<Option<Row>, LogError> {
            self.0.last_in(table, from, to)
        }

        fn scan(&self, table: Table, visit: &mut Visit<'_>) -> Result<(), LogError> {
            self.0.scan(table, visit)
        }

        fn write(&self, batch: WriteBatch) -> Result<(), LogError> {
            self.0.write(batch)
        }

        fn sync(&self) -> Result<(), LogError> {
            let left = self.1.load(Ordering::SeqCst);
            let failed = || LogError::Store { action: "sync".into(), cause: "the disk is gone".into() };
            self.1.store(left.checked_sub(1).ok_or_else(failed)?, Ordering::SeqCst);
            Ok(())
        }

        fn note_durable(&self, _len: u64) -> Result<(), LogError> {
            Ok(())
        }

        fn noted_durable(&self) -> u64 {
            0
        }
    }

    fn request(text: &str) -> Request {
        Request { digests: vec![Digest::of_event(text.as_bytes())], if_absent: false }
    }

    fn wait(driver: &Driver, count: usize) -> Vec<Completion> {
        let mut found = Vec::new();
        while found.len() < count {
            found.extend(driver.drain().unwrap());
            thread::yield_now();
        }
        found
    }

    #[test]
    fn every_request_gets_its_own_result_once() {
        let limits = Limits { queue_events: 1000, batch_events: 7, proof_threads: 0 };
        let driver = Driver::start(Log::in_memory().unwrap(), limits).unwrap();
        for ticket in 0..100 {
            driver.submit(ticket, request(&ticket.to_string())).unwrap();
        }
        for completion in wait(&driver, 100) {
            let Outcome::Added(added) = completion.outcome else { panic!("{completion:?}") };
            let snapshots = added.snapshots;
            assert_eq!(snapshots[0].event_digest, Digest::of_event(completion.ticket.to_string().as_bytes()));
            assert_eq!(snapshots[0].version, completion.ticket);
        }
        assert_eq!(driver.log().len(), 100);
    }

    #[test]
    fn what_was_accepted_is_finished_on_close() {
        let limits = Limits { queue_events: 1000, batch_events: 3, proof_threads: 0 };
        let driver = Driver::start(Log::in_memory().unwrap(), limits).unwrap();
        for ticket in 0..50 {
            driver.submit(ticket, request("again")).unwrap();
        }
        driver.close();
        assert_eq!(driver.drain().unwrap().len(), 50);
        assert!(matches!(driver.submit(50, request("late")), Err(SubmitError::Refused { .. })));
    }

    #[test]
    fn a_failed_sync_fails_everyone_who_waits_and_all_who_come() {
        let disk = FailingDisk(MemoryStore::new(), AtomicUsize::new(3));
        let limits = Limits { queue_events: 1000, batch_events: 1, proof_threads: 1 };
        let driver = Driver::start(Log::over(Box::new(disk)).unwrap(), limits).unwrap();
        let submitted = (0..50).filter(|&ticket| driver.submit(ticket, request(&ticket.to_string())).is_ok()).count();
        let results = wait(&driver, submitted);
        assert_eq!(results.iter().filter(|completion| matches!(completion.outcome, Outcome::Added(_))).count(), 3);
        assert!(driver.failure().unwrap().contains("the disk is gone"));
        assert!(matches!(driver.submit(99, request("late")), Err(SubmitError::Refused { .. })));
        // What failed is not shown, though it may be on the disk.
        assert_eq!(driver.log().len(), 3);
    }

    #[test]
    fn a_full_queue_refuses_and_an_empty_request_too() {
        let driver =
            Driver::start(Log::in_memory().unwrap(), Limits { queue_events: 0, batch_events: 1, proof_threads: 0 })
                .unwrap();
        assert_eq!(driver.submit(0, request("any")), Err(SubmitError::Overloaded { waiting: 0 }));
        let empty = Request { digests: Vec::new(), if_absent: false };
        assert_eq!(driver.submit(0, empty), Err(SubmitError::Empty));
    }

    #[test]
    fn questions_are_answered_beside_requests_and_before_the_end() {
        let limits = Limits { queue_events: 1000, batch_events: 1000, proof_threads: 2 };
        let driver = Driver::start(Log::in_memory().unwrap(), limits).unwrap();
        driver.submit(0, request("a")).unwrap();
        wait(&driver, 1);
        for ticket in 1..100 {
            driver.ask(ticket, Question::Snapshot { version: ticket % 2 });
        }
        driver.close();
        let mut completions = driver.drain().unwrap();
        completions.sort_by_key(|completion| completion.ticket);
        assert_eq!(completions.len(), 99);
        let expected = driver.log().snapshot(0).unwrap().to_json();
        for Completion { ticket, outcome } in completions {
            match outcome {
                Outcome::Answered(json) => assert_eq!((ticket % 2, json.as_str()), (0, expected.as_str())),
                Outcome::Unanswered(LogError::UnknownVersion { .. }) => assert_eq!(ticket % 2, 1),
                other => panic!("{other:?}"),
            }
        }
    }
}
