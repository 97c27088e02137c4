//! Hashes of addresses and connections.

use std::hash::{BuildHasherDefault, Hasher};

/// A map of configured things. Its hash needs no secret: nobody on the wire puts keys in.
pub(crate) type Map<K, V> = std::collections::HashMap<K, V, BuildHasherDefault<Fold>>;

const P0: u64 = 0xA076_1D64_78BD_642F;
const P1: u64 = 0xE703_7ED1_A0B4_28DB;
const P2: u64 = 0x8EBC_6AF0_9C88_C6E3;

/// Multiply and fold: every bit of the result depends on all bits of both.
#[inline]
pub(crate) const fn fold(a: u64, b: u64) -> u64 {
    let product = a as u128 * b as u128;
    product as u64 ^ (product >> 64) as u64
}

/// SplitMix64's finalizer: a bijection.
#[inline]
pub(crate) const fn mix(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// A connection, in the direction of its requests: addresses mapped, see `tgw_contract::colour::mapped`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Tuple {
    /// Source address.
    pub src: u128,
    /// Destination address.
    pub dst: u128,
    /// Source port.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
    /// IP protocol.
    pub protocol: u8,
}

impl Tuple {
    /// The same connection, seen from the other end.
    #[must_use]
    pub const fn reversed(&self) -> Self {
        Self { src: self.dst, dst: self.src, src_port: self.dst_port, dst_port: self.src_port, protocol: self.protocol }
    }

    /// The tuple as five words; the low 24 bits of the last are free.
    #[inline]
    pub(crate) const fn words(&self) -> [u64; 5] {
        [
            (self.src >> 64) as u64,
            self.src as u64,
            (self.dst >> 64) as u64,
            self.dst as u64,
            (self.src_port as u64) << 48 | (self.dst_port as u64) << 32 | (self.protocol as u64) << 24,
        ]
    }

    /// Its hash under a seed.
    #[inline]
    pub(crate) const fn hash(&self, seed: u64) -> u64 {
        let [a, b, c, d, e] = self.words();
        let left = fold(a ^ P0, b ^ seed);
        let right = fold(c ^ P1, d ^ seed.rotate_left(32));
        fold(left ^ e ^ P2, right ^ seed ^ P1)
    }

    /// A hash that both directions of a connection share.
    #[inline]
    pub(crate) fn symmetric(&self, seed: u64) -> u64 {
        let forward = (self.src, self.src_port) <= (self.dst, self.dst_port);
        if forward {
            self.hash(seed)
        } else {
            self.reversed().hash(seed)
        }
    }
}

/// Hasher of [`Map`].
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Fold(u64);

impl Hasher for Fold {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u32(&mut self, value: u32) {
        self.write_u64(u64::from(value));
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = fold(self.0 ^ value ^ P0, P1 ^ self.0.rotate_left(23));
    }

    fn write_u128(&mut self, value: u128) {
        self.write_u64(value as u64);
        self.write_u64((value >> 64) as u64);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn tuples() -> impl Strategy<Value = Tuple> {
        (any::<u128>(), any::<u128>(), any::<u16>(), any::<u16>(), any::<u8>())
            .prop_map(|(src, dst, src_port, dst_port, protocol)| Tuple { src, dst, src_port, dst_port, protocol })
    }

    proptest! {
        #[test]
        fn both_directions_share_the_symmetric_hash(tuple in tuples(), seed in any::<u64>()) {
            prop_assert_eq!(tuple.symmetric(seed), tuple.reversed().symmetric(seed));
            prop_assert_eq!(tuple.reversed().reversed(), tuple);
        }
    }

    #[test]
    fn neighbouring_tuples_spread() {
        let mut bins = [0u32; 64];
        for port in 0..64_000u16 {
            let tuple =
                Tuple { src: 0xFFFF_0A00_0001, dst: 0xFFFF_0A00_0002, src_port: port, dst_port: 80, protocol: 6 };
            bins[(tuple.hash(1) % 64) as usize] += 1;
        }
        // 1000 expected in each; 6 sigma is 190.
        assert!(bins.iter().all(|n| (810..1190).contains(n)), "{bins:?}");
    }
}
