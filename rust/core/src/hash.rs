//! `Digest` and the named hash functions of both trees. No other file uses SHA-256 directly.
//!
//! The hashed nodes have only a few fixed lengths, so this file lays out their padding itself (FIPS 180-4, section 5.1.1) and calls
//! only the compression function, for one or two blocks per node. That is a quarter faster than the streaming interface of the `sha2`
//! crate; the tests compare the two.
//!
//! A node is hashed by the function with its name, such as [`history_inner`], or as a [`Message`] among many: [`digests`] hashes two of
//! them at once. Independent nodes, such as those of one level, should be hashed in this way.

use std::fmt;
use std::sync::LazyLock;

use sha2::Digest as _;

use crate::integers::height_from;

/// Length of every digest, in bytes.
pub const DIGEST_BYTES: usize = 32;

/// Number of levels below the root of the hyper tree: one per bit of an event digest.
pub const HYPER_LEVELS: u16 = 256;

/// Initial state of SHA-256 (FIPS 180-4, section 5.3.3).
const INITIAL_STATE: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

/// A SHA-256 value: of an event, or of a node of a tree.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Digest([u8; DIGEST_BYTES]);

impl Digest {
    /// Return the digest of an event, `H(event)`.
    #[must_use]
    pub fn of_event(event: &[u8]) -> Self {
        Self(sha2::Sha256::digest(event).into())
    }

    /// Return the digests of events, in order.
    #[must_use]
    pub fn of_events(events: &[impl AsRef<[u8]>]) -> Vec<Self> {
        all_prefixed(&[], events)
    }

    /// Wrap 32 bytes that are already a digest.
    #[must_use]
    pub const fn new(bytes: [u8; DIGEST_BYTES]) -> Self {
        Self(bytes)
    }

