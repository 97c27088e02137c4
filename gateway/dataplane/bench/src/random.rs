//! Seeded randomness: the same frames in every run.

/// SplitMix64.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Below `limit`, which is not 0.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        ((u128::from(self.next()) * limit as u128) >> 64) as usize
    }

    /// In [0, 1).
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Exponent of the Zipf distribution, as in YCSB.
pub(crate) const ZIPF_EXPONENT: f64 = 0.99;
const REST: f64 = 1.0 - ZIPF_EXPONENT;

/// Which flow the next packet belongs to.
pub(crate) enum Choice {
    Uniform {
        flows: usize,
    },
    /// Rejection-inversion (Hörmann and Derflinger 1996); ranks are spread over the flows, so that popular flows are no
    /// neighbours in memory.
    Zipf {
        flows: usize,
        /// The integral from the first rank to behind the last one.
        from: f64,
        to: f64,
        stride: usize,
    },
}

fn integral(x: f64) -> f64 {
    (x.powf(REST) - 1.0) / REST
}

fn inverse(y: f64) -> f64 {
    (1.0 + y * REST).powf(1.0 / REST)
}

impl Choice {
    pub(crate) fn zipf(flows: usize) -> Self {
        // A large prime shares no factor with any number of flows that it does not divide.
        const STRIDE: usize = 2_147_483_647;
        Self::Zipf { flows, from: integral(1.5) - 1.0, to: integral(flows as f64 + 0.5), stride: STRIDE }
    }

    pub(crate) fn next(&self, random: &mut Random) -> usize {
        match *self {
            Self::Uniform { flows } => random.below(flows),
            Self::Zipf { flows, from, to, stride } => {
                let rank = loop {
                    let u = to + random.unit() * (from - to);
                    let rank = (inverse(u) + 0.5).floor().clamp(1.0, flows as f64);
                    if u >= integral(rank + 0.5) - rank.powf(-ZIPF_EXPONENT) {
                        break rank as usize - 1;
                    }
                };
                rank.wrapping_mul(stride) % flows
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zipf_has_the_shares_of_its_ranks() {
        let (flows, draws) = (1000, 200_000);
        let choice = Choice::zipf(flows);
        let mut random = Random::new(1);
        let mut seen = vec![0u32; flows];
        for _ in 0..draws {
            seen[choice.next(&mut random)] += 1;
        }
        let total: f64 = (1..=flows).map(|rank| (rank as f64).powf(-ZIPF_EXPONENT)).sum();
        for rank in [1usize, 2, 10, 100] {
            let expected = draws as f64 * (rank as f64).powf(-ZIPF_EXPONENT) / total;
            let found = f64::from(seen[(rank - 1).wrapping_mul(2_147_483_647) % flows]);
            assert!((found - expected).abs() < 6.0 * expected.sqrt(), "rank {rank}: {found}, expected {expected}");
        }
        assert!(seen.iter().all(|n| *n > 0), "every rank has its own flow");
    }

    #[test]
    fn uniform_reaches_every_flow() {
        let mut random = Random::new(2);
        let mut seen = [0u32; 16];
        for _ in 0..16_000 {
            seen[Choice::Uniform { flows: 16 }.next(&mut random)] += 1;
        }
        assert!(seen.iter().all(|n| (810..1190).contains(n)), "{seen:?}");
    }
}
