//! Comparing logs outside of appends: now and then, a leader tells the others the extent of its log.
//!
//! Entries carry an extent too, but without new entries nobody would notice that two logs differ. The leader's log is the one that counts, because
//! a majority has elected it. So a member whose log differs from it is the wrong one, or the majority is; either way it must not
//! serve beside it.

use qed_core::error::LogError;
use qed_core::log::Log;
use qed_core::page::Extent;

/// Number of election time-outs between two comparisons: ten seconds, with the default of half a second.
pub const COMPARISON_TIMEOUTS: usize = 20;

/// What a member compares its log with.
#[derive(Debug, Default)]
pub struct Comparison {
    /// An extent of the leader's log that this one has not reached.
    pending: Option<Extent>,
}

impl Comparison {
    /// Note an extent of the leader's log. One that is already waiting stays: under load, the log may never reach the newest.
    pub fn note(&mut self, extent: Extent) {
        self.pending.get_or_insert(extent);
    }

    /// Compare, once the log is long enough; return the log's own extent if it differs, after the leader's.
    ///
    /// # Errors
    ///
    /// If the log cannot be read.
    pub fn settle(&mut self, log: &Log) -> Result<Option<(Extent, Extent)>, LogError> {
        let len = log.len();
        let Some(theirs) = self.pending.take_if(|extent| extent.len <= len) else { return Ok(None) };
        let own = log.extent_at(theirs.len)?;
        Ok((own != theirs).then_some((theirs, own)))
    }
}

#[cfg(test)]
mod tests {
    use qed_core::hash::Digest;
    use qed_core::log::Request;
    use qed_core::log_id::LogId;

    use super::*;

    fn log(texts: &[&str]) -> Log {
        let log = Log::in_memory().unwrap();
        for (index, text) in (1..).zip(texts) {
            let request = Request { digests: vec![Digest::of_event(text.as_bytes())], if_absent: false };
            log.apply_silently(LogId { index, term: 1 }, &[request]).unwrap();
        }
        log
    }

    fn compared(own: &[&str], theirs: &[&str]) -> Option<(Extent, Extent)> {
        let (own, theirs) = (log(own), log(theirs));
        let mut comparison = Comparison::default();
        comparison.note(theirs.extent_at(theirs.len()).unwrap());
        comparison.settle(&own).unwrap()
    }

    #[test]
    fn equal_logs_and_longer_ones_do_not_differ() {
        assert_eq!(compared(&["a", "b"], &["a", "b"]), None);
        assert_eq!(compared(&["a", "b", "c"], &["a", "b"]), None);
        assert_eq!(compared(&["a"], &[]), None);
    }

    #[test]
    fn another_event_at_any_place_is_a_difference() {
        assert!(compared(&["a", "b", "c"], &["x", "b"]).is_some());
        assert!(compared(&["a", "b"], &["a", "x"]).is_some());
    }

    #[test]
    fn a_shorter_log_is_compared_once_it_is_long_enough() {
        let (own, theirs) = (log(&["a"]), log(&["a", "b"]));
        let mut comparison = Comparison::default();
        comparison.note(theirs.extent_at(2).unwrap());
        // The log may never be as long as the latest.
        comparison.note(log(&["a", "b", "c"]).extent_at(3).unwrap());
        assert_eq!(comparison.settle(&own).unwrap(), None);
        let request = Request { digests: vec![Digest::of_event(b"x")], if_absent: false };
        own.apply_silently(LogId { index: 2, term: 1 }, &[request]).unwrap();
        let (found, _) = comparison.settle(&own).unwrap().unwrap();
        assert_eq!(found.len, 2);
        assert_eq!(comparison.settle(&own).unwrap(), None);
    }
}