    /// Return the digest in `bytes`, or `None` unless there are exactly 32 of them.
    #[must_use]
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// Return the digest written as 64 hexadecimal digits in `text`, or `None` if `text` is anything else.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        let mut bytes = [0; DIGEST_BYTES];
        if text.len() != 2 * DIGEST_BYTES {
            return None;
        }
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let &[high, low] = pair else { return None };
            *byte = u8::try_from(char::from(high).to_digit(16)? << 4 | char::from(low).to_digit(16)?).ok()?;
        }
        Some(Self(bytes))
    }

    /// Return the 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; DIGEST_BYTES] {
        &self.0
    }

    /// Return bit `depth`, counted from the most significant.
    ///
    /// # Panics
    ///
    /// If `depth` is 256 or more.
    #[must_use]
    #[expect(
        clippy::indexing_slicing,
        reason = "a depth beyond the last bit is a bug in the caller, and must not read as 0"
    )]
    pub fn bit(&self, depth: u16) -> bool {
        self.0[usize::from(depth / 8)] & (0x80 >> (depth % 8)) != 0
    }

    /// Return the first 64 bits as a number. Its numeric order is the order of digests.
    #[must_use]
    #[expect(clippy::missing_panics_doc, clippy::expect_used, reason = "a digest has 32 bytes")]
    pub const fn prefix64(&self) -> u64 {
        u64::from_be_bytes(*self.0.first_chunk().expect("a digest has more than 8 bytes"))
    }

    /// Return how many leading bits `self` and `other` share: 0 to 256.
    #[must_use]
    pub fn shared_bits(&self, other: &Self) -> u16 {
        let mut shared = 0;
        for (a, b) in self.0.iter().zip(other.0) {
            let zeros = (a ^ b).leading_zeros();
            shared += height_from(zeros);
            if zeros < 8 {
                break;
            }
        }
        shared
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // An answer contains some thirty digests. Formatting them byte by byte would take longer than creating the proof.
        let mut text = [0; 2 * DIGEST_BYTES];
        for (pair, byte) in text.as_chunks_mut().0.iter_mut().zip(self.0) {
            *pair = [hex_digit(byte >> 4), hex_digit(byte & 15)];
        }
        f.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

const fn hex_digit(nibble: u8) -> u8 {
    if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

/// A message that is to be hashed, with its padding: `BLOCKS` blocks.
#[derive(Debug, Clone, Copy)]
pub struct Message<const BLOCKS: usize>([[u8; 64]; BLOCKS]);

impl<const BLOCKS: usize> Message<BLOCKS> {
    /// Return the hash.
    #[must_use]
    #[inline]
    pub fn digest(&self) -> Digest {
        let mut states = [INITIAL_STATE];
        qed_sha256::compress(&mut states, &[self.0]);
        let [state] = states;
        to_digest(state)
    }
}

impl Message<1> {
    /// Return the message of [`history_leaf`].
    #[must_use]
    #[inline]
    pub fn history_leaf(digest: &Digest, position: &[u8; 10]) -> Self {
        one_block(&digest.0, position)
    }

    /// Return the message of [`history_partial`].
    #[must_use]
    #[inline]
    pub fn history_partial(left: &Digest, position: &[u8; 10]) -> Self {
        one_block(&left.0, position)
    }
}

impl Message<2> {
    /// Return the message of [`history_inner`].
    #[must_use]
    #[inline]
    pub fn history_inner(left: &Digest, right: &Digest, position: &[u8; 10]) -> Self {
        two_blocks(&left.0, &right.0, position)
    }

    /// Return the message of [`hyper_leaf`].
    #[must_use]
    #[inline]
    pub fn hyper_leaf(version: u64, position: &[u8; 34]) -> Self {
        two_blocks(&[0; 24], &version.to_be_bytes(), position)
    }

    /// Return the message of [`hyper_inner`].
    #[must_use]
    #[inline]
    pub fn hyper_inner(left: &Digest, right: &Digest, position: &[u8; 34]) -> Self {
        two_blocks(&right.0, &left.0, position)
    }

    /// Return the message of [`merkle_inner`].
    #[must_use]
    #[inline]
    pub fn merkle_inner(left: &Digest, right: &Digest) -> Self {
        two_blocks(&[1], &left.0, &right.0)
    }
}

/// Return the hashes of two messages, hashing both at once.
#[must_use]
#[inline]
pub fn pair<const BLOCKS: usize>(first: &Message<BLOCKS>, second: &Message<BLOCKS>) -> [Digest; 2] {
    let mut states = [INITIAL_STATE; 2];
    qed_sha256::compress(&mut states, &[first.0, second.0]);
    states.map(to_digest)
}

/// Return the hashes of messages, in order, hashing two at once.
pub fn digests<const BLOCKS: usize>(
    messages: impl IntoIterator<Item = Message<BLOCKS>>,
) -> impl Iterator<Item = Digest> {
    Digests { messages: messages.into_iter().fuse(), lanes: [[[0; 64]; BLOCKS]; 2], second: None }
}

/// The hashes of messages, and the one that was computed together with the last.
struct Digests<const BLOCKS: usize, I> {
    messages: I,
    lanes: [[[u8; 64]; BLOCKS]; 2],
    second: Option<Digest>,
}

impl<const BLOCKS: usize, I: Iterator<Item = Message<BLOCKS>>> Iterator for Digests<BLOCKS, I> {
    type Item = Digest;

    #[inline]
    fn next(&mut self) -> Option<Digest> {
        if let Some(second) = self.second.take() {
            return Some(second);
        }
        let mut count = 0;
        for (lane, message) in self.lanes.iter_mut().zip(&mut self.messages) {
            *lane = message.0;
            count += 1;
        }
        let (mut states, [first, _]) = ([INITIAL_STATE; 2], &self.lanes);
        match count {
            0 => None,
            1 => {
                qed_sha256::compress(states.split_at_mut(1).0, std::slice::from_ref(first));
                Some(to_digest(states[0]))
            }
            _ => {
                qed_sha256::compress(&mut states, &self.lanes);
                self.second = Some(to_digest(states[1]));
                Some(to_digest(states[0]))
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let (least, most) = self.messages.size_hint();
        let waiting = usize::from(self.second.is_some());
        (least.saturating_add(waiting), most.and_then(|most| most.checked_add(waiting)))
    }
}

/// Return a message of at most 55 bytes, given as its parts: one block.
#[inline]
fn one_block<const A: usize, const B: usize>(a: &[u8; A], b: &[u8; B]) -> Message<1> {
    const { assert!(A + B <= 55, "one block holds 55 bytes of message") };
    filled(&[a, b])
}

/// Return a message of 56 to 119 bytes, given as its parts: two blocks.
#[inline]
fn two_blocks<const A: usize, const B: usize, const C: usize>(a: &[u8; A], b: &[u8; B], c: &[u8; C]) -> Message<2> {
    const { assert!(A + B + C > 55 && A + B + C <= 119, "two blocks hold 56 to 119 bytes of message") };
    filled(&[a, b, c])
}

/// Return the blocks with the parts, the padding bit and, at the end, the message length in bits.
#[inline]
#[expect(clippy::indexing_slicing, reason = "the callers assert that the parts leave 9 bytes")]
fn filled<const BLOCKS: usize>(parts: &[&[u8]]) -> Message<BLOCKS> {
    let mut blocks = [[0; 64]; BLOCKS];
    let mut rest: &mut [u8] = blocks.as_flattened_mut();
    let mut message_bytes = 0_u64;
    for part in parts {
        let (head, tail) = rest.split_at_mut(part.len());
        head.copy_from_slice(part);
        message_bytes += part.len() as u64;
        rest = tail;
    }
    rest[0] = 0x80;
    let length = rest.len() - 8;
    rest[length..].copy_from_slice(&(message_bytes * 8).to_be_bytes());
    Message(blocks)
}

#[inline]
fn to_digest(state: [u32; 8]) -> Digest {
    let mut bytes = [0; DIGEST_BYTES];
    for (chunk, word) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(state) {
        *chunk = word.to_be_bytes();
    }
    Digest(bytes)
}

/// Return the history leaf of an event digest: `H(digest ‖ position)`.
#[must_use]
pub fn history_leaf(digest: &Digest, position: &[u8; 10]) -> Digest {
    Message::history_leaf(digest, position).digest()
}

/// Return a history node with both children: `H(left ‖ right ‖ position)`.
#[must_use]
pub fn history_inner(left: &Digest, right: &Digest, position: &[u8; 10]) -> Digest {
    Message::history_inner(left, right, position).digest()
}

/// Return a history node without a right child, because the tree's version is before it: `H(left ‖ position)`.
#[must_use]
pub fn history_partial(left: &Digest, position: &[u8; 10]) -> Digest {
    Message::history_partial(left, position).digest()
}

/// Return the hash of an act: `H("qed act 1" ‖ 00 ‖ hash of the previous act ‖ log id ‖ body)`.
#[must_use]
pub fn act(previous: &Digest, log_id: &[u8; 16], body: &[u8]) -> Digest {
    let parts = [b"qed act 1\0".as_slice(), &previous.0, log_id, body];
    Digest(sha2::Sha256::digest(parts.concat()).into())
}

/// Return a shortcut leaf of the hyper tree: `H(version as 32 bytes ‖ position)`.
#[must_use]
pub fn hyper_leaf(version: u64, position: &[u8; 34]) -> Digest {
    Message::hyper_leaf(version, position).digest()
}

/// Return a hyper node: `H(right ‖ left ‖ position)`. The right child comes first.
#[must_use]
pub fn hyper_inner(left: &Digest, right: &Digest, position: &[u8; 34]) -> Digest {
    Message::hyper_inner(left, right, position).digest()
}

/// Return the hash of an empty hyper subtree of `height` levels, `0 <= height <= 256`.
///
/// # Panics
///
/// If `height` is beyond 256.
#[must_use]
#[expect(clippy::indexing_slicing, reason = "no subtree is higher, so an invalid height must not get a hash")]
pub fn hyper_default(height: u16) -> Digest {
    DEFAULTS[usize::from(height)]
}

/// Return the hash of a frame of a backup: `H(previous ‖ head ‖ body)`, where `previous` is the hash of the frame before it.
#[must_use]
pub fn backup_frame(previous: &Digest, head: &[u8; 5], body: &[u8]) -> Digest {
    Digest(sha2::Sha256::new().chain_update(previous.0).chain_update(head).chain_update(body).finalize().into())
}

/// Return the hash of a leaf of the tree of RFC 6962, section 2.1: `H(00 ‖ entry)`.
#[must_use]
pub fn merkle_leaf(entry: &[u8]) -> Digest {
    one_prefixed(&[0], entry)
}

/// Return the hashes of the leaves `entries`, each as by [`merkle_leaf`].
#[must_use]
pub fn merkle_leaves(entries: &[impl AsRef<[u8]>]) -> Vec<Digest> {
    all_prefixed(&[0], entries)
}

/// Return the hash of a message that begins with `prefix`.
fn one_prefixed(prefix: &[u8], rest: &[u8]) -> Digest {
    if let Some(message) = prefixed::<1>(prefix, rest) {
        message.digest()
    } else if let Some(message) = prefixed::<2>(prefix, rest) {
        message.digest()
    } else {
        Digest(sha2::Sha256::new().chain_update(prefix).chain_update(rest).finalize().into())
    }
}

/// Return the hashes of messages that begin with `prefix`, in order. Those of one and two blocks are hashed two at once.
#[expect(clippy::expect_used, reason = "a message without its hash would shift all others")]
fn all_prefixed(prefix: &[u8], rests: &[impl AsRef<[u8]>]) -> Vec<Digest> {
    if let [only] = rests {
        return vec![one_prefixed(prefix, only.as_ref())];
    }
    let rests = || rests.iter().map(AsRef::as_ref);
    let mut one = digests(rests().filter_map(|rest| prefixed::<1>(prefix, rest)));
    let mut two = digests(rests().filter_map(|rest| prefixed::<2>(prefix, rest)));
    let hash = |rest: &[u8]| match blocks_of(prefix, rest) {
        1 => one.next().expect("each message of one block is hashed"),
        2 => two.next().expect("each message of two blocks is hashed"),
        _ => one_prefixed(prefix, rest),
    };
    rests().map(hash).collect()
}

/// Return the message, unless it has another number of blocks.
#[inline]
fn prefixed<const BLOCKS: usize>(prefix: &[u8], rest: &[u8]) -> Option<Message<BLOCKS>> {
    (blocks_of(prefix, rest) == BLOCKS).then(|| filled(&[prefix, rest]))
}

/// Return the number of blocks of a message with its padding, which has at least nine bytes.
const fn blocks_of(prefix: &[u8], rest: &[u8]) -> usize {
    (prefix.len() + rest.len() + 9).div_ceil(64)
}

/// Return a node of the tree of RFC 6962, section 2.1: `H(01 ‖ left ‖ right)`.
#[must_use]
pub fn merkle_inner(left: &Digest, right: &Digest) -> Digest {
    Message::merkle_inner(left, right).digest()
}

/// Return the root of the tree of RFC 6962 without leaves: `H("")`.
#[must_use]
pub fn merkle_empty() -> Digest {
    Digest::of_event(b"")
}

/// Return the hash that names a file of evidence: `H(a ‖ b)` of what contradicts each other.
#[must_use]
pub fn evidence_name(a: &Digest, b: &Digest) -> Digest {
    Digest(sha2::Sha256::new().chain_update(a.0).chain_update(b.0).finalize().into())
}

/// Return the id of a key that signs notes: the first four bytes of `H(name ‖ LF ‖ kind ‖ public key)`.
#[must_use]
pub fn note_key_id(name: &str, kind: u8, public_key: &[u8]) -> [u8; 4] {
    let message = sha2::Sha256::new().chain_update(name).chain_update([b'\n', kind]).chain_update(public_key);
    let [a, b, c, d, ..]: [u8; DIGEST_BYTES] = message.finalize().into();
    [a, b, c, d]
}

static DEFAULTS: LazyLock<Vec<Digest>> = LazyLock::new(|| {
    let bottom = Digest(sha2::Sha256::digest([0, 0]).into());
    let above = |below: &Digest| Some(Digest(sha2::Sha256::digest([below.0, below.0].concat()).into()));
    std::iter::successors(Some(bottom), above).take(usize::from(HYPER_LEVELS) + 1).collect()
});

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(parts: &[&[u8]]) -> Digest {
        Digest(sha2::Sha256::digest(parts.concat()).into())
    }

    #[test]
    fn padding_laid_out_here_is_that_of_sha256() {
        let (a, b) = (Digest::of_event(b"a"), Digest::of_event(b"b"));
        let (short, long) = ([7; 10], [9; 34]);
        let mut version = [0; 32];
        version[24..].copy_from_slice(&77_u64.to_be_bytes());
        assert_eq!(history_leaf(&a, &short), plain(&[&a.0, &short]));
        assert_eq!(history_inner(&a, &b, &short), plain(&[&a.0, &b.0, &short]));
        assert_eq!(history_partial(&b, &short), plain(&[&b.0, &short]));
        assert_eq!(hyper_leaf(77, &long), plain(&[&version, &long]));
        assert_eq!(hyper_inner(&a, &b, &long), plain(&[&b.0, &a.0, &long]));
        assert_eq!(merkle_inner(&a, &b), plain(&[&[1], &a.0, &b.0]));
        for bytes in [0, 41, 42, 43, 105, 106, 107, 300] {
            let entry = vec![5; bytes];
            assert_eq!(merkle_leaf(&entry), plain(&[&[0], &entry]), "{bytes}");
        }
    }

    #[test]
    fn many_messages_have_the_digests_of_each() {
        let events: Vec<_> = (0..1001_u32).map(|i| Digest::of_event(&i.to_be_bytes())).collect();
        let (short, long) = ([7; 10], [9; 34]);
        for count in [0, 1, 2, 3, 4, 5, 999, 1000, 1001] {
            let events = &events[..count];
            let expected = |parts: &dyn Fn(&Digest) -> Digest| events.iter().map(parts).collect::<Vec<_>>();
            let one: Vec<_> = digests(events.iter().map(|event| Message::history_leaf(event, &short))).collect();
            assert_eq!(one, expected(&|event| plain(&[&event.0, &short])), "{count}");
            let two: Vec<_> = digests(events.iter().map(|event| Message::hyper_inner(event, event, &long))).collect();
            assert_eq!(two, expected(&|event| plain(&[&event.0, &event.0, &long])), "{count}");
            let sized = digests(events.iter().map(|event| Message::merkle_inner(event, event)));
            assert_eq!(sized.size_hint(), (count, Some(count)));
        }
    }

    #[test]
    fn leaves_and_events_of_all_lengths_keep_their_order() {
        let bytes = |i: usize| vec![u8::try_from(i % 251).unwrap(); [42, 42, 106, i % 200, 41, 106, 55, 0][i % 8]];
        let messages: Vec<_> = (0..1001).map(bytes).collect();
        for count in [0, 1, 2, 3, 5, 6, 7, 999, 1000, 1001] {
            let messages = &messages[..count];
            let leaves: Vec<_> = messages.iter().map(|entry| plain(&[&[0], entry])).collect();
            assert_eq!(merkle_leaves(messages), leaves, "{count}");
            assert_eq!(messages.iter().map(|entry| merkle_leaf(entry)).collect::<Vec<_>>(), leaves, "{count}");
            let events: Vec<_> = messages.iter().map(|event| plain(&[event])).collect();
            assert_eq!(Digest::of_events(messages), events, "{count}");
        }
        let lengths: Vec<_> = (0..300).map(|length| vec![0x80; length]).collect();
        assert_eq!(Digest::of_events(&lengths), lengths.iter().map(|event| plain(&[event])).collect::<Vec<_>>());
    }

    #[test]
    fn hexadecimal_text_is_64_digits_and_nothing_else() {
        let digest = Digest::of_event(b"event 0");
        let text = digest.to_string();
        assert_eq!(text, "5beeaf427ee0bfcd1a7b6f63010f2745110cf23ae088b859275cd0aad369561b");
        assert_eq!(Digest::from_hex(&text), Some(digest));
        for bad in ["", &text[1..], &format!("{text}0"), &text.replace('5', "g"), &text.replace('5', "+")] {
            assert_eq!(Digest::from_hex(bad), None, "{bad}");
        }
    }

    #[test]
    #[should_panic(expected = "index out of bounds")]
    fn an_empty_subtree_higher_than_the_tree_has_no_hash() {
        let _ = hyper_default(HYPER_LEVELS + 1);
    }

    #[test]
    #[should_panic(expected = "index out of bounds")]
    fn a_bit_beyond_the_last_has_no_value() {
        let _ = Digest::new([0xff; 32]).bit(HYPER_LEVELS);
    }

    #[test]
    fn bits_count_from_the_most_significant() {
        let digest = Digest::new([0b0100_0001; 32]);
        assert_eq!((digest.bit(0), digest.bit(1), digest.bit(7), digest.bit(255)), (false, true, true, true));
        assert_eq!(digest.shared_bits(&digest), 256);
        assert_eq!(digest.shared_bits(&Digest::new([0b0100_0000; 32])), 7);
    }
}
