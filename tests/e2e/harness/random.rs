//! Numbers that look drawn.

/// A generator of such numbers (xorshift).
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// One whose numbers are the same in each run.
    pub(crate) fn fixed() -> Self {
        Self(0x9e37_79b9_7f4a_7c15)
    }

    /// One whose numbers are others in each run, unless `PORTOK_TEST_SEED` says which. It prints
    /// its seed, which a test that fails shows.
    pub(crate) fn drawn() -> Self {
        const SEED: &str = "PORTOK_TEST_SEED";
        let now = || {
            let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            u64::from(since.map_or(1, |since| since.subsec_nanos()))
        };
        let number = |seed: String| seed.parse().unwrap_or_else(|_| panic!("{SEED} is a number"));
        let seed = std::env::var(SEED).map_or_else(|_| now(), number);
        eprintln!("{SEED}={seed}");
        let mut drawn = Self(Self::fixed().0 ^ seed.wrapping_mul(0xd134_2543_de82_ef95));
        // Seeds that are alike give numbers that are not.
        for _ in 0..8 {
            drawn.below(2);
        }
        drawn
    }

    /// The next number, from 0 on and below `limit`.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}
