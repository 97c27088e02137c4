//! The colour of a probe: a reserved source prefix and a cookie in the TCP initial sequence number.
//!
//! The twin of `contract/colour.py`, which says what a cookie is made of; tests hold both to the same vectors.
//! Addresses are `u128`, IPv4 mapped into `::ffff:0:0/96`, as in the records.

use std::fmt;
use std::net::IpAddr;

use blake2s_simd::Params;

/// Seconds that a cookie epoch lasts.
pub const EPOCH_SECONDS: u64 = 64;
/// High bits of the sequence number: the nonce.
pub const NONCE_BITS: u32 = 12;
/// Low bits of the sequence number: the keyed MAC.
pub const MAC_BITS: u32 = 20;
/// Bytes of a probe key.
pub const KEY_BYTES: usize = 16;

const NONCES: usize = 1 << NONCE_BITS;
const MAC_MASK: u32 = (1 << MAC_BITS) - 1;
/// No MAC has bits above [`MAC_BITS`].
const UNKNOWN: u32 = u32::MAX;
/// This epoch, the one before and the one after; a power of two makes the slot a mask.
const TABLES: usize = 4;

/// The colour epoch of a wall-clock time [ns since 1970].
#[must_use]
pub const fn epoch_of(now_ns: u64) -> u64 {
    now_ns / (EPOCH_SECONDS * 1_000_000_000)
}

/// The 64-bit name of a probe that every hop can compute: low 16 bits of the source, source port, ISN.
#[must_use]
pub const fn probe_id(source: u128, source_port: u16, isn: u32) -> u64 {
    ((source as u64) & 0xFFFF) << 48 | (source_port as u64) << 32 | isn as u64
}

/// An address as the records carry it: IPv4 mapped into `::ffff:0:0/96`.
#[must_use]
pub fn mapped(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_ipv6_mapped()),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

/// The secret that cookies are made with.
#[derive(Clone, PartialEq, Eq)]
pub struct ColourKey([u8; KEY_BYTES]);

impl fmt::Debug for ColourKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("ColourKey(..)")
    }
}

impl ColourKey {
    /// From its bytes.
    #[must_use]
    pub const fn new(key: [u8; KEY_BYTES]) -> Self {
        Self(key)
    }

    /// From 32 hex digits; `None` for anything else.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        let digits = text.as_bytes();
        if digits.len() != 2 * KEY_BYTES {
            return None;
        }
        let mut key = [0; KEY_BYTES];
        for (byte, pair) in key.iter_mut().zip(digits.chunks_exact(2)) {
            let digit = |c: u8| char::from(c).to_digit(16).and_then(|d| u8::try_from(d).ok());
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Some(Self(key))
    }

    /// The ISN of a probe. Only the low [`NONCE_BITS`] of `nonce` count.
    #[must_use]
    pub fn cookie(&self, nonce: u16, epoch: u64) -> u32 {
        let nonce = nonce & (NONCES as u16 - 1);
        let mut message = [0; 10];
        message[..2].copy_from_slice(&nonce.to_le_bytes());
        message[2..].copy_from_slice(&epoch.to_le_bytes());
        let digest = Params::new().hash_length(4).key(&self.0).hash(&message);
        let mac = digest.as_bytes().iter().rev().fold(0, |mac, &byte| mac << 8 | u32::from(byte));
        u32::from(nonce) << MAC_BITS | mac & MAC_MASK
    }

    /// Another key, for another purpose, that everyone with this one can make. It tells nothing of this one.
    #[must_use]
    pub fn derive(&self, label: &[u8]) -> [u8; KEY_BYTES] {
        let digest = Params::new().hash_length(KEY_BYTES).key(&self.0).hash(label);
        let mut key = [0; KEY_BYTES];
        key.copy_from_slice(digest.as_bytes());
        key
    }

    /// Whether `isn` is a cookie of this epoch or one beside it (clocks differ). Three MACs: see [`Cookies`].
    #[must_use]
    pub fn is_cookie(&self, isn: u32, now_ns: u64) -> bool {
        near(epoch_of(now_ns)).any(|epoch| self.cookie(nonce_of(isn), epoch) == isn)
    }
}

const fn nonce_of(isn: u32) -> u16 {
    (isn >> MAC_BITS) as u16
}

fn near(epoch: u64) -> impl Iterator<Item = u64> {
    [Some(epoch), epoch.checked_sub(1), epoch.checked_add(1)].into_iter().flatten()
}

