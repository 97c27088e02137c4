//! TCP (RFC 9293): the fixed header.

use crate::{be16, be32, WireError};

/// Bytes of a header without options.
pub const HEADER: usize = 20;
/// Offset of the checksum.
pub const CHECKSUM: usize = 16;
/// Flag FIN.
pub const FIN: u8 = 0x01;
/// Flag SYN.
pub const SYN: u8 = 0x02;
/// Flag RST.
pub const RST: u8 = 0x04;
/// Flag ACK.
pub const ACK: u8 = 0x10;

/// A checked view: the header with its options is inside the buffer.
#[derive(Clone, Copy, Debug)]
pub struct View<'a>(&'a [u8]);

impl<'a> View<'a> {
    /// Check the data offset and the length.
    pub fn checked(bytes: &'a [u8]) -> Result<Self, WireError> {
        if bytes.len() < HEADER {
            return Err(WireError::Truncated);
        }
        let header = usize::from(bytes[12] >> 4) * 4;
        if header < HEADER {
            return Err(WireError::Malformed);
        }
        if bytes.len() < header {
            return Err(WireError::Truncated);
        }
        Ok(Self(bytes))
    }

    /// Source and destination port.
    #[must_use]
    pub fn ports(&self) -> (u16, u16) {
        (be16(self.0, 0), be16(self.0, 2))
    }

    /// Sequence number.
    #[must_use]
    pub fn seq(&self) -> u32 {
        be32(self.0, 4)
    }

    /// Acknowledgement number.
    #[must_use]
    pub fn ack(&self) -> u32 {
        be32(self.0, 8)
    }

    /// The flags byte.
    #[must_use]
    pub fn flags(&self) -> u8 {
        self.0[13]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_read_back() {
        let mut bytes = [0u8; 24];
        bytes[..14].copy_from_slice(&[0, 80, 1, 2, 0, 0, 0, 5, 0, 0, 0, 6, 0x60, SYN | ACK]);
        let view = View::checked(&bytes).unwrap();
        assert_eq!((view.ports(), view.seq(), view.ack(), view.flags()), ((80, 258), 5, 6, SYN | ACK));
    }

    #[test]
    fn lengths_are_checked() {
        let mut bytes = [0u8; 20];
        assert_eq!(View::checked(&bytes[..19]).unwrap_err(), WireError::Truncated);
        assert_eq!(View::checked(&bytes).unwrap_err(), WireError::Malformed);
        bytes[12] = 0x60;
        assert_eq!(View::checked(&bytes).unwrap_err(), WireError::Truncated);
    }
}
