//! The requests of one connection, fully encoded.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::options::{Mode, Options, TILE_ENTRIES};

/// One HTTP request as it goes onto the socket.
pub struct Request {
    /// Head and body.
    pub bytes: Vec<u8>,
    /// Events it adds or asks about.
    pub events: u64,
    /// What the body of a good answer must contain; empty when the status is enough.
    pub wanted: &'static [u8],
}

/// An endless supply of requests of one mode.
pub struct Requests {
    mode: Mode,
    prefix: String,
    bulk: usize,
    events: u64,
    /// The number of the next event to add, shared by the connections: every event is sent exactly once.
    next_event: Arc<AtomicU64>,
    random: Random,
    /// The line of the head with the API key; empty without one.
    key_line: String,
    /// The field of additions that asks for a receipt; empty without one.
    receipt: String,
}

impl Requests {
    /// Return the requests of connection `index`; its random choices depend on the seed and the index only.
    pub fn new(options: &Options, index: usize, next_event: Arc<AtomicU64>) -> Self {
        Self {
            mode: options.mode,
            prefix: options.prefix.clone(),
            bulk: options.bulk,
            events: options.events,
            next_event,
            random: Random::new(options.seed, index),
            receipt: options.receipt.as_ref().map(|level| format!(",\"Receipt\":\"{level}\"")).unwrap_or_default(),
            key_line: options.api_key.as_ref().map(|key| format!("Api-Key: {key}\r\n")).unwrap_or_default(),
        }
    }

    fn add(&self) -> Request {
        let event = self.next_event.fetch_add(1, Ordering::Relaxed);
        let body = format!("{{\"Event\":\"{}\"{}}}", self.encoded(event), self.receipt);
        self.post("/events", &body, 1, self.wanted())
    }

    fn bulk(&self) -> Request {
        let first = self.next_event.fetch_add(self.bulk as u64, Ordering::Relaxed);
        let mut body = String::from("{\"Events\":[");
        for event in first..first + self.bulk as u64 {
            let comma = if event == first { "" } else { "," };
            let _ = write!(body, "{comma}\"{}\"", self.encoded(event));
        }
        body.push(']');
        body.push_str(&self.receipt);
        body.push('}');
        self.post("/events/bulk", &body, self.bulk as u64, self.wanted())
    }

    /// Return what an answer to an addition must contain.
    const fn wanted(&self) -> &'static [u8] {
        if self.receipt.is_empty() { b"" } else { b"\"qed-receipt-1\"" }
    }

    fn membership(&mut self) -> Request {
        let event = self.random.below(self.events);
        self.post("/proofs/membership", &format!("{{\"Key\":\"{}\"}}", self.encoded(event)), 1, b"\"Exists\":true")
    }

    fn incremental(&mut self) -> Request {
        let (one, other) = (self.random.below(self.events), self.random.below(self.events));
        let body = format!("{{\"Start\":{},\"End\":{}}}", one.min(other), one.max(other));
        self.post("/proofs/incremental", &body, 1, b"\"AuditPath\"")
    }

    fn tile(&mut self) -> Request {
        let number = self.random.below(self.events / TILE_ENTRIES);
        let path = format!("/log/tile/0/{}", in_groups(number));
        let bytes = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{}\r\n", self.key_line).into_bytes();
        Request { bytes, events: 1, wanted: b"" }
    }

    fn post(&self, path: &str, body: &str, events: u64, wanted: &'static [u8]) -> Request {
        let (length, key_line) = (body.len(), &self.key_line);
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\n{key_line}Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
        );
        Request { bytes: [head.as_bytes(), body.as_bytes()].concat(), events, wanted }
    }

    fn encoded(&self, event: u64) -> String {
        base64(format!("{}{event}", self.prefix).as_bytes())
    }
}

impl Iterator for Requests {
    type Item = Request;

    fn next(&mut self) -> Option<Request> {
        Some(match self.mode {
            Mode::Add => self.add(),
            Mode::Bulk => self.bulk(),
            Mode::Membership => self.membership(),
            Mode::Incremental => self.incremental(),
            Mode::Tile => self.tile(),
        })
    }
}

/// Return a number in groups of three digits, as in the paths of tiles: `x001/067`.
fn in_groups(number: u64) -> String {
    let (mut text, mut rest) = (format!("{:03}", number % 1000), number / 1000);
    while rest > 0 {
        text = format!("x{:03}/{text}", rest % 1000);
        rest /= 1000;
    }
    text
}

/// Return `bytes` in standard base64 with padding.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits = (0..3).fold(0, |bits: usize, at| bits << 8 | usize::from(group.get(at).copied().unwrap_or(0)));
        for at in 0..4 {
            text.push(if at <= group.len() { char::from(ALPHABET[bits >> (18 - 6 * at) & 63]) } else { '=' });
        }
    }
    text
}

/// `SplitMix64`: good enough to spread requests, and repeatable for the same seed.
struct Random(u64);

impl Random {
    fn new(seed: u64, index: usize) -> Self {
        let mut random = Self(seed << 32 ^ index as u64);
        random.next();
        random
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// Return a number below `limit`.
    fn below(&mut self, limit: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(limit)) >> 64) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::{Random, base64, in_groups};

    #[test]
    fn numbers_of_tiles_are_in_groups_of_three_digits() {
        for (number, text) in [(5, "005"), (67, "067"), (1067, "x001/067"), (123_456_789, "x123/x456/789")] {
            assert_eq!(in_groups(number), text);
        }
    }

    #[test]
    fn base64_matches_the_vectors_of_rfc_4648() {
        for (plain, text) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(base64(plain.as_bytes()), text);
        }
        assert_eq!(base64(&[0xff, 0xef, 0xbe]), "/+++");
    }

    #[test]
    fn random_numbers_stay_below_their_limit_and_reach_it() {
        let mut random = Random::new(1, 0);
        let seen: std::collections::BTreeSet<_> = (0..200).map(|_| random.below(5)).collect();
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    }
}
