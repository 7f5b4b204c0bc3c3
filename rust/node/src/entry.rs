//! The content of entries of the Raft log (FORMATS.md, "Entries").

use qed_core::acts::ActBody;
use qed_core::hash::{DIGEST_BYTES, Digest};
use qed_core::log::Request;
use qed_core::page::Extent;

use crate::membership::Change;

const APPEND: u8 = 1;
const MEMBERS: u8 = 2;
const ACT: u8 = 3;
const MEMBERS_BY_ACT: u8 = 4;
/// The length of an act that a change of members follows.
const LENGTH_BYTES: usize = 4;
const IF_ABSENT: u8 = 1;
/// Flags and count of a request.
const REQUEST_BYTES: usize = 1 + 4;

/// A change of the state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Append events as one commit batch.
    Append {
        /// The leader's log when it proposed this. A member whose own log differs there must stop.
        base: Extent,
        /// The requests of clients.
        requests: Vec<Request>,
    },
    /// Change the members, or their addresses; and the act that does so, if an operator or a member did.
    Members(Vec<Change>, Option<ActBody>),
    /// Record an act.
    Act(ActBody),
    /// Nothing: the first entry of a leader, or an entry that changes only the configuration.
    Nothing,
}

impl Command {
    /// Return the bytes of the entry.
    ///
    /// # Panics
    ///
    /// On a request of 2^32 events or more.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Nothing => Vec::new(),
            Self::Act(body) => [&[ACT], body.as_bytes()].concat(),
            Self::Members(changes, act) => {
                #[expect(clippy::expect_used, reason = "numbers and text always become JSON")]
                let json = serde_json::to_vec(changes).expect("changes as JSON");
                let Some(body) = act else { return [&[MEMBERS], json.as_slice()].concat() };
                #[expect(clippy::expect_used, reason = "an act has at most 64 KiB")]
                let length = u32::try_from(body.as_bytes().len()).expect("bytes of an act").to_be_bytes();
                [&[MEMBERS_BY_ACT], length.as_slice(), body.as_bytes(), &json].concat()
            }
            Self::Append { base, requests } => {
                let digests: usize = requests.iter().map(|request| request.digests.len()).sum();
                let length = 1 + Extent::BYTES + requests.len() * REQUEST_BYTES + digests * DIGEST_BYTES;
                let mut out = Vec::with_capacity(length);
                out.push(APPEND);
                out.extend(base.to_bytes());
                for request in requests {
                    out.push(if request.if_absent { IF_ABSENT } else { 0 });
                    #[expect(clippy::expect_used, reason = "the digests of 2^32 events are 128 GiB")]
                    out.extend(
                        u32::try_from(request.digests.len())
                            .expect("a request has fewer than 2^32 events")
                            .to_be_bytes(),
                    );
                    request.digests.iter().for_each(|digest| out.extend(digest.as_bytes()));
                }
                out
            }
        }
    }

    /// Return the content of an entry, or None if this build does not know it.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let Some((&kind, rest)) = bytes.split_first() else { return Some(Self::Nothing) };
        match kind {
            MEMBERS => Some(Self::Members(serde_json::from_slice(rest).ok()?, None)),
            MEMBERS_BY_ACT => {
                let (length, rest) = rest.split_first_chunk::<LENGTH_BYTES>()?;
                let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
                let (body, changes) = rest.split_at_checked(length)?;
                let act = ActBody::new(body.to_vec())?;
                Some(Self::Members(serde_json::from_slice(changes).ok()?, Some(act)))
            }
            ACT => ActBody::new(rest.to_vec()).map(Self::Act),
            APPEND => {
                let (base, rest) = rest.split_at_checked(Extent::BYTES)?;
                let requests = requests_in(rest)?;
                Some(Self::Append { base: Extent::from_bytes(base).ok()?, requests })
            }
            _ => None,
        }
    }
}

