//! The flow table: connections of one worker, in fixed memory, without a lock and without an allocation.
//!
//! IPv4 connections, nearly all of the traffic, lie whole in buckets of one cache line ([`narrow`]): a lookup reads one
//! line. IPv6 connections do not fit there; their buckets hold tags and name an entry elsewhere ([`wide`]). Both compare
//! the whole tuple, expire in the lookup, and make room by cuckoo moves.

mod clock;
mod narrow;
mod wide;

use crate::hash::Tuple;
use crate::packet::is_v4;

pub(crate) use clock::MAX_TIMEOUT;
pub(crate) use narrow::{Hit, Key, Narrow};
use wide::Wide;

/// Where a flow was found. Good until the next insertion, removal or sweep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Narrow(Hit),
    Wide(wide::Found),
}

/// No room: both buckets are full of living flows that cannot be moved, or all entries are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full;

/// The table.
pub(crate) struct FlowTable {
    pub(crate) narrow: Narrow,
    wide: Wide,
}

impl FlowTable {
    /// A table for `capacity` IPv4 connections and two fifths as many IPv6 ones, which take two and a half times the
    /// memory each. Together at most 54 bytes per connection of `capacity`; what is not used is not real.
    pub(crate) fn new(capacity: usize, seed: u64) -> Self {
        Self { narrow: Narrow::new(capacity, seed), wide: Wide::new((capacity / 5).saturating_mul(2), seed) }
    }

    /// Look at tags before tuples, and at the second bucket only when the first says so: else only for comparison.
    pub(crate) fn use_tags(&mut self, tags: bool) {
        self.narrow.use_tags(tags);
    }

    pub(crate) fn hash(&self, tuple: &Tuple) -> u64 {
        match Key::of(tuple) {
            Some(key) => self.narrow.hash(&key),
            None => self.wide.hash(tuple),
        }
    }

    /// Ask for the cache line that a lookup of this flow reads first.
    pub(crate) fn prefetch(&self, hash: u64, tuple: &Tuple) {
        if is_v4(tuple.src) {
            self.narrow.prefetch(hash);
        } else {
            self.wide.prefetch(hash);
        }
    }

    /// Once that line has come: ask for what the lookup reads next.
    pub(crate) fn prefetch_more(&self, hash: u64, tuple: &Tuple) {
        if is_v4(tuple.src) {
            self.narrow.glimpse(hash);
        } else {
            self.wide.prefetch_entry(hash);
        }
    }

    pub(crate) fn counters(&self) -> crate::FlowCounters {
        let (narrow, wide) = (self.narrow.counters(), self.wide.counters());
        crate::FlowCounters {
            created: narrow.created + wide.created,
            expired: narrow.expired + wide.expired,
            active: narrow.active + wide.active,
        }
    }

    /// It is `now` [s]. After a leap that 16 bits of deadline cannot tell, every flow is past its deadline; when the clock
    /// was set back, no time has passed.
    pub(crate) fn advance(&mut self, now: u64) {
        self.narrow.advance(now);
        self.wide.advance(now);
    }

    /// Look a flow up.
    pub(crate) fn find(&mut self, hash: u64, tuple: &Tuple) -> Option<Found> {
        match Key::of(tuple) {
            Some(key) => self.narrow.find(hash, &key).map(Found::Narrow),
            None => self.wide.find(hash, tuple).map(Found::Wide),
        }
    }

    /// State of a flow.
    pub(crate) fn state(&self, found: Found) -> u8 {
        match found {
            Found::Narrow(hit) => self.narrow.state(hit),
            Found::Wide(found) => self.wide.state(found),
        }
    }

    /// Value of a flow.
    pub(crate) fn value(&self, found: Found) -> u32 {
        match found {
            Found::Narrow(hit) => self.narrow.value(hit),
            Found::Wide(found) => self.wide.value(found),
        }
    }

    /// Another state and value; it stays `timeout` [s] from now.
    pub(crate) fn set(&mut self, found: Found, state: u8, value: u32, timeout: u16) {
        match found {
            Found::Narrow(hit) => self.narrow.set(hit, state, value, timeout),
            Found::Wide(found) => self.wide.set(found, state, value, timeout),
        }
    }

    /// Enter a flow that [`FlowTable::find`] did not find. When there is no room, a half-open flow in its way goes.
    pub(crate) fn insert(
        &mut self,
        hash: u64,
        tuple: &Tuple,
        state: u8,
        value: u32,
        timeout: u16,
    ) -> Result<Found, Full> {
        match Key::of(tuple) {
            Some(key) => self.narrow.insert(hash, &key, state, value, timeout).map(Found::Narrow),
            None => self.wide.insert(hash, tuple, state, value, timeout).map(Found::Wide),
        }
    }

    /// Forget a flow.
    pub(crate) fn remove(&mut self, found: Found) {
        match found {
            Found::Narrow(hit) => self.narrow.remove(hit),
            Found::Wide(found) => self.wide.remove(found),
        }
    }

    /// Forget what is past its deadline in a part of the table: all of it in `parts` calls.
    pub(crate) fn sweep(&mut self, parts: usize) {
        self.narrow.sweep(parts);
        self.wide.sweep(parts);
    }
}

#[cfg(test)]
mod oracle;
#[cfg(any(test, fuzzing))]
pub(crate) mod steps;
