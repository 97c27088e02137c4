//! UDP (RFC 768).

use std::fmt;

use crate::bytes::{put, slice, u16_at};
use crate::checksum::{Delta, Sum};
use crate::{Error, Result};

mod field {
    pub const SRC_PORT: usize = 0;
    pub const DST_PORT: usize = 2;
    pub const LENGTH: usize = 4;
    pub const CHECKSUM: usize = 6;
}

/// Bytes of the header.
pub const HEADER_LEN: usize = 8;
/// Where the checksum stands.
pub const CHECKSUM_AT: usize = field::CHECKSUM;

/// A view of a datagram.
#[derive(Clone, Copy, Debug)]
pub struct Packet<T>(T);

impl<T: AsRef<[u8]>> Packet<T> {
    /// A view of anything: for a quoted datagram.
    pub const fn new_unchecked(buffer: T) -> Self {
        Self(buffer)
    }

    /// A view of a datagram that is all there.
    pub fn new_checked(buffer: T) -> Result<Self> {
        let packet = Self(buffer);
        let len = packet.0.as_ref().len();
        if len < HEADER_LEN {
            return Err(Error::Truncated);
        }
        let length = packet.length();
        if length < HEADER_LEN {
            return Err(Error::Malformed);
        }
        if len < length {
            return Err(Error::Truncated);
        }
        Ok(packet)
    }

    /// Source port.
    pub fn src_port(&self) -> u16 {
        u16_at(self.0.as_ref(), field::SRC_PORT)
    }

    /// Destination port.
    pub fn dst_port(&self) -> u16 {
        u16_at(self.0.as_ref(), field::DST_PORT)
    }

    /// Bytes of the datagram.
    pub fn length(&self) -> usize {
        usize::from(u16_at(self.0.as_ref(), field::LENGTH))
    }

    /// The checksum; zero in IPv4 means that there is none.
    pub fn checksum(&self) -> u16 {
        u16_at(self.0.as_ref(), field::CHECKSUM)
    }

    /// The datagram without what may follow it.
    pub fn datagram(&self) -> &[u8] {
        slice(self.0.as_ref(), 0..self.length())
    }

    /// What follows the header.
    pub fn payload(&self) -> &[u8] {
        slice(self.0.as_ref(), HEADER_LEN..self.length())
    }
}

impl<T: AsRef<[u8]>> Packet<T> {
    /// Whether the checksum is right; `pseudo` is the sum of the pseudo header. None is another matter: it is wrong here.
    pub fn verify_checksum(&self, pseudo: Sum) -> bool {
        self.checksum() != 0 && pseudo.bytes(self.datagram()).is_right()
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Packet<T> {
    /// Write the checksum of the whole datagram; `pseudo` is the sum of the pseudo header.
    pub fn fill_checksum(&mut self, pseudo: Sum) {
        put(self.0.as_mut(), field::CHECKSUM, [0, 0]);
        let checksum = match pseudo.bytes(self.datagram()).checksum() {
            0 => 0xFFFF,
            checksum => checksum,
        };
        put(self.0.as_mut(), field::CHECKSUM, checksum.to_be_bytes());
    }

    /// The checksum follows a change of what it covers. None stays none; a computed zero is written as 0xFFFF.
    pub fn adjust(&mut self, delta: Delta) {
        let old = self.checksum();
        if old != 0 {
            let new = match delta.apply(old) {
                0 => 0xFFFF,
                new => new,
            };
            put(self.0.as_mut(), field::CHECKSUM, new.to_be_bytes());
        }
    }
}

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repr {
    /// Source port.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
    /// Bytes of the payload.
    pub payload_len: usize,
    /// The checksum to write; zero: none (a tunnel may do so in IPv6 too, RFC 6935).
    pub checksum: u16,
}

impl Repr {
    /// Write the header to the front of `buffer`. `Truncated` when it does not fit, `Malformed` when the datagram would be
    /// longer than 65535 bytes.
    pub fn emit(&self, buffer: &mut [u8]) -> Result<()> {
        let place = buffer.first_chunk_mut::<HEADER_LEN>().ok_or(Error::Truncated)?;
        let length = u16::try_from(HEADER_LEN + self.payload_len).map_err(|_| Error::Malformed)?;
        put(place, field::SRC_PORT, self.src_port.to_be_bytes());
        put(place, field::DST_PORT, self.dst_port.to_be_bytes());
        put(place, field::LENGTH, length.to_be_bytes());
        put(place, field::CHECKSUM, self.checksum.to_be_bytes());
        Ok(())
    }
}

impl<T: AsRef<[u8]>> fmt::Display for Packet<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "UDP {} > {} length {}", self.src_port(), self.dst_port(), self.length())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn datagram(checksum: u16) -> Vec<u8> {
        let mut bytes = vec![7; HEADER_LEN + 5];
        Repr { src_port: 53, dst_port: 4000, payload_len: 3, checksum }.emit(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn build_and_read() {
        let bytes = datagram(9);
        let view = Packet::new_checked(&bytes).unwrap();
        assert_eq!((view.src_port(), view.dst_port(), view.length(), view.checksum()), (53, 4000, 11, 9));
        assert_eq!((view.payload(), view.datagram().len()), (&[7; 3][..], 11));
        assert_eq!(view.to_string(), "UDP 53 > 4000 length 11");
    }

    #[test]
    fn contradictions_are_refused() {
        let mut bytes = datagram(0);
        bytes[5] = 7;
        assert_eq!(Packet::new_checked(&bytes).unwrap_err(), Error::Malformed);
        bytes[5] = 14;
        assert_eq!(Packet::new_checked(&bytes).unwrap_err(), Error::Truncated);
        assert_eq!(Packet::new_checked([0; 7]).unwrap_err(), Error::Truncated);
    }

    #[test]
    fn a_checksum_is_filled_and_verified() {
        for odd in [0, 1] {
            let mut bytes = datagram(0);
            bytes[8] ^= odd;
            let mut view = Packet::new_unchecked(&mut bytes[..]);
            assert!(!view.verify_checksum(Sum::new()), "none is not a right one");
            view.fill_checksum(Sum::new().word(3));
            assert!(view.verify_checksum(Sum::new().word(3)) && !view.verify_checksum(Sum::new().word(4)));
        }
        // What sums up to zero is written as ones.
        let mut bytes = vec![0; HEADER_LEN];
        Repr { src_port: 0xFFF7, dst_port: 0, payload_len: 0, checksum: 0 }.emit(&mut bytes).unwrap();
        Packet::new_unchecked(&mut bytes[..]).fill_checksum(Sum::new());
        assert_eq!(bytes[6..8], [0xFF, 0xFF]);
    }

    #[test]
    fn no_checksum_stays_none_and_zero_is_written_as_ones() {
        let delta = Delta::new().replace_word(0x5555, 0x3285);
        for (before, after) in [(0, 0), (0xdd2f, 0xffff)] {
            let mut bytes = datagram(before);
            let mut view = Packet::new_unchecked(&mut bytes[..]);
            view.adjust(delta);
            assert_eq!(view.checksum(), after);
        }
    }
}