/// One worker's memory of MACs: a repeated check costs a load, not a hash. It is made when first asked.
#[derive(Clone, Debug)]
pub struct Cookies {
    key: ColourKey,
    epochs: [u64; TABLES],
    macs: Vec<u32>,
}

impl Cookies {
    /// An empty memory.
    #[must_use]
    pub fn new(key: ColourKey) -> Self {
        Self { key, epochs: [u64::MAX; TABLES], macs: Vec::new() }
    }

    /// The key it answers for.
    #[must_use]
    pub fn key(&self) -> &ColourKey {
        &self.key
    }

    /// As [`ColourKey::is_cookie`].
    pub fn is_cookie(&mut self, isn: u32, now_ns: u64) -> bool {
        near(epoch_of(now_ns)).any(|epoch| self.mac(nonce_of(isn), epoch) == isn & MAC_MASK)
    }

    fn mac(&mut self, nonce: u16, epoch: u64) -> u32 {
        if self.macs.is_empty() {
            self.macs = vec![UNKNOWN; TABLES * NONCES];
        }
        let table = epoch as usize % TABLES;
        let first = table * NONCES;
        if self.epochs[table] != epoch {
            self.epochs[table] = epoch;
            self.macs[first..first + NONCES].fill(UNKNOWN);
        }
        let known = &mut self.macs[first + usize::from(nonce) % NONCES];
        if *known == UNKNOWN {
            *known = self.key.cookie(nonce, epoch) & MAC_MASK;
        }
        *known
    }
}

/// An address prefix, in the space of mapped addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    address: u128,
    mask: u128,
}

