//! Load for `qed-server` over keep-alive HTTP/1.1, from this machine only.
//!
//! One thread and one blocking socket for each connection: a thread that waits for its answer costs nothing, and the server under test
//! shares the cores. Every connection opens before the clock starts, a request is encoded before its own clock starts, and every status
//! is checked. The result is one line of JSON on stdout.

mod client;
mod options;
mod report;
mod requests;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use client::Connection;
use options::{Bound, Options};
use report::{Report, Tally};
use requests::{Request, Requests};

/// Small, because a connection needs a few buffers on the heap and nothing deep.
const STACK_BYTES: usize = 256 * 1024;

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(message) => {
            eprintln!("{message}\n\n{}", options::USAGE);
            return ExitCode::from(2);
        }
    };
    match run(&options) {
        Ok(report) => {
            println!("{}", report.to_json());
            if report.has_errors() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
        }
        Err(message) => {
            eprintln!("{message}");
            ExitCode::from(3)
        }
    }
}

/// Run every connection to its bound and return their combined results.
///
/// # Errors
/// When a connection cannot be opened at the start, or its thread cannot be started.
fn run(options: &Options) -> Result<Report, String> {
    let next_event = Arc::new(AtomicU64::new(options.first));
    let start = Arc::new(Barrier::new(options.connections + 1));
    let mut threads = Vec::with_capacity(options.connections);
    for index in 0..options.connections {
        let connection = Connection::open(options.address)
            .map_err(|error| format!("cannot connect to {}: {error}", options.address))?;
        let requests = Requests::new(options, index, Arc::clone(&next_event));
        let (address, bound, start) = (options.address, options.bound, Arc::clone(&start));
        let thread = thread::Builder::new()
            .stack_size(STACK_BYTES)
            .spawn(move || drive(connection, address, requests, bound, index, &start))
            .map_err(|error| format!("cannot start a thread: {error}"))?;
        threads.push(thread);
    }
    start.wait();
    let began = Instant::now();
    let tallies =
        threads.into_iter().map(|thread| thread.join().map_err(|_| "a connection's thread panicked".to_owned()));
    let tallies = tallies.collect::<Result<Vec<_>, _>>()?;
    Ok(Report::new(options, began.elapsed(), tallies))
}

/// Send one connection's requests, one after the other, until its share is done or the time is up.
fn drive(
    mut connection: Connection,
    address: SocketAddr,
    requests: Requests,
    bound: Bound,
    index: usize,
    start: &Barrier,
) -> Tally {
    let (mut stream, seconds) = prepare(requests, bound, index);
    let limit = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
    let mut tally = Tally::default();
    start.wait();
    let began = Instant::now();
    while began.elapsed() < limit {
        let Some(request) = stream.next() else { break };
        let sent = Instant::now();
        let answer = connection.exchange(&request.bytes);
        tally.add(sent.elapsed(), &request, &answer);
        // A refused request keeps its connection; a broken one is opened again, and if the server is down, this thread ends.
        if answer.is_err() || connection.is_closing() {
            match Connection::open(address) {
                Ok(opened) => connection = opened,
                Err(_) => break,
            }
        }
    }
    tally
}

/// Return the requests of connection `index` and its bound: a fixed share is encoded before the start, anything else while sending.
fn prepare(requests: Requests, bound: Bound, index: usize) -> (Box<dyn Iterator<Item = Request>>, f64) {
    match bound {
        Bound::Requests { each, extra } => {
            let share: Vec<_> = requests.take(each + usize::from(index < extra)).collect();
            (Box::new(share.into_iter()), f64::MAX)
        }
        Bound::Seconds(seconds) => (Box::new(requests), seconds),
    }
}
