//! What is remembered of first fragments, so that later ones, which have no ports, go the same way.
//!
//! The table is small and fixed: a bucket of two, the whole name of a packet compared. A flood of fragments pushes others
//! out and does no more harm.

use crate::hash::{mix, Tuple};
use crate::packet::Packet;
use crate::Nanos;

const BUCKETS: usize = 2048;
/// How long the parts of one packet may take [ns]: less than receivers wait for them (RFC 8200: 60 s), and less than an
/// identification takes to come back from most senders.
const LIFETIME: Nanos = 15_000_000_000;

#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    name: Tuple,
    value: u64,
    /// 0: never used.
    until: Nanos,
}

/// First fragments of late.
#[derive(Clone, Debug)]
pub(crate) struct Fragments {
    buckets: Vec<[Entry; 2]>,
    seed: u64,
    now: Nanos,
}

impl Fragments {
    pub(crate) fn new(seed: u64) -> Self {
        Self { buckets: vec![[Entry::default(); 2]; BUCKETS], seed: mix(seed), now: 0 }
    }

    /// It is `now`. A clock that was set back stands still.
    pub(crate) fn advance(&mut self, now: Nanos) {
        self.now = self.now.max(now);
    }

    /// The first fragment of a packet has come: what its later ones are to find.
    pub(crate) fn remember(&mut self, packet: &Packet, value: u64) {
        self.remember_name(name_of(packet), value);
    }

    /// The same by the packet's name.
    pub(crate) fn remember_name(&mut self, name: Tuple, value: u64) {
        let (now, at) = (self.now, self.place(&name));
        let Some(bucket) = self.buckets.get_mut(at) else { return };
        // The same packet's again, else the one that has been there longest.
        let [first, second] = bucket;
        let entry =
            if first.name == name || second.name != name && first.until <= second.until { first } else { second };
        *entry = Entry { name, value, until: now + LIFETIME };
    }

    /// What was remembered of the packet that this fragment belongs to.
    pub(crate) fn find(&self, packet: &Packet) -> Option<u64> {
        self.find_name(name_of(packet))
    }

    /// The same by the packet's name.
    pub(crate) fn find_name(&self, name: Tuple) -> Option<u64> {
        let bucket = self.buckets.get(self.place(&name))?;
        bucket.iter().find(|entry| entry.until > self.now && entry.name == name).map(|entry| entry.value)
    }

    fn place(&self, name: &Tuple) -> usize {
        (name.hash(self.seed) >> 32) as usize % BUCKETS
    }
}

/// Addresses, protocol and identification, in the shape of a tuple. In IPv6 the protocol does not belong to it: only the
/// first part knows what is behind the extension headers.
pub(crate) fn name_of(packet: &Packet) -> Tuple {
    Tuple {
        src_port: (packet.ident >> 16) as u16,
        dst_port: packet.ident as u16,
        protocol: if packet.version == 4 { packet.tuple.protocol } else { 0 },
        ..packet.tuple
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    fn packet(src: u128, ident: u32) -> Packet {
        let tuple = Tuple { src, dst: 7, protocol: 17, src_port: 5, dst_port: 6 };
        Packet { version: 4, ident, tuple, ..Packet::default() }
    }

    #[test]
    fn remembered_for_a_while() {
        let mut table = Fragments::new(3);
        table.advance(1_000);
        assert_eq!(table.find(&packet(1, 1)), None);
        table.remember(&packet(1, 1), 9);
        let later = Packet { tuple: Tuple { src_port: 0, dst_port: 0, ..packet(1, 1).tuple }, ..packet(1, 1) };
        assert_eq!(table.find(&later), Some(9), "ports do not belong to the name");
        assert_eq!((table.find(&packet(1, 2)), table.find(&packet(2, 1))), (None, None));
        table.remember(&packet(1, 1), 10);
        assert_eq!(table.find(&later), Some(10));
        table.advance(500);
        table.advance(LIFETIME + 999);
        assert_eq!(table.find(&later), Some(10));
        table.advance(LIFETIME + 1_000);
        assert_eq!(table.find(&later), None);
    }

    proptest! {
        /// It may forget under pressure, but never answers for another packet.
        #[test]
        fn never_a_wrong_answer(
            packets in prop::collection::vec((0u128..40, 0u32..400, any::<u64>()), 1..800),
            seed in any::<u64>(),
        ) {
            let mut table = Fragments::new(seed);
            let mut oracle = HashMap::new();
            for (src, ident, value) in &packets {
                table.remember(&packet(*src, *ident), *value);
                oracle.insert((*src, *ident), *value);
                prop_assert_eq!(table.find(&packet(*src, *ident)), Some(*value));
            }
            let kept = oracle.iter().filter(|((src, ident), value)| {
                let found = table.find(&packet(*src, *ident));
                assert!(found.is_none() || found == Some(**value));
                found.is_some()
            }).count();
            prop_assert!(kept * 10 >= oracle.len() * 8, "{} of {}", kept, oracle.len());
        }
    }
}
