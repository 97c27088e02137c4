//! SYN cookies: an initial sequence number that holds what the node would else have to remember of a SYN.
//!
//! From the high bits: a MAC of 26 bits, the low two bits of the period that it was made in, whether the client can SACK,
//! and the place of its MSS in a table. The MAC covers all of it, the connection and the client's own sequence number.
//! Its key comes from the probe key, which all LDs of a region share: whichever of them the acknowledgement reaches can
//! check it. A cookie is good in its period and the next one, and in the one before for clocks that differ.

use tgw_contract::colour::ColourKey;

use crate::hash::Tuple;
use crate::siphash::siphash;
use crate::Nanos;

/// How long a period lasts [ns].
pub(crate) const PERIOD: Nanos = 64_000_000_000;
/// Segment sizes that a cookie can name [bytes].
pub(crate) const SIZES: [u16; 8] = [64, 536, 1220, 1300, 1360, 1400, 1440, 1460];
const SACK: u32 = 1 << 3;
const PERIOD_AT: u32 = 4;
const MAC_AT: u32 = 6;
const LABEL: &[u8] = b"tgw SYN cookies";

/// What a client's SYN said of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Offer {
    /// The largest segment that it takes [bytes].
    pub(crate) mss: u16,
    /// Whether it understands selective acknowledgements.
    pub(crate) sack: bool,
}

/// Makes and checks them.
#[derive(Clone, Debug)]
pub(crate) struct SynCookies {
    key: [u64; 2],
}

impl SynCookies {
    pub(crate) fn new(key: &ColourKey) -> Self {
        let key = key.derive(LABEL);
        let half = |at: usize| key.iter().skip(at).take(8).rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
        Self { key: [half(0), half(8)] }
    }

    /// The cookie for a client's SYN with sequence number `isn`. The MSS is rounded down to one that a cookie can name.
    pub(crate) fn make(&self, flow: &Tuple, isn: u32, offer: Offer, now: Nanos) -> u32 {
        let size = SIZES.iter().rposition(|size| *size <= offer.mss).unwrap_or(0);
        let period = now / PERIOD;
        let said = (period as u32 & 3) << PERIOD_AT | if offer.sack { SACK } else { 0 } | size as u32;
        self.mac(flow, isn, said, period) << MAC_AT | said
    }

    /// What the cookie says, when it is one that was made for this flow and `isn`, not long ago.
    pub(crate) fn check(&self, flow: &Tuple, isn: u32, cookie: u32, now: Nanos) -> Option<Offer> {
        let said = cookie & ((1 << MAC_AT) - 1);
        let current = now / PERIOD;
        let period = match (current as u32).wrapping_sub(said >> PERIOD_AT) & 3 {
            0 => current,
            1 => current.checked_sub(1)?,
            3 => current + 1,
            _ => return None,
        };
        let mss = *SIZES.get(cookie as usize & 7)?;
        let is_ours = self.mac(flow, isn, said, period) == cookie >> MAC_AT;
        is_ours.then_some(Offer { mss, sack: cookie & SACK != 0 })
    }

    fn mac(&self, flow: &Tuple, isn: u32, said: u32, period: u64) -> u32 {
        let [a, b, c, d, e] = flow.words();
        // The last word of a tuple has room for what the cookie says.
        let hash = siphash(self.key, [a, b, c, d, e | u64::from(said), u64::from(isn) << 32 | period & 0xFFFF_FFFF]);
        (hash >> (32 + MAC_AT)) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::tests::tuples;
    use proptest::prelude::*;
    use tgw_contract::colour::KEY_BYTES;

    fn cookies() -> SynCookies {
        SynCookies::new(&ColourKey::new([7; KEY_BYTES]))
    }

    #[test]
    fn the_key_is_not_the_probe_key() {
        let [low, high] = cookies().key;
        assert_ne!([low, high], [0x0707_0707_0707_0707; 2]);
        assert_ne!(low, high);
        assert_eq!(SynCookies::new(&ColourKey::new([7; KEY_BYTES])).key, [low, high], "every LD makes the same");
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out(
            flow in tuples(), isn in any::<u32>(), mss in 64u16.., sack in any::<bool>(),
            now in PERIOD..1 << 62, later in 0..2 * PERIOD,
        ) {
            let cookies = cookies();
            let cookie = cookies.make(&flow, isn, Offer { mss, sack }, now);
            let fresh = cookies.check(&flow, isn, cookie, now).unwrap();
            prop_assert_eq!(fresh.sack, sack);
            prop_assert!(fresh.mss <= mss && SIZES.iter().all(|size| *size <= fresh.mss || *size > mss));
            let periods = (now + later) / PERIOD - now / PERIOD;
            prop_assert_eq!(cookies.check(&flow, isn, cookie, now + later).is_some(), periods < 2);
            prop_assert!(cookies.check(&flow, isn, cookie, now - PERIOD).is_some(), "another LD's clock is behind");
            // After that it is as good as made up, in each later period.
            for periods in 2..9 {
                prop_assert_eq!(cookies.check(&flow, isn, cookie, now + periods * PERIOD), None);
            }
        }

        #[test]
        fn nothing_of_it_can_be_changed(
            flow in tuples(), isn in any::<u32>(), mss in any::<u16>(), now in 0u64..1 << 62,
            bit in 0u32..32, other in tuples(),
        ) {
            let cookies = cookies();
            let cookie = cookies.make(&flow, isn, Offer { mss, sack: false }, now);
            prop_assert_eq!(cookies.check(&flow, isn, cookie ^ 1 << bit, now), None);
            prop_assert_eq!(cookies.check(&flow, isn ^ 1 << bit, cookie, now), None);
            prop_assert_eq!(cookies.check(&flow.reversed(), isn, cookie, now), None);
            prop_assert_eq!(cookies.check(&other, isn, cookie, now), None);
            let stranger = SynCookies::new(&ColourKey::new([8; KEY_BYTES]));
            prop_assert_eq!(stranger.check(&flow, isn, cookie, now), None);
        }
    }
}
