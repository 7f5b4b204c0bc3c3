//! Counting answers, and the result as JSON.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::time::Duration;

use crate::client::Answer;
use crate::options::Options;
use crate::requests::Request;

/// The results of one connection.
#[derive(Default)]
pub struct Tally {
    /// Latency of every request with a good answer, in microseconds.
    latencies_us: Vec<u32>,
    /// Events in requests with a good answer.
    events: u64,
    /// Requests without a good answer, by status or by error.
    errors: BTreeMap<String, u64>,
}

impl Tally {
    /// Count one request by its outcome.
    pub fn add(&mut self, latency: Duration, request: &Request, answer: &io::Result<Answer<'_>>) {
        match fault(request, answer) {
            None => {
                self.latencies_us.push(u32::try_from(latency.as_micros()).unwrap_or(u32::MAX));
                self.events += request.events;
            }
            Some(fault) => *self.errors.entry(fault).or_default() += 1,
        }
    }
}

/// Return what is wrong with an answer: its status, its content, or the connection.
fn fault(request: &Request, answer: &io::Result<Answer<'_>>) -> Option<String> {
    match answer {
        Err(error) => Some(error.kind().to_string()),
        Ok(answer) if !(200..300).contains(&answer.status) => Some(answer.status.to_string()),
        Ok(answer) if !holds(answer.body, request.wanted) => Some("unexpected body".to_owned()),
        Ok(_) => None,
    }
}

fn holds(body: &[u8], wanted: &[u8]) -> bool {
    wanted.is_empty() || body.windows(wanted.len()).any(|window| window == wanted)
}

/// The combined results of all connections.
pub struct Report {
    mode: &'static str,
    connections: usize,
    seconds: f64,
    events: u64,
    latencies_us: Vec<u32>,
    errors: BTreeMap<String, u64>,
}

impl Report {
    /// Return the sum of `tallies`, measured over `elapsed`.
    pub fn new(options: &Options, elapsed: Duration, tallies: Vec<Tally>) -> Self {
        let mut report = Self {
            mode: options.mode.name(),
            connections: options.connections,
            seconds: elapsed.as_secs_f64(),
            events: 0,
            latencies_us: Vec::new(),
            errors: BTreeMap::new(),
        };
        for tally in tallies {
            report.events += tally.events;
            report.latencies_us.extend(tally.latencies_us);
            for (fault, count) in tally.errors {
                *report.errors.entry(fault).or_default() += count;
            }
        }
        report.latencies_us.sort_unstable();
        report
    }

    /// Whether any request did not get a good answer.
    pub fn has_errors(&self) -> bool {
        !self.errors.is_empty()
    }

    /// Return one line of JSON. `requests`, rates and latencies are those of good answers only.
    pub fn to_json(&self) -> String {
        let requests = self.latencies_us.len();
        let (requests_per_s, events_per_s) = (requests as f64 / self.seconds, self.events as f64 / self.seconds);
        let mut errors = String::new();
        for (fault, count) in &self.errors {
            let comma = if errors.is_empty() { "" } else { ", " };
            let _ = write!(errors, "{comma}{fault:?}: {count}");
        }
        let (p50, p99, max) = (self.latency_ms(0.5), self.latency_ms(0.99), self.latency_ms(1.0));
        format!(
            "{{\"mode\": \"{}\", \"connections\": {}, \"seconds\": {:.3}, \"requests\": {requests}, \"events\": {}, \
             \"requests_per_s\": {requests_per_s:.1}, \"events_per_s\": {events_per_s:.1}, \
             \"p50_ms\": {p50:.3}, \"p99_ms\": {p99:.3}, \"max_ms\": {max:.3}, \"errors\": {{{errors}}}}}",
            self.mode, self.connections, self.seconds, self.events
        )
    }

    /// Return the latency that `share` of the good answers did not exceed, in milliseconds.
    fn latency_ms(&self, share: f64) -> f64 {
        let rank = (share * self.latencies_us.len() as f64).ceil() as usize;
        self.latencies_us.get(rank.saturating_sub(1)).map_or(0.0, |micros| f64::from(*micros) / 1000.0)
    }
}
