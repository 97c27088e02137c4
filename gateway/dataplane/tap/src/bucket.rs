//! A token bucket on the caller's clock.

/// At most `rate` tokens a second, and as many saved up.
#[derive(Debug, Clone)]
pub struct Bucket {
    rate: u64,
    tokens_ns: u64,
    last_ns: u64,
}

const SECOND: u64 = 1_000_000_000;

impl Bucket {
    /// A full bucket of `rate` tokens per second.
    #[must_use]
    pub fn new(rate: u32) -> Self {
        let rate = u64::from(rate);
        Self { rate, tokens_ns: rate * SECOND, last_ns: 0 }
    }

    /// Take one token at `now_ns`; false when there is none. A clock that was set back adds nothing, and goes on from there.
    pub fn take(&mut self, now_ns: u64) -> bool {
        let elapsed = now_ns.saturating_sub(self.last_ns);
        self.last_ns = now_ns;
        // One token is SECOND units, so `elapsed` nanoseconds at `rate` tokens a second are `elapsed * rate` units.
        self.tokens_ns = self.tokens_ns.saturating_add(elapsed.saturating_mul(self.rate)).min(self.rate * SECOND);
        if self.tokens_ns < SECOND {
            return false;
        }
        self.tokens_ns -= SECOND;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_its_rate_and_no_more() {
        let mut bucket = Bucket::new(10);
        let at_once = (0..100).filter(|_| bucket.take(5 * SECOND)).count();
        assert_eq!(at_once, 10);
        let later = (0..1000).filter(|i| bucket.take(5 * SECOND + i * SECOND / 1000)).count();
        assert_eq!(later, 9, "the tenth token is due one millisecond after the last try");
        assert_eq!((0..100).filter(|_| bucket.take(50 * SECOND)).count(), 10, "saves up one second, not forty");
    }

    #[test]
    fn a_clock_that_was_set_back_gives_nothing_for_that_and_goes_on_from_there() {
        let mut bucket = Bucket::new(1);
        assert!(bucket.take(1000 * SECOND));
        assert!(!bucket.take(SECOND));
        assert!(!bucket.take(SECOND + SECOND / 2));
        assert!(bucket.take(2 * SECOND), "not only when it is 1001 s again");
        assert!(!bucket.take(2 * SECOND));
    }

    #[test]
    fn none_is_none() {
        let mut bucket = Bucket::new(0);
        assert!(!bucket.take(u64::MAX));
    }
}
