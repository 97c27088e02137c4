//! Flows of IPv4: three to a bucket of one cache line, tuple, value and time included.
//!
//! A connection has two buckets. It lies in its first when there was room (the one that a lookup asks for ahead of time),
//! else in its second, and the first counts it: while that count is zero, a miss in the first is a miss. Rooms are made by
//! moving others to their other bucket (cuckoo hashing; the whole tuple is here, so they are hashed again).

use super::clock::{Clock, Due};
use super::Full;
use crate::connection;
use crate::hash::{fold, mix, Tuple};
use crate::memory::{Memory, Zeroed};
use crate::packet::is_v4;
use crate::prefetch::prefetch;

const LANES: usize = 3;
/// Steps that the search for room looks at.
const MAX_STEPS: usize = 400;
/// Buckets that an insertion looks through for dead flows when the table holds all it may.
const SEARCHED: usize = 16;
/// A count of moved flows that has come so far stays: it can no longer be trusted to be exact.
const STUCK: u8 = u8::MAX;

/// An IPv4 connection in the direction of its requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) src: u32,
    pub(crate) dst: u32,
    /// Source port in the high half.
    pub(crate) ports: u32,
    pub(crate) protocol: u8,
}

impl Key {
    /// The key of a tuple; `None` for IPv6.
    pub(crate) fn of(tuple: &Tuple) -> Option<Self> {
        is_v4(tuple.src).then(|| Self {
            src: tuple.src as u32,
            dst: tuple.dst as u32,
            ports: u32::from(tuple.src_port) << 16 | u32::from(tuple.dst_port),
            protocol: tuple.protocol,
        })
    }
}

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Bucket {
    src: [u32; LANES],
    dst: [u32; LANES],
    ports: [u32; LANES],
    value: [u32; LANES],
    deadline: [u16; LANES],
    protocol: [u8; LANES],
    state: [u8; LANES],
    /// 0: free.
    tag: [u8; LANES],
    /// Flows whose first bucket this is and that lie in their second.
    moved: u8,
}

// SAFETY: integers.
unsafe impl Zeroed for Bucket {}

const _: () = assert!(size_of::<Bucket>() == 64);

/// Where a flow was found. Good until the next insertion, removal or sweep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hit {
    bucket: u32,
    lane: u8,
}

/// The table.
pub(crate) struct Narrow {
    buckets: Memory<Bucket>,
    capacity: u64,
    seeds: [u64; 2],
    clock: Clock,
    use_tags: bool,
    created: u64,
    expired: u64,
    active: u64,
}

impl Narrow {
    /// A table for `capacity` connections: at least 8, at most 2^32.
    pub(crate) fn new(capacity: usize, seed: u64) -> Self {
        let capacity = capacity.clamp(8, 1 << 32);
        // At most nine tenths full: two choices of three lanes carry that without long chains of moves.
        let buckets = (capacity + capacity / 9).div_ceil(LANES).max(4);
        Self {
            buckets: Memory::new(buckets),
            capacity: capacity as u64,
            seeds: [mix(seed), mix(!seed)],
            clock: Clock::default(),
            use_tags: true,
            created: 0,
            expired: 0,
            active: 0,
        }
    }

    pub(super) fn use_tags(&mut self, tags: bool) {
        self.use_tags = tags;
    }

    /// Its high bits name the first bucket, its low ones are the tag.
    #[inline]
    pub(crate) fn hash(&self, key: &Key) -> u64 {
        let addresses = u64::from(key.src) << 32 | u64::from(key.dst);
        let rest = u64::from(key.ports) << 8 | u64::from(key.protocol);
        mix_once(fold(addresses ^ self.seeds[0], rest ^ self.seeds[1]))
    }

    /// Ask for the cache line that a lookup of this hash reads first.
    #[inline]
    pub(crate) fn prefetch(&self, hash: u64) {
        if let Some(bucket) = self.buckets.get(self.first(hash)) {
            prefetch(bucket);
        }
    }

