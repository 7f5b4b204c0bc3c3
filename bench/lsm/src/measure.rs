//! One measurement in a separate process; the result as `name value` lines on stdout.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::Result;
use crate::engines;
use crate::layout::{Layout, Log, TILE};
use crate::process;
use crate::random::Random;
use crate::store::{Settings, Store, Table};

/// Events in the log before anything is measured.
const PRELOAD: u64 = 1_000_000;
/// Events of the log that is read.
const READ_LOG: u64 = 10_000_000;
/// Random reads.
const GETS: u64 = 200_000;
/// Pause between the preload and the measurement, for pending flushes and compactions.
const SETTLE: Duration = Duration::from_secs(3);

/// Run the measurement `what` in `folder`: `W1/<batch>`, `W2/<batch>`, `stall` or `read`.
///
/// # Errors
/// The store's.
pub fn run(engine: &str, what: &str, folder: &Path) -> Result<()> {
    match what.split_once('/') {
        Some((layout, batch)) => {
            let batch = batch.parse()?;
            commits(engine, folder, Layout::parse(layout)?, batch, commits_of(batch))
        }
        None if what == "stall" => commits(engine, folder, Layout::TilesAndHyper, 1000, 3000),
        None if what == "read" => reads(engine, folder),
        None => Err(format!("unknown measurement {what:?}").into()),
    }
}

/// Return how many commits of `batch` events to time: enough for some seconds.
const fn commits_of(batch: u64) -> u64 {
    match batch {
        0..10 => 20_000,
        10..50 => 12_000,
        50..500 => 6_000,
        _ => 1_000,
    }
}

fn commits(engine: &str, folder: &Path, layout: Layout, batch: u64, count: u64) -> Result<()> {
    let store = engines::open(engine, folder, Settings::SERVER)?;
    let mut log = fill(store.as_ref(), layout, PRELOAD)?;
    std::thread::sleep(SETTLE);
    let (written, cpu, began) = (process::written_bytes()?, process::cpu_seconds()?, Instant::now());
    let mut times = Vec::with_capacity(usize::try_from(count)?);
    for _ in 0..count {
        let commit = Instant::now();
        log.append(batch, true)?;
        times.push(commit.elapsed());
    }
    let (seconds, events) = (began.elapsed().as_secs_f64(), (count * batch) as f64);
    say("events_per_s", events / seconds);
    say("cpu_us_per_event", (process::cpu_seconds()? - cpu) * 1e6 / events);
    say("written_per_event", (process::written_bytes()? - written) / events);
    say_times("commit", &mut times);
    say("peak_resident_mb", process::peak_resident_bytes()? / 1e6);
    let events = log.events;
    close(store, folder, events)
}

fn reads(engine: &str, folder: &Path) -> Result<()> {
    if !folder.join("filled").exists() {
        let store = engines::open(engine, folder, Settings::SERVER)?;
        let began = Instant::now();
        let events = fill(store.as_ref(), Layout::Tiles, READ_LOG)?.events;
        say("fill_s", began.elapsed().as_secs_f64());
        std::thread::sleep(SETTLE);
        close(store, folder, events)?;
        std::fs::write(folder.join("filled"), "")?;
        return Ok(());
    }
    let began = Instant::now();
    let store = engines::open(engine, folder, Settings::SERVER)?;
    say("open_ms", began.elapsed().as_secs_f64() * 1e3);
    say("open_resident_mb", process::resident_bytes()? / 1e6);
    // The first scan warms the cache of the operating system; the second is measured.
    scan(store.as_ref())?;
    let began = Instant::now();
    let bytes = scan(store.as_ref())?;
    say("scan_s", began.elapsed().as_secs_f64());
    say("scan_mb_per_s", bytes / 1e6 / began.elapsed().as_secs_f64());
    let mut random = Random::new(1);
    gets(store.as_ref(), &mut random)?;
    let mut times = gets(store.as_ref(), &mut random)?;
    say_times("get", &mut times);
    say("read_resident_mb", process::resident_bytes()? / 1e6);
    Ok(())
}

fn scan(store: &dyn Store) -> Result<f64> {
    let mut bytes = 0;
    store.scan(Table::Tiles, &mut |key, value| {
        bytes += key.len() + value.len();
        Ok(())
    })?;
    Ok(bytes as f64)
}

fn gets(store: &dyn Store, random: &mut Random) -> Result<Vec<Duration>> {
    let mut times = Vec::with_capacity(usize::try_from(GETS)?);
    for _ in 0..GETS {
        let (key, mut bytes) = (random.below(READ_LOG / TILE).to_be_bytes(), 0);
        let began = Instant::now();
        let found = store.get(Table::Tiles, &key, &mut |value| bytes = value.len())?;
        times.push(began.elapsed());
        if !found || bytes != 2048 {
            return Err("a tile row is missing".into());
        }
    }
    Ok(times)
}

/// Fill the log to `events` events without syncing each commit.
fn fill(store: &dyn Store, layout: Layout, events: u64) -> Result<Log<'_>> {
    let mut log = Log::resume(store, layout)?;
    while log.events < events {
        log.append(1000, false)?;
    }
    log.append(1, true)?;
    Ok(log)
}

fn close(store: Box<dyn Store>, folder: &Path, events: u64) -> Result<()> {
    let began = Instant::now();
    drop(store);
    say("close_ms", began.elapsed().as_secs_f64() * 1e3);
    let disk = process::disk_bytes(folder)?;
    say("disk_mb", disk / 1e6);
    say("disk_per_event", disk / events as f64);
    Ok(())
}

fn say(name: &str, value: f64) {
    println!("{name} {value}");
}

/// Print the 50th and 99th percentile and the longest of `times`, in microseconds.
fn say_times(name: &str, times: &mut [Duration]) {
    times.sort_unstable();
    for (label, share) in [("p50", 50), ("p99", 99), ("max", 100)] {
        let rank = (times.len() * share).div_ceil(100).saturating_sub(1);
        say(&format!("{name}_{label}_us"), times[rank].as_secs_f64() * 1e6);
    }
}
