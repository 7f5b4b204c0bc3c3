//! The versions that the hyper tree does not show, as the rows of a log name them: a bit an event.

use std::ops::{ControlFlow, Range};

use xxhash_rust::xxh3::xxh3_128_with_seed;

use crate::error::LogError;
use crate::hash::Digest;
use crate::hyper::HyperTree;
use crate::integers::usize_from;
use crate::rows;
use crate::store::{Store, Table};

/// The hidden versions of a log.
#[derive(Debug)]
pub struct Hidden {
    bits: Vec<u64>,
    count: u64,
    /// Of the versions of a range, and their events, as the rows name them in any order.
    sum: u128,
}

impl Hidden {
    /// Read the rows of a log about its first `len` events; the sum is of those in the range `summed`.
    ///
    /// # Errors
    ///
    /// [`LogError::Corrupt`] if a row is malformed; [`LogError::Store`] if one cannot be read.
    pub fn in_rows(store: &dyn Store, len: u64, summed: Range<u64>) -> Result<Self, LogError> {
        let mut hidden = Self { bits: vec![0; usize_from(len.div_ceil(64))], count: 0, sum: 0 };
        store.scan(Table::Occurrences, &[], &mut |key, _| {
            let (event, version) = rows::occurrence_in(key)?;
            if version < len {
                hidden.add(version);
            }
            if summed.contains(&version) {
                hidden.sum = hidden.sum.wrapping_add(part_of_sum(&event, version));
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(hidden)
    }

    fn add(&mut self, version: u64) {
        if let Some(word) = self.bits.get_mut(usize_from(version / 64)) {
            *word |= 1 << (version % 64);
            self.count += 1;
        }
    }

    /// Return the number of hidden versions.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// Return whether a version is hidden.
    #[must_use]
    pub fn contains(&self, version: u64) -> bool {
        self.bits.get(usize_from(version / 64)).is_some_and(|word| word >> (version % 64) & 1 == 1)
    }

    /// Return what the events from version `first` on contribute to the sum of those that are hidden.
    #[must_use]
    pub fn sum_of(&self, first: u64, events: &[Digest]) -> u128 {
        let hidden = (first..).zip(events).filter(|(version, _)| self.contains(*version));
        hidden.fold(0, |sum, (version, event)| sum.wrapping_add(part_of_sum(event, version)))
    }

    /// Require that the rows name the events of the hidden versions of the range, by the sum of what its events contribute. It finds damage, and not what
    /// somebody has computed.
    ///
    /// # Errors
    ///
    /// [`LogError::Corrupt`] if the sum is not that of the rows.
    pub fn require_sum(&self, sum: u128) -> Result<(), LogError> {
        if sum == self.sum {
            return Ok(());
        }
        Err(LogError::Corrupt("the occurrences that are stored as hidden are not those of the events".into()))
    }
}

/// Require that the tree shows each event that the rows name at some version, as far as it is kept in memory.
///
/// # Errors
///
/// [`LogError::Corrupt`] names an event that it does not show; [`LogError::Store`] if a row cannot be read.
pub fn require_shown(store: &dyn Store, tree: &HyperTree) -> Result<(), LogError> {
    store.scan(Table::Occurrences, &[], &mut |key, _| {
        let (event, version) = rows::occurrence_in(key)?;
        if tree.may_contain(&event) {
            return Ok(ControlFlow::Continue(()));
        }
        Err(LogError::Corrupt(format!(
            "version {version} of {event} is stored as hidden, but no other version is shown"
        )))
    })
}

fn part_of_sum(event: &Digest, version: u64) -> u128 {
    xxh3_128_with_seed(event.as_bytes(), version)
}