    /// Once that line has come: the bucket that the flow lies in, most likely, and its value if that is the first. Asks for
    /// that bucket. Without a branch: which of the two it is cannot be predicted.
    #[inline]
    pub(crate) fn glimpse(&self, hash: u64) -> (u32, u32) {
        let (first, second) = (self.first(hash), self.second(hash));
        let Some(bucket) = self.buckets.get(first) else { return (0, 0) };
        let hits = lanes_of(bucket, tag_of(hash));
        let at = std::hint::select_unpredictable(hits != 0, first, second);
        if let Some(bucket) = self.buckets.get(at) {
            prefetch(bucket);
        }
        let lane = hits.trailing_zeros() as usize / 8;
        (at as u32, bucket.value.get(lane).copied().unwrap_or(0))
    }

    pub(super) fn counters(&self) -> crate::FlowCounters {
        crate::FlowCounters { created: self.created, expired: self.expired, active: self.active }
    }

    /// As `FlowTable::advance`.
    pub(super) fn advance(&mut self, now: u64) {
        match self.clock.advance(now, self.buckets.len()) {
            _ if self.active == 0 => {}
            Due::Clear => self.clear(),
            Due::Visit(buckets) => (0..buckets).for_each(|_| self.expire_next()),
        }
    }

    /// Look a flow up, first in a bucket where it most likely is.
    #[inline]
    pub(crate) fn find_near(&mut self, bucket: u32, hash: u64, key: &Key) -> Option<Hit> {
        let lane = self.buckets.get(bucket as usize).and_then(|near| self.find_in(near, hash, key));
        match lane.map(|lane| Hit { bucket, lane }) {
            Some(hit) if !self.is_past(hit) => Some(hit),
            _ => self.find(hash, key),
        }
    }

    /// Look a flow up.
    #[inline(never)]
    pub(crate) fn find(&mut self, hash: u64, key: &Key) -> Option<Hit> {
        let first = self.first(hash);
        let bucket = self.buckets.get(first)?;
        let hit = match self.find_in(bucket, hash, key) {
            Some(lane) => Hit { bucket: first as u32, lane },
            None if bucket.moved == 0 && self.use_tags => return None,
            None => {
                let second = self.second(hash);
                let lane = self.find_in(self.buckets.get(second)?, hash, key)?;
                Hit { bucket: second as u32, lane }
            }
        };
        if self.is_past(hit) {
            self.remove(hit);
            return None;
        }
        Some(hit)
    }

    #[inline(always)]
    fn find_in(&self, bucket: &Bucket, hash: u64, key: &Key) -> Option<u8> {
        let holds = |lane: usize| {
            bucket.src[lane] == key.src
                && bucket.dst[lane] == key.dst
                && bucket.ports[lane] == key.ports
                && bucket.protocol[lane] == key.protocol
        };
        if !self.use_tags {
            return (0..LANES).find(|&lane| bucket.tag[lane] != 0 && holds(lane)).map(|lane| lane as u8);
        }
        let mut hits = lanes_of(bucket, tag_of(hash));
        while hits != 0 {
            let lane = hits.trailing_zeros() as usize / 8;
            if bucket.tag.get(lane).is_some_and(|&tag| tag == tag_of(hash)) && holds(lane) {
                return Some(lane as u8);
            }
            hits &= hits - 1;
        }
        None
    }

    /// State of a flow.
    #[inline]
    pub(crate) fn state(&self, hit: Hit) -> u8 {
        self.at(hit).map_or(0, |(bucket, lane)| bucket.state[lane])
    }

    /// Value of a flow.
    #[inline]
    pub(crate) fn value(&self, hit: Hit) -> u32 {
        self.at(hit).map_or(0, |(bucket, lane)| bucket.value[lane])
    }

