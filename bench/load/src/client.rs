//! One keep-alive HTTP/1.1 connection: as much of the protocol as the server's JSON answers need.

use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Longer than the server's own limit, so that its answer arrives before we stop waiting.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// Above any head the server sends; a longer head is not the server's.
const HEAD_LIMIT_BYTES: usize = 16 * 1024;

/// The answer to a request.
pub struct Answer<'a> {
    /// The status code.
    pub status: u16,
    /// The whole body.
    pub body: &'a [u8],
}

/// A connection and the buffer its answers are read into.
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    filled: usize,
    closing: bool,
}

impl Connection {
    /// Return a new connection to `address`.
    ///
    /// # Errors
    /// The operating system's, when there is no server.
    pub fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        Ok(Self { stream, buffer: vec![0; 64 * 1024], filled: 0, closing: false })
    }

    /// Whether the last answer announced that the server closes the connection.
    pub const fn is_closing(&self) -> bool {
        self.closing
    }

    /// Send `request` and return the answer, read to its end.
    ///
    /// # Errors
    /// When the connection breaks, no answer comes in time, or the answer is not HTTP with a `Content-Length`.
    pub fn exchange(&mut self, request: &[u8]) -> Result<Answer<'_>> {
        self.filled = 0;
        self.stream.write_all(request)?;
        let head_len = self.read_head()?;
        let head = std::str::from_utf8(&self.buffer[..head_len]).map_err(|_| malformed("a head that is not text"))?;
        let status = head.get(9..12).and_then(|digits| digits.parse().ok()).ok_or_else(|| malformed("no status"))?;
        let body_len = match header(head, "content-length") {
            Some(digits) => digits.parse().map_err(|_| malformed("a content-length that is not a number"))?,
            None if status == 204 => 0,
            None => return Err(malformed("no content-length")),
        };
        self.closing = header(head, "connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        self.read_up_to(head_len + body_len)?;
        Ok(Answer { status, body: &self.buffer[head_len..head_len + body_len] })
    }

    /// Read until the head is complete and return its length with the empty line.
    fn read_head(&mut self) -> Result<usize> {
        loop {
            self.read_some()?;
            let end = self.buffer[..self.filled].windows(4).position(|window| window == b"\r\n\r\n");
            match end {
                Some(at) => return Ok(at + 4),
                None if self.filled > HEAD_LIMIT_BYTES => {
                    return Err(malformed("a head without an end"));
                }
                None => {}
            }
        }
    }

    fn read_up_to(&mut self, wanted: usize) -> Result<()> {
        if self.buffer.len() < wanted {
            self.buffer.resize(wanted, 0);
        }
        while self.filled < wanted {
            self.read_some()?;
        }
        if self.filled == wanted { Ok(()) } else { Err(malformed("more than one answer")) }
    }

    fn read_some(&mut self) -> Result<()> {
        match self.stream.read(&mut self.buffer[self.filled..])? {
            0 => Err(Error::from(ErrorKind::UnexpectedEof)),
            count => {
                self.filled += count;
                Ok(())
            }
        }
    }
}

/// Return the value of the header `name`, which is given in lower case.
fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let fields = head.split("\r\n").filter_map(|line| line.split_once(':'));
    fields.into_iter().find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

fn malformed(what: &str) -> Error {
    Error::new(ErrorKind::InvalidData, what)
}
