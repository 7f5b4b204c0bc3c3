//! The keeper: the thread that reads what a start took from the image of the trees, and writes the next image when the log has grown.
//!
//! Both only save time at a start, so they must not cost any before: the reading pauses four times as long as it works.

use std::io;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use qed_core::log::Log;

use crate::metrics::Metrics;

/// Pause of the audit, as a multiple of the time that it has worked.
const PAUSE: u32 = 4;

/// How often the size of the log is looked at, and how long to wait after an image could not be written.
const INTERVAL: Duration = Duration::from_secs(1);
const AFTER_FAILURE: Duration = Duration::from_mins(5);

/// The thread.
#[derive(Debug)]
pub struct Keeper {
    log: Arc<Log>,
    metrics: Arc<Metrics>,
    stop: Arc<Stop>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// Whether the thread is to end.
#[derive(Debug, Default)]
struct Stop {
    is_set: Mutex<bool>,
    changed: Condvar,
}

impl Keeper {
    /// Start the thread. If the audit finds damage, it calls `fail` with what it found.
    ///
    /// # Errors
    ///
    /// The error of the operating system if it cannot create the thread.
    pub fn start(
        log: &Arc<Log>,
        metrics: &Arc<Metrics>,
        fail: impl FnOnce(String) + Send + 'static,
    ) -> io::Result<Self> {
        let (log, metrics, stop) = (Arc::clone(log), Arc::clone(metrics), Arc::<Stop>::default());
        let run = {
            let (log, metrics, stop) = (Arc::clone(&log), Arc::clone(&metrics), Arc::clone(&stop));
            // An audit that panics has found nothing, and must not pass as one that found nothing wrong.
            let panicked = |_| Err("the audit of the tree image panicked; the panic message is on stderr".into());
            move || match catch_unwind(AssertUnwindSafe(|| audit(&log, &stop))).unwrap_or_else(panicked) {
                Ok(()) => keep(&log, &metrics, &stop),
                Err(reason) => fail(reason),
            }
        };
        let thread = thread::Builder::new().name("qed-keeper".into()).spawn(run)?;
        Ok(Self { log, metrics, stop, thread: Mutex::new(Some(thread)) })
    }

    /// End the thread, and write an image if that makes the next start faster, `is_sound` and there is time until `deadline`. To be called when
    /// nothing is added any more; a second call does nothing.
    pub fn close(&self, is_sound: bool, deadline: Instant) {
        *self.stop.is_set.lock() = true;
        self.stop.changed.notify_one();
        let Some(thread) = self.thread.lock().take() else { return };
        // A thread that panicked in an image has only failed to save time.
        let _ = thread.join();
        if is_sound && self.log.write_last_image(&|| Instant::now() < deadline).is_err() {
            self.metrics.failed_images.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Stop {
    /// Wait until it is set, but at most for `duration`; return whether it is.
    fn wait(&self, duration: Duration) -> bool {
        let mut is_set = self.is_set.lock();
        self.changed.wait_while_for(&mut is_set, |is_set| !*is_set, duration);
        *is_set
    }
}

fn audit(log: &Log, stop: &Stop) -> Result<(), String> {
    let mut begun = Instant::now();
    let audited = log.audit(&mut |_| {
        let is_over = stop.wait(begun.elapsed() * PAUSE);
        begun = Instant::now();
        if is_over { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    audited.map(drop).map_err(|error| error.to_string())
}

fn keep(log: &Log, metrics: &Metrics, stop: &Stop) {
    let mut pause = INTERVAL;
    while !stop.wait(pause) {
        pause = INTERVAL;
        if log.is_image_due() && log.write_image(&|| !*stop.is_set.lock()).is_err() {
            metrics.failed_images.fetch_add(1, Ordering::Relaxed);
            pause = AFTER_FAILURE;
        }
    }
}
