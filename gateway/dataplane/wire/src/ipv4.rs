//! IPv4 (RFC 791).

use crate::{be16, checksum, WireError};

/// Bytes of a header without options.
pub const HEADER: usize = 20;
/// Offset of the time to live.
pub const TTL: usize = 8;
/// Offset of the header checksum.
pub const CHECKSUM: usize = 10;
/// Offset of the source address.
pub const SOURCE: usize = 12;
/// Offset of the destination address.
pub const DESTINATION: usize = 16;

/// A checked view: version 4, header and total length inside the buffer. The checksum is checked apart, by [`View::sound`].
#[derive(Clone, Copy, Debug)]
pub struct View<'a>(&'a [u8]);

impl<'a> View<'a> {
    /// Check version and lengths. Bytes after the total length (Ethernet padding) are cut off.
    pub fn checked(bytes: &'a [u8]) -> Result<Self, WireError> {
        let view = Self::quoted(bytes)?;
        let total = usize::from(be16(bytes, 2));
        if total < view.header_length() {
            return Err(WireError::Malformed);
        }
        bytes.get(..total).map(Self).ok_or(WireError::Truncated)
    }

    /// A packet quoted by ICMP: the header is whole, the payload may be cut short.
    pub fn quoted(bytes: &'a [u8]) -> Result<Self, WireError> {
        if bytes.len() < HEADER {
            return Err(WireError::Truncated);
        }
        let header = usize::from(bytes[0] & 0x0F) * 4;
        if bytes[0] >> 4 != 4 || header < HEADER {
            return Err(WireError::Malformed);
        }
        if bytes.len() < header {
            return Err(WireError::Truncated);
        }
        Ok(Self(bytes))
    }

    /// Bytes of the header, options included.
    #[must_use]
    pub fn header_length(&self) -> usize {
        usize::from(self.0[0] & 0x0F) * 4
    }

    /// Bytes of the whole packet.
    #[must_use]
    pub fn total_length(&self) -> usize {
        self.0.len()
    }

    /// Whether it is a fragment, first or later.
    #[must_use]
    pub fn is_fragment(&self) -> bool {
        be16(self.0, 6) & 0x3FFF != 0
    }

    /// Time to live.
    #[must_use]
    pub fn ttl(&self) -> u8 {
        self.0[TTL]
    }

    /// Protocol of the payload.
    #[must_use]
    pub fn protocol(&self) -> u8 {
        self.0[9]
    }

    /// Source address.
    #[must_use]
    pub fn source(&self) -> [u8; 4] {
        [self.0[12], self.0[13], self.0[14], self.0[15]]
    }

    /// Destination address.
    #[must_use]
    pub fn destination(&self) -> [u8; 4] {
        [self.0[16], self.0[17], self.0[18], self.0[19]]
    }

    /// Whether the header checksum is right.
    #[must_use]
    pub fn sound(&self) -> bool {
        checksum::of(&self.0[..self.header_length()]) == 0
    }

    /// What follows the header.
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        &self.0[self.header_length()..]
    }
}

/// Write a header (no options, don't fragment, checksum set) into the first [`HEADER`] bytes of `out` for a payload of
/// `payload` bytes; false when it does not fit or the packet would be longer than 65535 bytes.
pub fn build(
    out: &mut [u8],
    source: [u8; 4],
    destination: [u8; 4],
    protocol: u8,
    ttl: u8,
    payload: usize,
) -> bool {
    let Ok(total) = u16::try_from(payload + HEADER) else {
        return false;
    };
    let Some(out) = out.get_mut(..HEADER) else {
        return false;
    };
    out.fill(0);
    out[0] = 0x45;
    out[2..4].copy_from_slice(&total.to_be_bytes());
    out[6] = 0x40;
    out[TTL] = ttl;
    out[9] = protocol;
    out[SOURCE..SOURCE + 4].copy_from_slice(&source);
    out[DESTINATION..DESTINATION + 4].copy_from_slice(&destination);
    let check = checksum::of(out);
    out[CHECKSUM..CHECKSUM + 2].copy_from_slice(&check.to_be_bytes());
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet() -> [u8; 28] {
        let mut bytes = [7u8; 28];
        assert!(build(&mut bytes, [10, 0, 0, 1], [10, 0, 0, 2], 17, 64, 8));
        bytes
    }

    #[test]
    fn what_is_built_reads_back() {
        let bytes = packet();
        let view = View::checked(&bytes).unwrap();
        assert!(view.sound() && !view.is_fragment());
        assert_eq!((view.source(), view.destination()), ([10, 0, 0, 1], [10, 0, 0, 2]));
        assert_eq!((view.protocol(), view.ttl(), view.payload()), (17, 64, &[7u8; 8][..]));
    }

    #[test]
    fn lengths_are_checked() {
        let mut bytes = packet();
        assert_eq!(View::checked(&bytes[..27]).unwrap_err(), WireError::Truncated);
        bytes[3] = 19;
        assert_eq!(View::checked(&bytes).unwrap_err(), WireError::Malformed);
        bytes[0] = 0x44;
        assert_eq!(View::checked(&bytes).unwrap_err(), WireError::Malformed);
        bytes[0] = 0x65;
        assert_eq!(View::checked(&bytes).unwrap_err(), WireError::Malformed);
    }

    #[test]
    fn a_flipped_bit_is_unsound() {
        let mut bytes = packet();
        bytes[15] ^= 1;
        assert!(!View::checked(&bytes).unwrap().sound());
    }

    #[test]
    fn padding_is_cut_off() {
        let mut long = packet().to_vec();
        long.extend([0; 18]);
        assert_eq!(View::checked(&long).unwrap().payload().len(), 8);
    }
}