    /// Another state and value; it stays `timeout` [s] from now. What stays as it is is not written: a line that is only
    /// read need not go back to memory.
    #[inline]
    pub(crate) fn set(&mut self, hit: Hit, state: u8, value: u32, timeout: u16) {
        let deadline = self.clock.deadline(timeout);
        if let Some((bucket, lane)) = self.at_mut(hit) {
            if bucket.deadline[lane] != deadline || bucket.state[lane] != state || bucket.value[lane] != value {
                bucket.deadline[lane] = deadline;
                bucket.state[lane] = state;
                bucket.value[lane] = value;
            }
        }
    }

    /// Enter a flow that [`Narrow::find`] did not find. When there is no room, a half-open flow in its way goes.
    pub(super) fn insert(&mut self, hash: u64, key: &Key, state: u8, value: u32, timeout: u16) -> Result<Hit, Full> {
        if self.active >= self.capacity {
            // Perhaps some of them are over: look at a few, further on each time. No more, or whoever fills the table could
            // make each of its SYNs expensive.
            (0..SEARCHED.min(self.buckets.len())).for_each(|_| self.expire_next());
        }
        let (first, second) = (self.first(hash), self.second(hash));
        let bucket = if self.active < self.capacity { self.room(first, second) } else { None };
        let bucket = match bucket {
            Some(bucket) => bucket,
            None => self.evict(first, second).ok_or(Full)?,
        };
        let lane = self.free_lane(bucket).ok_or(Full)?;
        self.put(
            bucket,
            lane,
            &Flow { key: *key, tag: tag_of(hash), state, value, deadline: self.clock.deadline(timeout) },
        );
        if bucket == second && first != second {
            self.count_moved(first);
        }
        self.created += 1;
        self.active += 1;
        Ok(Hit { bucket: bucket as u32, lane: lane as u8 })
    }

    /// Forget a flow.
    pub(super) fn remove(&mut self, hit: Hit) {
        let Some((bucket, lane)) = self.at(hit) else { return };
        let key = key_at(bucket, lane);
        self.uncount_moved(hit.bucket as usize, &key);
        if let Some((bucket, lane)) = self.at_mut(hit) {
            bucket.tag[lane] = 0;
        }
        self.expired += 1;
        self.active -= 1;
    }

    /// As `FlowTable::sweep`.
    pub(super) fn sweep(&mut self, parts: usize) {
        if self.active == 0 {
            return;
        }
        for _ in 0..self.buckets.len().div_ceil(parts.max(1)) {
            self.expire_next();
        }
    }

    fn expire_next(&mut self) {
        let bucket = self.clock.next(self.buckets.len());
        self.expire(bucket);
    }

    fn clear(&mut self) {
        self.buckets.clear();
        self.expired += self.active;
        self.active = 0;
    }

    fn expire(&mut self, bucket: usize) {
        for lane in 0..LANES as u8 {
            let hit = Hit { bucket: bucket as u32, lane };
            if self.at(hit).is_some_and(|(bucket, lane)| bucket.tag[lane] != 0) && self.is_past(hit) {
                self.remove(hit);
            }
        }
    }

    /// A bucket with a free lane: the first, else the second, after expiry, or after moving others.
    fn room(&mut self, first: usize, second: usize) -> Option<usize> {
        for bucket in [first, second] {
            if self.free_lane(bucket).is_none() {
                self.expire(bucket);
            }
            if self.free_lane(bucket).is_some() {
                return Some(bucket);
            }
        }
        self.make_room(first, second)
    }

    /// Search breadth-first for a bucket with a free lane, then move a flow along the way to it, last step first.
    fn make_room(&mut self, first: usize, second: usize) -> Option<usize> {
        let mut steps = [Step::default(); MAX_STEPS];
        steps[0] = Step { bucket: first, before: usize::MAX, lane: 0 };
        steps[1] = Step { bucket: second, before: usize::MAX, lane: 0 };
        let (mut next, mut count) = (0, 2);
        while next < count {
            let from = steps[next].bucket;
            for lane in 0..LANES {
                let to = self.other(from, &key_at(self.buckets.get(from)?, lane));
                if is_on_the_way(&steps, next, to) {
                    continue;
                }
                if count == MAX_STEPS {
                    return None;
                }
                steps[count] = Step { bucket: to, before: next, lane };
                count += 1;
                self.expire(to);
                if self.free_lane(to).is_some() {
                    return self.move_along(&steps[..count]);
                }
            }
            next += 1;
        }
        None
    }

