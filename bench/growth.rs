//! A log that grows, measured in processes of their own: `bench/scale.py` runs this and draws the results.
//!
//! `growth grow FOLDER EVENTS` fills the log up to that number, in bulks of 1,000, writes tree images as a server does, and is then killed by itself.
//! `growth start FOLDER` opens it, proves, and closes it. `growth copy FOLDER` makes a backup of it and lets an empty log catch up with it.
//! `growth crafted` adds keys that share bits to a log in memory.
//! Each prints lines of a name, a number and a unit.

#![allow(
    missing_docs,
    clippy::all,
    clippy::pedantic,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a benchmark may stop at the first thing that goes wrong"
)]

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use qed_core::backup::continuation;
use qed_core::backup::{Cursor, Reach};
use qed_core::hash::Digest;
use qed_core::log::{Log, Request};
use qed_core::log_id::LogId;
use qed_core::tree_image::ImageUse;

const BULK: u64 = 1000;
/// Events that are timed at the end of growing.
const TIMED: u64 = 500_000;
const PROOFS: u64 = 20_000;
const PAGE_EVENTS: u64 = 10_000;

fn main() {
    // Cargo adds its own arguments.
    let arguments: Vec<_> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["grow", folder, events] => grow(Path::new(folder), events.parse().expect("a number")),
        ["start", folder] => start(Path::new(folder)),
        ["copy", folder] => copy(Path::new(folder)),
        ["crafted"] => crafted(),
        _ => println!("growth: run by bench/scale.py"),
    }
}

fn grow(folder: &Path, events: u64) {
    let log = Log::open_from_image(folder).expect("open");
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_millis(100));
                if log.is_image_due() {
                    log.write_image(&|| true).expect("image");
                }
            }
        });
        let first = log.len();
        let timed_from = events.saturating_sub(TIMED).max(first);
        let filled = timed(|| append(&log, first, timed_from));
        report("fill", (timed_from - first) as f64 / filled.as_secs_f64(), "events/s");
        let mut slowest = Duration::ZERO;
        let appended = timed(|| {
            for first in (timed_from..events).step_by(BULK as usize) {
                slowest = slowest.max(timed(|| append(&log, first, first + BULK)));
            }
        });
        report("append", (events - timed_from) as f64 / appended.as_secs_f64(), "events/s");
        report("slowest bulk", slowest.as_secs_f64() * 1e3, "ms");
        is_over.store(true, Ordering::Relaxed);
    });
    memory("after appends", events);
    for (tree, bytes) in log.tree_bytes() {
        report(&format!("{tree} tree"), bytes as f64 / events as f64, "B/event");
    }
    report("disk", disk_bytes(folder) as f64 / events as f64, "B/event");
    // As after `kill -9`.
    std::process::abort();
}

fn start(folder: &Path) {
    let begun = Instant::now();
    let log = Log::open_from_image(folder).expect("open");
    report("start", begun.elapsed().as_secs_f64(), "s");
    let events = log.len();
    let from_image = if let ImageUse::Used(len) = log.image_use() { *len } else { 0 };
    report("start from image", from_image as f64 / events as f64, "part");
    memory("after a start", events);
    report("peak of a start", of_status("VmHWM:") * 1024.0 / events as f64, "B/event");
    let picks: Vec<_> = (0..PROOFS).map(|i| event((i * 2_654_435_761) % events)).collect();
    for name in ["membership, first", "membership, warm"] {
        let took = timed(|| picks.iter().for_each(|digest| drop(log.prove(digest, None).expect("prove"))));
        report(name, took.as_secs_f64() * 1e6 / PROOFS as f64, "us");
    }
    let closed = timed(|| {
        log.write_last_image(&|| true).expect("image");
    });
    report("last image", closed.as_secs_f64(), "s");
}

fn copy(folder: &Path) {
    let log = Log::open_from_image(folder).expect("open");
    let (mut bytes, mut after) = (0, Reach::default());
    let took = timed(|| {
        while after.extent.len < log.len() {
            let cursor = Cursor { reach: after, chain: Digest::default() };
            bytes += continuation(&log, cursor, PAGE_EVENTS, None).expect("part").len();
            let len = log.len().min(after.extent.len + PAGE_EVENTS);
            after.extent = log.extent_at(len).expect("extent");
        }
    });
    report("backup", log.len() as f64 / took.as_secs_f64(), "events/s");
    report("backup size", bytes as f64 / log.len() as f64, "B/event");
    let target = folder.with_extension("joined");
    let other = Log::open(&target).expect("open");
    let took = timed(|| {
        while other.len() < log.len() {
            let start = other.extent_at(other.len()).expect("extent");
            let page = log.page(start, LogId::default(), PAGE_EVENTS).expect("page");
            other.install(&page).expect("install");
            other.sync().expect("sync");
        }
    });
    report("join", log.len() as f64 / took.as_secs_f64(), "events/s");
    assert_eq!(other.tree_head().expect("head"), log.tree_head().expect("head"));
    drop(other);
    std::fs::remove_dir_all(target).expect("remove");
}

/// Add 100,000 keys that share their first bits, in bulks, to a log of as many others; and as many that share none.
fn crafted() {
    let model = event(0);
    for shared in [0, 24, 40, 64, 200] {
        let log = Log::in_memory().expect("open");
        append(&log, 0, 100_000);
        let key = |i: u64| {
            let (mut bytes, shared) = (*event(i + 1_000_000).as_bytes(), shared / 8);
            bytes[..shared].copy_from_slice(&model.as_bytes()[..shared]);
            Digest::new(bytes)
        };
        let keys: Vec<_> = (0..100_000).map(key).collect();
        let mut slowest = Duration::ZERO;
        let took = timed(|| {
            for digests in keys.chunks(BULK as usize) {
                let request = Request { digests: digests.to_vec(), if_absent: false };
                slowest = slowest.max(timed(|| drop(log.append(&[request]).expect("append"))));
            }
        });
        report(&format!("{shared} shared bits"), took.as_secs_f64() * 1e6 / keys.len() as f64, "us/event");
        report(&format!("{shared} shared bits, slowest bulk"), slowest.as_secs_f64() * 1e3, "ms");
        let took = timed(|| keys[..10_000].iter().for_each(|key| drop(log.prove(key, None).expect("prove"))));
        report(&format!("{shared} shared bits, membership"), took.as_secs_f64() * 1e6 / 1e4, "us");
    }
}

fn event(i: u64) -> Digest {
    Digest::of_event(format!("event {i}").as_bytes())
}

fn append(log: &Log, first: u64, end: u64) {
    for start in (first..end).step_by(BULK as usize) {
        let digests = (start..(start + BULK).min(end)).map(event).collect();
        log.append(&[Request { digests, if_absent: false }]).expect("append");
    }
}

fn timed(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

/// Return a size of this process in KiB.
fn of_status(name: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("status");
    let line = status.lines().find(|line| line.starts_with(name)).expect("a line");
    line.split_whitespace().nth(1).expect("size").parse().expect("number")
}

fn memory(when: &str, events: u64) {
    report(&format!("resident {when}"), of_status("VmRSS:") * 1024.0 / events as f64, "B/event");
}

fn disk_bytes(folder: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let entries = std::fs::read_dir(folder).expect("folder").map(|entry| entry.expect("entry"));
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(found) if found.is_dir() => disk_bytes(&entry.path()),
        Ok(found) => found.blocks() * 512,
        Err(_) => 0,
    };
    entries.map(size).sum()
}

fn report(what: &str, value: f64, unit: &str) {
    println!("{what}\t{value:.4}\t{unit}");
}
