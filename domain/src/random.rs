//! Seeded random numbers: the same seed gives the same sequence on every machine and in every version. `rand` does not
//! promise that for ranges and shuffles, on which the order of stored runs depends.

/// The generator `SplitMix64` of Steele, Lea & Flood 2014, "Fast splittable pseudorandom number generators". Period
/// 2^64; good enough to shuffle and resample, useless for secrets.
#[derive(Debug, Clone)]
pub struct SplitMix64 {
    state: u64,
}

impl SplitMix64 {
    /// The sequence of this seed.
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number in [0, 1), of 53 random bits.
    pub fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A number below `limit`, all equally likely to within `limit` / 2^64 (multiply and shift, Lemire 2019, "Fast
    /// random integer generation in an interval", without its rejection step); 0 if `limit` is 0.
    pub fn below(&mut self, limit: usize) -> usize {
        let product = u128::from(self.next_u64()) * limit as u128;
        usize::try_from(product >> 64).unwrap_or(0)
    }

    /// Puts the items in a random order (Durstenfeld 1964, "Algorithm 235: Random permutation").
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_is_the_published_one() {
        let mut numbers = SplitMix64::new(1_234_567);
        let first: Vec<u64> = (0..3).map(|_| numbers.next_u64()).collect();
        assert_eq!(first, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    #[test]
    fn all_orders_are_about_equally_likely() {
        let mut numbers = SplitMix64::new(3);
        let mut seen = std::collections::HashMap::new();
        for _ in 0..6000 {
            let mut items = [0, 1, 2];
            numbers.shuffle(&mut items);
            *seen.entry(items).or_insert(0) += 1;
        }
        assert_eq!(seen.len(), 6);
        assert!(seen.values().all(|count| (900..1100).contains(count)), "{seen:?}");
    }

    #[test]
    fn below_stays_below() {
        let mut numbers = SplitMix64::new(9);
        assert!((0..1000).all(|_| numbers.below(7) < 7));
        assert_eq!(numbers.below(0), 0);
        assert!((0..1000).map(|_| numbers.unit()).all(|unit| (0.0..1.0).contains(&unit)));
    }
}
