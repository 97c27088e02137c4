//! Generic UDP Encapsulation (draft-ietf-intarea-gue; Linux calls it FOU's GUE). Variant 0 has a header; variant 1 is IP
//! right behind UDP. The key is the group identifier of draft-ietf-intarea-gue-extensions.

use std::fmt;

use crate::bytes::{put, slice, u16_at, u32_at, u8_at};
use crate::{ipip, Error, Result};

mod field {
    pub const VARIANT_LEN: usize = 0;
    pub const PROTOCOL: usize = 1;
    pub const FLAGS: usize = 2;
    pub const GROUP: usize = 4;
}

/// Bytes of a header of variant 0 without fields.
pub const HEADER_LEN: usize = 4;
/// Bytes of a header with a key.
pub const KEYED_LEN: usize = 8;
/// The UDP port it is sent to.
pub const PORT: u16 = 6080;
const CONTROL: u8 = 0x20;
const LENGTH: u8 = 0x1F;
const GROUP: u16 = 0x8000;

/// A view of a packet.
#[derive(Clone, Copy, Debug)]
pub struct Packet<T>(T);

impl<T: AsRef<[u8]>> Packet<T> {
    /// A view of anything.
    pub const fn new_unchecked(buffer: T) -> Self {
        Self(buffer)
    }

    /// A view of a packet whose header is all there. `Unsupported`: a control message, a variant other than 0 and 1, or a
    /// flag other than the group identifier's; `Malformed`: a header too short for its fields.
    pub fn new_checked(buffer: T) -> Result<Self> {
        let packet = Self(buffer);
        let bytes = packet.0.as_ref();
        if bytes.len() < HEADER_LEN {
            return Err(Error::Truncated);
        }
        match u8_at(bytes, field::VARIANT_LEN) {
            first if matches!(first >> 4, 4 | 6) => return Ok(packet),
            first if first >> 6 != 0 || first & CONTROL != 0 => return Err(Error::Unsupported),
            _ => {}
        }
        let flags = u16_at(bytes, field::FLAGS);
        if flags & !GROUP != 0 {
            return Err(Error::Unsupported);
        }
        if packet.header_len() < if flags & GROUP != 0 { KEYED_LEN } else { HEADER_LEN } {
            return Err(Error::Malformed);
        }
        if bytes.len() < packet.header_len() {
            return Err(Error::Truncated);
        }
        Ok(packet)
    }

    fn is_direct(&self) -> bool {
        u8_at(self.0.as_ref(), field::VARIANT_LEN) >> 6 == 1
    }

    /// Bytes of the header, fields and private data included; none in variant 1.
    pub fn header_len(&self) -> usize {
        if self.is_direct() {
            return 0;
        }
        HEADER_LEN + usize::from(u8_at(self.0.as_ref(), field::VARIANT_LEN) & LENGTH) * 4
    }

    /// What the payload is: an IP protocol number.
    pub fn protocol(&self) -> u8 {
        if self.is_direct() {
            return ipip::protocol_of(u8_at(self.0.as_ref(), field::VARIANT_LEN) >> 4);
        }
        u8_at(self.0.as_ref(), field::PROTOCOL)
    }

    /// The group identifier, if there is one.
    pub fn key(&self) -> Option<u32> {
        let bytes = self.0.as_ref();
        (!self.is_direct() && u16_at(bytes, field::FLAGS) & GROUP != 0).then(|| u32_at(bytes, field::GROUP))
    }

    /// What follows the header.
    pub fn payload(&self) -> &[u8] {
        let bytes = self.0.as_ref();
        slice(bytes, self.header_len()..bytes.len())
    }
}

/// What a header of variant 0 says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repr {
    /// What the payload is: an IP protocol number.
    pub protocol: u8,
    /// The group identifier, if any.
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
        put(place, field::VARIANT_LEN, [u8::from(self.key.is_some()), self.protocol]);
        put(place, field::FLAGS, if self.key.is_some() { GROUP } else { 0 }.to_be_bytes());
        if let Some(key) = self.key {
            put(place, field::GROUP, key.to_be_bytes());
        }
        Ok(())
    }
}

impl<T: AsRef<[u8]>> fmt::Display for Packet<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "GUE protocol {}", self.protocol())?;
        match self.key() {
            Some(key) => write!(out, " key {key}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn build_and_read() {
        for (key, text) in [(None, "GUE protocol 4"), (Some(77), "GUE protocol 4 key 77")] {
            let repr = Repr { protocol: ipip::IPV4, key };
            let mut bytes = vec![9; repr.len() + 2];
            repr.emit(&mut bytes).unwrap();
            let view = Packet::new_checked(&bytes).unwrap();
            assert_eq!((view.protocol(), view.key(), view.payload()), (4, key, &[9, 9][..]));
            assert_eq!(view.to_string(), text);
            assert!(repr.emit(&mut vec![0; repr.len() - 1]).is_err());
        }
    }

    #[test]
    fn variant_1_is_ip_itself() {
        for (first, protocol) in [(0x45, 4), (0x60, 41)] {
            let bytes = [first, 0xFF, 0xFF, 0xFF, 1];
            let view = Packet::new_checked(bytes).unwrap();
            assert_eq!(
                (view.protocol(), view.key(), view.header_len(), view.payload()),
                (protocol, None, 0, &bytes[..])
            );
        }
        assert_eq!(Packet::new_checked([0x50, 0, 0, 0]).unwrap_err(), Error::Unsupported, "neither IPv4 nor IPv6");
    }

    #[test]
    fn private_data_is_skipped() {
        let view = Packet::new_checked([2, 41, 0x80, 0, 0, 0, 0, 5, 1, 2, 3, 4, 0x60]).unwrap();
        assert_eq!((view.key(), view.header_len(), view.payload()), (Some(5), 12, &[0x60][..]));
    }

    #[test]
    fn other_kinds_are_refused() {
        assert_eq!(Packet::new_checked([0; 3]).unwrap_err(), Error::Truncated);
        assert_eq!(Packet::new_checked([1, 4, 0, 0, 0, 0, 0]).unwrap_err(), Error::Truncated);
        assert_eq!(Packet::new_checked([0, 4, 0x80, 0]).unwrap_err(), Error::Malformed);
        for first in [0x20, 0x80, 0xC0] {
            assert_eq!(Packet::new_checked([first, 4, 0, 0]).unwrap_err(), Error::Unsupported);
        }
        for flags in 0..15 {
            let [a, b] = (1u16 << flags).to_be_bytes();
            assert_eq!(Packet::new_checked([0, 4, a, b]).unwrap_err(), Error::Unsupported);
        }
    }
}
