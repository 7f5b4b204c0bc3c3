//! A writer is killed at a random moment, again and again; nothing it acknowledged may be lost, and nothing may hang.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use crate::layout::{Layout, Log, TILE, hyper_entry};
use crate::random::{Random, digest};
use crate::store::{Settings, Store, Table};
use crate::{Result, engines, option};

/// A writer that has acknowledged nothing for this long hangs.
const HANG: Duration = Duration::from_secs(30);
/// Above this many events the log is started afresh, so that a full check stays quick.
const LOG_LIMIT: u64 = 2_000_000;

/// Kill and check `--cycles` times, and print the result.
///
/// # Errors
/// A lost acknowledged event, a hang, or a log that cannot be opened.
pub fn run(engine: &str, words: &[&str]) -> Result<()> {
    let cycles: u64 = option(words, "--cycles", "300").parse()?;
    let layout = option(words, "--layout", "W1");
    let folder = Path::new(option(words, "--folder", "/tmp/qed-lsm")).join(format!("torture-{engine}-{layout}"));
    let mut random = Random::new(std::process::id().into());
    let (mut acknowledged, mut commits, mut silent, mut logs) = (0, 0, 0, 0);
    for cycle in 0..cycles {
        if acknowledged > LOG_LIMIT || cycle == 0 {
            fs::remove_dir_all(&folder).or_else(|error| if folder.exists() { Err(error) } else { Ok(()) })?;
            fs::create_dir_all(&folder)?;
            (acknowledged, logs) = (0, logs + 1);
        }
        let life = Life::random(&mut random);
        let (seen, count) = live_and_die(engine, layout, &folder, acknowledged, &life)?;
        silent += u64::from(count == 0);
        commits += count;
        acknowledged = acknowledged.max(seen);
        // The checker is never killed. Half of the time the next writer opens the log as the killed one left it.
        if random.below(2) == 0 || cycle + 1 == cycles || acknowledged > LOG_LIMIT {
            verify(engine, layout, &folder, acknowledged)?;
        }
        if (cycle + 1) % 100 == 0 {
            eprintln!("{engine} {layout}: {} cycles, {commits} commits acknowledged", cycle + 1);
        }
    }
    println!(
        "{engine} {layout}: {cycles} kills, {commits} acknowledged commits, {silent} writers killed before their first, {logs} logs; \
         nothing acknowledged lost, no batch in part, no hang"
    );
    fs::remove_dir_all(&folder)?;
    Ok(())
}

/// How long a writer lives.
struct Life {
    /// The longest time to its first commit.
    first: Duration,
    /// How long it continues after that.
    rest: Duration,
}

impl Life {
    /// Draw a lifetime: one in four ends so soon that the writer may still be opening the log, the others end while it writes.
    fn random(random: &mut Random) -> Self {
        let first = if random.below(4) == 0 { Duration::from_millis(random.below(100)) } else { HANG };
        Self { first, rest: Duration::from_millis(random.below(400)) }
    }
}

/// Start a writer, kill it at the end of its lifetime, and return the total of events it acknowledged and the number of its commits.
fn live_and_die(engine: &str, layout: &str, folder: &Path, acknowledged: u64, life: &Life) -> Result<(u64, u64)> {
    let mut writer = Command::new(std::env::current_exe()?)
        .args(["writer", engine, layout])
        .arg(folder)
        .arg(acknowledged.to_string())
        .stdout(Stdio::piped())
        .spawn()?;
    let lines = read_lines(writer.stdout.take().ok_or("no pipe")?);
    let (mut events, mut commits) = (0, 0);
    let mut end = Instant::now() + life.first;
    loop {
        match lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                if commits == 0 {
                    end = Instant::now() + life.rest;
                }
                (events, commits) = (line, commits + 1);
            }
            Err(mpsc::RecvTimeoutError::Timeout) => break,
            Err(mpsc::RecvTimeoutError::Disconnected) => return Err(ended(&mut writer)),
        }
    }
    writer.kill()?;
    writer.wait()?;
    if commits == 0 && life.first == HANG {
        return Err("a writer hangs".into());
    }
    // What was acknowledged before the kill is still in the pipe.
    for line in lines {
        (events, commits) = (line, commits + 1);
    }
    Ok((events, commits))
}

fn ended(writer: &mut Child) -> Box<dyn std::error::Error + Send + Sync> {
    format!("a writer ended by itself: {:?}", writer.wait()).into()
}

