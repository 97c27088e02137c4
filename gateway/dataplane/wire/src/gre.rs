//! Generic Routing Encapsulation (RFC 2784) with a key (RFC 2890).

use std::fmt;

use crate::bytes::{put, slice, u16_at, u32_at};
use crate::checksum::Sum;
use crate::{Error, Result};

mod field {
    pub const FLAGS: usize = 0;
    pub const PROTOCOL: usize = 2;
    pub const OPTIONAL: usize = 4;
    /// Beside a checksum.
    pub const RESERVED: usize = 6;
}

/// Bytes of a header without options.
pub const HEADER_LEN: usize = 4;
/// Bytes of a header with a key.
pub const KEYED_LEN: usize = 8;
const CHECKSUM: u16 = 0x8000;
const KEY: u16 = 0x2000;
/// Routing and sequence numbers (RFC 1701, 2890): known, not handled.
const OTHERS: u16 = 0x5000;

/// A view of a packet.
#[derive(Clone, Copy, Debug)]
pub struct Packet<T>(T);

impl<T: AsRef<[u8]>> Packet<T> {
    /// A view of anything.
    pub const fn new_unchecked(buffer: T) -> Self {
        Self(buffer)
    }

    /// A view of a packet whose header is all there. `Malformed` with a version other than 0 or reserved bits;
    /// `Unsupported` with routing or sequence numbers; `Checksum` when there is a checksum and it is wrong.
    pub fn new_checked(buffer: T) -> Result<Self> {
        let packet = Self(buffer);
        let bytes = packet.0.as_ref();
        if bytes.len() < HEADER_LEN {
            return Err(Error::Truncated);
        }
        let flags = u16_at(bytes, field::FLAGS);
        if flags & !(CHECKSUM | KEY | OTHERS) != 0 {
            return Err(Error::Malformed);
        }
        if flags & OTHERS != 0 {
            return Err(Error::Unsupported);
        }
        if bytes.len() < packet.header_len() {
            return Err(Error::Truncated);
        }
        if flags & CHECKSUM != 0 {
            if u16_at(bytes, field::RESERVED) != 0 {
                return Err(Error::Malformed);
            }
            if !Sum::new().bytes(bytes).is_right() {
                return Err(Error::Checksum);
            }
        }
        Ok(packet)
    }

    /// Bytes of the header, options included.
    pub fn header_len(&self) -> usize {
        let flags = u16_at(self.0.as_ref(), field::FLAGS);
        HEADER_LEN + if flags & CHECKSUM != 0 { 4 } else { 0 } + if flags & KEY != 0 { 4 } else { 0 }
    }

    /// What the payload is: an EtherType.
    pub fn protocol(&self) -> u16 {
        u16_at(self.0.as_ref(), field::PROTOCOL)
    }

    /// The key, if there is one.
    pub fn key(&self) -> Option<u32> {
        let flags = u16_at(self.0.as_ref(), field::FLAGS);
        let at = field::OPTIONAL + if flags & CHECKSUM != 0 { 4 } else { 0 };
        (flags & KEY != 0).then(|| u32_at(self.0.as_ref(), at))
    }

    /// What follows the header.
    pub fn payload(&self) -> &[u8] {
        let bytes = self.0.as_ref();
        slice(bytes, self.header_len()..bytes.len())
    }
}

/// What a header without a checksum says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repr {
    /// What the payload is: an EtherType.
    pub protocol: u16,
    /// The key, if any.
    pub key: Option<u32>,
}

impl Repr {
    /// Bytes it takes.
    #[must_use]
    pub const fn len(&self) -> usize {
        if self.key.is_some() {
            KEYED_LEN
        } else {
            HEADER_LEN
        }
    }

    /// Never: a header takes at least [`HEADER_LEN`] bytes.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        false
    }

    /// Write the header to the front of `buffer`. `Truncated` when it does not fit.
    pub fn emit(&self, buffer: &mut [u8]) -> Result<()> {
        let place = buffer.get_mut(..self.len()).ok_or(Error::Truncated)?;
        put(place, field::FLAGS, if self.key.is_some() { KEY } else { 0 }.to_be_bytes());
        put(place, field::PROTOCOL, self.protocol.to_be_bytes());
        if let Some(key) = self.key {
            put(place, field::OPTIONAL, key.to_be_bytes());
        }
        Ok(())
    }
}

impl<T: AsRef<[u8]>> fmt::Display for Packet<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "GRE protocol {:#06x}", self.protocol())?;
        match self.key() {
            Some(key) => write!(out, " key {key}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ethernet::IPV4;

    #[test]
    fn build_and_read() {
        for (key, text) in [(None, "GRE protocol 0x0800"), (Some(77), "GRE protocol 0x0800 key 77")] {
            let repr = Repr { protocol: IPV4, key };
            let mut bytes = vec![9; repr.len() + 2];
            repr.emit(&mut bytes).unwrap();
            let view = Packet::new_checked(&bytes).unwrap();
            assert_eq!((view.protocol(), view.key(), view.payload()), (IPV4, key, &[9, 9][..]));
            assert_eq!(view.to_string(), text);
            assert!(repr.emit(&mut vec![0; repr.len() - 1]).is_err());
        }
    }

    #[test]
    fn a_checksum_is_checked() {
        let mut bytes = vec![0xA0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 5, 1, 2, 3];
        let checksum = Sum::new().bytes(&bytes).checksum();
        bytes[4..6].copy_from_slice(&checksum.to_be_bytes());
        let view = Packet::new_checked(&bytes).unwrap();
        assert_eq!((view.key(), view.header_len(), view.payload()), (Some(5), 12, &[1, 2, 3][..]));
        bytes[14] ^= 1;
        assert_eq!(Packet::new_checked(&bytes).unwrap_err(), Error::Checksum);
    }

    #[test]
    fn other_kinds_are_refused() {
        assert_eq!(Packet::new_checked([0; 3]).unwrap_err(), Error::Truncated);
        assert_eq!(Packet::new_checked([0x20, 0, 8, 0, 0, 0, 0]).unwrap_err(), Error::Truncated);
        let with = |flags: u16| {
            let [a, b] = flags.to_be_bytes();
            Packet::new_checked([a, b, 8, 0, 0, 0, 0, 1, 0, 0, 0, 0]).map(|_| ()).unwrap_err()
        };
        for flags in [0x4000u16, 0x1000, 0x5000] {
            assert_eq!(with(flags), Error::Unsupported);
        }
        for flags in [0x0800u16, 0x0400, 0x0100, 0x0001, 0x0080, 0x1001, CHECKSUM] {
            assert_eq!(with(flags), Error::Malformed, "{flags:#x}");
        }
    }
}
