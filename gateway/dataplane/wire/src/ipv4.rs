//! IPv4 (RFC 791).

use std::fmt;
use std::net::Ipv4Addr;

use crate::bytes::{get, put, slice, slice_mut, u16_at, u8_at};
use crate::checksum::{Delta, Sum};
use crate::{Error, Result};

mod field {
    pub const VERSION_IHL: usize = 0;
    pub const TOS: usize = 1;
    pub const TOTAL_LEN: usize = 2;
    pub const IDENT: usize = 4;
    pub const FLAGS_OFFSET: usize = 6;
    pub const TTL: usize = 8;
    pub const PROTOCOL: usize = 9;
    pub const CHECKSUM: usize = 10;
    pub const SRC: usize = 12;
    pub const DST: usize = 16;
}

/// Bytes of a header without options.
pub const HEADER_LEN: usize = 20;
const DONT_FRAGMENT: u16 = 0x4000;
const MORE_FRAGMENTS: u16 = 0x2000;
const OFFSET: u16 = 0x1FFF;

/// A view of a packet.
#[derive(Clone, Copy, Debug)]
pub struct Packet<T>(T);

impl<T: AsRef<[u8]>> Packet<T> {
    /// A view of anything.
    pub const fn new_unchecked(buffer: T) -> Self {
        Self(buffer)
    }

    /// A view of a packet that is all there: version 4, header and total length fit the bytes. The checksum is another
    /// matter: see [`Packet::verify_checksum`].
    pub fn new_checked(buffer: T) -> Result<Self> {
        let packet = Self::new_quoted(buffer)?;
        if packet.0.as_ref().len() < packet.total_len() {
            return Err(Error::Truncated);
        }
        Ok(packet)
    }

    /// A view of a packet whose header is all there, but perhaps not its payload: as ICMP errors quote it.
    pub fn new_quoted(buffer: T) -> Result<Self> {
        let packet = Self(buffer);
        let len = packet.0.as_ref().len();
        if len < HEADER_LEN {
            return Err(Error::Truncated);
        }
        let header = packet.header_len();
        if u8_at(packet.0.as_ref(), field::VERSION_IHL) >> 4 != 4 || header < HEADER_LEN || packet.total_len() < header
        {
            return Err(Error::Malformed);
        }
        if len < header {
            return Err(Error::Truncated);
        }
        Ok(packet)
    }

    /// Bytes of the header, options included.
    pub fn header_len(&self) -> usize {
        usize::from(u8_at(self.0.as_ref(), field::VERSION_IHL) & 0x0F) * 4
    }

    /// Bytes of the packet.
    pub fn total_len(&self) -> usize {
        usize::from(u16_at(self.0.as_ref(), field::TOTAL_LEN))
    }

    /// Whether it is one part of a packet.
    pub fn is_fragment(&self) -> bool {
        u16_at(self.0.as_ref(), field::FLAGS_OFFSET) & (MORE_FRAGMENTS | OFFSET) != 0
    }

    /// Whether it may not be cut into fragments.
    pub fn dont_fragment(&self) -> bool {
        u16_at(self.0.as_ref(), field::FLAGS_OFFSET) & DONT_FRAGMENT != 0
    }

    /// Names the packet that a fragment is a part of, with its addresses and protocol.
    pub fn ident(&self) -> u16 {
        u16_at(self.0.as_ref(), field::IDENT)
    }

    /// Where a fragment belongs in the payload of its packet [bytes].
    pub fn fragment_offset(&self) -> usize {
        usize::from(u16_at(self.0.as_ref(), field::FLAGS_OFFSET) & OFFSET) * 8
    }

    /// Time to live.
    pub fn ttl(&self) -> u8 {
        u8_at(self.0.as_ref(), field::TTL)
    }

    /// What the payload is.
    pub fn protocol(&self) -> u8 {
        u8_at(self.0.as_ref(), field::PROTOCOL)
    }

    /// The header's checksum.
    pub fn checksum(&self) -> u16 {
        u16_at(self.0.as_ref(), field::CHECKSUM)
    }

