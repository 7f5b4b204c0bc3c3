//! Reading a backup, every byte of which is untrusted.

use std::io::{self, Read};

use super::{BackupError, Cursor, END, FORMAT, FORMAT_PREFIX, HEAD_BYTES, HEADER, Header, PAGE, Reach, first_chain};
use crate::bytes::Reader;
use crate::hash::{DIGEST_BYTES, Digest, backup_frame};
use crate::page::Page;

/// The first line is no longer than this, whatever format it names.
pub(super) const LINE_BYTES_MOST: usize = 64;
/// Most bytes of a frame's body, and of a page once it is decompressed: ten times those of the largest page.
const BODY_BYTES_MOST: usize = 64 << 20;

/// What comes next in a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// What follows in the log.
    Page(Box<Page>),
    /// Nothing: the backup is whole.
    End,
}

/// Checks the frames of a stream, in order, wherever they come from.
#[derive(Debug, Clone)]
pub(super) struct Sequence {
    /// What the stream says about itself, once that is read.
    pub(super) header: Option<Header>,
    pub(super) at: Cursor,
    /// Bytes of the frames so far, with the first line.
    pub(super) offset: u64,
    pub(super) is_over: bool,
}

/// A frame that stands where it may.
pub(super) enum Frame<'a> {
    Header,
    /// How far the log is after the page, and the compressed page.
    Page(Reach, &'a [u8]),
    End,
}

impl Sequence {
    /// Begin after the first line of a stream.
    pub(super) fn after(line: &[u8]) -> Result<Self, BackupError> {
        let text = line.strip_suffix(b"\n").and_then(|line| line.strip_prefix(FORMAT_PREFIX.as_bytes()));
        let text = text.and_then(|number| str::from_utf8(number).ok()).ok_or(BackupError::NotABackup)?;
        let found: u64 = text.parse().map_err(|_| BackupError::NotABackup)?;
        // One spelling of each number, so that no changed byte goes unnoticed.
        if found.to_string() != text {
            return Err(BackupError::NotABackup);
        }
        if found != FORMAT {
            return Err(BackupError::UnsupportedFormat { found });
        }
        let at = Cursor { reach: Reach::default(), chain: first_chain() };
        Ok(Self { header: None, at, offset: line.len() as u64, is_over: false })
    }

    /// Return the length of the body of the frame with this head.
    pub(super) fn length(&self, head: [u8; HEAD_BYTES]) -> Result<usize, BackupError> {
        let [_, a, b, c, d] = head;
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        if length > BODY_BYTES_MOST {
            return Err(self.damaged(format!("expected at most {BODY_BYTES_MOST} bytes, found {length}")));
        }
        Ok(length)
    }

    /// Accept the next frame.
    pub(super) fn accept<'a>(
        &mut self,
        head: [u8; HEAD_BYTES],
        body: &'a [u8],
        hash: Digest,
    ) -> Result<Frame<'a>, BackupError> {
        let chain = backup_frame(&self.at.chain, &head, body);
        if chain != hash {
            return Err(self.damaged(format!("its hash is {hash}, but its bytes lead to {chain}")));
        }
        let [kind, ..] = head;
        let (frame, reach) = match (kind, &self.header) {
            (HEADER, None) => {
                let header =
                    Header::from_bytes(body).ok_or_else(|| self.damaged("its header cannot be read".into()))?;
                let start = header.start;
                self.header = Some(header);
                (Frame::Header, start)
            }
            (PAGE, Some(_)) if !self.is_over => {
                let (reach, page) = self.reach_of(body)?;
                (Frame::Page(reach, page), reach)
            }
            (END, Some(_)) if !self.is_over => {
                let (reach, rest) = self.reach_of(body)?;
                if reach != self.at.reach || !rest.is_empty() {
                    return Err(self.damaged("its end is not where its pages end".into()));
                }
                self.is_over = true;
                (Frame::End, reach)
            }
            _ => return Err(self.damaged("it is out of place".into())),
        };
        self.offset += (HEAD_BYTES + body.len() + DIGEST_BYTES) as u64;
        self.at = Cursor { reach, chain };
        Ok(frame)
    }

    fn reach_of<'a>(&self, body: &'a [u8]) -> Result<(Reach, &'a [u8]), BackupError> {
        let parts = body.split_at_checked(Reach::BYTES);
        let found = parts.and_then(|(reach, rest)| Some((Reader::whole(reach, Reach::read)?, rest)));
        found.ok_or_else(|| self.damaged("it does not say how far the log is".into()))
    }

    pub(super) fn damaged(&self, reason: String) -> BackupError {
        BackupError::Damaged { offset: self.offset, reason }
    }

    pub(super) const fn cut_off(&self) -> BackupError {
        BackupError::CutOff { offset: self.offset, events: self.at.reach.extent.len }
    }
}

