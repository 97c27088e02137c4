//! The Internet checksum: whole (RFC 1071) and incremental (RFC 1624).

/// The ones' complement sum of `bytes`, folded into 32 bits; chain by passing the last result as `start`.
/// Only the last piece of a chain may have odd length.
#[must_use]
pub fn sum(start: u32, bytes: &[u8]) -> u32 {
    let mut total = u64::from(start);
    let mut words = bytes.chunks_exact(2);
    for word in &mut words {
        total += u64::from(u16::from_be_bytes([word[0], word[1]]));
    }
    if let [last] = words.remainder() {
        total += u64::from(*last) << 8;
    }
    total = (total & 0xFFFF_FFFF) + (total >> 32);
    ((total & 0xFFFF_FFFF) + (total >> 32)) as u32
}

/// Fold a sum and complement it: the value that goes into the header.
#[must_use]
pub fn finish(total: u32) -> u16 {
    let mut folded = (total & 0xFFFF) + (total >> 16);
    folded = (folded & 0xFFFF) + (folded >> 16);
    !(folded as u16)
}

/// The checksum of one run of bytes.
#[must_use]
pub fn of(bytes: &[u8]) -> u16 {
    finish(sum(0, bytes))
}

/// The sum of the pseudo header of TCP, UDP and ICMPv6 (addresses of 4 or 16 bytes each).
#[must_use]
pub fn pseudo(source: &[u8], destination: &[u8], protocol: u8, length: u32) -> u32 {
    let start = sum(sum(0, source), destination);
    sum(sum(start, &length.to_be_bytes()), &[0, protocol])
}

/// `checksum` after `old` was replaced by `new` somewhere under it (both of the same even length): RFC 1624, eqn. 3.
#[must_use]
pub fn replaced(checksum: u16, old: &[u8], new: &[u8]) -> u16 {
    let mut total = u32::from(!checksum);
    for word in old.chunks_exact(2) {
        total += u32::from(!u16::from_be_bytes([word[0], word[1]]));
    }
    for word in new.chunks_exact(2) {
        total += u32::from(u16::from_be_bytes([word[0], word[1]]));
    }
    finish(total)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_example_of_rfc_1071() {
        assert_eq!(finish(sum(0, &[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7])), !0xddf2);
    }

    #[test]
    fn the_example_of_rfc_1624() {
        assert_eq!(replaced(0xDD2F, &[0x55, 0x55], &[0x32, 0x85]), 0x0000);
    }

    proptest! {
        #[test]
        fn incremental_equals_whole(mut bytes in prop::collection::vec(any::<u8>(), 8..64), new: [u8; 4]) {
            bytes.truncate(bytes.len() & !1);
            bytes[0] |= 1; // all-zero data has two representations of zero
            let before = of(&bytes);
            let old = [bytes[2], bytes[3], bytes[4], bytes[5]];
            bytes[2..6].copy_from_slice(&new);
            prop_assert_eq!(replaced(before, &old, &new), of(&bytes));
        }

        #[test]
        fn a_chain_equals_one_run(bytes in prop::collection::vec(any::<u8>(), 0..64), cut in 0usize..32) {
            let cut = (cut * 2).min(bytes.len() & !1);
            prop_assert_eq!(finish(sum(sum(0, &bytes[..cut]), &bytes[cut..])), of(&bytes));
        }
    }
}
