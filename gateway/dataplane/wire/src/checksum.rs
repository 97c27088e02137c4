//! The Internet checksum: whole (RFC 1071) and changed in place (RFC 1624).

use std::net::{Ipv4Addr, Ipv6Addr};

/// A one's complement sum being built. Every part but the last must have an even length.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum(u64);

impl Sum {
    /// Nothing summed yet.
    #[must_use]
    pub const fn new() -> Self {
        Self(0)
    }

    /// Add bytes; a trailing odd one counts as the high byte of a word.
    #[must_use]
    pub fn bytes(self, bytes: &[u8]) -> Self {
        let mut sum = self.0;
        let (words, rest) = bytes.as_chunks::<4>();
        for word in words {
            sum += u64::from(u32::from_be_bytes(*word));
        }
        let (pairs, rest) = rest.as_chunks::<2>();
        for pair in pairs {
            sum += u64::from(u16::from_be_bytes(*pair));
        }
        if let [last] = rest {
            sum += u64::from(*last) << 8;
        }
        Self(sum)
    }

    /// Add one 16-bit word.
    #[must_use]
    pub const fn word(self, word: u16) -> Self {
        Self(self.0 + word as u64)
    }

    /// The pseudo header of IPv4.
    #[must_use]
    pub fn pseudo_v4(src: Ipv4Addr, dst: Ipv4Addr, protocol: u8, length: usize) -> Self {
        Self::new().bytes(&src.octets()).bytes(&dst.octets()).word(u16::from(protocol)).length(length)
    }

    /// The pseudo header of IPv6.
    #[must_use]
    pub fn pseudo_v6(src: Ipv6Addr, dst: Ipv6Addr, protocol: u8, length: usize) -> Self {
        Self::new().bytes(&src.octets()).bytes(&dst.octets()).word(u16::from(protocol)).length(length)
    }

    const fn length(self, length: usize) -> Self {
        Self(self.0 + (length as u64 & 0xFFFF_FFFF))
    }

    /// Folded to 16 bits. It is 0xFFFF when what was summed holds its own right checksum (and is not all zeros).
    #[must_use]
    pub const fn folded(self) -> u16 {
        let mut sum = self.0;
        while sum > 0xFFFF {
            sum = (sum & 0xFFFF) + (sum >> 16);
        }
        sum as u16
    }

    /// The checksum to write.
    #[must_use]
    pub const fn checksum(self) -> u16 {
        !self.folded()
    }

    /// Whether what was summed, its checksum included, is right.
    #[must_use]
    pub const fn is_right(self) -> bool {
        self.folded() == 0xFFFF
    }
}

/// A change of checksummed bytes, to be applied to checksums that cover them (RFC 1624, equation 3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delta(Sum);

impl Delta {
    /// No change yet.
    #[must_use]
    pub const fn new() -> Self {
        Self(Sum::new())
    }

    /// `old` became `new`: as long as each other, at an even place, of even length.
    #[must_use]
    pub fn replace(self, old: &[u8], new: &[u8]) -> Self {
        let gone = !Sum::new().bytes(old).folded();
        Self(self.0.word(gone).bytes(new))
    }

    /// One word became another.
    #[must_use]
    pub const fn replace_word(self, old: u16, new: u16) -> Self {
        Self(self.0.word(!old).word(new))
    }

    /// The checksum after the change.
    #[must_use]
    pub const fn apply(self, checksum: u16) -> u16 {
        self.0.word(!checksum).checksum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_example_of_rfc_1071() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(Sum::new().bytes(&bytes).folded(), 0xddf2);
    }

    #[test]
    fn the_example_of_rfc_1624() {
        // Section 4: HC = 0xDD2F, m = 0x5555, m' = 0x3285 gives 0x0000, where RFC 1141 would give 0xFFFF.
        assert_eq!(Delta::new().replace_word(0x5555, 0x3285).apply(0xdd2f), 0x0000);
    }

    #[test]
    fn an_odd_byte_is_a_high_byte() {
        assert_eq!(Sum::new().bytes(&[1, 2, 3]).folded(), 0x0102 + 0x0300);
    }

    #[test]
    fn a_real_header() {
        let header = [
            0x45, 0x00, 0x00, 0x73, 0x00, 0x00, 0x40, 0x00, 0x40, 0x11, 0xb8, 0x61, 0xc0, 0xa8, 0x00, 0x01, 0xc0, 0xa8,
            0x00, 0xc7,
        ];
        assert!(Sum::new().bytes(&header).is_right());
        let mut without = header;
        without[10..12].fill(0);
        assert_eq!(Sum::new().bytes(&without).checksum(), 0xb861);
    }

    fn plain(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
            sum = (sum & 0xFFFF) + (sum >> 16);
        }
        sum as u16
    }

    proptest! {
        #[test]
        fn as_the_plain_sum(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(Sum::new().bytes(&bytes).folded(), plain(&bytes));
        }

        #[test]
        fn a_change_in_place_is_as_right_as_a_new_sum(
            mut bytes in prop::collection::vec(any::<u8>(), 24..80),
            new in any::<[u8; 4]>(),
            place in 2usize..9,
        ) {
            let checksum = |bytes: &[u8]| Sum::new().bytes(&bytes[2..]).checksum();
            let before = checksum(&bytes);
            let at = 2 * place;
            let delta = Delta::new().replace(&bytes[at..at + 4], &new);
            bytes[at..at + 4].copy_from_slice(&new);
            let after = delta.apply(before);
            // Zero has two forms; a receiver sums the words and takes both.
            prop_assert!(Sum::new().bytes(&bytes[2..]).word(after).is_right() || bytes[2..].iter().all(|b| *b == 0));
        }
    }
}