/// Reads a stream from beginning to end.
#[derive(Debug)]
pub struct BackupReader<R> {
    input: R,
    sequence: Sequence,
    header: Header,
}

impl<R: Read> BackupReader<R> {
    /// Begin to read a stream.
    ///
    /// # Errors
    ///
    /// [`BackupError`] if it does not begin as a backup does.
    pub fn open(mut input: R) -> Result<Self, BackupError> {
        let line = read_line(&mut input)?;
        let mut sequence = Sequence::after(&line)?;
        let (head, body, hash) = read_frame(&mut input, &sequence)?;
        sequence.accept(head, &body, hash)?;
        let header = sequence.header.clone().ok_or_else(|| sequence.damaged("it begins with no header".into()))?;
        Ok(Self { input, sequence, header })
    }

    /// Return what the backup says about itself.
    #[must_use]
    pub const fn header(&self) -> &Header {
        &self.header
    }

    /// Return the place after the last frame that was read. At the end of a backup, its hash identifies the backup.
    #[must_use]
    pub const fn cursor(&self) -> Cursor {
        self.sequence.at
    }

    /// Return how many bytes were read.
    #[must_use]
    pub const fn offset(&self) -> u64 {
        self.sequence.offset
    }

    /// Read the next frame. After the end there is nothing to read.
    ///
    /// # Errors
    ///
    /// [`BackupError`]; nothing more can be read then.
    pub fn part(&mut self) -> Result<Part, BackupError> {
        let before = self.sequence.clone();
        let (head, body, hash) = read_frame(&mut self.input, &before)?;
        match self.sequence.accept(head, &body, hash)? {
            Frame::Page(reach, page) => {
                let page = page_in(page, before.at.reach, reach).map_err(|reason| before.damaged(reason.into()))?;
                Ok(Part::Page(Box::new(page)))
            }
            Frame::Header => Err(before.damaged("it is a second header".into())),
            Frame::End => {
                if read_up_to(&mut self.input, 1)?.is_empty() {
                    return Ok(Part::End);
                }
                Err(self.sequence.damaged("it follows the end".into()))
            }
        }
    }
}

/// Return the page in a frame, which must lead from one reach to another.
fn page_in(compressed: &[u8], from: Reach, to: Reach) -> Result<Page, &'static str> {
    let (size, compressed) = compressed.split_first_chunk::<4>().ok_or("its page has no length")?;
    let size = u32::from_le_bytes(*size) as usize;
    if size > BODY_BYTES_MOST {
        return Err("its page is too long");
    }
    let bytes = lz4_flex::decompress(compressed, size).map_err(|_| "its page cannot be decompressed")?;
    let page = Page::from_bytes(&bytes).map_err(|_| "it holds no page")?;
    if page.start != from.extent || page.reach() != to {
        return Err("its page does not continue the one before it");
    }
    page.require_consistent(from.log_id).map_err(|_| "its page contradicts itself")?;
    page.require_chain(from.acts).map_err(|_| "its acts do not continue those before it")?;
    Ok(page)
}

/// Read a line: what is longer than any first line is no backup's.
pub(super) fn read_line(input: &mut impl Read) -> Result<Vec<u8>, BackupError> {
    let mut line = Vec::new();
    while line.last() != Some(&b'\n') && line.len() < LINE_BYTES_MOST {
        let byte = read_up_to(input, 1)?;
        if byte.is_empty() {
            break;
        }
        line.extend(byte);
    }
    Ok(line)
}

pub(super) fn read_frame(
    input: &mut impl Read,
    sequence: &Sequence,
) -> Result<([u8; HEAD_BYTES], Vec<u8>, Digest), BackupError> {
    let head = read_up_to(input, HEAD_BYTES)?;
    let head = <[u8; HEAD_BYTES]>::try_from(head).map_err(|_| sequence.cut_off())?;
    let length = sequence.length(head)?;
    let mut body = read_up_to(input, length + DIGEST_BYTES)?;
    if body.len() < length + DIGEST_BYTES {
        return Err(sequence.cut_off());
    }
    let hash = Digest::from_slice(&body.split_off(length)).ok_or_else(|| sequence.cut_off())?;
    Ok((head, body, hash))
}

/// Read some bytes, or fewer at the end. Memory grows only with what is there.
fn read_up_to(input: &mut impl Read, count: usize) -> Result<Vec<u8>, BackupError> {
    let mut bytes = Vec::new();
    let read: io::Result<usize> = input.take(count as u64).read_to_end(&mut bytes);
    read.map_err(BackupError::Io)?;
    Ok(bytes)
}
