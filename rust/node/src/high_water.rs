//! The high-water note: what a member knows outside its data folder of what it has promised.

use crate::member_id::MemberId;

/// What a member has promised at least, by a note outside its folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HighWater {
    /// The member.
    pub member: MemberId,
    /// Its term.
    pub term: u64,
    /// An entry that it has applied.
    pub index: u64,
}

impl HighWater {
    /// Return whether a folder that ends at entry `index` in term `term` lacks something that is noted.
    #[must_use]
    pub const fn is_above(&self, term: u64, index: u64) -> bool {
        self.term > term || self.index > index
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_lacks_what_is_noted_if_its_term_or_its_end_is_before() {
        let noted = HighWater { member: MemberId::of(1), term: 3, index: 5 };
        let lacking = [(3, 4), (2, 5), (2, 9)];
        assert!(lacking.iter().all(|&(term, index)| noted.is_above(term, index)));
        let whole = [(3, 5), (4, 5), (3, 6)];
        assert!(!whole.iter().any(|&(term, index)| noted.is_above(term, index)));
    }
}