    fn move_along(&mut self, steps: &[Step]) -> Option<usize> {
        let mut step = *steps.last()?;
        while step.before != usize::MAX {
            let before = *steps.get(step.before)?;
            let free = self.free_lane(step.bucket)?;
            let from = self.buckets.get(before.bucket)?;
            // Expiry on the way may have freed the lane itself: then there is nothing to move, and room already.
            if from.tag[step.lane] != 0 {
                let flow = flow_at(from, step.lane);
                self.uncount_moved(before.bucket, &flow.key);
                if let Some(bucket) = self.buckets.get_mut(before.bucket) {
                    bucket.tag[step.lane] = 0;
                }
                self.put(step.bucket, free, &flow);
                let home = self.first(self.hash(&flow.key));
                if home != step.bucket {
                    self.count_moved(home);
                }
            }
            step = before;
        }
        Some(step.bucket)
    }

    /// Make room by forgetting a half-open flow in one of two buckets.
    fn evict(&mut self, first: usize, second: usize) -> Option<usize> {
        for bucket in [first, second] {
            for lane in 0..LANES as u8 {
                let hit = Hit { bucket: bucket as u32, lane };
                if self.at(hit).is_some_and(|(b, lane)| b.tag[lane] != 0 && connection::is_evictable(b.state[lane])) {
                    self.remove(hit);
                    return Some(bucket);
                }
            }
        }
        None
    }

    #[inline]
    fn first(&self, hash: u64) -> usize {
        ((u128::from(hash) * self.buckets.len() as u128) >> 64) as usize
    }

    #[inline]
    fn second(&self, hash: u64) -> usize {
        let other = hash.rotate_left(29).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        ((u128::from(other) * self.buckets.len() as u128) >> 64) as usize
    }

    /// The other bucket of a flow that lies in this one.
    fn other(&self, bucket: usize, key: &Key) -> usize {
        let hash = self.hash(key);
        let first = self.first(hash);
        if first == bucket {
            self.second(hash)
        } else {
            first
        }
    }

    fn count_moved(&mut self, first: usize) {
        if let Some(bucket) = self.buckets.get_mut(first) {
            bucket.moved = bucket.moved.saturating_add(1);
        }
    }

    /// A flow leaves `bucket`: if that was not its first, its first has one less elsewhere.
    fn uncount_moved(&mut self, bucket: usize, key: &Key) {
        let first = self.first(self.hash(key));
        if first != bucket {
            if let Some(bucket) = self.buckets.get_mut(first) {
                if bucket.moved != STUCK {
                    bucket.moved = bucket.moved.saturating_sub(1);
                }
            }
        }
    }

    fn put(&mut self, bucket: usize, lane: usize, flow: &Flow) {
        let Some(bucket) = self.buckets.get_mut(bucket) else { return };
        bucket.src[lane] = flow.key.src;
        bucket.dst[lane] = flow.key.dst;
        bucket.ports[lane] = flow.key.ports;
        bucket.protocol[lane] = flow.key.protocol;
        bucket.value[lane] = flow.value;
        bucket.deadline[lane] = flow.deadline;
        bucket.state[lane] = flow.state;
        bucket.tag[lane] = flow.tag;
    }

    fn free_lane(&self, bucket: usize) -> Option<usize> {
        self.buckets.get(bucket)?.tag.iter().position(|&tag| tag == 0)
    }

    #[inline]
    fn is_past(&self, hit: Hit) -> bool {
        self.at(hit).is_none_or(|(bucket, lane)| self.clock.is_past(bucket.deadline[lane]))
    }

