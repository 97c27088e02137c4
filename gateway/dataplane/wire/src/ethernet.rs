//! Ethernet II.

use crate::{be16, WireError};

/// Bytes of the header.
pub const HEADER: usize = 14;
/// EtherType of IPv4.
pub const IPV4: u16 = 0x0800;
/// EtherType of IPv6.
pub const IPV6: u16 = 0x86DD;
/// EtherType of ARP.
pub const ARP: u16 = 0x0806;
/// EtherType of an 802.1Q tag.
pub const VLAN: u16 = 0x8100;

/// A MAC address.
pub type Mac = [u8; 6];

/// A checked view: at least the header is there.
#[derive(Clone, Copy, Debug)]
pub struct View<'a>(&'a [u8]);

impl<'a> View<'a> {
    /// Check the length.
    pub fn checked(bytes: &'a [u8]) -> Result<Self, WireError> {
        if bytes.len() < HEADER {
            return Err(WireError::Truncated);
        }
        Ok(Self(bytes))
    }

    /// Destination MAC address.
    #[must_use]
    pub fn destination(&self) -> Mac {
        [self.0[0], self.0[1], self.0[2], self.0[3], self.0[4], self.0[5]]
    }

    /// EtherType.
    #[must_use]
    pub fn ethertype(&self) -> u16 {
        be16(self.0, 12)
    }

    /// What follows the header.
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        &self.0[HEADER..]
    }
}

/// Write a header into the first [`HEADER`] bytes of `out`; false when it is shorter.
pub fn build(out: &mut [u8], destination: Mac, source: Mac, ethertype: u16) -> bool {
    let Some(out) = out.get_mut(..HEADER) else {
        return false;
    };
    out[..6].copy_from_slice(&destination);
    out[6..12].copy_from_slice(&source);
    out[12..14].copy_from_slice(&ethertype.to_be_bytes());
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_built_reads_back() {
        let mut bytes = [0u8; 20];
        assert!(build(&mut bytes, [1; 6], [2; 6], IPV6));
        let view = View::checked(&bytes).unwrap();
        assert_eq!((view.destination(), view.ethertype(), view.payload().len()), ([1; 6], IPV6, 6));
    }

    #[test]
    fn a_short_frame_is_truncated() {
        assert_eq!(View::checked(&[0; 13]).unwrap_err(), WireError::Truncated);
        assert!(!build(&mut [0; 13], [0; 6], [0; 6], IPV4));
    }
}
