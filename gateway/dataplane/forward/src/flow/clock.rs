//! Time as the flow tables keep it: seconds, 16 bits of which stand in a bucket.

/// Deadlines are 16 bits of seconds and compared as signed differences.
const HORIZON: u64 = 1 << 15;
/// Every bucket is visited at least once in so many seconds, so that no deadline is left behind by half the circle.
const CYCLE: u64 = 8192;
/// The longest that a flow may stay without a packet [s].
pub(crate) const MAX_TIMEOUT: u16 = 16_000;

/// What time it is, and which buckets are to be visited for the sake of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Clock {
    /// Seconds that have passed; a clock that was set back does not set it back.
    now: u64,
    /// What the caller's clock said last [s].
    last: u64,
    /// Bucket-seconds since a bucket was last visited.
    owed: u64,
    swept: usize,
}

/// What a passage of time asks of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Visit so many buckets.
    Visit(u64),
    /// So long has passed that every flow is past its deadline.
    Clear,
}

impl Clock {
    /// It is `now` [s], for a table of `buckets`.
    pub(super) fn advance(&mut self, now: u64, buckets: usize) -> Due {
        let passed = now.saturating_sub(self.last);
        self.last = now;
        self.now += passed;
        if passed >= HORIZON - u64::from(MAX_TIMEOUT) {
            self.owed = 0;
            return Due::Clear;
        }
        self.owed += passed * buckets as u64;
        let visits = self.owed / CYCLE;
        self.owed %= CYCLE;
        Due::Visit(visits)
    }

    /// The next bucket to visit.
    pub(super) fn next(&mut self, buckets: usize) -> usize {
        let bucket = self.swept;
        self.swept = if bucket + 1 < buckets { bucket + 1 } else { 0 };
        bucket.min(buckets.saturating_sub(1))
    }

    pub(super) fn deadline(&self, timeout: u16) -> u16 {
        (self.now as u16).wrapping_add(timeout.min(MAX_TIMEOUT))
    }

    pub(super) fn is_past(&self, deadline: u16) -> bool {
        (self.now as u16).wrapping_sub(deadline) as i16 >= 0
    }
}
