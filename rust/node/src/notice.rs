//! Notices: what members say to each other beside Raft (FORMATS.md, "Between members").

use qed_core::log_id::LogId;
use qed_core::page::Extent;

use crate::member_id::MemberId;

/// The first byte of every notice. No Raft message begins with it: in protobuf it would be a field with the number 0.
pub const NOTICE: u8 = 0;
const QUESTION: u8 = 1;
const ANSWER: u8 = 2;
const EXTENT: u8 = 3;

/// A message that is not one of Raft.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// A member that has started asks what another remembers of it.
    Question(Question),
    /// What the other remembers.
    Answer(Answer),
    /// A leader says how far its log is.
    Extent(Extent),
}

/// How far a member is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Position {
    /// Its term.
    pub term: u64,
    /// Its last entry.
    pub last: LogId,
}

/// What a member remembers of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Mark {
    /// The last term in which it heard the other.
    pub term: u64,
    /// The last entry that the other has acknowledged to it in that term, or 0.
    pub acknowledged: u64,
}

/// What a member asks the others after a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question {
    /// Drawn at the start, so that no answer to an earlier start counts.
    pub nonce: u64,
    /// How far the one that asks is.
    pub position: Position,
}

/// The answer to a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The nonce of the question.
    pub nonce: u64,
    /// How far the one that answers is.
    pub position: Position,
    /// What it remembers of the one that asks.
    pub mark: Mark,
    /// The last entry that it has applied, and the voters there.
    pub applied: u64,
    /// The voters.
    pub voters: Vec<MemberId>,
}

impl Notice {
    /// Return the bytes of the notice.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let (kind, words) = match self {
            Self::Extent(extent) => return [&[NOTICE, EXTENT], extent.to_bytes().as_slice()].concat(),
            Self::Question(Question { nonce, position }) => {
                (QUESTION, [&[*nonce], words(*position).as_slice()].concat())
            }
            Self::Answer(Answer { nonce, position, mark, applied, voters }) => {
                let known = [mark.term, mark.acknowledged, *applied];
                let voters: Vec<_> = voters.iter().copied().map(MemberId::get).collect();
                (ANSWER, [&[*nonce], words(*position).as_slice(), &known, &voters].concat())
            }
        };
        [NOTICE, kind].into_iter().chain(words.into_iter().flat_map(u64::to_be_bytes)).collect()
    }

    /// Return the notice in `bytes`, or None if there is none that this build knows.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let ([NOTICE, kind], rest) = bytes.split_first_chunk()? else { return None };
        if *kind == EXTENT {
            return Extent::from_bytes(rest).ok().map(Self::Extent);
        }
        let (words, []) = rest.as_chunks() else { return None };
        let words: Vec<_> = words.iter().copied().map(u64::from_be_bytes).collect();
        match (*kind, words.as_slice()) {
            (QUESTION, &[nonce, term, index, of_last]) => {
                let position = Position { term, last: LogId { index, term: of_last } };
                Some(Self::Question(Question { nonce, position }))
            }
            (ANSWER, [nonce, term, index, of_last, heard, acknowledged, applied, voters @ ..]) => {
                Some(Self::Answer(Answer {
                    nonce: *nonce,
                    position: Position { term: *term, last: LogId { index: *index, term: *of_last } },
                    mark: Mark { term: *heard, acknowledged: *acknowledged },
                    applied: *applied,
                    voters: voters.iter().map(|&voter| MemberId::new(voter)).collect::<Option<_>>()?,
                }))
            }
            _ => None,
        }
    }
}

const fn words(Position { term, last }: Position) -> [u64; 3] {
    [term, last.index, last.term]
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use qed_core::hash::Digest;
    use raft::eraftpb::Message;

    use super::*;

    fn notices() -> [Notice; 3] {
        let position = Position { term: 3, last: LogId { index: 7, term: 2 } };
        let answer = Answer {
            nonce: 1,
            position,
            mark: Mark { term: 3, acknowledged: 6 },
            applied: 5,
            voters: vec![MemberId::of(4), MemberId::of(9)],
        };
        let digest = Digest::of_event(b"a");
        let extent = Extent { len: 1, history_digest: digest, hyper_digest: digest };
        [Notice::Question(Question { nonce: u64::MAX, position }), Notice::Answer(answer), Notice::Extent(extent)]
    }

    #[test]
    fn a_notice_is_read_as_it_was_written() {
        for notice in notices() {
            assert_eq!(Notice::from_bytes(&notice.to_bytes()), Some(notice));
        }
    }

    #[test]
    fn no_bytes_are_both_a_notice_and_a_raft_message() {
        for notice in notices() {
            Message::decode(notice.to_bytes().as_slice()).unwrap_err();
        }
    }

    #[test]
    fn what_is_cut_off_or_of_another_kind_is_no_notice() {
        for bytes in notices().map(|notice| notice.to_bytes()) {
            for length in 0..bytes.len() {
                // Without its last voters an answer is still one: nothing says how many there are.
                let is_shorter = bytes[1] == ANSWER && length >= 2 + 7 * 8 && (length - 2).is_multiple_of(8);
                assert_eq!(Notice::from_bytes(&bytes[..length]).is_some(), is_shorter, "{length} bytes");
            }
            let other = [&[NOTICE, 9], &bytes[2..]].concat();
            assert_eq!(Notice::from_bytes(&other), None);
        }
    }

    #[test]
    fn a_voter_without_a_number_makes_an_answer_invalid() {
        let bytes = [&[NOTICE, ANSWER], [0; 8 * 8].as_slice()].concat();
        assert_eq!(Notice::from_bytes(&bytes), None);
    }
}