    #[inline]
    fn at(&self, hit: Hit) -> Option<(&Bucket, usize)> {
        Some((self.buckets.get(hit.bucket as usize)?, usize::from(hit.lane) % LANES))
    }

    #[inline]
    fn at_mut(&mut self, hit: Hit) -> Option<(&mut Bucket, usize)> {
        Some((self.buckets.get_mut(hit.bucket as usize)?, usize::from(hit.lane) % LANES))
    }
}

/// A step of the search for room: the flow in `lane` of the bucket of step `before` may move to `bucket`.
#[derive(Clone, Copy, Default)]
struct Step {
    bucket: usize,
    before: usize,
    lane: usize,
}

/// Whether the way to step `at` passes `bucket`: no flow may move in a circle.
fn is_on_the_way(steps: &[Step], mut at: usize, bucket: usize) -> bool {
    while let Some(step) = steps.get(at) {
        if step.bucket == bucket {
            return true;
        }
        at = step.before;
    }
    false
}

struct Flow {
    key: Key,
    tag: u8,
    state: u8,
    value: u32,
    deadline: u16,
}

fn key_at(bucket: &Bucket, lane: usize) -> Key {
    Key { src: bucket.src[lane], dst: bucket.dst[lane], ports: bucket.ports[lane], protocol: bucket.protocol[lane] }
}

fn flow_at(bucket: &Bucket, lane: usize) -> Flow {
    Flow {
        key: key_at(bucket, lane),
        tag: bucket.tag[lane],
        state: bucket.state[lane],
        value: bucket.value[lane],
        deadline: bucket.deadline[lane],
    }
}

/// One more round: the fold alone leaves low bits that few inputs reach.
#[inline]
const fn mix_once(hash: u64) -> u64 {
    let hash = (hash ^ hash >> 32).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    hash ^ hash >> 29
}

/// Never 0, which marks a free lane.
#[inline]
const fn tag_of(hash: u64) -> u8 {
    let tag = hash as u8;
    if tag == 0 {
        1
    } else {
        tag
    }
}

