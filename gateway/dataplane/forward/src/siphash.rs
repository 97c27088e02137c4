//! SipHash-2-4 over whole words: a keyed hash that an attacker who sees its results cannot foretell.

/// The hash of `words` under a key, as SipHash-2-4 gives it for their bytes in little-endian order.
pub(crate) fn siphash<const N: usize>(key: [u64; 2], words: [u64; N]) -> u64 {
    let [k0, k1] = key;
    let mut state = [
        k0 ^ 0x736F_6D65_7073_6575,
        k1 ^ 0x646F_7261_6E64_6F6D,
        k0 ^ 0x6C79_6765_6E65_7261,
        k1 ^ 0x7465_6462_7974_6573,
    ];
    let mut absorb = |word: u64| {
        state[3] ^= word;
        round(&mut state);
        round(&mut state);
        state[0] ^= word;
    };
    for word in words {
        absorb(word);
    }
    absorb((N as u64 * 8) << 56);
    state[2] ^= 0xFF;
    for _ in 0..4 {
        round(&mut state);
    }
    state[0] ^ state[1] ^ state[2] ^ state[3]
}

fn round(state: &mut [u64; 4]) {
    let [mut a, mut b, mut c, mut d] = *state;
    a = a.wrapping_add(b);
    c = c.wrapping_add(d);
    b = b.rotate_left(13) ^ a;
    d = d.rotate_left(16) ^ c;
    a = a.rotate_left(32);
    c = c.wrapping_add(b);
    a = a.wrapping_add(d);
    b = b.rotate_left(17) ^ c;
    d = d.rotate_left(21) ^ a;
    c = c.rotate_left(32);
    *state = [a, b, c, d];
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    #[allow(deprecated)]
    use std::hash::{Hasher, SipHasher};

    /// Vectors of the reference implementation: key 00..0f, messages 00 01 02 ...
    #[test]
    fn the_reference_vectors() {
        let key = [0x0706_0504_0302_0100, 0x0F0E_0D0C_0B0A_0908];
        assert_eq!(siphash(key, []), 0x726F_DB47_DD0E_0E31);
        assert_eq!(siphash(key, [0x0706_0504_0302_0100]), 0x93F5_F579_9A93_2462);
    }

    proptest! {
        #[test]
        fn as_the_standard_library(key in any::<[u64; 2]>(), words in any::<[u64; 6]>()) {
            #[allow(deprecated)]
            let mut hasher = SipHasher::new_with_keys(key[0], key[1]);
            for word in words {
                hasher.write(&word.to_le_bytes());
            }
            prop_assert_eq!(siphash(key, words), hasher.finish());
        }
    }
}
