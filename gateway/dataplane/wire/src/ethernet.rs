//! Ethernet II. VLAN tags are refused: nothing in the fabric sets them.

use std::fmt;
use std::str::FromStr;

use crate::bytes::{get, put, slice, u16_at};
use crate::{Error, Result};

mod field {
    use std::ops::Range;
    pub const DST: usize = 0;
    pub const SRC: usize = 6;
    pub const ETHERTYPE: usize = 12;
    pub const fn payload(len: usize) -> Range<usize> {
        super::HEADER_LEN..len
    }
}

/// Bytes of the header.
pub const HEADER_LEN: usize = 14;
/// EtherType of IPv4.
pub const IPV4: u16 = 0x0800;
/// EtherType of ARP.
pub const ARP: u16 = 0x0806;
/// EtherType of IPv6.
pub const IPV6: u16 = 0x86DD;

/// A MAC address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// Whether it names a group (broadcast is one).
    #[must_use]
    pub const fn is_group(self) -> bool {
        self.0[0] & 1 == 1
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, f] = self.0;
        write!(out, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    }
}

impl FromStr for Mac {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut mac = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut mac {
            let part = parts.next().filter(|part| part.len() == 2 && !part.starts_with('+')).ok_or(Error::Malformed)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| Error::Malformed)?;
        }
        if parts.next().is_some() {
            return Err(Error::Malformed);
        }
        Ok(Self(mac))
    }
}

/// A view of a frame.
#[derive(Clone, Copy, Debug)]
pub struct Packet<T>(T);

impl<T: AsRef<[u8]>> Packet<T> {
    /// A view of anything.
    pub const fn new_unchecked(buffer: T) -> Self {
        Self(buffer)
    }

    /// A view of a frame that holds a header. `Truncated`; `Unsupported` with a VLAN tag.
    pub fn new_checked(buffer: T) -> Result<Self> {
        let packet = Self(buffer);
        if packet.0.as_ref().len() < HEADER_LEN {
            return Err(Error::Truncated);
        }
        match packet.ethertype() {
            0x8100 | 0x88A8 | 0x9100 => Err(Error::Unsupported),
            _ => Ok(packet),
        }
    }

    /// Destination.
    pub fn dst(&self) -> Mac {
        Mac(get(self.0.as_ref(), field::DST))
    }

    /// Source.
    pub fn src(&self) -> Mac {
        Mac(get(self.0.as_ref(), field::SRC))
    }

    /// What the payload is.
    pub fn ethertype(&self) -> u16 {
        u16_at(self.0.as_ref(), field::ETHERTYPE)
    }

    /// What follows the header, padding included.
    pub fn payload(&self) -> &[u8] {
        let bytes = self.0.as_ref();
        slice(bytes, field::payload(bytes.len()))
    }
}

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repr {
    /// Destination.
    pub dst: Mac,
    /// Source.
    pub src: Mac,
    /// What the payload is.
    pub ethertype: u16,
}

impl Repr {
    /// Write the header to the front of `buffer`. `Truncated`, and nothing sensible written, when it does not fit.
    pub fn emit(&self, buffer: &mut [u8]) -> Result<()> {
        let place = buffer.first_chunk_mut::<HEADER_LEN>().ok_or(Error::Truncated)?;
        put(place, field::DST, self.dst.0);
        put(place, field::SRC, self.src.0);
        put(place, field::ETHERTYPE, self.ethertype.to_be_bytes());
        Ok(())
    }
}

impl<T: AsRef<[u8]>> fmt::Display for Packet<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Ethernet {} > {} type {:#06x}", self.src(), self.dst(), self.ethertype())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);

    #[test]
    fn build_and_read() {
        let mut bytes = [0xAA; 16];
        Repr { dst: Mac([0xff; 6]), src: MAC, ethertype: IPV6 }.emit(&mut bytes).unwrap();
        let packet = Packet::new_checked(&bytes).unwrap();
        assert_eq!((packet.dst(), packet.src(), packet.ethertype()), (Mac([0xff; 6]), MAC, IPV6));
        assert_eq!(packet.payload(), [0xAA; 2]);
        assert_eq!(packet.to_string(), "Ethernet 02:00:00:00:00:01 > ff:ff:ff:ff:ff:ff type 0x86dd");
    }

    #[test]
    fn short_and_tagged_frames_are_refused() {
        assert_eq!(Packet::new_checked([0; 13]).unwrap_err(), Error::Truncated);
        for tag in [0x8100u16, 0x88A8, 0x9100] {
            let mut bytes = [0; 64];
            bytes[12..14].copy_from_slice(&tag.to_be_bytes());
            assert_eq!(Packet::new_checked(&bytes).unwrap_err(), Error::Unsupported);
        }
        assert_eq!(Packet::new_unchecked([]).payload(), []);
        assert!(Repr { dst: MAC, src: MAC, ethertype: IPV4 }.emit(&mut [0; 13]).is_err());
    }

    #[test]
    fn addresses_as_text() {
        assert_eq!("02:00:00:00:00:01".parse(), Ok(MAC));
        for wrong in
            ["", "02:00:00:00:00", "02:00:00:00:00:01:02", "2:0:0:0:0:1", "02:00:00:00:00:0g", "+2:00:00:00:00:01"]
        {
            assert!(wrong.parse::<Mac>().is_err(), "{wrong}");
        }
        assert!(Mac([0xff; 6]).is_group() && !MAC.is_group());
    }
}
