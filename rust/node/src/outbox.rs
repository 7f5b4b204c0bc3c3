//! The outbox: what the threads of a replica hand to its caller, with one wake-up for however much waits there.

use std::io::{self, PipeReader, PipeWriter, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, RawFd};

use parking_lot::Mutex;
use qed_core::error::LogError;
use qed_core::log::Added;

/// What came of one request or question, under the ticket it was put with.
#[derive(Debug)]
pub struct Completion {
    /// The number the caller gave.
    pub ticket: u64,
    /// What came of it.
    pub outcome: Outcome,
}

/// What a request to append or a question can come to.
#[derive(Debug)]
pub enum Outcome {
    /// What was added, durable.
    Added(Added),
    /// Why it is not known whether anything was added.
    WriteFailed(String),
    /// The answer to a question, as JSON.
    Answered(String),
    /// Why a question has no answer.
    Unanswered(LogError),
}

/// Completions on their way to the caller, and a pipe that is readable while there are any.
#[derive(Debug)]
pub(crate) struct Outbox {
    waiting: Mutex<Waiting>,
    wake_reader: PipeReader,
}

/// Filled by the threads, emptied by the caller. There is a byte in the pipe exactly if `is_signalled`.
#[derive(Debug)]
struct Waiting {
    completions: Vec<Completion>,
    failure: Option<String>,
    is_signalled: bool,
    wake_writer: PipeWriter,
}

impl Outbox {
    /// Return an empty outbox, or what the operating system says if it gives no pipe.
    pub(crate) fn new() -> io::Result<Self> {
        let (wake_reader, wake_writer) = io::pipe()?;
        let waiting = Waiting { completions: Vec::new(), failure: None, is_signalled: false, wake_writer };
        Ok(Self { waiting: Mutex::new(waiting), wake_reader })
    }

    /// Put completions in, and wake the caller if nothing waits there yet.
    pub(crate) fn put(&self, completions: impl IntoIterator<Item = Completion>) {
        self.waiting.lock().put(completions);
    }

    /// Put in the last completions of the driver, with the reason why there will be no others.
    pub(crate) fn fail(&self, completions: impl IntoIterator<Item = Completion>, reason: String) {
        let mut waiting = self.waiting.lock();
        waiting.failure = Some(reason);
        waiting.put(completions);
    }

    /// Take everything out. Does not wait.
    pub(crate) fn drain(&self) -> io::Result<Vec<Completion>> {
        let mut waiting = self.waiting.lock();
        if waiting.is_signalled {
            // The byte was written under this lock, so this does not block.
            (&self.wake_reader).read_exact(&mut [0])?;
            waiting.is_signalled = false;
        }
        Ok(std::mem::take(&mut waiting.completions))
    }

    pub(crate) fn failure(&self) -> Option<String> {
        self.waiting.lock().failure.clone()
    }

    pub(crate) fn wake_fd(&self) -> RawFd {
        self.wake_reader.as_raw_fd()
    }
}

impl Waiting {
    fn put(&mut self, completions: impl IntoIterator<Item = Completion>) {
        self.completions.extend(completions);
        if !self.is_signalled {
            // An empty pipe has room for a byte; without a reader there is nobody to wake.
            self.is_signalled = self.wake_writer.write_all(&[1]).is_ok();
        }
    }
}
