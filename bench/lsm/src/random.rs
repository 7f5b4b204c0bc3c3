//! Numbers that look random and are the same in every run.

/// `SplitMix64`.
pub struct Random(u64);

impl Random {
    /// Return the sequence of `seed`.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Return the next number.
    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Return the next number, below `limit`.
    pub const fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

/// Return a stand-in for the digest of event `version`, which can be recomputed to check a row.
pub fn digest(version: u64) -> [u8; 32] {
    let mut random = Random::new(version.wrapping_mul(0x2545_f491_4f6c_dd1d));
    let mut bytes = [0; 32];
    for word in bytes.chunks_exact_mut(8) {
        word.copy_from_slice(&random.next().to_le_bytes());
    }
    bytes
}
