//! The number that identifies a member.

use std::fmt;
use std::num::NonZeroU64;

use serde::{Deserialize, Serialize};

/// The number of a member: never 0, which the crate `raft` uses for "no member", and never reused.
///
/// It is an integer only in messages and in the crate `raft`, in files, and in Python.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MemberId(NonZeroU64);

impl MemberId {
    /// Return the member with a number, or None for 0.
    #[must_use]
    pub const fn new(number: u64) -> Option<Self> {
        match NonZeroU64::new(number) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }

    /// Return the member with a number that is already known to be one, such as a number in a configuration of the crate `raft`.
    ///
    /// # Panics
    ///
    /// On 0.
    #[must_use]
    #[expect(clippy::expect_used, reason = "the crate `raft` keeps 0 out of its configurations")]
    pub const fn of(number: u64) -> Self {
        Self::new(number).expect("the number of a member")
    }

    /// Return its number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0.get()
    }
}

impl fmt::Display for MemberId {
    /// Write 16 hexadecimal digits, as the server logs them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn zero_is_no_member() {
        assert_eq!(MemberId::new(0), None);
        assert_eq!(MemberId::new(1).map(MemberId::get), Some(1));
        assert!(serde_json::from_str::<MemberId>("0").is_err());
    }

    #[test]
    fn in_json_it_is_its_number_also_as_a_key() {
        let named = BTreeMap::from([(MemberId::of(u64::MAX), MemberId::of(7))]);
        let json = serde_json::to_string(&named).unwrap();
        assert_eq!(json, r#"{"18446744073709551615":7}"#);
        assert_eq!(serde_json::from_str::<BTreeMap<MemberId, MemberId>>(&json).unwrap(), named);
    }

    #[test]
    fn it_is_shown_as_the_server_logs_it() {
        assert_eq!(MemberId::of(0x2a).to_string(), "000000000000002a");
    }
}