    /// Source.
    pub fn src(&self) -> Ipv4Addr {
        Ipv4Addr::from(get::<4>(self.0.as_ref(), field::SRC))
    }

    /// Destination.
    pub fn dst(&self) -> Ipv4Addr {
        Ipv4Addr::from(get::<4>(self.0.as_ref(), field::DST))
    }

    /// Whether the header's checksum is right.
    pub fn verify_checksum(&self) -> bool {
        Sum::new().bytes(slice(self.0.as_ref(), 0..self.header_len())).is_right()
    }

    /// What follows the header, without padding; cut where the bytes end.
    pub fn payload(&self) -> &[u8] {
        let bytes = self.0.as_ref();
        slice(bytes, self.header_len()..self.total_len().min(bytes.len()))
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Packet<T> {
    /// Another source; the header's checksum follows. Returns what changed, for the checksums that cover it too.
    pub fn set_src(&mut self, src: Ipv4Addr) -> Delta {
        self.set_address(field::SRC, src)
    }

    /// Another destination, likewise.
    pub fn set_dst(&mut self, dst: Ipv4Addr) -> Delta {
        self.set_address(field::DST, dst)
    }

    /// One hop less to live; the checksum follows. Zero stays zero.
    pub fn decrement_ttl(&mut self) {
        let bytes = self.0.as_mut();
        let old = u16_at(bytes, field::TTL);
        let new = u16::from_be_bytes([u8_at(bytes, field::TTL).saturating_sub(1), u8_at(bytes, field::PROTOCOL)]);
        let checksum = Delta::new().replace_word(old, new).apply(u16_at(bytes, field::CHECKSUM));
        put(bytes, field::TTL, new.to_be_bytes());
        put(bytes, field::CHECKSUM, checksum.to_be_bytes());
    }

    /// Another total length; the header's checksum follows. Voids the check.
    pub fn set_total_len(&mut self, total_len: u16) {
        let bytes = self.0.as_mut();
        let old = u16_at(bytes, field::TOTAL_LEN);
        let checksum = Delta::new().replace_word(old, total_len).apply(u16_at(bytes, field::CHECKSUM));
        put(bytes, field::TOTAL_LEN, total_len.to_be_bytes());
        put(bytes, field::CHECKSUM, checksum.to_be_bytes());
    }

    /// What follows the header, to change.
    pub fn payload_mut(&mut self) -> &mut [u8] {
        let (start, end) = (self.header_len(), self.total_len());
        let bytes = self.0.as_mut();
        let end = end.min(bytes.len());
        slice_mut(bytes, start..end)
    }

    fn set_address(&mut self, at: usize, address: Ipv4Addr) -> Delta {
        let bytes = self.0.as_mut();
        let delta = Delta::new().replace(&get::<4>(bytes, at), &address.octets());
        let checksum = delta.apply(u16_at(bytes, field::CHECKSUM));
        put(bytes, at, address.octets());
        put(bytes, field::CHECKSUM, checksum.to_be_bytes());
        delta
    }
}

/// What a header without options says. It may not be fragmented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repr {
    /// Source.
    pub src: Ipv4Addr,
    /// Destination.
    pub dst: Ipv4Addr,
    /// What the payload is.
    pub protocol: u8,
    /// Time to live.
    pub ttl: u8,
    /// DSCP and ECN.
    pub tos: u8,
    /// Bytes of the payload.
    pub payload_len: usize,
}

impl Repr {
    /// Write the header, checksum included, to the front of `buffer`. `Truncated` when it does not fit, `Malformed` when
    /// the packet would be longer than 65535 bytes.
    pub fn emit(&self, buffer: &mut [u8]) -> Result<()> {
        let place = buffer.first_chunk_mut::<HEADER_LEN>().ok_or(Error::Truncated)?;
        let total = u16::try_from(HEADER_LEN + self.payload_len).map_err(|_| Error::Malformed)?;
        put(place, field::VERSION_IHL, [0x45, self.tos]);
        put(place, field::TOTAL_LEN, total.to_be_bytes());
        put(place, field::IDENT, [0, 0]);
        put(place, field::FLAGS_OFFSET, DONT_FRAGMENT.to_be_bytes());
        put(place, field::TTL, [self.ttl, self.protocol]);
        put(place, field::CHECKSUM, [0, 0]);
        put(place, field::SRC, self.src.octets());
        put(place, field::DST, self.dst.octets());
        let checksum = Sum::new().bytes(place).checksum();
        put(place, field::CHECKSUM, checksum.to_be_bytes());
        Ok(())
    }
}

impl<T: AsRef<[u8]>> Packet<T> {
    /// DSCP and ECN.
    pub fn tos(&self) -> u8 {
        u8_at(self.0.as_ref(), field::TOS)
    }
}

impl<T: AsRef<[u8]>> fmt::Display for Packet<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "IPv4 {} > {} protocol {} ttl {}", self.src(), self.dst(), self.protocol(), self.ttl())?;
        write!(out, " length {}", self.total_len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet() -> Vec<u8> {
        let mut bytes = vec![0x55; 30];
        let repr = Repr {
            src: Ipv4Addr::new(10, 0, 0, 1),
            dst: Ipv4Addr::new(10, 0, 0, 2),
            protocol: 6,
            ttl: 64,
            tos: 0,
            payload_len: 8,
        };
        repr.emit(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn build_and_read() {
        let bytes = packet();
        let view = Packet::new_checked(&bytes).unwrap();
        assert!(view.verify_checksum() && !view.is_fragment());
        assert_eq!((view.header_len(), view.total_len(), view.ttl(), view.protocol(), view.tos()), (20, 28, 64, 6, 0));
        assert_eq!(view.payload(), [0x55; 8]);
        assert_eq!(view.to_string(), "IPv4 10.0.0.1 > 10.0.0.2 protocol 6 ttl 64 length 28");
    }

    #[test]
    fn changes_keep_the_checksum_right() {
        let mut bytes = packet();
        let mut view = Packet::new_unchecked(&mut bytes[..]);
        view.decrement_ttl();
        assert_eq!(view.set_src(Ipv4Addr::new(1, 2, 3, 4)), Delta::new().replace(&[10, 0, 0, 1], &[1, 2, 3, 4]));
        let _ = view.set_dst(Ipv4Addr::new(255, 255, 255, 255));
        view.set_total_len(30);
        assert!(view.verify_checksum());
        assert_eq!((view.ttl(), view.src(), view.dst()), (63, Ipv4Addr::new(1, 2, 3, 4), Ipv4Addr::BROADCAST));
    }

    #[test]
    fn contradictions_are_refused() {
        let check = |change: fn(&mut Vec<u8>)| {
            let mut bytes = packet();
            change(&mut bytes);
            Packet::new_checked(bytes).map(|_| ()).unwrap_err()
        };
        assert_eq!(check(|b| b.truncate(19)), Error::Truncated);
        assert_eq!(check(|b| b.truncate(27)), Error::Truncated);
        assert_eq!(check(|b| b[0] = 0x65), Error::Malformed);
        assert_eq!(check(|b| b[0] = 0x44), Error::Malformed);
        assert_eq!(check(|b| b[3] = 19), Error::Malformed);
        assert_eq!(check(|b| (b[0], b[3]) = (0x4F, 60)), Error::Truncated);
        let mut quoted = packet();
        quoted.truncate(24);
        assert_eq!(Packet::new_quoted(quoted).unwrap().payload().len(), 4);
    }

    #[test]
    fn fragments() {
        for (flags, fragment) in [(0x4000u16, false), (0x2000, true), (0x0001, true), (0x8000, false)] {
            let mut bytes = packet();
            bytes[6..8].copy_from_slice(&flags.to_be_bytes());
            let view = Packet::new_unchecked(bytes);
            assert_eq!((view.is_fragment(), view.dont_fragment()), (fragment, flags == 0x4000));
            assert_eq!((view.fragment_offset(), view.ident()), (usize::from(flags & 1) * 8, 0));
        }
    }
}