impl Prefix {
    /// From `address/length`; `None` when it is none, or when bits behind the length are set.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (address, length) = text.split_once('/')?;
        let address: IpAddr = address.parse().ok()?;
        if !length.bytes().all(|c| c.is_ascii_digit()) {
            return None;
        }
        let length: u32 = length.parse().ok()?;
        let (bits, ahead) = if address.is_ipv4() { (32, 96) } else { (128, 0) };
        if length > bits {
            return None;
        }
        let mask = u128::MAX.checked_shl(128 - ahead - length).unwrap_or(0);
        let address = mapped(address);
        (address & !mask == 0).then_some(Self { address, mask })
    }

    /// Its lowest address, mapped.
    #[must_use]
    pub const fn first(&self) -> u128 {
        self.address
    }

    /// Its highest address, mapped.
    #[must_use]
    pub const fn last(&self) -> u128 {
        self.address | !self.mask
    }

    /// Whether `address` (mapped) lies in it.
    #[must_use]
    pub const fn contains(&self, address: u128) -> bool {
        address & self.mask == self.address
    }

    /// What of it is IPv4, as (mask, address): it contains `a` when `a & mask == address`. `None` when nothing is.
    #[must_use]
    pub const fn v4(&self) -> Option<(u32, u32)> {
        const AHEAD: u128 = 0xFFFF << 32;
        const HIGH: u128 = !(u32::MAX as u128);
        if (AHEAD ^ self.address) & self.mask & HIGH != 0 {
            return None;
        }
        Some((self.mask as u32, self.address as u32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn vectors() -> Value {
        serde_json::from_str(include_str!("../../../../tests/contract/colour_vectors.json")).unwrap()
    }

    fn list<'a>(vectors: &'a Value, name: &str) -> &'a [Value] {
        let list = vectors[name].as_array().unwrap();
        assert!(!list.is_empty());
        list
    }

    fn number(value: &Value) -> u64 {
        value.as_u64().unwrap()
    }

    #[test]
    fn the_ipv4_part_of_a_prefix() {
        let part = |text| Prefix::parse(text).unwrap().v4();
        assert_eq!(part("198.18.0.0/16"), Some((0xFFFF_0000, 0xC612_0000)));
        assert_eq!(part("0.0.0.0/0"), Some((0, 0)));
        assert_eq!(part("::/0"), Some((0, 0)));
        assert_eq!(part("::fffe:0:0/95"), Some((0, 0)));
        assert_eq!(part("fd00::/8"), None);
        assert_eq!(part("::ffff:198.18.0.0/112"), Some((0xFFFF_0000, 0xC612_0000)));
    }

    #[test]
    fn cookies_are_pythons() {
        let vectors = vectors();
        for case in list(&vectors, "cookies") {
            let key = ColourKey::from_hex(case["key"].as_str().unwrap()).unwrap();
            let isn = key.cookie(number(&case["nonce"]) as u16, number(&case["epoch"]));
            assert_eq!(u64::from(isn), number(&case["isn"]), "{case}");
        }
    }

    #[test]
    fn checks_are_pythons_remembered_or_not() {
        let vectors = vectors();
        for case in list(&vectors, "checks") {
            let key = ColourKey::from_hex(case["key"].as_str().unwrap()).unwrap();
            let (isn, now) = (number(&case["isn"]) as u32, number(&case["now_ns"]));
            let expected = case["is_cookie"].as_bool().unwrap();
            assert_eq!(key.is_cookie(isn, now), expected, "{case}");
            let mut cookies = Cookies::new(key);
            assert_eq!(cookies.is_cookie(isn, now), expected, "{case}");
            assert_eq!(cookies.is_cookie(isn, now), expected, "{case}");
        }
    }

    #[test]
    fn probe_ids_are_pythons() {
        let vectors = vectors();
        for case in list(&vectors, "probe_ids") {
            let source = mapped(case["source"].as_str().unwrap().parse().unwrap());
            let id = probe_id(source, number(&case["source_port"]) as u16, number(&case["isn"]) as u32);
            assert_eq!(id, case["probe_id"].as_str().unwrap().parse::<u64>().unwrap(), "{case}");
        }
    }

    #[test]
    fn the_memory_forgets_old_epochs() {
        let key = ColourKey::new([7; KEY_BYTES]);
        let mut cookies = Cookies::new(key.clone());
        for epoch in 1..20u64 {
            let now = epoch * EPOCH_SECONDS * 1_000_000_000;
            for nonce in [0u16, 1, 4095] {
                assert!(cookies.is_cookie(key.cookie(nonce, epoch), now));
                assert!(cookies.is_cookie(key.cookie(nonce, epoch - 1), now));
                assert!(cookies.is_cookie(key.cookie(nonce, epoch + 1), now));
                let far = key.cookie(nonce, epoch + 2);
                assert_eq!(cookies.is_cookie(far, now), key.is_cookie(far, now));
            }
        }
    }

    #[test]
    fn prefixes() {
        let inside =
            |prefix: &str, address: &str| Prefix::parse(prefix).unwrap().contains(mapped(address.parse().unwrap()));
        assert!(inside("198.18.0.0/16", "198.18.255.255"));
        assert!(!inside("198.18.0.0/16", "198.19.0.0"));
        assert!(inside("2001:db8:18::/48", "2001:db8:18:ffff::1"));
        assert!(!inside("2001:db8:18::/48", "2001:db8:19::1"));
        assert!(inside("0.0.0.0/0", "9.9.9.9") && !inside("0.0.0.0/0", "2001:db8::1"));
        assert!(inside("::/0", "9.9.9.9"));
        let prefix = Prefix::parse("10.0.0.0/8").unwrap();
        assert_eq!((prefix.first(), prefix.last()), (0xFFFF_0A00_0000, 0xFFFF_0AFF_FFFF));
        assert!(inside("10.0.0.1/32", "10.0.0.1") && !inside("10.0.0.1/32", "10.0.0.0"));
        for wrong in ["198.18.0.0", "198.18.0.1/16", "198.18.0.0/33", "::/129", "x/8", "10.0.0.0/+8", "10.0.0.0/", "/8"]
        {
            assert_eq!(Prefix::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn derived_keys_differ_by_label_and_key() {
        let derived = |key: u8, label: &[u8]| ColourKey::new([key; KEY_BYTES]).derive(label);
        assert_eq!(derived(1, b"a"), derived(1, b"a"));
        assert_ne!(derived(1, b"a"), derived(1, b"b"));
        assert_ne!(derived(1, b"a"), derived(2, b"a"));
        assert_ne!(derived(1, b"a"), [1; KEY_BYTES]);
    }

    #[test]
    fn keys() {
        assert_eq!(
            ColourKey::from_hex("000102030405060708090a0b0c0D0E0F"),
            Some(ColourKey::new(std::array::from_fn(|i| i as u8)))
        );
        for wrong in [
            "",
            "00",
            "000102030405060708090a0b0c0d0e0g",
            "000102030405060708090a0b0c0d0e0f00",
            "+0+0+0+0+0+0+0+0+0+0+0+0+0+0+0+0",
        ] {
            assert_eq!(ColourKey::from_hex(wrong), None, "{wrong}");
        }
        assert_eq!(format!("{:?}", ColourKey::new([1; 16])), "ColourKey(..)");
    }
}
