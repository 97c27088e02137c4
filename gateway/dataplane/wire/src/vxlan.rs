//! VXLAN (RFC 7348): an Ethernet frame in UDP.

use std::fmt;

use crate::bytes::{put, slice, u32_at};
use crate::{Error, Result};

mod field {
    pub const FLAGS: usize = 0;
    pub const VNI: usize = 4;
}

/// Bytes of the header.
pub const HEADER_LEN: usize = 8;
/// The UDP port it is sent to.
pub const PORT: u16 = 4789;
/// The largest network identifier.
pub const MAX_VNI: u32 = 0x00FF_FFFF;
const VALID_VNI: u8 = 0x08;

/// A view of a packet.
#[derive(Clone, Copy, Debug)]
pub struct Packet<T>(T);

impl<T: AsRef<[u8]>> Packet<T> {
    /// A view of anything.
    pub const fn new_unchecked(buffer: T) -> Self {
        Self(buffer)
    }

    /// A view of a packet whose header is all there. `Malformed` without a valid network identifier, or with reserved bits.
    pub fn new_checked(buffer: T) -> Result<Self> {
        let packet = Self(buffer);
        let bytes = packet.0.as_ref();
        if bytes.len() < HEADER_LEN {
            return Err(Error::Truncated);
        }
        let (flags, vni) = (u32_at(bytes, field::FLAGS), u32_at(bytes, field::VNI));
        if flags != u32::from(VALID_VNI) << 24 || vni & 0xFF != 0 {
            return Err(Error::Malformed);
        }
        Ok(packet)
    }

    /// The network identifier.
    pub fn vni(&self) -> u32 {
        u32_at(self.0.as_ref(), field::VNI) >> 8
    }

    /// The frame inside.
    pub fn payload(&self) -> &[u8] {
        let bytes = self.0.as_ref();
        slice(bytes, HEADER_LEN..bytes.len())
    }
}

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repr {
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
        put(place, field::FLAGS, [VALID_VNI, 0, 0, 0]);
        put(place, field::VNI, (self.vni << 8).to_be_bytes());
        Ok(())
    }
}

impl<T: AsRef<[u8]>> fmt::Display for Packet<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "VXLAN vni {}", self.vni())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn build_and_read() {
        let mut bytes = [9; 10];
        Repr { vni: MAX_VNI }.emit(&mut bytes).unwrap();
        let view = Packet::new_checked(&bytes).unwrap();
        assert_eq!((view.vni(), view.payload()), (MAX_VNI, &[9, 9][..]));
        assert_eq!(view.to_string(), "VXLAN vni 16777215");
        assert_eq!(Repr { vni: MAX_VNI + 1 }.emit(&mut bytes), Err(Error::Malformed));
    }

    #[test]
    fn other_kinds_are_refused() {
        assert_eq!(Packet::new_checked([8, 0, 0, 0, 0, 0, 0]).unwrap_err(), Error::Truncated);
        for wrong in [[0; 8], [0x88, 0, 0, 0, 0, 0, 1, 0], [8, 0, 1, 0, 0, 0, 1, 0], [8, 0, 0, 0, 0, 0, 1, 4]] {
            assert_eq!(Packet::new_checked(wrong).unwrap_err(), Error::Malformed);
        }
    }
}
