//! Geneve (RFC 8926). Options are skipped, and critical ones refused: none is understood here.

use std::fmt;

use crate::bytes::{put, slice, u16_at, u32_at, u8_at};
use crate::{Error, Result};

mod field {
    pub const VERSION_LEN: usize = 0;
    pub const FLAGS: usize = 1;
    pub const PROTOCOL: usize = 2;
    pub const VNI: usize = 4;
    pub const OPTIONS: usize = 8;
    /// Within an option.
    pub const KIND: usize = 2;
    pub const LENGTH: usize = 3;
}

/// Bytes of a header without options.
pub const HEADER_LEN: usize = 8;
/// The UDP port it is sent to.
pub const PORT: u16 = 6081;
/// The largest network identifier.
pub const MAX_VNI: u32 = 0x00FF_FFFF;
/// EtherType of a payload that is an Ethernet frame.
pub const ETHERNET: u16 = 0x6558;
const CONTROL: u8 = 0x80;
const CRITICAL: u8 = 0x40;
const OPTION_LEN: usize = 4;

/// A view of a packet.
#[derive(Clone, Copy, Debug)]
pub struct Packet<T>(T);

impl<T: AsRef<[u8]>> Packet<T> {
    /// A view of anything.
    pub const fn new_unchecked(buffer: T) -> Self {
        Self(buffer)
    }

    /// A view of a packet whose header is all there. `Unsupported`: another version, a control packet or a critical
    /// option; `Malformed`: an option that runs past the options. Reserved bits are ignored, as section 3.4 has it.
    pub fn new_checked(buffer: T) -> Result<Self> {
        let packet = Self(buffer);
        let bytes = packet.0.as_ref();
        if bytes.len() < HEADER_LEN {
            return Err(Error::Truncated);
        }
        if u8_at(bytes, field::VERSION_LEN) >> 6 != 0 || u8_at(bytes, field::FLAGS) & (CONTROL | CRITICAL) != 0 {
            return Err(Error::Unsupported);
        }
        let end = packet.header_len();
        if bytes.len() < end {
            return Err(Error::Truncated);
        }
        let mut at = field::OPTIONS;
        while at < end {
            // The C bit of the header should have told; an option is asked too.
            if u8_at(bytes, at + field::KIND) & 0x80 != 0 {
                return Err(Error::Unsupported);
            }
            at += OPTION_LEN + usize::from(u8_at(bytes, at + field::LENGTH) & 0x1F) * 4;
        }
        if at > end {
            return Err(Error::Malformed);
        }
        Ok(packet)
    }

    /// Bytes of the header, options included.
    pub fn header_len(&self) -> usize {
        HEADER_LEN + usize::from(u8_at(self.0.as_ref(), field::VERSION_LEN) & 0x3F) * 4
    }

    /// What the payload is: an EtherType.
    pub fn protocol(&self) -> u16 {
        u16_at(self.0.as_ref(), field::PROTOCOL)
    }

    /// The network identifier.
    pub fn vni(&self) -> u32 {
        u32_at(self.0.as_ref(), field::VNI) >> 8
    }

    /// What follows the header.
    pub fn payload(&self) -> &[u8] {
        let bytes = self.0.as_ref();
        slice(bytes, self.header_len()..bytes.len())
    }
}

/// What a header without options says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repr {
    /// What the payload is: an EtherType.
    pub protocol: u16,
    /// The network identifier, at most [`MAX_VNI`].
    pub vni: u32,
}

impl Repr {
    /// Write the header to the front of `buffer`. `Truncated` when it does not fit, `Malformed` when the identifier is too
    /// large.
    pub fn emit(&self, buffer: &mut [u8]) -> Result<()> {
        let place = buffer.first_chunk_mut::<HEADER_LEN>().ok_or(Error::Truncated)?;
        if self.vni > MAX_VNI {
            return Err(Error::Malformed);
        }
        put(place, field::VERSION_LEN, [0, 0]);
        put(place, field::PROTOCOL, self.protocol.to_be_bytes());
        put(place, field::VNI, (self.vni << 8).to_be_bytes());
        Ok(())
    }
}

impl<T: AsRef<[u8]>> fmt::Display for Packet<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Geneve protocol {:#06x} vni {}", self.protocol(), self.vni())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ethernet::IPV6;

    #[test]
    fn build_and_read() {
        let mut bytes = [9; 10];
        Repr { protocol: IPV6, vni: MAX_VNI }.emit(&mut bytes).unwrap();
        let view = Packet::new_checked(&bytes).unwrap();
        assert_eq!((view.protocol(), view.vni(), view.payload()), (IPV6, MAX_VNI, &[9, 9][..]));
        assert_eq!(view.to_string(), "Geneve protocol 0x86dd vni 16777215");
        assert_eq!(Repr { protocol: IPV6, vni: MAX_VNI + 1 }.emit(&mut bytes), Err(Error::Malformed));
        assert_eq!(Repr { protocol: IPV6, vni: 1 }.emit(&mut bytes[..7]), Err(Error::Truncated));
    }

    #[test]
    fn options_are_skipped_and_critical_ones_refused() {
        let mut bytes = vec![3, 0, 8, 0, 0, 0, 7, 0, 1, 2, 0x13, 1, 9, 9, 9, 9, 1, 2, 3, 0, 0x45];
        let view = Packet::new_checked(&bytes).unwrap();
        assert_eq!((view.vni(), view.header_len(), view.payload()), (7, 20, &[0x45][..]));
        bytes[11] = 3;
        assert_eq!(Packet::new_checked(&bytes).unwrap_err(), Error::Malformed);
        bytes[11] = 1;
        bytes[18] |= 0x80;
        assert_eq!(Packet::new_checked(&bytes).unwrap_err(), Error::Unsupported);
        bytes[18] = 0;
        bytes[1] = CRITICAL;
        assert_eq!(Packet::new_checked(&bytes).unwrap_err(), Error::Unsupported);
    }

    #[test]
    fn other_kinds_are_refused() {
        assert_eq!(Packet::new_checked([0; 7]).unwrap_err(), Error::Truncated);
        assert_eq!(Packet::new_checked([1, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0]).unwrap_err(), Error::Truncated);
        assert_eq!(Packet::new_checked([0x40, 0, 8, 0, 0, 0, 0, 0]).unwrap_err(), Error::Unsupported);
        assert_eq!(Packet::new_checked([0, CONTROL, 8, 0, 0, 0, 0, 0]).unwrap_err(), Error::Unsupported);
        assert!(Packet::new_checked([0, 0x3F, 8, 0, 0, 0, 0, 0xFF]).is_ok(), "reserved bits are ignored");
    }
}
