//! Changes to files, as an attacker or a bad disk may make them.

use std::env;

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::Config;

use crate::seeds::searching;

/// Return the configuration of a test of random damage. `QED_MUTATIONS` is the number of cases of a long run.
pub fn damaging(cases: u32) -> Config {
    let wanted = env::var("QED_MUTATIONS").ok().map(|count| count.parse().expect("a number in QED_MUTATIONS"));
    searching(wanted.unwrap_or(cases))
}

/// Return JSON with one value a line, so that lines can be exchanged, repeated and lost.
pub fn lines_of(json: &str) -> Vec<u8> {
    json.replace(',', ",\n").into_bytes()
}

/// Return the file after some damage. `donor` is another file, of which it may get pieces.
pub fn damaged(file: &[u8], donor: &[u8], damages: &[Damage]) -> Vec<u8> {
    damages.iter().fold(file.to_vec(), |bytes, damage| damage.apply(&bytes, donor))
}

/// Damage to the bytes of a file.
#[derive(Debug, Clone)]
pub enum Damage {
    Flip(Index, u8),
    Cut(Index),
    SwapLines(Index, Index),
    RepeatLine(Index),
    DropLine(Index),
    Insert(Index, u8),
    Remove(Index),
    /// Bytes of the other file, in place of as many.
    Paste(Index, Index, u8),
    /// A line of the other file, in place of one.
    TakeLine(Index, Index),
    /// The line of the other file that is at the same place.
    SameLine(Index),
}

pub fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        4 => (any::<Index>(), 0_u8..8).prop_map(|(i, bit)| Damage::Flip(i, bit)),
        2 => any::<Index>().prop_map(Damage::Cut),
        1 => any::<(Index, Index)>().prop_map(|(a, b)| Damage::SwapLines(a, b)),
        1 => any::<Index>().prop_map(Damage::RepeatLine),
        1 => any::<Index>().prop_map(Damage::DropLine),
        1 => any::<(Index, u8)>().prop_map(|(i, byte)| Damage::Insert(i, byte)),
        1 => any::<Index>().prop_map(Damage::Remove),
        1 => any::<(Index, Index, u8)>().prop_map(|(to, from, length)| Damage::Paste(to, from, length)),
        2 => any::<(Index, Index)>().prop_map(|(to, from)| Damage::TakeLine(to, from)),
        4 => any::<Index>().prop_map(Damage::SameLine),
    ]
}

impl Damage {
    fn apply(&self, file: &[u8], donor: &[u8]) -> Vec<u8> {
        let mut bytes = file.to_vec();
        if bytes.is_empty() {
            return vec![0];
        }
        let count = bytes.len();
        match self {
            Self::Flip(i, bit) => bytes[i.index(count)] ^= 1 << bit,
            Self::Cut(i) => bytes.truncate(i.index(count)),
            Self::Insert(i, byte) => bytes.insert(i.index(count), *byte),
            Self::Remove(i) => drop(bytes.remove(i.index(count))),
            Self::Paste(to, from, length) => {
                let piece = &donor[from.index(donor.len())..];
                let piece = &piece[..piece.len().min(usize::from(*length))];
                let start = to.index(count);
                bytes.splice(start..count.min(start + piece.len()), piece.iter().copied());
            }
            Self::SwapLines(..) | Self::RepeatLine(_) | Self::DropLine(_) | Self::TakeLine(..) | Self::SameLine(_) => {
                return self.apply_to_lines(file, donor).concat();
            }
        }
        bytes
    }

    fn apply_to_lines<'a>(&self, file: &'a [u8], donor: &'a [u8]) -> Vec<&'a [u8]> {
        let [mut lines, others] =
            [file, donor].map(|file| file.split_inclusive(|byte| *byte == b'\n').collect::<Vec<_>>());
        let count = lines.len();
        match self {
            Self::SwapLines(a, b) => lines.swap(a.index(count), b.index(count)),
            Self::RepeatLine(i) => lines.insert(i.index(count), lines[i.index(count)]),
            Self::DropLine(i) => drop(lines.remove(i.index(count))),
            Self::TakeLine(to, from) => lines[to.index(count)] = others[from.index(others.len())],
            Self::SameLine(i) => {
                let place = i.index(count.min(others.len()));
                lines[place] = others[place];
            }
            _ => {}
        }
        lines
    }
}
