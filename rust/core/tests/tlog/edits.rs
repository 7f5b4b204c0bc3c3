//! Changes to files, as an attacker or a bad disk may make them.

use proptest::prelude::*;
use proptest::sample::Index;

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
    ]
}

impl Damage {
    pub fn apply(&self, bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        if bytes.is_empty() {
            return vec![0];
        }
        let count = bytes.len();
        let mut lines: Vec<_> = bytes.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
        let of_lines = lines.len();
        match self {
            Self::Flip(i, bit) => bytes[i.index(count)] ^= 1 << bit,
            Self::Cut(i) => bytes.truncate(i.index(count)),
            Self::Insert(i, byte) => bytes.insert(i.index(count), *byte),
            Self::Remove(i) => drop(bytes.remove(i.index(count))),
            Self::SwapLines(a, b) => lines.swap(a.index(of_lines), b.index(of_lines)),
            Self::RepeatLine(i) => lines.insert(i.index(of_lines), lines[i.index(of_lines)].clone()),
            Self::DropLine(i) => drop(lines.remove(i.index(of_lines))),
        }
        if matches!(self, Self::SwapLines(..) | Self::RepeatLine(_) | Self::DropLine(_)) {
            lines.concat()
        } else {
            bytes
        }
    }
}