fn requests_in(mut bytes: &[u8]) -> Option<Vec<Request>> {
    let mut requests = Vec::new();
    while let Some((head, rest)) = bytes.split_first_chunk::<REQUEST_BYTES>() {
        let (flags, count) = head.split_first()?;
        let count = usize::try_from(u32::from_be_bytes(count.try_into().ok()?)).ok()?;
        let (digests, rest) = rest.split_at_checked(count.checked_mul(DIGEST_BYTES)?)?;
        let (digests, _) = digests.as_chunks::<DIGEST_BYTES>();
        let digests = digests.iter().copied().map(Digest::new).collect();
        requests.push(Request { digests, if_absent: flags & IF_ABSENT != 0 });
        bytes = rest;
    }
    let are_whole = bytes.is_empty() && requests.iter().all(|request| !request.digests.is_empty());
    are_whole.then_some(requests)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::member_id::MemberId;
    use crate::membership::MemberInfo;
    use crate::public_key::PublicKeyHash;

    fn command() -> impl Strategy<Value = Command> {
        let request =
            (prop::collection::vec(any::<[u8; 32]>(), 1..9), any::<bool>()).prop_map(|(digests, if_absent)| Request {
                digests: digests.into_iter().map(Digest::new).collect(),
                if_absent,
            });
        let base = (any::<u64>(), any::<[u8; 32]>(), any::<[u8; 32]>()).prop_map(|(len, history, hyper)| Extent {
            len,
            history_digest: Digest::new(history),
            hyper_digest: Digest::new(hyper),
        });
        let key = prop::option::of(any::<[u8; 32]>().prop_map(PublicKeyHash::new));
        let member = (any::<String>(), any::<String>(), key).prop_map(|(name, address, key)| MemberInfo {
            name,
            raft_addr: address.clone(),
            http_addr: address.clone(),
            mgmt_addr: address.clone(),
            metrics_addr: address,
            key,
        });
        let id = || (1..=u64::MAX).prop_map(MemberId::of);
        let change = prop_oneof![
            (id(), member).prop_map(|(id, member)| Change::Put(id, member)),
            id().prop_map(Change::Remove),
        ];
        let body = prop::collection::vec(any::<u8>(), 1..90).prop_map(|bytes| ActBody::new(bytes).unwrap());
        let changes = prop::collection::vec(change, 0..4);
        prop_oneof![
            (base, prop::collection::vec(request, 0..5))
                .prop_map(|(base, requests)| Command::Append { base, requests }),
            (changes, prop::option::of(body.clone())).prop_map(|(changes, act)| Command::Members(changes, act)),
            body.prop_map(Command::Act),
            Just(Command::Nothing),
        ]
    }

    proptest! {
        #![proptest_config(crate::seeds::searching(256))]

        #[test]
        fn what_is_encoded_is_decoded(command in command()) {
            prop_assert_eq!(Command::from_bytes(&command.to_bytes()), Some(command));
        }

        #[test]
        fn decoding_arbitrary_bytes_does_not_panic(
            mut bytes in prop::collection::vec(any::<u8>(), 0..300),
            kind in 0_u8..6,
        ) {
            if let Some(first) = bytes.first_mut() {
                *first = kind;
            }
            let _ = Command::from_bytes(&bytes);
        }

        #[test]
        fn a_command_that_is_cut_off_is_not_decoded_as_the_same(command in command(), at in any::<prop::sample::Index>()) {
            let bytes = command.to_bytes();
            if !bytes.is_empty() {
                prop_assert_ne!(Command::from_bytes(&bytes[..at.index(bytes.len())]), Some(command));
            }
        }
    }

    #[test]
    fn what_this_build_does_not_know_is_not_decoded() {
        assert_eq!(Command::from_bytes(&[5]), None);
        // An act says something, and no more than it may.
        assert_eq!(Command::from_bytes(&[ACT]), None);
        assert_eq!(Command::from_bytes(&vec![ACT; 2 + ActBody::MOST_BYTES]), None);
        assert!(Command::from_bytes(&vec![ACT; 1 + ActBody::MOST_BYTES]).is_some());
        assert_eq!(Command::from_bytes(&[&[MEMBERS_BY_ACT, 0, 0, 0, 0], b"[]".as_slice()].concat()), None);
        // A request holds at least one event.
        let empty = [[APPEND].as_slice(), &[0; Extent::BYTES], &[0; REQUEST_BYTES]].concat();
        assert_eq!(Command::from_bytes(&empty), None);
    }
}
