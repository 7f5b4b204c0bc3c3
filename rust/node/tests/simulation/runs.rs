//! Many runs on all processors.

use std::env;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use crate::faults::Fault;
use crate::invariants::Violation;
use crate::world::{Summary, World};

/// How much of a run that failed is told.
const TRACE_LINES: usize = 400;

/// Some seeds, one after the other.
#[derive(Debug, Clone, Copy)]
pub struct Runs {
    first: u64,
    count: u64,
    fault: Fault,
}

impl Runs {
    /// Return as many runs as the environment asks for, or else `count`.
    pub fn from_environment(count: u64) -> Self {
        let number = |name: &str| env::var(name).ok().and_then(|text| text.parse().ok());
        Self {
            first: number("QED_SIM_FIRST").unwrap_or(0),
            count: number("QED_SIM_SEEDS").unwrap_or(count),
            fault: Fault::None,
        }
    }

    /// Return the first runs with a fault.
    pub const fn with(fault: Fault, count: u64) -> Self {
        Self { first: 0, count, fault }
    }

    /// Run until one fails, and return the least seed that was seen to.
    pub fn until_failure(self) -> Option<(u64, Violation)> {
        let (next, failed, begun) = (AtomicU64::new(self.first), Mutex::new(None), Instant::now());
        let end = AtomicU64::new(self.first + self.count);
        let totals: [AtomicU64; 4] = Default::default();
        thread::scope(|scope| {
            for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
                scope.spawn(|| {
                    while let seed = next.fetch_add(1, Ordering::SeqCst)
                        && seed < end.load(Ordering::SeqCst)
                    {
                        let violation = match run(seed, self.fault) {
                            Ok(Summary { appends, reads, pages, changes, .. }) => {
                                let counted = totals.iter().zip([appends, reads, pages, changes]);
                                for (total, count) in counted {
                                    total.fetch_add(count, Ordering::Relaxed);
                                }
                                continue;
                            }
                            Err(violation) => violation,
                        };
                        end.fetch_min(seed, Ordering::SeqCst);
                        let mut failed = failed.lock().unwrap();
                        if failed.as_ref().is_none_or(|(least, _)| seed < *least) {
                            *failed = Some((seed, violation));
                        }
                    }
                });
            }
        });
        let done = u32::try_from(end.load(Ordering::SeqCst) - self.first).unwrap_or(u32::MAX);
        let seconds = begun.elapsed().as_secs_f64();
        println!("{done} seeds from {} in {seconds:.1} s: {:.0} a second", self.first, f64::from(done) / seconds);
        let [appends, reads, pages, changes] = totals.map(AtomicU64::into_inner);
        println!("{appends} appends, {reads} reads, {pages} pages, {changes} changes of members");
        failed.into_inner().unwrap()
    }
}

/// Run one seed.
pub fn run(seed: u64, fault: Fault) -> Result<Summary, Violation> {
    run_in(&mut World::new(seed, fault))
}

/// Run a seed again and tell its end.
pub fn trace(seed: u64) -> String {
    let mut world = World::new(seed, Fault::None);
    world.trace = Some(Vec::new());
    let _ = run_in(&mut world);
    let lines = world.trace.unwrap_or_default();
    let from = lines.len().saturating_sub(TRACE_LINES);
    [&lines[..1], &lines[from..]].concat().join("\n")
}

fn run_in(world: &mut World) -> Result<Summary, Violation> {
    panic::catch_unwind(AssertUnwindSafe(|| world.run())).unwrap_or_else(|payload| {
        let text = payload.downcast_ref::<String>().cloned();
        let text = text.or_else(|| payload.downcast_ref::<&str>().map(|&text| text.into()));
        Err(Violation { invariant: "nothing panics", found: text.unwrap_or_default() })
    })
}
