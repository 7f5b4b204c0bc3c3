//! The command line: what to send, how often, and to which server.

use std::net::SocketAddr;

/// Printed with every usage error.
pub const USAGE: &str = "\
usage: qed-load MODE [--address 127.0.0.1:8800] [--connections 64] (--count REQUESTS | --seconds S) [--api-key KEY]
       [--receipt LEVEL] [mode's options]

  add          POST /events, one new event \"<prefix><i>\" a request          --prefix P --first I
  bulk         POST /events/bulk, N new events a request                    --prefix P --first I --bulk N
  membership   POST /proofs/membership of \"<prefix><i>\", i random < E       --prefix P --events E --seed S
  incremental  POST /proofs/incremental, random 0 <= start <= end < E       --events E --seed S
  tile         GET /log/tile/0/..., a random full tile of E entries         --events E --seed S

--receipt asks for a signed receipt with each add or bulk.
i counts up from I over all connections together. Exit code: 0 all answers were 2xx, 1 some were not, 2 usage, 3 no server.";

/// Entries below a full tile.
pub const TILE_ENTRIES: u64 = 256;

/// One kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// `POST /events`.
    Add,
    /// `POST /events/bulk`.
    Bulk,
    /// `POST /proofs/membership`.
    Membership,
    /// `POST /proofs/incremental`.
    Incremental,
    /// `GET /log/tile/0/…`.
    Tile,
}

impl Mode {
    /// The word that names it, on the command line and in the result.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Bulk => "bulk",
            Self::Membership => "membership",
            Self::Incremental => "incremental",
            Self::Tile => "tile",
        }
    }

    fn parse(name: &str) -> Result<Self, String> {
        let all = [Self::Add, Self::Bulk, Self::Membership, Self::Incremental, Self::Tile];
        all.into_iter().find(|mode| mode.name() == name).ok_or_else(|| format!("unknown mode {name:?}"))
    }
}

/// When a connection stops.
#[derive(Clone, Copy, Debug)]
pub enum Bound {
    /// After `each` requests, the first `extra` connections after one more.
    Requests {
        /// Requests of every connection.
        each: usize,
        /// How many connections send one more.
        extra: usize,
    },
    /// After this many seconds.
    Seconds(f64),
}

/// The whole command line, checked.
#[derive(Clone, Debug)]
pub struct Options {
    /// What to send.
    pub mode: Mode,
    /// The server; always a loopback address.
    pub address: SocketAddr,
    /// Sockets, and threads.
    pub connections: usize,
    /// When to stop.
    pub bound: Bound,
    /// The text before the number in every event.
    pub prefix: String,
    /// The number of the first event to add.
    pub first: u64,
    /// Events in one bulk.
    pub bulk: usize,
    /// How many events the log holds, for the modes that ask for proofs.
    pub events: u64,
    /// Seed of the random choices.
    pub seed: u64,
    /// The API key of every request, if it has one.
    pub api_key: Option<String>,
    /// The receipt that every addition asks for, if it does.
    pub receipt: Option<String>,
}

impl Options {
    /// Return the options in `words`, the command line without the program's name.
    ///
    /// # Errors
    /// What is wrong, in one sentence.
    pub fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mode = Mode::parse(&words.next().ok_or("a mode is missing")?)?;
        let (mut count, mut seconds) = (None, None);
        let mut options = Self::defaults(mode);
        while let Some(name) = words.next() {
            let value = words.next().ok_or_else(|| format!("{name} wants a value"))?;
            match name.as_str() {
                "--address" => options.address = loopback(&value)?,
                "--connections" => options.connections = number(&name, &value)?,
                "--count" => count = Some(number(&name, &value)?),
                "--seconds" => seconds = Some(number(&name, &value)?),
                "--prefix" => options.prefix = value,
                "--first" => options.first = number(&name, &value)?,
                "--bulk" => options.bulk = number(&name, &value)?,
                "--events" => options.events = number(&name, &value)?,
                "--seed" => options.seed = number(&name, &value)?,
                "--api-key" => options.api_key = Some(value),
                "--receipt" => options.receipt = Some(value),
                _ => return Err(format!("unknown option {name}")),
            }
        }
        options.bound = bound(count, seconds, options.connections)?;
        options.check()
    }

    fn defaults(mode: Mode) -> Self {
        Self {
            mode,
            address: SocketAddr::from(([127, 0, 0, 1], 8800)),
            connections: 64,
            bound: Bound::Seconds(0.0),
            prefix: "event ".to_owned(),
            first: 0,
            bulk: 1000,
            events: 0,
            seed: 1,
            api_key: None,
            receipt: None,
        }
    }

    fn check(self) -> Result<Self, String> {
        if self.bulk == 0 {
            return Err("--bulk must be at least 1".to_owned());
        }
        if self.events == 0 && matches!(self.mode, Mode::Membership | Mode::Incremental) {
            return Err(format!("{} needs --events", self.mode.name()));
        }
        if self.events < TILE_ENTRIES && matches!(self.mode, Mode::Tile) {
            return Err(format!("tile needs --events {TILE_ENTRIES} or more"));
        }
        Ok(self)
    }
}

fn number<T: std::str::FromStr>(name: &str, value: &str) -> Result<T, String> {
    value.parse().map_err(|_| format!("{name} wants a number, not {value:?}"))
}

/// Load goes to this machine only, so that a typing error cannot load another server.
fn loopback(value: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = value.parse().map_err(|_| format!("--address wants IP:PORT, not {value:?}"))?;
    if address.ip().is_loopback() { Ok(address) } else { Err(format!("{address} is not a loopback address")) }
}

fn bound(count: Option<usize>, seconds: Option<f64>, connections: usize) -> Result<Bound, String> {
    match (count, seconds) {
        _ if connections == 0 => Err("--connections must be at least 1".to_owned()),
        (Some(count), None) => Ok(Bound::Requests { each: count / connections, extra: count % connections }),
        (None, Some(seconds)) if seconds > 0.0 => Ok(Bound::Seconds(seconds)),
        _ => Err("give either --count or --seconds, above 0".to_owned()),
    }
}
