//! ICMP for IPv4 (RFC 792).

use std::fmt;

use crate::bytes::{put, slice, slice_mut, u16_at, u32_at, u8_at};
use crate::checksum::{Delta, Sum};
use crate::{Error, Result};

mod field {
    pub const TYPE: usize = 0;
    pub const CODE: usize = 1;
    pub const CHECKSUM: usize = 2;
    pub const REST: usize = 4;
}

/// Bytes of the header of an error; the quoted packet follows.
pub const HEADER_LEN: usize = 8;
/// Type: destination unreachable.
pub const UNREACHABLE: u8 = 3;
/// Code of [`UNREACHABLE`]: fragmentation needed, but forbidden.
pub const TOO_BIG: u8 = 4;
/// Type: time exceeded.
pub const TIME_EXCEEDED: u8 = 11;
/// Type: parameter problem.
pub const PARAMETER_PROBLEM: u8 = 12;

/// A view of a message.
#[derive(Clone, Copy, Debug)]
pub struct Packet<T>(T);

impl<T: AsRef<[u8]>> Packet<T> {
    /// A view of anything.
    pub const fn new_unchecked(buffer: T) -> Self {
        Self(buffer)
    }

    /// A view of a message whose header is all there. The checksum is another matter.
    pub fn new_checked(buffer: T) -> Result<Self> {
        let packet = Self(buffer);
        if packet.0.as_ref().len() < HEADER_LEN {
            return Err(Error::Truncated);
        }
        Ok(packet)
    }

    /// Type.
    pub fn kind(&self) -> u8 {
        u8_at(self.0.as_ref(), field::TYPE)
    }

    /// Code.
    pub fn code(&self) -> u8 {
        u8_at(self.0.as_ref(), field::CODE)
    }

    /// The checksum.
    pub fn checksum(&self) -> u16 {
        u16_at(self.0.as_ref(), field::CHECKSUM)
    }

    /// The four bytes whose meaning depends on the type: the MTU of a "too big".
    pub fn rest(&self) -> u32 {
        u32_at(self.0.as_ref(), field::REST)
    }

    /// Whether it is an error, and so quotes a packet.
    pub fn is_error(&self) -> bool {
        matches!(self.kind(), UNREACHABLE | TIME_EXCEEDED | PARAMETER_PROBLEM)
    }

    /// What an error quotes.
    pub fn quoted(&self) -> &[u8] {
        let bytes = self.0.as_ref();
        slice(bytes, HEADER_LEN..bytes.len())
    }

    /// Whether the checksum is right. It covers the message alone.
    pub fn verify_checksum(&self) -> bool {
        Sum::new().bytes(self.0.as_ref()).is_right()
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Packet<T> {
    /// What an error quotes, to change; then call [`Packet::adjust`].
    pub fn quoted_mut(&mut self) -> &mut [u8] {
        let bytes = self.0.as_mut();
        let end = bytes.len();
        slice_mut(bytes, HEADER_LEN..end)
    }

    /// Write the checksum of the whole message.
    pub fn fill_checksum(&mut self) {
        put(self.0.as_mut(), field::CHECKSUM, [0, 0]);
        let checksum = Sum::new().bytes(self.0.as_ref()).checksum();
        put(self.0.as_mut(), field::CHECKSUM, checksum.to_be_bytes());
    }

    /// The checksum follows a change of what it covers.
    pub fn adjust(&mut self, delta: Delta) {
        let checksum = delta.apply(self.checksum());
        put(self.0.as_mut(), field::CHECKSUM, checksum.to_be_bytes());
    }
}

/// What a header says. The checksum is written as zero: it covers what follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repr {
    /// Type.
    pub kind: u8,
    /// Code.
    pub code: u8,
    /// The four bytes whose meaning depends on the type.
    pub rest: u32,
}

impl Repr {
    /// Write the header to the front of `buffer`. `Truncated` when it does not fit.
    pub fn emit(&self, buffer: &mut [u8]) -> Result<()> {
        let place = buffer.first_chunk_mut::<HEADER_LEN>().ok_or(Error::Truncated)?;
        put(place, field::TYPE, [self.kind, self.code]);
        put(place, field::CHECKSUM, [0, 0]);
        put(place, field::REST, self.rest.to_be_bytes());
        Ok(())
    }
}

impl<T: AsRef<[u8]>> fmt::Display for Packet<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "ICMPv4 type {} code {}", self.kind(), self.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn build_read_and_change() {
        let mut bytes = vec![0x11; HEADER_LEN + 4];
        Repr { kind: UNREACHABLE, code: TOO_BIG, rest: 1400 }.emit(&mut bytes).unwrap();
        Packet::new_unchecked(&mut bytes[..]).fill_checksum();
        let mut view = Packet::new_checked(&mut bytes[..]).unwrap();
        assert!(view.verify_checksum() && view.is_error());
        assert_eq!((view.kind(), view.code(), view.rest(), view.quoted()), (3, 4, 1400, &[0x11; 4][..]));
        view.quoted_mut()[..2].copy_from_slice(&[0x22, 0x33]);
        assert!(!view.verify_checksum());
        view.adjust(Delta::new().replace(&[0x11, 0x11], &[0x22, 0x33]));
        assert!(view.verify_checksum());
        assert_eq!(view.to_string(), "ICMPv4 type 3 code 4");
    }

    #[test]
    fn errors_and_others() {
        assert_eq!(Packet::new_checked([3; 7]).unwrap_err(), Error::Truncated);
        for kind in 0..=255 {
            let error = Packet::new_checked([kind; 8]).unwrap().is_error();
            assert_eq!(error, [3, 11, 12].contains(&kind));
        }
    }
}
