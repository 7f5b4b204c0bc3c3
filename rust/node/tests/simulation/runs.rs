//! Many runs, on all processors.

use std::env;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use crate::counts::Counts;
use crate::faults::Fault;
use crate::invariants::Violation;
use crate::world::{Summary, World};

/// How many lines of a failed run's trace are printed.
const TRACE_LINES: usize = 400;

/// A range of seeds.
#[derive(Debug, Clone, Copy)]
pub struct Runs {
    first: u64,
    count: u64,
    fault: Fault,
}

impl Runs {
    /// Return the number of runs that the environment asks for, or `count` if it does not ask.
    pub fn from_environment(count: u64) -> Self {
        let number = |name: &str| env::var(name).ok().and_then(|text| text.parse().ok());
        Self {
            first: number("QED_SIM_FIRST").unwrap_or(0),
            count: number("QED_SIM_SEEDS").unwrap_or(count),
            fault: Fault::None,
        }
    }

    /// Return the first `count` runs with a fault.
    pub const fn with(fault: Fault, count: u64) -> Self {
        Self { first: 0, count, fault }
    }

    /// Return the number of runs.
    pub const fn count(self) -> u64 {
        self.count
    }

    /// Run until one run breaks an invariant in a wanted way. Return the lowest seed that does, with its violation, and the counts of
    /// all runs that broke none.
    pub fn until(self, is_wanted: impl Fn(&Violation) -> bool + Sync) -> (Option<(u64, Violation)>, Counts) {
        let (next, begun) = (AtomicU64::new(self.first), Instant::now());
        let end = AtomicU64::new(self.first + self.count);
        let results = Mutex::new((None::<(u64, Violation)>, Counts::default()));
        let go = || {
            while let seed = next.fetch_add(1, Ordering::SeqCst)
                && seed < end.load(Ordering::SeqCst)
            {
                let result = run(seed, self.fault);
                let (found, totals) = &mut *results.lock().unwrap();
                match result {
                    Ok(Summary { counts, .. }) => *totals += counts,
                    Err(violation) if is_wanted(&violation) => {
                        // Runs with lower seeds continue: one of them may fail too.
                        end.fetch_min(seed, Ordering::SeqCst);
                        if found.as_ref().is_none_or(|(least, _)| seed < *least) {
                            *found = Some((seed, violation));
                        }
                    }
                    Err(_) => {}
                }
            }
        };
        thread::scope(|scope| {
            for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
                scope.spawn(go);
            }
        });
        let done = u32::try_from(end.load(Ordering::SeqCst) - self.first).unwrap_or(u32::MAX);
        let seconds = begun.elapsed().as_secs_f64();
        println!("{done} seeds from {} in {seconds:.1} s: {:.0} a second", self.first, f64::from(done) / seconds);
        let (found, totals) = results.into_inner().unwrap();
        println!("{totals}");
        (found, totals)
    }
}

/// Run one seed.
pub fn run(seed: u64, fault: Fault) -> Result<Summary, Violation> {
    run_in(&mut World::new(seed, fault))
}

/// Run a seed again and return the end of its trace.
pub fn trace(seed: u64) -> String {
    let mut world = World::new(seed, Fault::None);
    world.trace = Some(Vec::new());
    let _ = run_in(&mut world);
    let lines = world.trace.unwrap_or_default();
    let from = lines.len().saturating_sub(TRACE_LINES);
    [&lines[..1], &lines[from..]].concat().join("\n")
}

/// Return the command that repeats a seed.
pub fn repeat(seed: u64) -> String {
    format!(
        "repeat with: QED_SIM_FIRST={seed} QED_SIM_SEEDS=1 cargo test --release -p qed-node --test simulation every_invariant -- --nocapture"
    )
}

fn run_in(world: &mut World) -> Result<Summary, Violation> {
    panic::catch_unwind(AssertUnwindSafe(|| world.run())).unwrap_or_else(|payload| {
        let text = payload.downcast_ref::<String>().cloned();
        let text = text.or_else(|| payload.downcast_ref::<&str>().map(|&text| text.into()));
        Err(Violation { invariant: "nothing panics", found: text.unwrap_or_default() })
    })
}
