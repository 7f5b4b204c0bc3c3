//! Writing a backup. Nothing is kept between two parts of a stream, so any member can continue it.

use lz4_flex::compress_prepend_size;

use super::{Cursor, END, HEADER, Header, PAGE, Reach, first_chain, first_line, head_of};
use crate::hash::backup_frame;
use crate::log::Log;
use crate::page::PageError;

/// Return the beginning of a backup of `log`: the first line and the header.
///
/// # Errors
///
/// [`PageError::Diverged`] if the log does not continue `header.start`; [`PageError::Log`] if it cannot be read.
pub fn beginning(log: &Log, header: &Header) -> Result<Vec<u8>, PageError> {
    require_continued(log, header.start)?;
    let mut at = Cursor { reach: header.start, chain: first_chain() };
    let mut out = first_line().into_bytes();
    at.write(&mut out, HEADER, &header.to_bytes());
    Ok(out)
}

/// Return what follows `after` in a backup of `log`: a page of `events` events or a few more, and the end of the backup if it then has
/// more than `until` events, or all that the log had before.
///
/// # Errors
///
/// As [`beginning`].
pub fn continuation(log: &Log, mut after: Cursor, events: u64, until: Option<u64>) -> Result<Vec<u8>, PageError> {
    require_continued(log, after.reach)?;
    // In this order: the log grows.
    let applied = log.applied();
    let len = log.len();
    // Acts may follow the last of `until` events. A later event or the end of the log shows that none of them is missing.
    let is_past = |reach: Reach| until.is_some_and(|until| reach.extent.len > until);
    let is_enough = |reach: Reach| is_past(reach) || (reach.extent.len >= len && reach.log_id >= applied);
    let mut out = Vec::new();
    if !is_enough(after.reach) {
        let page = log.page(after.reach.extent, after.reach.log_id, events)?;
        after.reach = page.reach();
        let body = [after.reach.to_bytes(), compress_prepend_size(&page.to_bytes())].concat();
        after.write(&mut out, PAGE, &body);
    }
    if is_enough(after.reach) {
        let body = after.reach.to_bytes();
        after.write(&mut out, END, &body);
    }
    Ok(out)
}

fn require_continued(log: &Log, Reach { extent, log_id, acts }: Reach) -> Result<(), PageError> {
    let is_within = extent.len <= log.len() && log_id <= log.applied();
    if is_within && log.extent_at(extent.len)? == extent && log.acts_end_at(log_id)? == acts {
        return Ok(());
    }
    Err(PageError::Diverged { len: extent.len })
}

impl Cursor {
    /// Append a frame to `out`, after which the chain goes on from it.
    fn write(&mut self, out: &mut Vec<u8>, kind: u8, body: &[u8]) {
        #[expect(clippy::expect_used, reason = "a length that is wrong would make another frame of the bytes")]
        let length = u32::try_from(body.len()).expect("a page is cut after some ten thousand events");
        let head = head_of(kind, length);
        self.chain = backup_frame(&self.chain, &head, body);
        out.extend(head);
        out.extend(body);
        out.extend(self.chain.as_bytes());
    }
}