/// Return the numbers that come through `pipe`, one a line; if the kill has truncated the last line, it is left out.
fn read_lines(pipe: ChildStdout) -> Receiver<u64> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut pipe = BufReader::new(pipe);
        let mut line = String::new();
        while pipe.read_line(&mut line).is_ok_and(|length| length > 0) && line.ends_with('\n') {
            if line.trim_end().parse().is_ok_and(|events| sender.send(events).is_err()) {
                break;
            }
            line.clear();
        }
    });
    receiver
}

/// Check the log in a separate process, within a time limit.
fn verify(engine: &str, layout: &str, folder: &Path, acknowledged: u64) -> Result<()> {
    let mut checker = Command::new(std::env::current_exe()?)
        .args(["check", engine, layout])
        .arg(folder)
        .arg(acknowledged.to_string())
        .spawn()?;
    let started = Instant::now();
    loop {
        match checker.try_wait()? {
            Some(status) if status.success() => return Ok(()),
            Some(status) => return Err(format!("the log does not check: {status}").into()),
            None if started.elapsed() > 2 * HANG => {
                checker.kill()?;
                return Err("the log does not open or check in time".into());
            }
            None => thread::sleep(Duration::from_millis(2)),
        }
    }
}

/// The writer: commits of random sizes until it is killed, each acknowledged by a line with the number of events.
///
/// # Errors
/// The store's, or lost acknowledged events.
pub fn write(engine: &str, layout: &str, folder: &Path, acknowledged: u64) -> Result<()> {
    let store = engines::open(engine, folder, Settings::TORTURE)?;
    let mut log = Log::resume(store.as_ref(), Layout::parse(layout)?)?;
    are_there(acknowledged, log.events)?;
    let mut random = Random::new(std::process::id().into());
    let mut stdout = std::io::stdout();
    loop {
        let batch = if random.below(2) == 0 { 1 } else { 1 + random.below(200) };
        log.append(batch, true)?;
        stdout.write_all(format!("{}\n", log.events).as_bytes())?;
        stdout.flush()?;
    }
}

/// The checker: every acknowledged event is in the store, and the last commit is complete.
///
/// # Errors
/// What is missing.
pub fn check(engine: &str, layout: &str, folder: &Path, acknowledged: u64) -> Result<()> {
    let store = engines::open(engine, folder, Settings::TORTURE)?;
    let layout = Layout::parse(layout)?;
    let events = Log::resume(store.as_ref(), layout)?.events;
    are_there(acknowledged, events)?;
    check_tiles(store.as_ref(), events)?;
    store.scan(Table::Roots, &mut |key, value| {
        let version = u64::from_be_bytes(key.try_into()?);
        if value == digest(version) { Ok(()) } else { Err(format!("root {version} is wrong").into()) }
    })?;
    if layout == Layout::TilesAndHyper { check_hyper(store.as_ref(), events) } else { Ok(()) }
}

fn are_there(acknowledged: u64, events: u64) -> Result<()> {
    if events >= acknowledged {
        Ok(())
    } else {
        Err(format!("{acknowledged} events were acknowledged, {events} are there").into())
    }
}

fn check_tiles(store: &dyn Store, events: u64) -> Result<()> {
    let mut version = 0;
    store.scan(Table::Tiles, &mut |key, value| {
        if key != (version / TILE).to_be_bytes() || version % TILE != 0 {
            return Err(format!("the tile row of version {version} is missing").into());
        }
        for held in value.chunks(32) {
            if held != digest(version) {
                return Err(format!("the digest of version {version} is wrong").into());
            }
            version += 1;
        }
        Ok(())
    })?;
    if version == events { Ok(()) } else { Err(format!("{version} digests for {events} events").into()) }
}

fn check_hyper(store: &dyn Store, events: u64) -> Result<()> {
    let mut entries = 0;
    store.scan(Table::Hyper, &mut |_, value| {
        for entry in value.chunks(37) {
            let version = entry
                .get(32..)
                .ok_or("a cut entry")?
                .iter()
                .fold(0, |number: u64, byte| (number << 8) | u64::from(*byte));
            if entry != hyper_entry(version) || version >= events {
                return Err(format!("the hyper entry of version {version} is wrong").into());
            }
            entries += 1;
        }
        Ok(())
    })?;
    if entries == events { Ok(()) } else { Err(format!("{entries} hyper entries for {events} events").into()) }
}
