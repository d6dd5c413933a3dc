//! Random numbers that can be had again: the seed is printed, and `CC_TEST_SEED` sets it.

use std::time::{SystemTime, UNIX_EPOCH};

use shared::config::Source;

/// A source of random numbers (`SplitMix64`).
pub struct Dice(u64);

impl Dice {
    /// Dice with a new seed, or with the one in `CC_TEST_SEED`.
    pub fn new() -> Self {
        let environment = Source::environment();
        let given = environment
            .get("CC_TEST_SEED")
            .and_then(|text| text.parse().ok());
        let seed = given.unwrap_or_else(|| {
            let now = SystemTime::now().duration_since(UNIX_EPOCH);
            now.map_or(0, |now| u64::from(now.subsec_nanos()) ^ now.as_secs())
        });
        println!("CC_TEST_SEED={seed}");
        Self(seed)
    }

    /// A number from `range`.
    pub fn roll(&mut self, range: std::ops::RangeInclusive<u64>) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let (least, most) = range.into_inner();
        least + (mixed ^ (mixed >> 31)) % (most - least + 1)
    }
}

impl Default for Dice {
    fn default() -> Self {
        Self::new()
    }
}