/// The high bit of the byte of each lane that has this tag; a lane above such a one may be marked wrongly.
#[inline]
fn lanes_of(bucket: &Bucket, tag: u8) -> u32 {
    let [a, b, c] = bucket.tag;
    // The fourth byte is there to make it one load; its bit is masked.
    let word = u32::from_le_bytes([a, b, c, bucket.moved]) ^ (u32::from(tag) * 0x0101_0101);
    word.wrapping_sub(0x0101_0101) & !word & 0x0080_8080
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    fn key(n: u32) -> Key {
        Key { src: n.wrapping_mul(0x0101), dst: 9, ports: n << 16 | 80, protocol: 6 }
    }

    fn insert(table: &mut Narrow, n: u32, state: u8, timeout: u16) -> Result<Hit, Full> {
        let hash = table.hash(&key(n));
        table.insert(hash, &key(n), state, n, timeout)
    }

    fn has(table: &mut Narrow, n: u32) -> bool {
        let hash = table.hash(&key(n));
        table.find(hash, &key(n)).is_some_and(|hit| table.value(hit) == n)
    }

    /// The counts of moved flows are what spares lookups the second bucket: they must never be too low.
    fn check_moved(table: &Narrow) {
        let mut moved: HashMap<usize, u32> = HashMap::new();
        for (at, bucket) in table.buckets.iter().enumerate() {
            for lane in (0..LANES).filter(|&lane| bucket.tag[lane] != 0) {
                let hash = table.hash(&key_at(bucket, lane));
                assert_eq!(bucket.tag[lane], tag_of(hash));
                if table.first(hash) != at {
                    assert_eq!(table.second(hash), at);
                    *moved.entry(table.first(hash)).or_default() += 1;
                }
            }
        }
        for (at, bucket) in table.buckets.iter().enumerate() {
            let count = moved.get(&at).copied().unwrap_or(0);
            assert!(bucket.moved == STUCK || u32::from(bucket.moved) == count, "{} for {count}", bucket.moved);
        }
    }

    #[test]
    fn memory_per_connection_stays_small() {
        for capacity in [65_536usize, 1 << 20, 100_000_000] {
            let buckets = (capacity + capacity / 9).div_ceil(LANES);
            let bytes = (buckets * size_of::<Bucket>()) as f64 / (0.85 * capacity as f64);
            assert!(bytes <= 28.0, "{bytes}");
        }
    }

    #[test]
    fn it_fills_to_its_capacity_and_then_says_so() {
        const MANY: u32 = 30_000;
        for seed in 0..5 {
            let mut table = Narrow::new(MANY as usize, seed);
            for n in 0..MANY {
                assert!(insert(&mut table, n, 2, 100).is_ok(), "{n}");
            }
            check_moved(&table);
            assert_eq!(insert(&mut table, MANY, 2, 100), Err(Full));
            assert!((0..MANY).all(|n| has(&mut table, n)));
            assert_eq!(table.counters().active, u64::from(MANY));
            table.advance(100);
            assert!(insert(&mut table, MANY, 2, 100).is_ok(), "what is past its deadline makes room");
            check_moved(&table);
        }
    }

    #[test]
    fn a_full_table_forgets_half_open_flows_and_no_others() {
        let half_open = connection::next(0, 6, 2, connection::Sender::Client);
        assert!(connection::is_evictable(half_open));
        let mut table = Narrow::new(3_000, 1);
        for n in 0..3_000 {
            assert!(insert(&mut table, n, if n % 2 == 0 { half_open } else { 2 }, 100).is_ok());
        }
        let entered = (3_000..20_000).filter(|&n| insert(&mut table, n, half_open, 100).is_ok()).count();
        assert!(entered > 14_000, "{entered}: nearly every flow has a half-open one in its way");
        assert!((0..3_000).filter(|n| n % 2 == 1).all(|n| has(&mut table, n)));
        assert_eq!(table.counters().active, 3_000);
        check_moved(&table);
    }

    /// Flows whose hashes agree: only the tuple tells them apart.
    #[test]
    fn the_whole_tuple_is_compared() {
        let mut table = Narrow::new(100, 1);
        let hash = 0xABCD_0000_0000_0003;
        for n in 0..3 {
            assert!(table.insert(hash, &key(n), 2, n, 10).is_ok());
        }
        for n in 0..3 {
            let hit = table.find(hash, &key(n)).unwrap();
            assert_eq!(table.value(hit), n);
        }
        for other in [
            Key { src: 1, ..key(0) },
            Key { dst: 1, ..key(0) },
            Key { ports: 1, ..key(0) },
            Key { protocol: 17, ..key(0) },
        ] {
            assert_eq!(table.find(hash, &other), None);
        }
    }

    #[test]
    fn without_tags_it_finds_the_same() {
        let mut table = Narrow::new(1_000, 3);
        for n in 0..1_000 {
            assert!(insert(&mut table, n, 2, 100).is_ok());
        }
        table.use_tags(false);
        assert!((0..1_000).all(|n| has(&mut table, n)));
        assert!(!has(&mut table, 1_000));
    }

    proptest! {
        #[test]
        fn moved_flows_are_counted(steps in prop::collection::vec((0u32..300, 0u8..4, 1u16..60), 1..1500), seed in any::<u64>()) {
            let mut table = Narrow::new(120, seed);
            let mut now = 0;
            for (n, what, timeout) in steps {
                let hash = table.hash(&key(n));
                match (what, table.find(hash, &key(n))) {
                    (0, Some(hit)) => table.remove(hit),
                    (1, _) => {
                        now += u64::from(timeout) / 20;
                        table.advance(now);
                    }
                    (_, None) => { let _ = table.insert(hash, &key(n), 2, n, timeout); }
                    (_, Some(hit)) => table.set(hit, 2, n, timeout),
                }
            }
            check_moved(&table);
        }
    }
}
