//! IPv6 (RFC 8200), with a bounded walk over the extension headers.

use std::fmt;
use std::net::Ipv6Addr;

use crate::bytes::{get, put, slice, slice_mut, u16_at, u32_at, u8_at};
use crate::checksum::Delta;
use crate::{Error, Result};

mod field {
    pub const VERSION_CLASS_FLOW: usize = 0;
    pub const PAYLOAD_LEN: usize = 4;
    pub const NEXT_HEADER: usize = 6;
    pub const HOP_LIMIT: usize = 7;
    pub const SRC: usize = 8;
    pub const DST: usize = 24;
}

/// Bytes of the fixed header.
pub const HEADER_LEN: usize = 40;
/// Extension headers that are followed; a packet with more is malformed.
pub const MAX_EXTENSIONS: usize = 8;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION: u8 = 60;

/// What lies behind the extension headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upper {
    /// An upper-layer protocol.
    Protocol {
        /// Its number.
        protocol: u8,
        /// Where it begins, from the start of the packet.
        offset: usize,
    },
    /// One part of a packet.
    Fragment(Fragment),
}

/// One part of a packet (section 4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// Names the packet, with its addresses.
    pub ident: u32,
    /// Where the part belongs in what was cut up [bytes].
    pub at: usize,
    /// The upper-layer protocol, as far as this part tells: later ones name the first header that was cut up.
    pub protocol: u8,
    /// Where the upper layer begins in this packet (of a later part: where its bytes begin).
    pub offset: usize,
}

/// A view of a packet.
#[derive(Clone, Copy, Debug)]
pub struct Packet<T>(T);

impl<T: AsRef<[u8]>> Packet<T> {
    /// A view of anything.
    pub const fn new_unchecked(buffer: T) -> Self {
        Self(buffer)
    }

    /// A view of a packet that is all there: version 6, payload length fits the bytes. Jumbograms are malformed.
    pub fn new_checked(buffer: T) -> Result<Self> {
        let packet = Self::new_quoted(buffer)?;
        if packet.0.as_ref().len() < packet.total_len() {
            return Err(Error::Truncated);
        }
        Ok(packet)
    }

    /// A view of a packet whose fixed header is all there, but perhaps not its payload: as ICMP errors quote it.
    pub fn new_quoted(buffer: T) -> Result<Self> {
        let packet = Self(buffer);
        if packet.0.as_ref().len() < HEADER_LEN {
            return Err(Error::Truncated);
        }
        if u8_at(packet.0.as_ref(), field::VERSION_CLASS_FLOW) >> 4 != 6 {
            return Err(Error::Malformed);
        }
        Ok(packet)
    }

    /// Bytes of the packet.
    pub fn total_len(&self) -> usize {
        HEADER_LEN + usize::from(u16_at(self.0.as_ref(), field::PAYLOAD_LEN))
    }

    /// Kind of the first header behind the fixed one.
    pub fn next_header(&self) -> u8 {
        u8_at(self.0.as_ref(), field::NEXT_HEADER)
    }

    /// Hops left.
    pub fn hop_limit(&self) -> u8 {
        u8_at(self.0.as_ref(), field::HOP_LIMIT)
    }

    /// The flow label.
    pub fn flow_label(&self) -> u32 {
        u32_at(self.0.as_ref(), field::VERSION_CLASS_FLOW) & 0x000F_FFFF
    }

    /// DSCP and ECN.
    pub fn traffic_class(&self) -> u8 {
        (u16_at(self.0.as_ref(), field::VERSION_CLASS_FLOW) >> 4) as u8
    }

    /// Source.
    pub fn src(&self) -> Ipv6Addr {
        Ipv6Addr::from(get::<16>(self.0.as_ref(), field::SRC))
    }

    /// Destination.
    pub fn dst(&self) -> Ipv6Addr {
        Ipv6Addr::from(get::<16>(self.0.as_ref(), field::DST))
    }

    /// What follows the fixed header, without padding; cut where the bytes end.
    pub fn payload(&self) -> &[u8] {
        let bytes = self.0.as_ref();
        slice(bytes, HEADER_LEN..self.total_len().min(bytes.len()))
    }

