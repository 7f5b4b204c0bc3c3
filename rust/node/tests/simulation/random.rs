//! The only source of randomness in a simulation: the seed determines the run.

/// SplitMix64 (Steele, Lea and Flood 2014).
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// Return a generator that starts at `seed`.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Return a random number.
    pub const fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed(self.0)
    }

    /// Return a random number in `0..end`; 0 if `end` is 0.
    pub const fn below(&mut self, end: u64) -> u64 {
        if end == 0 { 0 } else { self.number() % end }
    }

    /// Return a random number in `from..=to`.
    pub const fn within(&mut self, from: u64, to: u64) -> u64 {
        from + self.below(to - from + 1)
    }

    /// Return true in `of_thousand` of 1000 cases.
    pub const fn is_hit(&mut self, of_thousand: u64) -> bool {
        self.below(1000) < of_thousand
    }

    /// Return a random element of `things`, if there are any.
    pub fn pick<T: Copy>(&mut self, things: &[T]) -> Option<T> {
        let at = self.below(things.len() as u64);
        things.get(usize::try_from(at).ok()?).copied()
    }

    /// Return `things` in random order.
    pub fn shuffled<T>(&mut self, mut things: Vec<T>) -> Vec<T> {
        for end in (1..things.len()).rev() {
            let other = usize::try_from(self.below(end as u64 + 1)).unwrap();
            things.swap(end, other);
        }
        things
    }
}

/// Return a well-mixed number: neighbouring inputs give unrelated outputs.
pub const fn mixed(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}