    /// Walk the extension headers, in a first fragment those behind the fragment header too. An atomic fragment (RFC 6946) counts as whole. `Truncated` when a header runs past the
    /// packet, `Malformed` with more than [`MAX_EXTENSIONS`] of them.
    pub fn upper(&self) -> Result<Upper> {
        let bytes = self.0.as_ref();
        let end = self.total_len().min(bytes.len());
        let (mut protocol, mut offset) = (self.next_header(), HEADER_LEN);
        let mut part: Option<(u32, usize)> = None;
        for _ in 0..=MAX_EXTENSIONS {
            let length = match protocol {
                HOP_BY_HOP | ROUTING | DESTINATION => 8 + usize::from(u8_at(bytes, offset + 1)) * 8,
                FRAGMENT => 8,
                _ => {
                    return Ok(part.map_or(Upper::Protocol { protocol, offset }, |(ident, at)| {
                        Upper::Fragment(Fragment { ident, at, protocol, offset })
                    }))
                }
            };
            if offset + length > end {
                return Err(Error::Truncated);
            }
            let is_fragment = protocol == FRAGMENT;
            // Offset and the "more" flag; two reserved bits lie between them.
            let place = u16_at(bytes, offset + 2) & 0xFFF9;
            let ident = u32_at(bytes, offset + 4);
            protocol = u8_at(bytes, offset);
            offset += length;
            if is_fragment && place != 0 {
                let at = usize::from(place & 0xFFF8);
                if at != 0 {
                    return Ok(Upper::Fragment(Fragment { ident, at, protocol, offset }));
                }
                part = Some((ident, at));
            }
        }
        Err(Error::Malformed)
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Packet<T> {
    /// Another source. Returns what changed, for the checksums of upper layers.
    pub fn set_src(&mut self, src: Ipv6Addr) -> Delta {
        self.set_address(field::SRC, src)
    }

    /// Another destination, likewise.
    pub fn set_dst(&mut self, dst: Ipv6Addr) -> Delta {
        self.set_address(field::DST, dst)
    }

    /// One hop less. Zero stays zero.
    pub fn decrement_hop_limit(&mut self) {
        let bytes = self.0.as_mut();
        let left = u8_at(bytes, field::HOP_LIMIT).saturating_sub(1);
        put(bytes, field::HOP_LIMIT, [left]);
    }

    /// Another length of what follows the fixed header. Voids the check.
    pub fn set_payload_len(&mut self, payload_len: u16) {
        put(self.0.as_mut(), field::PAYLOAD_LEN, payload_len.to_be_bytes());
    }

    /// What follows the fixed header, to change.
    pub fn payload_mut(&mut self) -> &mut [u8] {
        let total = self.total_len();
        let bytes = self.0.as_mut();
        let end = total.min(bytes.len());
        slice_mut(bytes, HEADER_LEN..end)
    }

    fn set_address(&mut self, at: usize, address: Ipv6Addr) -> Delta {
        let bytes = self.0.as_mut();
        let delta = Delta::new().replace(&get::<16>(bytes, at), &address.octets());
        put(bytes, at, address.octets());
        delta
    }
}

/// What a header without extensions says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repr {
    /// Source.
    pub src: Ipv6Addr,
    /// Destination.
    pub dst: Ipv6Addr,
    /// What the payload is.
    pub protocol: u8,
    /// Hops it may take.
    pub hop_limit: u8,
    /// DSCP and ECN.
    pub traffic_class: u8,
    /// Only the low 20 bits count.
    pub flow_label: u32,
    /// Bytes of the payload.
    pub payload_len: usize,
}

impl Repr {
    /// Write the header to the front of `buffer`. `Truncated` when it does not fit, `Malformed` when the payload is longer
    /// than 65535 bytes.
    pub fn emit(&self, buffer: &mut [u8]) -> Result<()> {
        let place = buffer.first_chunk_mut::<HEADER_LEN>().ok_or(Error::Truncated)?;
        let length = u16::try_from(self.payload_len).map_err(|_| Error::Malformed)?;
        let first = 6 << 28 | u32::from(self.traffic_class) << 20 | self.flow_label & 0x000F_FFFF;
        put(place, field::VERSION_CLASS_FLOW, first.to_be_bytes());
        put(place, field::PAYLOAD_LEN, length.to_be_bytes());
        put(place, field::NEXT_HEADER, [self.protocol, self.hop_limit]);
        put(place, field::SRC, self.src.octets());
        put(place, field::DST, self.dst.octets());
        Ok(())
    }
}

impl<T: AsRef<[u8]>> fmt::Display for Packet<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "IPv6 {} > {} next {} hops {}", self.src(), self.dst(), self.next_header(), self.hop_limit())?;
        write!(out, " length {}", self.total_len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(protocol: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; HEADER_LEN];
        let repr = Repr {
            src: "2001:db8::1".parse().unwrap(),
            dst: "2001:db8::2".parse().unwrap(),
            protocol,
            hop_limit: 64,
            traffic_class: 0xA5,
            flow_label: 0xABCDE,
            payload_len: payload.len(),
        };
        repr.emit(&mut bytes).unwrap();
        bytes.extend_from_slice(payload);
        bytes
    }

    fn upper(protocol: u8, payload: &[u8]) -> Result<Upper> {
        Packet::new_checked(packet(protocol, payload))?.upper()
    }

    #[test]
    fn build_and_read() {
        let bytes = packet(6, &[9; 4]);
        let view = Packet::new_checked(&bytes).unwrap();
        assert_eq!((view.total_len(), view.next_header(), view.hop_limit()), (44, 6, 64));
        assert_eq!((view.flow_label(), view.traffic_class()), (0xABCDE, 0xA5));
        assert_eq!(view.payload(), [9; 4]);
        assert_eq!(view.to_string(), "IPv6 2001:db8::1 > 2001:db8::2 next 6 hops 64 length 44");
    }

    #[test]
    fn changes() {
        let mut bytes = packet(6, &[]);
        let mut view = Packet::new_unchecked(&mut bytes[..]);
        view.decrement_hop_limit();
        let _ = view.set_src("::1".parse().unwrap());
        let _ = view.set_dst("::2".parse().unwrap());
        assert_eq!(view.hop_limit(), 63);
        assert_eq!((view.src().to_string(), view.dst().to_string()), ("::1".into(), "::2".into()));
    }

    #[test]
    fn contradictions_are_refused() {
        let mut bytes = packet(6, &[0; 8]);
        bytes[0] = 0x45;
        assert_eq!(Packet::new_checked(&bytes).unwrap_err(), Error::Malformed);
        bytes[0] = 0x60;
        bytes.truncate(47);
        assert_eq!(Packet::new_checked(&bytes).unwrap_err(), Error::Truncated);
        assert_eq!(Packet::new_quoted(&bytes).unwrap().payload().len(), 7);
        bytes.truncate(39);
        assert_eq!(Packet::new_quoted(&bytes).unwrap_err(), Error::Truncated);
    }

    #[test]
    fn the_walk_finds_the_upper_layer() {
        assert_eq!(upper(17, &[]), Ok(Upper::Protocol { protocol: 17, offset: 40 }));
        let mut chain = [0; 24];
        chain[0] = DESTINATION;
        chain[8] = 6;
        chain[9] = 1;
        assert_eq!(upper(HOP_BY_HOP, &chain), Ok(Upper::Protocol { protocol: 6, offset: 64 }));
    }

    #[test]
    fn the_walk_ends() {
        assert_eq!(upper(HOP_BY_HOP, &[0; 8 * (MAX_EXTENSIONS + 1)]), Err(Error::Malformed));
        assert_eq!(upper(HOP_BY_HOP, &[6, 200, 0, 0, 0, 0, 0, 0]), Err(Error::Truncated));
        assert_eq!(upper(DESTINATION, &[]), Err(Error::Truncated));
    }

    #[test]
    fn fragments_and_atomic_ones() {
        let part = |ident, at, protocol, offset| Ok(Upper::Fragment(Fragment { ident, at, protocol, offset }));
        assert_eq!(upper(FRAGMENT, &[6, 0, 0, 1, 0, 0, 0, 9]), part(9, 0, 6, 48));
        assert_eq!(upper(FRAGMENT, &[6, 0, 0, 8, 0, 0, 0, 7]), part(7, 8, 6, 48));
        // Behind the first fragment's header the walk goes on; a later one begins in the middle of something.
        assert_eq!(upper(FRAGMENT, &[60, 0, 0, 1, 1, 0, 0, 7, 17, 0, 0, 0, 0, 0, 0, 0]), part(0x0100_0007, 0, 17, 56));
        assert_eq!(upper(FRAGMENT, &[60, 0, 0, 9, 1, 0, 0, 7, 17, 0, 0, 0, 0, 0, 0, 0]), part(0x0100_0007, 8, 60, 48));
        assert_eq!(upper(FRAGMENT, &[6, 0, 0, 6, 0, 0, 0, 0]), Ok(Upper::Protocol { protocol: 6, offset: 48 }));
    }
}
